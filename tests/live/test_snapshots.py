"""Snapshots that do not fit are asked for again, and not at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, Future
from itertools import pairwise
from typing import Any

import pytest

from gpuscalp.errors import FeedError
from gpuscalp.feeds.book import BookState, LocalBook
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate
from gpuscalp.live.snapshots import Snapshots
from gpuscalp.schema import NS_PER_MS, NS_PER_S


class _Venue:
    """Answers with snapshots of given ids, one after another, and notes when it was asked."""

    def __init__(self, last_ids: tuple[int, ...]) -> None:
        self.now_ns, self.asked_ns, self._last_ids = 0, list[int](), iter(last_ids)

    def depth(self, symbol: str, limit: int) -> tuple[Any, DepthSnapshot]:
        self.asked_ns.append(self.now_ns)
        return None, DepthSnapshot(symbol, 0, next(self._last_ids), [(99, 1)], [(101, 1)])


class _AtOnce(Executor):
    """Makes a call while it is asked for, so that no time passes in between."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_snapshot_older_than_the_buffer_is_asked_for_again_after_a_longer_breath_each() -> None:
    book, venue = LocalBook(), _Venue((3, 5, 12))
    book.on_diff(DepthUpdate("X", 1, 11, 15, 10, [(98, 1)], []))

    async def run() -> Snapshots:
        snapshots = Snapshots(
            venue,  # type: ignore[arg-type]
            _AtOnce(),
            lambda _, snapshot: {"synced": "taken"}.get(book.on_snapshot(snapshot).value, "too_old"),
            monotonic=lambda: venue.now_ns,
            symbols=["X"],
            renew_ns=0,
            weight_per_minute=2_400,
        )
        for _ in range(100):
            snapshots.poll([] if book.state is BookState.SYNCED else ["X"])
            for _ in range(10):
                await asyncio.sleep(0)
            venue.now_ns += 50 * NS_PER_MS
        await snapshots.close()
        return snapshots

    snapshots = asyncio.run(run())
    assert book.top()[0][:2] == [99, 98]
    assert (snapshots.fetched, snapshots.refused) == (3, 0)
    first, second = (later - sooner for sooner, later in pairwise(venue.asked_ns))
    assert (first, second) == (250 * NS_PER_MS, 500 * NS_PER_MS)


class _Refusing(_Venue):
    """Refuses from a call on."""

    def depth(self, symbol: str, limit: int) -> tuple[Any, DepthSnapshot]:
        if len(self.asked_ns) >= 3:
            self.asked_ns.append(self.now_ns)
            raise FeedError("the venue's limit allows no call now", where=symbol)
        return super().depth(symbol, limit)


def _fetching(venue: _Venue, symbols: list[str]) -> Snapshots:
    return Snapshots(
        venue,  # type: ignore[arg-type]
        _Refusals(),
        lambda _, __: "taken",
        monotonic=lambda: venue.now_ns,
        symbols=symbols,
        renew_ns=0,
        weight_per_minute=2_400,
    )


async def _poll_once(venue: _Venue, symbols: list[str]) -> Snapshots:
    snapshots = _fetching(venue, symbols)
    snapshots.poll(symbols)
    for _ in range(200):
        await asyncio.sleep(0)
    await snapshots.close()
    return snapshots


class _Refusals(Executor):
    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except FeedError as error:
            future.set_exception(error)
        return future


def test_symbols_follow_one_another_without_a_further_poll() -> None:
    """Two at each poll, four times a second, were a minute for 500 symbols."""
    venue = _Venue(tuple(range(20)))
    snapshots = asyncio.run(_poll_once(venue, [f"S{number}" for number in range(20)]))
    assert (snapshots.fetched, snapshots.refused) == (20, 0)


def test_refusal_ends_the_round() -> None:
    """Those behind would be refused as well, and each would have to wait longer for it."""
    venue = _Refusing(tuple(range(20)))
    snapshots = asyncio.run(_poll_once(venue, [f"S{number}" for number in range(20)]))
    assert snapshots.fetched == 3
    assert 1 <= snapshots.refused <= 2  # two were on their way


