"""Events as rows where nobody tells what to doubt: a live feed. Events and rows are made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpuscalp.nautilus.rows import EventRows
from gpuscalp.schema import TICK, Instrument, Quality, TickKind

E8 = 10**8
RAW = 10**16
ADD, UPDATE, DELETE, CLEAR = 1, 2, 3, 4
BUY, SELL = 1, 2
# Ticks of 0.5: a price of 200 ticks is 100.
COINS = [Instrument(name, "binance_usdm", E8 // 2, 1, 0, 0, "synthetic") for name in ("AUSDT", "BUSDT")]


def raw(value: float) -> Any:
    return SimpleNamespace(raw=round(value * E8) * (RAW // E8))


def at(ns: int) -> dict[str, int]:
    return {"ts_event": ns, "ts_init": ns + 5}


def trade(number: int, price: float, qty: float, side: int, ns: int) -> Any:
    return SimpleNamespace(
        price=raw(price), size=raw(qty), aggressor_side=side, trade_id=str(number), **at(ns)
    )


def quote(bid: float, bid_qty: float, ask: float, ask_qty: float, ns: int) -> Any:
    return SimpleNamespace(
        bid_price=raw(bid), bid_size=raw(bid_qty), ask_price=raw(ask), ask_size=raw(ask_qty), **at(ns)
    )


def deltas(sequence: int, ns: int, *changes: tuple[int, int, float, float]) -> Any:
    made = [
        SimpleNamespace(action=action, order=SimpleNamespace(side=side, price=raw(price), size=raw(qty)))
        for action, side, price, qty in changes
    ]
    return SimpleNamespace(deltas=made, sequence=sequence, **at(ns))


def tick(kind: TickKind, ns: int, symbol: int = 0, **fields: Any) -> np.void:
    row = np.zeros(1, TICK)
    row["kind"], row["symbol"], row["exch_ns"], row["recv_ns"] = kind, symbol, ns, ns + 5
    for name, value in fields.items():
        row[name] = value
    return row[0]


@pytest.fixture
def rows() -> EventRows:
    return EventRows(COINS, precision=16, told=False)


def check(rows: EventRows, *expected: np.void) -> None:
    found = rows.take()
    assert len(found) == len(expected)
    for row, (one, other) in enumerate(zip(found, expected, strict=True)):
        for name in TICK.names or ():
            same = one[name] == other[name] or (one[name] != one[name] and other[name] != other[name])
            assert same, (row, name, one[name], other[name])


def test_trades_and_quotes_become_ticks_in_their_units(rows: EventRows) -> None:
    rows.trade(1, trade(7, 100.5, 0.25, SELL, 1_000))
    rows.quote(0, quote(99.5, 3, 100.0, 0.00000001, 1_001))
    check(
        rows,
        tick(TickKind.TRADE, 1_000, 1, px0=201, q0=0.25, side=-1),
        tick(TickKind.QUOTE, 1_001, px0=199, px1=200, q0=3.0, q1=1e-8),
    )
    assert rows.best == [(9_950_000_000, 100 * E8), (0, 0)]


def test_a_missing_trade_shows_in_the_ids_and_a_repeated_one_makes_no_row(rows: EventRows) -> None:
    for number in (7, 8, 8, 10, 11):
        rows.trade(0, trade(number, 100, 1, BUY, 1_000 + number))
    assert [(int(row["exch_ns"]) - 1_000, int(row["quality"])) for row in rows.take()] == [
        (7, 0), (8, 0), (10, int(Quality.GAP)), (11, 0),
    ]  # fmt: skip


def test_a_crossed_quote_and_a_price_off_the_grid(rows: EventRows) -> None:
    rows.quote(0, quote(100.0, 1, 99.5, 1, 1_000))
    rows.quote(0, quote(100.0, 1, 100.3, 1, 1_001))
    check(rows, tick(TickKind.QUOTE, 1_000, px0=200, px1=199, q0=1.0, q1=1.0, quality=int(Quality.CROSSED)))
    assert rows.off_ticks() == (1, 0)


def test_a_book_begins_with_its_snapshot_and_rows_follow_its_best_levels(rows: EventRows) -> None:
    rows.quote(0, quote(99.5, 1, 100.0, 1, 900))
    rows.deltas(0, deltas(4, 950, (UPDATE, BUY, 99.0, 5)))  # nothing to change yet
    assert rows.unsynced() == (0, 1)
    bids = [(ADD, BUY, 99.5 - level / 2, 1.0) for level in range(25)]
    asks = [(ADD, SELL, 100.0 + level / 2, 2.0) for level in range(25)]
    rows.deltas(0, deltas(10, 1_000, (CLEAR, 0, 0, 0), *bids, *asks))
    assert rows.unsynced() == (1,)
    rows.deltas(0, deltas(12, 1_100, (UPDATE, BUY, 99.5, 4.0), (DELETE, SELL, 100.0, 0)))
    rows.deltas(0, deltas(13, 1_200, (UPDATE, SELL, 111.5, 9.0)))  # beyond the best 20
    rows.deltas(0, deltas(14, 1_300, (ADD, SELL, 100.0, 0.5)))
    book = {"px0": 199, "px1": 200, "q0": 5.0, "q1": 10.0, "q2": 20.0, "q3": 40.0}
    later = book | {"px1": 201, "q0": 8.0, "q2": 23.0}
    check(
        rows,
        tick(TickKind.QUOTE, 900, px0=199, px1=200, q0=1.0, q1=1.0),
        tick(TickKind.BOOK, 1_000, **book),
        tick(TickKind.BOOK, 1_100, **later),
        tick(TickKind.BOOK, 1_300, **later | {"px1": 200, "q1": 8.5, "q3": 38.5}),
    )


def test_the_parts_of_a_mark_price_make_one_row(rows: EventRows) -> None:
    for name, value in (
        ("index_price_e8", 9_999 * E8), ("funding_rate_e8", -12_345), ("next_funding_ns", 8_000_000_000),
    ):  # fmt: skip
        rows.mark_part(0, name, value, 1_000, 1_005)
    assert len(rows) == 0
    rows.mark_part(0, "mark_price_e8", 10_001 * E8, 1_000, 1_005)
    rows.end_marks()
    rows.mark_part(0, "mark_price_e8", 10_002 * E8, 2_000, 2_005)
    rows.mark_part(1, "mark_price_e8", 7 * E8, 2_000, 2_005)
    rows.trade(0, trade(1, 100, 1, BUY, 2_001))
    nan = float("nan")
    check(
        rows,
        tick(TickKind.MARK, 1_000, q0=10_001.0, q1=9_999.0, q2=-12_345 / 1e8, q3=8_000.0),
        tick(TickKind.MARK, 2_000, q0=10_002.0, q1=nan, q2=0.0, q3=nan),
        tick(TickKind.MARK, 2_000, 1, q0=7.0, q1=nan, q2=0.0, q3=nan),
        tick(TickKind.TRADE, 2_001, px0=200, q0=1.0, side=1),
    )
