"""The outlier guard: fitted on rows of two kinds, it knows both, and finds what is neither."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from gpuscalp.drift.guard import Guard
from gpuscalp.errors import ModelError
from gpuscalp.schema import Quality
from gpuscalp.train.guard import COLUMNS_MAX, OUTLIERS, ROWS_MIN, fit_guard

COLUMNS = 20
GAIN = np.concatenate([np.linspace(1.0, 0.1, 18), np.zeros(2)]) / np.linspace(1.0, 0.1, 18).sum()

NAMES = [f"trade.flow_{index}" for index in range(COLUMNS)]


def rows(seed: int, count: int = 4_000) -> np.ndarray:
    """Return rows around one of two centres, some values missing; the last columns are not read."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, COLUMNS)) + np.where(rng.random((count, 1)) < 0.5, 3.0, -3.0)
    x *= np.logspace(-3, 3, COLUMNS)
    x[rng.random(x.shape) < 0.01] = np.nan
    x[:, -1] = np.nan
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def guard() -> Guard:
    found = fit_guard(rows(1), GAIN, NAMES, seed=7)
    assert found is not None
    return found


def marked(guard: Guard, x: np.ndarray) -> np.ndarray:
    quality = np.full(len(x), Quality.LATE, np.uint32)
    guard.mark(x, quality)
    assert set(np.unique(quality).tolist()) <= {Quality.LATE, Quality.LATE | Quality.OUTLIER}
    return quality > Quality.LATE


def test_few_rows_of_the_same_market_are_outliers_and_all_of_another(guard):
    share = marked(guard, rows(2, 40_000)).mean()
    assert 0.0 < share < 4 * OUTLIERS
    between = rows(3)
    between[:] = 0.0  # the middle between the kinds: every column is usual, and no row was like it
    assert marked(guard, between).all()
    wild = rows(4)
    wild[:, 0] *= 20
    assert marked(guard, wild).mean() > 0.9


def test_index_is_the_distance_to_the_nearest_prototype_over_the_mean_one(guard):
    x, parts = rows(5, 300), guard.arrays()
    z = np.nan_to_num((x[:, guard.columns].astype(float) - parts["centre"]) * parts["factor"])
    wanted = cdist(z, parts["prototypes"].T.astype(float)).min(axis=1)
    assert guard.index(x) == pytest.approx(wanted, rel=1e-4)
    trained = np.nan_to_num((rows(1)[:, guard.columns].astype(float) - parts["centre"]) * parts["factor"])
    pairs = cdist(trained[::8], trained[::8])
    assert pairs[np.triu_indices(len(pairs), 1)].mean() == pytest.approx(1.0, abs=0.05)
    assert np.array_equal(marked(guard, x), guard.index(x) > guard.limit)


def test_neither_unit_nor_level_of_a_column_counts():
    """Prototypes about another centre than the rows': with centres near zero nothing showed it."""
    x, later, level = rows(1, 700), rows(2, 700), np.logspace(-3, 3, COLUMNS) * 100
    plain, moved = (fit_guard(each.astype(np.float32), GAIN, NAMES, seed=7) for each in (x, 4 * x + level))
    assert plain is not None
    assert moved is not None
    assert moved.limit == pytest.approx(plain.limit, rel=0.02)
    assert moved.index((4 * later + level).astype(np.float32)) == pytest.approx(plain.index(later), abs=0.05)


def test_what_is_missing_as_often_as_in_training_is_familiar():
    """Values far from their mean on both sides, and a third of them missing: those lie in the middle."""
    rng = np.random.default_rng(4)
    x = rng.choice([-5.0, 5.0, np.nan, np.inf], (1_000, 3)).astype(np.float32)
    x += rng.normal(0, 0.01, x.shape).astype(np.float32)
    found = fit_guard(x, np.full(3, 1 / 3), NAMES[:3], seed=7)
    assert found is not None
    missing = np.array([[np.nan] * 3, [5.0, np.nan, -5.0]], np.float32)
    assert found.index(missing).max() < 0.05
    assert found.index(np.full((1, 3), 2.5, np.float32))[0] > 0.3


