"""Estimators against SciPy, against simulation, and at their edges."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from gpuscalp.stats import (
    OBSERVATIONS_MIN,
    Sharpe,
    annual_factor,
    block_bootstrap,
    block_indices,
    block_length,
    deflated_sharpe,
    expected_best_sharpe,
    held_apart,
    sharpe,
    stationary_bootstrap,
    stationary_indices,
    wilson,
)


def test_sharpe_moments_are_those_of_scipy(rng: np.random.Generator) -> None:
    returns = rng.standard_t(5, size=500) + 0.1
    found = sharpe(returns)
    assert found.value == pytest.approx(returns.mean() / returns.std(ddof=1), rel=1e-12)
    assert found.skew == pytest.approx(reference.skew(returns), rel=1e-9)
    assert found.kurtosis == pytest.approx(reference.kurtosis(returns, fisher=False), rel=1e-9)


def test_sharpe_error_is_the_spread_of_estimates_over_samples(rng: np.random.Generator) -> None:
    # A skewed law: here Lo's error for normal returns is wrong and Mertens' is right.
    samples = rng.exponential(size=(4_000, 400)) - 0.5
    values = [sharpe(row) for row in samples]
    spread = np.std([value.value for value in values])
    assert np.mean([value.error for value in values]) == pytest.approx(spread, rel=0.06)
    lo = [math.sqrt((1 + 0.5 * value.value**2) / value.count) for value in values]
    assert abs(np.mean(lo) / spread - 1) > 0.2


def test_sharpe_error_is_lo_s_for_normal_moments() -> None:
    value, count = 0.3, 100
    lo = math.sqrt((1 + 0.5 * value**2) / count)
    returns = reference.norm.ppf((np.arange(20_000) + 0.5) / 20_000) + value
    assert sharpe(returns).error == pytest.approx(lo * math.sqrt(count / 20_000), rel=2e-3)


def test_sharpe_error_of_four_returns_by_hand() -> None:
    # Mean 1, deviation √(4/3) with n − 1, moments of the sample: skew 0, kurtosis 1; and it is divided by n.
    found = sharpe(np.array([0.0, 0.0, 2.0, 2.0]))
    assert found.value == pytest.approx(math.sqrt(0.75))
    assert found.error == pytest.approx(math.sqrt((1 + 0.5 * 0.75 + 0.25 * (1 - 3) * 0.75) / 4))


@pytest.mark.parametrize("returns", [[], [1.0], [0.0, 0.0, 0.0], [0.1] * 7])  # the last: 7e15 until now
def test_sharpe_of_nothing_is_not_known(returns: list[float]) -> None:
    found = sharpe(np.array(returns))
    assert not found.known
    assert math.isnan(deflated_sharpe(found, trials=3))


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), max_size=7))
def test_groups_are_as_many_as_trades_of_which_no_two_are_held_at_once(held):
    spans = sorted(((entry, entry + length) for entry, length in held), key=lambda span: span[1])
    begins = held_apart(*np.array(spans, np.int64).reshape(-1, 2).T).tolist()

    def apart(chosen):
        return all(one[1] <= two[0] for one, two in pairwise(sorted(chosen)))

    chosen = [
        [span for place, span in enumerate(spans) if mask >> place & 1] for mask in range(1 << len(spans))
    ]
    assert len(begins) == max(len(each) for each in chosen if apart(each))
    assert apart([spans[place] for place in begins])
    for first, last in pairwise([*begins, len(spans)]):
        # Just before the first one is left all of the group are held.
        assert all(entry < spans[first][1] <= left for entry, left in spans[first:last])


@pytest.mark.parametrize("results", [0, 1, OBSERVATIONS_MIN - 1])
def test_few_results_have_a_ratio_and_no_error(results: int) -> None:
    """Of 2,000 returns one is not zero: the error was as small as that of 2,000 results."""
    returns = np.zeros(2_000)
    returns[:30] = np.linspace(0.9, 1.1, 30)
    plain, few = sharpe(returns), sharpe(returns, results=results)
    assert sharpe(returns, results=OBSERVATIONS_MIN) == plain
    assert (few.value, few.count, few.skew) == (plain.value, plain.count, plain.skew)
    assert math.isnan(few.error)
    assert math.isnan(deflated_sharpe(few, trials=1))
    assert math.isnan(deflated_sharpe(few, trials=9, variance=1e-4))
    assert not sharpe(returns[: OBSERVATIONS_MIN - 1], results=1_000).known


def test_from_the_fewest_results_on_luck_hardly_passes_for_skill() -> None:
    """Half of single trades are won: with one of them every second deflated ratio was above 0.95."""
    worlds, width = 250, 1.959964
    held = ratio_held = lucky = 0
    for seed in range(worlds):
        rng = np.random.default_rng(seed)
        trades = rng.normal(size=OBSERVATIONS_MIN)
        returns = np.concatenate([trades, np.zeros(1_000)])
        found = block_bootstrap(trades, lambda x: float(x.sum()), block=3, rng=rng, resamples=100)
        estimate = sharpe(returns, results=len(trades))
        held += found.low <= 0 <= found.high
        ratio_held += abs(estimate.value) <= width * estimate.error
        lucky += deflated_sharpe(estimate, trials=1) > 0.95
    # Two standard errors of such a share are 4 points.
    assert held > (0.9 - 0.04) * worlds
    assert ratio_held > (0.9 - 0.04) * worlds
    assert lucky < (0.1 + 0.04) * worlds


def test_deflated_sharpe_of_one_trial_is_the_probabilistic_ratio() -> None:
    estimate = Sharpe(0.1, 0.05, 250, -0.5, 5.0)
    scale = math.sqrt(1 + 0.5 * 0.1 + (5.0 - 1) / 4 * 0.01)
    assert deflated_sharpe(estimate, trials=1) == pytest.approx(
        reference.norm.cdf(0.1 * math.sqrt(249) / scale), rel=1e-12
    )


def test_deflated_sharpe_matches_the_published_example() -> None:
    # Bailey and López de Prado (2014), numerical example: N = 100 trials, annual variance of trials 1/2, 1250
    # daily returns, annual ratio 2.5, skew −3, kurtosis 10 → SR₀ = 0.1132 a day, DSR = 0.9004. Their variance
    # is not ours, so the bracket is compared with SR₀ and the rest with their SR₀ put in.
    bracket = expected_best_sharpe(100, 1250) * math.sqrt(1249)
    assert bracket * math.sqrt(1 / (2 * 250)) == pytest.approx(0.1132, abs=5e-5)
    daily = 2.5 / math.sqrt(250)
    shifted = (daily - 0.1132) * math.sqrt(1249) / math.sqrt(1 + 3 * daily + (10 - 1) / 4 * daily**2)
    assert reference.norm.cdf(shifted) == pytest.approx(0.9004, abs=2e-3)


def test_best_of_many_lucky_trials_is_as_large_as_expected(rng: np.random.Generator) -> None:
    trials, count = 50, 200
    best = [max(row.mean(axis=1) / row.std(axis=1, ddof=1)) for row in rng.normal(size=(600, trials, count))]
    assert np.mean(best) == pytest.approx(expected_best_sharpe(trials, count), rel=0.03)


@given(st.integers(1, 10_000), st.integers(2, 10_000))
def test_more_trials_never_raise_the_deflated_ratio(trials: int, count: int) -> None:
    estimate = Sharpe(0.05, 0.1, count, 0.2, 4.0)
    assert deflated_sharpe(estimate, trials=trials + 1) <= deflated_sharpe(estimate, trials=trials)


@given(st.integers(0, 200), st.integers(0, 200))
def test_wilson_is_scipy_s(hits: int, misses: int) -> None:
    count = hits + misses
    found = wilson(hits, count)
    assert 0 <= found.low <= found.high <= 1
    if count:
        exact = reference.binomtest(hits, count).proportion_ci(method="wilson")
        assert found.low == pytest.approx(exact.low, abs=1e-12)
        assert found.high == pytest.approx(exact.high, abs=1e-12)
        assert found.low <= hits / count <= found.high


def test_short_samples_are_not_annualised() -> None:
    assert annual_factor(60.0, 19.9 * 86_400) is None
    assert annual_factor(86_400.0, 30 * 86_400) == pytest.approx(math.sqrt(365))


@given(st.integers(1, 300), st.integers(1, 400), st.integers(0, 1_000))
def test_block_resample_is_made_of_runs(count: int, block: int, seed: int) -> None:
    index = block_indices(count, block, np.random.default_rng(seed))
    assert len(index) == count
    assert index.min() >= 0
    assert index.max() < count
    length = min(block, count)
    for start in range(0, count, length):
        run = index[start : start + length]
        assert (np.diff(run) == 1).all()


def test_block_bootstrap_is_wider_than_the_naive_one_when_neighbours_depend(rng: np.random.Generator) -> None:
    noise = rng.normal(size=4_000)
    sample = np.convolve(noise, np.ones(40), mode="valid")
    width = {}
    for block in (1, 200):
        found = block_bootstrap(sample, lambda x: float(np.mean(x)), block=block, rng=rng, resamples=300)
        width[block] = found.high - found.low
    # The mean of a sum of 40 has √40 times the error of as many independent values.
    assert 3 < width[200] / width[1] < 9


@pytest.mark.parametrize("count", [0, 1, OBSERVATIONS_MIN - 1])
def test_bootstrap_of_nothing_or_little_is_not_known(count: int, rng: np.random.Generator) -> None:
    """One value gave an interval without width."""
    sample = np.linspace(0.0, 1.0, OBSERVATIONS_MIN)
    for found in (
        block_bootstrap(sample[:count], np.mean, block=3, rng=rng),
        stationary_bootstrap(sample[:count], np.mean, rng=rng),
    ):
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    assert block_bootstrap(sample, np.mean, block=3, rng=rng).low < 0.5
    assert stationary_bootstrap(sample, np.mean, rng=rng).low < 0.5


def test_deflated_sharpe_with_a_measured_variance_is_the_published_one() -> None:
    # The example above with its own variance of the trials put in: 1/2 a year is 1/500 a day.
    estimate = Sharpe(2.5 / math.sqrt(250), 0.03, 1_250, -3.0, 10.0)
    assert deflated_sharpe(estimate, trials=100, variance=1 / 500) == pytest.approx(0.9004, abs=5e-5)


def _dependent(count: int, weight: float, rng: np.random.Generator) -> np.ndarray:
    """Return an autoregression of first order with mean zero, from its stationary law."""
    noise = rng.normal(size=count)
    noise[0] /= math.sqrt(1 - weight**2)
    for at in range(1, count):
        noise[at] += weight * noise[at - 1]
    return noise


def _chaos(count: int, weight: float) -> np.ndarray:
    """Return a series that needs no generator: a filtered logistic map."""
    out, value, last = [], 0.3, 0.0
    for _ in range(count):
        value = 3.99 * value * (1 - value)
        last = weight * last + (value - 0.5)
        out.append(last)
    return np.array(out)


def test_block_length_is_that_of_arch_where_both_take_all_lags() -> None:
    # arch 8.0.0: optimal_block_length(x)["stationary"]. With fewer lags both differ: arch counts its m from
    # the first lag without correlation, and we, with the papers, from the last one with it.
    x = _chaos(400, 0.6)
    assert block_length(np.cumsum(x) * 0.05 + x) == pytest.approx(32.619949, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.8])
def test_block_length_agrees_with_the_formula_in_loops(weight: float, rng: np.random.Generator) -> None:
    x = _dependent(300, weight, rng).tolist()
    count, mean = len(x), sum(x) / len(x)

    def covariance(lag: int) -> float:
        return sum((x[at] - mean) * (x[at + lag] - mean) for at in range(count - lag)) / count

    bound = 2 * math.sqrt(math.log10(count) / count)
    rho = [covariance(lag) / covariance(0) for lag in range(23 + 5)]
    quiet = next(m for m in range(23) if all(abs(rho[m + k]) < bound for k in range(1, 6)))
    reach = 2 * max(quiet, 1)
    slope = total = 0.0
    for lag in range(-reach, reach + 1):
        flat = 1.0 if abs(lag) / reach <= 0.5 else 2 * (1 - abs(lag) / reach)
        slope += flat * abs(lag) * covariance(abs(lag))
        total += flat * covariance(abs(lag))
    expected = (2 * slope**2 / (2 * total**2)) ** (1 / 3) * count ** (1 / 3)
    assert block_length(np.array(x)) == pytest.approx(max(expected, 1.0), rel=1e-9)


def test_stationary_indices_run_on_round_the_end_and_break_as_often_as_asked(
    rng: np.random.Generator,
) -> None:
    draws = np.array([stationary_indices(50, 5.0, rng) for _ in range(2_000)])
    goes_on = (draws[:, 1:] - draws[:, :-1]) % 50 == 1
    # A break lands on the next index by chance once in fifty.
    assert goes_on.mean() == pytest.approx(1 - 0.2 * 49 / 50, abs=0.01)
    assert np.bincount(draws.ravel(), minlength=50).std() / 2_000 < 0.1
    assert draws.min() == 0
    assert draws.max() == 49


def test_stationary_bootstrap_covers_what_independent_resampling_misses() -> None:
    worlds = 200
    covered = {"blocks": 0, "independent": 0}
    for seed in range(worlds):
        rng = np.random.default_rng(seed)
        sample = _dependent(400, 0.6, rng)
        for name, length in (("blocks", None), ("independent", 1.0)):
            found = stationary_bootstrap(
                sample, lambda x: float(x.mean()), rng=rng, length=length, resamples=200
            )
            covered[name] += found.low <= 0 <= found.high
    assert 0.88 * worlds <= covered["blocks"] <= 0.99 * worlds
    assert covered["independent"] < 0.8 * worlds


def test_stationary_bootstrap_of_nothing_is_not_known(rng: np.random.Generator) -> None:
    found = stationary_bootstrap(np.empty(0), lambda x: float(x.sum()), rng=rng)
    assert math.isnan(found.low)
    assert block_length(np.ones(50)) == block_length(np.empty(0)) == 1.0
