"""The rows that no member of their fold has seen: which are kept, and what they weigh."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.train.dataset import labelled_chunks
from gpuscalp.train.device import training_device
from gpuscalp.train.held_out import predict_held_out, thinning
from gpuscalp.train.passes import Passes
from tests.train.market import FakeSource, quick_config

CPU = training_device("cpu")


def test_held_out_rows_lie_in_their_own_test_interval_and_are_thinned_to_a_bound(monkeypatch):
    config = quick_config()
    passes = Passes(
        FakeSource(frame_count=2_000), config, device=CPU, threads=1, progress=lambda *_, **__: None
    )
    counts, folds = passes.split()
    fitted = [passes.fit_fold(fold, counts) for fold in folds]
    whole, sample, compared = passes.held_out(fitted, counts)
    assert not compared.made
    for fold, rows in zip(folds, whole, strict=True):
        assert fold.test_rows(rows.end_ns, rows.end_ns).all()
        assert set(np.unique(rows.end_ns, return_counts=True)[1].tolist()) == {2}, "both symbols"
    assert 0 < len(sample.x) <= 2_048
    monkeypatch.setattr("gpuscalp.train.held_out.ROWS_MAX", 500)
    thin, _, _ = passes.held_out(fitted, counts)
    assert sum(map(len, thin)) <= 550
    assert thinning(500) == 1
    assert thinning(501) == 2


@pytest.mark.parametrize("every", [3, 20])
def test_thinned_held_out_rows_weigh_as_many_labels_as_rows_of_that_stride(monkeypatch, every):
    """They kept the weights of all frames: calibration was held near the identity as by a third of them."""
    config = quick_config()
    quiet = lambda *_, **__: None  # noqa: E731
    source = FakeSource(frame_count=2_000)
    passes = Passes(source, config, device=CPU, threads=1, progress=quiet)
    counts, folds = passes.split()
    fitted = [passes.fit_fold(fold, counts) for fold in folds]
    expected = round(counts.total * (1.0 - config.split.min_train_fraction))
    monkeypatch.setattr("gpuscalp.train.held_out.ROWS_MAX", -(-expected // every))
    thinned, _, _ = passes.held_out(fitted, counts)
    monkeypatch.undo()
    strided = Passes(source, quick_config(stride_frames=every), device=CPU, threads=1, progress=quiet)
    same, _, _ = strided.held_out(fitted, counts)
    for found, wanted in zip(thinned, same, strict=True):
        assert (found.end_ns == wanted.end_ns).all()
        assert len(found) > 50
        assert found.weight.sum() == pytest.approx(wanted.weight.sum(), rel=0.01)
        assert found.weight.max() <= 1.0


def test_sample_of_the_last_fold_is_bounded_and_the_same_however_rows_are_cut(monkeypatch):
    """Blocks of one row could not be halved: all of them were kept, and copied at every chunk."""

    class Counting:
        moved = 0

        def __getattr__(self, name):
            return getattr(CPU, name)

        def taken(self, rows, at):
            self.moved += len(at)
            return CPU.taken(rows, at)

    monkeypatch.setattr("gpuscalp.train.held_out.SAMPLED_ROWS_MAX", 64)
    monkeypatch.setattr("gpuscalp.train.held_out.SAMPLE_ROWS_MAX", 80)
    config = quick_config()
    whole = FakeSource(frame_count=1_500)
    passes = Passes(whole, config, device=CPU, threads=1, progress=lambda *_, **__: None)
    counts, folds = passes.split()
    ensembles = [passes.fit_fold(folds[0], counts).ensemble] * len(folds)
    found = []
    for source in (FakeSource(frame_count=1_500, cut=1), whole):
        device = Counting()
        held_out, sample = predict_held_out(
            labelled_chunks(source.chunks(), config), folds, ensembles, device=device, grid=config.grid,
            stride=1, expected_rows=round(0.7 * counts.total),
        )  # fmt: skip
        found.append((len(held_out[-1]), device.moved, sorted(map(tuple, np.nan_to_num(sample.x).tolist()))))
    assert found[0][0] > 900
    assert 50 < found[0][1] <= 70
    assert found[0][2] == found[1][2]


@pytest.mark.parametrize("together_bytes", [1, 40 * 6 * 4])
def test_held_out_rows_are_predicted_together_and_come_out_the_same(monkeypatch, together_bytes):
    """Each symbol of each chunk was a call of its own: 81,380 of six rows for 1e8 rows of 512 symbols."""
    sizes: list[int] = []

    class Counting:
        def __getattr__(self, name):
            return getattr(CPU, name)

        def predictor(self, forest):
            predict = CPU.predictor(forest)
            return lambda x: sizes.append(len(x)) or predict(x)

    config = quick_config()
    source = FakeSource(frame_count=1_500, cut=20)
    passes = Passes(source, config, device=Counting(), threads=1, progress=lambda *_, **__: None)
    counts, folds = passes.split()
    fitted = [passes.fit_fold(fold, counts) for fold in folds]
    whole, whole_sample, _ = passes.held_out(fitted, counts)
    assert len(sizes) == len(folds)  # 1 MB has room for all of them
    sizes.clear()
    monkeypatch.setattr("gpuscalp.train.held_out.TOGETHER_BYTES", together_bytes)
    cut, cut_sample, _ = passes.held_out(fitted, counts)
    assert max(sizes) <= max(20, together_bytes // 24)
    assert sum(sizes) == sum(map(len, whole))
    for name in whole[0].__slots__:
        for one, other in zip(whole, cut, strict=True):
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    assert whole_sample.x.tobytes() == cut_sample.x.tobytes()
