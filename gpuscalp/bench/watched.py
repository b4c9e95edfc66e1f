"""What it costs a session to be looked at: its frames with a page open and metrics scraped, and without.

Owns: what makes a slice a watched one: a page, a scraper and a log (session and slices:
gpuscalp.bench.slices). In a bare slice the dashboard's process is stopped (SIGSTOP), nobody scrapes, and only
errors are logged.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import numpy as np

from gpuscalp.bench.slices import ORDER, SETTLE_S, Slice, figures, loaded_session, program
from gpuscalp.bench.timing import step_by_step
from gpuscalp.live.control import Request, ask
from gpuscalp.progress import Progress, silent

# Prometheus asks every 15 s by default; this is far more often.
_SCRAPE_S: Final = 1.0


def measure(
    folder: Path,
    *,
    symbols: int,
    rate: int,
    slice_s: float,
    rounds: int,
    trees: int = 300,
    told: Progress = silent,
) -> dict[str, Any]:
    """Run a session and look at it now and then.

    Parameters
    ----------
    folder : an empty one
    symbols, rate : S, and messages a second
    slice_s : how long it is watched, or left alone, in one go; the first second does not count
    rounds : of four slices, two of each kind
    trees : of the model, times 5 members and 3 classes
    told : how far it is, before each slice

    Returns
    -------
    dict: ``frame_ms`` (features, prediction, decision) and ``close_ms`` (from a frame's end to the decision)
    with p50 and p99 of either arm, ``p99_rise_pct``, and how far chance alone may move that
    (``p99_rise_pct_95``); ``dashboard_cpu_share`` of a core while it watched; ``scrape_ms``

    Raises
    ------
    DeadlineError    the session does not become ready: the machine is far too slow for the rate
    """
    metrics_port = _free_port()
    begin = step_by_step(told, 1 + len(ORDER) * rounds)
    begin("until the session is ready")
    with (
        loaded_session(folder, symbols=symbols, rate=rate, trees=trees, metrics_port=metrics_port) as path,
        program("dashboard", str(path), "--port", "0") as dashboard,
    ):
        assert dashboard.stdout is not None
        with _reader(json.loads(dashboard.stdout.readline())["port"]):
            slices, scrapes, cpu_s = _slices(path, dashboard.pid, metrics_port, slice_s, rounds, begin)
    watched_s = sum((end - begin) / 1e9 + SETTLE_S for begin, end, watched in slices if watched)
    return (
        {"symbols": symbols, "rate": rate, "slices": len(slices), "slice_s": slice_s}
        | figures(path, slices, ("watched", "bare"))
        | {
            "dashboard_cpu_share": round(cpu_s / watched_s, 4),
            "scrape_ms": round(float(np.median(scrapes)), 2) if scrapes else None,
        }
    )


def _slices(
    path: Path,
    pid: int,
    metrics_port: int,
    slice_s: float,
    rounds: int,
    begin: Callable[[str], None],
) -> tuple[list[Slice], list[float], float]:
    """Watch and leave alone in turn; return the slices, what scrapes took in ms, and processor time in s."""
    found: list[Slice] = []
    scrapes: list[float] = []
    cpu_s = 0.0
    for watched in ORDER * rounds:
        begin("watched" if watched else "left alone")
        os.kill(pid, signal.SIGCONT if watched else signal.SIGSTOP)
        ask(path, Request("log_level", level="INFO" if watched else "ERROR"), timeout_s=30.0)
        begin_ns, end_s, spent_s = time.time_ns(), time.monotonic() + slice_s, _cpu_s(pid)
        while (left_s := end_s - time.monotonic()) > 0:
            if watched:
                scrapes.append(_scrape_ms(metrics_port))
            time.sleep(min(_SCRAPE_S, left_s))
        cpu_s += _cpu_s(pid) - spent_s
        found.append((begin_ns + round(SETTLE_S * 1e9), time.time_ns(), watched))
    os.kill(pid, signal.SIGCONT)
    return found, scrapes, cpu_s


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
