"""Entries that rest, brackets, and what the trader asks for to keep them in order."""

from __future__ import annotations

from typing import Any

import pytest

from gpuscalp.config import OrdersConfig
from gpuscalp.errors import ConfigError
from gpuscalp.orders import BUY, SELL, Fill, IntentKind, OrderKind, TimeInForce
from gpuscalp.risk.gate import RiskEvent
from gpuscalp.schema import Quality
from gpuscalp.trader import StepReport, Trader
from tests.trading import (
    ASK_E8,
    DOWN,
    NAN,
    NOTHING,
    NOW,
    RESTS,
    UP,
    complete,
    enter,
    fill,
    market,
    resting,
    signals,
    step,
    trader,
)

E8 = 10**8
TICK = E8 // 10
BRACKET = {"take_profit_bps": 10.0, "stop_loss_bps": 5.0}


def entered(side: int = BUY, price_e8: int = ASK_E8, **sections: Any) -> tuple[Trader, StepReport]:
    """Return a trader that has entered at a price, and its next step."""
    machine = trader(**{"orders": BRACKET, **sections})
    (order,) = step(machine, market(0), UP if side > 0 else DOWN).orders
    complete(machine, order, price_e8, at_ms=30)
    return machine, step(machine, market(100), NOTHING)


@pytest.mark.parametrize(("said", "side", "ticks"), [(UP, BUY, 600_000), (DOWN, SELL, 600_001)])
def test_post_only_entry_stands_at_its_own_side_of_the_quote(said: Any, side: int, ticks: int) -> None:
    machine = trader(orders=RESTS)
    (order,) = step(machine, market(0), said).orders
    assert (order.kind, order.time_in_force) == (OrderKind.LIMIT, TimeInForce.GTX)
    assert (order.side, order.price_e8, order.reduce_only) == (side, ticks * TICK, False)
    assert step(machine, market(100), said).orders == (), "one entry at a time"


