"""What a process says of its trading: results and costs by hand, also where an exchange tells no book."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gpuscalp.account import Account
from gpuscalp.execution.booking import BookedFill
from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.live.trading_record import RETURNS_MIN, SAMPLE_NS, TradingRecord
from gpuscalp.orders import BUY, SELL, Fill, Intent, IntentKind, Order, OrderKind
from gpuscalp.schema import E8
from gpuscalp.stats import OBSERVATIONS_MIN, sharpe
from gpuscalp.strategy import SKIP_REASONS
from gpuscalp.trader import StepReport

START_E8 = 1_000 * E8


class Money:
    """A trader, as far as it is looked at: an account, and the price at which everything could be closed."""

    def __init__(self) -> None:
        self.account = Account(START_E8, 2)
        self.price_e8 = 100 * E8

    def equity_e8(self) -> int:
        return self.account.equity_e8([self.price_e8, self.price_e8])


class Desk:
    """Fills orders, and tells the record what the engine would."""

    def __init__(self, money: Money) -> None:
        self.money, self.record = money, TradingRecord(money)  # type: ignore[arg-type]
        self.number = 0

    def fill(self, side: int, price: float, *, qty: float = 1.0, decided: float = 100.0, mid: float = 100.0,
             touch: float = 0.0, fee: float = 0.0, reason: str = "edge", maker: bool = False,
             ours: bool = True, protects: OrderKind | None = None) -> None:  # fmt: skip
        self.number += 1
        units = [round(value * E8) for value in (qty, price, fee)]
        qty_e8, price_e8, fee_e8 = units
        intent = Intent(0, side, IntentKind.ENTER, 100.0, reason, 0.9, 1.0, 5.0, 1.0)
        kind, reduces = protects or OrderKind.MARKET, protects is not None
        order = (
            Order(self.number, 0, side, qty_e8, reduces, 1, round(2 * decided * E8), intent, kind)
            if ours
            else None
        )
        fill = Fill(self.number, 0, side, qty_e8, price_e8, fee_e8, 2, round(2 * mid * E8), round(touch * E8))
        realised = self.money.account.apply_fill(0, side * qty_e8, price_e8, fee_e8)
        report = Report(ReportKind.FILL, self.number, 0, 2, 3, OrderState.FILLED, fill=fill, maker=maker)
        self.record.on_report(report, order, BookedFill(fill, order, realised, maker))

    def components(self) -> dict[str, float | None]:
        found = self.record.components()
        names = ("signal", "spread", "slippage", "fees", "funding")
        values = (getattr(found, f"{name}_e8") for name in names)
        return {
            name: None if value is None else value / E8 for name, value in zip(names, values, strict=True)
        }


def test_costs_of_a_round_trip_by_hand():
    desk = Desk(Money())
    # Decided at 100; the book it met was at 100.5, its best ask 100.6, and a level behind it was taken.
    desk.fill(BUY, 100.7, decided=100.0, mid=100.5, touch=100.6, fee=0.05)
    desk.fill(SELL, 102.9, decided=103.0, mid=103.0, touch=102.9, fee=0.05)
    found = desk.components()
    assert found == pytest.approx(
        {"signal": 3.0, "spread": -0.2, "slippage": -0.6, "fees": -0.1, "funding": 0.0}
    )
    assert sum(found.values()) == pytest.approx(102.9 - 100.7 - 0.1)
    assert (desk.record.won, desk.record.lost, desk.record.win_ratio) == (1, 0, 1.0)
    assert desk.record.turnover_e8 / E8 == pytest.approx(203.6)
    assert desk.record.ended == {("filled", "edge"): 2}


def test_open_position_is_valued_in_the_signal():
    money = Money()
    desk = Desk(money)
    desk.fill(BUY, 100.1, touch=100.1)
    money.price_e8 = 104 * E8
    assert desk.components()["signal"] == pytest.approx(4.0)
    assert desk.record.won + desk.record.lost == 0


def test_without_a_book_the_spread_is_part_of_the_slippage():
    desk = Desk(Money())
    desk.fill(BUY, 100.1, touch=100.1)
    desk.fill(SELL, 99.7, mid=0.0)
    found = desk.components()
    assert found["spread"] is None
    assert found["slippage"] == pytest.approx(-0.4)
    assert found["signal"] == pytest.approx(0.0)


@pytest.mark.parametrize("mid", [106.0, 0.0])
@pytest.mark.parametrize(("side", "kind"), [(SELL, OrderKind.LIMIT), (BUY, OrderKind.STOP_MARKET)])
def test_way_of_the_market_to_a_target_or_a_stop_is_no_slippage(side: int, kind: OrderKind, mid: float):
    """A target counted as six to the good, a stop as six to the bad, whether the book was told or not."""
    desk = Desk(Money())
    paid = 100.0 - 0.05 * side
    desk.fill(-side, paid, mid=mid and 100.0, touch=mid and paid)
    desk.fill(side, 106.0, mid=mid, touch=mid, protects=kind)
    found = desk.components()
    assert found["slippage"] == pytest.approx(0.0 if mid else -0.05)
    assert found["signal"] == pytest.approx(-6.0 * side)
    assert found["spread"] == (pytest.approx(-0.05) if mid else None)


def test_trade_that_was_open_before_is_not_counted_and_the_next_one_is():
    money = Money()
    money.account.apply_fill(0, E8, 90 * E8, 0)
    desk = Desk(money)
    desk.fill(SELL, 100.0)
    assert desk.record.won + desk.record.lost == 0
    desk.fill(BUY, 100.0)
    desk.fill(SELL, 99.0)
    assert (desk.record.won, desk.record.lost) == (0, 1)
    assert sum(value or 0.0 for value in desk.components().values()) == pytest.approx(-1.0)


def test_fees_and_funding_decide_what_was_won():
    money = Money()
    desk = Desk(money)
    desk.fill(BUY, 100.0, fee=0.3)
    money.account.receive_funding(-E8)
    desk.record.on_report(Report(ReportKind.FUNDING, 0, 0, 2, 3, money_e8=-E8), None, None)
    desk.fill(SELL, 101.2, fee=0.3)
    assert (desk.record.won, desk.record.lost) == (0, 1)
    assert desk.components()["funding"] == pytest.approx(-1.0)


def test_funding_that_is_heard_after_the_end_of_a_trade_is_none_of_the_next_ones():
    desk = Desk(Money())
    for _ in range(2):
        desk.fill(BUY, 100.0)
        desk.fill(SELL, 101.0)
        desk.record.on_report(Report(ReportKind.FUNDING, 0, 0, 2, 3, money_e8=-2 * E8), None, None)
    assert (desk.record.won, desk.record.lost) == (2, 0)


def test_liquidation_closes_a_trade():
    desk = Desk(Money())
    desk.fill(BUY, 100.0)
    desk.fill(SELL, 80.0, ours=False, mid=80.5, touch=80.0)
    assert (desk.record.won, desk.record.lost) == (0, 1)
    assert desk.components()["spread"] == pytest.approx(-0.5)


def test_codes_of_refusals_are_bounded():
    record = TradingRecord(Money())  # type: ignore[arg-type]
    for code in range(1, 200):
        record.on_report(
            Report(ReportKind.REJECTED, code, 0, 1, 2, OrderState.REJECTED, code=-code), None, None
        )
    assert len(record.rejects) == 65
    assert record.rejects["other"] == 199 - 64
    assert record.rejects.total() == 199


def test_post_only_order_that_would_have_taken_is_no_reject():
    """Each counted: with 60 a minute the alert never ended, and the score lost 7 points."""
    record = TradingRecord(Money())  # type: ignore[arg-type]
    order = Order(
        1, 0, BUY, E8, False, 1, 200 * E8, Intent(0, BUY, IntentKind.ENTER, 100.0, "edge", 0.9, 1.0, 5.0, 1.0)
    )
    for code in (-5022, -2019):
        refusal = Report(ReportKind.REJECTED, 1, 0, 1, 2, OrderState.REJECTED, code=code)
        record.on_report(refusal, order, None)
    assert record.rejects == {"-2019": 1}
    assert record.ended == {("rejected", "edge"): 2}


def step(at_ns: int, equity_e8: int) -> StepReport:
    empty: tuple[Any, ...] = ()
    skips = np.ones(len(SKIP_REASONS), np.int64)
    return StepReport(at_ns, empty, empty, empty, empty, skips, equity_e8, 0, None)


def test_sharpe_ratio_is_that_of_the_minutes():
    record = TradingRecord(Money())  # type: ignore[arg-type]
    rng = np.random.default_rng(5)
    equity = START_E8 + np.cumsum(rng.integers(-E8, E8, 200))
    for second in range(200 * 60):
        # What the equity does within a minute does not count.
        value = int(equity[second // 60]) + (second % 60) * 1_000
        if second // 60 == RETURNS_MIN and second % 60 == 0:
            assert record.sharpe() is None
        record.on_step(step(second * SAMPLE_NS // 60, value))
    found = record.sharpe()
    wanted = sharpe(np.diff(equity.astype(np.float64)) / START_E8)
    assert found.count == 199
    assert found.value == pytest.approx(wanted.value)
    assert record.skips.tolist() == [200 * 60] * len(SKIP_REASONS)


def test_minutes_without_frames_are_minutes_without_a_change_and_a_day_is_the_most():
    record = TradingRecord(Money())  # type: ignore[arg-type]
    record.on_step(step(0, START_E8))
    record.on_step(step(40 * SAMPLE_NS, START_E8 + E8))
    assert record.sharpe().count == 40
    for minute in range(41, 2_000):
        record.on_step(step(minute * SAMPLE_NS, START_E8 + minute * minute))
    assert record.sharpe().count == 1_440
    record.on_step(step(100_000 * SAMPLE_NS, START_E8))
    assert record.sharpe().count == 1_440


def test_round_trips_that_end_in_one_minute_are_one_result_of_the_ratio():
    """Twenty symbols that left at two moments made a ratio as sure as forty results."""
    desk = Desk(Money())
    for minute in range(100):
        desk.record.on_step(step(minute * SAMPLE_NS, START_E8 + minute % 7 * E8))
        for _ in range(20 * (minute in (10, 50))):
            desk.fill(BUY, 100.0)
            desk.fill(SELL, 101.0)
    found = desk.record.sharpe()
    assert (desk.record.won, math.isfinite(found.value), math.isfinite(found.error)) == (40, True, False)


def test_ratio_keeps_its_error_while_round_trips_end_in_every_minute():
    """The minute that is not over had taken the place of one that counts."""
    desk = Desk(Money())
    for minute in range(100):
        desk.record.on_step(step(minute * SAMPLE_NS, START_E8 + minute % 7 * E8))
        desk.fill(BUY, 100.0)
        desk.fill(SELL, 101.0)
        if minute > OBSERVATIONS_MIN:
            assert math.isfinite(desk.record.sharpe().error)


def test_ratio_has_an_error_only_while_enough_round_trips_ended_in_its_time():
    """One winning trade in a quiet day made a ratio as sure as 1,440 results."""
    desk, last = Desk(Money()), 100 + OBSERVATIONS_MIN - 1
    for minute in range(2_000):
        desk.record.on_step(step(minute * SAMPLE_NS, START_E8 + minute % 7 * E8))
        if 100 <= minute <= last:
            desk.fill(BUY, 100.0)
            desk.fill(SELL, 101.0)
        if minute in (50, last, last + 1, 1_540, 1_541, 1_999):
            found = desk.record.sharpe()
            assert math.isfinite(found.value)
            # The first of them lies before the oldest of 1,441 equities from minute 1,541 on.
            assert math.isfinite(found.error) is (last < minute <= 1_540)
