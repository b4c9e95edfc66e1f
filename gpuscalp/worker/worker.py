"""One worker: what it is worth at the moment, and everything that has become of it.

    STARTING ──ready, synced──► SHADOW ──agrees for long enough──► LEADING
        ▲                          │                                  │
        └── after a while ─────  FAILED  ◄─────────── any fault ──────┘

Owns: the state, the comparison of its answers, its faults, when its next process is started. Never: waits.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from enum import StrEnum
from itertools import islice
from typing import Any, Final, final

import numpy as np
from msgspec import DecodeError, structs

from gpuscalp.config.live import EngineConfig
from gpuscalp.schema import F32, NS_PER_MS, NS_PER_S
from gpuscalp.worker.faults import Fault
from gpuscalp.worker.history import History
from gpuscalp.worker.link import Answered, Canary, Failed, Frame, Message, Ready, Sync
from gpuscalp.worker.memory import SLOTS, StateLayout
from gpuscalp.worker.process import Process
from gpuscalp.worker.spec import WorkerSpec

_LOG: Final = logging.getLogger("gpuscalp.worker")
# What is not needed yet may take longer: taking the state over, and catching up.
_SHADOW_LAG_NS: Final = 5 * NS_PER_S
# Without a frame to answer a sign of life is due; a busy machine may delay it.
_BEAT_NS: Final = NS_PER_S
_TIMES_KEPT: Final = 1_000
# Who never stops talking is not listened to for ever; what fits into a socket is less.
_AT_ONCE_MAX: Final = 1_000
_DETAIL_MAX: Final = 4_000


class State(StrEnum):
    STARTING = "starting"  # a process loads; or has, and waits for the next frame
    SHADOW = "shadow"  # it answers and is compared
    LEADING = "leading"  # its margins count
    FAILED = "failed"


@final
class Worker:
    """One worker of a fleet.

    Parameters
    ----------
    number : of the fleet's workers, from 0
    launch : starts a process
    history : what the session itself has found
    canary : digest of the margins that the bundle gives for its canary rows
    monotonic_ns : the clock

    Attributes
    ----------
    state, spec, number : as the names say
    ready : a process waits for the state to begin from
    """

    def __init__(
        self,
        number: int,
        spec: WorkerSpec,
        config: EngineConfig,
        *,
        launch: Callable[[WorkerSpec], Process],
        history: History,
        canary: str,
        monotonic_ns: Callable[[], int],
    ) -> None:
        self.number, self.spec, self.state = number, spec, State.FAILED
        self.ready = False
        self._config, self._launch, self._history, self._canary = config, launch, history, canary
        self._now_ns = monotonic_ns
        self._process: Process | None = None
        self._ended: Process | None = None  # killed, and perhaps still there
        self._restart_at_ns = 0
        self._failures = 0  # in a row: since it has led for long enough
        self._starts = 0
        self._faults: Counter[str] = Counter()
        self._last_fault: dict[str, Any] | None = None
        self._device: dict[str, Any] = {}
        self._startup_s: float | None = None
        self._times_ns: deque[int] = deque(maxlen=_TIMES_KEPT)
        self._frames_answered = self._frames_agreed = 0
        # Index of the newest frame sent, answered, and with its margins compared; when it last got on.
        self._sent: int = -1
        self._answered: int = -1
        self._compared: int = -1
        self._agreed_in_row = 0
        self._since_ns = self._progress_ns = self._beat_ns = 0
        self._beat = -1

    @property
    def failed(self) -> bool:
        return self.state is State.FAILED

    @property
    def live(self) -> bool:
        """It is sent frames."""
        return self.state in (State.SHADOW, State.LEADING)

    def start(self) -> None:
        """Start a process. It is told of the injected faults only if it is the first, or they are for all."""
        faults = tuple(fault for fault in self.spec.faults if fault.always or not self._starts)
        spec = structs.replace(self.spec, faults=faults)
        self._starts += 1
        self._since_ns = self._now_ns()
        self.state, self.ready = State.STARTING, False
        try:
            self._process = self._launch(spec)
        except OSError as error:
            self.fail(Fault.START_FAILED, f"no process: {error}")
            return
        _LOG.info(
            "worker %d starts: %s, rows %d to %d, process %d",
            self.number, _place(self.spec), self.spec.rows[0], self.spec.rows[1] - 1, self._process.pid,
        )  # fmt: skip

    def look(self) -> None:
        """Take up what its process has said, and judge what it has not said. Call it often."""
        if self.failed:
            self._revive()
            return
        process = self.process
        try:
            for message in islice(process.messages(), _AT_ONCE_MAX):
                self._take(message)
                if self._process is not process:  # it has failed
                    return
        except EOFError:
            starting = self.state is State.STARTING and not self.ready
            self.fail(Fault.START_FAILED if starting else Fault.KILLED, process.end())
            return
        except DecodeError as error:
            self.fail(Fault.WRONG_ANSWER, f"no message of a worker: {error}")
            return
        self._judge()

    def sync(self, layout: StateLayout, descriptor: int, index: int) -> None:
        """Hand over the state before frame ``index``; from this frame on it is a shadow."""
        assert self.ready
        self.ready = False
        self._sent = self._answered = self._compared = index - 1
        self._agreed_in_row, self._beat = 0, -1
        self._since_ns = self._progress_ns = self._beat_ns = self._now_ns()
        self.state = State.SHADOW
        self._send(Sync(layout), descriptor=descriptor)
        if not self.failed:
            _LOG.info("worker %d runs as a shadow from frame %d", self.number, index)

    def send(self, frame: Frame) -> None:
        """Hand over the next frame."""
        if frame.index - self._compared > SLOTS:
            self.fail(Fault.BEHIND, f"{SLOTS} frames wait")
            return
        if not self.owes:
            self._progress_ns = self._now_ns()
        self._sent = frame.index
        self._send(frame)

    @property
    def owes(self) -> int:
        """Frames that it has been sent and has not answered."""
        return self._sent - self._answered

    @property
    def oldest_owed(self) -> int | None:
        """Index of the oldest frame that its process may still read."""
        return self._answered + 1 if self.live and self.owes else None

    @property
    def answer(self) -> F32:
        """float32[M, R, K] of the newest frame that it has answered: a view."""
        answer: F32 = self.process.board.margins[self._answered % SLOTS]
        return answer

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int | None:
        """Of its process; None: it has none at the moment."""
        process = self._process
        return None if process is None else process.pid

    def promote(self) -> None:
        """Let it lead if it has agreed for long enough and owes nothing."""
        agreed = self._agreed_in_row >= self._config.agree_batches
        if self.state is State.SHADOW and agreed and not self.owes:
            self.state, self._since_ns = State.LEADING, self._now_ns()
            _LOG.info("worker %d leads after %d equal frames", self.number, self._agreed_in_row)

    def compare(self) -> None:
        """Compare the margins of the answers of which it is known by now which margins count."""
        while self._compared < min(self._answered, self._history.settled):
            self._compared += 1
            wanted = self._history.margins(self._compared)
            if self.state is not State.SHADOW or wanted is None:
                continue
            found = self.process.board.margins[self._compared % SLOTS]
            mine = wanted[:, self.spec.rows[0] : self.spec.rows[1]]
            differing = int((found.view(np.uint32) != mine.view(np.uint32)).sum())
            if differing:
                detail = f"frame {self._compared}: {differing} of {found.size} margins differ"
                self.fail(Fault.WRONG_ANSWER, detail)
                return
            self._agreed_in_row += 1
            self._frames_agreed += 1

    def fail(self, fault: str, detail: str) -> None:
        """End its process, whatever it is doing; another one is started after a while."""
        if self.failed:
            return
        now_ns = self._now_ns()
        if self.state is State.LEADING and now_ns - self._since_ns >= self._config.restart_max_ms * NS_PER_MS:
            self._failures = 0
        wait_ms = min(self._config.restart_ms << min(self._failures, 32), self._config.restart_max_ms)
        self._failures += 1
        self._restart_at_ns = now_ns + wait_ms * NS_PER_MS
        was, self.ready = self.state, False
        if len(detail) > _DETAIL_MAX:
            detail = f"{detail[: _DETAIL_MAX // 4]} … {detail[-_DETAIL_MAX * 3 // 4 :]}"
        self.kill()
        self._faults[str(fault)] += 1
        self._last_fault = {"reason": str(fault), "detail": detail, "at_ns": time.time_ns()}
        _LOG.warning(
            "worker %d failed while %s: %s: %s; the next one starts in %d ms",
            self.number, was, fault, detail.replace("\n", " | "), wait_ms,
        )  # fmt: skip

    def kill(self) -> None:
        """End its process for good, without waiting."""
        self.state = State.FAILED
        if self._process is not None:
            self._process.kill()
            self._ended, self._process = self._process, None

    def gone(self, wait_s: float) -> bool:
        """Say whether nothing is left of a process that was killed, after waiting for so long."""
        if self._ended is not None and self._ended.gone(wait_s):
            self._ended = None
        return self._ended is None

    def status(self) -> dict[str, Any]:
        """Return everything about it, ready for JSON."""
        left_ms = max(0, self._restart_at_ns - self._now_ns()) // NS_PER_MS
        p50, p99 = np.percentile(self._times_ns, (50, 99)) / 1e3 if self._times_ns else (None, None)
        return {
            "worker": self.number,
            "state": str(self.state),
            "device": self.spec.device,
            "gpu": self.spec.gpu if self.spec.device == "cuda" else None,
            "rows": list(self.spec.rows),
            "pid": self.pid,
            "frames_answered": self._frames_answered,
            "frames_agreed": self._frames_agreed,
            "agreed_in_row": self._agreed_in_row,
            "frames_owed": self.owes if self.live else 0,
            "faults": dict(self._faults),
            "last_fault": self._last_fault,
            "restarts": max(0, self._starts - 1),
            "restart_in_ms": int(left_ms) if self.failed else None,
            "answer_p50_us": None if p50 is None else float(p50),
            "answer_p99_us": None if p99 is None else float(p99),
            "startup_s": self._startup_s,
            "device_facts": self._device,
        }

    def why(self) -> str:
        """Return what keeps it from leading, in words: one of a few, since a metric has them as a label."""
        name = f"worker {self.number}"
        if self.failed and self._last_fault is not None:
            stuck = self._ended is not None and self._now_ns() >= self._restart_at_ns
            rest = f"; its process {self._ended.pid} does not end" if stuck and self._ended else ""
            return f"{name} failed: {self._last_fault['reason']}{rest}"
        return f"{name} is {self.state}"

    def _take(self, message: Message) -> None:
        if isinstance(message, Answered):
            self._take_answer(message)
        elif isinstance(message, Canary):
            if message.digest != self._canary:
                self.fail(Fault.WRONG_ANSWER, "the margins of the canary rows are not the bundle's")
        elif isinstance(message, Failed):
            self.fail(message.fault, message.detail)
        elif not isinstance(message, Ready) or self.ready or self.state is not State.STARTING:
            self.fail(Fault.WRONG_ANSWER, f"{type(message).__name__} is not for a worker to say now")
        else:
            self.ready, self._device = True, message.device
            self._startup_s = (self._now_ns() - self._since_ns) / NS_PER_S

    def _take_answer(self, message: Answered) -> None:
        index = self._answered + 1
        if message.index != index or index > self._sent:
            self.fail(Fault.WRONG_ANSWER, f"frame {message.index} was answered where {index} was due")
            return
        self._answered = index
        self._progress_ns = self._beat_ns = self._now_ns()
        self._times_ns.append(message.spent_ns)
        self._frames_answered += 1
        differing = int((self.process.board.digests[index % SLOTS] != self._history.digests(index)).sum())
        if differing:
            self.fail(Fault.WRONG_ANSWER, f"frame {index}: the features of {differing} symbols differ")
        else:
            self.compare()

    def _judge(self) -> None:
        now_ns = self._now_ns()
        if self.state is State.STARTING:
            if not self.ready and now_ns - self._since_ns > self._config.start_ms * NS_PER_MS:
                self.fail(Fault.START_FAILED, f"not ready after {self._config.start_ms} ms")
            return
        beat = int(self.process.board.beat[0])
        if beat != self._beat:
            self._beat, self._beat_ns = beat, now_ns
        leading = self.state is State.LEADING
        answer_ns = self._config.answer_ms * NS_PER_MS
        if self.owes and now_ns - self._progress_ns > (answer_ns if leading else _SHADOW_LAG_NS):
            self.hang()
        elif now_ns - self._beat_ns > (max(_BEAT_NS, answer_ns) if leading else _SHADOW_LAG_NS):
            self.fail(Fault.HANG, "no sign of life")

    def hang(self) -> None:
        """Fail: an answer that it owes is not there in time."""
        waited_ms = (self._now_ns() - self._progress_ns) // NS_PER_MS
        self.fail(Fault.HANG, f"frame {self._answered + 1} has no answer after {waited_ms} ms")

    def _revive(self) -> None:
        """Start the next process when it is time, and when nothing is left of the last one on its device."""
        if self.gone(0.0) and self._now_ns() >= self._restart_at_ns:
            self.start()

    def _send(self, message: Sync | Frame, *, descriptor: int | None = None) -> None:
        try:
            self.process.link.send(message, descriptor=descriptor)
        except BlockingIOError:
            self.fail(Fault.BEHIND, "it does not read")
        except OSError as error:
            self.fail(Fault.BEHIND, f"nothing can be sent to it: {error}")
        except EOFError:
            self.fail(Fault.KILLED, self.process.end())


def _place(spec: WorkerSpec) -> str:
    return f"GPU {spec.gpu}" if spec.device == "cuda" else "CPU"
