"""Parts of a recording: rows of a share have the bits of the whole walk, and who has which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.config import FeatureConfig, LabelConfig, TrainConfig
from gpuscalp.distributed.parts import Share, agree, cut, look_at, shares
from gpuscalp.errors import ParityError
from gpuscalp.schema import NS_PER_S
from gpuscalp.splits import RowCounts
from gpuscalp.synthetic import VENUE, MarketSpec, write
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS
from gpuscalp.train.dataset import Rows, count_rows, labelled_chunks
from gpuscalp.train.device import training_device
from gpuscalp.train.source import ArchiveSource
from gpuscalp.train.walk import BEGINNING, END

CPU = training_device("cpu")
START_NS = 1_700_000_000_000_000_000
# Windows of up to 64 frames: a walk is warm after a few seconds, and a recording of minutes has many parts.
CONFIG = TrainConfig(
    venue=VENUE,
    features=FeatureConfig(drop=("*.128", "*.256", "*.512", "*.ewm.*", "*.macd.*")),
    label=LabelConfig(horizon_ms=700, threshold_bps=1.0),
)
HOLE = (START_NS + 130 * NS_PER_S, START_NS + 205 * NS_PER_S)  # longer than grid.max_gap_ms


class Holed(Archive):
    """An archive in which a recorder was off for a while."""

    def tick_batches(self, *words, **options):
        for ticks in super().tick_batches(*words, **options):
            kept = (ticks["exch_ns"] < HOLE[0]) | (ticks["exch_ns"] >= HOLE[1])
            if kept.any():
                yield ticks[kept]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> ArchiveSource:
    """Five minutes with a hole; marks come so seldom that the lead of a walk has none."""
    path = tmp_path_factory.mktemp("parts") / "archive"
    spec = MarketSpec(
        start_ns=START_NS, duration_s=300, symbols=DEFAULT_SYMBOLS[:2], mark_interval_ms=71_000, seed=11
    )
    write(spec, path)
    opened = Archive.open(path)
    made = ArchiveSource.open(opened, CONFIG, threads=1)
    assert any("basis" in name for name in made.pipeline.graph.names)
    return replace(made, archive=Holed(opened.path, opened.manifest))


def looked(source: ArchiveSource):
    def look(tasks):
        return [look_at(part, source, CONFIG, compare_ns=at, device=CPU) for part, at in tasks]

    return look


@pytest.fixture(scope="module")
def agreed(source):
    first, last = source.archive.time_range(VENUE)
    cuts = cut(first, last, CONFIG, warm_up_frames=source.pipeline.graph.warm_up_frames)
    return cuts, *agree(cuts, looked(source), first_ns=first)


def by_symbol(blocks: Iterator[Rows]) -> dict[int, list[np.ndarray]]:
    """All rows of each symbol, in order of time, as bits."""
    found: dict[int, list[Rows]] = {}
    for rows in blocks:
        found.setdefault(int(rows.symbol[0]), []).append(rows)
    return {
        symbol: [
            np.concatenate([getattr(rows, name) for rows in parts]).view(np.uint8)
            for name in ("x", "direction", "return_bps", "weight", "end_ns", "label_end_ns")
        ]
        for symbol, parts in found.items()
    }


def all_rows(chunks):
    for chunk in chunks:
        yield from chunk.rows(chunk.taken, CPU)


@pytest.mark.parametrize("interval_s", [None, (40, 291), (120, 250)], ids=["all", "most", "around the hole"])
@pytest.mark.parametrize("workers", [1, 3])
def test_rows_of_all_shares_are_those_of_the_whole_walk_to_the_bit(source, agreed, workers, interval_s):
    _, parts, counts = agreed
    interval = (BEGINNING, END)
    if interval_s is not None:
        interval = tuple(START_NS + second * NS_PER_S + 300_000_000 for second in interval_s)
    whole = by_symbol(
        rows
        for chunk in labelled_chunks(source.chunks(), CONFIG)
        for rows in chunk.rows(
            chunk.select(lambda end_ns, _: (end_ns >= interval[0]) & (end_ns < interval[1])), CPU
        )
    )
    shared: list[Rows] = []
    for rank in range(workers):
        share = Share(source, CONFIG, parts=parts, counts=counts, rank=rank, workers=workers)
        shared.extend(all_rows(share.labelled(*interval)))
    found = by_symbol(iter(shared))
    assert found.keys() == whole.keys() == {0, 1}
    for symbol, arrays in whole.items():
        assert len(arrays[1]) > 200
        for ours, theirs in zip(found[symbol], arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_lead_grows_where_a_symbol_was_silent_for_longer(source, agreed):
    cuts, parts, _ = agreed
    assert len(parts) > 8
    grown = [new.lead_ns > old.lead_ns for old, new in zip(cuts, parts, strict=True)]
    assert any(grown)
    assert not all(grown), "a walk with a mark in its lead needs no more"
    # And without it the bits do differ: a share from the short lead is what the longer one protects from.
    at = grown.index(True)
    walks = [
        look_at(part, source, CONFIG, compare_ns=[part.check_ns], device=CPU)
        for part in (cuts[at], parts[at])
    ]
    assert walks[0].frames != walks[1].frames


def test_counts_of_the_parts_are_those_of_the_whole_walk(source, agreed):
    _, _, counts = agreed
    whole = count_rows(labelled_chunks(source.chunks(), CONFIG))
    np.testing.assert_array_equal(counts.start_ns, whole.start_ns)
    np.testing.assert_array_equal(counts.count, whole.count)
    assert counts.unlabelled == whole.unlabelled > 0


def test_range_of_the_user_begins_cold_like_a_recording(source, agreed):
    start_ns = START_NS + 47 * NS_PER_S
    begun = replace(source, start_ns=start_ns)
    cuts = cut(
        start_ns, START_NS + 300 * NS_PER_S, CONFIG, warm_up_frames=source.pipeline.graph.warm_up_frames
    )
    parts, counts = agree(cuts, looked(begun), first_ns=start_ns)
    whole = by_symbol(all_rows(labelled_chunks(begun.chunks(), CONFIG)))
    shared: list[Rows] = []
    for rank in range(2):
        share = Share(begun, CONFIG, parts=parts, counts=counts, rank=rank, workers=2)
        shared.extend(all_rows(share.labelled(BEGINNING, END)))
    for symbol, arrays in by_symbol(iter(shared)).items():
        for ours, theirs in zip(arrays, whole[symbol], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_machine_that_computes_otherwise_is_found_out(source, agreed):
    cuts, _, _ = agreed
    first_ns = source.archive.time_range(VENUE)[0]
    honest = looked(source)

    def look(tasks):
        seen = honest(tasks)
        for (part, _), found in zip(tasks, seen, strict=True):
            if part.start_ns == cuts[2].start_ns:
                found.frames[part.check_ns] = b"another frame"
        return seen

    with pytest.raises(ParityError, match="two walks over the same ticks"):
        agree(cuts, look, first_ns=first_ns)


def test_parts_cover_the_recording_and_are_neither_too_many_nor_too_short():
    for seconds, longest in ((600, 40), (86_400, 40), (400 * 86_400, 9_000)):
        parts = cut(START_NS, START_NS + seconds * NS_PER_S, CONFIG, warm_up_frames=100)
        assert parts[0].start_ns <= START_NS
        assert parts[-1].end_ns >= START_NS + seconds * NS_PER_S
        for before, after in pairwise(parts):
            assert before.end_ns == after.start_ns
        length = parts[0].end_ns - parts[0].start_ns
        assert 20 * NS_PER_S < length <= longest * NS_PER_S
        assert len(parts) <= 4_098
        # The labels open at the first row of a part are looked at by its walk, which is warm by then.
        assert all(part.check_ns <= part.start_ns - 700_000_000 for part in parts)
        assert all(part.walk_ns == part.check_ns - 20 * NS_PER_S for part in parts)


def test_shares_are_consecutive_and_nearly_equal(rng):
    count = rng.integers(0, 2_000, 500)
    counts = RowCounts(START_NS + 10 * NS_PER_S * np.arange(500), count, 10 * NS_PER_S)
    first, last = START_NS + 1_234 * NS_PER_S, START_NS + 4_321 * NS_PER_S
    for workers in (1, 2, 7):
        cuts = shares(counts, first, last, workers)
        assert len(cuts) == workers
        assert cuts[0][0] == first
        assert cuts[-1][1] == last
        assert all(a[1] == b[0] for a, b in pairwise(cuts))
        rows = [int(count[(counts.start_ns >= a) & (counts.start_ns < b)].sum()) for a, b in cuts]
        assert max(rows) - min(rows) <= 2 * 2_000 + 2_000


def test_more_workers_than_buckets_leaves_some_without_rows():
    counts = RowCounts(np.array([START_NS]), np.array([100]), 10 * NS_PER_S)
    cuts = shares(counts, START_NS, START_NS + 10 * NS_PER_S, 3)
    assert sum(a < b for a, b in cuts) == 1
    assert shares(counts, START_NS + 60 * NS_PER_S, END, 2)[1] == (END, END)
