"""Streaming into XGBoost: the same bins as from one float matrix, and a tally of what went in."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from gpuscalp.config import BoosterConfig
from gpuscalp.errors import DataError
from gpuscalp.train.dataset import Rows, labelled_chunks
from gpuscalp.train.device import training_device
from gpuscalp.train.fit import fit_members
from gpuscalp.train.iterator import Tally, binned_matrix
from tests.train.market import FakeSource, quick_config

CPU = training_device("cpu")


def stream_of(source: FakeSource):
    config = quick_config()

    def walk():
        for chunk in labelled_chunks(source.chunks(), config):
            yield from chunk.rows(chunk.taken, CPU)

    return walk


def constant_rows(direction: int) -> Rows:
    rng = np.random.default_rng(0)
    return Rows(
        x=rng.standard_normal((50, 3)).astype(np.float32),
        direction=np.full(50, direction, np.int8),
        return_bps=np.zeros(50),
        weight=np.ones(50),
        end_ns=np.arange(50),
        label_end_ns=np.arange(50) + 5,
        symbol=np.zeros(50, np.int32),
    )


def barrier_rows(frames: int, horizon: int, barrier: float, *, seed: int) -> Rows:
    """A random walk under a barrier label, with columns that know nothing; in plain loops, as in the book."""
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.standard_normal(frames + horizon + 1))
    direction, last = [], []
    for entry in range(frames):
        for frame in range(entry + 1, entry + horizon + 1):
            move = path[frame] - path[entry]
            if abs(move) >= barrier:
                break
        direction.append(1 if abs(move) < barrier else 2 if move > 0 else 0)
        last.append(frame)
    open_labels = [0] * (frames + horizon + 1)
    for entry in range(frames):
        for frame in range(entry + 1, last[entry] + 1):
            open_labels[frame] += 1
    weight = [
        sum(1.0 / open_labels[frame] for frame in range(entry + 1, last[entry] + 1)) / (last[entry] - entry)
        for entry in range(frames)
    ]
    return Rows(
        x=rng.standard_normal((frames, 4)).astype(np.float32),
        direction=np.array(direction, np.int8),
        return_bps=np.zeros(frames),
        weight=np.array(weight),
        end_ns=np.arange(frames),
        label_end_ns=np.array(last),
        symbol=np.zeros(frames, np.int32),
    )


def levelled(rows: list[Rows]):
    return binned_matrix(
        lambda: iter(rows), device=CPU, max_bin=16, threads=1, what="rows", level_classes=True
    )


def test_model_that_knows_nothing_says_how_often_each_class_comes_under_a_barrier_label():
    """Labels that are touched are the more unique: P(FLAT) was 0.35 where 0.39 of the rows were FLAT."""
    rows = barrier_rows(20_000, 30, 5.0, seed=11)
    matrix, _ = levelled([rows])
    booster = BoosterConfig(max_bin=16, max_depth=2, min_child_weight=20.0, subsample=1.0)
    (member,) = fit_members(matrix, config=booster, seeds=(3,), rounds=(60,), device="cpu", threads=1)
    said = member.booster.inplace_predict(rows.x).mean(axis=0)
    came = [(rows.direction == k).mean() for k in range(3)]
    weighed = [rows.weight[rows.direction == k].sum() / rows.weight.sum() for k in range(3)]
    assert came[1] - weighed[1] > 0.03  # else there is nothing to be seen here
    np.testing.assert_allclose(said, came, atol=0.005)


def test_weights_give_each_class_its_share_of_the_rows_and_keep_their_sum():
    rows = barrier_rows(2_000, 20, 4.0, seed=12)
    cut = [
        Rows(*(getattr(rows, name)[at] for name in Rows.__slots__))
        for at in (slice(0, 700), slice(700, None))
    ]
    matrix, tally = levelled(cut)
    weight = matrix.get_weight().astype(np.float64)
    assert weight.sum() == pytest.approx(tally.weight, rel=1e-6) == pytest.approx(rows.weight.sum(), rel=1e-6)
    for k in range(3):
        inside = rows.direction == k
        assert weight[inside].sum() / weight.sum() == pytest.approx(inside.mean(), rel=1e-6)
        # Within a class uniqueness decides, as before.
        factor = weight[inside] / rows.weight[inside]
        np.testing.assert_allclose(factor, factor[0], rtol=1e-6)


def test_class_that_is_rare_and_overlaps_much_is_levelled_and_one_that_is_absent_stays_so():
    rows = replace(
        constant_rows(0),
        direction=np.repeat(np.array([0, 1], np.int8), (48, 2)),
        weight=np.repeat([0.9, 0.1], (48, 2)),
    )
    weight = levelled([rows])[0].get_weight().astype(np.float64)
    total = 48 * 0.9 + 2 * 0.1
    assert weight == pytest.approx(np.full(50, total / 50), rel=1e-6)


def test_streamed_matrix_trains_the_model_of_the_whole_matrix():
    import xgboost

    stream = stream_of(FakeSource(frame_count=1_500, cut=200))
    matrix, tally = binned_matrix(stream, device=CPU, max_bin=64, threads=1, what="rows")
    blocks = list(stream())
    x = np.concatenate([block.x for block in blocks])
    label = np.concatenate([block.direction for block in blocks])
    weight = np.concatenate([block.weight for block in blocks])
    # Given whole, XGBoost sketches the columns in one piece; the cuts may differ where columns have many
    # values, so the comparison is of what the models say.
    whole = xgboost.QuantileDMatrix(x, label=label, weight=weight, max_bin=64, nthread=1)
    parameters = {"objective": "multi:softprob", "num_class": 3, "max_bin": 64, "nthread": 1, "max_depth": 3}
    streamed, direct = (xgboost.train(parameters, m, num_boost_round=5) for m in (matrix, whole))
    a, b = streamed.inplace_predict(x), direct.inplace_predict(x)
    assert matrix.num_row() == len(x) == tally.rows
    assert np.abs(a - b).mean() < 0.01
    assert matrix.num_nonmissing() == np.isfinite(x).sum()


def test_tally_is_counted_once_however_often_the_rows_are_walked():
    source = FakeSource(frame_count=1_000, cut=300)
    stream = stream_of(source)
    _, tally = binned_matrix(stream, device=CPU, max_bin=16, threads=1, what="rows")
    assert source.walks > 1
    blocks = list(stream())
    direction = np.concatenate([block.direction for block in blocks])
    returns = np.concatenate([block.return_bps for block in blocks])
    assert tally.count.tolist() == np.bincount(direction, minlength=3).tolist()
    assert tally.class_return_bps[2] == pytest.approx(returns[direction == 2].mean())
    assert tally.share.sum() == pytest.approx(1.0)
    assert tally.weight == pytest.approx(sum(block.weight.sum() for block in blocks))
    symbol, weight = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("symbol", "weight")
    )
    assert tally.by_symbol == pytest.approx(np.bincount(symbol, weights=weight))
    assert tally.labels_in_time == tally.by_symbol.max() < 0.6 * tally.weight, "two symbols"
    assert tally.start_ns == min(block.end_ns.min() for block in blocks)
    assert tally.end_ns == max(block.label_end_ns.max() for block in blocks)


def test_tallies_of_workers_join_to_that_of_all_rows_in_plain_sums(rng):
    """Blocks out of order, a symbol that only one worker has, and workers without rows."""
    rows = Rows(
        x=np.zeros((60, 1), np.float32),
        direction=rng.integers(0, 2, 60).astype(np.int8),  # the last class has not come
        return_bps=rng.normal(size=60),
        weight=rng.uniform(0.1, 1.0, 60),
        end_ns=rng.integers(1_000, 2_000, 60),
        label_end_ns=rng.integers(2_000, 3_000, 60),
        symbol=rng.choice([0, 2], 60).astype(np.int32),
    )
    rows.symbol[:20] = 0

    def part(at: slice) -> Rows:
        return Rows(*(getattr(rows, name)[at] for name in Rows.__slots__))

    first, second, idle = Tally(), Tally(), Tally()
    first.add(part(slice(0, 20)))
    for at in (slice(50, 60), slice(20, 50)):
        second.add(part(at))
    order = (idle, second, first)
    found, nothing = Tally.joined(order), Tally.joined([idle, Tally()])
    plain = list(
        zip(rows.direction.tolist(), rows.symbol.tolist(), rows.return_bps, rows.weight, strict=True)
    )
    assert found.count.tolist() == [sum(way == k for way, *_ in plain) for k in range(3)]
    assert found.return_sum == pytest.approx([sum(r for way, _, r, _ in plain if way == k) for k in range(3)])
    assert found.by_symbol == pytest.approx([sum(w for _, s, _, w in plain if s == k) for k in range(3)])
    assert found.weight == pytest.approx(sum(w for *_, w in plain))
    assert (found.start_ns, found.end_ns) == (min(rows.end_ns.tolist()), max(rows.label_end_ns.tolist()))
    assert found.class_return_bps[2] == 0.0
    assert (nothing.rows, nothing.start_ns, nothing.end_ns, nothing.labels_in_time) == (0, 0, 0, 0.0)
    assert nothing.share.tolist() == [0.0] * 3
    alone = Tally()
    alone.add(part(slice(0, 1)))
    assert alone.share.sum() == 1.0
    assert alone.class_return_bps.sum() == rows.return_bps[0]
    assert nothing.expected_share == pytest.approx([1 / 3] * 3)


def test_class_that_has_not_come_is_still_expected():
    tally = Tally()
    tally.add(constant_rows(1))  # 50 rows, each a label of its own
    assert tally.share.tolist() == [0.0, 1.0, 0.0]
    assert tally.expected_share.tolist() == [1 / 53, 51 / 53, 1 / 53]


def test_no_rows_is_refused_with_the_name_of_the_rows():
    with pytest.raises(DataError, match="no row") as caught:
        binned_matrix(lambda: iter(()), device=CPU, max_bin=16, threads=1, what="fold 1 of 2, training rows")
    assert caught.value.where == "fold 1 of 2, training rows"


def test_rows_of_one_class_are_refused_for_training_only():
    with pytest.raises(DataError, match="one class") as caught:
        binned_matrix(lambda: iter([constant_rows(1)]), device=CPU, max_bin=16, threads=1, what="rows")
    assert caught.value.value == "FLAT"
    mixed, _ = binned_matrix(
        lambda: iter([constant_rows(1), constant_rows(2)]), device=CPU, max_bin=16, threads=1, what="rows"
    )
    binned_matrix(
        lambda: iter([constant_rows(1)]),
        device=CPU,
        max_bin=16,
        threads=1,
        what="stopping rows",
        reference=mixed,
    )


def test_fault_in_the_recording_reaches_the_caller():
    def broken():
        yield constant_rows(1)
        raise DataError("part 3 is damaged")

    with pytest.raises(DataError, match="part 3 is damaged"):
        binned_matrix(broken, device=CPU, max_bin=16, threads=1, what="rows")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def test_interrupt_between_blocks_is_raised_after_the_walk_and_never_trains_on_a_part(number, handler):
    """SIGTERM was dropped; and Ctrl-C ended a training in a shell's background, which ignores it."""

    def interrupted():
        yield constant_rows(0)
        signal.raise_signal(number)  # arrives inside XGBoost's callback, where it would be dropped
        yield constant_rows(1)

    before = signal.signal(number, handler)
    heard = handler is not signal.SIG_IGN
    try:
        with pytest.raises(KeyboardInterrupt) if heard else nullcontext():
            binned_matrix(interrupted, device=CPU, max_bin=16, threads=1, what="rows")
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def test_signal_that_a_library_hears_is_left_to_it(monkeypatch):
    """Python does not know such a handler, and cannot put it back."""
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    rows = [constant_rows(0), constant_rows(1)]
    matrix = binned_matrix(lambda: iter(rows), device=CPU, max_bin=16, threads=1, what="rows")[0]
    assert matrix.num_row() > 0
