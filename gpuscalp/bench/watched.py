"""What it costs a session to be looked at: its frames with a page open and metrics scraped, and without.

Owns: the slices, watched and bare in turn, and what is computed of them. Session, sender and dashboard are
processes of their own, as in earnest; nothing of the session is replaced.

Both arms are slices of one session, in the order A B B A, so that a machine that grows slower or busier
weighs upon both. In a bare slice the dashboard's process is stopped (SIGSTOP) and nobody scrapes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from gpuscalp.archive.instruments import parse_exchange_info
from gpuscalp.bench.flow import VENUE, Flow
from gpuscalp.bench.model import write_model
from gpuscalp.bench.session import live_config
from gpuscalp.bench.whole import count_of, sender
from gpuscalp.config import MetricsConfig
from gpuscalp.errors import DeadlineError, GpuscalpError
from gpuscalp.feeds.rest import RestClient
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.control import Request, ask
from gpuscalp.live.directory import create
from gpuscalp.live.records import SignalRecord, decode
from gpuscalp.schema import F64, NS_PER_MS

_READY_S: Final = 180.0
# Prometheus asks every 15 s by default; this is far more often.
_SCRAPE_S: Final = 1.0
# Of a slice, does not count: the dashboard catches up with what it has missed.
_SETTLE_S: Final = 1.0
_DRAWS: Final = 1_000
_ORDER: Final = (True, False, False, True)

# (begin, end, watched); wall clock, ns
Slice = tuple[int, int, bool]


def measure(
    folder: Path,
    *,
    symbols: int,
    rate: int,
    slice_s: float,
    rounds: int,
    trees: int = 300,
) -> dict[str, Any]:
    """Run a session and look at it now and then.

    Parameters
    ----------
    folder : an empty one
    symbols, rate : S, and messages a second
    slice_s : how long it is watched, or left alone, in one go; the first second does not count
    rounds : of four slices, two of each kind
    trees : of the model, times 5 members and 3 classes

    Returns
    -------
    dict: ``frame_ms`` (features, prediction, decision) and ``close_ms`` (from a frame's end to the decision)
    with p50 and p99 of either arm, ``p99_rise_pct``, and how far chance alone may move that
    (``p99_rise_pct_95``); ``dashboard_cpu_share`` of a core while it watched; ``scrape_ms``

    Raises
    ------
    DeadlineError    the session does not become ready: the machine is far too slow for the rate
    """
    flow = Flow(symbols, rate)
    model = write_model(folder / "model", flow.names, now_ns=time.time_ns(), rounds=trees)
    metrics_port, path = _free_port(), folder / "session"
    with ExitStack() as around:
        port = around.enter_context(sender(symbols, rate, 0))
        config = msgspec.structs.replace(live_config(port=port), metrics=MetricsConfig(port=metrics_port))
        rest = RestClient(config.feed, clock=time.time_ns)
        around.callback(rest.close)
        reply = rest.exchange_info()
        listed = parse_exchange_info(reply.body, VENUE, where=reply.request)
        create(path, config, model, [listed[name] for name in flow.names], now_ns=time.time_ns())
        around.enter_context(_program("live", "--session", str(path)))
        count_of(f"http://127.0.0.1:{port}/bench/start")
        _wait_ready(path)
        dashboard = around.enter_context(_program("dashboard", str(path), "--port", "0"))
        assert dashboard.stdout is not None
        around.enter_context(_reader(json.loads(dashboard.stdout.readline())["port"]))
        slices, scrapes, cpu_s = _slices(dashboard.pid, metrics_port, slice_s, rounds)
        count_of(f"http://127.0.0.1:{port}/bench/stop")
        ask(path, Request("stop", by="the benchmark"), timeout_s=60.0)
    watched_s = sum((end - begin) / 1e9 for begin, end, watched in slices if watched)
    return (
        {"symbols": symbols, "rate": rate, "slices": len(slices), "slice_s": slice_s}
        | _figures(path, slices)
        | {
            "dashboard_cpu_share": round(cpu_s / watched_s, 4),
            "scrape_ms": round(float(np.median(scrapes)), 2) if scrapes else None,
        }
    )


def _slices(
    pid: int, metrics_port: int, slice_s: float, rounds: int
) -> tuple[list[Slice], list[float], float]:
    """Watch and leave alone in turn; return the slices, what scrapes took in ms, and processor time in s."""
    found: list[Slice] = []
    scrapes: list[float] = []
    cpu_s = 0.0
    for watched in _ORDER * rounds:
        os.kill(pid, signal.SIGCONT if watched else signal.SIGSTOP)
        begin_ns, end_s, spent_s = time.time_ns(), time.monotonic() + slice_s, _cpu_s(pid)
        while (left_s := end_s - time.monotonic()) > 0:
            if watched:
                scrapes.append(_scrape_ms(metrics_port))
            time.sleep(min(_SCRAPE_S, left_s))
        cpu_s += _cpu_s(pid) - spent_s
        found.append((begin_ns + round(_SETTLE_S * 1e9), time.time_ns(), watched))
    os.kill(pid, signal.SIGCONT)
    return found, scrapes, cpu_s


def _figures(path: Path, slices: list[Slice]) -> dict[str, Any]:
    """Return what the journal says of the frames in the slices."""
    frames = []
    for record in read_records(path / "journal", torn=True):
        if record.kind == RecordKind.SIGNAL:
            body = decode(record, SignalRecord)
            frames.append((record.recv_ns, sum(body.stages_ns), body.decided_ns - body.end_ns))
    table = np.array(frames, np.float64).reshape(-1, 3)
    parts = [(watched, table[(table[:, 0] >= begin) & (table[:, 0] < end)]) for begin, end, watched in slices]
    found: dict[str, Any] = {
        f"{name}_frames": sum(len(part) for watched, part in parts if watched is arm)
        for name, arm in (("watched", True), ("bare", False))
    }
    for name, column in (("frame_ms", 1), ("close_ms", 2)):
        by_arm = {
            arm: np.concatenate([part[:, column] for watched, part in parts if watched is arm]) / NS_PER_MS
            for arm in (True, False)
        }
        found[name] = {
            "watched": _quantiles(by_arm[True]),
            "bare": _quantiles(by_arm[False]),
            "p99_rise_pct": _rise(by_arm[True], by_arm[False]),
            "p99_rise_pct_95": _interval([(watched, part[:, column]) for watched, part in parts]),
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
    for (first_watched, first), (_, second) in zip(parts[::2], parts[1::2], strict=True):
        pairs.append((first, second) if first_watched else (second, first))
    rng, found = np.random.default_rng(0), []
    for drawn in rng.integers(0, len(pairs), (_DRAWS, len(pairs))).tolist():
        rise = _rise(*(np.concatenate([pairs[index][arm] for index in drawn]) for arm in (0, 1)))
        if rise is None:
            return None
        found.append(rise)
    low, high = np.quantile(found, (0.025, 0.975)).tolist()
    return round(low, 1), round(high, 1)


def _rise(watched: F64, bare: F64) -> float | None:
    if not len(watched) or not len(bare):
        return None
    return round(100 * float(np.quantile(watched, 0.99) / np.quantile(bare, 0.99) - 1), 2)


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
        "the session does not become ready", where="bench watched", fix="fewer --symbols or a smaller --rate"
    )


@contextmanager
def _program(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our commands; end it with the block."""
    arguments = [sys.executable, "-m", "gpuscalp", *command, "--json"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=60.0)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def _reader(port: int) -> Iterator[None]:
    """Read what a page is sent, as a browser does."""
    client = HTTPConnection("127.0.0.1", port)
    client.request("GET", "/events")
    reply = client.getresponse()

    def read() -> None:
        with suppress(OSError, ValueError, AttributeError):  # closed
            while reply.readline():
                pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        assert client.sock is not None
        with suppress(OSError):
            client.sock.shutdown(socket.SHUT_RDWR)
        thread.join(10.0)
        client.close()


def _scrape_ms(port: int) -> float:
    began = time.perf_counter()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=30.0) as reply:
        reply.read()
    return (time.perf_counter() - began) * 1e3


def _cpu_s(pid: int) -> float:
    """Return the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
