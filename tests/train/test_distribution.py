"""The sample of training rows: thin, from the first walk alone, and the same however rows are cut."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gpuscalp.config import GridConfig
from gpuscalp.drift.alarm import WINDOWS_PER_BLOCK
from gpuscalp.drift.stability import bin_counts, psi
from gpuscalp.schema import NS_PER_S
from gpuscalp.splits import RowCounts
from gpuscalp.train.dataset import Rows, labelled_chunks
from gpuscalp.train.device import training_device
from gpuscalp.train.distribution import BLOCK_ROWS_MAX, BLOCKS_MAX, ROWS_MAX, KeptRows, RowSample, _Blocks
from tests.train.market import FRAME_NS, GRAPH, FakeSource, quick_config

WINDOW = 8


def walk(cut: int) -> Iterator[Rows]:
    config, device = quick_config(), training_device("cpu")
    for chunk in labelled_chunks(FakeSource(frame_count=1_500, cut=cut).chunks(), config):
        yield from chunk.rows(chunk.taken, device)


def sample(expected_rows: int) -> RowSample:
    config = quick_config()
    return sample_of(config.grid, config.stride_frames, expected_rows)


def sample_of(grid: GridConfig, stride: int, expected_rows: int) -> RowSample:
    counts = RowCounts(np.array([0]), np.array([expected_rows]), 150 * NS_PER_S)
    names = [column.name for column in GRAPH.columns]
    return RowSample(training_device("cpu"), grid, stride=stride, counts=counts, names=names, window=WINDOW)


def walked(kept: RowSample, cut: int, times: int = 1) -> KeptRows:
    for _ in range(times):
        for _ in kept.watch(walk(cut)):
            pass
    found = kept.kept()
    assert found is not None
    return found


def test_rows_pass_unchanged_and_only_the_first_walk_counts():
    kept = sample(100)
    passed = [row for rows in kept.watch(walk(700)) for row in rows.x]
    assert np.array_equal(passed, [row for rows in walk(700) for row in rows.x], equal_nan=True)
    first = kept.kept().distribution
    again = walked(kept, 700).distribution
    assert first.shares.tolist() == again.shares.tolist()
    assert len(kept.kept().x) == len(passed)


@pytest.mark.parametrize("expected_rows", [100, 3 * ROWS_MAX])
def test_chunks_do_not_matter(expected_rows):
    found = []
    for cut in (700, 123):
        found.append(walked(sample(expected_rows), cut, times=2))
    one, other = found
    assert one.distribution.edges.tobytes() == other.distribution.edges.tobytes()
    assert one.distribution.shares.tolist() == other.distribution.shares.tolist()
    assert one.x.tobytes() == other.x.tobytes()
    assert one.floor.psi.tolist() == other.floor.psi.tolist()


def test_many_rows_are_thinned():
    thin, whole = sample(3 * ROWS_MAX), sample(100)
    rows = [len(walked(kept, 700).x) for kept in (thin, whole)]
    assert rows[0] == pytest.approx(rows[1] / 3, rel=0.02)


def test_no_rows_have_no_distribution():
    kept = sample_of(GridConfig(), 1, 0)
    assert list(kept.watch(iter(()))) == []
    assert kept.kept() is None


def test_blocks_are_held_against_all_others():
    kept = walked(sample(100), 700, times=2)
    block_ns = WINDOWS_PER_BLOCK * WINDOW * FRAME_NS
    blocks: dict[int, list[np.ndarray]] = {}
    for rows in walk(700):
        for end_ns, x in zip(rows.end_ns, rows.x, strict=True):
            blocks.setdefault(end_ns // block_ns, []).append(x)
    whole = [np.array(rows) for rows in blocks.values()]
    whole = [rows for rows in whole if len(rows) >= np.median([len(each) for each in whole]) / 2]
    shares = [bin_counts(kept.distribution.edges, rows) / len(rows) for rows in whole]
    assert len(shares) > 20
    assert kept.floor.block_ns == block_ns
    assert kept.floor.rows == min(map(len, whole))
    at, column = 7, [column.name for column in GRAPH.columns].index("hint")
    others = np.mean(shares[:at] + shares[at + 1 :], axis=0)
    wanted = psi(others, shares[at])[column]
    assert kept.floor.psi[at, 0] == pytest.approx(wanted)


def test_a_walk_too_short_for_blocks_has_no_floor():
    assert walked(sample(100), 700, times=1).floor is None


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("rows_per_s", [1, 300, 5_000])
@pytest.mark.parametrize("hours", [1, 20, 500])
def test_blocks_and_the_rows_of_each_are_no_more_than_are_needed(hours: int, rows_per_s: int, stride: int):
    span_s = hours * 3_600
    counts = RowCounts(np.arange(span_s // 150), np.full(span_s // 150, 150 * rows_per_s), 150 * NS_PER_S)
    found = _Blocks.of(counts, GridConfig(frame_ms=100), window=1_024, stride=stride)
    assert found.block_ns == WINDOWS_PER_BLOCK * 1_024 * NS_PER_S // 10
    blocks = span_s * NS_PER_S / found.block_ns
    assert blocks / found.every <= BLOCKS_MAX
    assert found.every == 1 or blocks / (found.every - 1) > BLOCKS_MAX
    rows = rows_per_s * found.block_ns / NS_PER_S
    assert found.stride % stride == 0
    thinned = found.stride // stride
    assert rows / thinned < 1.5 * BLOCK_ROWS_MAX
    assert thinned == 1 or rows / thinned > BLOCK_ROWS_MAX / 1.5
