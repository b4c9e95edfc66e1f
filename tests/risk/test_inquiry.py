"""Every number that sizing and the gate compare, against exact fractions of what is held, open and shown."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import isnan
from typing import Any

import numpy as np
import pytest

from gpuscalp.account import Account
from gpuscalp.config import RiskConfig, SizingConfig
from gpuscalp.open_orders import OpenOrders
from gpuscalp.orders import BUY, SELL, Conditions, Intent, IntentKind, MarketRow, Order, OrderKind, SignalRow
from gpuscalp.risk.exposure import Exposure
from gpuscalp.risk.gate import RiskGate
from gpuscalp.risk.inquiry import Inquiry
from gpuscalp.risk.rules import Question
from gpuscalp.risk.sizing import Sizing
from gpuscalp.risk.volatility import Volatility
from gpuscalp.schema import Quality
from tests.trading import (
    ASK_E8,
    E8,
    INSTRUMENTS,
    MS,
    NAN,
    NOTHING,
    NOW,
    fill,
    market,
    resting,
    signals,
    step,
    trader,
)

# In ticks: 60,000.0 / 60,000.3 and 0.20000 / 0.20004; the marks are elsewhere.
BID, SPREAD = (600_000, 20_000), (3, 4)
MARKS = (60_030.0, 0.25)
EQUITY = 4_000 * E8


class World:
    """Two symbols, each with what it holds; the orders of the second one are to be counted for the first."""

    def __init__(self, held: int, other: int) -> None:
        self.account = Account(EQUITY, 2)
        self.orders = OpenOrders(2)
        self.exposure = Exposure(INSTRUMENTS, self.account, self.orders, old_ms=2_000)
        self.row = market(0, bid=BID, spread=SPREAD, age_ms=30.0)
        self.row.mark[:] = MARKS
        for index, qty in enumerate((held, other)):
            if qty:
                self.account.apply_fill(index, qty, 1_000 * E8, 0)
                self.exposure.holding.add(index)
        for index in (0, 1):
            self.exposure.note_quote(self.row, index)
        risk = RiskConfig(stop_bps=40.0)
        gate = RiskGate(risk, start_e8=EQUITY, symbol_count=2)
        gate.observe(NOW, EQUITY)
        volatility = Volatility(2, short_ms=1_000, long_ms=1_000)
        self.inquiry = Inquiry(
            INSTRUMENTS, exposure=self.exposure, sizing=Sizing(SizingConfig(), risk), gate=gate,
            volatility=volatility, hold_ns=1_000 * MS,
        )  # fmt: skip

    def ask(
        self,
        asked: Order,
        said: SignalRow,
        *,
        traded_ns: int = -1,
        row: MarketRow | None = None,
        equity: int = EQUITY,
        **other: Any,
    ) -> Question:
        good = Conditions(now_ns=NOW + 20 * MS, clock_error_ms=-7.0, device_ok=True, extra_quality=None)
        index = asked.symbol_index
        price = self.exposure.touch_e8(index, -asked.side)
        around = self.inquiry.surroundings(index, price, equity, edge_spread_bps=0.0)
        return self.inquiry.question(
            asked, around, market=row or self.row, signals=said, conditions=replace(good, **other),
            traded_ns=traded_ns, trained_until_ns=NOW - 3_600 * 10**9,
        )  # fmt: skip


def order(side: int, qty_e8: int, *, number: int = 9, index: int = 0, **changes: Any) -> Order:
    reduces = changes.get("reduce_only", False)
    kind, reason = (IntentKind.EXIT, "time") if reduces else (IntentKind.ENTER, "edge")
    intent = Intent(index, side, kind, None, changes.pop("reason", reason), 0.6, 0.8, 9.0, 1.0)
    plain = Order(number, index, side, qty_e8, reduces, NOW, 0, intent)
    return replace(plain, **changes)


UP = signals(30.0, 30.0)


@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize("held", [0, 3_000_000, -3_000_000])
@pytest.mark.parametrize("other", [0, 2_000 * E8, -2_000 * E8])
def test_amounts_are_those_of_what_is_held_and_open(side: int, held: int, other: int) -> None:
    world = World(held, other)
    world.orders.add(order(BUY, 1_000_000, number=1, kind=OrderKind.LIMIT, price_e8=1))
    world.orders.add(order(SELL, 300 * E8, number=2, index=1))
    world.orders.add(order(SELL, 900 * E8, number=3, index=1, reduce_only=True))
    question = world.ask(order(side, 2_000_000), UP)
    price = Fraction(600_003 if side > 0 else 600_000, 10)
    ask = (Fraction(600_003, 10), Fraction(20_004, 100_000))
    # What only reduces adds nothing; what is open counts at the ask, whichever side it has.
    position = price * abs(Fraction(held + side * 2_000_000, E8)) + ask[0] * Fraction(1, 100)
    gross = position + ask[1] * (abs(Fraction(other, E8)) + 300)
    value = price * Fraction(2, 100)
    assert question.order_usdt == float(value)
    assert question.position_usdt == float(position)
    assert question.gross_usdt == float(gross)
    assert question.leverage == pytest.approx(float(gross / 4_000), rel=1e-12)
    assert question.trade_risk_pct == pytest.approx(float(value * 40 / 10_000 / 4_000 * 100), rel=1e-12)
    assert question.open_orders_total == 4
    assert question.min_notional_usdt == 100.0
    assert question.spread_bps == pytest.approx(float(10_000 * Fraction(3, 10) * 2 / Fraction(1_200_003, 10)))
    assert question.collar_bps == pytest.approx(float(abs(price / 60_030 - 1) * 10_000))
    assert (question.reducing, question.predicted) == (False, True)
    around = world.inquiry.surroundings(0, 1, EQUITY, edge_spread_bps=0.0)
    assert (around.held_e8, around.open_e8) == (abs(held), 600 * E8 + 300_000)
    assert around.others_e8 == float((gross - position) * E8)


@pytest.mark.parametrize("equity", [0, -1])
def test_what_is_not_known_is_no_number(equity: int) -> None:
    world = World(0, 0)
    row = market(0, bid=BID, spread=SPREAD)
    row.mark[:] = 0.0
    broke = world.ask(order(BUY, E8), UP, row=row, equity=equity)
    assert all(map(isnan, (broke.leverage, broke.trade_risk_pct, broke.collar_bps)))
    world.exposure.bid_e8[0] = world.exposure.ask_e8[0] = 0
    unseen = world.ask(order(BUY, E8), UP)
    assert all(map(isnan, (unseen.spread_bps, unseen.order_usdt, unseen.trade_risk_pct)))


def test_mark_below_one_is_one() -> None:
    question = World(0, 0).ask(order(BUY, E8, index=1), UP)
    assert question.collar_bps == pytest.approx(1e4 * (1 - 0.20004 / 0.25))


@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize(
    ("held", "qty", "only", "expected"),
    [(2, 2, True, True), (2, 1, True, True), (2, 3, True, False), (2, 2, False, False), (-2, 1, True, False),
     (0, 1, True, False)],
)  # fmt: skip
def test_order_reduces_where_it_is_no_more_than_the_position_on_the_other_side(
    side: int, held: int, qty: int, only: bool, expected: bool
) -> None:
    world = World(-side * held * 1_000_000, 0)
    asked = order(side, qty * 1_000_000, reduce_only=only)
    question = world.ask(asked, UP)
    assert question.reducing == expected
    # An exit because time is up needs no model; one by an opposite signal does, and so does all that opens.
    assert question.predicted == (not expected)
    assert world.ask(replace(asked, intent=replace(asked.intent, reason="opposite_signal")), UP).predicted


@pytest.mark.parametrize("edge", [30.0, -30.0])
def test_times_signals_and_health_are_put_as_they_are(edge: float) -> None:
    said = SignalRow(np.array([[0.1, 0.2, 0.4]] * 2), np.ones(2), np.array([edge, 1.0]), np.zeros(2))
    quality = np.array([int(Quality.GAP), 0], np.uint32)
    question = World(0, 0).ask(
        order(BUY, E8), said, traded_ns=NOW - 480 * MS, device_ok=False, extra_quality=quality
    )
    assert (question.edge_bps, question.clock_error_ms, question.device_faults) == (30.0, 7.0, 1)
    assert (question.since_trade_ms, question.prediction_age_ms) == (500.0, 20.0)
    assert question.model_age_h == pytest.approx(1 + 0.02 / 3_600, rel=1e-12)
    assert (question.blocked_quality, question.quote_age_ms) == (int(Quality.GAP), 30.0)
    assert question.probability_error == pytest.approx(0.3)
    assert (question.confidence, question.agreement) == (0.6, 0.8)
    assert World(0, 0).ask(order(BUY, E8), said, traded_ns=0).since_trade_ms == (NOW + 20 * MS) / MS
    assert World(0, 0).ask(order(BUY, E8), said).since_trade_ms == float("inf")


@pytest.mark.parametrize("wrong", [(-0.2, 0.6, 0.6), (1.2, -0.1, -0.1), (0.0, 0.0, 1.5)])
def test_probability_outside_of_its_range_is_infinitely_wrong(wrong: tuple[float, ...]) -> None:
    said = SignalRow(np.array([wrong] * 2), np.ones(2), np.ones(2), np.zeros(2))
    assert World(0, 0).ask(order(BUY, E8), said).probability_error == float("inf")


@pytest.mark.parametrize("quote", [(0, 600_009), (599_000, 0)])
def test_quote_of_one_side_changes_nothing(quote: tuple[int, int]) -> None:
    world = World(E8, 0)
    before = world.exposure.closing_values_e8()
    row = market(100, bid=BID, spread=SPREAD)
    row.bid_px[0], row.ask_px[0] = quote
    world.exposure.note_quote(row, 0)
    assert (world.exposure.touch_e8(0, BUY), world.exposure.touch_e8(0, SELL)) == (
        60_000 * E8,
        60_000 * E8 + 3 * E8 // 10,
    )
    assert world.exposure.closing_values_e8() == before


@pytest.mark.parametrize("side", [BUY, SELL])
def test_mark_below_one_counts_where_the_quote_is_old(side: int) -> None:
    world = World(0, side * 1_000 * E8)
    row = market(5_000, bid=BID, spread=SPREAD, age_ms=5_030.0)
    row.mark[1] = 0.2 - side * 0.125
    world.exposure.note_quote(row, 1)
    assert world.exposure.closing_values_e8() == {1: side * (200 - side * 125) * E8}


@pytest.mark.parametrize("side", [BUY, SELL])
def test_position_without_a_sound_quote_is_worth_its_mark(side: int) -> None:
    world = World(side * E8, 0)
    world.exposure.holding.clear()
    world.exposure.forget(0)
    world.exposure.holding.add(0)
    row = market(0, bid=BID, spread=SPREAD, quality=(Quality.GAP, 0))
    row.mark[0] = 50_000.0
    world.exposure.note_quote(row, 0)
    assert world.exposure.closing_values_e8() == {0: side * 50_000 * E8}


def test_order_on_its_way_is_valued_at_the_quote_of_now() -> None:
    machine, entry = resting()
    step(machine, market(100, bid=(500_000, 20_000)), NOTHING)
    ask = Fraction(500_001, 10)
    assert machine.exposure.others_e8(1) == (0, ask * entry.qty_e8)


def test_entry_that_is_filled_while_quotes_are_in_doubt_is_worth_the_last_sound_one() -> None:
    machine = trader()
    (entry,) = step(machine, market(0), signals(30.0, NAN)).orders
    step(machine, market(100, bid=(440_000, 20_000), quality=(Quality.GAP, 0)), NOTHING)
    machine.on_fill(fill(entry, ASK_E8))
    assert machine.equity_e8() == 10_000 * E8 - entry.qty_e8 // 10
