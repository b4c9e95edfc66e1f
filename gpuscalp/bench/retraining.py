"""What it costs a session to be retrained meanwhile: its frames with ``gpuscalp retrain`` and without.

Owns: the slices, with and without that process in turn. It begins with its slice as a session begins it, is
followed by another if it comes to its end, and is killed with the slice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from gpuscalp.bench.slices import ORDER, SETTLE_S, Slice, figures, loaded_session
from gpuscalp.bench.timing import step_by_step
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.records import SignalRecord, decode
from gpuscalp.progress import Progress, silent
from gpuscalp.redaction import without_secrets
from gpuscalp.schema import NS_PER_S

_LOOK_S: Final = 0.2


def measure(
    folder: Path,
    *,
    symbols: int,
    rate: int,
    slice_s: float,
    rounds: int,
    before_s: float,
    cores: int,
    memory_mb: int,
    trees: int = 300,
    told: Progress = silent,
) -> dict[str, Any]:
    """Run a session and retrain it now and then.

    Parameters
    ----------
    folder : an empty one
    symbols, rate : S, and messages a second
    slice_s : how long it is retrained, or left alone, in one go; the first second does not count. A
        retraining that takes longer is cut off
    rounds : of four slices, two of each kind
    before_s : of market before the first slice, to train on
    cores, memory_mb : what the retraining may take
    trees : of the model, times 5 members and 3 classes
    told : how far it is, before each slice

    Returns
    -------
    dict: as ``slices.figures``, of the kinds ``retrained`` and ``bare``; ``missed`` and ``doubled`` frames
    from the first slice to the last; ``begun``, ``finished`` and ``failed`` retrainings, ``why_failed`` the
    last one, and ``cpu_share`` of a core that they had; ``machine_cores`` and ``load`` of the machine (its
    average of the last minute)

    Raises
    ------
    DeadlineError    the session does not become ready: the machine is far too slow for the rate
    """
    begin = step_by_step(told, 2 + len(ORDER) * rounds)
    begin("until the session is ready")
    with loaded_session(folder, symbols=symbols, rate=rate, trees=trees) as path:
        begin(f"{before_s:g} s of market to train on")
        time.sleep(before_s)
        retraining = _Retraining(path, cores, memory_mb)
        try:
            slices = []
            for each in ORDER * rounds:
                begin("retrained" if each else "left alone")
                slices.append(_slice(retraining, slice_s, retrained=each))
        finally:
            retraining.end()
    spent_s = sum((end - begin) / NS_PER_S + SETTLE_S for begin, end, retrained in slices if retrained)
    return (
        {"symbols": symbols, "rate": rate, "slices": len(slices), "slice_s": slice_s, "cores": cores}
        | {"machine_cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1)}
        | figures(path, slices, ("retrained", "bare"))
        | _gaps(path, slices)
        | {name: retraining.counts[name] for name in ("begun", "finished", "failed")}
        | {"cpu_share": round(retraining.cpu_s / spent_s, 4), "why_failed": retraining.why}
    )


def _slice(retraining: _Retraining, slice_s: float, *, retrained: bool) -> Slice:
    begin_ns, end_s = time.time_ns(), time.monotonic() + slice_s
    retraining.go_on(retrained)
    while (left_s := end_s - time.monotonic()) > 0:
        time.sleep(min(_LOOK_S, left_s))
        retraining.go_on(retrained)
    return begin_ns + round(SETTLE_S * NS_PER_S), time.time_ns(), retrained


@final
class _Retraining:
    """``gpuscalp retrain``, again and again.

    Attributes
    ----------
    counts : of processes that were begun, and how they ended
    cpu_s : processor time of all of them
    why : what the last one that failed said
    """

    def __init__(self, path: Path, cores: int, memory_mb: int) -> None:
        self.counts: Counter[str] = Counter()
        self.cpu_s = 0.0
        options = ["--cores", str(cores), "--memory-mb", str(memory_mb), "--attended", "--json"]
        self._command = [sys.executable, "-m", "gpuscalp", "retrain", str(path), *options]
        self.why: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def go_on(self, wanted: bool) -> None:
        """Have it, or have it not."""
        process = self._process
        if process is not None:
            # Not reaped by ``poll``: its processor time would be gone.
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                self._reap(process)
                process = None
            elif not wanted:
                self.end()
        if process is None and wanted:
            self.counts["begun"] += 1
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                process_group=0,
                env=without_secrets(os.environ),
            )

    def end(self) -> None:
        process = self._process
        if process is not None:
            process.kill()
            self._reap(process, ended_by_us=True)

    def _reap(self, process: subprocess.Popen[bytes], *, ended_by_us: bool = False) -> None:
        self._process = None
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s += used.ru_utime + used.ru_stime
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout as answer:
            said = answer.read()  # some hundred bytes, which a pipe holds
        if not ended_by_us:
            self.counts["failed" if process.returncode else "finished"] += 1
            if process.returncode:
                self.why = said.decode(errors="replace") or f"exit code {process.returncode}"


def _gaps(path: Path, slices: list[Slice]) -> dict[str, int]:
    """Return how many frames were missed and how many decided on twice, from the first slice to the last."""
    begin_ns, end_ns = slices[0][0], slices[-1][1]
    ends = np.array(
        [
            decode(record, SignalRecord).end_ns
            for record in read_records(path / "journal", torn=True)
            if record.kind == RecordKind.SIGNAL and begin_ns <= record.recv_ns < end_ns
        ]
    )
    steps = np.diff(ends)
    frame_ns = int(np.median(steps))
    return {
        "missed": int((steps[steps > 0] // frame_ns - 1).sum()),
        "doubled": int(np.count_nonzero(steps <= 0)),
    }
