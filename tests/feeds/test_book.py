"""What becomes of a book case by case; test_book_laws.py and test_book_procedure.py hold the rules."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from gpuscalp.feeds import book as book_module
from gpuscalp.feeds.book import BookEvent, LocalBook
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, Levels
from gpuscalp.schema import Quality

FLAGGED = int(Quality.GAP | Quality.RESYNC)


def diff(first: int, last: int, previous: int, bids: Levels = (), asks: Levels = ()) -> DepthUpdate:  # type: ignore[assignment]
    return DepthUpdate("X", 1, first, last, previous, list(bids), list(asks))


def snapshot(last: int, bids: Levels = ((99, 1),), asks: Levels = ((101, 1),)) -> DepthSnapshot:  # type: ignore[assignment]
    return DepthSnapshot("X", 1, last, list(bids), list(asks))


@pytest.mark.parametrize(("level", "event"), [(19, BookEvent.TOP), (20, BookEvent.APPLIED)])
@pytest.mark.parametrize("qty", [0, 7])
def test_the_twentieth_level_is_the_last_of_the_top(level: int, event: BookEvent, qty: int) -> None:
    book = LocalBook()
    book.on_snapshot(snapshot(0, [(99 - i, 5) for i in range(30)], [(101 + i, 5) for i in range(30)]))
    assert book.on_diff(diff(1, 1, 0, asks=[(101 + level, qty)])) is event
    assert book.on_diff(diff(2, 2, 1, bids=[(99 - level, qty)])) is event


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
