"""A state whose arrays or places would lead compiled code out of bounds is refused before it runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import pytest

from gpuscalp import object_graph
from gpuscalp.config import GridConfig, LiveConfig
from gpuscalp.errors import DataError, ShapeError
from gpuscalp.execution.matching import Matcher
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate
from gpuscalp.frames import Grid
from gpuscalp.live.bounds import check_bounds
from gpuscalp.live.market import Market
from gpuscalp.ops import display, levels, queues
from gpuscalp.schema import TICK, Instrument, TickKind

INSTRUMENTS = tuple(
    Instrument(
        symbol=symbol,
        venue="binance_usdm",
        tick_size_e8=10**7,
        step_size_e8=10**5,
        min_qty_e8=10**5,
        min_notional_e8=0,
        source="observed",
    )
    for symbol in ("BTCUSDT", "ETHUSDT")
)


def fresh() -> Market:
    return Market(INSTRUMENTS, LiveConfig(), GridConfig())


@pytest.fixture
def read() -> Any:
    """A market side with a book, an update that waits and a queue, written and read back."""
    market: Any = fresh()
    book = market.ingest._markets[0].book
    bids, asks = [(10**10 - n * 10**7, 10**8) for n in range(30)], [(11 * 10**9, 10**8)]
    book.on_snapshot(DepthSnapshot("BTCUSDT", 0, 9, bids, asks))
    market.ingest._markets[1].book.on_diff(DepthUpdate("ETHUSDT", 0, 1, 2, 0, bids, []))
    matcher = matcher_of(market)
    # As many as there is room for, at two prices, before a book at the beginning of its row.
    for key in [-(10**10), -(10**9)] * 4:
        queues.enter(matcher.display.head, matcher.display.book, matcher.queues.queue, 0, key, 1)
        matcher.queues.orders[1].append(f"at {key}")
    matcher.display.head[0, [display.FIRST, display.END]] = 0, display.MOST_LEVELS
    return object_graph.decode(object_graph.encode(market))


def matcher_of(market: Any) -> Matcher:
    found: Matcher = market.broker._arrivals._matchers[0]
    return found


def test_what_was_written_is_taken(read: Any) -> None:
    check_bounds([read], [fresh()])


def cells(market: Any, side: int, count: int) -> None:
    market.ingest._markets[0].book._cells[side, 0] = count


def kept(market: Any, **changed: Any) -> None:
    waiting = market.ingest._markets[1].book._buffer
    one = waiting.popleft()
    fields = {name: getattr(one, name) for name in one.__struct_fields__}
    waiting.append(type(one)(**fields | changed))


def head(market: Any, column: int, value: int) -> None:
    matcher_of(market).display.head[0, column] = value


def other_handlers(market: Any) -> None:
    """Let messages come to a market that is none of the list, and has a book of its own."""
    aside = copy.copy(market.ingest._markets[0])
    aside.book = copy.copy(aside.book)
    aside.book._top = np.zeros((4, 19), np.int64)
    for index, handlers in enumerate(market.ingest._handlers):
        market.ingest._handlers[index] = tuple(MethodType(each.__func__, aside) for each in handlers)


FORGED: dict[str, Callable[[Any], object]] = {
    "bids beyond the room": lambda market: cells(market, levels.BIDS, 10**6),
    "one bid too many": lambda market: cells(
        market, levels.BIDS, market.ingest._markets[0].book._cells.shape[1]
    ),
    "asks below none": lambda market: cells(market, levels.ASKS, -1),
    "fewer rows": lambda market: setattr(
        market.ingest._markets[0].book, "_cells", np.zeros((3, 40), np.int64)
    ),
    "another type": lambda market: setattr(
        market.ingest._markets[0].book, "_cells", np.zeros((4, 40), np.int32)
    ),
    "no array": lambda market: setattr(market.ingest._markets[0].book, "_top", 7),
    "a shorter top": lambda market: setattr(
        market.ingest._markets[0].book, "_top", np.zeros((4, 19), np.int64)
    ),
    "more bids than levels": lambda market: kept(market, bid_count=31),
    "fewer bids than none": lambda market: kept(market, bid_count=-1),
    "levels of one number": lambda market: kept(market, levels=np.zeros((31, 1), np.int64)),
    "levels that are none": lambda market: kept(market, levels=b"31"),
    "a display that begins before": lambda market: head(market, display.FIRST, -1),
    "a display without end": lambda market: head(market, display.END, 256),
    "more taken than room": lambda market: head(market, display.TAKEN, 257),
    "more prices than orders": lambda market: head(market, display.QUEUES, 9),
    "a price that no order has": lambda market: head(market, display.QUEUES, 1),
    "more places than room": lambda market: head(market, display.PLACES, 9),
    "fewer places than orders": lambda market: head(market, display.PLACES, 7),
    "orders without order": lambda market: matcher_of(market).queues.queue[0, queues.PLACE_KEY, ::-1].sort(),
    "an order at no price": lambda market: matcher_of(market).queues.queue.__setitem__(
        (0, queues.PLACE_KEY, 1), -1
    ),
    "a longer number": lambda market: setattr(matcher_of(market).queues, "power", 7),
    "another symbol's name": lambda market: market.ingest._table[2].__setitem__(slice(None), 5),
    "fewer tables": lambda market: setattr(market.ingest, "_table", market.ingest._table[:2]),
    "orders of one side": lambda market: matcher_of(market).queues.orders.pop(-1),
    "a buffer that is none": lambda market: setattr(market.ingest._markets[1].book, "_buffer", 7),
    "something else in the buffer": lambda market: market.ingest._markets[1].book._buffer.append(7),
    "a buffer for fewer": lambda market: setattr(market.ingest, "_heads", np.zeros((4, 9), np.int64)),
    "another book behind the stream": lambda market: other_handlers(market),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_state_that_leads_out_of_an_array_is_refused(read: Any, forge: Callable[[Any], object]) -> None:
    forge(read)
    with pytest.raises(DataError, match="an array that cannot be"):
        check_bounds([read], [fresh()])


def pending() -> dict[str, np.ndarray]:
    grid = Grid(GridConfig(), 2)
    ticks = np.zeros(3, TICK)
    ticks["exch_ns"] = 10**18
    ticks["kind"] = TickKind.QUOTE, TickKind.TRADE, TickKind.CLOCK
    ticks["symbol"] = 0, 1, -1
    assert grid.push(ticks) == []
    return grid.checkpoint()


def test_pending_ticks_come_back() -> None:
    grid = Grid(GridConfig(), 2)
    grid.restore(pending())
    assert all(np.array_equal(value, pending()[name]) for name, value in grid.checkpoint().items())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ticks", lambda ticks: ticks["symbol"].__setitem__(1, 2)),
        ("ticks", lambda ticks: ticks["symbol"].__setitem__(0, -1)),
        ("frames", lambda frames: frames.__setitem__(0, frames[0] - 10**6)),
        ("frames", lambda frames: frames.__setitem__(2, 0)),
        ("state", lambda state: state.__setitem__(1, 0)),
        ("state", lambda state: state.__setitem__(1, -1)),
    ],
    ids=["symbol", "no symbol", "frame", "frame of the clock", "open frame", "no frame"],
)
def test_pending_ticks_that_cannot_be_are_refused(name: str, change: Callable[[Any], object]) -> None:
    saved = pending()
    change(saved[name])
    with pytest.raises(ShapeError, match="pending ticks cannot be"):
        Grid(GridConfig(), 2).restore(saved)
