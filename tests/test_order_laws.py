"""Laws of the orders that a trader has alive, whatever the market does and however late everything is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.config import CostConfig, LegConfig, PaperConfig
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.open_orders import is_protective
from gpuscalp.orders import OrderKind
from gpuscalp.risk.gate import RiskEvent
from tests.street import (
    DOUBTFUL_FRAME,
    E8,
    FRAME_MS,
    HOLD_MS,
    INSTRUMENTS,
    LATENCY,
    MS,
    ORDERS,
    Street,
    quiet,
)
from tests.thorough import examples

FRAMES = st.lists(DOUBTFUL_FRAME, min_size=5, max_size=30)
STOPS = st.none() | st.tuples(
    st.integers(0, 29), st.sampled_from([RiskEvent.REDUCE, RiskEvent.FLATTEN, RiskEvent.HALT_ENTRIES])
)


def run(street: Street, frames: list[dict[str, Any]], stop: tuple[int, RiskEvent] | None = None) -> None:
    """Let frames pass; after each, what is alive has to be in order."""
    for number, frame in enumerate(frames):
        street.frame(frame)
        check_alive(street)
        if stop is not None and stop[0] == number:
            street.order(stop[1])


def check_alive(street: Street) -> None:
    for index in (0, 1):
        alive = street.open_of(index)
        assert sum(not order.reduce_only for order in alive) <= 1, "one entry"
        assert sum(order.reduce_only and not is_protective(order) for order in alive) <= 1, "one exit"
        for order in alive:
            assert not is_protective(order) or order.reduce_only


def check_fills(street: Street) -> None:
    """Walk through all fills at the exchange in their order."""
    sent = {order.order_id: order for order in street.sent}
    filled: Counter[int] = Counter()
    held, intended = [0, 0], [0, 0]
    for _, order_id, signed, price, _ in street.fills:
        order = sent[order_id]
        index, before = order.symbol_index, held[order.symbol_index]
        after = held[index] = before + signed
        filled[order_id] += abs(signed)
        assert filled[order_id] <= order.qty_e8
        assert before * after >= 0, "never turned around"
        if order.reduce_only:
            assert abs(after) < abs(before), "what protects or closes never adds"
        elif not before:
            intended[index] = max(intended[index], order.qty_e8)
        assert abs(after) <= max(street.intended[index], intended[index])
        if order.kind is OrderKind.LIMIT:
            assert order.side * (order.price_e8 - price) >= 0
    assert held == street.held


def check_end(street: Street) -> None:
    """After a while without signals nothing is held and nothing is alive, here or there."""
    for _ in range(60):
        street.frame(quiet())
    assert street.held == [0, 0]
    assert not street.trader.open_orders
    assert not street.broker.orders
    assert [position.qty_e8 for position in street.trader.account.positions] == [0, 0]
    assert street.trader.account.cash_e8 == street.broker.account.cash_e8


@settings(max_examples=examples(150))
@given(FRAMES, ORDERS, LATENCY, st.sampled_from(["next", "last"]), st.integers(0, 3), STOPS)
def test_orders_never_exceed_what_was_meant_and_none_is_left(
    frames: list[dict[str, Any]],
    orders: dict[str, Any],
    latency: tuple[float, float],
    meets: str,
    seed: int,
    stop: tuple[int, RiskEvent] | None,
) -> None:
    street = Street(orders, latency, meets, seed)
    run(street, frames, stop)
    check_end(street)
    check_fills(street)


@settings(max_examples=examples(60))
@given(FRAMES, ORDERS, LATENCY, st.integers(0, 3), st.sets(st.integers(0, 29), max_size=4))
def test_restart_changes_nothing(
    frames: list[dict[str, Any]],
    orders: dict[str, Any],
    latency: tuple[float, float],
    seed: int,
    restarts: set[int],
) -> None:
    streets = [Street(orders, latency, seed=seed) for _ in range(2)]
    for number, frame in enumerate([*frames, *[quiet()] * 20]):
        for street in streets:
            street.frame(frame)
        if number in restarts:
            streets[1].restart()
    first, second = streets
    assert (first.sent, first.cancelled, first.fills) == (second.sent, second.cancelled, second.fills)


@settings(max_examples=examples(100))
@given(FRAMES, ORDERS)
def test_what_is_held_is_protected_at_once(frames: list[dict[str, Any]], orders: dict[str, Any]) -> None:
    """Without latency: after each step a bracket of the whole position is alive, or the exit is."""
    street = Street(orders)
    for frame in frames:
        street.frame(frame)
        for index in (0, 1):
            held = street.trader.account.positions[index].qty_e8
            alive = street.open_of(index)
            if not held or street.trader.orders.leaving(index):
                continue
            left = {number: each.left_e8 for number, each in street.trader.orders.by_id.items()}
            lost = set(street.cancelled)
            for kind, bps in (
                (OrderKind.STOP_MARKET, orders["stop_loss_bps"]),
                (OrderKind.LIMIT, orders["take_profit_bps"]),
            ):
                found = [
                    order for order in alive
                    if is_protective(order) and order.kind is kind and order.order_id not in lost
                ]  # fmt: skip
                assert len(found) == (bps is not None)
                assert all(left[order.order_id] == abs(held) for order in found)
                assert all(order.side * held < 0 for order in found)


@settings(max_examples=examples(100))
@given(FRAMES, ORDERS, LATENCY, st.integers(0, 3))
def test_no_entry_is_filled_after_nothing_may_be_opened(
    frames: list[dict[str, Any]], orders: dict[str, Any], latency: tuple[float, float], seed: int
) -> None:
    """The time in which a cancellation travels apart. An entry rested through both pauses and was filled."""
    pauses = {
        "max_losses": 1, "loss_pause_ms": 300, "max_volatility_bps": 15.0, "volatility_pause_ms": 200,
        "breaker_trips_max": 100,
    }  # fmt: skip
    street = Street({**orders, "entry": "post_only"}, latency, seed=seed, risk=pauses)
    closed: list[tuple[int, int]] = []
    for frame in frames:
        street.frame(frame)
        gate = street.trader.gate
        nowhere = bool(frame.get("doubt")) or gate.cool_down_ms > 0
        closed += [(index, street.now_ns) for index in (0, 1) if nowhere or gate.pause_ms(index) > 0]
    sent = {order.order_id: order for order in street.sent}
    for exec_ns, order_id, *_ in street.fills:
        order = sent[order_id]
        if not order.reduce_only and order.kind is OrderKind.LIMIT:
            latest_ns = exec_ns - round(latency[1] * MS)
            assert not [
                at for at in closed if at[0] == order.symbol_index and order.decided_ns < at[1] < latest_ns
            ]


@pytest.mark.parametrize("ending", ["time", "stop", "flatten"])
@pytest.mark.parametrize("side", [1, -1])
def test_position_larger_than_the_largest_market_order_is_closed_in_parts(ending: str, side: int) -> None:
    """Each exit asked for all of it at once, and the exchange refused each with -4005, for ever."""
    bracket = {"take_profit_bps": 40.0, "stop_loss_bps": 8.0}
    street = Street({"entry": "taker", "then": "leave", **bracket}, largest_e8=E8)
    street.inherit(0, side * 5 * E8 // 2)
    street.frame(quiet())
    assert [(order.kind, order.qty_e8) for order in street.open_of(0)] == [
        (OrderKind.STOP_MARKET, E8),  # as much of it as a stop can protect
        (OrderKind.LIMIT, 5 * E8 // 2),
    ]
    if ending == "stop":
        street.frame(quiet(moves=(-20 * side, 0), trades=[(0, 0, 200, -side)]))
    elif ending == "flatten":
        street.order(RiskEvent.FLATTEN)
    for _ in range(HOLD_MS // FRAME_MS + 5 if ending == "time" else 5):
        street.frame(quiet())
    assert street.held == [0, 0]
    assert "rejected-4005" not in street.seen
    exits = [order.qty_e8 for order in street.sent if order.kind is OrderKind.MARKET]
    assert exits == [E8, E8 // 2] if ending == "stop" else [E8, E8, E8 // 2]
    check_end(street)


def test_entry_is_no_larger_than_what_can_close_it() -> None:
    for entry in ("taker", "post_only"):
        orders = {"entry": entry, "then": "leave", "take_profit_bps": None, "stop_loss_bps": 8.0}
        street = Street(orders, largest_e8=E8)
        street.frame(quiet(edges=(30.0, -30.0)))
        assert [order.qty_e8 for order in street.sent] == [E8, E8]
        check_end(street)


@pytest.mark.parametrize("entry", ["taker", "post_only"])
def test_symbol_that_the_exchange_refuses_leaves_the_others_their_orders(entry: str) -> None:
    """It took a third of them from a healthy one: its entries were sent at every frame."""
    sent = []
    for refused in (False, True):
        risk = {"max_orders_per_s": 20, "max_orders_per_minute": 100, "max_jump_bps": "off"}
        street = Street({"entry": entry, "then": "leave", "post_only_ms": 500}, risk=risk)
        # Its minimum was raised after the session has read it.
        instruments = [replace(INSTRUMENTS[0], min_notional_e8=10**6 * E8), INSTRUMENTS[1]]
        leg = LegConfig(low_ms=0.0, high_ms=0.0)
        paper = PaperConfig(request=leg, reply=leg)
        street.broker = PaperBroker(instruments, cost=CostConfig(), paper=paper, start_e8=10_000 * E8)
        for number in range(300):
            edge = 30.0 if refused else 0.0
            street.frame(quiet(edges=(edge, -30.0), moves=(0, (40, -40)[number % 2])))
        sent.append([order.decided_ns for order in street.sent if order.symbol_index])
        assert street.seen["rejected-4164"] == (4 if refused else 0), "after 0, 2, 6 and 14 seconds"
    assert sent[0] == sent[1]
    assert len(sent[0]) > 30


@pytest.mark.thorough
def test_laws_are_tried_on_what_they_are_about() -> None:
    """Not one of the ways above is left untried by what Hypothesis makes of them."""
    seen: Counter[str] = Counter()

    @settings(max_examples=250, database=None, derandomize=True)
    @given(FRAMES, ORDERS, LATENCY, st.integers(0, 3))
    def collect(
        frames: list[dict[str, Any]], orders: dict[str, Any], latency: tuple[float, float], seed: int
    ) -> None:
        street = Street(orders, latency, seed=seed)
        for frame in [*frames, *[quiet()] * 20]:
            rests = [
                each.kind is OrderKind.LIMIT and not each.reduce_only
                for each in street.trader.open_orders.values()
            ]
            street.frame(frame)
            seen["doubt about an entry that rests"] += bool(frame.get("doubt")) and any(rests)
        sent = {order.order_id: order for order in street.sent}
        seen.update(street.seen)
        for _, order_id, _, _, maker in street.fills:
            order = sent[order_id]
            seen[f"{order.intent.reason} {order.kind} {'maker' if maker else 'taker'}"] += 1
        seen["cancelled"] += len(street.cancelled)
        seen["rest"] += sum(
            order.kind is OrderKind.MARKET and not order.reduce_only and orders["entry"] == "post_only"
            for order in street.sent
        )

    collect()
    for what in (
        "edge market taker", "edge limit maker", "hold_elapsed market taker", "take_profit limit maker",
        "stop_loss stop_market taker", "stop_loss market taker", "rejected-5022", "rejected-2021",
        "rejected-2022", "cancelled", "rest",
        "doubt about an entry that rests",
    ):  # fmt: skip
        assert seen[what], f"{what} of {dict(seen)}"
