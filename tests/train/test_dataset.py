"""Streamed rows equal the rows of the whole recording, however it is cut."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.config import LabelConfig
from gpuscalp.labels import label_frames, uniqueness
from gpuscalp.schema import FrameBlock
from gpuscalp.splits import Fold
from gpuscalp.train.dataset import count_rows, labelled_chunks, on_stride
from gpuscalp.train.device import training_device
from gpuscalp.train.walk import within
from tests.train.market import FRAME_NS, START_NS, FakeSource, quick_config


def joined(chunks, pick):
    return np.concatenate([pick(chunk) for chunk in chunks])


@pytest.mark.parametrize("cut", [1, 7, 64, 700])
@pytest.mark.parametrize(("kind", "stride"), [("forward", 1), ("barrier", 3)])
def test_any_cut_gives_the_labels_and_weights_of_one_piece(cut, kind, stride):
    config = quick_config(label=LabelConfig(kind=kind, horizon_ms=1_200), stride_frames=stride)
    whole = next(FakeSource(frame_count=700, cut=700, gap_at=300).chunks())
    labels = label_frames(whole.frames, config.label, config.grid)
    taken = labels.valid & on_stride(whole.frames.end_ns, config.grid, stride)[:, None]
    weight = uniqueness(labels, taken)

    chunks = list(labelled_chunks(FakeSource(frame_count=700, cut=cut, gap_at=300).chunks(), config))

    assert len(chunks) == -(-700 // cut)
    np.testing.assert_array_equal(joined(chunks, lambda c: c.labels.direction), labels.direction)
    np.testing.assert_array_equal(joined(chunks, lambda c: c.labels.return_bps), labels.return_bps)
    np.testing.assert_array_equal(joined(chunks, lambda c: c.labels.end_ns), labels.end_ns)
    np.testing.assert_array_equal(joined(chunks, lambda c: c.taken), taken)
    # To the bit: a weight may not depend on where a chunk ends.
    np.testing.assert_array_equal(joined(chunks, lambda c: c.weight), weight)


def test_look_ahead_holds_back_no_more_than_the_horizon_needs():
    config = quick_config(label=LabelConfig(horizon_ms=1_000))
    made = []

    def watched():
        for chunk in FakeSource(frame_count=1_000, cut=50).chunks():
            made.append(chunk)
            yield chunk

    ahead = [len(made) - index for index, _ in enumerate(labelled_chunks(watched(), config), start=1)]
    assert max(ahead) == 1


def test_rows_carry_the_columns_of_their_own_frame():
    config = quick_config()
    source = FakeSource(frame_count=300, cut=100)
    for chunk in labelled_chunks(source.chunks(), config):
        chosen = chunk.select(lambda end_ns, _: end_ns % 3 == 0)
        rows = {int(block.symbol[0]): block for block in chunk.rows(chosen, training_device("cpu"))}
        for symbol, block in rows.items():
            at = np.searchsorted(chunk.end_ns, block.end_ns)
            assert block.x.flags.c_contiguous
            np.testing.assert_array_equal(block.x, chunk.chunk.features[symbol][:, at].T)
            assert np.all(block.label_end_ns == block.end_ns + 5 * FRAME_NS)
        assert sum(map(len, rows.values())) == chosen.sum()


def test_rows_of_many_symbols_carry_what_their_chunk_says_of_them():
    source = FakeSource(frame_count=120, symbol_count=35, gap_at=80)
    chunk = next(labelled_chunks(source.chunks(), quick_config()))
    chosen = chunk.taken & (np.random.default_rng(2).random(chunk.taken.shape) < 0.3)
    chosen[:, [0, 17, 34]] = False
    blocks = list(chunk.rows(chosen, training_device("cpu")))
    assert [int(rows.symbol[0]) for rows in blocks] == np.flatnonzero(chosen.any(axis=0)).tolist()
    for rows in blocks:
        symbol = int(rows.symbol[0])
        at = np.flatnonzero(chosen[:, symbol])
        for got, wanted in (
            (rows.x, chunk.chunk.features[symbol][:, at].T),
            (rows.direction, chunk.labels.direction[at, symbol]),
            (rows.return_bps, chunk.labels.return_bps[at, symbol]),
            (rows.weight, chunk.weight[at, symbol]),
            (rows.end_ns, chunk.end_ns[at]),
            (rows.label_end_ns, chunk.labels.end_ns[at, symbol]),
            (rows.symbol, np.full(len(at), symbol, np.int32)),
        ):
            assert got.dtype == wanted.dtype
            np.testing.assert_array_equal(got, wanted)


def test_blocked_and_warming_frames_are_no_rows():
    config = quick_config()
    chunks = list(labelled_chunks(FakeSource(frame_count=400, gap_at=200).chunks(), config))
    taken = joined(chunks, lambda c: c.taken)[:, 0]
    wanted = np.ones(400, bool)
    wanted[:40] = False  # warm-up
    wanted[[200, 195]] = False  # the gap, and the label that ends on it
    wanted[395:] = False  # the horizon runs past the end
    np.testing.assert_array_equal(taken, wanted)


def test_what_the_price_does_moves_no_row_into_or_out_of_a_set():
    """By the end of its label, a barrier's last rows before a border were those that were touched."""
    config = quick_config(label=LabelConfig(kind="barrier", horizon_ms=3_000, upper_bps=1.0, lower_bps=1.0))
    border = START_NS + 300 * FRAME_NS
    fold = Fold(0, START_NS, border, border + 60 * FRAME_NS, embargo_ns=30 * FRAME_NS)
    for seed in range(3):
        chunk = next(labelled_chunks(FakeSource(frame_count=500, gap_at=100, seed=seed).chunks(), config))
        assert (chunk.labels.span_frames[chunk.taken] < 30).mean() > 0.3
        # Frames 40 to 99 less the 30 before the doubt at 100; then until a horizon and the embargo are left.
        assert np.flatnonzero(chunk.select(fold.train_rows)[:, 0]).tolist() == [
            *range(40, 70),
            *range(101, 239),
        ]
        assert np.flatnonzero(chunk.select(fold.test_rows)[:, 0]).tolist() == [*range(299, 330)]


