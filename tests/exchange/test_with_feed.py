"""The project's own live feed against the exchange: redundant connections, and what a dead one costs."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gpuscalp.config import FeedConfig
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import Fault
from gpuscalp.exchange.server import ServeSpec
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.client import FeedClient
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.feeds.rest import RestClient
from gpuscalp.feeds.routes import Endpoint, endpoints, stream_names
from gpuscalp.live.snapshots import Snapshots
from gpuscalp.schema import Quality, TickKind, Ticks
from tests.exchange.scripted import ScriptedSource
from tests.feeds.server import until


class _Receiver:
    """Hands everything to an Ingest and counts connections and messages.

    Attributes
    ----------
    heard : messages of each connection that is open now
    streams : messages by the kind of their stream, such as "depth20"
    """

    def __init__(self, ingest: Ingest) -> None:
        self.ingest, self.opened, self.lost = ingest, 0, 0
        self.heard: dict[int, int] = {}
        self.streams: Counter[str] = Counter()

    def on_open(self, number: int, endpoint: Endpoint, now_ns: int) -> None:
        self.opened += 1
        self.heard[number] = 0

    def on_messages(self, number: int, recv_ns: int, messages: list[bytes]) -> None:
        self.ingest.on_messages(number, recv_ns, messages)
        self.heard[number] += len(messages)
        for message in messages:
            if (found := _STREAM.match(message)) is not None:
                self.streams[found[1].decode()] += 1

    def on_lost(self, number: int, now_ns: int, reason: str) -> None:
        self.lost += 1
        self.heard.pop(number, None)
        self.ingest.on_lost(number, now_ns)

    def joined(self, number: int) -> bool:
        return True


_STREAM = re.compile(rb'\{"stream":"(?:!|[^"@]*@)(\w+)')
_KINDS = ("trade", "bookTicker", "depth@100ms", "markPrice@1s")


def _listen(
    exchange: Exchange, *, copies: int, work: Any, kinds: Sequence[str] = _KINDS
) -> tuple[Ticks, _Receiver]:
    """Run the feed while ``work`` goes on; return its ticks."""
    stream = exchange.urls["stream"]
    config = FeedConfig(
        public_url=f"{stream}/public", market_url=f"{stream}/market", backoff_min_ms=50, backoff_max_ms=100
    )
    names = stream_names(["BTCUSDT"], kinds)
    routes = [each for copy in range(copies) for each in endpoints(names, config, copy=copy)]
    receiver = _Receiver(Ingest(ScriptedSource().instruments, config))

    async def run() -> None:
        client = FeedClient(
            routes,
            config,
            receiver,
            wall=time.time_ns,
            monotonic=time.monotonic_ns,
            jitter=lambda: 0.0,
        )
        task = asyncio.create_task(client.run())
        try:
            await work(receiver)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(run())
    receiver.ingest.poll(time.time_ns() + 10**10)
    return receiver.ingest.take(), receiver


async def _snapshot(exchange: Exchange, receiver: _Receiver) -> str:
    def fetch() -> DepthSnapshot:
        url = f"{exchange.urls['rest']}/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
        with urllib.request.urlopen(url) as reply:
            found = Decoder().decode(reply.read())
        assert isinstance(found, DepthSnapshot)
        return DepthSnapshot("BTCUSDT", found.exch_ns, found.last_id, found.bids, found.asks)

    return receiver.ingest.on_snapshot(time.time_ns(), await asyncio.to_thread(fetch))


def _passed(exchange: Exchange, receiver: _Receiver, stream: str, count: int = 10) -> Callable[[], bool]:
    """Return whether all faults have hit what they were to hit, and so many messages have come since."""
    after: list[int] = []

    def passed() -> bool:
        if not after and not exchange.status()["faults"]:
            after.append(receiver.streams[stream])
        return bool(after) and receiver.streams[stream] >= after[0] + count

    return passed


def test_all_kinds_of_ticks_come_and_the_book_is_whole() -> None:
    with Exchange(ScriptedSource(), ServeSpec(loop=True)) as exchange:

        async def work(receiver: _Receiver) -> None:
            await until(lambda: receiver.streams["depth"] >= 3)
            while (fate := await _snapshot(exchange, receiver)) == "snapshot_too_old":
                await asyncio.sleep(0.1)
            assert fate == "taken"
            books = receiver.streams["depth"]
            await until(lambda: receiver.streams["markPrice"] and receiver.streams["depth"] >= books + 8)
            assert receiver.ingest.unsynced() == ()

        ticks, receiver = _listen(exchange, copies=1, work=work)
    assert set(ticks["kind"].tolist()) == {*(TickKind.TRADE, TickKind.QUOTE, TickKind.BOOK, TickKind.MARK)}
    assert not receiver.ingest.rejects
    assert receiver.ingest.gaps() == []
    assert (ticks["quality"][ticks["kind"] == TickKind.BOOK] == 0).all()


def test_with_two_connections_one_may_be_cut_without_a_lost_or_doubled_trade() -> None:
    with Exchange(ScriptedSource(), ServeSpec(loop=True)) as exchange:

        async def work(receiver: _Receiver) -> None:
            cut = None
            for _ in range(3):
                # Where both are down at once nobody can have the trades.
                await until(lambda gone=cut: _both_deliver(exchange, receiver, gone))
                cut = exchange.status()["connections"][0]["number"]
                exchange.set_fault(Fault("cut", connection=cut))
            await until(lambda: _both_deliver(exchange, receiver, cut) and receiver.streams["trade"] >= 200)

        ticks, receiver = _listen(exchange, copies=2, work=work, kinds=("trade", "bookTicker"))
    assert receiver.lost >= 3
    assert receiver.ingest.gaps() == []
    trades = ticks[ticks["kind"] == TickKind.TRADE]
    assert len(trades) > 60
    # One trade every 20 ms, each once.
    assert set(np.diff(trades["exch_ns"]).tolist()) <= {19_000_000, 20_000_000, 21_000_000}


def _both_deliver(exchange: Exchange, receiver: _Receiver, gone: int | None) -> bool:
    """Whether both connections are there at both ends, with data, and the one that was cut is not."""
    served = [each["number"] for each in exchange.status()["connections"]]
    return (
        len(served) == 2 and gone not in served and len(receiver.heard) == 2 and all(receiver.heard.values())
    )


def test_with_one_connection_the_loss_is_known() -> None:
    with Exchange(ScriptedSource(), ServeSpec(loop=True)) as exchange:

        async def work(receiver: _Receiver) -> None:
            await until(lambda: receiver.streams["trade"] >= 10)
            exchange.set_fault(Fault("drop", streams="*@trade", count=3))
            await until(_passed(exchange, receiver, "trade"))

        _, receiver = _listen(exchange, copies=1, work=work)
    gaps = [gap for gap in receiver.ingest.gaps() if gap[1] == "trade_id"]
    assert len(gaps) == 1
    assert gaps[0][5] - gaps[0][4] == 2


class _Watched:
    """Asks for the snapshots that a session would ask for, from an exchange that is there to answer."""

    def __init__(self, exchange: Exchange, receiver: _Receiver) -> None:
        self.receiver, self.unsynced = receiver, set[str]()
        config = FeedConfig(rest_url=exchange.urls["rest"])
        self.rest, self.executor = RestClient(config, clock=time.time_ns), ThreadPoolExecutor(1)
        self.snapshots = Snapshots(
            self.rest,
            self.executor,
            lambda reply, snapshot: receiver.ingest.on_snapshot(reply.recv_ns, snapshot),
            monotonic=time.monotonic_ns,
            symbols=["BTCUSDT"],
            renew_ns=0,
            weight_per_minute=2_400,
        )

    async def run(self, true: Callable[[], object]) -> None:
        """Go on until something is true."""
        deadline = time.monotonic() + 30.0
        while not true():
            assert time.monotonic() < deadline, "it has not come true"
            self.unsynced.update(self.receiver.ingest.unsynced())
            self.snapshots.poll(self.receiver.ingest.unsynced())
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self.snapshots.close()
        self.executor.shutdown()
        self.rest.close()


def _watch(
    *kinds: str,
    true: Callable[[_Receiver], object],
    copies: int = 1,
    fault: Fault | None = None,
) -> tuple[Ticks, _Receiver, _Watched]:
    """Watch until something is true, and, with a fault, until that has passed."""
    watched: list[_Watched] = []
    with Exchange(ScriptedSource(), ServeSpec(loop=True)) as exchange:

        async def work(receiver: _Receiver) -> None:
            watched.append(_Watched(exchange, receiver))
            try:
                await watched[0].run(lambda: true(receiver))
                if fault is not None:
                    exchange.set_fault(fault)
                    await watched[0].run(_passed(exchange, receiver, "depth20"))
            finally:
                await watched[0].close()

        ticks, receiver = _listen(exchange, copies=copies, work=work, kinds=kinds)
    return ticks, receiver, watched[0]


def test_partial_books_are_the_book_without_a_call_for_a_snapshot() -> None:
    ticks, receiver, watched = _watch("depth20@100ms", true=lambda told: told.streams["depth20"] >= 8)
    assert watched.unsynced == set()
    assert (watched.snapshots.fetched, watched.snapshots.refused) == (0, 0)
    books = ticks[ticks["kind"] == TickKind.BOOK]
    assert len(books) >= 5
    assert (books["quality"] == 0).all()
    assert set(books["px0"].tolist()) == {600_000}
    # Twenty levels of 5, but for the best one and the one that moves, of 1 to 7 each.
    assert (books["q2"] > books["q0"] + 15 * 4).all()
    assert receiver.ingest.book_states() == {"BTCUSDT": "synced"}
    assert not receiver.ingest.rejects


def test_lost_partial_book_marks_one_row_and_asks_for_nothing() -> None:
    ticks, receiver, watched = _watch(
        "depth20@100ms",
        true=lambda told: told.streams["depth20"] >= 3,
        fault=Fault("drop", streams="*@depth20*", count=2),
    )
    books = ticks[ticks["kind"] == TickKind.BOOK]
    marked = (books["quality"] != 0).nonzero()[0]
    assert books["quality"][marked].tolist() == [int(Quality.GAP | Quality.RESYNC)]
    assert 0 < marked[0] < len(books) - 1
    assert [gap[:2] for gap in receiver.ingest.gaps()] == [("BTCUSDT", "depth")]
    assert watched.snapshots.fetched == 0


def test_diff_stream_beside_a_partial_one_is_the_book() -> None:
    def enough(told: _Receiver) -> bool:
        synced = told.ingest.fates["taken"] and told.ingest.unsynced() == ()
        copies = told.ingest.merge.duplicates.total()
        return bool(synced and copies >= 8 and told.ingest.fates["other_book_stream"] >= 8)

    ticks, receiver, watched = _watch("depth@100ms", "depth20@100ms", true=enough, copies=2)
    assert watched.snapshots.fetched >= 1
    assert receiver.ingest.unsynced() == ()
    assert receiver.ingest.fates["other_book_stream"] >= 5
    assert receiver.ingest.merge.duplicates.total() >= 5
    assert ticks["quality"][-1] == 0


def test_streams_over_all_symbols_are_subscribed_once_and_make_ticks() -> None:
    with Exchange(ScriptedSource(), ServeSpec(loop=True)) as exchange:
        seen: list[str] = []

        async def work(receiver: _Receiver) -> None:
            await until(lambda: receiver.streams["trade"] >= 10 and receiver.streams["markPrice"])
            seen.extend(exchange.status()["streams"])

        kinds = ("!markPrice@arr@1s", "!forceOrder@arr", "trade")
        ticks, receiver = _listen(exchange, copies=1, work=work, kinds=kinds)
    assert sorted(seen) == ["!forceOrder@arr", "!markPrice@arr@1s", "btcusdt@trade"]
    assert set(ticks["kind"].tolist()) == {TickKind.TRADE, TickKind.MARK}
    assert (receiver.lost, receiver.opened) == (2, 2)
    assert not receiver.ingest.rejects
