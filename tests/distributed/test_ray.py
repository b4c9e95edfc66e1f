"""Training on a Ray cluster of two nodes, raylets of this machine: the same model, whoever is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from gpuscalp.bundle import load_bundle
from gpuscalp.config import (
    BoosterConfig,
    EnsembleConfig,
    FeatureConfig,
    LabelConfig,
    SplitConfig,
    TrainConfig,
)
from gpuscalp.errors import DataError, UsageError
from gpuscalp.features import FeatureGraph
from gpuscalp.synthetic import VENUE, MarketSpec, write
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS
from gpuscalp.train import train_archive

pytest.importorskip("ray", reason="Ray is not installed (extra ray)")

from gpuscalp.distributed import train_on_ray
from gpuscalp.ray_cluster import connected

pytestmark = [pytest.mark.slow]

RECORDED = ("btcusdt_20240718", "btcusdt_20240719", "ethusdt_20240718", "ethusdt_20240719")


def test_address_without_a_cluster_is_refused_at_once():
    began = time.monotonic()
    with pytest.raises(UsageError, match="no Ray cluster can be reached"), connected("127.0.0.1:1"):
        pass
    assert time.monotonic() - began < 60


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one core each; gives the ids of the processes that belong to them."""
    with connected(cpus=1) as ray:
        address = ray.get_runtime_context().gcs_address
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--address", address]
        second = subprocess.Popen(
            [*command, "--num-cpus", "1", "--node-ip-address", "127.0.0.1", "--block"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until = time.monotonic() + 120
            while sum(node["Alive"] for node in ray.nodes()) < 2:
                assert second.poll() is None, "ray start has ended"
                assert time.monotonic() < until, "the second node does not come"
                time.sleep(0.2)
            yield os.getpid(), second.pid
        finally:
            second.terminate()
            second.wait(60)


def test_no_other_user_reaches_the_sockets_of_an_own_cluster(cluster):
    """Ray opens its folder to everybody, and everything in it: it was the folder itself that we had made."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    assert len(nodes) == 2
    for node in nodes:
        for name in ("RayletSocketName", "ObjectStoreSocketName"):
            path = Path(node[name])
            assert path.is_socket()
            assert len(str(path)) <= 107
            closed = [each for each in path.parents if each.stat().st_mode & 0o077 == 0]
            assert closed, path
            assert closed[0].stat().st_uid == os.getuid()


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> tuple[Path, TrainConfig]:
    """The recordings of eight minutes where they are, else as much of the synthetic market."""
    path = tmp_path_factory.mktemp("market") / "archive"
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("GPUSCALP_RECORDINGS", root.parent / "shared" / "data" / "binance"))
    if folder.is_dir():
        from gpuscalp.cli import run

        files = [str(folder / "usdm" / f"{name}.gz") for name in RECORDED]
        assert run(["data", "import", *files, "--out", str(path)]) == 0
        return path, config("binance_usdm")
    write(MarketSpec(duration_s=480, symbols=DEFAULT_SYMBOLS[:2]), path)
    return path, config(VENUE)


def config(venue: str, **label: float) -> TrainConfig:
    """Without sampling: what is left between one worker and two is the order of sums and the sketch."""
    return TrainConfig(
        venue=venue,
        features=FeatureConfig(drop=("*.128", "*.256", "*.512", "*.ewm.*", "*.macd.*")),
        label=LabelConfig(horizon_ms=1_000, **({"threshold_bps": 1.0} | label)),
        split=SplitConfig(folds=2),
        booster=BoosterConfig(
            rounds=30, early_stopping_rounds=8, eta=0.2, max_depth=4, max_bin=64, min_child_weight=10.0,
            subsample=1.0, colsample_bytree=1.0,
        ),
        ensemble=EnsembleConfig(members=2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(market, tmp_path_factory):
    archive, settings = market
    return train_archive(
        archive, tmp_path_factory.mktemp("alone") / "m", config=settings, device="cpu", threads=1
    )


@pytest.fixture(scope="module")
def pair(cluster, market, tmp_path_factory):
    archive, settings = market
    out = tmp_path_factory.mktemp("pair") / "m"
    return train_on_ray(archive, out, workers=2, config=settings, device="cpu", threads=1)


def test_two_workers_see_the_rows_that_one_sees(alone, pair):
    assert pair.training.rows == alone.training.rows
    assert pair.training.trained_on == alone.training.trained_on
    assert pair.training.data_digest == alone.training.data_digest
    for ours, theirs in zip(pair.folds, alone.folds, strict=True):
        assert ours.fold == theirs.fold
        assert ours.trained.count.tolist() == theirs.trained.count.tolist()
        assert ours.trained.weight == pytest.approx(theirs.trained.weight, rel=1e-12)
        assert ours.score.rows == theirs.score.rows
        # Of the rows, not of the model: they are the same rows.
        assert ours.score.base_log_loss == pytest.approx(theirs.score.base_log_loss, rel=1e-12)
    np.testing.assert_allclose(pair.class_return_bps, alone.class_return_bps, rtol=1e-12)
    assert "workers: 2, cores of each: 1, machines: 2" in pair.device_reason


def test_two_workers_give_the_model_of_one_within_the_tolerance(alone, pair):
    """docs/distributed.md states it: the merged sketch moves a cut by a few ranks, and a split with it."""
    assert pair.overall.log_loss == pytest.approx(alone.overall.log_loss, abs=0.005)
    assert pair.overall.ic.value == pytest.approx(alone.overall.ic.value, abs=0.02)
    settings = alone.training.config
    graph = FeatureGraph(settings.grid, settings.features, alone.training.symbols)
    one, two = (load_bundle(result.bundle, graph=graph) for result in (alone, pair))
    x = one.contract.canary.x.array("float32", "canary.x")[:24]  # the rows as they were recorded
    ours, theirs = two.ensemble.predict(x), one.ensemble.predict(x)
    assert np.abs(ours.probability - theirs.probability).mean() < 0.01
    assert np.corrcoef(ours.edge_bps, theirs.edge_bps)[0, 1] > 0.95
    # The sample of the columns lies on the grid of time, so it is made of the same rows.
    np.testing.assert_array_equal(one.reference.trained.edges, two.reference.trained.edges)


@pytest.mark.thorough
def test_killed_worker_changes_nothing_but_the_time(cluster, market, pair, tmp_path):
    killed: list[int] = []
    notes: list[str] = []

    def told(done, total=None, note=""):
        notes.append(note)
        if not killed and note.startswith("fold 2"):
            victim = max(train_workers(cluster), key=lambda process: process.pid)
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim.pid)

    archive, settings = market
    again = train_on_ray(
        archive, tmp_path / "m", workers=2, config=settings, device="cpu", threads=1, on_progress=told
    )
    assert killed, "the run was over before a worker could be killed"
    assert any("workers started 2 times" in note for note in notes)
    for name in ("contract.json", "forest.npz", "members/member_00.ubj", "members/member_01.ubj"):
        assert (again.bundle / name).read_bytes() == (pair.bundle / name).read_bytes(), name


def test_fault_in_the_data_ends_the_run_with_its_own_words(cluster, market, tmp_path):
    archive, settings = market
    hopeless = config(settings.venue, threshold_bps=5_000.0)
    with pytest.raises(DataError, match="all training rows are of one class"):
        train_on_ray(archive, tmp_path / "m", workers=2, config=hopeless, device="cpu", threads=1)
    assert not (tmp_path / "m").exists()


def test_cluster_that_is_too_small_is_refused(cluster, market, tmp_path):
    archive, settings = market
    with pytest.raises(UsageError, match="too few cores"):
        train_on_ray(archive, tmp_path / "m", workers=3, config=settings, device="cpu", threads=1)


def train_workers(roots: tuple[int, ...]) -> list[psutil.Process]:
    """The processes of Ray Train's workers below some processes."""
    found = []
    for root in roots:
        for process in psutil.Process(root).children(recursive=True):
            try:
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
    return found
