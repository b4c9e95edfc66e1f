"""The sample of training rows: thin, from the first walk alone, and the same however rows are cut."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gpuscalp.config import GridConfig
from gpuscalp.train.dataset import Rows, labelled_chunks
from gpuscalp.train.device import training_device
from gpuscalp.train.distribution import ROWS_MAX, RowSample
from tests.train.market import FakeSource, quick_config


def walk(cut: int) -> Iterator[Rows]:
    config, device = quick_config(), training_device("cpu")
    for chunk in labelled_chunks(FakeSource(frame_count=1_500, cut=cut).chunks(), config):
        yield from chunk.rows(chunk.taken, device)


def sample(expected_rows: int) -> RowSample:
    config = quick_config()
    return RowSample(
        training_device("cpu"), config.grid, stride=config.stride_frames, expected_rows=expected_rows
    )


def test_rows_pass_unchanged_and_only_the_first_walk_counts():
    kept = sample(100)
    passed = [row for rows in kept.watch(walk(700)) for row in rows.x]
    assert np.array_equal(passed, [row for rows in walk(700) for row in rows.x], equal_nan=True)
    first = kept.distribution()
    for _ in kept.watch(walk(700)):
        pass
    again = kept.distribution()
    assert first.shares.tolist() == again.shares.tolist()
    assert sum(map(len, kept._parts)) == len(passed)


@pytest.mark.parametrize("expected_rows", [100, 3 * ROWS_MAX])
def test_chunks_do_not_matter(expected_rows):
    found = []
    for cut in (700, 123):
        kept = sample(expected_rows)
        for _ in kept.watch(walk(cut)):
            pass
        found.append(kept.distribution())
    assert found[0].edges.tobytes() == found[1].edges.tobytes()
    assert found[0].shares.tolist() == found[1].shares.tolist()


def test_many_rows_are_thinned():
    thin, whole = sample(3 * ROWS_MAX), sample(100)
    for kept in (thin, whole):
        for _ in kept.watch(walk(700)):
            pass
    rows = [sum(map(len, kept._parts)) for kept in (thin, whole)]
    assert rows[0] == pytest.approx(rows[1] / 3, rel=0.02)


def test_no_rows_have_no_distribution():
    kept = RowSample(training_device("cpu"), GridConfig(), stride=1, expected_rows=0)
    assert list(kept.watch(iter(()))) == []
    assert kept.distribution() is None
