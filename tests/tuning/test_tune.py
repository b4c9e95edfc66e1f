"""The command on a real Ray: killed at a random moment, resumed, compared with a search without Ray."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray", reason="extra ray is not installed")
pytest.importorskip("optuna", reason="extra ray is not installed")

from gpuscalp.archive import Archive
from gpuscalp.backtest import run_backtest
from gpuscalp.backtest.models import counted
from gpuscalp.bundle import load_bundle, read_contract
from gpuscalp.config import BacktestConfig, TrainConfig, TuneConfig, load
from gpuscalp.distributed.job import Job, versions
from gpuscalp.train import ArchiveSource
from gpuscalp.tuning.cluster import TrialSpec
from gpuscalp.tuning.search import Task, best_of, search
from gpuscalp.tuning.space import Space
from gpuscalp.tuning.trials import TRIALS_FILE, Rung, TrialLog
from tests.handmade import DROP
from tests.walkforward.market import write_market

TRIALS = 10
CONFIG = f"""
[train]
venue = "synthetic"
symbols = ["BTCUSDT", "ETHUSDT"]
stride_frames = 2
features = {{ drop = {json.dumps(DROP)} }}
label = {{ horizon_ms = 300, threshold_bps = 0.3 }}
split = {{ folds = 2 }}
booster = {{ rounds = 9, early_stopping_rounds = 4, eta = 0.3, max_depth = 3, max_bin = 32 }}
ensemble = {{ members = 2 }}
[cost]
taker_fee_bps = 0.0
[space]
"label.horizon_ms" = {{ choices = [300, 500] }}
"booster.eta" = {{ low = 0.1, high = 0.5, log = true }}
"strategy.min_edge_bps" = {{ low = -4.0, high = 1.0 }}
[search]
generation = 5
random_trials = 5
"""


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> Path:
    return write_market(tmp_path_factory.mktemp("tune") / "archive", duration_s=150)


@pytest.fixture(scope="module")
def config(market) -> Path:
    path = market.parent / "tune.toml"
    path.write_text(CONFIG)
    return path


def command(market: Path, config: Path, out: Path, *words: str) -> list[str]:
    return [
        *(sys.executable, "-m", "gpuscalp", "tune", str(market), "--trials", str(TRIALS)),
        *("--config", str(config), "--out", str(out), "--device", "cpu", "--json", *words),
    ]


def rungs(out: Path) -> list[tuple[int, int]]:
    """Trial and rung of the whole lines."""
    try:
        data = (out / TRIALS_FILE).read_bytes()
    except FileNotFoundError:
        return []
    lines = [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
    return [(line["trial"], line["rung"]) for line in lines if line["line"] == "rung"]


def ours(tree: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [process for process in tree if process.is_running() and process.status() != "zombie"]


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(900)  # two starts of Ray, on cores that others may use as well
def test_killed_and_resumed_search_is_the_one_that_never_ended(market, config, tmp_path, rng):
    out = tmp_path / "search"
    wanted = int(rng.integers(1, 9))
    driver = subprocess.Popen(
        command(market, config, out, "--concurrent", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(rungs(out)) < wanted:
        assert driver.poll() is None, driver.stderr.read()
        time.sleep(0.02)
    tree = psutil.Process(driver.pid).children(recursive=True)
    listening = [
        connection.laddr.ip
        for process in tree
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stderr.close()
    before = (out / TRIALS_FILE).read_bytes()
    finished = rungs(out)
    left_behind = Path((out / "ray.folder").read_text())
    assert left_behind.exists()
    assert listening
    assert {ip.removeprefix("::ffff:") for ip in listening} <= {"127.0.0.1", "::1"}

    driver = subprocess.Popen(
        command(market, config, out, "--concurrent", "1", "--resume"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _kill_worker(driver)
    stdout, stderr = driver.communicate()
    assert driver.returncode == 0, stderr
    answer = json.loads(stdout)  # and nothing of what Ray says of its worker
    # No finished trial is lost, and none is made twice.
    assert (out / TRIALS_FILE).read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert answer["kept_lines"] == len(finished) >= wanted
    assert len(rungs(out)) == len(set(rungs(out)))
    _compare(market, config, tmp_path / "here", answer)
    # Nothing of Ray stays: neither of the killed driver nor of this one.
    assert not left_behind.exists()
    assert not (out / "ray.folder").exists()
    _, alive = psutil.wait_procs(tree, timeout=60)
    assert not ours(alive)
    _check_what_is_left(market, out, answer)


def _kill_worker(driver: subprocess.Popen) -> None:
    """Kill the worker while it makes its first trial; both are begun again."""
    while driver.poll() is None:
        for process in psutil.Process(driver.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[:1] == ["ray::_Worker.make"]:
                    process.kill()
                    return
        time.sleep(0.02)


def _compare(market: Path, config: Path, folder: Path, answer: dict) -> None:
    """Make the same search in this process, without Ray and without an end in between."""
    tune = load(TuneConfig, config)
    source = ArchiveSource.open(Archive.open(market), tune.train)
    job = Job(market, tune.train, None, None, source.digest(), versions(), "cpu", 1)
    spec = TrialSpec(job, 0.0, tune.cost, kept=2)
    evaluator = spec.evaluator()

    def pool(tasks: Sequence[Task]) -> Iterator[Rung]:
        for task in reversed(tasks):
            yield evaluator.make(task)

    folder.mkdir()
    with TrialLog(folder) as log:
        trials = search(
            log,
            Space(tune),
            search=tune.search,
            score=tune.score,
            rounds=tune.train.booster.rounds,
            trials=TRIALS,
            pool=pool,
            told=lambda done, total=None, note="": None,
        )
    assert [(row["state"], row["score"], row["params"]) for row in answer["table"]] == [
        (trial.state, trial.score, trial.params) for trial in trials
    ]
    assert answer["best"]["trial"] == best_of(trials).number
    assert answer["configured"]["trial"] == 0


def _check_what_is_left(market: Path, out: Path, answer: dict) -> None:
    contract = read_contract(out / "bundle")
    assert contract.training.tried == TRIALS
    assert contract.training.config == load(TrainConfig, out / "train.toml")
    params = answer["best"]["params"]
    assert contract.training.config.booster.eta == params["booster.eta"]
    assert contract.training.config.label.horizon_ms == params["label.horizon_ms"]
    load_bundle(out / "bundle", graph=None)
    trade = load(BacktestConfig, out / "backtest.toml")
    assert (trade.trials, trade.strategy.min_edge_bps) == (TRIALS, params["strategy.min_edge_bps"])
    # A backtest that was told of no trials counts those of the bundle; one that was told of more keeps them.
    run = run_backtest(market, out / "bundle", config=BacktestConfig(), out=out / "run", threads=1)
    assert run.summary["trials"] == TRIALS
    assert counted(BacktestConfig(trials=99), contract.training).trials == 99
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "http://" not in page.replace("http://www.w3.org", "")
    for name in params:
        assert name in page


def test_search_of_another_seed_is_not_gone_on_with(market, config, tmp_path, cli):
    words = ["tune", str(market), "--trials", "5", "--config", str(config), "--out", str(tmp_path / "s")]
    answer = cli(*words, "--resume", "--json")
    assert (answer.code, json.loads(answer.stdout)["error"]["what"]) == (2, "no search here to go on with")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "config.json").write_text('{"hash": "another"}')
    answer = cli(*words, "--resume", "--json")
    assert answer.code == 2
    assert "another search" in json.loads(answer.stdout)["error"]["what"]
    assert "taken" in json.loads(cli(*words, "--json").stdout)["error"]["what"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:none"])
def test_address_that_nobody_listens_at_is_refused_at_once(market, config, tmp_path, cli, address):
    words = ["tune", str(market), "--trials", "5", "--config", str(config), "--out", str(tmp_path / "s")]
    answer = cli(*words, "--device", "cpu", "--address", address, "--json")
    assert (answer.code, json.loads(answer.stdout)["error"]["what"]) == (2, "no Ray cluster can be reached")
