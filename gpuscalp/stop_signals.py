"""Signals that stop a process, heard at once: as an interrupt, or by a running loop.

Light at import: a command hears them before it imports what it needs. Never: says what a stop means.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn


@contextmanager
def stopped_as_interrupted() -> Iterator[None]:
    """Let SIGTERM interrupt the block as Ctrl-C does, at once, so that what it has begun is ended.

    Otherwise SIGTERM would end the process, unless that is a command, and be forgotten where a library lets
    it go. And Ctrl-C would wait for the next ``await`` of a coroutine: asyncio takes it from Python's own
    handler, and from no other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled by the main thread only
        return
    before = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}
    outer, ctrl_c = before[signal.SIGTERM], signal.getsignal(signal.SIGINT)
    # A block inside another one notes for both.
    stop = outer if isinstance(outer, _Stop) else _Stop()
    # A process that a shell has put into the background hears none.
    if ctrl_c in (signal.default_int_handler, stop):
        before[signal.SIGINT] = ctrl_c
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hear_stops(stop: Callable[[str], object]) -> None:
    """Let SIGINT, SIGTERM and SIGHUP (the terminal is closed) be heard by the running loop, by their names.

    One that whoever began this process lets it ignore stays ignored. Not in the main thread none is heard.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with suppress(ValueError, RuntimeError):  # not the main thread
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, stop, signal.Signals(number).name)


def interrupt_if_stopped() -> None:
    """Interrupt a block of ``stopped_as_interrupted`` that has been told to stop, and went on.

    An interrupt is lost in a callback of which Python passes no error on, and where a library catches it.

    Raises
    ------
    KeyboardInterrupt    a signal has come since the outermost block began
    """
    stop = signal.getsignal(signal.SIGTERM)
    if isinstance(stop, _Stop) and stop.wanted:
        raise KeyboardInterrupt


class _Stop:
    """Takes SIGTERM as Ctrl-C, and notes that one of them came."""

    def __init__(self) -> None:
        self.wanted = False

    def __call__(self, number: int, frame: FrameType | None) -> NoReturn:
        self.wanted = True
        signal.default_int_handler(number, frame)
