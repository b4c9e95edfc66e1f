"""A schedule of bundles: the same path as one bundle, and what has no place in it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.backtest import run_backtest
from gpuscalp.backtest.band import BandPlan
from gpuscalp.backtest.models import Models, Scheduled
from gpuscalp.bundle import read_contract
from gpuscalp.config import LabelConfig
from gpuscalp.contract import Interval
from gpuscalp.errors import ModelError, UsageError
from gpuscalp.features import FeatureGraph
from gpuscalp.schema import NS_PER_S, FeatureChunk, FrameBlock
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS, MarketSpec
from gpuscalp.synthetic.write import write
from tests.backtest.model import CONFIG, write_stump_bundle
from tests.handmade import follows, write_handmade


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("market") / "archive"
    write(MarketSpec(duration_s=40, symbols=DEFAULT_SYMBOLS[:2]), path)
    return path


@pytest.fixture(scope="module")
def bundle(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stump_bundle(tmp_path_factory.mktemp("model") / "bundle", archive)


def _another(bundle: Path, path: Path, *, threshold: float = 0.5, **changes: object) -> Path:
    """Write a bundle like another one, with changes of its training configuration."""
    training = read_contract(bundle).training
    trained_on = changes.pop("trained_on", training.trained_on)
    return write_handmade(
        path,
        msgspec.structs.replace(training.config, **changes),
        lambda names: follows(names.index("leader.price.move.4"), len(names), threshold),
        trained_on=trained_on,  # type: ignore[arg-type]
    )


def test_same_model_taking_over_from_itself_changes_nothing(archive, bundle, tmp_path):
    start_ns, _ = Archive.open(archive).time_range("synthetic")
    schedule = [
        Scheduled(start_ns, bundle),
        Scheduled(start_ns + 17 * NS_PER_S, bundle),
        Scheduled(start_ns + 17 * NS_PER_S + 1, bundle),
        Scheduled(start_ns + 30 * NS_PER_S, bundle),
    ]
    one = run_backtest(archive, bundle, config=CONFIG, out=tmp_path / "one")
    many = run_backtest(archive, schedule, config=CONFIG, out=tmp_path / "many")
    assert one.summary["trades"] > 10
    for name in ("trades.parquet", "equity.parquet"):
        assert (one.run_dir / name).read_bytes() == (many.run_dir / name).read_bytes()
    assert one.summary["bundle_digest"] != many.summary["bundle_digest"]


def test_model_that_takes_over_decides_from_its_instant_on(archive, bundle, tmp_path):
    start_ns, _ = Archive.open(archive).time_range("synthetic")
    change_ns = start_ns + 20 * NS_PER_S
    never = _another(bundle, tmp_path / "never", threshold=1e9)
    run = run_backtest(
        archive,
        [Scheduled(start_ns, bundle), Scheduled(change_ns, never)],
        config=CONFIG,
        out=tmp_path / "run",
    )
    import pyarrow.parquet as pq

    decided = pq.read_table(run.run_dir / "trades.parquet")["entry_decided"].cast("int64").to_numpy()
    assert len(decided) > 5
    assert decided.max() <= change_ns
    assert decided.max() > change_ns - 5 * NS_PER_S


def test_frames_are_cut_where_the_next_model_begins(bundle, tmp_path):
    training = read_contract(bundle).training
    graph = FeatureGraph(training.config.grid, training.config.features, training.symbols)
    other = _another(bundle, tmp_path / "other", trained_on=Interval(0, 1))
    models = Models([Scheduled(training.trained_on.end_ns, bundle), Scheduled(2 * 10**18, other)], graph)
    end_ns = 2 * 10**18 + np.array([-2, -1, 0, 1, 2], np.int64)
    blank = np.zeros((5, 2), np.int32)
    frames = FrameBlock(
        end_ns, np.zeros((5, 1, 2), np.float32), blank.astype(np.uint32), blank, blank, np.zeros((5, 2))
    )
    chunk = FeatureChunk(frames, np.zeros((2, 1, 5), np.float32))
    parts = [(found.path.name, part.frames.end_ns.tolist()) for found, part in models.parts(chunk)]
    assert parts == [("bundle", end_ns[:3].tolist()), ("other", end_ns[3:].tolist())]


def test_schedule_refuses_a_model_that_has_seen_what_it_is_to_trade(archive, bundle, tmp_path):
    start_ns, _ = Archive.open(archive).time_range("synthetic")
    seen = _another(bundle, tmp_path / "seen", trained_on=Interval(start_ns, start_ns + 10 * NS_PER_S))
    schedule = [Scheduled(start_ns, bundle), Scheduled(start_ns + 10 * NS_PER_S - 1, seen)]
    with pytest.raises(ModelError, match="trained on the time that it is to trade"):
        run_backtest(archive, schedule, config=CONFIG, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_band_of_a_schedule_is_refused(archive, bundle, tmp_path):
    start_ns, _ = Archive.open(archive).time_range("synthetic")
    with pytest.raises(UsageError, match="band is that of one model"):
        run_backtest(
            archive,
            [Scheduled(start_ns, bundle)],
            config=CONFIG,
            out=tmp_path / "run",
            band=BandPlan(tmp_path, 1),
        )


def test_schedule_refuses_a_model_of_another_label(archive, bundle, tmp_path):
    start_ns, _ = Archive.open(archive).time_range("synthetic")
    other = _another(bundle, tmp_path / "other", label=LabelConfig(horizon_ms=400))
    schedule = [Scheduled(start_ns, bundle), Scheduled(start_ns + NS_PER_S, other)]
    with pytest.raises(ModelError, match="differ in label"):
        run_backtest(archive, schedule, config=CONFIG, out=tmp_path / "run")
