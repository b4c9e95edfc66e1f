"""Summaries: sampling interval, groups that add up, and nothing claimed from nothing."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise

import numpy as np
import pytest

from gpuscalp.backtest.ledger import Ledger, Trade
from gpuscalp.backtest.metrics import (
    grouped,
    hits,
    mean_pnl_interval,
    number,
    performance,
    return_edges,
    total,
)
from gpuscalp.schema import NS_PER_S
from gpuscalp.stats import OBSERVATIONS_MIN
from tests.backtest.market import E8, NOW
from tests.backtest.test_ledger import fill, order


def trades(pnls: list[float]) -> list[Trade]:
    ledger = Ledger()
    for pnl in pnls:
        ledger.on_fill(fill(1, E8, 100 * E8, 200 * E8), order(1, 1.0))
        price = 100 * E8 + round(pnl * E8)
        ledger.on_fill(fill(-1, E8, price, 200 * E8, fee_e8=3), order(-1, 1.0, reduce_only=True))
    return ledger.closed


def recordings(*pieces_s: tuple[int, int]) -> np.ndarray:
    """Return samples, one a second, of recordings that begin at these seconds and last so long."""
    return NOW + NS_PER_S * np.concatenate(
        [np.arange(start, start + length + 1, dtype=np.int64) for start, length in pieces_s]
    )


@pytest.mark.parametrize(
    ("span_s", "interval"),
    [(60, 1), (1_999, 1), (2_000, 10), (12_000, 60), (60_000, 300), (720_000, 3_600), (17_280_000, 86_400)],
)
def test_interval_is_the_longest_that_leaves_enough_returns(span_s: int, interval: int) -> None:
    at = NOW + np.arange(0, span_s + 1, min(span_s, 60), dtype=np.int64) * NS_PER_S
    at = np.append(at, NOW + span_s * NS_PER_S)
    assert (
        performance(
            at, np.linspace(100.0, 101.0, len(at)), start_usdt=100.0, trials=1, results=100
        ).interval_s
        == interval
    )


def test_returns_cover_the_whole_time_with_silences_at_zero() -> None:
    at = NOW + np.array([0, 1, 2, 5, 6], np.int64) * NS_PER_S
    equity = np.array([100.0, 101.0, 100.0, 103.0, 103.0])
    found = performance(at, equity, start_usdt=100.0, trials=1, results=100)
    assert found.returns == pytest.approx([0.01, -0.01, 0.0, 0.0, 0.03, 0.0])
    assert found.sharpe.value == pytest.approx(found.returns.mean() / found.returns.std(ddof=1))
    assert found.annual is None


def test_days_that_were_not_recorded_are_no_days_without_a_move() -> None:
    """Sixteen minutes, 470 days apart, were 471 daily returns: a deflated ratio of 0.98, and one per year."""
    at = recordings((0, 480), (470 * 86_400, 480))
    rng = np.random.default_rng(3)
    equity = 10_000 + np.cumsum(rng.normal(0.05, 1.0, len(at)))
    found = performance(at, equity, start_usdt=10_000.0, trials=1, results=100)
    assert (found.recorded_s, found.interval_s, found.annual) == (960.0, 1, None)
    # As if the second piece had begun when the first one ended; what changed in between comes at the seam.
    glued = [*equity[:480].tolist(), *equity[481:].tolist()]
    expected = [(later - earlier) / 10_000.0 for earlier, later in pairwise(glued)]
    assert found.returns.tolist() == pytest.approx(expected)
    assert found.sharpe.value == pytest.approx(np.mean(expected) / np.std(expected, ddof=1))


def test_recorded_time_is_what_is_annualised() -> None:
    hours = 600
    at = recordings(*((day * 86_400, 3_600) for day in range(hours)))[::60]
    equity = 10_000 + np.cumsum(np.random.default_rng(5).normal(0.01, 1.0, len(at)))
    found = performance(at, equity, start_usdt=10_000.0, trials=1, results=100)
    assert found.interval_s == 3_600  # a day would leave 24 returns
    assert len(found.returns) == found.recorded_s // 3_600
    assert found.annual == pytest.approx(found.sharpe.value * math.sqrt(8_760))
    few = performance(at[: len(at) // 2], equity[: len(at) // 2], start_usdt=10_000.0, trials=1, results=100)
    assert few.recorded_s < 20 * 86_400
    assert few.annual is None


@pytest.mark.parametrize("seed", range(6))
def test_every_interval_has_the_same_recorded_time_and_nothing_is_lost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.choice([1, 1, 1, 2, 60, 61, 5_000], 300)
    at = NOW + np.cumsum(steps).astype(np.int64) * NS_PER_S + rng.integers(0, 1_000_000)
    equity = 1_000.0 + np.cumsum(rng.normal(size=300))
    # By hand: every second that is no part of a hole.
    lived = [second for step in steps[1:].tolist() if step <= 60 for second in [1] * step]
    for interval_s in (1, 10, 300):
        edges = return_edges(at, interval_s)
        assert len(edges) - 1 == len(lived) // interval_s
        inside = [
            sum(
                max(0, min(b, high) - max(a, low)) / NS_PER_S
                for a, b in pairwise(at.tolist())
                if b - a <= 60 * NS_PER_S
            )
            for low, high in pairwise(edges.tolist())
        ]
        assert inside[:-1] == [interval_s] * (len(inside) - 1)
        assert sum(inside) == len(lived)
        assert (edges[0], edges[-1]) == (at[0], at[-1])
    found = performance(at, equity, start_usdt=1_000.0, trials=1, results=100)
    assert found.returns.sum() == pytest.approx((equity[-1] - equity[0]) / 1_000.0)


def test_nothing_traded_gives_no_ratio() -> None:
    at = NOW + np.arange(100, dtype=np.int64) * NS_PER_S
    found = performance(at, np.full(100, 10_000.0), start_usdt=10_000.0, trials=5, results=0)
    assert not found.sharpe.known
    assert number(found.sharpe.value) is None
    assert number(found.deflated) is None
    assert found.annual is None
    assert return_edges(at[:0], 1).tolist() == []
    empty = performance(at[:0], np.empty(0), start_usdt=1.0, trials=1, results=100)
    assert (empty.sharpe.known, empty.recorded_s, len(empty.returns)) == (False, 0.0, 0)


def test_long_samples_are_annualised() -> None:
    at = NOW + np.arange(0, 30 * 86_400, 60, dtype=np.int64) * NS_PER_S
    equity = 10_000 + np.cumsum(np.random.default_rng(1).normal(0.01, 1, len(at)))
    found = performance(at, equity, start_usdt=10_000.0, trials=1, results=100)
    assert found.interval_s == 3_600
    assert found.annual == pytest.approx(found.sharpe.value * math.sqrt(8_760))


def test_groups_add_up_to_the_total() -> None:
    made = trades([1.0, -2.0, 0.25, 4.0])
    parts = grouped(made, lambda trade: -(made.index(trade) % 2))
    whole = total(made)
    assert [part.key for part in parts] == ["-1", "0"]
    for name in ("count", "gross", "delay", "spread", "fees", "funding", "pnl"):
        assert sum(getattr(part, name) for part in parts) == pytest.approx(getattr(whole, name))
    assert whole.pnl == pytest.approx(
        whole.gross + whole.delay + whole.spread + whole.fees + whole.funding, abs=1e-12
    )
    assert whole.fees == pytest.approx(-12e-8)


def test_sums_are_in_dollars_and_costs_below_zero() -> None:
    parts = {"gross": 900, "delay": -70, "spread": -50, "impact": -30, "fees": 200, "funding": -10}
    one = Trade(0, 1, order(1, 1.0).intent, 0, 0, **{f"{name}_e8": E8 * usdt for name, usdt in parts.items()})
    one.entry_notional_e8 = 54_000 * E8
    found = total([one, one])
    assert (found.gross, found.delay, found.spread, found.impact) == (1_800.0, -140.0, -100.0, -60.0)
    assert (found.fees, found.funding, found.pnl, found.count) == (-400.0, -20.0, 1_080.0, 2)
    assert one.pnl_bps == 100.0


def test_hits_count_profits_after_costs() -> None:
    won, interval = hits(trades([1.0, -1.0, 0.0]))
    assert won == 1  # a trade without a move has lost its fees
    assert interval.low < 1 / 3 < interval.high


def test_interval_of_the_mean_holds_the_mean_and_is_reproducible() -> None:
    made = trades(np.random.default_rng(2).normal(size=80).tolist())
    first, again = mean_pnl_interval(made), mean_pnl_interval(made)
    assert first == again
    mean = np.mean([trade.pnl_e8 / E8 for trade in made])
    assert first.low < mean < first.high
    assert math.isnan(mean_pnl_interval([]).low)


def together(pnl: np.ndarray, rng: np.random.Generator) -> list[Trade]:
    """Return trades of M symbols at n moments a minute apart, entered within 2 s, each held for 5 s."""
    entered = 60 * np.arange(len(pnl))[:, None] + rng.uniform(0, 2, pnl.shape)
    intent = order(1, 1.0).intent
    found = []
    for place in np.argsort(entered, axis=None).tolist():
        entry_ns = NOW + int(entered.flat[place] * NS_PER_S)
        trade = Trade(
            place % pnl.shape[1], 1, intent, entry_ns, entry_ns, gross_e8=round(pnl.flat[place] * E8)
        )
        trade.exit_decided_ns = trade.exit_ns = entry_ns + 5 * NS_PER_S
        found.append(trade)
    return found


def test_copies_in_other_symbols_make_nothing_more_sure() -> None:
    rng = np.random.default_rng(6)
    pnl = rng.normal(size=(40, 1))
    alone, copied = together(pnl, rng), together(pnl.repeat(20, axis=1), rng)
    one, many = mean_pnl_interval(alone), mean_pnl_interval(copied)
    assert (many.low, many.high) == pytest.approx((one.low, one.high))
    (won, share), (won_all, share_all) = hits(alone), hits(copied)
    assert won_all == 20 * won
    assert (share_all.low, share_all.high) == pytest.approx((share.low, share.high))


def test_interval_of_the_mean_is_that_of_blocks_of_groups_in_plain_loops() -> None:
    """Seventy moments with two trades each, or one; blocks of 70^⅓ ≈ 4, drawn from the same numbers."""
    rng = np.random.default_rng(11)
    made = [trade for place, trade in enumerate(together(rng.normal(size=(70, 2)), rng)) if place % 6 != 1]
    groups: dict[int, list[float]] = {}
    for trade in made:
        groups.setdefault((trade.entry_decided_ns - NOW) // (60 * NS_PER_S), []).append(trade.pnl_e8 / E8)
    held, draws = list(groups.values()), np.random.default_rng(7)
    assert sorted({len(group) for group in held}) == [1, 2]
    means = []
    for _ in range(1_000):
        starts = draws.integers(0, 70 - 4 + 1, size=18).tolist()
        drawn = [held[start + step] for start in starts for step in range(4)][:70]
        means.append(math.fsum(itertools.chain.from_iterable(drawn)) / sum(map(len, drawn)))
    found = mean_pnl_interval(made)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), rel=1e-12)


@pytest.mark.parametrize("symbols", [1, 20])
def test_intervals_hold_what_they_promise_where_symbols_move_together(symbols: int) -> None:
    """Symbols correlated by 0.7: of "95 %" of the mean 0.79 held the truth, of those of the hit rate 0.44."""
    rng, worlds = np.random.default_rng(8), 60
    held = np.zeros(2)
    for world in range(worlds):
        common, own = rng.normal(size=(40, 1)), rng.normal(size=(40, symbols))
        made = together(math.sqrt(0.7) * common + math.sqrt(0.3) * own, rng)
        share = hits(made)[1]
        held[1] += share.low <= 0.5 <= share.high
        if world < worlds // 3:
            mean = mean_pnl_interval(made)
            held[0] += 3 * (mean.low <= 0.0 <= mean.high)
    assert (held / worlds >= (0.85, 0.9)).all()


@pytest.mark.parametrize(
    "span_s", [260, 200 * 3_600 + 3_000, 25 * 86_400 + 3_599, 200 * 86_400 + 80_000], ids=str
)
def test_what_happens_after_the_last_whole_interval_is_in_the_returns(span_s: int) -> None:
    """A loss behind the last whole hour was in no return: the ratio was that of the time before."""
    at = NOW + np.linspace(0, span_s * NS_PER_S, 2_000 + span_s // 60).astype(np.int64)
    equity = np.full(len(at), 10_000.0)
    equity[1:] += 7.0
    equity[-1] -= 500.0
    found = performance(at, equity, start_usdt=10_000.0, trials=1, results=100)
    assert found.returns.sum() == pytest.approx(-0.0493)
    assert found.returns[-1] == pytest.approx(-0.05)
    assert found.sharpe.value < 0
    assert len(found.returns) == span_s // found.interval_s


@pytest.mark.parametrize("winners", [1, 3, OBSERVATIONS_MIN - 1])
def test_few_winners_are_no_skill(winners: int) -> None:
    """One winning trade had a deflated Sharpe ratio of 0.963 and "95 % interval 0.3095 to 0.3095"."""
    at = NOW + np.arange(2_000, dtype=np.int64) * NS_PER_S
    equity = np.full(len(at), 10_000.0)
    for trade in range(winners):
        equity[50 * (trade + 1) :] += 0.3
    few, enough = (
        performance(at, equity, start_usdt=10_000.0, trials=1, results=count)
        for count in (winners, OBSERVATIONS_MIN)
    )
    assert few.sharpe.value == enough.sharpe.value > 0
    assert (few.few, enough.few) == (True, False)
    assert [number(each) for each in (few.deflated, few.sharpe.error)] == [None] * 2
    assert enough.deflated > 0.8
    assert math.isnan(mean_pnl_interval(trades([0.3] * winners)).low)
    assert not math.isnan(mean_pnl_interval(trades([0.3] * OBSERVATIONS_MIN)).low)


def test_few_winners_are_not_annualised() -> None:
    at = NOW + np.arange(0, 30 * 86_400, 60, dtype=np.int64) * NS_PER_S
    equity = np.linspace(10_000.0, 10_100.0, len(at)) + np.sin(np.arange(len(at)))
    assert performance(at, equity, start_usdt=10_000.0, trials=1, results=3).annual is None
