"""Tables for notebooks: the same numbers as the parts that they come from, whichever range is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gpuscalp.archive import Archive
from gpuscalp.backtest import backtest_archive
from gpuscalp.backtest.saved import times
from gpuscalp.bundle import Bundle
from gpuscalp.config import FeatureConfig, GridConfig, LabelConfig, SplitConfig, TrainConfig
from gpuscalp.errors import ConfigError, DataError, FeatureMismatchError, UsageError
from gpuscalp.feature_table import write_features
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.research import load_model, matrix, predict, read_features, read_frames, training_rows
from gpuscalp.schema import NS_PER_MS, NS_PER_S
from gpuscalp.synthetic import MarketSpec, write
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS
from tests.backtest.model import write_stump_bundle
from tests.handmade import DROP

SYMBOLS = ("BTCUSDT", "ETHUSDT")
GRID = GridConfig()
FEATURES = FeatureConfig(drop=DROP)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("research") / "archive"
    write(MarketSpec(duration_s=100, symbols=DEFAULT_SYMBOLS[:2]), folder)
    return folder


@pytest.fixture(scope="module")
def archive(path: Path) -> Archive:
    return Archive.open(path)


@pytest.fixture(scope="module")
def whole(archive: Archive) -> pa.Table:
    return read_features(archive, features=FEATURES)


@pytest.fixture(scope="module")
def bundle(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_model(str(write_stump_bundle(tmp_path_factory.mktemp("model") / "bundle", path)))


def same(found: pa.Table, wanted: pa.Table) -> bool:
    """Whether two tables have the same columns, and in them the same bits."""
    return found.schema == wanted.schema and all(
        found[name].to_numpy().tobytes() == wanted[name].to_numpy().tobytes()
        for name in found.column_names[1:]
    )


def test_features_are_those_of_the_pipeline(archive: Archive, whole: pa.Table) -> None:
    pipeline = FeaturePipeline(
        grid=GRID, features=FEATURES, instruments=archive.instruments("synthetic"), chunk_frames=100
    )
    chunks = list(pipeline.batch(archive.tick_batches("synthetic")))
    assert times(whole, "end_ns")[::2].tolist() == [end for c in chunks for end in c.frames.end_ns.tolist()]
    assert whole["symbol"].to_pylist() == [*SYMBOLS] * (whole.num_rows // 2)
    x = np.concatenate(
        [chunk.features.transpose(2, 0, 1).reshape(-1, len(pipeline.graph)) for chunk in chunks]
    )
    assert matrix(whole).tobytes() == np.ascontiguousarray(x).tobytes()
    assert whole.schema.field("end_ns").type == pa.timestamp("ns", tz="UTC")
    assert tuple(whole.column_names[4:]) == pipeline.graph.names


def test_file_of_the_command_has_the_same_rows(path: Path, tmp_path: Path) -> None:
    write_features(path, tmp_path / "f.parquet", columns=["price.*"])
    told = pd.read_parquet(tmp_path / "f.parquet")
    read = read_features(path, columns=["price.*"])
    assert matrix(read).tobytes() == matrix(told).tobytes()
    assert told["end_ns"].tolist() == times(read, "end_ns").tolist()


@pytest.mark.parametrize("read", [read_features, read_frames])
def test_ranges_that_meet_make_up_the_whole(archive: Archive, whole: pa.Table, read: Any) -> None:
    """A range that ended with its last tick left its last frames open: they were in none of two ranges."""
    first_ns, last_ns = archive.time_range("synthetic")
    edges = [None, first_ns + 30 * NS_PER_S + 7, first_ns + 53 * NS_PER_S, last_ns - 5 * NS_PER_S]
    options = {"features": FEATURES} if read is read_features else {}
    all_of_it = whole if read is read_features else read(archive)
    parts = [
        read(archive, start_ns=start, end_ns=end, **options)
        for start, end in zip(edges, [*edges[1:], None], strict=True)
    ]
    assert same(pa.concat_tables(parts), all_of_it)


def test_range_that_ends_before_a_hole_has_its_last_frame(archive: Archive) -> None:
    """Nothing was read behind the hole, and no tick before it closes the frame."""
    grid = GridConfig(max_gap_ms=60)
    ticks = np.concatenate(list(archive.tick_batches("synthetic")))["exch_ns"]
    ends = -(-ticks[:-1] // (100 * NS_PER_MS)) * 100 * NS_PER_MS
    holes = ends[np.flatnonzero(ticks[1:] >= ends + (grid.lateness_ms + grid.max_gap_ms) * NS_PER_MS)]
    end_ns = int(holes[len(holes) // 2])
    first_ns = end_ns - NS_PER_S
    whole = read_frames(archive, grid=grid, start_ns=first_ns)
    wanted = whole.filter(times(whole, "end_ns") <= end_ns)
    assert times(wanted, "end_ns")[-1] == end_ns
    assert same(read_frames(archive, grid=grid, start_ns=first_ns, end_ns=end_ns), wanted)


def test_range_without_a_frame_is_refused(archive: Archive) -> None:
    first_ns, _ = archive.time_range("synthetic")
    with pytest.raises(DataError, match="no frame closes in the range"):
        read_features(archive, start_ns=first_ns, end_ns=first_ns + 50 * NS_PER_MS)
    with pytest.raises(UsageError, match="nothing in the range"):
        read_frames(archive, end_ns=first_ns)


def test_predictions_are_the_ensemble_s_whatever_holds_the_rows(archive: Archive, bundle: Bundle) -> None:
    rows = read_features(archive, bundle=bundle)
    said = predict(bundle, rows)
    signals = bundle.ensemble.predict(matrix(rows))
    assert said["edge_bps"].to_numpy().tobytes() == signals.edge_bps.tobytes()
    assert said["p_down"].to_numpy().tobytes() == signals.probability[:, 0].copy().tobytes()
    assert said["end_ns"] == rows["end_ns"]
    frame = rows.to_pandas()
    frame = frame[["symbol", *reversed(bundle.contract.names)]]  # by name and not by place
    for held in (frame, {name: frame[name].to_numpy() for name in frame.columns}):
        assert predict(bundle, held)["edge_bps"].to_pylist() == said["edge_bps"].to_pylist()


def test_rows_of_other_features_are_refused(archive: Archive, whole: pa.Table, bundle: Bundle) -> None:
    rows = read_features(archive, bundle=bundle)
    name = bundle.contract.names[3]
    with pytest.raises(FeatureMismatchError, match=f"{name} is missing"):
        predict(bundle, rows.drop_columns([name]))
    # The same columns by name, of another leader.
    assert set(bundle.contract.names) == set(whole.column_names[4:])
    features = FeatureConfig(drop=DROP, leader="ETHUSDT")
    with pytest.raises(FeatureMismatchError, match="hash"):
        predict(bundle, read_features(archive, features=features))


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda frame, name: frame.assign(**{name: "1.5"}), "must hold numbers"),
        (lambda frame, name: frame.assign(**{name: pd.Timestamp("2024-01-01")}), "must hold numbers"),
        (lambda frame, name: frame.assign(**{name: pd.Categorical(["1"] * len(frame))}), "must hold numbers"),
        (lambda frame, name: frame.assign(**{name: [1, "a"] * (len(frame) // 2)}), "no table"),
        (lambda frame, name: pd.concat([frame, frame[[name]]], axis=1), "no table"),
        (
            lambda frame, name: pa.Table.from_pandas(frame.drop(columns="end_ns")).append_column(
                name, [[1.0] * len(frame)]
            ),
            "same name",
        ),
        (lambda frame, _: frame.to_numpy(), "no table"),
        (lambda *_: None, "no table"),
        (lambda *_: [1, 2], "no table"),
        (lambda frame, name: {name: frame[name].to_numpy(), "more": np.zeros(1)}, "no table"),
        (lambda *_: {"some": 1.0}, "no table"),
    ],
)
def test_rows_that_are_no_table_of_numbers_are_refused(
    archive: Archive, bundle: Bundle, spoil: Any, what: str
) -> None:
    """Texts and times were read as numbers, silently; the others were errors of Arrow or NumPy."""
    frame = read_features(archive, bundle=bundle).to_pandas().iloc[:4]
    rows, name = spoil(frame, bundle.contract.names[3]), bundle.contract.names[3]
    with pytest.raises(UsageError, match=what):
        predict(bundle, rows)
    with pytest.raises(UsageError, match=what):
        matrix(rows, [name])


def test_column_that_is_not_there_is_refused_and_one_without_values_is_not_warm() -> None:
    with pytest.raises(UsageError, match="missing; value: 'nope'"):
        matrix({"a": [1.0]}, ["nope"])
    rows = {"none": [None, None], "some": [None, 1], "truth": [True, False], "nan": [float("nan"), 2.0]}
    found = matrix(rows, list(rows))
    assert found.dtype == np.float32
    assert np.array_equal(found.T, [[np.nan] * 2, [np.nan, 1], [1, 0], [np.nan, 2]], equal_nan=True)


def test_training_rows_have_the_return_that_the_frames_show(archive: Archive) -> None:
    config = TrainConfig(
        venue="synthetic",
        features=FEATURES,
        label=LabelConfig(horizon_ms=700, threshold_bps=0.4),
        split=SplitConfig(folds=3),
        stride_frames=2,
    )
    rows = training_rows(archive, config)
    table = rows.table.to_pandas()
    frames = read_frames(archive).to_pandas()
    frames["mid"] = (frames["bid"] + frames["ask"]) / 2
    mids = frames.set_index(["symbol", "end_ns"])["mid"]
    later = pd.MultiIndex.from_arrays([table["symbol"], table["end_ns"] + pd.Timedelta(milliseconds=700)])
    moved = 1e4 * (mids.loc[later].to_numpy() / table["mid"].to_numpy() - 1.0)
    # Here of decimal prices, there of ticks.
    np.testing.assert_allclose(table["return_bps"], moved, atol=1e-7)
    clear = np.abs(np.abs(moved) - 0.4) > 1e-6
    assert (table["direction"][clear] == np.where(moved > 0.4, 2, np.where(moved < -0.4, 0, 1))[clear]).all()
    assert (table["end_ns"].astype("int64") // (100 * NS_PER_MS) % 2 == 0).all()
    assert (table["label_end_ns"] - table["end_ns"] == pd.Timedelta(milliseconds=700)).all()
    assert table["weight"].between(0.0, 1.0, inclusive="right").all()
    assert len(rows.folds) == 3
    for fold in rows.folds:
        train, test = table[rows.train(fold)], table[rows.test(fold)]
        assert len(train) > 100
        assert len(test) > 100
        assert train["label_end_ns"].max() + pd.Timedelta(milliseconds=700) <= test["end_ns"].min()


def test_horizon_that_is_no_whole_number_of_frames_is_refused(archive: Archive) -> None:
    with pytest.raises(ConfigError, match="whole number of frames"):
        training_rows(archive, TrainConfig(venue="synthetic", label=LabelConfig(horizon_ms=750)))


@pytest.mark.parametrize(
    "time",
    [pd.Timestamp("2024-01-01", tz="UTC"), "2024-01-01", 1.7e18, np.datetime64("2024-01-01", "ns")],
    ids=lambda time: type(time).__name__,
)
@pytest.mark.parametrize("name", ["start_ns", "end_ns"])
def test_time_that_is_no_integer_is_refused_by_its_name(
    path: Path, bundle: Bundle, name: str, time: Any
) -> None:
    """They ended in a TypeError of a comparison, and a float was taken."""
    archive, asked = Archive.open(path), {name: time}
    calls = (
        lambda: read_features(path, features=FEATURES, **asked),
        lambda: read_frames(path, **asked),
        lambda: training_rows(path, TrainConfig(venue="synthetic"), **asked),
        lambda: backtest_archive(path, bundle.path, **asked),
        lambda: archive.table("synthetic", SYMBOLS[0], "trades", **asked),
        lambda: archive.quotes("synthetic", SYMBOLS[0], **asked),
        lambda: archive.digest("synthetic", **asked),
        lambda: archive.tick_batches("synthetic", **asked),
    )
    for call in calls:
        with pytest.raises(UsageError, match="a time is an integer") as caught:
            call()
        assert caught.value.where == name
        assert ".value" in str(caught.value.fix)


def test_integers_of_numpy_are_times(archive: Archive) -> None:
    first, last = archive.time_range("synthetic")
    rows = archive.table("synthetic", SYMBOLS[0], "trades", start_ns=np.int64(first), end_ns=np.int64(last))
    assert rows.equals(archive.table("synthetic", SYMBOLS[0], "trades"))
