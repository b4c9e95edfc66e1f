"""What the trader puts before the gate: conditions, market and signal, each where its rule looks."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpuscalp.risk.gate import RiskEvent
from gpuscalp.schema import Quality
from tests.trading import (
    ASK_E8,
    MS,
    NAN,
    NOTHING,
    NOW,
    UP,
    complete,
    fill,
    held,
    market,
    signals,
    step,
    trader,
)

CONDITIONS = {
    "DEVICE": {"device_ok": False},
    "CLOCK_ERROR": {"clock_error_ms": -501.0},
    "LATE_PREDICTION": {"now_ns": NOW + 501 * MS},
    "QUALITY": {"extra_quality": np.array([int(Quality.RESYNC), 0], np.uint32)},
}


@pytest.mark.parametrize("code", CONDITIONS)
def test_conditions_stop_an_entry(code: str) -> None:
    report = step(trader(), market(0), UP, **CONDITIONS[code])
    assert [verdict.code for verdict in report.verdicts] == [code]


def test_doubt_of_one_symbol_leaves_the_other_alone() -> None:
    report = step(trader(), market(0), signals(50.0, 50.0), **CONDITIONS["QUALITY"])
    assert [verdict.code for verdict in report.verdicts] == ["QUALITY", ""]


def test_unknown_clock_stops_entries() -> None:
    report = step(trader(), market(0), UP, clock_error_ms=NAN)
    assert report.verdicts[0].code == "CLOCK_ERROR"


@pytest.mark.parametrize("code", CONDITIONS)
def test_conditions_stop_an_exit_only_if_it_is_a_prediction(code: str) -> None:
    changes = dict(CONDITIONS[code])
    predicted = code in ("DEVICE", "LATE_PREDICTION")
    for said, at_ms, reason in (
        (signals(-50.0, 0.0), 300, "opposite_signal"),
        (NOTHING, 1_000, "hold_elapsed"),
    ):
        machine = held()
        if "now_ns" in changes:
            changes["now_ns"] = NOW + (at_ms + 501) * MS
        report = step(machine, market(at_ms), said, **changes)
        assert [intent.reason for intent in report.intents] == [reason]
        refused = predicted and reason == "opposite_signal"
        assert [verdict.code for verdict in report.verdicts] == [code if refused else ""]


@pytest.mark.parametrize(
    ("trained_h_ago", "limit", "code"),
    [
        (24.0, 24.0, ""),
        (24.001, 24.0, "MODEL_EXPIRED"),
        (None, 24.0, "MODEL_EXPIRED"),
        (None, "off", ""),
        (-5, 24, ""),
    ],
)
def test_model_expires(trained_h_ago: float | None, limit: Any, code: str) -> None:
    decided_ns = NOW + 20 * MS
    until = None if trained_h_ago is None else decided_ns - round(trained_h_ago * 3_600e9)
    machine = trader(risk={"max_model_age_h": limit}, other={"trained_until_ns": until})
    assert step(machine, market(0), UP).verdicts[0].code == code


@pytest.mark.parametrize(
    ("probability", "code"),
    [
        ([0.1, 0.2, 0.7], ""),
        ([0.1, 0.2, 0.700002], "BAD_PROBABILITY"),
        ([0.0, 0.3, 0.699998], "BAD_PROBABILITY"),
        ([-0.1, 0.2, 0.9], "BAD_PROBABILITY"),
        ([-0.5, 0.0, 1.5], "BAD_PROBABILITY"),
        ([0.1, NAN, 0.7], "BAD_PROBABILITY"),
    ],
)
def test_probabilities_that_are_none_are_refused(probability: list[float], code: str) -> None:
    said = replace(UP, probability=np.array([probability, [0.3, 0.4, 0.3]]))
    assert step(trader(), market(0), said).verdicts[0].code == code


def test_first_frame_opens_nothing_because_no_move_is_known() -> None:
    machine = trader(warm=False, sizing={})
    first = step(machine, market(0), UP)
    # Without a move there is no volatility either, and no size that it would allow.
    assert first.verdicts[0].code == "NO_SIZE"
    off = trader(warm=False, risk={"max_trade_risk_pct": "off", "max_volatility_bps": "off"})
    assert step(off, market(0), UP).verdicts[0].code == "PRICE_JUMP"


def test_jump_and_volatility_refuse_and_pause_the_symbol_alone() -> None:
    machine = trader(risk={"max_jump_bps": 50.0, "max_volatility_bps": 100.0, "volatility_pause_ms": 1_000})
    codes = {}
    for at_ms in range(0, 2_600, 100):
        # 60 bps up and, half a second later, 60 down again; then quiet. 60 bps in 100 ms are 190 a second.
        bid = (603_600, 20_000) if 0 <= at_ms < 500 else (600_000, 20_000)
        report = step(machine, market(at_ms, bid=bid), UP)
        codes[at_ms] = report.verdicts[0].code if report.verdicts else "waiting"
        other = step(deepcopy(machine), market(at_ms + 1, bid=bid), signals(NAN, 50.0))
        assert [verdict.code for verdict in other.verdicts] == [""]
    assert codes[0] == codes[500] == "PRICE_JUMP"
    assert codes[100] == "VOLATILITY_PAUSE" or codes[100] == "VOLATILITY"
    order = ["PRICE_JUMP", "VOLATILITY", "VOLATILITY_PAUSE", ""]
    quiet = [order.index(codes[at_ms]) for at_ms in range(500, 2_500, 100) if codes[at_ms] in order]
    assert quiet == sorted(quiet)
    assert quiet[-1] == 3


def test_collar_compares_the_price_that_is_crossed_to_with_the_mark() -> None:
    row = market(0)
    for mark, code in (
        (60_000.0 / 1.0099, ""),
        (60_000.0 / 1.0101, "PRICE_COLLAR"),
        (NAN, "PRICE_COLLAR"),
        (0.0, "PRICE_COLLAR"),
    ):
        changed = replace(row, mark=np.array([mark, 0.2]))
        assert step(trader(), changed, UP).verdicts[0].code == code


def test_interval_between_trades_counts_from_the_last_execution() -> None:
    machine = trader(risk={"min_interval_ms": 400})
    (order,) = step(machine, market(0), UP).orders
    complete(machine, order, ASK_E8, at_ms=30)
    (leave,) = step(machine, market(1_000), NOTHING).orders
    complete(machine, leave, ASK_E8, at_ms=1_030)
    # Decisions fall 20 ms after the end of their frame.
    early = step(machine, market(1_409), UP)
    assert (early.verdicts[0].code, early.verdicts[0].value) == ("MIN_INTERVAL", 399.0)
    assert step(machine, market(1_410), UP).orders


def test_losing_trades_of_all_symbols_count_after_costs() -> None:
    machine = trader(risk={"max_losses": 3, "loss_pause_ms": 10_000})
    for index, at_ms in ((0, 0), (1, 2_000), (0, 4_000)):
        edges = [50.0 if index == one else NAN for one in range(2)]
        (order,) = step(machine, market(at_ms), signals(*edges)).orders
        price = [ASK_E8, 20_001_000][index]
        # Closed at the price it was opened at: the fee makes it a loss.
        machine.on_fill(replace(fill(order, price), fee_e8=1))
        machine.on_done(order.order_id)
        (leave,) = step(machine, market(at_ms + 1_000), NOTHING).orders
        complete(machine, leave, price)
    assert step(machine, market(6_000), signals(50.0, 50.0)).verdicts[0].code == "COOL_DOWN"
    # From the frame at which the third loss was seen.
    assert step(machine, market(15_999), signals(50.0, 50.0)).verdicts[0].code == "COOL_DOWN"
    assert step(machine, market(16_000), signals(50.0, 50.0)).orders


def test_funding_decides_whether_a_trade_was_a_loss() -> None:
    machine = held()
    machine.on_funding(0, -1)
    machine.on_funding(1, -1)
    (leave,) = step(machine, market(1_000), NOTHING).orders
    machine.on_fill(fill(leave, ASK_E8))
    assert machine.gate.streak.losses == 1


def test_round_trip_counts_once_however_many_fills_it_takes_and_each_by_its_own_result() -> None:
    """An entry in two parts, an exit in two: one loss of two units, and then another one of as much."""
    machine = trader(risk={"max_losses": 10})
    for count in (1, 2):
        (order,) = step(machine, market(2_000 * count), UP).orders
        for at, qty in enumerate((order.qty_e8 // 4, order.qty_e8 - order.qty_e8 // 4)):
            machine.on_fill(replace(fill(order, ASK_E8, qty), fee_e8=at))
        machine.on_done(order.order_id)
        (leave,) = step(machine, market(2_000 * count + 1_000), NOTHING).orders
        for at, qty in enumerate((leave.qty_e8 // 4, leave.qty_e8 - leave.qty_e8 // 4)):
            assert machine.gate.streak.losses == count - 1
            machine.on_fill(replace(fill(leave, ASK_E8, qty), fee_e8=at))
        machine.on_done(leave.order_id)
        assert machine.gate.streak.losses == count


def test_each_intent_is_told_with_its_verdict() -> None:
    report = step(held(), market(1_000), signals(NAN, 50.0))
    assert [each.reason for each in report.intents] == ["hold_elapsed", "edge"]
    assert [verdict.accepted for verdict in report.verdicts] == [True, True]


def test_order_of_a_command_counts_from_the_time_of_the_command() -> None:
    machine = held()
    machine.apply(RiskEvent.FLATTEN, NOW + 40_000 * MS)
    assert len(machine.flatten(market(0), "flatten")) == 1
    step(machine, market(99_000), NOTHING)
    assert machine.gate.orders_per_minute == 2
