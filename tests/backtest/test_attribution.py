"""Every trade's profit is signal, delay, spread, impact, fees and funding, and nothing else, to the unit.

The trades come from the paper broker on random markets, taking and resting; the oracle is cash that changed
hands, counted here from the broker's reports alone.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.backtest.ledger import Ledger
from gpuscalp.config import CostConfig, LegConfig, PaperConfig
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.messages import OrderKind, OrderRequest, Report, ReportKind, TimeInForce
from gpuscalp.orders import Order
from tests.backtest.market import order as order_of
from tests.backtest.rows import E8, INSTRUMENT, random_rows
from tests.thorough import examples

PAPER = PaperConfig(
    request=LegConfig(low_ms=2.0), reply=LegConfig(low_ms=0.0), percent_price_up=10.0, percent_price_down=0.01
)


class Run:
    """One account that goes from flat to flat, over and over; keeps what the law is about."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.broker = PaperBroker(
            [INSTRUMENT], cost=CostConfig(taker_fee_bps=5.3, maker_fee_bps=1.7), paper=PAPER, start_e8=10**15
        )
        self.ledger = Ledger()
        self.sent: dict[int, Order] = {}
        self.held = 0
        self.cash: list[int] = [
            0
        ]  # by trade: what was received less what was paid, fees and funding included

    def hear(self, reports: tuple[Report, ...]) -> None:
        for report in reports:
            if report.kind is ReportKind.FUNDING:
                self.ledger.on_funding(0, report.money_e8)
                self.cash[-1] += report.money_e8
            if report.fill is None:
                continue
            fill = report.fill
            self.ledger.on_fill(fill, self.sent.get(fill.order_id), maker=report.maker)
            # Prices are whole, so there is nothing to round.
            self.cash[-1] -= fill.side * fill.qty_e8 * (fill.price_e8 // E8) + fill.fee_e8
            self.held += fill.side * fill.qty_e8
            if self.held == 0:
                self.cash.append(0)

    def act(self, now_ns: int) -> None:
        """Send what leads to a position or out of it, or end what waits."""
        display = self.broker.displays[0]
        if not display.mid2_e8 or self.rng.random() < 0.5:
            return
        if self.broker.orders:
            if self.rng.random() < 0.1:
                self.broker.cancel(next(iter(self.broker.orders)), now_ns)
            return
        side = -1 if self.held > 0 else 1 if self.held < 0 else int(self.rng.choice((-1, 1)))
        qty = abs(self.held) or int(self.rng.integers(1, 25)) * E8
        rests = self.rng.random() < 0.7
        best, _ = display.best(side)
        number = len(self.sent) + 1
        self.sent[number] = replace(
            order_of(side, 1.0, order_id=number, reduce_only=bool(self.held)), mid2_e8=display.mid2_e8
        )
        request = OrderRequest(number, 0, side, qty, kind=OrderKind.MARKET, time_in_force=TimeInForce.IOC)
        if rests:
            request = OrderRequest(number, 0, side, qty, best, time_in_force=TimeInForce.GTX)
        self.broker.submit(replace(request, reduce_only=bool(self.held)), now_ns)


def play(seed: int, wander: int) -> Run:
    rows = random_rows(seed, count=500, symbols=1, late_ms=3, wander=wander, book_share=0.4)
    run = Run(seed)
    for index in range(len(rows.ticks)):
        run.hear(rows.tell(run.broker, index))
        run.act(run.broker.now_ns)
    return run


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((0, 1, 3)))
def test_parts_of_every_trade_add_up_to_the_cash_that_changed_hands(seed: int, wander: int) -> None:
    run = play(seed, wander)
    closed = run.ledger.closed
    assert len(closed) == len(run.cash) - 1
    for trade, cash in zip(closed, run.cash, strict=False):
        parts = trade.gross_e8 + trade.delay_e8 + trade.spread_e8 + trade.impact_e8
        assert parts - trade.fees_e8 + trade.funding_e8 == trade.pnl_e8 == cash
        for part in ("gross_e8", "delay_e8", "spread_e8", "impact_e8"):
            assert sum(getattr(done, part) for done in trade.executions) == getattr(trade, part)
    for trade in (*closed, *run.ledger.open.values()):
        for done in trade.executions:
            check_one(done)


def check_one(done: Any) -> None:
    """Each part is what its definition says, in exact fractions; prices here are whole."""
    fill = done.fill
    qty = Fraction(fill.side * fill.qty_e8, E8)
    levels = (Fraction(done.decision_mid2_e8, 2), Fraction(fill.mid2_e8, 2), fill.touch_e8, fill.price_e8)
    assert done.gross_e8 == -qty * levels[0]
    assert (done.delay_e8, done.spread_e8, done.impact_e8) == tuple(
        -qty * (later - before) for before, later in pairwise(levels)
    )
    assert done.impact_e8 <= 0, "nobody is filled at a better price than the best one shown"
    if done.maker:
        assert done.impact_e8 == 0, "who rests gets his own price"
    else:
        assert done.spread_e8 < 0, "who takes pays half a spread"


def test_the_markets_above_hold_what_the_law_is_about() -> None:
    """Makers and takers, walked levels, funding and earned spreads all occur, so the law is not empty."""
    runs = [play(seed, wander) for seed in range(8) for wander in (0, 1)]
    done = [each for run in runs for trade in run.ledger.closed for each in trade.executions]
    assert len(done) > 200
    assert 0.05 < sum(each.maker for each in done) / len(done) < 0.95
    assert any(each.impact_e8 < 0 for each in done)
    assert any(each.spread_e8 > 0 for each in done)
    assert any(trade.funding_e8 for run in runs for trade in run.ledger.closed)
