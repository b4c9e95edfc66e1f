"""Digests of rows: equal for equal bits, any NaN being one value, and different for any other bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.ops.row_digest import digest_rows


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 7, 8, 214])
def test_every_single_bit_counts(columns: int, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((3, columns)).astype(np.float32)
    before = digest_rows(rows)
    words = rows.view(np.uint32)
    for column in range(columns):
        for bit in (0, 7, 22, 31):
            words[1, column] ^= np.uint32(1 << bit)
            after = digest_rows(rows)
            words[1, column] ^= np.uint32(1 << bit)
            assert (after != before).tolist() == [False, True, False]


def test_all_nan_are_one_value_and_zeros_are_two() -> None:
    rows = np.zeros((4, 5), np.float32)
    words = rows.view(np.uint32)
    words[0, 2], words[1, 2] = 0x7FC00000, 0xFFC12345
    words[3, 2] = 0x80000000
    found = digest_rows(rows)
    assert found[0] == found[1]
    assert len({int(each) for each in found[1:]}) == 3


@given(st.permutations(range(6)))
def test_the_order_of_columns_counts(order: list[int]) -> None:
    rows = np.arange(1, 7, dtype=np.float32)[None, :]
    same = order == list(range(6))
    assert (digest_rows(rows[:, order].copy())[0] == digest_rows(rows)[0]) == same


def test_further_columns_are_taken_in_by_their_bits() -> None:
    rows = np.ones((2, 3), np.float32)
    quality = np.array([0, 4], np.uint32)
    prices = np.array([7, 7], np.int32)
    plain, more, again = digest_rows(rows), digest_rows(rows, quality), digest_rows(rows, quality, prices)
    assert plain[0] == plain[1]
    assert more[0] != more[1]
    assert (more != again).all()


def test_many_random_rows_have_no_digest_in_common(rng: np.random.Generator) -> None:
    rows = rng.integers(0, 3, (20_000, 12)).astype(np.float32)
    rows = np.unique(rows, axis=0)
    assert len(np.unique(digest_rows(rows))) == len(rows)


def test_a_chunk_of_the_stream_is_taken_as_it_lies() -> None:
    """float32[S, F, 1], as FeatureStream gives it."""
    chunk = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    assert (digest_rows(chunk) == digest_rows(chunk[:, :, 0].copy())).all()
