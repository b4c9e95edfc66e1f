"""What a sample of returns says and how surely: Sharpe ratio with error, its deflation, intervals.

Owns: estimators over plain arrays. Never: reads trades, draws, or rounds. SciPy is not needed: the normal
distribution is in the standard library.

Sources: Lo (2002), "The Statistics of Sharpe Ratios"; Mertens (2002), comment on Lo's variance; Bailey and
López de Prado (2012, 2014), probabilistic and deflated Sharpe ratio; Wilson (1927); Künsch (1989), moving
blocks; Politis and Romano (1994), stationary blocks; Politis and White (2004) with the correction of Patton,
Politis and White (2009), their length. The package ``arch`` has the last two as well; it would bring pandas
and statsmodels (150 MB) for thirty lines. tests/test_stats.py compares with what it gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from gpuscalp.schema import F64, I64

_NORMAL: Final = NormalDist()
EULER_GAMMA: Final = 0.5772156649015329
_MASS: Final = 0.95  # of every interval
_TAILS: Final = ((1 - _MASS) / 2, (1 + _MASS) / 2)

# Below this many days an annual figure would be extrapolation, not description.
MIN_DAYS_TO_ANNUALISE: Final = 20.0
SECONDS_PER_YEAR: Final = 365.0 * 86_400.0
# Of fewer independent results nothing is said about how sure a figure is. Chosen by simulation (2026-11,
# 2,000 worlds each, none with skill): results that are normal, Student t with 3 degrees, even bets, and four
# of five small gains with losses four times the size. How often the block bootstrap of the mean and the ratio
# with 1.96 errors held the truth (95 % are promised), and how often the deflated ratio of one trial was above
# 0.95 (5 % would be right), from the kindest law to the least kind:
#     results     interval holds     ratio above 0.95
#        3          75 … 40 %            12 … 52 %
#       10          90 … 82 %             7 … 14 %
#       20          94 … 86 %             5 … 11 %
#       30          95 … 88 %             5 … 9 %
#       50          96 … 90 %             5 … 8 %
# From 30 on nine of ten intervals hold, and luck passes for skill less than twice as often as it should.
OBSERVATIONS_MIN: Final = 30


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


UNKNOWN: Final = Interval(math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Sharpe:
    """Sharpe ratio of one sample, per sampling interval, against a benchmark of zero.

    Attributes
    ----------
    value : mean / standard deviation (n − 1); NaN for fewer than two or for constant returns
    error : standard error, Mertens (2002): √((1 + ½SR² − γ₃SR + ¼(γ₄ − 3)SR²) / n); with γ₃ = 0, γ₄ = 3 this
        is Lo (2002) for independent normal returns; NaN where too few results are behind the returns
    count : n
    skew, kurtosis : γ₃ and γ₄ (3 for the normal), moments of the sample
    """

    value: float
    error: float
    count: int
    skew: float
    kurtosis: float

    @property
    def known(self) -> bool:
        return math.isfinite(self.value) and math.isfinite(self.error)


def sharpe(returns: F64, *, results: int | None = None) -> Sharpe:
    """Estimate a Sharpe ratio with its standard error.

    Parameters
    ----------
    returns : float64[n]  one per sampling interval, over the whole time (also where nothing was held)
    results : independent ones that the returns are made of, such as trades held apart: of 200 returns 199
        may be zeros. Errors are not known where these or the returns are below ``OBSERVATIONS_MIN``; None
        asks for them whatever there is
    """
    count = len(returns)
    # By their range: the mean of equal numbers is rounded, and their deviation from it is not zero.
    varied = count >= 2 and float(np.ptp(returns)) > 0
    deviation = float(np.std(returns, ddof=1)) if varied else 0.0
    if not deviation > 0:
        return Sharpe(math.nan, math.nan, count, math.nan, math.nan)
    mean = float(np.mean(returns))
    standard = (returns - mean) / float(np.std(returns))
    skew, kurtosis = float(np.mean(standard**3)), float(np.mean(standard**4))
    value = mean / deviation
    variance = 1 + 0.5 * value**2 - skew * value + 0.25 * (kurtosis - 3) * value**2
    few = results is not None and min(results, count) < OBSERVATIONS_MIN
    return Sharpe(
        value=value,
        error=math.nan if few else math.sqrt(max(variance, 0.0) / count),
        count=count,
        skew=skew,
        kurtosis=kurtosis,
    )


def annual_factor(interval_s: float, span_s: float) -> float | None:
    """Return √(intervals per year), or None where the sample spans too few days for an annual figure.

    The factor is that of independent returns; under autocorrelation it misstates the annual ratio
    (Lo 2002, section on time aggregation).
    """
    if span_s < MIN_DAYS_TO_ANNUALISE * 86_400:
        return None
    return math.sqrt(SECONDS_PER_YEAR / interval_s)


def expected_best_sharpe(trials: int, count: int, variance: float | None = None) -> float:
    """Return the Sharpe ratio that the best of ``trials`` skill-less strategies shows on ``count`` returns.

    Bailey and López de Prado (2014), false strategy theorem:
    √V · ((1 − γ)·Z⁻¹(1 − 1/N) + γ·Z⁻¹(1 − 1/(N·e))).
    Where the variance V between trials is not given (only their number is known) it is taken to be that of
    the estimate for a strategy without skill, 1/(count − 1), which holds for independent trials. Trials that
    resemble each other deserve less deflation, trials with wilder returns more.
    """
    if trials <= 1 or count < 2:
        return 0.0
    high = _NORMAL.inv_cdf(1 - 1 / trials)
    higher = _NORMAL.inv_cdf(1 - 1 / (trials * math.e))
    deviation = 1 / math.sqrt(count - 1) if variance is None else math.sqrt(variance)
    return ((1 - EULER_GAMMA) * high + EULER_GAMMA * higher) * deviation


def deflated_sharpe(estimate: Sharpe, *, trials: int, variance: float | None = None) -> float:
    """Return the probability that the true Sharpe ratio is above what luck gives the best of ``trials``.

    Bailey and López de Prado (2014): Φ((SR − SR₀)·√(n − 1) / √(1 − γ₃SR + ¼(γ₄ − 1)SR²)), SR per sampling
    interval. With one trial it is the probabilistic Sharpe ratio against zero (2012). NaN where the ratio or
    its error is not known. ``variance`` is that of the ratios of the trials, where they were measured.
    """
    if not estimate.known:
        return math.nan
    value = estimate.value
    scale = 1 - estimate.skew * value + 0.25 * (estimate.kurtosis - 1) * value**2
    if not scale > 0:
        return math.nan
    benchmark = expected_best_sharpe(trials, estimate.count, variance)
    return _NORMAL.cdf((value - benchmark) * math.sqrt(estimate.count - 1) / math.sqrt(scale))


def held_apart(entry_ns: I64, exit_ns: I64) -> I64:
    """Return int64[K]: the places of the trades that begin a group, of n trades in the order of their exits.

    Trades held at one moment share what the market does then, and say together little more than one. A group
    is a trade and all behind it that were entered before it was left. K is the most trades of which no two
    were held at the same time; the trades of one symbol, which follow each other, are n groups.

    How often 95 % intervals held the truth (150 worlds each, none with skill, 2026-11): 300 trades of one
    symbol; 20 symbols whose results correlate by 0.7, 100 times within 2 s, each held for 5 s:

                                  by trade       by group      by blocks of time
        mean, 1 and 20          0.91   0.79     0.93   0.89       0.91   0.89
        hit rate, 1 and 20      0.94   0.44     0.94   0.99       0.95   0.90

    Blocks of time fail where nearly all trades win (96 % of 40: 0.80), and know nothing of few. Groups of
    equal entry times miss symbols that follow each other within a second (hit rate of the 20: 0.53).
    """
    begins, until = [], -(1 << 63)
    for place, (entry, left) in enumerate(zip(entry_ns.tolist(), exit_ns.tolist(), strict=True)):
        if entry >= until:
            begins.append(place)
            until = left
    return np.array(begins, np.int64)


def wilson(hits: int, count: int, *, results: int | None = None) -> Interval:
    """Return Wilson's (1927) 95 % score interval for a share; (0, 1) where nothing was observed.

    ``results`` are the independent ones among what was counted, where that is less than all.
    """
    assert 0 <= hits <= count
    if count == 0:
        return Interval(0.0, 1.0)
    z = _NORMAL.inv_cdf(0.5 + _MASS / 2)
    share = hits / count
    n = count if results is None else results
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and at all hits the bound is exact; only the last bit of the square root says otherwise.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == count else min(1.0, centre + half)
    return Interval(low, high)


def block_indices(count: int, block: int, rng: np.random.Generator) -> I64:
    """Return one moving-block resample: int64[count] indices made of random runs of length ``block``.

    Künsch (1989). Every start in 0 … count − block is equally likely; the last run is cut to length.
    """
    block = max(1, min(block, count))
    runs = -(-count // block)
    starts = rng.integers(0, count - block + 1, size=runs)
    return (starts[:, None] + np.arange(block)).reshape(-1)[:count].astype(np.int64)


def block_bootstrap(
    sample: F64,
    statistic: Callable[[F64], float],
    *,
    block: int,
    rng: np.random.Generator,
    resamples: int = 1_000,
) -> Interval:
    """Return the 95 % percentile interval of a statistic under moving-block resampling.

    Parameters
    ----------
    sample : float64[n, ...]  resampled along the first axis; neighbours may depend on each other
    statistic : of one resample; resamples where it is NaN are left out
    block : length of a run; at least the reach of the dependence

    Returns
    -------
    Interval                  NaN below ``OBSERVATIONS_MIN`` or where the statistic is never known
    """
    if len(sample) < OBSERVATIONS_MIN:
        return UNKNOWN
    values = np.array([statistic(sample[block_indices(len(sample), block, rng)]) for _ in range(resamples)])
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return UNKNOWN
    low, high = np.quantile(values, _TAILS)
    return Interval(float(low), float(high))


def block_length(sample: F64) -> float:
    """Return the mean length of stationary blocks that suits the dependence within a sample, at least 1.

    Politis and White (2004), corrected by Patton, Politis and White (2009): b = (2G²/D)^⅓ · n^⅓ with
    G = Σ λ(k/M)·|k|·R(k), D = 2(Σ λ(k/M)·R(k))² over −M … M, the flat-top λ, R the autocovariance, and M
    twice the lag behind which K = max(5, √log₁₀n) autocorrelations in a row are below 2·√(log₁₀n / n). Not
    above min(3√n, n/3).

    Parameters
    ----------
    sample : float64[n]  in the order of time
    """
    count = len(sample)
    if count < 10 or not float(np.ptp(sample)) > 0:
        return 1.0
    centred = sample - np.mean(sample)
    run = max(5, round(math.sqrt(math.log10(count))))
    last = min(math.ceil(math.sqrt(count)) + run, count - 1)
    covariance = np.array([centred[lag:] @ centred[: count - lag] for lag in range(last + 1)]) / count
    small = np.abs(covariance / covariance[0]) < 2 * math.sqrt(math.log10(count) / count)
    quiet = (lag for lag in range(last - run + 1) if small[lag + 1 : lag + run + 1].all())
    reach = min(2 * max(next(quiet, last), 1), last)
    lag = np.arange(1, reach + 1)
    weight = np.minimum(1.0, 2 * (1 - lag / reach)) * covariance[1 : reach + 1]
    spectrum = covariance[0] + 2 * weight.sum()
    largest = math.ceil(min(3 * math.sqrt(count), count / 3))
    if spectrum == 0:
        return float(largest)
    slope = 2 * float((lag * weight).sum())
    return float(np.clip((slope * slope / (spectrum * spectrum) * count) ** (1 / 3), 1.0, largest))


def stationary_indices(count: int, length: float, rng: np.random.Generator) -> I64:
    """Return one stationary resample: int64[count] indices of runs of geometric length, round the end.

    Politis and Romano (1994): a new run begins with the probability 1/length, anywhere.
    """
    begins = rng.random(count) * length < 1.0
    begins[:1] = True
    run = np.cumsum(begins) - 1
    starts = rng.integers(0, count, size=int(begins.sum()))
    at = np.arange(count)
    return np.asarray((starts[run] + at - np.flatnonzero(begins)[run]) % count, np.int64)


def stationary_bootstrap(
    sample: F64,
    statistic: Callable[[F64], float],
    *,
    rng: np.random.Generator,
    length: float | None = None,
    resamples: int = 1_000,
) -> Interval:
    """Return the basic (reflected) 95 % interval of a statistic under stationary resampling.

    Basic: what the resamples differ from the sample is laid around the sample's value the other way round
    (Davison and Hinkley 1997, section 5.2).

    Parameters
    ----------
    sample : float64[n]  in the order of time
    statistic : of one resample; resamples where it is NaN are left out
    length : mean length of a run; None chooses it (``block_length``)

    Returns
    -------
    Interval             NaN below ``OBSERVATIONS_MIN`` or where the statistic is not known
    """
    if len(sample) < OBSERVATIONS_MIN:
        return UNKNOWN
    mean_length = block_length(sample) if length is None else length
    draws = (stationary_indices(len(sample), mean_length, rng) for _ in range(resamples))
    values = np.array([statistic(sample[draw]) for draw in draws])
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return UNKNOWN
    low, high = np.quantile(values, _TAILS)
    found = statistic(sample)
    return Interval(float(2 * found - high), float(2 * found - low))