def test_rest_of_an_entry_is_taken_once() -> None:
    machine, order = resting(then="take")
    machine.on_fill(fill(order, order.price_e8, order.qty_e8 // 4))
    step(machine, market(500), UP)
    machine.on_done(order.order_id)
    done = step(machine, market(600), UP)
    (rest,) = done.orders
    assert (rest.kind, rest.side, rest.price_e8) == (OrderKind.MARKET, BUY, 0)
    assert rest.qty_e8 == order.qty_e8 - order.qty_e8 // 4
    assert [
        (each.kind, verdict.accepted) for each, verdict in zip(done.intents, done.verdicts, strict=True)
    ] == [(IntentKind.ENTER, True)]
    machine.on_done(rest.order_id)
    assert step(machine, market(700), UP).orders == ()


def test_refused_post_only_entry_is_taken_as_a_whole() -> None:
    machine, order = resting(then="take")
    machine.on_done(order.order_id)
    (rest,) = step(machine, market(100), UP).orders
    assert (rest.kind, rest.qty_e8) == (OrderKind.MARKET, order.qty_e8)
    machine.on_done(rest.order_id)
    (again,) = step(machine, market(200), UP).orders
    assert again.kind is OrderKind.LIMIT, "an entry anew"


@pytest.mark.parametrize("said", [NOTHING, signals(10.0, NAN), DOWN])
def test_rest_is_left_when_the_signal_does_not_clear_the_hurdle(said: Any) -> None:
    machine, order = resting(then="take")
    machine.on_fill(fill(order, order.price_e8, order.qty_e8 // 4))
    machine.on_done(order.order_id)
    first = step(machine, market(600), said)
    assert all(each.reduce_only for each in first.orders)
    for each in first.orders:  # an opposite signal closes what there is
        assert (each.side, each.qty_e8) == (SELL, order.qty_e8 // 4)
        return
    assert step(machine, market(700), UP).orders == (), "too late"


def test_rest_is_left_when_told_to() -> None:
    machine, order = resting()
    machine.on_fill(fill(order, order.price_e8, order.qty_e8 // 4))
    machine.on_done(order.order_id)
    assert step(machine, market(600), UP).orders == ()


def test_rest_is_judged_by_the_gate() -> None:
    machine, order = resting(then="take")
    machine.on_done(order.order_id)
    done = step(machine, market(100, spread=(90_000, 1)), signals(20_000.0, NAN))
    assert done.orders == ()
    assert [verdict.code for verdict in done.verdicts] == ["EDGE_RANGE"]


def test_rest_is_no_new_entry_to_the_interval_between_trades() -> None:
    machine = trader(orders={**RESTS, "then": "take"}, risk={"min_interval_ms": 60_000})
    (order,) = step(machine, market(0), UP).orders
    machine.on_fill(fill(order, order.price_e8, order.qty_e8 // 2, at_ms=10))
    machine.on_done(order.order_id)
    assert len(step(machine, market(100), UP).orders) == 1


@pytest.mark.parametrize(
    ("side", "price", "stop", "target"),
    # 5 and 10 bps of 60,000.1: 59,970.09995 and 60,060.1001 for a buyer, ticks of 0.1 upwards.
    [(BUY, 600_001, 599_701, 600_602), (SELL, 600_000, 600_300, 599_400)],
)
def test_bracket_stands_around_the_entry_price(side: int, price: int, stop: int, target: int) -> None:
    machine, done = entered(side, price * TICK)
    held = abs(machine.account.positions[0].qty_e8)
    assert [(each.kind, each.price_e8 // TICK, each.time_in_force) for each in done.orders] == [
        (OrderKind.STOP_MARKET, stop, TimeInForce.GTC),
        (OrderKind.LIMIT, target, TimeInForce.GTC),
    ]
    assert all(each.reduce_only and each.side == -side and each.qty_e8 == held for each in done.orders)
    assert [intent.reason for intent in done.intents] == ["stop_loss", "take_profit"]
    assert all(verdict.accepted for verdict in done.verdicts)
    assert step(machine, market(200), NOTHING).orders == ()


def test_bracket_is_brought_in_line_with_a_part_of_the_target() -> None:
    machine, done = entered()
    stop, target = done.orders
    machine.on_fill(fill(target, target.price_e8, target.qty_e8 // 4))
    after = step(machine, market(200), NOTHING)
    assert after.cancels == (stop.order_id,)
    (resized,) = after.orders
    assert (resized.kind, resized.price_e8) == (OrderKind.STOP_MARKET, stop.price_e8)
    assert resized.qty_e8 == target.qty_e8 - target.qty_e8 // 4


def test_end_of_what_was_replaced_is_asked_again_while_the_position_is_held() -> None:
    machine, done = entered(strategy={"hold_ms": 60_000})
    stop, target = done.orders
    machine.on_fill(fill(target, target.price_e8, target.qty_e8 // 4))
    asked = [at for at in range(200, 2_500, 100) if step(machine, market(at), NOTHING).cancels]
    assert asked == [200, 2_200]
    machine.on_done(stop.order_id)
    assert [at for at in range(2_500, 6_500, 100) if step(machine, market(at), NOTHING).cancels] == []


def test_bracket_of_a_closed_position_is_cancelled_and_holds_up_the_next_entry() -> None:
    machine, done = entered()
    stop, target = done.orders
    complete(machine, stop, stop.price_e8)
    after = step(machine, market(200), UP)
    assert after.cancels == (target.order_id,)
    assert after.orders == ()
    machine.on_done(target.order_id)
    assert len(step(machine, market(300), UP).orders) == 1


def test_bracket_does_not_hold_up_an_exit_and_ends_with_it() -> None:
    machine, done = entered()
    after = step(machine, market(1_000), NOTHING)
    (leave,) = after.orders
    assert (leave.intent.reason, leave.kind, leave.reduce_only) == ("hold_elapsed", OrderKind.MARKET, True)
    assert after.cancels == tuple(each.order_id for each in done.orders)
    assert step(machine, market(1_100), NOTHING).orders == ()


def test_bracket_comes_back_when_an_exit_found_too_little() -> None:
    machine, done = entered(strategy={"hold_ms": 60_000})
    (leave,) = step(machine, market(200), DOWN).orders
    for each in done.orders:
        machine.on_done(each.order_id)
    machine.on_fill(fill(leave, 6_000_000_000_000, leave.qty_e8 // 2))
    machine.on_done(leave.order_id)
    after = step(machine, market(300), NOTHING)
    assert [each.qty_e8 for each in after.orders] == [leave.qty_e8 - leave.qty_e8 // 2] * 2


def test_position_whose_stop_ended_unasked_is_closed() -> None:
    machine, done = entered()
    stop, target = done.orders
    machine.on_done(stop.order_id)
    after = step(machine, market(200), NOTHING)
    (leave,) = after.orders
    assert (leave.intent.reason, leave.kind, leave.qty_e8) == ("stop_loss", OrderKind.MARKET, stop.qty_e8)
    assert after.cancels == (target.order_id,)


def test_position_beyond_its_stop_is_closed_at_once() -> None:
    machine = trader(orders=BRACKET)
    enter(machine)
    (leave,) = step(machine, market(100, bid=(599_701, 20_000)), NOTHING).orders
    assert (leave.intent.reason, leave.kind) == ("stop_loss", OrderKind.MARKET)


def test_quote_in_doubt_closes_no_position_whose_stop_is_missing() -> None:
    """A crossed frame once sold at the market what a stop was still to be placed for."""
    machine = trader(orders=BRACKET)
    enter(machine)
    beyond = market(100, bid=(599_701, 20_000), quality=(Quality.CROSSED, 0))
    stop, _ = step(machine, beyond, NOTHING).orders
    assert (stop.intent.reason, stop.kind) == ("stop_loss", OrderKind.STOP_MARKET)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("seen", [None, 660_000, 540_000])
def test_position_taken_over_in_doubt_gets_its_stop(side: int, seen: int | None) -> None:
    """It was closed at the market, by a price of long ago or by none; and lost what lies between the two."""
    limits = ("max_jump_bps", "max_volatility_bps", "max_trade_risk_pct")
    machine = trader(orders=BRACKET, risk=dict.fromkeys(limits, "off"))
    if seen is not None:
        (order,) = step(machine, market(0, bid=(seen, 20_000)), UP).orders
        machine.on_done(order.order_id)
    machine.on_foreign_fill(Fill(-1, 0, side, 10_000_000, 6_000_000_000_000, 0, NOW, 0))
    done = step(machine, market(100, quality=(Quality.GAP, 0)), NOTHING)
    assert [each.kind for each in done.orders] == [OrderKind.STOP_MARKET, OrderKind.LIMIT]
    assert (done.equity_e8, done.event) == (10_000 * E8, None)


def test_position_entered_far_from_the_last_sound_quote_gets_its_stop() -> None:
    """Filled 8 bps higher in a frame in doubt, it was beyond its stop by the quote of before."""
    machine = trader(orders=BRACKET)
    (order,) = step(machine, market(0), UP).orders
    complete(machine, order, 6_004_800_000_000)
    doubtful = market(100, bid=(600_480, 20_000), quality=(Quality.GAP, 0))
    assert [each.kind for each in step(machine, doubtful, NOTHING).orders] == [
        OrderKind.STOP_MARKET,
        OrderKind.LIMIT,
    ]


def test_refused_target_is_tried_again_later() -> None:
    machine, done = entered(strategy={"hold_ms": 60_000})
    machine.on_done(done.orders[1].order_id)
    tried = [at for at in range(200, 2_600, 100) if step(machine, market(at), NOTHING).orders]
    assert tried == [2_100]


def test_refused_exit_is_tried_again_later_and_leaves_room_for_others() -> None:
    """It once was at every frame, until the limit on all orders held up the exits of other symbols."""
    machine, _ = entered(orders={})
    (leave,) = step(machine, market(1_000), NOTHING).orders
    assert leave.intent.reason == "hold_elapsed"
    machine.on_done(leave.order_id, refused=True)
    tried = []
    for at in range(1_100, 3_200, 100):
        for order in step(machine, market(at), DOWN).orders:
            tried.append(at)
            machine.on_done(order.order_id, refused=True)
    assert tried == [3_000]
    machine.on_foreign_fill(fill(leave, ASK_E8, at_ms=3_150))
    assert len(step(machine, market(3_200), UP).orders) == 1, "a position that is gone holds up nothing"


@pytest.mark.parametrize("orders", [{}, RESTS, {**RESTS, "then": "take"}])
def test_entry_that_is_refused_again_and_again_is_tried_ever_later(orders: dict[str, Any]) -> None:
    """It was sent at every frame, for ever."""
    machine = trader(orders=orders)

    def refused_at(begin_s: int, end_s: int) -> list[int]:
        tried = []
        for second in range(begin_s, end_s):
            for order in step(machine, market(1_000 * second), UP).orders:
                tried.append(second)
                machine.on_done(order.order_id, refused=True)
        return tried

    assert refused_at(0, 120) == [0, 2, 6, 14, 30, 62, 94]
    (order,) = step(machine, market(126_000), UP).orders
    machine.on_done(order.order_id)  # taken by the exchange, if not filled
    assert [at for at in refused_at(127, 140) if at > 127] == [129, 133]


def test_refused_rest_of_an_entry_does_not_hold_up_its_exit() -> None:
    machine, order = resting(then="take")
    machine.on_fill(fill(order, order.price_e8, order.qty_e8 // 4))
    machine.on_done(order.order_id)
    (rest,) = step(machine, market(600), UP).orders
    machine.on_done(rest.order_id, refused=True)
    assert [each.side for each in step(machine, market(700), DOWN).orders] == [SELL]


def test_exit_that_was_filled_in_part_is_not_held_up() -> None:
    machine, _ = entered(orders={})
    (leave,) = step(machine, market(1_000), NOTHING).orders
    machine.on_fill(fill(leave, ASK_E8, leave.qty_e8 // 2))
    machine.on_done(leave.order_id)
    assert len(step(machine, market(1_100), NOTHING).orders) == 1


def test_refused_exit_of_a_position_without_a_stop_waits_and_a_stop_does_not() -> None:
    machine, done = entered(strategy={"hold_ms": 60_000})
    machine.on_done(done.orders[0].order_id, refused=True)
    (leave,) = step(machine, market(200), NOTHING).orders
    machine.on_done(leave.order_id, refused=True)
    tried = [at for at in range(300, 2_400, 100) if step(machine, market(at), NOTHING).orders]
    assert tried == [2_200]
    machine, done = entered()
    (leave,) = step(machine, market(1_000), NOTHING).orders
    for order in done.orders:
        machine.on_done(order.order_id)
    machine.on_done(leave.order_id, refused=True)
    kinds = [order.kind for order in step(machine, market(1_100), NOTHING).orders]
    assert kinds == [OrderKind.STOP_MARKET, OrderKind.LIMIT]


def test_no_limit_on_entries_holds_up_a_bracket() -> None:
    """Neither what entries leave to exits, nor open orders, nor a gate that lets nothing be opened."""
    machine = trader(
        orders=BRACKET,
        risk={"max_orders_per_s": 4, "exit_reserve": 0.75, "max_open_orders_total": 1},
    )
    enter(machine)
    machine.apply(RiskEvent.REDUCE, 0)
    assert machine.risk_increasing_orders() == ()
    assert len(step(machine, market(100), NOTHING).orders) == 2


def test_limit_on_all_orders_delays_a_bracket() -> None:
    risk, strategy = {"max_orders_per_s": 2, "exit_reserve": 0.5}, {"hold_ms": 60_000}
    machine = trader(orders=BRACKET, risk=risk, strategy=strategy)
    enter(machine)
    first = step(machine, market(100), NOTHING)
    assert [each.kind for each in first.orders] == [OrderKind.STOP_MARKET], "the stop first"
    assert [verdict.code for verdict in first.verdicts] == ["", "ORDER_RATE_S"]
    assert step(machine, market(600), NOTHING).orders == ()
    (target,) = step(machine, market(1_200), NOTHING).orders
    assert target.kind is OrderKind.LIMIT


def test_halted_gate_lets_no_bracket_out_and_flatten_passes_by_it() -> None:
    machine, done = entered()
    stop, target = done.orders
    machine.on_fill(fill(target, target.price_e8, target.qty_e8 // 2))
    machine.apply(RiskEvent.FLATTEN, 0)
    for order in (stop, target):
        machine.on_cancel(order.order_id)
    halted = step(machine, market(200), NOTHING)
    assert halted.orders == ()
    assert [
        (each.reason, verdict.code) for each, verdict in zip(halted.intents, halted.verdicts, strict=True)
    ] == [
        ("stop_loss", "HALTED"),
        ("take_profit", "HALTED"),
    ]
    (leave,) = machine.flatten(market(200), "flatten")
    assert leave.qty_e8 == target.qty_e8 - target.qty_e8 // 2
    assert machine.flatten(market(300), "flatten") == ()


def test_resting_entry_counts_as_exposure_and_a_bracket_does_not() -> None:
    machine, order = resting()
    here, _ = machine.exposure.others_e8(0)
    assert here == order.qty_e8 * 600_001 * TICK // E8
    assert machine.exposure.others_e8(1) == (0, here)
    held, _ = entered()
    assert held.exposure.others_e8(0) == (0, 0)


def test_defaults_ask_for_no_cancellation_and_for_market_orders() -> None:
    machine = trader()
    done = step(machine, market(0), UP)
    assert [(each.kind, each.time_in_force, each.price_e8) for each in done.orders] == [
        (OrderKind.MARKET, TimeInForce.IOC, 0)
    ]
    assert done.cancels == ()


@pytest.mark.parametrize("changes", [{"stop_loss_bps": 0.0}, {"stop_loss_bps": 10_000.0}, {"entry": "maker"}])
def test_configuration_refuses_what_makes_no_sense(changes: dict[str, Any]) -> None:
    from gpuscalp.config import BacktestConfig, load

    with pytest.raises(ConfigError):
        load(BacktestConfig, overrides={f"orders.{name}": value for name, value in changes.items()})
    assert OrdersConfig() == load(BacktestConfig).orders


def test_a_position_that_somebody_else_has_turned_around_gets_a_bracket_of_its_own() -> None:
    machine, done = entered(BUY)
    old = {order.order_id for order in done.orders}
    size = machine.account.positions[0].qty_e8
    theirs = fill(done.orders[0], ASK_E8, 2 * size, at_ms=150)
    assert theirs.side == SELL
    machine.on_foreign_fill(theirs)
    turned = step(machine, market(200), NOTHING)
    assert set(turned.cancels) == old
    assert {order.kind for order in turned.orders} == {OrderKind.STOP_MARKET, OrderKind.LIMIT}
    assert {order.side for order in turned.orders} == {BUY}
