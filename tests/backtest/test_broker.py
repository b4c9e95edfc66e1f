"""Orders arrive late, take what is there, and are answered exactly once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.backtest.broker import MAX_WAIT_MS, Execution, TakerBroker
from gpuscalp.backtest.liquidity import Liquidity
from gpuscalp.orders import BUY, SELL
from tests.backtest.market import COIN, E8, MS, NOW, QuoteRow, books, order, quotes


def broker(rows: list[QuoteRow], fee_bps: float = 5.0) -> TakerBroker:
    market = Liquidity(COIN)
    market.load(quotes(rows), books([]))
    return TakerBroker([COIN], [market], taker_fee_bps=fee_bps)


def at(ms: float) -> int:
    return NOW + round(ms * MS)


def only(executions: list[Execution]) -> Execution:
    (execution,) = executions
    return execution


def test_order_is_filled_at_the_first_state_after_its_arrival_and_pays_its_fee() -> None:
    exchange = broker([(0, 9_999, 10_000, 5, 5), (30, 10_009, 10_010, 5, 5)])
    exchange.submit(order(BUY, 2.0), at(21))
    assert exchange.advance(at(29)) == []
    done = only(exchange.advance(at(30)))
    (fill,) = done.fills
    assert (fill.price_e8, fill.qty_e8, fill.exec_ns) == (10_010 * COIN.tick_size_e8, 2 * E8, at(30))
    assert fill.fee_e8 == 200_20000000 * 5 // 10_000
    assert fill.mid2_e8 == (10_009 + 10_010) * COIN.tick_size_e8
    assert (done.outcome, done.cancelled_qty_e8) == ("filled", 0)
    assert exchange.advance(at(1_000)) == []


def test_what_exceeds_the_display_is_cancelled_and_said() -> None:
    exchange = broker([(0, 9_999, 10_000, 5, 0.5)])
    exchange.submit(order(BUY, 2.0), at(0))
    done = only(exchange.advance(at(0)))
    assert (done.outcome, done.cancelled_qty_e8) == ("partial", 3 * E8 // 2)
    exchange.submit(order(BUY, 2.0, order_id=2), at(0))
    assert only(exchange.advance(at(0))).outcome == "unfilled"


def test_order_that_meets_nothing_expires() -> None:
    exchange = broker([(0, 9_999, 10_000, 5, 5), (MAX_WAIT_MS + 2, 9_999, 10_000, 5, 5)])
    exchange.submit(order(SELL, 1.0), at(1))
    assert exchange.advance(at(MAX_WAIT_MS)) == []
    done = only(exchange.advance(at(MAX_WAIT_MS + 1)))
    assert (done.outcome, done.fills, done.at_ns) == ("expired", (), at(MAX_WAIT_MS + 1))


def test_orders_take_in_the_order_of_their_arrival() -> None:
    exchange = broker([(50, 9_999, 10_000, 5, 1)])
    exchange.submit(order(BUY, 1.0, order_id=1), at(40))
    exchange.submit(order(BUY, 1.0, order_id=2), at(30))
    outcome = {done.order.order_id: done.outcome for done in exchange.advance(at(100))}
    assert outcome == {1: "unfilled", 2: "filled"}


def test_remaining_orders_are_cancelled_at_the_end() -> None:
    exchange = broker([(0, 9_999, 10_000, 5, 5)])
    exchange.submit(order(BUY, 1.0), at(10))
    assert only(exchange.cancel_all(at(20))).outcome == "cancelled"
    assert exchange.waiting_count == 0


def test_closing_at_the_end_uses_the_last_state_and_its_side() -> None:
    exchange = broker([(0, 9_999, 10_000, 5, 5), (10, 9_989, 9_990, 5, 5)])
    done = exchange.close_at(order(SELL, 1.0, reduce_only=True), at(500))
    assert done.fills[0].price_e8 == 9_989 * COIN.tick_size_e8
    assert done.fills[0].exec_ns == at(500)
    nothing = broker([]).close_at(order(SELL, 1.0, reduce_only=True), at(0))
    assert nothing.outcome == "unfilled"


@given(
    st.lists(st.tuples(st.integers(0, 9_000), st.integers(1, 50), st.integers(0, 4_000)), max_size=15),
    st.lists(
        st.tuples(st.sampled_from([BUY, SELL]), st.integers(1, 5_000), st.integers(0, 9_000)), max_size=10
    ),
    st.lists(st.integers(0, 16_000), max_size=10),
)
def test_every_order_is_answered_once_and_never_before_its_arrival(
    rows: list[tuple[int, int, int]], sent: list[tuple[int, int, int]], times: list[int]
) -> None:
    states = sorted((time, 10_000 - wide, 10_000 + wide, lots / 1e3, lots / 1e3) for time, wide, lots in rows)
    exchange = broker(states)
    arrivals = {}
    for index, (side, lots, arrival) in enumerate(sent, 1):
        arrivals[index] = at(arrival)
        exchange.submit(order(side, lots / 1e3, order_id=index), at(arrival))
    answers: list[Execution] = []
    for time in sorted(times):
        batch = exchange.advance(at(time))
        assert all(done.at_ns <= at(time) for done in batch)
        answers += batch
    answers += exchange.advance(at(9_000 + MAX_WAIT_MS))
    assert exchange.waiting_count == 0
    assert sorted(done.order.order_id for done in answers) == sorted(arrivals)
    for done in answers:
        assert done.at_ns >= arrivals[done.order.order_id]
        assert done.cancelled_qty_e8 + sum(fill.qty_e8 for fill in done.fills) == done.order.qty_e8
        for fill in done.fills:
            assert fill.exec_ns == done.at_ns
            # Takers pay at least the mid of the book they meet.
            assert done.order.side * (2 * fill.price_e8 - fill.mid2_e8) > 0


def test_more_latency_is_never_an_earlier_fill() -> None:
    rows: list[QuoteRow] = [(index * 10, 9_999, 10_000, 5, 5) for index in range(50)]
    filled = []
    for latency in (0, 5, 20, 100, 333):
        exchange = broker(rows)
        exchange.submit(order(BUY, 1.0), at(latency))
        filled.append(only(exchange.advance(at(1_000))).at_ns)
    assert filled == sorted(filled)
    assert filled[-1] == at(340)


def test_fee_of_zero_is_free() -> None:
    exchange = broker([(0, 9_999, 10_000, 5, 5)], fee_bps=0.0)
    exchange.submit(order(BUY, 1.0), at(0))
    assert only(exchange.advance(at(0))).fills[0].fee_e8 == pytest.approx(0)
