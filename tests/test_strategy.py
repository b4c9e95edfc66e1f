"""Entries clear every hurdle, exits come in time, and every silence has its reason."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.config import CostConfig, StrategyConfig
from gpuscalp.orders import BUY, SELL, Intent, IntentKind, MarketRow, SignalRow
from gpuscalp.strategy import PREDICTED_REASONS, SKIP_REASONS, Decision, Holdings, Strategy

MS = 1_000_000
NOW = 1_700_000_000 * 10**9


def market(bid: list[int], ask: list[int]) -> MarketRow:
    count = len(bid)
    return MarketRow(
        end_ns=NOW,
        bid_px=np.array(bid, np.int32),
        ask_px=np.array(ask, np.int32),
        mark=np.full(count, np.nan),
        quality=np.zeros(count, np.uint32),
        age_ms=np.zeros(count, np.float32),
    )


def signal(edge: float, confidence: float = 0.6, agreement: float = 1.0) -> SignalRow:
    up = confidence if edge > 0 else (1 - confidence) / 2
    down = confidence if not edge > 0 else (1 - confidence) / 2
    return SignalRow(
        probability=np.array([[down, 1 - up - down, up]]),
        agreement=np.array([agreement]),
        edge_bps=np.array([edge]),
        spread_bps=np.zeros(1),
    )


def holdings(side: int = 0, waiting: bool = False, decided_ns: int = 0) -> Holdings:
    return Holdings(np.array([side]), np.array([waiting]), np.array([decided_ns]))


def decide(signals: SignalRow, held: Holdings | None = None, **config: float) -> Decision:
    strategy = Strategy(
        StrategyConfig(**config),  # type: ignore[arg-type]
        CostConfig(taker_fee_bps=5.0),
        horizon_ms=1_000,
    )
    # 10,000 against 10,001 ticks: a spread of 1 bp.
    return strategy.decide(market([10_000], [10_001]), signals, held or holdings())


def only(decision: Decision) -> Intent:
    (intent,) = decision.intents
    return intent


def reason(decision: Decision) -> str:
    assert decision.skips.sum() == 1
    return SKIP_REASONS[int(np.argmax(decision.skips))]


@pytest.mark.parametrize(("edge", "side"), [(11.1, BUY), (-11.1, SELL)])
def test_edge_above_the_round_trip_enters_in_its_direction(edge: float, side: int) -> None:
    intent = only(decide(signal(edge)))
    assert (intent.kind, intent.side, intent.notional_usdt) == (IntentKind.ENTER, side, 1_000.0)
    # Twice the fee of 5 bps and the whole spread of 1 bp (half of it at the entry, half at the exit).
    assert intent.cost_bps == pytest.approx(11.0, abs=1e-3)
    assert intent.confidence == 0.6


@pytest.mark.parametrize(
    ("signals", "config", "expected"),
    [
        (signal(10.9), {}, "low_edge"),
        (signal(12.0), {"min_edge_bps": 2.0}, "low_edge"),
        (signal(50.0, confidence=0.39), {}, "low_confidence"),
        (signal(50.0, agreement=0.4), {}, "low_agreement"),
        (signal(float("nan")), {}, "no_signal"),
        (signal(50.0, agreement=float("nan")), {}, "no_signal"),
        (signal(0.0), {}, "no_signal"),
    ],
)
def test_hurdle_that_is_not_cleared_is_named(
    signals: SignalRow, config: dict[str, float], expected: str
) -> None:
    decision = decide(signals, **config)
    assert decision.intents == ()
    assert reason(decision) == expected


def test_edge_that_pays_for_the_round_trip_and_no_more_is_not_traded() -> None:
    strategy = Strategy(StrategyConfig(), CostConfig(taker_fee_bps=5.0), horizon_ms=1_000)
    locked = market([10_000], [10_000])  # the cost is 10 bps to the bit
    assert reason(strategy.decide(locked, signal(10.0), holdings())) == "low_edge"
    assert only(strategy.decide(locked, signal(float(np.nextafter(10.0, 11))), holdings())).cost_bps == 10.0


def test_position_is_left_after_the_holding_time() -> None:
    early = decide(signal(float("nan")), holdings(BUY, decided_ns=NOW - 999 * MS))
    assert reason(early) == "holding"
    late = only(decide(signal(float("nan")), holdings(BUY, decided_ns=NOW - 1_000 * MS)))
    assert (late.kind, late.side, late.reason, late.notional_usdt) == (
        IntentKind.EXIT,
        SELL,
        "hold_elapsed",
        None,
    )
    longer = decide(signal(float("nan")), holdings(BUY, decided_ns=NOW - 1_000 * MS), hold_ms=2_000)
    assert longer.intents == ()


def test_opposite_signal_closes_but_a_weak_one_does_not() -> None:
    held = holdings(SELL, decided_ns=NOW)
    assert only(decide(signal(3.0), held)).reason == "opposite_signal"
    assert only(decide(signal(3.0), held)).side == BUY
    assert decide(signal(-3.0), held).intents == ()
    assert decide(signal(3.0, confidence=0.3), held).intents == ()


def test_symbol_with_an_open_order_is_left_alone() -> None:
    assert reason(decide(signal(50.0), holdings(waiting=True))) == "order_open"
    assert reason(decide(signal(-50.0), holdings(BUY, waiting=True, decided_ns=1))) == "order_open"


def test_symbol_without_a_quote_is_not_entered_and_let_go_of() -> None:
    """A held one was skipped too, for as long as the quote was away."""
    strategy = Strategy(StrategyConfig(), CostConfig(), horizon_ms=1_000)
    blank = market([0], [0])
    assert reason(strategy.decide(blank, signal(50.0), holdings())) == "no_quote"
    one_sided = strategy.decide(market([100], [0]), signal(50.0), holdings())
    assert reason(one_sided) == "no_quote"
    assert reason(strategy.decide(blank, signal(50.0), holdings(BUY, decided_ns=NOW))) == "holding"
    assert only(strategy.decide(blank, signal(50.0), holdings(BUY, decided_ns=1))).reason == "hold_elapsed"
    rest = replace(holdings(BUY, decided_ns=NOW), rests_e8=np.array([BUY]))
    assert reason(strategy.decide(market([100], [0]), signal(50.0), rest)) == "no_quote"


def test_prices_near_the_end_of_int32_do_not_overflow() -> None:
    strategy = Strategy(StrategyConfig(), CostConfig(), horizon_ms=1_000)
    high = 2**31 - 1
    decision = strategy.decide(market([high - 1], [high]), signal(10.1), holdings())
    assert only(decision).cost_bps == pytest.approx(10.0, abs=1e-4)


EVERY = (
    (0.0, -20.0, 20.0, 3.0, -3.0, 0.5, -0.5, np.nan, np.inf),  # edge
    (0.2, 0.4, 0.9, np.nan),  # confidence
    (0.2, 0.5, 1.0, np.nan),  # agreement
    ((10_000, 10_001), (1, 2), (0, 10_001), (10_000, 0), (0, 0)),
    (-1, 0, 1),  # side
    (False, True),  # waits
    (0, 999, 1_000),  # ms since the decision
    (-1, 0, 1),  # rest of an entry
)


def plain(row: tuple[Any, ...], rests: bool) -> str:
    """Return what is wanted of one symbol, or why nothing is, by the rules as they are written down."""
    edge, confidence, agreement, (bid, ask), side, waits, since_ms, rest = row
    elapsed = since_ms >= 1_000
    known = all(math.isfinite(value) for value in (edge, confidence, agreement)) and edge != 0
    sure, agreed = known and confidence >= 0.4, known and confidence >= 0.4 and agreement >= 0.5
    goes_on = rests and edge * rest > 0 and not elapsed
    held = side != 0 and not goes_on
    if not (bid and ask) and not held:
        return "no_quote"
    if waits:
        return "order_open"
    if held:
        return "hold_elapsed" if elapsed else "opposite_signal" if agreed and edge * side < 0 else "holding"
    if not agreed:
        return "no_signal" if not known else "low_agreement" if sure else "low_confidence"
    return "edge" if abs(edge) - 2.0 - 2e4 * (ask - bid) / (ask + bid) > 0 else "low_edge"


@pytest.mark.parametrize("rests", [False, True])
def test_decisions_are_those_of_the_rules(rests: bool) -> None:
    """Every combination: drawn ones met a long position with an opposite signal too seldom."""
    rows: list[tuple[Any, ...]] = list(itertools.product(*EVERY))
    strategy = Strategy(
        StrategyConfig(min_confidence=0.4, min_agreement=0.5), CostConfig(taker_fee_bps=1.0), horizon_ms=1_000
    )
    edges, confidences, agreements, quotes, sides, waits, since_ms, rest = zip(*rows, strict=True)
    parts = [signal(edge, confidence) for edge, confidence in zip(edges, confidences, strict=True)]
    signals = SignalRow(
        probability=np.concatenate([part.probability for part in parts]),
        agreement=np.array(agreements),
        edge_bps=np.array(edges),
        spread_bps=np.zeros(len(rows)),
    )
    held = Holdings(
        np.array(sides),
        np.array(waits),
        np.array([NOW - ms * MS for ms in since_ms]),
        np.array(rest) * 10**8 if rests else None,
    )
    bids, asks = zip(*quotes, strict=True)
    decision = strategy.decide(market([*bids], [*asks]), signals, held)
    expected = [plain(row, rests) for row in rows]
    acted = {"edge", "hold_elapsed", "opposite_signal"}
    assert [(each.symbol_index, each.reason) for each in decision.intents] == [
        (index, what) for index, what in enumerate(expected) if what in acted
    ]
    counts = Counter("intent" if what in acted else what for what in expected)
    assert decision.skips.tolist() == [counts[name] for name in SKIP_REASONS]
    for each in decision.intents:
        edge, side = edges[each.symbol_index], sides[each.symbol_index]
        assert each.side == (-side if each.kind is IntentKind.EXIT else math.copysign(1, edge))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, -20.0, 20.0, 3.0, np.nan]),
            st.sampled_from([0.2, 0.39, 0.4, 0.9, np.nan]),
            st.sampled_from([0.2, 0.5, 1.0, np.nan]),
            st.integers(-1, 1),
            st.integers(0, 2_000),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whoever_acts_on_a_prediction_was_among_those_that_may(
    rows: list[tuple[float, float, float, int, int]],
) -> None:
    strategy = Strategy(StrategyConfig(), CostConfig(taker_fee_bps=1.0), horizon_ms=1_000)
    parts = [signal(edge, confidence, agreement) for edge, confidence, agreement, *_ in rows]
    signals = SignalRow(
        probability=np.concatenate([part.probability for part in parts]),
        agreement=np.concatenate([part.agreement for part in parts]),
        edge_bps=np.concatenate([part.edge_bps for part in parts]),
        spread_bps=np.zeros(len(rows)),
    )
    held = Holdings(
        np.array([row[3] for row in rows]),
        np.zeros(len(rows), bool),
        np.array([NOW - row[4] * MS for row in rows]),
    )
    may = strategy.may_act(signals)
    decision = strategy.decide(market([10_000] * len(rows), [10_001] * len(rows)), signals, held)
    acting = {i.symbol_index for i in decision.intents if i.reason in PREDICTED_REASONS}
    assert acting <= set(np.flatnonzero(may).tolist())
    # Nor does it name rows whose signal cannot lead to anything.
    for row in np.flatnonzero(may):
        edge, confidence, agreement, *_ = rows[row]
        assert edge != 0
        assert confidence >= StrategyConfig().min_confidence
        assert agreement >= StrategyConfig().min_agreement
