"""Rates leave a reserve to exits; pauses end by themselves, and latch when they come too often."""

from __future__ import annotations

from math import inf, nan, nextafter

from gpuscalp.risk.gate import RiskEvent, RiskGate, RiskState
from gpuscalp.risk.rules import Question
from gpuscalp.schema import NS_PER_DAY
from tests.gates import GOOD, MS, NOON, SECOND, START, exit_of, gate, wild, with_limits


def send(judge: RiskGate, at_ns: int, question: Question) -> bool:
    """Ask, and send if accepted."""
    judge.observe(at_ns, START)
    accepted = judge.judge(question).accepted
    if accepted:
        judge.on_order(at_ns)
    return accepted


def test_entries_leave_a_reserve_of_the_rate_to_exits() -> None:
    judge, leave = gate(), exit_of(GOOD, predicted=False)
    # 8 a second, a quarter of it for exits: 6 entries, and 2 exits still pass.
    assert [send(judge, NOON + index, GOOD) for index in range(7)] == [True] * 6 + [False]
    assert judge.judge(GOOD).code == "ENTRY_RATE_S"
    assert [send(judge, NOON + 10, leave) for _ in range(3)] == [True, True, False]
    verdict = judge.judge(leave)
    assert (verdict.code, verdict.limit, verdict.value) == ("ORDER_RATE_S", 8.0, 9.0)
    # An order is forgotten when it is a second old, not before.
    assert not send(judge, NOON + SECOND - 1, leave)
    assert send(judge, NOON + SECOND, leave)


def test_rate_per_minute_has_its_own_reserve() -> None:
    judge, leave = gate(), exit_of(GOOD, predicted=False)
    # 40 a minute, 30 of them for anything, at half a second each.
    times = [NOON + index * SECOND // 2 for index in range(50)]
    entries = [send(judge, at, GOOD) for at in times[:31]]
    assert entries == [True] * 30 + [False]
    assert judge.judge(GOOD).code == "ENTRY_RATE_M"
    exits = [send(judge, at, leave) for at in times[31:42]]
    assert exits == [True] * 10 + [False]
    assert judge.judge(leave).code == "ORDER_RATE_M"
    assert not send(judge, NOON + 60 * SECOND - 1, leave)
    assert send(judge, NOON + 60 * SECOND, leave)


def trades(judge: RiskGate, at_ns: int, *results: int) -> RiskEvent | None:
    for result in results:
        judge.on_trade(result)
    return judge.observe(at_ns, START)


def test_losses_in_a_row_cool_down_and_then_latch() -> None:
    judge = gate()
    trades(judge, NOON + 1, -1, -1, 0, -1, -1)
    assert judge.judge(GOOD).accepted, "a trade without a loss ends the row"
    assert trades(judge, NOON + 2, -1) is None
    verdict = judge.judge(GOOD)
    assert (verdict.code, verdict.value) == ("COOL_DOWN", 5_000.0)
    assert judge.judge(exit_of(GOOD, predicted=True)).accepted
    judge.observe(NOON + 2 + 5_000 * MS - 1, START)
    assert judge.judge(GOOD).value == 1e-6
    judge.observe(NOON + 2 + 5_000 * MS, START)
    assert judge.judge(GOOD).accepted
    # The second trip of the day ends by itself as well; the third latches.
    assert trades(judge, NOON + 10 * SECOND, -1, -1, -1) is None
    assert trades(judge, NOON + 20 * SECOND, -1, -1) is None
    assert trades(judge, NOON + 21 * SECOND, -1) is RiskEvent.LOSS_STREAK
    assert judge.state is RiskState.REDUCING
    judge.observe(NOON + 3_600 * SECOND, START)
    assert judge.judge(GOOD).code == "REDUCING"
    judge.apply(RiskEvent.REARM, NOON + 3_600 * SECOND)
    assert judge.judge(GOOD).accepted


def test_trips_are_counted_by_day() -> None:
    judge = gate()
    for day in range(4):
        for trip in range(2):
            at_ns = NOON + day * NS_PER_DAY + trip * 60 * SECOND
            assert trades(judge, at_ns, -1, -1, -1) is None
    assert judge.state is RiskState.ACTIVE


def test_losses_in_a_row_may_be_off() -> None:
    judge = gate(with_limits(max_losses="off"))
    assert trades(judge, NOON + 1, *[-1] * 100) is None
    assert judge.judge(GOOD).accepted


def test_volatility_pauses_a_symbol_and_then_latches_it() -> None:
    judge = gate()
    assert wild(judge, 0, 30.0, nan) == (0.0, 0.0), "at the limit nothing trips"
    assert wild(judge, 100, nextafter(30.0, inf), 1.0) == (1_000.0, 0.0)
    # While it stays wild the pause is prolonged, and that is no second trip.
    assert wild(judge, 600, 31.0, 1.0) == (1_000.0, 0.0)
    assert wild(judge, 1_599, 1.0, 1.0) == (1.0, 0.0)
    assert wild(judge, 1_600, 1.0, 1.0) == (0.0, 0.0)
    assert wild(judge, 5_000, 50.0, 50.0) == (1_000.0, 1_000.0)
    assert wild(judge, 9_000, 50.0, 1.0) == (inf, 0.0), "the third of the day latches"
    day_ms = NS_PER_DAY // MS
    assert wild(judge, 2 * day_ms, 50.0, 50.0) == (inf, 1_000.0)
    assert judge.state is RiskState.ACTIVE
    judge.apply(RiskEvent.HALT_ENTRIES, NOON)
    judge.apply(RiskEvent.REARM, NOON)
    assert wild(judge, 2 * day_ms + 1, 1.0, 1.0) == (0.0, 0.0)


def test_volatility_that_is_off_pauses_nothing() -> None:
    assert wild(gate(with_limits(max_volatility_bps="off")), 0, 1e9, 1e9) == (0.0, 0.0)


def test_rearmed_gate_has_neither_losses_nor_pauses_left() -> None:
    judge = gate()
    for _ in range(3):
        judge.on_trade(-1)
    assert wild(judge, 1_000, 31.0, 1.0) == (1_000.0, 0.0)
    assert judge.cool_down_ms == 5_000.0
    judge.on_trade(-1)
    judge.on_trade(-1)
    judge.apply(RiskEvent.REDUCE, NOON + 1_100 * MS)
    judge.apply(RiskEvent.REARM, NOON + 1_200 * MS)
    judge.on_trade(-1)
    assert wild(judge, 1_300, 1.0, 1.0) == (0.0, 0.0)
    assert judge.cool_down_ms == 0.0
    assert (judge.streak.losses, judge.streak.trips) == (1, 0)


def test_pause_that_has_just_ended_may_begin_again() -> None:
    judge = gate()
    assert wild(judge, 1_000, 31.0, 31.0) == (1_000.0, 1_000.0)
    assert wild(judge, 1_999, 31.0, 1.0) == (1_000.0, 1.0)
    assert judge.pauses.trips.tolist() == [1, 1]
    assert wild(judge, 2_000, 31.0, 31.0) == (1_000.0, 1_000.0)
    assert judge.pauses.trips.tolist() == [1, 2]
