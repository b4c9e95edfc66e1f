"""Whole training runs on a recording in memory: what is found, what is written, and what is never seen."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from gpuscalp.bundle import load_bundle
from gpuscalp.cli.train import _table
from gpuscalp.config import BoosterConfig, EnsembleConfig, LabelConfig, SplitConfig
from gpuscalp.errors import DataError, DeviceError, UsageError
from gpuscalp.progress import silent
from gpuscalp.train import train
from gpuscalp.train.dataset import labelled_chunks
from gpuscalp.train.device import training_device
from gpuscalp.train.fit import check_device, final_rounds, fit_members, forest_of
from gpuscalp.train.iterator import binned_matrix
from gpuscalp.train.metrics import Correlation
from gpuscalp.train.passes import STOPPING_FRACTION, Passes
from gpuscalp.train.report import report_html, verdict
from gpuscalp.train.run import canary_rows
from gpuscalp.train.walk import BEGINNING, END
from tests.train.market import FRAME_NS, GRAPH, START_NS, FakeSource, quick_config

CPU = training_device("cpu")


@pytest.fixture(scope="module")
def informed(tmp_path_factory: pytest.TempPathFactory):
    told: list[tuple[float, float | None, str]] = []
    path = tmp_path_factory.mktemp("run") / "model"
    source = FakeSource(frame_count=3_000, trade_delays_ms=(30.0, 200.0))
    result = train(
        source,
        quick_config(),
        path,
        device="cpu",
        threads=1,
        on_progress=lambda done, total=None, note="": told.append((done, total, note)),
    )
    return result, source, told


def test_information_is_found_in_every_fold(informed):
    result, _, _ = informed
    for item in result.folds:
        assert item.score.ic.low > 0.1
        assert item.score.log_loss < item.score.base_log_loss
    assert result.overall.ic.low > 0.15
    assert result.importance[0].name == "hint"
    assert result.importance[0].permutation > 10 * max(i.permutation or 0.0 for i in result.importance[1:])


def test_report_tells_how_late_published_trades_were_dated(informed):
    result, _, _ = informed
    assert result.to_dict()["trade_delays_ms"] == (30.0, 200.0)
    page = (result.bundle / "report.html").read_text()
    assert page.count("trades of files dated after they were made by, ms") == 2


def test_nothing_is_found_where_nothing_is(tmp_path):
    result = train(
        FakeSource(frame_count=3_000, informed=False), quick_config(), tmp_path / "m", device="cpu", threads=1
    )
    # One-sided: an interval of 95 % misses zero on one side or the other in one of twenty recordings.
    assert result.overall.ic.low <= 0.0
    assert abs(result.overall.ic.value) < 0.06
    assert result.overall.log_loss > result.overall.base_log_loss - 0.005


def test_folds_without_a_split_have_no_coefficient(tmp_path):
    """It was given as 0, between 0 and 0, and a model of which nothing is known could be promoted."""
    booster = BoosterConfig(rounds=3, early_stopping_rounds=2, min_child_weight=1e6)
    result = train(
        FakeSource(frame_count=3_000), quick_config(booster=booster), tmp_path / "m", device="cpu", threads=1
    )
    assert not result.overall.ic.known
    assert result.training.metrics["ic"] is result.training.metrics["ic_low"] is None
    told = json.loads((result.bundle / "result.json").read_text())
    assert [fold["ic"] for fold in told["folds"]] == [None, None]
    assert any(text.startswith("Fold 1, 2: no information coefficient") for text in told["warnings"])
    page = (result.bundle / "report.html").read_text()
    assert "of 2 of 2 folds is not known" in page
    assert page.count("not known") >= 6  # the verdict, two figures, two folds, the picture
    assert "nan" not in page.lower()
    console = Console(width=200)
    with console.capture() as captured:
        console.print(_table(result, None, None))
    assert captured.get().count("not known") == 3  # two folds, and all


def test_verdict_finds_information_only_where_every_fold_and_the_log_loss_do(informed):
    """Where one of four folds had an opinion, the report said that the predictions carried information."""
    result, _, _ = informed
    scores = [item.score for item in result.folds]
    assert "predictions carried information" in verdict(result.overall, scores)
    no_better = replace(result.overall, log_loss=result.overall.base_log_loss)
    assert "no better than that of the base rate" in verdict(no_better, scores)
    nothing = replace(scores[0], ic=Correlation(math.nan, math.nan, math.nan))
    assert "1 of 2 folds is not known" in verdict(result.overall, [nothing, scores[1]])
    silent_fold = replace(result, folds=(replace(result.folds[0], score=nothing), result.folds[1]))
    page = report_html(silent_fold)
    assert "Fold 1: no information coefficient" in page
    assert "1 of 2 folds is not known" in page
    assert "on these rows the predictions carried information" not in page


def test_held_out_rows_are_flat_as_often_as_is_said_under_a_barrier_label(tmp_path):
    """Touched labels are short and weigh more: P(FLAT) was 0.12 on average and FLAT came in 0.16."""
    label = LabelConfig(kind="barrier", horizon_ms=3_000, upper_bps=3.5, lower_bps=3.5)
    source = FakeSource(frame_count=6_000, symbol_count=4, informed=False)
    result = train(source, quick_config(label=label), tmp_path / "m", device="cpu", threads=1)
    flat = [bin_ for bin_ in result.overall.calibration if bin_.name == "FLAT"]
    assert sum(bin_.count for bin_ in flat) == result.overall.rows
    said, came = (
        sum(getattr(bin_, name) * bin_.count for bin_ in flat) / result.overall.rows
        for name in ("predicted", "observed")
    )
    assert said == pytest.approx(came, abs=0.015)


def test_forward_labels_are_weighed_by_uniqueness_alone():
    """All of them last for the horizon; the hole makes some more unique, which says nothing of the class."""
    source, config = FakeSource(frame_count=2_000, gap_at=700), quick_config()
    passes = Passes(source, config, device=CPU, threads=1, progress=silent)
    counts, folds = passes.split()
    matrix = passes.bin_fold(folds[0], counts).matrix
    inner = folds[0].early_stopping(STOPPING_FRACTION, counts)
    unique = [
        rows.weight.astype(np.float32)
        for chunk in labelled_chunks(source.chunks(), config)
        for rows in chunk.rows(chunk.select(inner.train_rows), CPU)
    ]
    assert matrix.get_weight().tolist() == np.concatenate(unique).tolist()


def test_answer_of_train_json_has_the_promised_keys(informed):
    result, _, _ = informed
    answer = json.loads(json.dumps(result.to_dict()))
    assert {"bundle", "rows", "folds", "seconds", "peak_rss_mb"} <= answer.keys()
    for fold in answer["folds"]:
        assert {"log_loss", "base_log_loss", "ic", "ic_low", "ic_high"} <= fold.keys()
    assert answer["peak_rss_mb"] > 50
    assert json.loads((result.bundle / "result.json").read_text())["rows"] == answer["rows"]
    # Of two symbols the rows of the last horizon.
    assert answer["unlabelled_rows"] == 2 * 5
    assert "10 sound rows without a label" in (result.bundle / "report.html").read_text()


def test_bundle_of_a_run_loads_and_carries_its_intervals(informed):
    result, source, _ = informed
    bundle = load_bundle(result.bundle, graph=GRAPH)
    training = bundle.contract.training
    assert training.trained_on.start_ns == START_NS + 41 * FRAME_NS
    assert training.trained_on.end_ns == START_NS + source.frame_count * FRAME_NS
    assert training.data_digest == source.digest()
    assert len(bundle.contract.members) == 2
    assert bundle.contract.calibration.fitted_on == "held-out rows of all folds"
    for fold in training.folds:
        assert fold.train.end_ns == fold.test.start_ns - fold.embargo_ns


def test_warnings_name_folds_with_few_labels_and_a_synthetic_market(informed):
    result, _, _ = informed
    # 3,000 frames, five frames a label: 600 of each of two symbols. They were counted together, as if one
    # knew nothing of the other, and the second fold had enough of them.
    assert result.folds[1].trained.labels_in_time < 500 < result.folds[1].trained.weight
    assert any("Fold 1, 2:" in text and "no symbol has 500 labels" in text for text in result.warnings)
    assert any("synthetic" in text for text in result.warnings)
    assert result.to_dict()["warnings"] == list(result.warnings)


def test_report_is_one_page_with_every_part(informed):
    page = (informed[0].bundle / "report.html").read_text()
    for words in (
        "Summary",
        "Folds",
        "Calibration",
        "Columns",
        "information coefficient",
        "synthetic",
        "<svg",
    ):
        assert words in page
    assert "http-equiv" not in page or "script" not in page


def test_progress_rises_to_its_total_and_names_fold_member_and_round(informed):
    _, _, told = informed
    done = [at for at, _, _ in told]
    total = next(total for _, total, _ in told if total)
    assert done == sorted(done)
    assert done[-1] == total
    assert any("fold 2 of 2, member 2 of 2, round" in note and "log loss" in note for _, _, note in told)


def test_same_data_and_seed_give_the_same_bundle_to_the_byte(informed, tmp_path):
    result, _, _ = informed
    again = train(FakeSource(frame_count=3_000), quick_config(), tmp_path / "m", device="cpu", threads=1)
    for name in ("contract.json", "forest.npz", "members/member_00.ubj"):
        assert (again.bundle / name).read_bytes() == (result.bundle / name).read_bytes(), name


def test_features_are_walked_again_instead_of_kept(informed):
    _, source, _ = informed
    # Counting, held-out rows, and for each of the five matrices a few walks of XGBoost.
    assert source.walks > 7


class Watched(FakeSource):
    """Poisons every column from ``poison_ns`` on: whoever reads it there is found out."""

    poison_ns: int = 0

    def _chunk(self, first, last):
        chunk = super()._chunk(first, last)
        chunk.features[:, :, chunk.frames.end_ns >= self.poison_ns] = 1e30
        return chunk


def test_members_of_a_fold_do_not_see_its_test_interval():
    config = quick_config()
    forests = []
    for poison in (False, True):
        source = Watched(frame_count=2_000)
        source.poison_ns = 2**62
        passes = Passes(source, config, device=CPU, threads=1, progress=lambda *_, **__: None)
        counts, folds = passes.split()
        if poison:
            source.poison_ns = folds[0].train_end_ns
        forests.append(passes.fit_fold(folds[0], counts).ensemble.forest.arrays())
    for name in forests[0]:
        np.testing.assert_array_equal(forests[0][name], forests[1][name])


class Daily(FakeSource):
    """Recordings of a minute, each a day after the one before."""

    def _chunk(self, first, last):
        chunk = super()._chunk(first, last)
        day = (chunk.frames.end_ns - START_NS - FRAME_NS) // (600 * FRAME_NS)
        return replace(chunk, frames=replace(chunk.frames, end_ns=chunk.frames.end_ns + day * 86_400 * 10**9))


def test_recordings_of_separate_days_stop_on_a_share_of_their_rows():
    """By the clock the end of a train interval is a hole between two days: no row was left to stop on."""
    config = quick_config(split=SplitConfig(folds=2, min_train_fraction=0.32))
    source = Daily(frame_count=1_800, cut=600)
    passes = Passes(source, config, device=CPU, threads=1, progress=lambda *_, **__: None)
    counts, folds = passes.split()
    for fold in folds:
        rows = passes.bin_fold(fold, counts)
        trained, stopping = rows.matrix.num_row(), rows.stopping.num_row()
        assert stopping / (trained + stopping) == pytest.approx(0.15, abs=0.02)


def test_forest_of_the_members_gives_their_margins_to_the_bit():
    source = FakeSource(frame_count=800)
    config = quick_config()
    passes = Passes(source, config, device=CPU, threads=1, progress=lambda *_, **__: None)
    stream = lambda: passes._rows(lambda end_ns, _: end_ns > 0, BEGINNING, END)  # noqa: E731
    matrix, _ = binned_matrix(stream, device=CPU, max_bin=64, threads=1, what="rows")
    members = fit_members(
        matrix, config=BoosterConfig(rounds=8, max_bin=64, min_child_weight=1.0), seeds=(1, 2), rounds=(8, 5),
        device="cpu", threads=1,
    )  # fmt: skip
    assert [member.rounds for member in members] == [8, 5]
    x = np.concatenate([rows.x for rows in stream()])
    from gpuscalp.ensemble import Calibration, Ensemble

    margins = Ensemble(forest_of(members), Calibration.identity(), np.zeros(3)).predict(x).margins
    for member, ours in zip(members, margins, strict=True):
        theirs = member.booster.inplace_predict(x, predict_type="margin")
        assert theirs.tobytes() == ours.tobytes()


def test_early_stopping_keeps_the_best_rounds(informed):
    result, _, _ = informed
    assert all(1 <= rounds <= 15 for item in result.folds for rounds in item.rounds)
    assert result.rounds == final_rounds([item.rounds for item in result.folds])


def test_final_rounds_are_the_median_of_the_folds_and_at_least_one():
    assert final_rounds([(1, 10), (3, 20), (9, 90)]) == (3, 20)
    assert final_rounds([(0, 1)]) == (1, 1)


def test_booster_that_ran_elsewhere_is_refused():
    class Booster:
        def save_config(self) -> str:
            return json.dumps({"learner": {"generic_param": {"device": "cpu"}}})

    check_device(Booster(), "cpu")
    with pytest.raises(DeviceError, match="told to train on cuda and did so on cpu"):
        check_device(Booster(), "cuda")


def test_silent_fall_back_of_xgboost_is_an_error():
    """On a machine without a GPU XGBoost warns, trains on the CPU and says nothing more."""
    from tests.conftest import missing_gpu

    if missing_gpu() is None:
        pytest.skip("there is a GPU, so nothing falls back")
    source = FakeSource(frame_count=600)
    passes = Passes(source, quick_config(), device=CPU, threads=1, progress=lambda *_, **__: None)
    matrix, _ = binned_matrix(
        lambda: passes._rows(lambda end_ns, _: end_ns > 0, BEGINNING, END),
        device=CPU,
        max_bin=16,
        threads=1,
        what="rows",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception, match="cuda|CUDA|GPU") as caught:
            fit_members(
                matrix,
                config=BoosterConfig(rounds=1, max_bin=16),
                seeds=(1,),
                rounds=(1,),
                device="cuda",
                threads=1,
            )
    assert isinstance(caught.value, DeviceError) or "CUDA" in str(caught.value)


def test_canary_has_real_rows_and_hard_ones(informed):
    _, _, _ = informed
    from gpuscalp.train.held_out import Sample

    x = np.arange(60, dtype=np.float32).reshape(10, 6)
    rows = canary_rows(Sample(x, np.zeros(10, np.int8)))
    assert rows.shape == (32, 6)
    assert np.isnan(rows[-3]).all()
    assert np.isinf(rows[-2]).all()
    assert np.signbit(rows[-1]).all()
    assert np.isfinite(rows[:24]).all()


@pytest.mark.parametrize(
    ("config", "source", "words"),
    [
        (quick_config(label=LabelConfig(horizon_ms=500, threshold_bps=1e6)), FakeSource(), "one class"),
        (quick_config(label=LabelConfig(horizon_ms=60_000)), FakeSource(), "too short"),
        (quick_config(), FakeSource(frame_count=30), "no row can be used"),
        (quick_config(split=SplitConfig(folds=50)), FakeSource(frame_count=600), "too short"),
    ],
    ids=["one class", "horizon", "warm-up", "folds"],
)
def test_recording_that_cannot_be_trained_on_is_refused_and_nothing_is_written(
    config, source, words, tmp_path
):
    with pytest.raises(DataError, match=words):
        train(source, config, tmp_path / "m", device="cpu", threads=1)
    assert list(tmp_path.iterdir()) == []


def test_existing_path_is_refused_before_any_work(tmp_path):
    source = FakeSource()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "contract.json").write_text("{}")
    with pytest.raises(UsageError, match="already"):
        train(source, quick_config(), tmp_path / "m", device="cpu")
    assert source.walks == 0


def test_one_member_without_calibration_trains(tmp_path: Path):
    config = quick_config(ensemble=EnsembleConfig(members=1, calibration="none"))
    result = train(FakeSource(frame_count=1_500), config, tmp_path / "m", device="cpu", threads=1)
    bundle = load_bundle(result.bundle, graph=GRAPH)
    assert bundle.contract.calibration.kind == "none"
    assert bundle.ensemble.forest.member_count == 1
