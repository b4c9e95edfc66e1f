"""The small messages between a session and a worker: what the bytes in shared memory mean, and when.

Owns: their form, and both ends of the socket that keeps them apart and in order. Never: bulk data.
"""

from __future__ import annotations

import hashlib
import select
import socket
from typing import Final, final

import msgspec
from msgspec import Struct

from gpuscalp.schema import F32
from gpuscalp.worker.faults import Fault
from gpuscalp.worker.memory import StateLayout

_BYTES_MAX: Final = 1 << 16


class Sync(Struct, frozen=True, tag=True):
    """To the worker: begin from this state; its memory comes with the message."""

    layout: StateLayout


class Frame(Struct, frozen=True, tag=True):
    """To the worker: compute the frame that lies there."""

    index: int
    at: int
    tick_count: int
    restart: bool
    sent_ns: int  # monotonic


class Ready(Struct, frozen=True, tag=True):
    """To the session: driver, kernels and model are loaded and warm."""

    device: dict[str, str | int | float | bool | None]


class Answered(Struct, frozen=True, tag=True):
    """To the session: the answer to a frame lies in its slot."""

    index: int
    spent_ns: int  # from sent_ns until it lay there


class Canary(Struct, frozen=True, tag=True):
    """To the session: what the canary's margins were."""

    digest: str


class Failed(Struct, frozen=True, tag=True):
    """To the session: the last words."""

    fault: Fault
    detail: str


Message = Sync | Frame | Ready | Answered | Canary | Failed

_DECODER: Final = msgspec.msgpack.Decoder(Message)
_ENCODER: Final = msgspec.msgpack.Encoder()


def margins_digest(margins: F32) -> str:
    """Return the digest by which two processes compare the canary's margins."""
    return hashlib.sha256(margins.tobytes()).hexdigest()


@final
class Link:
    """One end. The kernel keeps messages whole; a closed other end is the end of the process behind it."""

    def __init__(self, own: socket.socket) -> None:
        self._socket = own
        own.setblocking(False)

    @staticmethod
    def pair() -> tuple[Link, socket.socket]:
        """Return our end, and the other as it goes to the child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return Link(ours), theirs

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message, *, descriptor: int | None = None) -> None:
        """Send without waiting.

        Raises
        ------
        BlockingIOError    the other end has not read for a long time
        OSError            the kernel cannot at the moment
        EOFError           there is no other end any more
        """
        data = _ENCODER.encode(message)
        try:
            socket.send_fds(self._socket, [data], [] if descriptor is None else [descriptor])
        except ConnectionError as error:
            raise EOFError from error

    def receive(self) -> tuple[Message, list[int]] | None:
        """Return the next message and the descriptors that came with it; None: there is none yet.

        Raises
        ------
        EOFError               there is no other end any more, and nothing that it had sent
        msgspec.DecodeError    it is no message
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _BYTES_MAX, 1)
        except BlockingIOError:
            return None
        except ConnectionError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        return _DECODER.decode(data), descriptors

    def wait(self, timeout_ms: float, *, to_send: bool = False) -> None:
        """Return when there may be something to read (or room to send), or after the time."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT if to_send else select.POLLIN)
        poll.poll(timeout_ms)

    def close(self) -> None:
        self._socket.close()
