"""Distances to prototypes against a loop over NumPy's float32, in the order that the contract fixes."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.ops.nearest import mark_far, squared_distances

COLUMNS = np.array([7, 0, 3], np.int32)
CENTRE = np.array([0.5, -1.0, 0.0], np.float32)
FACTOR = np.array([2.0, 0.1, 1.5], np.float32)


def rows(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    x = rng.normal(size=(count, 9)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x


def prototypes(count: int) -> np.ndarray:
    return np.random.default_rng(99).normal(size=(3, count)).astype(np.float32)


def naive(x: np.ndarray, near: np.ndarray) -> list[np.float32]:
    found = []
    for row in x:
        sums = []
        for p in range(near.shape[1]):
            total = np.float32(0)
            for d, column in enumerate(COLUMNS):
                value = row[column]
                z = (
                    np.float32(0)
                    if np.isnan(value)
                    else np.float32(np.float32(value - CENTRE[d]) * FACTOR[d])
                )
                away = np.float32(z - near[d, p])
                total = np.float32(total + np.float32(away * away))
            sums.append(total)
        found.append(min(sums))
    return found


def distances(x: np.ndarray, near: np.ndarray) -> np.ndarray:
    out = np.empty(len(x), np.float32)
    squared_distances(x, COLUMNS, CENTRE, FACTOR, near, np.empty(near.shape[1], np.float32), out)
    return out


@pytest.mark.parametrize("count", [0, 1, 33])
@pytest.mark.parametrize("near", [1, 7, 128])
def test_distances_are_those_of_the_loop_to_the_bit(count, near):
    x, there = rows(count), prototypes(near)
    before = x.copy()
    found = distances(x, there)
    assert found.tobytes() == np.array(naive(x, there), np.float32).tobytes()
    assert x.tobytes() == before.tobytes()


def test_a_row_has_the_same_bits_alone_and_whatever_its_strides():
    x, there = rows(40), prototypes(17)
    whole = distances(x, there)
    assert np.concatenate([distances(x[at : at + 1], there) for at in range(40)]).tobytes() == whole.tobytes()
    assert distances(np.asfortranarray(x), there).tobytes() == whole.tobytes()


def test_far_rows_get_the_bit_beside_those_that_they_have():
    x, there = rows(40), prototypes(5)
    x[3, 7], x[4, 0] = np.inf, -np.inf
    whole = distances(x, there)
    limit = np.float32(np.sort(whole)[20])
    quality = np.arange(40, dtype=np.uint32)
    work, out = np.empty(5, np.float32), np.empty(64, np.float32)
    mark_far(x, COLUMNS, CENTRE, FACTOR, there, limit, np.uint32(256), work, out, quality)
    assert quality.tolist() == [at | (256 if whole[at] > limit else 0) for at in range(40)]
    assert quality[3] & quality[4] & 256
    assert np.count_nonzero(quality & 256) == 19
