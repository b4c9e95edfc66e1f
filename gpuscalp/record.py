"""Record a venue's streams, for archives: what a live session hears, without a model and without orders.

Owns: what is put together for it, and when it ends. What is written is the journal of a session that decides
nothing, so an import reads it as one, and a crash takes from it what it takes from a session.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import random
from typing import Any, Final, final

import msgspec

from gpuscalp.archive.folders import EXCHANGE_INFO
from gpuscalp.archive.instruments import parse_exchange_info
from gpuscalp.archive.journal_lines import market_of
from gpuscalp.config import LiveConfig
from gpuscalp.errors import ConfigError, FeedError, UsageError
from gpuscalp.feeds.call_pool import CallPool, look_up_apart
from gpuscalp.feeds.client import FeedClient
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.feeds.proxies import proxy_of
from gpuscalp.feeds.recorder import Recorder
from gpuscalp.feeds.rest import RestClient, RestReply
from gpuscalp.feeds.routes import Endpoint, redundant_endpoints
from gpuscalp.files import replace_file
from gpuscalp.journal import JournalWriter, RecordKind, segments_of
from gpuscalp.live.background import Background
from gpuscalp.live.snapshots import Snapshots, brings_changes
from gpuscalp.live.venue import check_reached
from gpuscalp.logs import LogWriter
from gpuscalp.progress import Progress, silent
from gpuscalp.redaction import keep_environment
from gpuscalp.schema import NS_PER_MS, NS_PER_S, Instrument
from gpuscalp.stop_signals import hear_stops, interrupt_if_stopped, stopped_as_interrupted
from gpuscalp.warm import compile_missing

_LOG: Final = logging.getLogger("gpuscalp.session")
_TICK_S: Final = 0.005
_LOOK_NS: Final = 250 * NS_PER_MS
# Every book is whole again so long after the first segment that an import begins with.
_RENEW_NS: Final = 3_600 * NS_PER_S
_DISK_NS: Final = 10 * NS_PER_S


@stopped_as_interrupted()
def record(
    symbols: Sequence[str],
    path: Path,
    config: LiveConfig,
    *,
    seconds: float | None = None,
    told: Progress = silent,
) -> dict[str, Any]:
    """Record until SIGINT, SIGTERM or SIGHUP, for some seconds, or until the disk fails.

    Parameters
    ----------
    symbols : names, as the venue lists them
    path : folder, new or with an earlier recording of the same venue: that goes on in its next segment
    config : of a session; ``venue``, ``feed``, ``journal`` and ``logs`` count
    seconds : None = until stopped
    told : told the seconds, and what has come

    Returns
    -------
    dict: ``out``, ``symbols``, ``seconds``, ``messages`` by what became of them (``Ingest.account``),
    ``connections_opened`` and ``connections_lost`` by route, ``snapshots``, ``unsynced``: whose books are not
    whole, ``written_bytes``, ``torn_bytes``: what a crash had left, which was cut off

    Raises
    ------
    UsageError      no symbol, or one twice; the folder holds something else
    ConfigError     the venue does not list a symbol, or the folder has another market
    FeedError       the venue cannot be reached, or nothing has come
    JournalError    the folder is in use or damaged, or the disk refuses
    """
    keep_environment(os.environ)
    check_reached(config)
    names = [name.upper() for name in symbols]
    if not names or len(set(names)) < len(names):
        raise UsageError("name each symbol once", where="SYMBOLS", value=" ".join(names))
    with ExitStack() as around:
        rest = RestClient(config.feed, clock=time.time_ns, proxy_url=proxy_of(config.feed.rest_url))
        around.callback(rest.close)
        listing = rest.exchange_info()
        listed = parse_exchange_info(listing.body, config.venue, where=listing.request, wanted=names)
        if missing := [name for name in names if name not in listed]:
            raise ConfigError(
                "the venue does not list a symbol", where=listing.request, value=", ".join(missing)
            )
        _check_folder(path, config.venue)
        compile_missing(told=told)  # here, where no connection waits
        interrupt_if_stopped()  # nothing has begun yet
        # Standard error alone: the folder is to hold what is imported and nothing else.
        logs = LogWriter(
            msgspec.structs.replace(config.logs, stderr="json" if config.logs.stderr == "json" else "text")
        )
        around.callback(logs.close)
        logs.open(None)
        path.mkdir(parents=True, exist_ok=True)
        replace_file(path / EXCHANGE_INFO, listing.body)
        journal = around.enter_context(JournalWriter(path, config.journal, now_ns=time.time_ns()))
        recording = Recording([listed[name] for name in names], config, journal, rest)
        return asyncio.run(recording.run(seconds, told))


def _check_folder(path: Path, market: str) -> None:
    """Refuse a folder with something else, or of another market: an import takes all of it for one."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / EXCHANGE_INFO).exists():
        raise UsageError("what is there is no recording", where=str(path), fix="name another folder")
    segments = segments_of(path)
    known = market_of(segments[-1]) if segments else None
    if known not in (None, market):
        raise ConfigError(
            "the folder has a recording of another market",
            where=str(path),
            value=f"{market}, the folder has {known}",
            fix="name another folder",
        )


