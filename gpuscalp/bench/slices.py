"""One session under load, its time cut into slices of two kinds in turn: what one kind costs its frames.

Owns: the session and its sender, the order of slices, and what is computed of them. Session and sender are
processes of their own, as in earnest; nothing of the session is replaced. What the slices differ in belongs
to those who ask (``watched``, ``retraining``).

Both kinds are of one session, in the order A B B A, so that a machine that grows slower or busier weighs upon
both.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from gpuscalp.bench.flow import Flow
from gpuscalp.bench.session import live_config
from gpuscalp.bench.whole import count_of, laid_out, sender
from gpuscalp.config import MetricsConfig
from gpuscalp.errors import DeadlineError, GpuscalpError
from gpuscalp.feeds.rest import RestClient
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.control import Request, ask
from gpuscalp.live.records import SignalRecord, decode
from gpuscalp.redaction import without_secrets
from gpuscalp.schema import F64, NS_PER_MS

ORDER: Final = (True, False, False, True)
# Of a slice, does not count: what is begun or taken up again catches up with what it has missed.
SETTLE_S: Final = 1.0
_READY_S: Final = 180.0
_DRAWS: Final = 1_000

# (begin, end, of the first kind); wall clock, ns
Slice = tuple[int, int, bool]


@contextmanager
def loaded_session(
    folder: Path, *, symbols: int, rate: int, trees: int, metrics_port: int = 0
) -> Iterator[Path]:
    """Run a session under load; yield its directory when it is ready, and end it with the block.

    Parameters
    ----------
    folder : an empty one
    symbols, rate : S, and messages a second
    trees : of the model, times 5 members and 3 classes
    metrics_port : where it is scraped; 0 = nowhere

    Raises
    ------
    DeadlineError    it does not become ready: the machine is far too slow for the rate
    """
    names = Flow(symbols, rate).names
    with sender(symbols, rate, 0) as port:
        config = msgspec.structs.replace(live_config(port=port), metrics=MetricsConfig(port=metrics_port))
        rest = RestClient(config.feed, clock=time.time_ns)
        try:
            path = laid_out(folder, config, names, rest, rounds=trees)
        finally:
            rest.close()
        with program("live", "--session", str(path)):
            count_of(f"http://127.0.0.1:{port}/bench/start")
            _wait_ready(path)
            yield path
            count_of(f"http://127.0.0.1:{port}/bench/stop")
            ask(path, Request("stop", by="the benchmark"), timeout_s=60.0)


def figures(path: Path, slices: list[Slice], words: tuple[str, str]) -> dict[str, Any]:
    """Return what the journal says of the frames in the slices.

    Parameters
    ----------
    words : what the two kinds of slices are called

    Returns
    -------
    dict: ``WORD_frames``; ``frame_ms`` (features, prediction, decision), ``close_ms`` (a frame's end to
    the decision) with p50 and p99 of either kind, ``p99_rise_pct``, and how far chance alone may move that
    (``p99_rise_pct_95``)
    """
    frames = []
    for record in read_records(path / "journal", torn=True):
        if record.kind == RecordKind.SIGNAL:
            body = decode(record, SignalRecord)
            frames.append((record.recv_ns, sum(body.stages_ns), body.decided_ns - body.end_ns))
    table = np.array(frames, np.float64).reshape(-1, 3)
    parts = [(first, table[(table[:, 0] >= begin) & (table[:, 0] < end)]) for begin, end, first in slices]
    found: dict[str, Any] = {
        f"{name}_frames": sum(len(part) for first, part in parts if first is arm)
        for name, arm in zip(words, (True, False), strict=True)
    }
    for name, column in (("frame_ms", 1), ("close_ms", 2)):
        by_arm = {
            arm: np.concatenate([part[:, column] for first, part in parts if first is arm]) / NS_PER_MS
            for arm in (True, False)
        }
        found[name] = {
            words[0]: _quantiles(by_arm[True]),
            words[1]: _quantiles(by_arm[False]),
            "p99_rise_pct": _rise(by_arm[True], by_arm[False]),
            "p99_rise_pct_95": _interval([(first, part[:, column]) for first, part in parts]),
        }
    return found


def _quantiles(values: F64) -> dict[str, float | None]:
    if not len(values):
        return {"p50": None, "p99": None}
    p50, p99 = np.quantile(values, (0.5, 0.99)).tolist()
    return {"p50": round(p50, 4), "p99": round(p99, 4)}


def _interval(parts: list[tuple[bool, F64]]) -> tuple[float, float] | None:
    """Return what chance alone makes of the rise in 95 of 100 cases: slices are drawn again, by pairs."""
    pairs = []
    for (is_first, first), (_, second) in zip(parts[::2], parts[1::2], strict=True):
        pairs.append((first, second) if is_first else (second, first))
    rng, found = np.random.default_rng(0), []
    for drawn in rng.integers(0, len(pairs), (_DRAWS, len(pairs))).tolist():
        rise = _rise(*(np.concatenate([pairs[index][arm] for index in drawn]) for arm in (0, 1)))
        if rise is None:
            return None
        found.append(rise)
    low, high = np.quantile(found, (0.025, 0.975)).tolist()
    return round(low, 1), round(high, 1)


def _rise(first: F64, second: F64) -> float | None:
    if not len(first) or not len(second):
        return None
    return round(100 * float(np.quantile(first, 0.99) / np.quantile(second, 0.99) - 1), 2)


def _wait_ready(path: Path) -> None:
    """Return when frames are decided on and every book is whole."""
    until = time.monotonic() + _READY_S
    while time.monotonic() < until:
        with suppress(GpuscalpError):
            status = ask(path, Request("status"), timeout_s=30.0)
            if status["frames"] >= 3 and not status["feeds"]["unsynced"]:
                return
        time.sleep(0.25)
    raise DeadlineError(
        "the session does not become ready", where="bench", fix="fewer --symbols or a smaller --rate"
    )


@contextmanager
def program(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our commands; end it with the block."""
    arguments = [sys.executable, "-m", "gpuscalp", *command, "--json"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=without_secrets(os.environ)) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=60.0)
            except subprocess.TimeoutExpired:
                process.kill()
