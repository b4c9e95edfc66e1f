"""The process of a worker: answers frames until its session is gone or its device fails.

Owns: the loop, the heartbeat, the canary, the last words. One thread; nothing is done per symbol and nothing
large is allocated per frame. Never: judges its own answers, and never goes on after an error of the device.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NoReturn, final

import msgspec
import numpy as np

from gpuscalp.errors import ShapeError
from gpuscalp.lifeline import end_with
from gpuscalp.ops.packed import packed_bytes
from gpuscalp.schema import NS_PER_MS
from gpuscalp.worker.engines import Opened, open_inference
from gpuscalp.worker.faults import Fault, fault_of
from gpuscalp.worker.link import Answered, Canary, Failed, Frame, Link, Message, Ready, Sync, margins_digest
from gpuscalp.worker.memory import U8, Board, mapped, read_state, unpack_frame
from gpuscalp.worker.sabotage import Sabotage
from gpuscalp.worker.spec import WorkerSpec

BEAT_MS: Final = 50
_DETAIL_MAX: Final = 2_000
_STANDARD_INPUT: Final = 0


def main(arguments: Sequence[str]) -> int:
    """Serve a session; ``arguments`` are descriptors: socket, spec, ring, board."""
    # The end of the socket says so too, but a process that waits for its device does not read it.
    end_with(_STANDARD_INPUT)
    # The session ends its workers itself: neither Ctrl-C nor the stop of a service is meant for them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Where cores are few: that a frame wakes us must not take the core away from the session, whose own step
    # comes next. We run when it waits for us. (Two cores, EPYC: p99 of Fleet.begin 77 µs instead of 750.)
    with suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    # The thread that begins us may be kept to one core (gpuscalp.live.placement); its process never is.
    with suppress(OSError):
        os.sched_setaffinity(0, os.sched_getaffinity(os.getppid()))
    link_at, spec_at, ring_at, board_at = map(int, arguments)
    link = Link(socket.socket(fileno=link_at))
    opened: Opened | None = None
    try:
        spec = msgspec.json.decode(bytes(mapped(spec_at)), type=WorkerSpec)
        sabotage = Sabotage(spec.faults)
        sabotage.at_start()
        opened = open_inference(spec)
        _Service(link, spec, opened, sabotage, ring=mapped(ring_at), board=mapped(board_at)).run()
    except EOFError:
        return 0
    except Exception as error:
        traceback.print_exc()
        fault = Fault.START_FAILED if opened is None else fault_of(error)
        if fault is not None:
            with suppress(EOFError):
                _send(link, Failed(fault, f"{type(error).__name__}: {error}"[:_DETAIL_MAX]))
        sys.stderr.flush()
        # Without taking the interpreter down: that would call into a device that no longer answers.
        os._exit(1)


@final
class _Service:
    """Answers one session.

    Parameters
    ----------
    ring, board : the shared memories
    """

    def __init__(
        self, link: Link, spec: WorkerSpec, opened: Opened, sabotage: Sabotage, *, ring: U8, board: U8
    ) -> None:
        symbol_count = len(spec.instruments)
        needed = packed_bytes(Board.fields(symbol_count, opened.margins_shape))
        if needed != len(board):
            raise ShapeError(
                "session and model differ in members, classes or symbols",
                value=f"{len(board)} bytes for answers, {needed} needed",
            )
        self._link, self._opened, self._sabotage = link, opened, sabotage
        self._inference = opened.inference
        self._symbol_count = symbol_count
        self._ring, self._board = ring, Board.of(board, symbol_count, opened.margins_shape)
        self._slots = len(self._board.digests)
        self._canary_ns = spec.canary_ms * NS_PER_MS

    def run(self) -> NoReturn:
        """Serve until the session is gone, which is an EOFError."""
        self._canary()
        gc.collect()
        gc.freeze()  # all of this stays: nothing to look at again
        _send(self._link, Ready(self._opened.device))
        canary_at_ns = time.monotonic_ns() + self._canary_ns
        while True:
            self._board.beat[0] += 1
            received = self._link.receive()
            if received is not None:
                self._obey(*received)
            else:
                left_ms = (canary_at_ns - time.monotonic_ns()) / NS_PER_MS
                self._link.wait(min(max(left_ms, 0.0), BEAT_MS))
            if time.monotonic_ns() >= canary_at_ns:
                self._canary()
                canary_at_ns = time.monotonic_ns() + self._canary_ns

    def _obey(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Frame):
            self._answer(message)
            return
        assert isinstance(message, Sync)
        self._inference.restore(read_state(descriptors[0], message.layout))
        os.close(descriptors[0])

    def _answer(self, frame: Frame) -> None:
        closed = unpack_frame(
            self._ring, frame.at, frame.tick_count, self._symbol_count, restart=frame.restart
        )
        self._sabotage.before_frame()
        answer = self._inference.step(closed)
        self._sabotage.after_frame(answer)
        slot = frame.index % self._slots
        self._board.digests[slot] = answer.digests
        self._board.margins[slot] = answer.margins
        _send(self._link, Answered(frame.index, time.monotonic_ns() - frame.sent_ns))

    def _canary(self) -> None:
        margins = self._inference.margins(self._opened.canary)
        digest = margins_digest(self._sabotage.canary(np.ascontiguousarray(margins)))
        with suppress(BlockingIOError):  # nobody has read for minutes: there will be another one
            self._link.send(Canary(digest))


def _send(link: Link, message: Message) -> None:
    """Send, and wait for room if the session does not read at the moment."""
    while True:
        try:
            link.send(message)
            return
        except BlockingIOError:
            link.wait(BEAT_MS, to_send=True)