@final
class Recording:
    """Connections, snapshots and the journal that they go into. The receiver of its connections.

    Parameters
    ----------
    instruments : S
    config : see ``record``
    journal : open; ended when this ends
    rest : the venue's REST calls
    """

    def __init__(
        self, instruments: Sequence[Instrument], config: LiveConfig, journal: JournalWriter, rest: RestClient
    ) -> None:
        self._config, self._journal = config, journal
        self._symbols = [each.symbol for each in instruments]
        self._ingest = Ingest(instruments, config.feed)
        self._recorder = Recorder(self._ingest, journal)
        self._calls = CallPool(2, "rest")
        self._snapshots = Snapshots(
            rest,
            self._calls,
            self._on_snapshot,
            monotonic=time.monotonic_ns,
            symbols=self._symbols,
            renew_ns=_RENEW_NS if brings_changes(config.feed.streams) else 0,
            weight_per_minute=config.feed.weight_per_minute,
        )
        self._client = FeedClient(
            redundant_endpoints(self._symbols, config.feed),
            config.feed,
            self,
            wall=time.time_ns,
            monotonic=time.monotonic_ns,
            jitter=random,
        )
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._silent: frozenset[str] = frozenset()
        self._patient_ns = time.monotonic_ns() + config.feed.first_message_ms * NS_PER_MS
        self._hangs = False

    async def run(self, seconds: float | None, told: Progress) -> dict[str, Any]:
        """Record, end the journal and return what has come; see ``record``."""
        look_up_apart()
        journal, began_ns = self._journal, time.monotonic_ns()
        opening = msgspec.json.encode({"market": self._config.venue})
        journal.append(RecordKind.SESSION, opening, recv_ns=time.time_ns())
        disk = Background("disk", self._fail)
        hear_stops(lambda _: self._stopping.set())

        def lasted_s() -> float:
            return (time.monotonic_ns() - began_ns) / NS_PER_S

        def tell() -> None:
            count, size = self._ingest.message_count, journal.written_bytes / 1e6
            told(lasted_s(), seconds, f"{count:,} messages, {size:,.1f} MB")

        async with contextlib.AsyncExitStack() as ending:  # each step, whatever becomes of the others
            ending.callback(disk.pool.shutdown, wait=True)
            ending.callback(self._calls.shutdown, wait=False, cancel_futures=True)  # one may hang
            ending.push_async_callback(self._snapshots.close)
            tasks = [asyncio.create_task(work) for work in (self._client.run(), self._tick(disk, tell))]
            for task in tasks:
                task.add_done_callback(self._ended)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
            after_s = lasted_s()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._failure is not None:
            raise self._failure
        journal.close(now_ns=time.time_ns())
        if not self._ingest.message_count:
            raise FeedError(
                "not one message has come", where=str(journal.path), fix="the log says why; gpuscalp doctor"
            )
        return {
            "out": journal.path,
            "symbols": self._symbols,
            "seconds": round(after_s, 3),
            "messages": self._ingest.account(),
            "connections_opened": dict(self._client.opened),
            "connections_lost": dict(self._client.lost),
            "snapshots": {"fetched": self._snapshots.fetched, "refused": self._snapshots.refused},
            "unsynced": list(self._ingest.unsynced()),
            "written_bytes": journal.written_bytes,
            "torn_bytes": 0 if journal.repaired is None else journal.repaired.cut_bytes,
        }

    async def _tick(self, disk: Background, tell: Callable[[], None]) -> None:
        """Do what is due."""
        journal, config = self._journal, self._config.journal
        flush_ns = sync_ns = look_ns = 0
        while True:
            await asyncio.sleep(_TICK_S)
            self._recorder.poll(time.time_ns())
            self._ingest.take()  # nobody wants the ticks: an import makes them again
            now_ns = time.monotonic_ns()
            if now_ns >= flush_ns:
                flush_ns = now_ns + config.flush_ms * NS_PER_MS
                journal.flush()
            if now_ns >= sync_ns:
                sync_ns = now_ns + config.sync_ms * NS_PER_MS
                disk.do("sync", partial(journal.settle, *journal.pending_sync()))
            if now_ns >= look_ns:
                look_ns = now_ns + _LOOK_NS
                self._snapshots.poll(self._ingest.unsynced(), self._ingest.near_edge())
                self._look(disk)
                tell()

    def _look(self, disk: Background) -> None:
        """Say in the log what is missing, when that changes."""
        hangs = disk.age_ns("sync") > _DISK_NS
        if hangs and not self._hangs:
            _LOG.warning("the disk has not answered for 10 s: a power cut would take what has come since")
        self._hangs = hangs
        if time.monotonic_ns() < self._patient_ns:
            return
        heard = {name.partition("@")[0] for name in self._client.delivering_streams()}
        silent = frozenset(name for name in self._symbols if name.lower() not in heard)
        for name in sorted(silent - self._silent):
            _LOG.warning("nothing comes of %s", name)
        for name in sorted(self._silent - silent):
            _LOG.info("%s is heard", name)
        self._silent = silent

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._stopping.set()

    # The feed's receiver. It is called where an error would end a connection and not the recording.

    def on_open(self, number: int, endpoint: Endpoint, now_ns: int) -> None:
        _LOG.info("connection %d is open, %d streams", number, len(endpoint.streams))
        self._guarded(partial(self._recorder.on_open, number, endpoint, now_ns))

    def on_messages(self, number: int, recv_ns: int, messages: list[bytes]) -> None:
        self._guarded(partial(self._recorder.on_messages, number, recv_ns, messages))

    def on_lost(self, number: int, now_ns: int, reason: str) -> None:
        _LOG.info("connection %d has ended: %s", number, reason)
        self._guarded(partial(self._recorder.on_lost, number, now_ns, reason))

    def joined(self, number: int) -> bool:
        return self._recorder.joined(number)

    def _on_snapshot(self, reply: RestReply, snapshot: DepthSnapshot) -> str:
        try:
            return self._recorder.on_snapshot(reply, snapshot)
        except Exception as error:
            self._fail(error)
            return ""

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._fail(error)
