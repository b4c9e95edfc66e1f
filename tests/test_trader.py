"""One step: sized, judged, sent, booked; what comes back without being asked for; what outlives a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuscalp.orders import Fill, OrderKind
from gpuscalp.risk.gate import RiskEvent, RiskState
from gpuscalp.schema import Quality
from tests.trading import (
    ASK_E8,
    E8,
    MS,
    NAN,
    NOTHING,
    NOW,
    UP,
    complete,
    enter,
    fill,
    held,
    market,
    signals,
    step,
    trader,
)


def test_entry_is_sized_down_to_the_step() -> None:
    report = step(trader(), market(0), signals(50.0, -50.0))
    buy, sell = report.orders
    # 1,000 USDT at an ask of 60,000.1 in steps of 0.001; and at a bid of 0.2 in steps of 1.
    assert (buy.symbol_index, buy.side, buy.qty_e8) == (0, 1, 1_600_000)
    assert (sell.symbol_index, sell.side, sell.qty_e8) == (1, -1, 5_000 * E8)
    assert [order.order_id for order in report.orders] == [1, 2]
    assert buy.mid2_e8 == (600_000 + 600_001) * 10_000_000


def test_order_below_the_exchange_minimum_is_refused() -> None:
    small = step(trader(strategy={"order_usdt": 99.0}), market(0), UP)
    assert small.verdicts[0].code == "MIN_NOTIONAL"
    none = step(trader(strategy={"order_usdt": 10.0}), market(0), UP)
    assert none.verdicts[0].code == "NO_SIZE"
    assert none.orders == ()


def test_round_trip_enters_once_and_leaves_after_the_horizon() -> None:
    machine = trader()
    (order,) = step(machine, market(0), UP).orders
    assert step(machine, market(100), UP).orders == ()
    complete(machine, order, ASK_E8, at_ms=21)
    # The holding time runs from the decision at 0 ms, not from the fill.
    assert step(machine, market(900), NOTHING).orders == ()
    (leave,) = step(machine, market(1_000, bid=(600_100, 20_000)), NOTHING).orders
    assert (leave.side, leave.qty_e8, leave.reduce_only) == (-1, order.qty_e8, True)
    complete(machine, leave, 6_001_000_000_000)
    assert machine.account.realised_e8 == 990_000_000 * 1_600_000 // E8
    assert step(machine, market(1_100), NOTHING).equity_e8 == 10_000 * E8 + machine.account.realised_e8


def test_partial_exit_is_continued_at_the_next_frame() -> None:
    machine = held()
    (leave,) = step(machine, market(1_000), NOTHING).orders
    machine.on_fill(fill(leave, 6_000_000_000_000, qty_e8=600_000))
    machine.on_done(leave.order_id)
    (rest,) = step(machine, market(1_100), NOTHING).orders
    assert rest.qty_e8 == 1_000_000
    assert rest.intent.reason == "hold_elapsed"


def test_equity_values_positions_where_they_could_be_closed() -> None:
    machine = held()
    report = step(machine, market(100), NOTHING)
    assert report.equity_e8 == 10_000 * E8 - 10_000_000 * 1_600_000 // E8
    assert report.gross_e8 == 6_000_000_000_000 * 1_600_000 // E8


def test_symbol_that_loses_its_quote_keeps_its_last_value() -> None:
    machine = held()
    before = step(machine, market(100), NOTHING).equity_e8
    report = step(machine, market(500, bid=(0, 0), spread=(0, 0)), NOTHING)
    assert report.equity_e8 == before
    assert report.orders == ()


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("doubt", [0, Quality.GAP, Quality.RESYNC, Quality.CROSSED])
def test_mark_tells_what_an_old_quote_hides(side: int, doubt: int) -> None:
    """A symbol that was halted cost nothing, however far its mark went: no limit on losses saw it."""
    machine = trader()
    price = 6_000_000_000_000 if side > 0 else ASK_E8
    machine.on_foreign_fill(Fill(-1, 0, side, 1_600_000, price, 0, NOW, 0))

    def lost(at_ms: int, mark: float) -> int:
        # The quote stands still, or what comes of it is in doubt.
        bid, age_ms = (900_000, 10.0) if doubt else (600_000, 10.0 + at_ms)
        row = market(at_ms, bid=(bid, 20_000), quality=(doubt, 0), age_ms=age_ms)
        row.mark[0] = mark
        return 10_000 * E8 - step(machine, row, NOTHING).equity_e8

    worse, better = 60_000.0 - side * 18_000, 60_000.0 + side * 18_000
    step(machine, market(0), NOTHING)
    assert lost(1_900, worse) == 0
    assert lost(2_000, worse) == 288 * E8 - (160_000 if side < 0 else 0)
    gross = 1_600_000 * (42_000 if side > 0 else 78_000)
    assert machine.gross_e8() == gross
    assert machine.exposure.others_e8(1) == (0, max(gross, 96_000_160_000))
    assert lost(2_100, better) == lost(2_200, NAN) == 0


@pytest.mark.parametrize("bid", [440_000, 900_000])
def test_frame_in_doubt_moves_neither_loss_nor_highest_equity(bid: int) -> None:
    """One crossed frame latched the daily loss for good, or was the height that the next one fell from."""
    machine = held()
    before = step(machine, market(100), NOTHING).equity_e8
    crossed = market(200, bid=(bid, 20_000), spread=(-10, 1), quality=(Quality.CROSSED, 0))
    crossed.mark[0] = 60_000.0
    for row in (crossed, market(300)):
        report = step(machine, row, NOTHING)
        assert (report.equity_e8, report.event) == (before, None)
    assert machine.gate.snapshot().high_e8 == 10_000 * E8


def test_position_that_was_entered_in_doubt_is_valued_in_doubt() -> None:
    """What was seen before of a symbol with nothing at stake may be of long ago."""
    machine = trader(risk={"blocked_quality": (), "max_jump_bps": "off", "max_volatility_bps": "off"})
    row = market(100, bid=(610_000, 20_000), quality=(Quality.GAP, 0))
    (order,) = step(machine, row, UP).orders
    complete(machine, order, 6_100_010_000_000)
    report = step(machine, market(200, bid=(620_000, 20_000), quality=(Quality.GAP, 0)), NOTHING)
    assert 10_000 * E8 - report.equity_e8 == 10_000_000 * order.qty_e8 // E8


def test_symbol_that_loses_its_quote_is_let_go_all_the_same() -> None:
    """Without a quote it was skipped: after a long silence nothing ever closed the position."""
    report = step(held(), market(2_000, bid=(0, 20_000), spread=(0, 1)), signals(NAN, 50.0))
    assert [(order.intent.reason, order.reduce_only, order.kind) for order in report.orders] == [
        ("hold_elapsed", True, OrderKind.MARKET),
        ("edge", False, OrderKind.MARKET),
    ]


def test_blocked_quality_stops_an_entry_and_not_an_exit() -> None:
    machine = trader()
    gap = (int(Quality.GAP), 0)
    assert step(machine, market(0, quality=gap), UP).verdicts[0].code == "QUALITY"
    (order,) = step(machine, market(100), UP).orders
    complete(machine, order, ASK_E8)
    assert len(step(machine, market(1_100, quality=gap), NOTHING).orders) == 1


def test_loss_latches_and_the_position_still_gets_out() -> None:
    machine = trader(risk={"max_daily_loss_usdt": 10.0})
    enter(machine)
    fallen = (590_000, 20_000)
    report = step(machine, market(100, bid=fallen), signals(NAN, 50.0))
    assert report.event is RiskEvent.DAILY_LOSS
    assert report.verdicts[0].code == "REDUCING"
    (leave,) = step(machine, market(1_000, bid=fallen), NOTHING).orders
    complete(machine, leave, 5_900_000_000_000)
    assert machine.gate.state is RiskState.REDUCING
    assert step(machine, market(1_100), signals(50.0, 50.0)).orders == ()


def test_flatten_closes_in_every_state_of_the_gate() -> None:
    machine = trader()
    order = enter(machine)
    machine.apply(RiskEvent.HALT, NOW)
    (leave,) = machine.flatten(market(100), "end_of_data")
    assert (leave.side, leave.qty_e8, leave.intent.reason) == (-1, order.qty_e8, "end_of_data")
    assert machine.flatten(market(100), "end_of_data") == ()


def test_funding_reaches_the_account() -> None:
    machine = held()
    machine.on_funding(0, -9_600_000)
    assert machine.account.funding_e8 == -9_600_000
    assert machine.account.cash_e8 == 10_000 * E8 - ASK_E8 * 1_600_000 // E8 - 9_600_000


def test_open_orders_count_against_the_limit_on_all_positions() -> None:
    machine = trader(risk={"max_gross_usdt": 1_500.0})
    both = step(machine, market(0), signals(50.0, 50.0))
    # The first order takes its part of the room within the same frame already, the second what is left, …
    first, second = both.orders
    assert first.qty_e8 == 1_600_000
    assert second.qty_e8 == int((1_500 - 0.016 * 60_000.1) / 0.20001) * E8
    complete(machine, first, ASK_E8)
    # … an order that comes to nothing gives its part back, …
    machine.on_done(second.order_id)
    again = step(machine, market(100), signals(50.0, 50.0)).orders
    assert [order.qty_e8 for order in again] == [second.qty_e8]
    machine.on_done(again[0].order_id)
    # … and a closing order that has not been filled frees nothing yet.
    closing = step(machine, market(1_000), signals(50.0, 50.0))
    assert [order.qty_e8 for order in closing.orders] == [1_600_000, second.qty_e8]


def test_room_below_the_exchange_minimum_is_no_order() -> None:
    machine = trader(risk={"max_gross_usdt": 963.0})
    both = step(machine, market(0), signals(50.0, 50.0))
    assert [verdict.code for verdict in both.verdicts] == ["", "MIN_NOTIONAL"]
    none = step(trader(risk={"max_gross_usdt": 960.01}), market(0), signals(50.0, 50.0))
    assert [verdict.code for verdict in none.verdicts] == ["", "NO_SIZE"]


def test_a_closing_order_on_its_way_is_not_counted_on_top_of_its_position() -> None:
    machine = trader(risk={"max_gross_usdt": 2_100.0})
    enter(machine)
    report = step(machine, market(1_000), signals(50.0, 50.0))
    assert [(one.symbol_index, one.reduce_only) for one in report.orders] == [(0, True), (1, False)]
    # 960 USDT are held and 1,000 wanted; with the exit counted once more it would be 2,920.
    assert report.verdicts[1].code == ""


def test_foreign_fill_is_booked_without_an_order() -> None:
    machine = held()
    liquidated = Fill(-1, 0, -1, 600_000, 5_000_000_000_000, 7, NOW + 50 * MS, 0)
    assert machine.on_foreign_fill(liquidated) == -1_000_010_000_000 * 600_000 // E8
    assert machine.account.positions[0].qty_e8 == 1_000_000
    (leave,) = step(machine, market(1_000), NOTHING).orders
    assert leave.qty_e8 == 1_000_000
    machine.on_done(leave.order_id)
    machine.on_foreign_fill(replace(liquidated, qty_e8=1_000_000))
    assert step(machine, market(1_100), NOTHING).intents == ()
    # One that leaves a position behind is held for the horizon and then let go.
    machine.on_foreign_fill(replace(liquidated, exec_ns=NOW + 2_000 * MS))
    assert step(machine, market(2_900), NOTHING).intents == ()
    (back,) = step(machine, market(3_000), NOTHING).orders
    assert (back.side, back.qty_e8) == (1, 600_000)


def test_orders_that_add_risk_are_named_for_cancelling() -> None:
    machine = held()
    (entry,) = step(machine, market(100), signals(50.0, 50.0)).orders
    (leave,) = step(machine, market(1_000), NOTHING).orders
    assert machine.risk_increasing_orders() == (entry,)
    assert leave.reduce_only
    assert machine.apply(RiskEvent.REDUCE, NOW) is RiskState.REDUCING
    assert machine.risk_increasing_orders() == (entry,)
    machine.on_done(entry.order_id)
    assert machine.risk_increasing_orders() == ()


def test_partly_filled_order_counts_only_with_its_rest() -> None:
    machine = trader(risk={"max_gross_usdt": 2_000.0})
    (order,) = step(machine, market(0), UP).orders
    machine.on_fill(fill(order, ASK_E8, qty_e8=1_000_000))
    (other,) = step(machine, market(100), signals(NAN, 50.0)).orders
    # 960 USDT held or on their way, not 960 and what was filled once more.
    assert other.qty_e8 == 5_000 * E8 - 1 * E8


def test_ids_go_on_after_a_restart() -> None:
    machine = trader()
    machine.resume_ids(41)
    machine.resume_ids(7)
    assert [order.order_id for order in step(machine, market(0), signals(50.0, 50.0)).orders] == [42, 43]


@pytest.mark.parametrize("side", [1, -1])
def test_a_position_that_is_older_than_the_first_quote_is_worth_what_it_cost(side: int) -> None:
    """It once was worth nothing: a loss that latched, or a gain from which the drawdown was measured."""
    machine = trader(warm=False, orders={"stop_loss_bps": 5.0})
    theirs = Fill(-1, 0, side, E8 // 100, 6_000_000_000_000, 0, NOW, 0)
    machine.on_foreign_fill(theirs)
    nothing = market(0, bid=(0, 20_000), spread=(0, 1))
    report = step(machine, nothing, NOTHING)
    assert (report.equity_e8, report.gross_e8, report.event) == (10_000 * E8, 600 * E8, None)
    assert machine.gate.snapshot().high_e8 == 10_000 * E8
    assert machine.exposure.others_e8(1) == (0, 600 * E8)
    assert report.orders == (), "no price is known"
    later = step(machine, market(100, bid=(610_000, 20_000), spread=(0, 1)), NOTHING)
    assert later.equity_e8 == (10_000 + 10 * side) * E8
