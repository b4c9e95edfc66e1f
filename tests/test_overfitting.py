"""Cross-validation over configurations: by hand, on noise, and where one is truly better."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest

from gpuscalp.errors import DataError
from gpuscalp.overfitting import backtest_overfitting


def _by_hand(
    table: list[list[float]], blocks: int
) -> tuple[float, list[float], list[int], list[tuple[float, float]]]:
    """Return probability, logits, choices and their ratios inside and outside with loops over plain lists."""
    size, table = len(table) // blocks, table[len(table) % blocks :]
    names = range(len(table[0]))

    def ratio(which: list[int], name: int) -> float:
        rows = [table[block * size + row][name] for block in which for row in range(size)]
        deviation = statistics.stdev(rows)
        return statistics.fmean(rows) / deviation if deviation > 0 else 0.0

    logits, choices, ratios = [], [], []
    for inside in itertools.combinations(range(blocks), blocks // 2):
        outside = [block for block in range(blocks) if block not in inside]
        best = max(names, key=lambda name: ratio(list(inside), name))
        found = [ratio(outside, name) for name in names]
        rank = statistics.fmean(
            place for place, each in enumerate(sorted(found), start=1) if each == found[best]
        )
        share = rank / (len(found) + 1)
        logits.append(math.log(share / (1 - share)))
        choices.append(best)
        ratios.append((ratio(list(inside), best), found[best]))
    worse = [0.5 if abs(logit) < 1e-12 else float(logit < 0) for logit in logits]
    return statistics.fmean(worse), logits, choices, ratios


@pytest.mark.parametrize(("length", "count", "blocks"), [(16, 3, 4), (30, 4, 6), (27, 2, 4), (13, 3, 2)])
def test_cross_validation_agrees_with_loops(length, count, blocks, rng):
    returns = rng.normal(0.2, 1.0, (length, count))
    probability, logits, choices, ratios = _by_hand(returns.tolist(), blocks)
    found = backtest_overfitting(returns, blocks=blocks)
    assert found.probability == pytest.approx(probability)
    assert found.logits == pytest.approx(logits)
    assert found.chosen.tolist() == [choices.count(name) for name in range(count)]
    assert len(found.logits) == math.comb(blocks, blocks // 2)
    inside, outside = zip(*ratios, strict=True)
    assert (found.inside, found.outside) == (pytest.approx(inside), pytest.approx(outside))
    assert found.slope == pytest.approx(statistics.linear_regression(inside, outside).slope)
    assert found.loss == statistics.fmean(one < 0 for one in outside)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.1])
def test_who_rests_for_a_time_counts_as_zero_and_who_does_the_same_shares_the_rank(scale, rng):
    """Halves without a trade had ratios of rounding: some were losses, and they shared no rank."""
    returns = rng.normal(0.1, 1.0, (48, 6)) * scale
    returns[:, 1] = returns[:, 0]
    returns[12:18, 1] = 0.0  # the same but for one block
    returns[6:, 2] = 0.0
    returns[:6, 2] += 2.0 * scale
    returns[:30, 3] = 0.0
    returns[:, 4] -= 0.3 * scale
    probability, logits, choices, ratios = _by_hand(returns.tolist(), 8)
    found = backtest_overfitting(returns, blocks=8)
    assert found.probability == pytest.approx(probability, rel=1e-12)
    assert found.logits == pytest.approx(logits)
    assert found.chosen.tolist() == [choices.count(name) for name in range(6)]
    assert found.loss == pytest.approx(statistics.fmean(outside < 0 for _, outside in ratios), rel=1e-12)
    assert any(outside == 0 for _, outside in ratios)
    places = 7 / (1 + np.exp(-np.array(logits)))
    assert (np.abs(places - np.rint(places)) > 0.4).any()  # of two that share it a place is between places


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_noise_gives_one_half_within_the_interval_of_its_worlds(count):
    """Of three configurations of noise it was two thirds: a rank in the middle counted as overfit."""
    worlds = [
        backtest_overfitting(np.random.default_rng(seed).standard_t(4, (320, count)), blocks=10).probability
        for seed in range(120)
    ]
    error = statistics.stdev(worlds) / math.sqrt(len(worlds))
    assert abs(statistics.fmean(worlds) - 0.5) < 3 * error
    assert error < 0.03  # or the line above says nothing


def test_one_truly_better_configuration_gives_nearly_zero(rng):
    returns = rng.normal(0.0, 1.0, (1_600, 10))
    returns[:, 3] += 0.3
    found = backtest_overfitting(returns)
    assert found.probability < 0.01
    assert found.chosen[3] > 0.99 * len(found.logits)
    assert found.loss < 0.01


def test_configuration_that_did_well_by_one_stretch_alone_is_found_out(rng):
    """Nine losers of chance, and one that shone for a sixteenth of the time and lost ever after."""
    returns = rng.normal(0.0, 1.0, (1_600, 10))
    returns[:, 0] -= 0.15
    returns[:100, 0] += 3.0
    found = backtest_overfitting(returns)
    assert found.probability > 0.4
    assert found.slope < 0


def test_who_never_trades_counts_as_zero_and_equal_ones_share_their_rank(rng):
    idle = np.zeros((64, 1))
    losing = rng.normal(-1.0, 0.5, (64, 1))
    found = backtest_overfitting(np.hstack([losing, idle]), blocks=8)
    assert found.probability == 0.0
    assert found.chosen.tolist() == [0, len(found.logits)]
    # Two of the same are one rank: the middle of two, whichever of them was chosen.
    twins = backtest_overfitting(np.hstack([idle, idle, losing[::-1], losing]), blocks=8)
    assert twins.chosen.tolist() == [len(twins.logits), 0, 0, 0]
    assert twins.logits == pytest.approx(math.log(3.5 / 1.5))


@pytest.mark.parametrize("column", [np.zeros(64), np.random.default_rng(1).normal(size=64)])
def test_configurations_that_all_did_the_same_have_no_probability(column):
    """It was 1.000, "overfit for sure", where nothing had traded or no setting made a difference."""
    with pytest.raises(DataError, match="did the same"):
        backtest_overfitting(np.tile(column[:, None], (1, 3)), blocks=8)


def test_a_constant_far_from_zero_has_no_ratio_made_of_rounding():
    returns = np.hstack([np.full((64, 1), 0.1), np.tile([[0.2], [-0.1]], (32, 1))])
    assert backtest_overfitting(returns, blocks=8).chosen.tolist() == [0, 70]


@pytest.mark.parametrize(
    ("shape", "blocks", "match"),
    [((64, 1), 8, "choose"), ((64, 3), 7, "even"), ((64, 3), 0, "even"), ((20, 3), 8, "too few")],
)
def test_what_cannot_be_compared_is_refused(shape, blocks, match):
    with pytest.raises(DataError, match=match):
        backtest_overfitting(np.ones(shape), blocks=blocks)
