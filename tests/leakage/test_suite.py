"""Every planted leak is caught, nothing shipped alarms, and a leak in what is shipped would be seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpuscalp.config import GridConfig, LabelConfig, TrainConfig
from gpuscalp.errors import DataError
from gpuscalp.excerpt import Excerpt
from gpuscalp.leakage import check_leakage, examine
from gpuscalp.leakage.planted import PLANTS
from gpuscalp.leakage.series import SeriesMaker
from gpuscalp.leakage.shipped import Shipped
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_MS
from gpuscalp.splits import walk_forward
from gpuscalp.train.dataset import count_rows
from tests.random_ticks import instruments, random_ticks
from tests.thorough import examples

CONFIG = TrainConfig(grid=GridConfig(frame_ms=50), label=LabelConfig(horizon_ms=500))


def excerpt(seed=3, count=9_000, symbols=2, **options):
    ticks = random_ticks(seed, count, symbols, step_ms=12.0, disorder_ms=25.0, clock_share=0.01, **options)
    ticks["quality"] = 0
    return Excerpt("synthetic", instruments(symbols), ticks, complete=True)


@pytest.fixture(scope="module")
def report():
    return check_leakage(excerpt(), config=CONFIG, cuts=examples(4))


def test_all_planted_leaks_are_caught(report):
    assert report.missed == []
    assert report.to_dict()["caught"] == report.to_dict()["planted"] == len(PLANTS) + 2


def test_the_leaks_that_people_make_are_planted(report):
    assert {
        "gradient over both sides",
        "centred window",
        "whole-series scaling",
        "as-of join on bar open",
        "off-by-one merge",
        "FFT window including t+1",
        "overlapping labels",
    } <= set(report.planted)


def test_nothing_shipped_and_no_honest_twin_alarms(report):
    assert report.alarms == []
    assert report.clean


def test_every_feature_label_and_fold_is_checked(report):
    names = {finding.name: finding for finding in report.shipped}
    assert len(names["features"].columns) > 190
    assert {"forward labels, content", "barrier labels, existence", "training rows, barrier labels"} <= set(
        names
    )
    assert all(finding.values > 1_000 for finding in report.shipped)


def test_answer_has_the_keys_that_others_rely_on(report):
    answer = report.to_dict()
    assert {"planted", "caught", "checked", "false_alarms"} <= set(answer)
    assert answer["checked"] == sum(len(f.columns) for f in report.shipped + report.twins)


def test_features_of_a_future_are_computed_once_for_all_probes(monkeypatch):
    """They were computed for each of ten probes, and took two thirds of the time."""
    seen = []
    batch = FeaturePipeline.batch

    def counted(self, tick_batches):
        seen.append(1)
        return batch(self, tick_batches)

    monkeypatch.setattr(FeaturePipeline, "batch", counted)
    report = check_leakage(excerpt(count=4_000), config=CONFIG, cuts=1)
    assert report.missed == []
    recorded = len(report.shipped) + 2 + 1  # each has a copy of the recording; the folds have it too
    assert len(seen) == report.cuts * report.futures + recorded


def test_feature_that_sees_one_frame_ahead_is_named():
    """The shipped probe itself, with one column moved: the detector names that column and no other."""
    made = Shipped(CONFIG, instruments(2))

    def leaky(ticks):
        rows = made.features(ticks)
        values = rows.values.copy()
        at = rows.names.index("price.move.8")
        values[:-2, at] = rows.values[2:, at]
        return dataclasses.replace(rows, values=values)

    found = examine({"features": leaky}, excerpt().ticks, cut_count=3)["features"]
    assert set(found.leaks) == {"price.move.8"}


def test_label_declared_shorter_than_it_looks_is_caught():
    made = Shipped(CONFIG, instruments(2))

    def leaky(ticks):
        rows = made.label_content(ticks)
        return dataclasses.replace(rows, known_ns=rows.known_ns - 50 * NS_PER_MS)

    assert examine({"labels": leaky}, excerpt().ticks, cut_count=6)["labels"].leaks


def test_silence_in_the_recording_raises_no_alarm():
    pause = excerpt(4, count=7_000, silences=1, silence_ms=70_000.0)
    made = Shipped(CONFIG, pause.instruments)
    found = examine(
        {"features": made.features, "content": made.label_content, "existence": made.label_existence},
        pause.ticks,
        cut_count=4,
    )
    assert {name: finding.leaks for name, finding in found.items()} == {name: {} for name in found}


def test_plants_are_made_of_one_value_per_frame():
    series = SeriesMaker(CONFIG.grid, instruments(2))(excerpt(5, count=2_000).ticks)
    empty = SeriesMaker(CONFIG.grid, instruments(2))(excerpt(5, count=1).ticks)
    for plant in PLANTS:
        for transform in (plant.leaky, plant.honest):
            assert transform(series).shape == series.end_ns.shape, plant.name
            assert transform(empty).shape == (0,), plant.name
        leaky, honest = plant.leaky(series), plant.honest(series)
        assert not np.array_equal(leaky, honest, equal_nan=True) or "late ticks" in plant.name, plant.name


def test_ticks_too_few_for_all_folds_are_checked_with_fewer():
    """It refused them, although they are enough for some folds; the training rows of those are examined."""
    few = excerpt(count=4_500)
    with pytest.raises(DataError, match="too short"):
        walk_forward(
            count_rows(Shipped(CONFIG, few.instruments)._labelled(few.ticks)),
            CONFIG.split,
            horizon_ns=CONFIG.label.horizon_ms * NS_PER_MS,
        )
    report = check_leakage(few, config=CONFIG, cuts=1)
    assert report.clean
    assert (report.folds, report.folds_configured) == (3, CONFIG.split.folds)
    assert report.to_dict()["folds"] == 3


def test_recording_too_short_for_folds_is_refused():
    with pytest.raises(DataError, match="too short|nothing to split"):
        check_leakage(excerpt(count=500), config=CONFIG, cuts=1)