@pytest.mark.parametrize("stride", [1, 3])
def test_sound_rows_without_a_label_are_counted(stride):
    config = quick_config(stride_frames=stride)
    chunks = list(labelled_chunks(FakeSource(frame_count=400, gap_at=200, cut=64).chunks(), config))
    wanted = [at for at in (195, *range(395, 400)) if (START_NS // FRAME_NS + at + 1) % stride == 0]
    sound = joined(chunks, lambda c: c.sound)
    assert np.flatnonzero(sound[:, 1] & ~joined(chunks, lambda c: c.taken)[:, 1]).tolist() == wanted
    counts = count_rows(chunks)
    assert counts.unlabelled == 2 * len(wanted)
    assert counts.total + counts.unlabelled == sound.sum()
    # Of a part of the time those inside it, as for the labelled ones.
    halves = (0, START_NS + 300 * FRAME_NS), (START_NS + 300 * FRAME_NS, 2**62)
    found = [count_rows(within(chunks, *half)).unlabelled for half in halves]
    assert found == [2 * sum(at < 299 for at in wanted), 2 * sum(at >= 299 for at in wanted)]


def test_counts_cover_every_taken_row():
    config = quick_config(stride_frames=2)
    counts = count_rows(labelled_chunks(FakeSource(frame_count=900, symbol_count=3).chunks(), config))
    again = labelled_chunks(FakeSource(frame_count=900, symbol_count=3, cut=90).chunks(), config)
    assert counts.total == sum(int(chunk.taken.sum()) for chunk in again)
    assert counts.start_ns[0] <= START_NS + 40 * FRAME_NS < counts.start_ns[0] + counts.bucket_ns


def test_empty_recording_has_no_chunks_and_no_rows():
    config = quick_config()
    assert list(labelled_chunks(iter(()), config)) == []
    assert count_rows(iter(())).total == 0


def test_features_of_a_chunk_are_not_copied_before_they_are_wanted():
    chunk = next(FakeSource().chunks())
    labelled = next(labelled_chunks(iter([chunk]), quick_config()))
    assert labelled.chunk.features is chunk.features
    assert isinstance(labelled.chunk.frames, FrameBlock)
