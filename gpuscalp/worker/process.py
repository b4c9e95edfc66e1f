"""One process of a worker, as its parent sees it.

Owns: how it is started, its socket, its memory, its standard error, its end. Never: decides what its words
mean.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Final, final

import msgspec

from gpuscalp.ops.packed import packed_bytes
from gpuscalp.redaction import without_secrets
from gpuscalp.worker.link import Link, Message
from gpuscalp.worker.memory import Board, anonymous, mapped
from gpuscalp.worker.spec import WorkerSpec

_LINES_KEPT: Final = 30
_READ_BYTES: Final = 1 << 16
# Of standard error at a time: more than the pipe holds, less than one who never stops writes.
_READS_MAX: Final = 4
# A process that has closed its socket is about to end: so long its exit code is waited for.
_EXIT_WAIT_S: Final = 0.05
_ONE_THREAD: Final = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip


@final
class Process:
    """A process that has just been started.

    Parameters
    ----------
    spec : what it is told
    ring : descriptor of the memory of frames
    symbol_count, margins_shape : S and (M, R, K) of its answers

    Raises
    ------
    OSError    it cannot be started
    """

    def __init__(
        self, spec: WorkerSpec, *, ring: int, symbol_count: int, margins_shape: tuple[int, int, int]
    ) -> None:
        with ExitStack() as theirs, ExitStack() as ours:

            def memory(size: int) -> int:
                descriptor = anonymous(size)
                theirs.callback(os.close, descriptor)
                return descriptor

            encoded = msgspec.json.encode(spec)
            spec_at = memory(len(encoded))
            os.write(spec_at, encoded)
            board_at = memory(packed_bytes(Board.fields(symbol_count, margins_shape)))
            self.board = Board.of(mapped(board_at), symbol_count, margins_shape)
            self.link, their_end = Link.pair()
            ours.callback(self.link.close)
            theirs.callback(their_end.close)
            errors, errors_end = os.pipe()
            theirs.callback(os.close, errors_end)
            self._errors = ours.enter_context(os.fdopen(errors, "rb", buffering=0))
            os.set_blocking(errors, False)
            passed = (their_end.fileno(), spec_at, ring, board_at)
            self._popen: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-P", "-m", "gpuscalp.worker", *map(str, passed)],
                stdin=subprocess.PIPE,  # nothing is written: that it closes says that we are gone
                stdout=errors_end,
                stderr=errors_end,
                pass_fds=passed,
                env=environment_of(spec, os.environ),
                start_new_session=True,
            )
            ours.pop_all()  # from here on they are kept, until the process is killed
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._rest = b""

    @property
    def pid(self) -> int:
        return self._popen.pid

    def messages(self) -> Iterator[Message]:
        """Yield what it has said; also takes up its standard error, which must not fill.

        Raises
        ------
        EOFError               it has ended, or is about to
        msgspec.DecodeError    it has said what is no message
        """
        self._read_errors()
        while (received := self.link.receive()) is not None:
            yield received[0]

    def end(self) -> str:
        """Return how a process that has closed its socket has ended, and its last lines."""
        code = self._popen.returncode if self.gone(_EXIT_WAIT_S) else None
        if code is None:
            words = "ending"
        else:
            words = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return "\n".join([words, *self.last_lines()])

    def last_lines(self) -> list[str]:
        """Return the end of what it has written to standard error."""
        self._read_errors()
        rest = self._rest.decode(errors="replace")
        return [*self._lines, rest] if rest else [*self._lines]

    def kill(self) -> None:
        """End it, without waiting; nothing is heard from it any more. ``gone`` takes its remains up."""
        self._popen.kill()
        self.link.close()
        self._read_errors()
        self._errors.close()
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def gone(self, wait_s: float) -> bool:
        """Say whether nothing is left of a killed process. One that hangs in a driver may stay for long."""
        if self._popen.poll() is not None or not wait_s:
            return self._popen.returncode is not None
        # To the moment: Popen.wait looks again after 1, 2, 4 … ms.
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:  # no descriptor is left, or the kernel has none of this kind
            return False
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(wait_s * 1e3)
        os.close(descriptor)
        return self._popen.poll() is not None

    def _read_errors(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(_READS_MAX):
                if self._errors.closed or not (data := os.read(self._errors.fileno(), _READ_BYTES)):
                    return
                *whole, self._rest = (self._rest + data).split(b"\n")
                self._rest = self._rest[-_READ_BYTES:]
                self._lines.extend(line.decode(errors="replace") for line in whole)


def environment_of(spec: WorkerSpec, ours: Mapping[str, str]) -> dict[str, str]:
    """Return ours without secrets, with one GPU, one thread, and the same packages whatever the folder."""
    environment = without_secrets(ours) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= dict.fromkeys(_ONE_THREAD, "1")
    if spec.device == "cuda":
        visible = ours.get("CUDA_VISIBLE_DEVICES")
        # One that the session does not see is no GPU of ours: none at all then, which CUDA says.
        listed = [str(spec.gpu)] * (spec.gpu + 1) if visible is None else visible.split(",")
        environment["CUDA_VISIBLE_DEVICES"] = listed[spec.gpu].strip() if spec.gpu < len(listed) else ""
    return environment
