"""All workers of a session, as one answer to each frame.

Owns: what is sent to whom, what is waited for, which margins count, which frames are lost. Used from one
thread. Never: computes a feature; what it compares with is its caller's.

Order of calls: ``start``; then for each closed frame ``begin``, the caller's own step, ``finish``, perhaps
``reject``, ``settle``; ``close``.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from gpuscalp.bundle import read_contract
from gpuscalp.config.live import EngineConfig
from gpuscalp.frames import ClosedFrames
from gpuscalp.ops.row_digest import U64
from gpuscalp.schema import F32, NS_PER_MS
from gpuscalp.worker.faults import Fault
from gpuscalp.worker.history import History
from gpuscalp.worker.link import Frame, margins_digest
from gpuscalp.worker.memory import (
    RING_BYTES,
    SLOTS,
    Ring,
    anonymous,
    frame_bytes,
    mapped,
    pack_frame,
    write_state,
)
from gpuscalp.worker.process import Process
from gpuscalp.worker.spec import WorkerSpec
from gpuscalp.worker.worker import State, Worker

_LOG: Final = logging.getLogger("gpuscalp.worker")
# SIGKILL takes milliseconds; a process that is stuck in a driver may take for ever.
_CLOSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Found:
    """What the workers say about one frame.

    Attributes
    ----------
    margins : float32[M, S, K]   a view, overwritten by the next frame; rows in ``missing`` are NaN
    missing : rows that no leading worker answers, ascending
    lost : a leading worker failed at this frame: no prediction of it counts
    """

    margins: F32
    missing: tuple[range, ...]
    lost: bool


@final
class Fleet:
    """The workers of one session.

    Parameters
    ----------
    specs : their rows do not overlap (``shard``)
    config : how long is waited
    symbol_count, member_count, class_count : S, M and K
    monotonic_ns : the clock

    Raises
    ------
    ModelError    the bundle cannot be read
    """

    def __init__(
        self,
        specs: Sequence[WorkerSpec],
        config: EngineConfig,
        *,
        symbol_count: int,
        member_count: int,
        class_count: int,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._config, self._symbol_count, self._now_ns = config, symbol_count, monotonic_ns
        self._margins = np.zeros((member_count, symbol_count, class_count), np.float32)
        self._history = History(self._margins.shape)
        self._ring = Ring(RING_BYTES)
        self._ring_at = ring_at = anonymous(RING_BYTES)
        self._ring_memory = mapped(ring_at)
        self._next_index = 0
        self._leading: tuple[Worker, ...] = ()
        self._lost_frames, self._lost_index = 0, -1
        self._began_ns = 0

        def launch(spec: WorkerSpec) -> Process:
            shape = (member_count, spec.rows[1] - spec.rows[0], class_count)
            return Process(spec, ring=ring_at, symbol_count=symbol_count, margins_shape=shape)

        self._workers = [
            Worker(
                number,
                spec,
                config,
                launch=launch,
                history=self._history,
                canary=_canary_digest(spec),
                monotonic_ns=monotonic_ns,
            )
            for number, spec in enumerate(specs)
        ]

    def start(self) -> None:
        """Start all processes. They are not waited for."""
        for worker in self._workers:
            worker.start()

    def begin(self, closed: ClosedFrames, checkpoint: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Hand one closed frame to every worker that can take it; call it before the frame's own step.

        Parameters
        ----------
        checkpoint : returns the state before this frame; called only if a worker begins with it. Its arrays
            are copied before ``begin`` returns: they need not be copies themselves
        """
        for worker in self._workers:
            worker.look()
            worker.promote()
        index, self._next_index = self._next_index, self._next_index + 1
        self._sync([worker for worker in self._workers if worker.ready], index, checkpoint)
        if any(self._live()):
            self._send(closed, index)
        self._leading = tuple(worker for worker in self._live() if worker.state is State.LEADING)
        self._began_ns = self._now_ns()

    def finish(self, digests: U64, *, wait: bool) -> Found:
        """Compare all answers that have come; wait for those that count.

        Parameters
        ----------
        digests : uint64[S]   of the caller's own rows of this frame (``chunk_digests``)
        wait : the frame will be predicted; otherwise no margins are returned, and nobody waits for the answer
        """
        self._history.keep(digests)
        for worker in self._live():
            worker.look()
        # After a stall frames come that nobody predicts, one upon the other: who leads may be slower than we.
        if wait or any(worker.owes > SLOTS // 2 for worker in self._leading):
            self._wait()
        lost = any(worker.failed for worker in self._leading)
        if lost:
            self._lose()
        filled = self._leading if wait and not lost else ()
        self._margins.fill(np.nan)
        for worker in filled:
            first, past = worker.spec.rows
            self._margins[:, first:past] = worker.answer
        return Found(self._margins, _others([w.spec.rows for w in filled], self._symbol_count), lost)

    def settle(self, margins: F32 | None) -> None:
        """Say which margins count in this frame, float32[M, S, K]; None: it has no predictions."""
        self._history.settle(margins)
        for worker in self._live():
            worker.compare()

    def reject(self, row: int) -> None:
        """Fail the worker whose margins of ``row`` its caller has found wrong: this frame is lost."""
        for worker in self._leading:
            if worker.spec.rows[0] <= row < worker.spec.rows[1]:
                worker.fail(Fault.WRONG_ANSWER, f"frame {self._history.kept}: margins of row {row} differ")
                self._lose()

    def fail(self, gpu: int | None, reason: str) -> None:
        """Fail the workers of a GPU, or all, for a reason that was found elsewhere."""
        for worker in self._workers:
            if gpu is None or worker.spec.gpu == gpu:
                worker.fail(reason, "found from outside")

    def status(self) -> dict[str, Any]:
        """Return how things stand, ready for JSON."""
        idle = [worker for worker in self._workers if worker.state is not State.LEADING]
        uncovered = _others([worker.spec.rows for worker in self._workers], self._symbol_count)
        reasons = [worker.why() for worker in idle] + ["some rows have no worker"] * bool(uncovered)
        return {
            "leading": not reasons,
            "why": "cpu: " + "; ".join(reasons) if reasons else "workers lead",
            "lost_frames": self._lost_frames,
            "workers": [worker.status() for worker in self._workers],
        }

    @property
    def gpus(self) -> frozenset[int]:
        """Numbers of the GPUs that are used, as CUDA counts."""
        return frozenset(worker.spec.gpu for worker in self._workers if worker.spec.device == "cuda")

    def pids(self) -> tuple[int, ...]:
        """Return the processes that run; may be called in any thread."""
        return tuple(pid for worker in self._workers if (pid := worker.pid) is not None)

    def close(self) -> bool:
        """End all processes, which have nothing to finish; return whether all are gone."""
        for worker in self._workers:
            worker.kill()
        until_s = time.monotonic() + _CLOSE_S
        left = [each for each in self._workers if not each.gone(max(0.0, until_s - time.monotonic()))]
        for worker in left:
            _LOG.error("worker %d: its process cannot be ended", worker.number)
        if self._ring_at >= 0:
            os.close(self._ring_at)
            self._ring_at = -1
        return not left

    def gone(self) -> bool:
        """Return whether no process is left, after ``close``; does not wait."""
        return all(worker.gone(0.0) for worker in self._workers)

    def _live(self) -> list[Worker]:
        """Return the workers that are sent frames."""
        return [worker for worker in self._workers if worker.live]

    def _lose(self) -> None:
        """Count the newest frame as lost, once."""
        if self._lost_index != self._history.kept:
            self._lost_frames, self._lost_index = self._lost_frames + 1, self._history.kept
            _LOG.warning(
                "frame %d is lost: nobody predicts it, %d so far", self._lost_index, self._lost_frames
            )

    def _sync(
        self, ready: list[Worker], index: int, checkpoint: Callable[[], Mapping[str, np.ndarray]]
    ) -> None:
        if not ready:
            return
        try:
            descriptor, layout = write_state(checkpoint())
        except (OSError, MemoryError) as error:
            for worker in ready:
                worker.fail(Fault.START_FAILED, f"no memory for the state: {error}")
            return
        for worker in ready:
            worker.sync(layout, descriptor, index)
        os.close(descriptor)

    def _send(self, closed: ClosedFrames, index: int) -> None:
        """Write the frame once, for all; who leaves no room for it has failed."""
        size = frame_bytes(closed)
        while (at := self._place(index, size)) is None:
            slowest = min(self._live(), key=lambda worker: worker.oldest_owed or index)
            slowest.fail(Fault.BEHIND, f"no room for {size} bytes: it owes {slowest.owes} frames")
            if not self._live():
                return
        tick_count = pack_frame(closed, self._ring_memory[at : at + size])
        frame = Frame(index, at, tick_count, closed.restart, self._now_ns())
        for worker in self._live():
            worker.send(frame)

    def _place(self, index: int, size: int) -> int | None:
        owed = [worker.oldest_owed for worker in self._live()]
        self._ring.release(min((oldest for oldest in owed if oldest is not None), default=index))
        return self._ring.place(index, size)

    def _wait(self) -> None:
        """Wait for the leading workers' answers, at most ``answer_ms`` after the frame was sent."""
        until_ns = self._began_ns + self._config.answer_ms * NS_PER_MS
        while waiting := [worker for worker in self._leading if worker.owes]:
            if any(worker.failed for worker in self._leading):
                return  # the frame is lost: nobody's answer to it is needed
            left_ms = (until_ns - self._now_ns()) / NS_PER_MS
            if left_ms <= 0:
                for worker in waiting:
                    worker.hang()
                return
            poll = select.poll()
            for worker in waiting:
                poll.register(worker.process.link, select.POLLIN)
            poll.poll(left_ms)
            for worker in waiting:
                worker.look()


def _canary_digest(spec: WorkerSpec) -> str:
    canary = read_contract(Path(spec.bundle)).canary
    return margins_digest(canary.margins.array("float32", "canary.margins"))


def _others(rows: Sequence[tuple[int, int]], symbol_count: int) -> tuple[range, ...]:
    """Return the rows outside these, as few ranges as there can be."""
    edges = [0, *(edge for pair in sorted(rows) for edge in pair), symbol_count]
    gaps = [range(first, past) for first, past in zip(edges[::2], edges[1::2], strict=True)]
    return tuple(gap for gap in gaps if gap)