class _Slow(_Venue):
    """Refuses the fourth call, and notes whom it was asked about."""

    def depth(self, symbol: str, limit: int) -> tuple[Any, DepthSnapshot]:
        self.asked.append(symbol)
        if len(self.asked) == 4:
            raise FeedError("the venue's limit allows no call now", where=symbol)
        return super().depth(symbol, limit)

    asked: list[str]


def _renew(venue: _Slow, seconds: int, needed: dict[int, list[str]]) -> None:
    """Let snapshots of three symbols be renewed, and ask at some seconds for those that are needed."""
    venue.asked = []

    async def run() -> None:
        snapshots = Snapshots(
            venue,  # type: ignore[arg-type]
            _Refusals(),
            lambda _, __: "snapshot_not_needed",
            monotonic=lambda: venue.now_ns,
            symbols=["A", "B", "C"],
            renew_ns=30 * NS_PER_S,
            weight_per_minute=2_400,
        )
        for second in range(seconds):
            venue.now_ns = second * NS_PER_S
            snapshots.poll(needed.get(second, []))
            for _ in range(10):
                await asyncio.sleep(0)
        await snapshots.close()

    asyncio.run(run())


def test_whole_books_are_asked_for_now_and_then_one_after_another() -> None:
    """Without, a journal of weeks had snapshots at its beginning alone, and was read from there."""
    venue = _Slow(tuple(range(100)))
    _renew(venue, 75, needed={15: ["B"]})
    # At 10 s, at 15 s because it was needed, 25, 35 refused, 36 again, 46, 56, 66 s.
    assert venue.asked == ["A", "B", "C", "A", "A", "B", "C", "A"]
    assert [each // NS_PER_S for each in venue.asked_ns] == [10, 15, 25, 36, 46, 56, 66]


class _Delisting(_Slow):
    """Refuses one symbol from the beginning on."""

    def depth(self, symbol: str, limit: int) -> tuple[Any, DepthSnapshot]:
        self.asked.append(symbol)
        if symbol == "B":
            raise FeedError("the venue refuses: HTTP 400", where=symbol, value="-1121 Invalid symbol.")
        return _Venue.depth(self, symbol, limit)


def test_a_symbol_that_is_refused_for_ever_keeps_no_other_one_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    venue = _Delisting(tuple(range(100)))
    _renew(venue, 180, needed={})
    # Patience with B grows to 30 s, which takes half a minute; from then on it is asked once a round.
    assert "".join(venue.asked) == "A" + "B" * 8 + "CABCAB"
    (told,) = caplog.messages
    assert "no snapshot of B for half a minute" in told
    assert "-1121" in told


class _Noting(_Venue):
    """Notes whom it was asked about, and for how many levels."""

    def __init__(self) -> None:
        super().__init__(tuple(range(1_000)))
        self.asked: list[tuple[int, str, int]] = []

    def depth(self, symbol: str, limit: int) -> tuple[Any, DepthSnapshot]:
        self.asked.append((self.now_ns // NS_PER_S, symbol, limit))
        return super().depth(symbol, limit)


async def test_books_near_their_edge_get_deep_snapshots_one_after_another_behind_those_in_need() -> None:
    """All at once, with 20 of the venue's 2,400 a minute each, they would leave nothing for anybody else."""
    venue = _Noting()
    symbols = [f"S{number}" for number in range(300)]
    snapshots = _fetching(venue, symbols)
    near = list(symbols)
    for quarter in range(24):
        venue.now_ns = quarter * NS_PER_S // 4
        in_need = ["S7"] if quarter == 8 else []
        snapshots.poll(in_need, [each for each in near if each not in in_need])
        for _ in range(10):
            await asyncio.sleep(0)
        near = [each for each in near if each not in {name for _, name, _ in venue.asked}]
    await snapshots.close()
    assert venue.asked == [(0, "S0", 1_000), (2, "S7", 50), (2, "S1", 1_000), (4, "S2", 1_000)]
