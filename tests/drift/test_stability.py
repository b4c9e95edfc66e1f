"""Population stability against a loop over NumPy's quantiles and SciPy's entropies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from gpuscalp.drift.stability import (
    BINS,
    BUCKET_NS,
    BUCKETS,
    LEAST_SHARE,
    ROWS_MIN,
    TENTHS,
    Distribution,
    Drift,
)
from gpuscalp.drift.stability import psi as psi_of

NOW_NS = 1_700_000_000_000_000_000
NAMES = ("price.move", "price.flat", "flow.sum", "flow.rare", "time.hour_sin", "empty.never")


def rows(seed: int, count: int, *, shift: float = 0.0) -> np.ndarray:
    """Return columns of all kinds: smooth, constant, mostly zero, with holes, and without any value."""
    rng = np.random.default_rng(seed)
    x = np.empty((count, len(NAMES)), np.float32)
    x[:, 0] = rng.normal(shift, 1.0, count)
    x[:, 1] = 5.0
    x[:, 2] = np.where(rng.random(count) < 0.7, 0.0, rng.exponential(1.0, count))
    x[:, 3] = np.where(rng.random(count) < 0.3, np.nan, rng.normal(0, 1, count))
    x[:, 4] = rng.random(count) + 10 * shift
    x[:, 5] = np.nan
    return x


def by_hand(trained: np.ndarray, live: np.ndarray) -> list[float]:
    """Return the PSI of each column: both relative entropies, over bins cut at the trained tenths."""
    found = []
    for a, b in zip(trained.T, live.T, strict=True):
        known = a[~np.isnan(a)]
        edges = (
            np.quantile(known.astype(np.float64), np.arange(1, 10) / 10, method="higher")
            if len(known)
            else []
        )
        shares = []
        for column in (a, b):
            values = column[~np.isnan(column)]
            counts = [0] * BINS
            for value in values:
                counts[sum(value >= edge for edge in edges)] += 1
            counts[-1] = len(column) - len(values)
            shares.append(np.maximum(np.array(counts) / len(column), LEAST_SHARE))
        p, q = shares
        # entropy() would make the sums 1, which the floor has moved.
        found.append(float(np.sum(q * np.log(q / p) + p * np.log(p / q))))
    return found


def test_psi_equals_both_relative_entropies():
    trained, live = rows(1, 4_001), rows(2, 3_000, shift=0.3)
    distribution = Distribution.of(trained)
    drift = Drift(distribution, NAMES)
    for start in range(0, 3_000, 37):
        drift.take(live[start : start + 37], NOW_NS)
    wanted = by_hand(trained, live)
    found = {each.group: each for each in drift.figures(NOW_NS)}
    assert set(found) == {"price", "flow", "empty"}, "the clock goes round by itself"
    # The two ways to a quantile may put one row into the next bin.
    assert found["price"].largest == pytest.approx(wanted[0], rel=0.02)
    assert found["price"].column == "price.move"
    assert found["price"].mean == pytest.approx((wanted[0] + wanted[1]) / 2, rel=0.02)
    assert found["flow"].mean == pytest.approx((wanted[2] + wanted[3]) / 2, abs=2e-3)
    assert found["empty"].largest == 0.0


def test_psi_of_whole_shares_is_the_sum_of_scipys_entropies():
    rng = np.random.default_rng(3)
    p, q = rng.dirichlet(np.full(BINS, 5.0), 20), rng.dirichlet(np.full(BINS, 5.0), 20)
    wanted = [entropy(a, b) + entropy(b, a) for a, b in zip(p, q, strict=True)]
    assert psi_of(p, q) == pytest.approx(wanted)


def test_same_rows_have_no_drift_and_moved_ones_much():
    distribution = Distribution.of(rows(1, 20_000))
    for shift, low, high in ((0.0, 0.0, 0.02), (1.0, 0.5, 20.0)):
        drift = Drift(distribution, NAMES)
        drift.take(rows(9, 5_000, shift=shift), NOW_NS)
        price = next(each for each in drift.figures(NOW_NS) if each.group == "price")
        assert low <= price.largest <= high


def test_tenths_hold_a_tenth_each_and_missing_values_are_a_bin():
    found = Distribution.of(rows(1, 10_000))
    assert found.edges.shape == (len(NAMES), TENTHS - 1)
    assert found.shares[0, :TENTHS] == pytest.approx([0.1] * TENTHS, abs=1e-3)
    assert found.shares.sum(axis=1) == pytest.approx([1.0] * len(NAMES))
    assert found.shares[3, -1] == pytest.approx(0.3, abs=0.02)
    assert found.shares[5].tolist() == [0.0] * TENTHS + [1.0]
    assert np.isnan(found.edges[5]).all()


def test_few_rows_say_nothing_and_old_ones_leave():
    drift = Drift(Distribution.of(rows(1, 1_000)), NAMES)
    drift.take(rows(2, ROWS_MIN - 1), NOW_NS)
    assert drift.figures(NOW_NS) == ()
    drift.take(rows(3, 1), NOW_NS)
    assert drift.rows(NOW_NS) == ROWS_MIN
    assert len(drift.figures(NOW_NS)) == 3
    assert drift.rows(NOW_NS + (BUCKETS + 1) * BUCKET_NS) == 0
    drift.take(rows(3, 0), NOW_NS)
    assert drift.rows(NOW_NS) == ROWS_MIN