def test_the_columns_that_bring_most_are_looked_at(guard):
    assert sorted(guard.columns.tolist()) == list(range(COLUMNS_MAX))
    weights = np.square(guard.arrays()["factor"] * np.nanstd(rows(1)[:, guard.columns], axis=0))
    assert weights / weights.sum() == pytest.approx(GAIN[guard.columns] / GAIN[guard.columns].sum(), rel=1e-3)


def test_a_later_hour_of_the_same_market_is_no_outlier():
    """With the clock among its columns a guard called 72 % of a synthetic market's later rows outliers."""
    day = np.linspace(0.0, 2 * np.pi, 24_000)
    x = np.concatenate([rows(1, 12_000), rows(2, 12_000)])
    x[:, 0], x[:, 1] = np.sin(day), np.cos(day)
    names = ["time.day_sin", "time.day_cos", *NAMES[2:]]
    found = fit_guard(x[:6_000], GAIN, names, seed=7)
    assert found is not None
    assert sorted(found.columns.tolist()) == list(range(2, 2 + COLUMNS_MAX))
    assert marked(found, x[6_000:]).mean() < 4 * OUTLIERS
    only_time = np.where(np.arange(COLUMNS) < 2, 0.5, 0.0)
    assert fit_guard(x, only_time, names, seed=7) is None


def test_the_same_rows_make_the_same_guard_and_it_comes_back(guard):
    again = fit_guard(rows(1), GAIN, NAMES, seed=7)
    assert again is not None
    back = Guard.from_arrays(guard.arrays())
    for other in (again, back):
        for name, value in guard.arrays().items():
            assert other.arrays()[name].tobytes() == value.tobytes(), name


def test_without_rows_or_splits_there_is_none():
    assert fit_guard(rows(1, ROWS_MIN - 1), GAIN, NAMES, seed=7) is None
    assert fit_guard(rows(1), np.zeros(COLUMNS), NAMES, seed=7) is None
    assert fit_guard(np.ones((1_000, COLUMNS), np.float32), GAIN, NAMES, seed=7) is None


def test_parts_that_do_not_fit_are_refused(guard):
    parts = guard.arrays()
    for name, wrong in (
        ("centre", parts["centre"][:-1]),
        ("prototypes", np.full_like(parts["prototypes"], np.nan)),
        ("prototypes", parts["prototypes"][:, :0]),
        ("columns", np.float32(1.0)),
        ("limit", np.zeros(2, np.float32)),
    ):
        with pytest.raises(ModelError):
            Guard.from_arrays(parts | {name: wrong})
    with pytest.raises(ModelError, match="missing"):
        Guard.from_arrays({name: value for name, value in parts.items() if name != "limit"})
    with pytest.raises(ModelError, match="not of these columns"):
        guard.check_columns(COLUMNS_MAX - 1)


@pytest.mark.filterwarnings("ignore:One of the clusters is empty")
@pytest.mark.parametrize("count", [700, 4_000, 9_000])
def test_prototypes_are_those_of_scipys_k_means(count):
    """What was drawn before is kept, so that a model trained again is the same: to the bit."""
    x = rows(6, count)
    found = fit_guard(x, GAIN, NAMES, seed=11)
    parts, rng = found.arrays(), np.random.default_rng(11)
    z = np.nan_to_num((x[:, found.columns] - parts["centre"]) * parts["factor"])
    few = z[np.sort(rng.permutation(count)[:4_096])].astype(np.float64)
    wanted, _ = kmeans2(few, min(128, len(few) // 4), iter=10, minit="++", rng=rng)
    assert np.array_equal(parts["prototypes"], wanted.T.astype(np.float32))


def test_rows_of_which_few_differ_have_as_many_prototypes():
    """Where every row had been drawn, distances of nothing were divided by their sum, with a warning each."""
    x = rows(8, 30)[np.random.default_rng(8).integers(0, 30, 2_000)]
    guard = fit_guard(x, GAIN, NAMES, seed=11)
    assert guard.arrays()["prototypes"].shape[1] == 30
    assert guard.index(x) == pytest.approx(np.zeros(len(x)), abs=1e-3)
    assert not marked(guard, x).any()
    assert marked(guard, rows(9)).mean() > 0.9
