"""A whole session under load: a sender in a second process, sockets, books, engine, journal, database.

Owns: the run and what is measured of it. Nothing of the session is replaced: its configuration names the
sender's URLs, that is all.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from gpuscalp.archive.instruments import parse_exchange_info
from gpuscalp.bench.flow import VENUE, Flow
from gpuscalp.bench.memory import Slope
from gpuscalp.bench.model import write_model
from gpuscalp.bench.session import live_config
from gpuscalp.config import LiveConfig
from gpuscalp.errors import UsageError
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.feeds.rest import RestClient
from gpuscalp.feeds.routes import redundant_endpoints
from gpuscalp.live.directory import create
from gpuscalp.live.runner import Runner
from gpuscalp.live.session import Session
from gpuscalp.live.sockets import SocketSource
from gpuscalp.live.timekeeper import exchange_clock
from gpuscalp.monitoring.resources import resident_bytes
from gpuscalp.redaction import without_secrets

# Before the time that counts: connections, and a snapshot for each book.
_READY_S: Final = 120.0
# After it: nothing has come for so many looks, or it has taken too long.
_POLL_S: Final = 0.05
_QUIET: Final = 20
_DRAIN_S: Final = 10.0
_SETTLE: Final = 1 / 3  # of the duration, after which memory should stay
_WINDOW_S: Final = 40.0  # longer than from one checkpoint to the next


class _Count(msgspec.Struct):
    sent: int
    drawn: int
    backlog_bytes_max: int


def measure(
    folder: Path,
    *,
    symbols: int,
    rate: int,
    duration_s: float,
    redundancy: int = 1,
    rounds: int = 300,
    withhold: int = 0,
) -> dict[str, Any]:
    """Run a session against a sender.

    Parameters
    ----------
    folder : an empty one, for model and session
    symbols, rate : S, and messages a second, before copies
    duration_s : that counts; it begins when every book is whole
    redundancy : connections that bring each message
    rounds : of the model, times 5 members and 3 classes
    withhold : of what counts the sender keeps back each so-manieth message: to see that it is missed

    Raises
    ------
    UsageError    the books do not become whole in time: the machine is far too slow for the rate
    """
    names = Flow(symbols, rate).names
    with sender(symbols, rate, withhold) as port:
        config = live_config(redundancy=redundancy, port=port)
        rest = RestClient(config.feed, clock=time.time_ns)
        try:
            path = laid_out(folder, config, names, rest, rounds=rounds)
            run = _Run(path, rest, port, withhold=withhold > 0)
            return asyncio.run(run.run(duration_s))
        finally:
            rest.close()


def laid_out(
    folder: Path, config: LiveConfig, names: tuple[str, ...], rest: RestClient, *, rounds: int
) -> Path:
    """Write a made-up model and a session with it that has not begun; return the session's directory.

    Parameters
    ----------
    folder : an empty one
    names : symbols, of which the instruments are asked for
    rounds : of the model, times 5 members and 3 classes
    """
    model = write_model(folder / "model", names, now_ns=time.time_ns(), rounds=rounds)
    reply = rest.exchange_info()
    listed = parse_exchange_info(reply.body, VENUE, where=reply.request)
    path = folder / "session"
    create(path, config, model, [listed[name] for name in names], now_ns=time.time_ns())
    return path


class _Run:
    """One session and what is seen of it."""

    def __init__(self, path: Path, rest: RestClient, port: int, *, withhold: bool) -> None:
        self._port, self._withhold, self._memory = port, withhold, Slope()
        clock = ClockOffset(live_config().feed)
        now = exchange_clock(clock, lambda: self._session.market.exch_ns)
        self._session = Session(path, now_ns=time.time_ns(), clock_of=lambda _: now)
        config = self._session.about.config
        routes = redundant_endpoints([each.symbol for each in self._session.about.instruments], config.feed)
        source = SocketSource(self._session, config, routes, rest, clock)
        self._runner = Runner(self._session, config, source)
        self._connections = len(routes)

    async def run(self, duration_s: float) -> dict[str, Any]:
        running = asyncio.create_task(self._runner.run())
        watching = asyncio.create_task(self._watch(duration_s))
        try:
            await asyncio.wait([running, watching], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()  # it has failed: say of what
            return watching.result() if watching.done() else await watching
        finally:
            watching.cancel()
            self._runner.stop("measured")
            await running

    async def _watch(self, duration_s: float) -> dict[str, Any]:
        session, runner = self._session, self._runner
        await self._ask("start")
        ready_s = await self._ready()
        first, before = await self._ask("withhold" if self._withhold else "count"), self._work()
        runner.latency.clear()
        began = time.perf_counter()
        while (passed := time.perf_counter() - began) < duration_s:
            self._memory.add(passed, resident_bytes())
            await asyncio.sleep(min(1.0, duration_s - passed))
        seconds, after = time.perf_counter() - began, self._work()
        stages = runner.latency.summary()
        last = await self._ask("stop")
        await self._drained(last.sent)
        received, known = self._received()
        account = session.market.ingest.account()
        batcher = session.market.batcher
        spent = {
            name: round((after[name] - before[name]) / 1e9 / seconds, 4)
            for name in ("process", "loop", "engine")
        }
        return {
            "seconds": round(seconds, 3),
            "ready_s": round(ready_s, 1),
            "connections": self._connections,
            "messages": last.sent,
            "messages_per_s": round((last.sent - first.sent) / seconds),
            "lost": last.sent - min(received, known),
            "sender_backlog_bytes_max": last.backlog_bytes_max,
            **{name: account[name] for name in ("duplicates", "late", "rejects", "gaps", "off_tick")},
            "unsynced": len(session.market.ingest.unsynced()),
            "frames": after["frames"] - before["frames"],
            "orders": after["orders"] - before["orders"],
            "conflated": batcher.conflated_count,
            "overloads": batcher.overload_count,
            "journal_bytes_per_s": round((after["bytes"] - before["bytes"]) / seconds),
            "cpu_share": spent,
            "tick_to_decision": _milliseconds(stages.get("total")),
            "session_stages": {name: _milliseconds(stage) for name, stage in stages.items()},
            **self._memory.of(duration_s * _SETTLE, window_s=min(duration_s / 10, _WINDOW_S)),
        }

    async def _ready(self) -> float:
        """Wait until all books are whole and frames are decided on; return how long it took, s."""
        session, began = self._session, time.perf_counter()
        states = session.market.ingest.book_states
        while session.engine.frame_count < 3 or set(states().values()) != {"synced"}:
            passed = time.perf_counter() - began
            if passed > _READY_S:
                missing = sum(state != "synced" for state in states().values())
                raise UsageError(
                    "the books do not become whole",
                    where="bench live",
                    value=f"{missing} are not, after {passed:.0f} s",
                    fix="fewer --symbols or a smaller --rate",
                )
            await asyncio.sleep(0.25)
        return time.perf_counter() - began

    async def _drained(self, sent: int) -> None:
        """Wait for what is still on its way; what is lost never comes."""
        seen, quiet, deadline = -1, 0, time.perf_counter() + _DRAIN_S
        while seen < sent and quiet < _QUIET and time.perf_counter() < deadline:
            before, seen = seen, self._received()[0]
            quiet = quiet + 1 if seen == before else 0
            await asyncio.sleep(_POLL_S)

    def _received(self) -> tuple[int, int]:
        """Return messages that have come, and those of which is known what became of them."""
        ingest = self._session.market.ingest
        account = ingest.account()
        snapshots = self._session.market.input_count - ingest.message_count
        known = (
            sum(ingest.fates.values())
            - snapshots
            + account["rejects"]
            + sum(ingest.merge.duplicates.values())
        )
        replies = ingest.fates["reply"]  # to SUBSCRIBE
        return ingest.message_count - replies, known - replies

    def _work(self) -> dict[str, int]:
        """Return the processor time spent so far, ns, and what was done in it."""
        engine = next((each for each in threading.enumerate() if each.name.startswith("engine")), None)
        return {
            "process": time.process_time_ns(),
            "loop": time.thread_time_ns(),
            "engine": 0 if engine is None else _thread_ns(engine),
            "frames": self._session.engine.frame_count,
            "orders": self._session.engine.trader.last_order_id,
            "bytes": self._session.journal.written_bytes,
        }

    async def _ask(self, what: str) -> _Count:
        url = f"http://127.0.0.1:{self._port}/bench/{what}"
        return await asyncio.get_running_loop().run_in_executor(None, partial(count_of, url))


def count_of(url: str) -> _Count:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30.0) as reply:
        return msgspec.json.decode(reply.read(), type=_Count)


def _thread_ns(thread: threading.Thread) -> int:
    assert thread.ident is not None
    if not hasattr(time, "pthread_getcpuclockid"):
        return 0
    return time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident))


def _milliseconds(stage: dict[str, float] | None) -> dict[str, float | None]:
    if stage is None:
        return {"p50_ms": None, "p99_ms": None, "max_ms": None}
    return {f"{name}_ms": round(stage[f"{name}_us"] / 1e3, 4) for name in ("p50", "p99", "max")}


@contextmanager
def sender(symbols: int, rate: int, withhold: int) -> Iterator[int]:
    """Start the second process; yield its port."""
    command = [sys.executable, "-m", "gpuscalp.bench.sender", "--symbols", str(symbols)]
    command += ["--rate", str(rate), "--withhold", str(withhold)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=without_secrets(os.environ)) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()
