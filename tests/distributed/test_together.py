"""Two workers of XGBoost's collective, as threads with a communicator each. No Ray is needed for this."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from xgboost import RabitTracker, collective

from gpuscalp.config import BoosterConfig, LabelConfig
from gpuscalp.errors import DataError
from gpuscalp.schema import NS_PER_S
from gpuscalp.splits import RowCounts
from gpuscalp.train.dataset import Rows, labelled_chunks
from gpuscalp.train.device import training_device
from gpuscalp.train.distribution import RowSample
from gpuscalp.train.fit import fit_members
from gpuscalp.train.iterator import Tally, binned_matrix
from gpuscalp.train.together import gather
from tests.train.market import GRAPH, FakeSource, quick_config

CPU = training_device("cpu")
BOOSTER = BoosterConfig(
    rounds=6, max_bin=32, max_depth=3, min_child_weight=2.0, subsample=1.0, colsample_bytree=1.0
)


def of_two(work: Callable[[int], Any]) -> list[Any]:
    """Run ``work(rank)`` in two workers; return the answers, or what was raised, by rank."""
    tracker = RabitTracker(n_workers=2, host_ip="127.0.0.1", sortby="task")
    tracker.start()
    answers: list[Any] = [None, None]

    def run(rank: int) -> None:
        with collective.CommunicatorContext(**tracker.worker_args(), dmlc_task_id=str(rank)):
            try:
                answers[collective.get_rank()] = work(collective.get_rank())
            except DataError as error:
                answers[collective.get_rank()] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    tracker.wait_for()
    return answers


def all_rows(source: FakeSource) -> list[Rows]:
    config = quick_config()
    return [
        rows for chunk in labelled_chunks(source.chunks(), config) for rows in chunk.rows(chunk.taken, CPU)
    ]


def trained(rows: list[Rows]) -> tuple[bytes, Tally, Any]:
    """Train on some rows, with the sample of their columns watched as in a final training."""
    config = quick_config()
    counts = RowCounts(np.array([0]), np.array([1_000]), 150 * NS_PER_S)
    names = [column.name for column in GRAPH.columns]
    sample = RowSample(CPU, config.grid, stride=1, counts=counts, names=names, window=16)

    def walk() -> Iterator[Rows]:
        return sample.watch(iter(rows))

    matrix, tally = binned_matrix(walk, device=CPU, max_bin=32, threads=1, what="rows")
    (member,) = fit_members(matrix, config=BOOSTER, seeds=(3,), rounds=(6,), device="cpu", threads=1)
    return bytes(member.booster.save_raw("ubj")), tally, sample.kept()


def margins(raw: bytes, rows: list[Rows]) -> np.ndarray:
    import xgboost

    x = np.concatenate([block.x for block in rows])
    return xgboost.Booster(model_file=bytearray(raw)).inplace_predict(x)


def test_gather_keeps_the_order_of_the_ranks_and_gives_back_what_is_nothing():
    assert gather("alone") == ["alone"]
    assert of_two(lambda rank: gather(None if rank else {"rank": rank})) == [[{"rank": 0}, None]] * 2


@pytest.mark.parametrize("cut", [0.5, 1.0], ids=["halves", "one has none"])
@pytest.mark.filterwarnings("ignore:.*Empty dataset:UserWarning")
def test_two_workers_train_one_model_and_count_all_rows(cut):
    rows = all_rows(FakeSource(frame_count=1_500, cut=100))
    half = round(cut * len(rows))
    (first, tally, found), (second, other, _) = of_two(
        lambda rank: trained(rows[half:] if rank else rows[:half])
    )
    alone, whole, expected = trained(rows)
    assert first == second
    for ours in (tally, other):
        assert ours.count.tolist() == whole.count.tolist()
        assert (ours.start_ns, ours.end_ns) == (whole.start_ns, whole.end_ns)
        np.testing.assert_allclose(ours.return_sum, whole.return_sum, rtol=1e-12)
        assert ours.weight == pytest.approx(whole.weight, rel=1e-12)
    for name in ("edges", "shares"):
        np.testing.assert_array_equal(getattr(found.distribution, name), getattr(expected.distribution, name))
    np.testing.assert_array_equal(found.x, expected.x)
    np.testing.assert_array_equal(found.end_ns, expected.end_ns)
    np.testing.assert_array_equal(found.floor.psi, expected.floor.psi)
    np.testing.assert_array_equal(found.floor.shares, expected.floor.shares)
    # Cuts come from merged sketches, which may lie a few ranks beside those of one sketch.
    assert np.abs(margins(first, rows) - margins(alone, rows)).mean() < 0.01


def test_two_workers_weigh_their_rows_as_one_does():
    """By the class shares of all rows: a worker's own are those of its piece of time alone."""
    config = quick_config(label=LabelConfig(kind="barrier", horizon_ms=2_000, upper_bps=2.5, lower_bps=2.5))
    source = FakeSource(frame_count=1_500, cut=100)
    rows = [
        block for chunk in labelled_chunks(source.chunks(), config) for block in chunk.rows(chunk.taken, CPU)
    ]
    third = len(rows) // 3

    def weights(part: list[Rows]) -> np.ndarray:
        matrix, _ = binned_matrix(
            lambda: iter(part), device=CPU, max_bin=32, threads=1, what="rows", level_classes=True
        )
        return matrix.get_weight()

    alone = weights(rows)
    found = np.concatenate(of_two(lambda rank: weights(rows[third:] if rank else rows[:third])))
    assert np.ptp(alone / np.concatenate([block.weight for block in rows])) > 0.1
    np.testing.assert_allclose(found, alone, rtol=1e-6)


def test_workers_that_all_have_no_rows_say_so():
    answers = of_two(lambda rank: trained([]))
    assert [type(answer) for answer in answers] == [DataError, DataError]


def test_joined_tallies_leave_out_the_times_of_empty_ones():
    some = Tally(np.array([1, 2, 3]), np.array([-1.0, 0.0, 2.0]), 4.0, 100, 900, np.array([1.0, 3.0]))
    joined = Tally.joined([Tally(), some, Tally(by_symbol=np.array([2.5]))])
    assert (joined.rows, joined.start_ns, joined.end_ns, joined.weight) == (6, 100, 900, 4.0)
    assert joined.by_symbol.tolist() == [3.5, 3.0]
