"""The book against a dict that is sorted anew after every update; the exchange's procedure case by case."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.feeds import book as book_module
from gpuscalp.feeds.book import BookEvent, BookState, LocalBook
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, Levels
from gpuscalp.schema import Quality
from tests.thorough import examples

FLAGGED = int(Quality.GAP | Quality.RESYNC)


def diff(first: int, last: int, previous: int, bids: Levels = (), asks: Levels = ()) -> DepthUpdate:  # type: ignore[assignment]
    return DepthUpdate("X", 1, first, last, previous, list(bids), list(asks))


def snapshot(last: int, bids: Levels = ((99, 1),), asks: Levels = ((101, 1),)) -> DepthSnapshot:  # type: ignore[assignment]
    return DepthSnapshot("X", 1, last, list(bids), list(asks))


def naive_top(levels: dict[int, int], *, best_is_high: bool) -> tuple[list[int], list[int]]:
    prices = sorted(levels, reverse=best_is_high)[:20]
    rest = [0] * (20 - len(prices))
    return prices + rest, [levels[price] for price in prices] + rest


SIDE = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3)), max_size=12)


@settings(max_examples=examples(150))
@given(SIDE, SIDE, st.lists(st.tuples(SIDE, SIDE), max_size=25))
def test_levels_are_those_of_a_plain_dict(
    bids: Levels, asks: Levels, updates: list[tuple[Levels, Levels]]
) -> None:
    # Asks lie above bids, so that the two sides do not cross whatever is drawn.
    def up(side: Levels) -> Levels:
        return [(price + 100, qty) for price, qty in side]

    book = LocalBook()
    book.on_snapshot(snapshot(0, bids, up(asks)))
    naive = {price: qty for price, qty in bids if qty}, {price: qty for price, qty in up(asks) if qty}
    # A snapshot may name a price twice in these draws; the last one counts for the naive book and for ours.
    for number, (more_bids, more_asks) in enumerate(updates, 1):
        before = naive_top(naive[0], best_is_high=True), naive_top(naive[1], best_is_high=False)
        for levels, side in ((more_bids, naive[0]), (up(more_asks), naive[1])):
            for price, qty in levels:
                side.pop(price, None)
                if qty:
                    side[price] = qty
        event = book.on_diff(diff(number, number, number - 1, more_bids, up(more_asks)))
        after = naive_top(naive[0], best_is_high=True), naive_top(naive[1], best_is_high=False)
        assert book.top() == (*after[0], *after[1])
        assert book.best() == (after[0][0][0], after[0][1][0], after[1][0][0], after[1][1][0])
        # A level that is set and taken back in one update is reported as a change; a change never is missed.
        assert event is BookEvent.TOP or before == after
        assert book.quality == 0


@pytest.mark.parametrize(("level", "event"), [(19, BookEvent.TOP), (20, BookEvent.APPLIED)])
@pytest.mark.parametrize("qty", [0, 7])
def test_the_twentieth_level_is_the_last_of_the_top(level: int, event: BookEvent, qty: int) -> None:
    book = LocalBook()
    book.on_snapshot(snapshot(0, [(99 - i, 5) for i in range(30)], [(101 + i, 5) for i in range(30)]))
    assert book.on_diff(diff(1, 1, 0, asks=[(101 + level, qty)])) is event
    assert book.on_diff(diff(2, 2, 1, bids=[(99 - level, qty)])) is event


def test_snapshot_joins_the_buffered_updates_of_usdm() -> None:
    book = LocalBook()
    assert book.on_diff(diff(1, 5, 0, [(90, 7)])) is BookEvent.BUFFERED
    assert book.on_diff(diff(8, 10, 5, [(98, 3)])) is BookEvent.BUFFERED
    assert book.on_diff(diff(15, 20, 10, [(97, 4)])) is BookEvent.BUFFERED
    assert book.quality == int(Quality.RESYNC)
    assert book.on_snapshot(snapshot(9)) is BookEvent.SYNCED
    bids = dict(zip(*book.top()[:2], strict=True))
    assert 90 not in bids, "an update older than the snapshot must not be applied"
    assert (bids[99], bids[98], bids[97]) == (1, 3, 4)
    assert book.on_diff(diff(30, 31, 20, [(99, 0)])) is BookEvent.TOP
    assert book.best()[0] == 98
    assert book.waiting == 0


def test_snapshot_between_two_updates_joins_them() -> None:
    # Its id lies behind one update and before the first id of the next: nothing of this symbol was there.
    book = LocalBook()
    book.on_diff(diff(1, 5, 0))
    book.on_diff(diff(9, 12, 5, [(98, 3)]))
    assert book.on_snapshot(snapshot(7)) is BookEvent.SYNCED
    assert book.top()[0][:2] == [99, 98]


def test_snapshot_before_any_update_waits_for_the_first_newer_one() -> None:
    book = LocalBook()
    assert book.on_snapshot(snapshot(10)) is BookEvent.SYNCED
    assert book.on_diff(diff(5, 8, 4, [(50, 1)])) is BookEvent.CONTAINED
    assert book.on_diff(diff(11, 11, 8, [(98, 1)])) is BookEvent.TOP
    assert book.quality == 0
    assert 50 not in book.top()[0]


def test_first_update_behind_the_snapshot_is_a_gap() -> None:
    book = LocalBook()
    book.on_snapshot(snapshot(10))
    assert book.on_diff(diff(13, 14, 12)) is BookEvent.GAP
    assert book.missing == (11, 12)
    assert book.state is BookState.RESYNC


def test_snapshot_older_than_the_buffer_is_refused() -> None:
    book = LocalBook()
    book.on_diff(diff(8, 10, 7))
    assert book.on_snapshot(snapshot(5)) is BookEvent.TOO_OLD
    assert book.state is BookState.UNSYNCED
    assert book.on_snapshot(snapshot(7)) is BookEvent.SYNCED


def test_gap_inside_the_buffer_asks_for_a_newer_snapshot() -> None:
    book = LocalBook()
    book.on_diff(diff(1, 5, 0))
    assert book.on_diff(diff(9, 12, 8)) is BookEvent.GAP
    assert book.on_snapshot(snapshot(3)) is BookEvent.TOO_OLD
    assert book.on_snapshot(snapshot(9)) is BookEvent.SYNCED


def synced() -> LocalBook:
    book = LocalBook()
    book.on_snapshot(snapshot(10))
    book.on_diff(diff(11, 12, 10))
    return book


def test_broken_chain_flags_the_book_until_a_snapshot_heals_it() -> None:
    book = synced()
    assert book.on_diff(diff(20, 21, 19, [(98, 5)])) is BookEvent.GAP
    assert (book.missing, book.quality) == ((13, 19), FLAGGED)
    assert book.on_diff(diff(22, 23, 21, [(97, 6)])) is BookEvent.TOP, "updates go on being applied"
    assert book.quality == FLAGGED
    assert book.on_snapshot(snapshot(15)) is BookEvent.TOO_OLD
    assert book.quality == FLAGGED
    assert book.on_snapshot(snapshot(21, [(96, 1)])) is BookEvent.SYNCED
    assert book.quality == 0
    assert book.top()[0][:2] == [97, 96]
    assert book.on_diff(diff(24, 25, 23)) is BookEvent.APPLIED


def test_spot_chain_is_by_first_id() -> None:
    book = LocalBook()
    book.on_snapshot(snapshot(10))
    assert book.on_diff(diff(11, 15, 10)) is BookEvent.APPLIED
    assert book.on_diff(diff(16, 16, 15)) is BookEvent.APPLIED
    assert book.on_diff(diff(18, 18, 17)) is BookEvent.GAP


def test_repeated_and_older_updates_are_not_applied() -> None:
    book = synced()
    again = diff(13, 14, 12, [(99, 9)])
    assert book.on_diff(again) is BookEvent.TOP
    assert book.on_diff(diff(15, 16, 14, [(99, 0)])) is BookEvent.TOP
    assert book.on_diff(again) is BookEvent.LATE
    assert book.on_diff(diff(15, 16, 14, [(99, 0)])) is BookEvent.DUPLICATE
    assert book.best()[0] == 0
    assert book.quality == 0


def test_wrong_id_far_ahead_costs_three_updates_not_the_book() -> None:
    book = synced()
    assert book.on_diff(diff(13, 900, 12)) is BookEvent.APPLIED
    events = [book.on_diff(diff(number, number, number - 1, [(98, number)])) for number in (14, 15, 16, 17)]
    assert events == [BookEvent.LATE, BookEvent.LATE, BookEvent.GAP, BookEvent.TOP]
    assert book.missing == (13, 15)
    assert book.quality == FLAGGED


def test_needless_snapshot_changes_nothing() -> None:
    book = synced()
    assert book.on_snapshot(snapshot(12, [(1, 1)], [(2, 1)])) is BookEvent.UNNEEDED
    assert book.best() == (99, 1, 101, 1)
    fresh = LocalBook()
    fresh.on_snapshot(snapshot(10))
    assert fresh.on_snapshot(snapshot(10)) is BookEvent.UNNEEDED


def test_crossed_book_shows_while_synced() -> None:
    book = synced()
    book.on_diff(diff(13, 14, 12, [(101, 1)]))
    assert book.crossed
    assert book.quality == int(Quality.CROSSED)


def test_level_that_died_in_a_gap_is_removed_when_crossed() -> None:
    book = synced()
    book.on_diff(diff(20, 21, 19, [(102, 5)]))
    assert book.best() == (102, 5, 0, 0), "the ask of 101 cannot have survived a bid of 102"
    book.on_diff(diff(22, 23, 21, [], [(100, 4)]))
    assert book.best() == (99, 1, 100, 4), "nor the bid of 102 an ask of 100"


def test_buffer_is_bounded_and_counts_what_it_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    book = LocalBook()
    count = book_module.BUFFER_MAX + 7
    for number in range(1, count + 1):
        book.on_diff(diff(number, number, number - 1))
    assert (book.waiting, book.unused) == (book_module.BUFFER_MAX, 7)
    assert book.on_snapshot(snapshot(3)) is BookEvent.TOO_OLD


def test_levels_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "LEVELS_MAX", 30)
    book = synced()
    book.on_diff(diff(13, 14, 12, [(price, 1) for price in range(1, 90)]))
    assert book.top()[0] == [99, *range(89, 70, -1)]


def test_recorded_book_is_that_of_a_plain_dict(recordings: Path) -> None:
    """The oracle knows only the rule of the venue: the snapshot, then every update that ends behind it."""
    ours, bids, asks = LocalBook(), dict[str, str](), dict[str, str]()
    last_id, buffered, compared = None, [], 0
    with gzip.open(recordings / "usdm" / "ethusdt_20240718.gz", "rt") as lines:
        messages = [json.loads(line.partition(" ")[2]) for line in lines]
    for message in messages:
        data = message.get("data", {})
        if "lastUpdateId" in message:
            last_id = message["lastUpdateId"]
            bids, asks = dict(message["bids"]), dict(message["asks"])
            ours.on_snapshot(snapshot(last_id, _levels(message["bids"]), _levels(message["asks"])))
            ready = buffered
        elif data.get("e") == "depthUpdate":
            ours.on_diff(diff(data["U"], data["u"], data["pu"], _levels(data["b"]), _levels(data["a"])))
            buffered.append(data)
            ready = [data]
        else:
            continue
        if last_id is None:
            continue
        for update in ready:
            if update["u"] > last_id:
                bids.update(update["b"])
                asks.update(update["a"])
        if compared % 10 == 0:
            assert ours.top() == (*_top(bids, -1), *_top(asks, 1))
        assert not ours.crossed
        compared += 1
    assert compared > 3_000


def _levels(pairs: list[list[str]]) -> Levels:
    return [(round(float(price) * 100) * 10**6, round(float(qty) * 1000) * 10**5) for price, qty in pairs]


def _top(side: dict[str, str], sign: int) -> tuple[list[int], list[int]]:
    alive = sorted((sign * float(price), price) for price, qty in side.items() if float(qty))[:20]
    pairs = _levels([[price, side[price]] for _, price in alive])
    return [price for price, _ in pairs], [qty for _, qty in pairs]
