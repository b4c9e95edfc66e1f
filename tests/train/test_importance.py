"""What a column brings: by what splits have won, and by what is lost when it is shuffled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpuscalp.train.held_out import SAMPLE_ROWS_MAX, Sample
from gpuscalp.train.importance import PERMUTED_COLUMNS_MAX, gain_shares, importances

ROWS = 400


class Reads:
    """An ensemble whose probabilities are read off two columns, each for some of the rows."""

    def __init__(self, first: int, second: int) -> None:
        self.first, self.second, self.asked = first, second, 0

    def predict(self, x: Any) -> Any:
        self.asked += 1
        told = np.where(np.arange(len(x)) % 4 == 0, x[:, self.second], x[:, self.first]).astype(int)
        return SimpleNamespace(probability=np.where(np.arange(3) == told[:, None], 0.8, 0.1))


def sample(columns: int) -> Sample:
    rng = np.random.default_rng(5)
    direction = rng.integers(0, 3, ROWS).astype(np.int8)
    x = rng.normal(size=(ROWS, columns)).astype(np.float32)
    return Sample(np.where(np.arange(columns) < 4, direction[:, None], x).astype(np.float32), direction)


def test_each_column_loses_what_it_alone_had_told() -> None:
    """Only what is read costs anything, and one that was shuffled before is whole again."""
    rows, gain = sample(6), np.array([0.4, 0.05, 0.3, 0.2, 0.05, 0.0])
    before = rows.x.copy()
    names = [f"column.{index}" for index in range(6)]
    ensemble: Any = Reads(1, 3)
    found = importances(ensemble, rows, gain, names, rng=np.random.default_rng(1))
    assert np.array_equal(rows.x, before)
    assert [each.name for each in found] == [f"column.{index}" for index in (1, 3, 0, 2, 4, 5)]
    assert [each.gain for each in found] == [gain[index] for index in (1, 3, 0, 2, 4, 5)]
    losses = {each.name: each.permutation for each in found}
    assert losses["column.5"] is None, "no split reads it"
    assert [losses[f"column.{index}"] for index in (0, 2, 4)] == [0.0] * 3
    # Two of three shuffled rows get another class: log 0.8 becomes log 0.1 there.
    for name, share in (("column.1", 3 / 4), ("column.3", 1 / 4)):
        loss = losses[name]
        assert loss is not None
        assert loss == pytest.approx(share * 2 / 3 * np.log(8), rel=0.15)


def test_only_the_columns_of_the_largest_gain_are_shuffled() -> None:
    columns = PERMUTED_COLUMNS_MAX + 3
    gain = np.linspace(0.0, 1.0, columns)
    ensemble: Any = Reads(1, 3)
    names = [str(index) for index in range(columns)]
    found = importances(ensemble, sample(columns), gain, names, rng=np.random.default_rng(1))
    measured = {int(each.name) for each in found if each.permutation is not None}
    assert measured == set(range(3, columns))
    assert ensemble.asked == PERMUTED_COLUMNS_MAX + 1
    nothing = importances(ensemble, Sample(sample(columns).x[:0], sample(columns).direction[:0]), gain, names,
                          rng=np.random.default_rng(1))  # fmt: skip
    assert [int(each.name) for each in nothing] == list(range(columns - 1, -1, -1))
    assert all(each.permutation is None for each in nothing)


def test_gain_is_a_share_of_all_members_together() -> None:
    boosters = [
        SimpleNamespace(get_score=lambda importance_type: {"f2": 3.0, "f0": 1.0}),
        SimpleNamespace(
            get_score=lambda importance_type: {"f2": 4.0} if importance_type == "total_gain" else {}
        ),
    ]
    assert gain_shares(boosters, ["a", "b", "c"]).tolist() == [1 / 8, 0.0, 7 / 8]
    nothing = [SimpleNamespace(get_score=lambda importance_type: {})]
    assert gain_shares(nothing, ["a", "b"]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("sizes", [[3, 4], [SAMPLE_ROWS_MAX, 1_000, 0, 9], [0, 5], [0, 0]])
def test_samples_are_joined_evenly_from_the_first_row_to_the_last(sizes: list[int]) -> None:
    total, first, parts = sum(sizes), 0, []
    for size in sizes:
        at = np.arange(first, first + size)
        parts.append(Sample(np.stack([at, -at], axis=1).astype(np.float32), (at % 3).astype(np.int8)))
        first += size
    joined = Sample.joined(parts)
    rows = joined.x[:, 0].astype(int)
    assert len(rows) == len(joined.direction) == min(total, SAMPLE_ROWS_MAX)
    assert np.array_equal(joined.x[:, 1], -joined.x[:, 0])
    assert np.array_equal(joined.direction, rows % 3)
    if total:
        assert (rows[0], rows[-1]) == (0, total - 1)
        steps = np.diff(rows)
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1
