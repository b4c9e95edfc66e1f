"""Whatever signals, prices and fills come, no limit is passed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.orders import IntentKind, MarketRow, Order
from gpuscalp.risk.gate import RiskState
from gpuscalp.trader import StepReport, Trader
from tests.thorough import examples
from tests.trading import E8, INSTRUMENTS, fill, market, signals, step, trader

STEP = st.tuples(
    st.tuples(st.integers(-300, 300), st.integers(-300, 300)),  # move of the bid, ticks of 1 or 0.1 %
    st.tuples(st.integers(-3, 400), st.integers(-1, 30)),  # spread, ticks
    st.tuples(st.floats(-80, 80) | st.just(float("nan")), st.floats(-80, 80)),  # edge
    st.tuples(st.sampled_from([0, 0, 0, 1, 64]), st.sampled_from([0, 0, 4])),  # quality
    st.sampled_from([10.0, 10.0, 3_000.0, float("nan")]),  # quote age
    st.integers(0, 3),  # what becomes of open orders: nothing, nothing filled, half, all
    st.integers(1, 400),  # ms to the next frame
)


@settings(max_examples=examples(150))
@given(
    steps=st.lists(STEP, min_size=5, max_size=40),
    order_usdt=st.floats(90, 4_000),
    # Relative to the order, so that every limit is met often from both sides.
    max_order=st.floats(0.9, 2),
    max_position=st.floats(0.9, 2),
    max_gross=st.floats(0.9, 2.5),
    max_loss=st.floats(1, 100),
)
def test_no_limit_is_passed_whatever_comes(
    steps: list[Any],
    order_usdt: float,
    max_order: float,
    max_position: float,
    max_gross: float,
    max_loss: float,
) -> None:
    max_order, max_position, max_gross = (
        ratio * order_usdt for ratio in (max_order, max_position, max_gross)
    )
    machine = trader(
        strategy={"order_usdt": order_usdt, "min_agreement": 0.0},
        risk={
            "max_order_usdt": max_order,
            "max_position_usdt": max_position,
            "max_gross_usdt": max_gross,
            "max_daily_loss_usdt": max_loss,
        },
    )
    limits = Limits(max_order, max_position, max_gross, max_loss)
    bid, now, seen = [600_000, 20_000], 0, set[int]()
    for moves, spread, edges, quality, age_ms, fate, pause_ms in steps:
        now += pause_ms
        bid = [max(1_000, bid[0] + 10 * moves[0]), max(1_000, bid[1] + moves[1])]
        row = market(now, (bid[0], bid[1]), spread, quality, age_ms)
        settle(machine, row, fate)
        held_before = [position.qty_e8 for position in machine.account.positions]
        was_active = machine.gate.state is RiskState.ACTIVE
        report = step(machine, row, signals(*edges))
        assert len(report.intents) == len(report.verdicts)
        assert sum(verdict.accepted for verdict in report.verdicts) == len(report.orders)
        for order in report.orders:
            assert order.order_id not in seen
            seen.add(order.order_id)
        limits.check(report, row, held_before, machine, was_active)
        assert all(verdict.code for verdict in report.verdicts if not verdict.accepted)


def settle(machine: Trader, row: MarketRow, fate: int) -> None:
    if fate == 0:
        return
    for order in list(machine.open_orders.values()):
        index = order.symbol_index
        price = int((row.ask_px if order.side > 0 else row.bid_px)[index]) * INSTRUMENTS[index].tick_size_e8
        step = INSTRUMENTS[index].step_size_e8
        qty = {1: 0, 2: order.qty_e8 // 2 // step * step, 3: order.qty_e8}[fate]
        if qty and price > 0:
            machine.on_fill(fill(order, price, qty))
        machine.on_done(order.order_id)


class Limits:
    """Checks orders from the outside, in floats, knowing only quantities and prices."""

    def __init__(self, max_order: float, max_position: float, max_gross: float, max_loss: float) -> None:
        self.max_order, self.max_position, self.max_gross = max_order, max_position, max_gross
        self.max_loss = max_loss
        self.opening: dict[int, Order] = {}

    def check(
        self, report: StepReport, row: MarketRow, held: list[int], machine: Trader, was_active: bool
    ) -> None:
        pending = {o.order_id: o for o in machine.open_orders.values() if not o.reduce_only}
        new = [order for order in report.orders if not order.reduce_only]
        for order in report.orders:
            index = order.symbol_index
            assert order.qty_e8 > 0
            assert order.qty_e8 % INSTRUMENTS[index].step_size_e8 == 0
            if order.reduce_only:
                assert order.side * held[index] < 0
                assert order.qty_e8 <= abs(held[index])
                assert order.intent.kind is IntentKind.EXIT
        if not new:
            return
        assert was_active
        assert machine.gate.state is RiskState.ACTIVE
        assert report.equity_e8 > (10_000 - self.max_loss) * E8
        value = [0.0, 0.0]
        for index in (0, 1):
            # The trader remembers a quote for a symbol it holds; a missing one cannot be valued here.
            unit = INSTRUMENTS[index].tick_size_e8 / E8
            price = float(max(row.bid_px[index], row.ask_px[index])) * unit
            qty = abs(held[index]) + sum(o.qty_e8 for o in pending.values() if o.symbol_index == index)
            value[index] = qty / E8 * price
        for order in new:
            index = order.symbol_index
            sides = row.ask_px if order.side > 0 else row.bid_px
            price = float(sides[index]) * INSTRUMENTS[index].tick_size_e8 / E8
            assert order.qty_e8 / E8 * price <= self.max_order + 1e-6
            assert (abs(held[index]) + order.qty_e8) / E8 * price <= self.max_position + 1e-6
            assert row.age_ms[index] <= 2_000
            spread = 2e4 * (float(row.ask_px[index]) - float(row.bid_px[index]))
            assert 0 <= spread / (float(row.ask_px[index]) + float(row.bid_px[index])) <= 5.0 + 1e-9
            assert not row.quality[index]
        crossed = (row.ask_px < row.bid_px).any()
        widest = float(np.max(np.abs(row.ask_px - row.bid_px) / np.minimum(row.ask_px, row.bid_px)))
        slack = 1e-6 if not crossed else self.max_gross * widest
        assert sum(value) <= self.max_gross * (1 + widest) + slack + 1e-6
