"""The judgement of runs made by hand: few trades, the end of the time, settings without a difference."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gpuscalp.config import JudgeConfig, OrdersConfig, WalkForwardConfig
from gpuscalp.schema import NS_PER_MS, NS_PER_S
from gpuscalp.stats import OBSERVATIONS_MIN, Interval
from gpuscalp.walkforward import compare_runs
from gpuscalp.walkforward.judge import Judged, break_even_bps, cost_table, judge, to_dict
from gpuscalp.walkforward.plan import Plan, Run, Step
from gpuscalp.walkforward.random_entries import RandomEntries
from gpuscalp.walkforward.recorded import Recorded, Trades, returns_of
from gpuscalp.walkforward.report import _costs, _pooled, sections
from tests.walkforward.market import CONFIG

START = 1_700_000_000 * NS_PER_S
SPAN_S = 3_107  # 310 intervals of 10 s, and a rest
CONFIGURED = msgspec.structs.replace(CONFIG, judge=JudgeConfig(blocks=4, resamples=100, sizes=()))


def recorded(gains: dict[float, float], *, late_ns: int = 0, symbols: int = 1, fee: float = 0.0) -> Recorded:
    """Return a run that earned something at these seconds, a trade each in every symbol, from 1,000."""
    at = START + np.arange(SPAN_S + 1, dtype=np.int64) * NS_PER_S
    at[-1] += late_ns
    exits = START + (np.repeat(np.array(list(gains), float), symbols) * NS_PER_S).astype(np.int64)
    pnl = np.repeat(np.array(list(gains.values()), float), symbols)
    equity = 1_000.0 + (pnl[None, :] * (exits[None, :] <= at[:, None])).sum(axis=1)
    count, nothing = len(pnl), np.zeros(len(pnl))
    value = np.full(count, 100.0)
    trades = Trades(
        np.arange(count) % symbols, np.ones(count, np.int64), exits - NS_PER_S, exits, value, value,
        pnl + fee, *(nothing,) * 3, nothing + fee, nothing, pnl,
    )  # fmt: skip
    summary = {
        "venue": "v", "symbols": ["A"], "start": "", "end": "", "data_digest": "", "start_usdt": 1_000.0,
        "trades": count, "turnover_usdt": 200.0 * count, "pnl_usdt": float(pnl.sum()), "cancelled_usdt": 0.0,
        "max_drawdown_pct": 0.0, "trials": 2, "warnings": [],
    }  # fmt: skip
    return Recorded(Path("run"), at, equity, trades, summary)


def judged(*runs: Recorded, config: WalkForwardConfig = CONFIGURED) -> tuple[Plan, Judged]:
    kinds = ("base", *["tried"] * (len(runs) - 1))
    planned = tuple(Run(f"{kind}-{place}", kind, 7, config.backtest) for place, kind in enumerate(kinds))
    step = Step(0, START - NS_PER_S, START - 1, START, START + SPAN_S * NS_PER_S)
    plan = Plan(Path("archive"), config, ("A",), "cpu", (step,), planned, "")
    return plan, judge(plan, list(zip(planned, runs, strict=True)), None)


def winners(count: int) -> dict[float, float]:
    return {50.0 + 60 * place: 0.3 for place in range(count)}


def test_returns_reach_to_what_the_last_of_the_runs_has_booked_at_the_end():
    """A loss behind the last whole interval was lost, and one 3 ms behind the end of the first run."""
    runs = [
        recorded({40.0: 1.0, SPAN_S - 2.0: -9.0}),
        recorded({SPAN_S + 0.003: -5.0}, late_ns=4 * NS_PER_MS),
    ]
    for interval_s in (1, 10, 60, 300):
        found = returns_of(runs, interval_s)
        assert len(found) == SPAN_S // interval_s
        assert found.sum(axis=0) == pytest.approx([-8e-3, -5e-3])


def test_days_that_were_not_recorded_are_in_no_return_and_no_turnover_per_day():
    """The market of three quarters of an hour was one of two weeks, in which hardly anything was done."""
    whole = [recorded({**winners(40), 2_000.0: -3.0}), recorded({**winners(35), 2_900.0: -1.0})]
    apart = []
    for run in whole:
        time_ns = run.time_ns.copy()
        time_ns[1_500:] += 14 * 86_400 * NS_PER_S  # a second that was no hole is one now
        apart.append(replace(run, time_ns=time_ns))
    for interval_s in (1, 10, 60):
        found, expected = returns_of(apart, interval_s), returns_of(whole, interval_s)
        assert len(found) == (SPAN_S - 1) // interval_s
        assert found.sum(axis=0) == pytest.approx(expected.sum(axis=0))
    (_, found), (_, expected) = judged(*apart), judged(*whole)
    assert found.performance.interval_s == expected.performance.interval_s == 10
    assert found.turnover_per_day == pytest.approx(expected.turnover_per_day, rel=1e-3)
    assert found.performance.sharpe.value == pytest.approx(expected.performance.sharpe.value, rel=0.2)


def test_interval_of_the_result_is_around_the_result():
    """The base lost 60 in the last seconds; the interval was that of the time before, and above zero."""
    run = recorded({**winners(40), SPAN_S - 1.0: -60.0})
    _, found = judged(run, recorded(winners(35)))
    value, interval = found.pnl
    assert value == pytest.approx(12.0 - 60.0)
    assert interval.low < value < interval.high


def test_one_sample_is_no_time_and_no_turnover_per_day():
    run = recorded(winners(3))
    _, found = judged(replace(run, time_ns=run.time_ns[:1], equity_usdt=run.equity_usdt[:1]))
    answer = to_dict(found, CONFIGURED)
    assert [answer[name] for name in ("turnover_per_day", "sharpe", "deflated_sharpe")] == [None] * 3


@pytest.mark.parametrize("count", [0, 1, 3, OBSERVATIONS_MIN - 1])
def test_few_winners_are_no_skill_and_the_report_says_why(count, monkeypatch):
    """One winning trade: a deflated ratio of 0.963, and an interval as wide as nothing."""
    run = recorded(winners(count))
    plan, found = judged(run, recorded({**winners(count), 2_000.0: -0.1}))
    answer = to_dict(found, CONFIGURED)
    for name in (
        "pnl_low_usdt", "pnl_high_usdt", "sharpe_error", "deflated_sharpe", "deflated_sharpe_measured",
        "break_even_low_bps", "break_even_high_bps",
    ):  # fmt: skip
        assert answer[name] is None, name
    monkeypatch.setattr("gpuscalp.walkforward.figures.draw", lambda *_, **__: "")
    summary = {
        "warnings": [],
        "look_ahead": {"s": []},
        "look_ahead_unseen": {"s": []},
        "config_hash": "",
        "base": "",
    }
    for row in found.steps:
        row |= {"trained_until": "", "train_rows": 1, "held_out_ic": None}
    pooled = dict(sections(plan, found, run, summary)[0].tables[0].rows)
    why = f"not known: fewer than {OBSERVATIONS_MIN} trades held apart, or returns"
    assert pooled["… its 95 % interval (stationary bootstrap)"] == why
    assert pooled["Deflated Sharpe ratio, 1 trial(s)"] == why
    assert pooled["… with the variance measured between them"] == why


def test_symbols_that_trade_at_one_moment_are_no_more_sure_than_one():
    """Of 40 trades at four moments a step had a hit rate of "91 % to 100 %" and the run a deflated ratio."""
    gains = {100.0 + 600 * place: 0.3 for place in range(4)}
    _, found = judged(recorded(gains, symbols=10), recorded(winners(35)))
    answer = to_dict(found, CONFIGURED)
    assert answer["steps"][0]["trades"] == 40
    _, alone = judged(recorded(gains), recorded(winners(35)))
    assert answer["steps"][0]["hit_rate_low"] == alone.steps[0]["hit_rate_low"] < 0.6
    for name in ("pnl_low_usdt", "sharpe_error", "deflated_sharpe", "break_even_low_bps"):
        assert answer[name] is None, name


def test_fee_of_twenty_symbols_together_is_as_unsure_as_that_of_one():
    gains = {50.0 + 60 * place: gain for place, gain in enumerate(np.random.default_rng(4).normal(size=40))}
    (one, low), (same, also) = (
        break_even_bps(recorded(gains, symbols=symbols).trades, resamples=300, rng=np.random.default_rng(1))
        for symbols in (1, 20)
    )
    assert same == pytest.approx(one)
    assert (also.low, also.high) == pytest.approx((low.low, low.high))


def test_entries_that_rest_have_the_fee_they_paid_and_no_share_of_the_book(monkeypatch):
    """The taker fee was drawn as "the fee that was charged", and a rest whose time was over as no depth."""
    run = recorded(winners(40), fee=0.01)
    run.summary["cancelled_usdt"] = 4_000.0
    backtest = msgspec.structs.replace(CONFIGURED.backtest, orders=OrdersConfig(entry="post_only"))
    shown = []
    monkeypatch.setattr("gpuscalp.walkforward.figures.costs", lambda *told: shown.append(told) or "")
    for config, share in ((CONFIGURED.backtest, 1 / 3), (backtest, None)):
        planned = msgspec.structs.replace(CONFIGURED, backtest=config)
        plan, found = judged(run, config=planned)
        assert found.capacity[0]["cancelled_share"] == (share and pytest.approx(share))
        _costs(plan, found, run)
        fee_bps = shown[-1][-1]
        assert cost_table(run.trades, [fee_bps], [0.0])[0, 0] == pytest.approx(run.trades.pnl.sum())


def test_what_is_not_known_is_said_once_and_for_its_reason():
    """There was "not known ± not known: fewer than 30", and one configuration had too few trades."""
    run = recorded({})
    plan, found = judged(run)
    pooled = dict(_pooled(found, run, {"warnings": []}).tables[0].rows)
    assert pooled["Sharpe ratio per 10 s ± standard error"] == "not known: too few returns, or all alike"
    assert pooled["… with the variance measured between them"] == "not known: one configuration was tried"
    costs = _costs(plan, found, run)
    assert costs.paragraphs[-1] == "There is no trade, so no fee at which they would earn nothing."


def test_enough_trades_are_judged():
    _, found = judged(recorded(winners(OBSERVATIONS_MIN)), recorded(winners(35)))
    answer = to_dict(found, CONFIGURED)
    assert answer["pnl_low_usdt"] < answer["pnl_usdt"] < answer["pnl_high_usdt"]
    assert answer["sharpe_error"] > 0
    assert answer["deflated_sharpe"] > 0.9
    assert answer["break_even_low_bps"] is not None


@pytest.mark.parametrize("gains", [{}, winners(40)])
def test_settings_that_make_no_difference_have_no_probability_of_overfitting(gains):
    """It was 1.000: overfit for sure, where nothing could be chosen."""
    _, found = judged(*(recorded(gains) for _ in range(3)))
    assert found.overfitting is None
    assert "all configurations did the same" in found.no_overfitting
    assert to_dict(found, CONFIGURED)["overfitting"] is None


def test_recorded_runs_of_few_trades_say_why_nothing_is_known(monkeypatch):
    runs = {"few": recorded(winners(3)), "many": recorded(winners(40))}
    monkeypatch.setattr("gpuscalp.walkforward.recorded.read_run", lambda path: runs[str(path)])
    answer = compare_runs([Path("few"), Path("many")], blocks=4)
    few, many = answer["runs"]
    assert few["sharpe"] > 0
    assert few["deflated_sharpe"] is None
    assert many["deflated_sharpe"] > 0.9
    (warning,) = answer["warnings"]
    assert warning.startswith("few closed 3 trade(s)")


def test_steps_share_the_profit_of_the_time_and_the_last_has_what_is_closed_behind_it():
    """Ten trades won, five broke even; one was entered in the first step and left in the second."""
    gains = {100.0 + 200 * place: 0.0 if place % 3 == 2 else 0.3 for place in range(15)}
    run = recorded({**gains, SPAN_S + 0.5: -2.0}, late_ns=NS_PER_S, fee=0.01)
    config = CONFIGURED.backtest
    planned = Run("base", "base", 7, config)
    border = START + 1_499 * NS_PER_S  # the trade that ends at 1,500 s was entered at it
    ends = (START, border, START + SPAN_S * NS_PER_S)
    steps = tuple(Step(place, 0, 0, ends[place], ends[place + 1]) for place in (0, 1))
    plan = Plan(Path("archive"), CONFIGURED, ("A",), "cpu", steps, (planned, planned), "")
    first, second = judge(plan, [(planned, run), (planned, recorded(gains))], None).steps
    assert (first["step"], first["trades"], second["step"], second["trades"]) == (1, 8, 2, 8)
    # By equity what the border cuts through is the second step's; by trades it is the first one's.
    assert first["pnl_usdt"] == pytest.approx(5 * 0.3)
    assert second["pnl_usdt"] == pytest.approx(5 * 0.3 - 2.0)
    assert (first["hit_rate"], second["hit_rate"]) == (6 / 8, 4 / 8)
    assert first["fees_usdt"] == pytest.approx(0.08)
    assert first["gross_usdt"] == pytest.approx(6 * 0.3 + 0.08)


def test_size_is_told_by_what_its_orders_turned_over():
    run = recorded(winners(4))
    cost = np.full(4, -0.04)
    trades = replace(run.trades, spread=cost, impact=2 * cost)
    run = replace(run, trades=trades, summary={**run.summary, "cancelled_usdt": 200.0})
    planned = [
        Run("base", "base", 7, CONFIGURED.backtest),
        Run("size-x2", "size", 7, CONFIGURED.backtest, 2.0),
    ]
    step = Step(0, START - NS_PER_S, START - 1, START, START + SPAN_S * NS_PER_S)
    plan = Plan(Path("archive"), CONFIGURED, ("A",), "cpu", (step,), tuple(planned), "")
    base, larger = judge(plan, [(each, run) for each in planned], None).capacity
    assert (base["size"], larger["size"]) == (1.0, 2.0)
    # Of 800: 1.2 earned, 0.16 of spread, 0.32 of impact; 200 of 1,000 found no book.
    assert larger["pnl_bps"] == pytest.approx(15.0)
    assert (larger["spread_bps"], larger["impact_bps"]) == (pytest.approx(-2.0), pytest.approx(-4.0))
    assert larger["cancelled_share"] == pytest.approx(0.2)


def test_deflation_is_that_of_the_paper_over_the_ratios_of_all_that_was_tried():
    """By plain sums: what does not trade counts as a ratio of zero, and more money is not another trial."""
    rng = np.random.default_rng(3)
    base, other = (
        recorded({35.0 + 60 * place: gain for place, gain in enumerate(rng.normal(mean, 1.0, 45))}, fee=0.01)
        for mean in (0.4, 0.1)
    )
    config = msgspec.structs.replace(CONFIGURED.backtest, trials=9)
    planned = [
        Run(name, kind, seed, config, size)
        for name, kind, seed, size in (
            ("base", "base", 7, 1.0), ("b", "tried", 8, 1.0), ("c", "tried", 9, 1.0), ("x", "size", 7, 3.0),
        )
    ]  # fmt: skip
    step = Step(0, START - NS_PER_S, START - 1, START, START + SPAN_S * NS_PER_S)
    plan = Plan(Path("archive"), CONFIGURED, ("A",), "cpu", (step,), tuple(planned), "")
    runs = [base, other, recorded({}), recorded({100.0: -50.0})]
    random = RandomEntries(9.0, np.array([1.0, 2.0, 6.0]), 4.0, 1.0, Interval(1.05, 5.8), 0.25, 44, 1)
    found = judge(plan, list(zip(planned, runs, strict=True)), random)

    def returns(run: Recorded) -> list[float]:
        at = [*run.equity_usdt[:SPAN_S:10].tolist()[:310], float(run.equity_usdt[-1])]
        return [(later - earlier) / 1_000.0 for earlier, later in pairwise(at)]

    def deflated(variance: float) -> float:
        sample, normal = returns(base), statistics.NormalDist()
        count, mean = len(sample), statistics.fmean(sample)
        second, third, fourth = (statistics.fmean((x - mean) ** k for x in sample) for k in (2, 3, 4))
        skew, kurtosis = third / second**1.5, fourth / second**2
        ratio = mean / statistics.stdev(sample)
        luck = math.sqrt(variance) * (
            (1 - 0.5772156649) * normal.inv_cdf(1 - 1 / 9)
            + 0.5772156649 * normal.inv_cdf(1 - 1 / (9 * math.e))
        )
        scale = math.sqrt(1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2)
        return normal.cdf((ratio - luck) * math.sqrt(count - 1) / scale)

    ratios = [statistics.fmean(sample) / statistics.stdev(sample) for sample in map(returns, (base, other))]
    assert len(returns(base)) == 310
    assert found.deflated_measured == pytest.approx(deflated(statistics.variance([*ratios, 0.0])), rel=1e-9)
    two = judge(plan, list(zip(planned[:2], runs[:2], strict=True)), None)
    assert two.deflated_measured == pytest.approx(deflated(statistics.variance(ratios)), rel=1e-9)
    assert found.performance.deflated == pytest.approx(deflated(1 / 309), rel=1e-9)
    assert 0.01 < found.performance.deflated < 0.99
    assert 0.01 < found.deflated_measured < 0.99
    assert [(row["name"], row["seed"]) for row in found.runs] == [("base", 7), ("b", 8), ("c", 9)]
    assert [row["sharpe"] for row in found.runs] == pytest.approx([*ratios, 0.0])
    assert [row["size"] for row in found.capacity] == [1.0, 3.0]
    answer = to_dict(found, CONFIGURED)
    chosen = answer["overfitting"]["chosen"]
    assert sum(chosen.values()) == answer["overfitting"]["combinations"] == 6
    assert set(chosen) <= {"base", "b", "c"}
    assert answer["random_entries"]["mean_usdt"] == 3.0
    # Costs by hand: two ways of 100, at each fee and slippage anew.
    earned = math.fsum(base.trades.pnl.tolist()) + 45 * 0.01
    assert [row["pnl_usdt"] for row in answer["cost_sensitivity"]] == pytest.approx(
        [
            earned - 45 * 200.0 * (fee + slippage) / 1e4
            for fee in CONFIGURED.judge.fees_bps
            for slippage in CONFIGURED.judge.slippages_bps
        ]
    )


def test_fee_that_eats_the_profit_and_turnover_of_a_day_are_those_of_all_trades():
    """Four trades of 200 both ways that won 0.4 each before fees, in 3,107 s, with 1,000."""
    _, found = judged(recorded(winners(4), fee=0.1), recorded(winners(3)))
    assert found.break_even_bps[0] == pytest.approx(1e4 * 1.6 / 800)
    assert found.turnover_per_day == pytest.approx(0.8 * 86_400 / 3_107, rel=1e-3)
