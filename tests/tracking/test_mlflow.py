"""Bundles to and from a real ``mlflow server`` on loopback, and a store of this machine.

What the server has is read back by tests/tracking/server.py: none of our code, and none of MLflow's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.bundle import read_contract
from gpuscalp.config import TrainConfig, load
from gpuscalp.registry import Registry
from gpuscalp.tracking import connection
from tests.ports import free_port
from tests.registry.models import tiny_bundles
from tests.tracking.server import Server, serving

pytestmark = [
    pytest.mark.skipif(
        find_spec("mlflow") is None or find_spec("flask") is None,
        reason="MLflow with its server is not installed (extra mlflow, and pip install mlflow)",
    ),
    pytest.mark.slow,
    # SQLAlchemy's about what MLflow calls
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

START_S = 120.0


@pytest.fixture(scope="module")
def starting(tmp_path_factory):
    """A server that starts while the bundles are made."""
    with serving(tmp_path_factory.mktemp("mlflow")) as found:
        yield found


@pytest.fixture(scope="module")
def bundles(starting, tmp_path_factory) -> list[Path]:
    """Two bundles, never changed."""
    return tiny_bundles(tmp_path_factory.mktemp("tiny"), 2)


@pytest.fixture(scope="module")
def server(starting, bundles) -> Server:
    found, process = starting
    end_s = time.monotonic() + START_S
    while True:
        try:
            found.raw("/health")
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None or time.monotonic() > end_s:
                pytest.fail((found.folder / "log").read_text())
            time.sleep(0.1)
        else:
            return found


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Nobody's server, registry or store; and no patience with a server that is not there."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("GPUSCALP_REGISTRY", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    # What connecting sets is taken back after the test.
    for name in (*connection._SETTINGS, *connection._PATIENCE):
        monkeypatch.setenv(name, os.environ.get(name, ""))
        if not os.environ[name]:
            monkeypatch.delenv(name)


def answer(result) -> dict:
    assert result.code == 0, (result.stdout, result.stderr)
    return json.loads(result.stdout)


def test_run_on_the_server_says_what_the_bundle_says(cli, server, bundles):
    sent = answer(cli("model", "push", bundles[0], "--tracking", server.uri, "--json"))
    run, contract = server.run(sent["run_id"]), read_contract(bundles[0])
    result = json.loads((bundles[0] / "result.json").read_bytes())
    params = {each["key"]: each["value"] for each in run["data"]["params"]}
    env = {f"GPUSCALP__{key.replace('.', '__').upper()}": text for key, text in params.items()}
    assert load(TrainConfig, env=env) == contract.training.config
    metrics = {each["key"]: each["value"] for each in run["data"]["metrics"]}
    told = {name: value for name, value in contract.training.metrics.items() if value is not None}
    assert {name: metrics[name] for name in told} == told
    assert metrics["train_rows"] == contract.training.rows
    assert metrics["seconds"] == result["seconds"]
    for name in ("log_loss", "ic", "train_rows"):
        history = server.get("metrics/get-history", run_id=sent["run_id"], metric_key=f"fold/{name}")
        assert {each["step"]: each["value"] for each in history["metrics"]} == {
            number: fold[name] for number, fold in enumerate(result["folds"], start=1)
        }
    tags = {each["key"]: each["value"] for each in run["data"]["tags"]}
    assert tags["gpuscalp.bundle_digest"] == contract.digest == sent["digest"]
    assert tags["gpuscalp.data_digest"] == contract.training.data_digest
    assert tags["version.xgboost"] == contract.training.versions["xgboost"]
    assert "mlflow.source.git.commit" not in tags  # of the training nothing is known
    assert run["info"]["status"] == "FINISHED"
    assert sent["url"].endswith(f"/#/experiments/{run['info']['experiment_id']}/runs/{sent['run_id']}")
    for path in bundles[0].rglob("*"):
        if path.is_file():
            name = path.relative_to(bundles[0]).as_posix()
            assert server.file(sent["run_id"], f"bundle/{name}") == path.read_bytes(), name


def test_boosters_read_back_from_the_server_give_the_canary_margins(cli, server, bundles):
    import xgboost

    sent = answer(cli("model", "push", bundles[0], "--tracking", server.uri, "--json"))
    contract = json.loads(server.file(sent["run_id"], "bundle/contract.json"))
    canary = read_contract(bundles[0]).canary
    x = canary.x.array("float32", "x")
    margins = canary.margins.array("float32", "margins")
    for index, member in enumerate(contract["members"]):
        booster = xgboost.Booster()
        booster.load_model(bytearray(server.file(sent["run_id"], f"bundle/{member['file']['path']}")))
        booster.set_param({"nthread": 1, "device": "cpu"})
        found = booster.inplace_predict(x, predict_type="margin", missing=np.nan, strict_shape=True)
        assert np.array_equal(found.view(np.uint32), margins[index].view(np.uint32))


def test_pushing_again_sends_nothing_and_brings_the_aliases(cli, server, bundles, tmp_path):
    words = ("--tracking", server.uri, "--experiment", "aliases", "--json")
    registry = Registry(tmp_path / "models")
    with registry.writing() as writer:
        a, b = (writer.add(path)[0] for path in bundles)
        writer.promote("champion", a)
        writer.promote("shadow", a)
    first = answer(cli("model", "push", a[:9], *words))
    assert (first["version"], first["new"], first["aliases"]) == (1, True, ["champion", "shadow"])
    again = answer(cli("model", "push", "@champion", *words))
    assert again == first | {"new": False, "url": None}
    with registry.writing() as writer:
        writer.promote("champion", b)
    second = answer(cli("model", "push", "@champion", *words))
    assert (second["version"], second["aliases"]) == (2, ["champion"])
    model = server.get("registered-models/get", name="aliases")["registered_model"]
    assert {each["alias"]: int(each["version"]) for each in model["aliases"]} == {"champion": 2, "shadow": 1}
    experiment = server.run(first["run_id"])["info"]["experiment_id"]
    assert len(server.post("runs/search", experiment_ids=[experiment])["runs"]) == 2
    assert f"{b[:12]}: already aliases version 2, @champion" in cli("model", "push", b, *words[:-1]).stdout


def test_every_word_pulls_its_version_with_the_same_predictions(cli, server, bundles, tmp_path):
    from gpuscalp.bundle import load_bundle

    words = ("--tracking", server.uri, "--experiment", "words", "--json")
    source = Registry(tmp_path / "models")
    with source.writing() as writer:
        a, b = (writer.add(path)[0] for path in bundles)
        writer.promote("champion", a)
    for digest in (a, b):
        answer(cli("model", "push", digest, *words))
    other = Registry(tmp_path / "other")
    pulled = answer(cli("model", "pull", "@champion", *words, "--registry", other.path))
    assert (pulled["digest"], pulled["version"], pulled["new"]) == (a, 1, True)
    mine, theirs = (load_bundle(path, graph=None) for path in (bundles[0], Path(pulled["path"])))
    x = mine.contract.canary.x.array("float32", "x")
    ours, its = mine.ensemble.predict(x), theirs.ensemble.predict(x)
    assert np.array_equal(ours.margins.view(np.uint32), its.margins.view(np.uint32))
    assert np.array_equal(ours.probability.view(np.uint64), its.probability.view(np.uint64))
    for word, digest in (
        ("words@champion", a),
        ("models:/words@champion", a),
        ("words/2", b),
        ("words", b),
        (a[:8], a),
    ):
        found = answer(cli("model", "pull", word, *words, "--registry", other.path))
        assert found["digest"] == digest, word
    assert other.digests() == sorted([a, b])
    assert other.history().state().stacks == {}
    for word, told in (
        ("@shadow", "@champion"),
        ("words/9", "words/2"),
        ("nobody", "push"),
        ("a/b/c", "NAME"),
    ):
        error = cli("model", "pull", word, *words, "--registry", other.path)
        assert error.code == 2, word
        assert told in json.loads(error.stdout)["error"]["fix"]


def test_what_was_changed_on_the_server_is_not_taken_over(cli, server, bundles, tmp_path):
    words = ("--tracking", server.uri, "--experiment", "changed", "--json")
    sent = answer(cli("model", "push", bundles[0], *words))
    (forest,) = server.folder.glob(f"artifacts/**/{sent['run_id']}/**/forest.npz")
    data = bytearray(forest.read_bytes())
    data[len(data) // 2] ^= 1
    forest.write_bytes(data)
    refused = cli("model", "pull", "changed", *words)
    assert refused.code == 8
    assert json.loads(refused.stdout)["error"]["kind"] == "MemberError"
    contract = forest.with_name("contract.json")
    contract.write_bytes((bundles[1] / "contract.json").read_bytes())
    refused = cli("model", "pull", "changed", *words)
    assert refused.code == 8
    assert "another bundle than its tag" in json.loads(refused.stdout)["error"]["what"]
    assert Registry(tmp_path / "models").digests() == []


def test_version_of_somebody_else_is_refused(cli, server):
    server.post("registered-models/create", name="foreign")
    server.post("model-versions/create", name="foreign", source="s3://nowhere/model")
    refused = cli("model", "pull", "foreign", "--tracking", server.uri, "--json")
    assert refused.code == 8
    assert "not made by gpuscalp" in json.loads(refused.stdout)["error"]["what"]


def test_what_was_broken_off_is_no_version_and_is_sent_again(cli, server, bundles, monkeypatch):
    import mlflow

    def broken(*_: object) -> None:
        raise OSError("the line is gone")

    words = ("model", "push", bundles[0], "--tracking", server.uri, "--experiment", "broken", "--json")
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_artifacts", broken)
        assert "the line is gone" in json.loads(cli(*words).stdout)["error"]["value"]
    (experiment,) = server.post("experiments/search", filter="name = 'broken'", max_results=9)["experiments"]
    (run,) = server.post("runs/search", experiment_ids=[experiment["experiment_id"]])["runs"]
    assert run["info"]["status"] == "FAILED"
    sent = answer(cli(*words))
    assert (sent["version"], sent["new"], sent["run_id"] != run["info"]["run_id"]) == (1, True, True)


def test_damaged_bundle_is_not_sent(cli, server, bundles, tmp_path):
    import shutil

    copy = Path(shutil.copytree(bundles[0], tmp_path / "copy"))
    (copy / "forest.npz").write_bytes(b"")
    assert cli("model", "push", copy, "--tracking", server.uri, "--experiment", "none").code == 8
    with pytest.raises(urllib.error.HTTPError, match="404"):
        server.get("registered-models/get", name="none")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    from gpuscalp.synthetic import MarketSpec, write
    from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS

    path = tmp_path_factory.mktemp("train") / "archive"
    write(MarketSpec(duration_s=100, symbols=DEFAULT_SYMBOLS[:1]), path)
    (path.parent / "train.toml").write_text(
        'venue = "synthetic"\n[label]\nhorizon_ms = 500\n[split]\nfolds = 2\n[booster]\nrounds = 3\n'
        "max_depth = 2\n[ensemble]\nmembers = 1\n"
    )
    return path


def _train(archive: Path, out: Path, *words: object) -> list[object]:
    config = archive.parent / "train.toml"
    given = ["train", archive, "--out", out, "--config", config, "--device", "cpu", "--threads", 1]
    return [*given, *words]


def test_training_is_tracked_with_its_code_and_its_time(cli, server, archive, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "trained")
    trained = answer(cli(*_train(archive, tmp_path / "model", "--track", "--register", "--json")))
    sent = trained["tracked"]
    assert sent["error"] is None
    assert (sent["experiment"], sent["digest"]) == ("trained", trained["registered"])
    run = server.run(sent["run_id"])
    tags = {each["key"]: each["value"] for each in run["data"]["tags"]}
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert tags.get("mlflow.source.git.commit", "") == head.stdout.strip()
    assert tags["mlflow.source.name"] == "gpuscalp train"
    lasted_ms = run["info"]["end_time"] - run["info"]["start_time"]
    result = json.loads((tmp_path / "model" / "result.json").read_bytes())
    assert lasted_ms >= round(result["seconds"] * 1e3)
    # The same again is a run of its own, and no version of its own.
    told = cli(*_train(archive, tmp_path / "model", "--track", "--overwrite")).stdout
    assert "Tracked: http://127.0.0.1" in told
    versions = server.get("model-versions/search", filter="name = 'trained'")["model_versions"]
    assert [each["run_id"] for each in versions] == [sent["run_id"]]


def test_server_that_is_down_costs_no_training(cli, server, archive, tmp_path):
    secret = "correct-horse-battery"
    down = f"http://trader:{secret}@127.0.0.1:{free_port()}"
    result = cli(*_train(archive, tmp_path / "model", "--tracking", down, "--json"))
    tracked = answer(result)["tracked"]
    assert tracked["error"]["kind"] == "TrackingError"
    assert f"gpuscalp model push {tmp_path / 'model'}" in tracked["error"]["fix"]
    refused = cli("model", "push", tmp_path / "model", "--tracking", down)
    assert refused.code == 1
    assert "refused" in refused.stderr.partition("value:")[2]
    assert "start the server" in refused.stderr
    up = server.uri.replace("//", f"//trader:{secret}@")
    sent = cli("model", "push", tmp_path / "model", "--tracking", up, "--experiment", "down", "--json")
    pulled = cli("model", "pull", "down", "--tracking", up, "--json")
    assert answer(pulled)["digest"] == answer(sent)["digest"]
    told = [part for each in (result, refused, sent, pulled) for part in (each.stdout, each.stderr)]
    assert not [part for part in told if secret in part]
    history = (tmp_path / "models" / "history.jsonl").read_text()
    assert "pulled down version 1 from http://***@127.0.0.1" in history
    assert server.run(answer(sent)["run_id"])["info"]["status"] == "FINISHED"


def test_store_of_this_machine_needs_no_server_and_asks_nobody(bundles, tmp_path):
    """In a process of its own: whoever tests or runs in CI is asked for no telemetry anyway."""
    script = """
import socket, sys
asked = []
find = socket.getaddrinfo
def note(host, *rest, **words):
    asked.append(host)
    raise OSError("no network in this test")
socket.getaddrinfo = note
from gpuscalp.cli import run
code = run(["model", "push", sys.argv[1], "--json"]) or run(["model", "pull", "gpuscalp", "--json"])
import threading, time
time.sleep(1.0)
sys.exit(code or (f"asked for {asked}" if asked else 0))
"""
    env = {name: os.environ[name] for name in ("PATH", "HOME", "NUMBA_CACHE_DIR")}
    env |= {"XDG_DATA_HOME": str(tmp_path / "data"), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundles[0])],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sent, pulled = (json.loads(text + "}") for text in done.stdout.split("}\n")[:2])
    assert pulled["digest"] == sent["digest"] == read_contract(bundles[0]).digest
    assert (tmp_path / "data" / "gpuscalp" / "mlflow" / "mlflow.db").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_what_mlflow_does_not_know_is_an_error_of_ours(cli, bundles):
    for uri, told in (
        ("nonsense://x", "Supported URI schemes"),
        ("postgresql://u:p@127.0.0.1:1/x", "driver"),
    ):
        refused = cli("model", "push", bundles[0], "--tracking", uri)
        assert refused.code == 1
        assert told in refused.stderr


def test_what_is_wrong_is_said_before_the_training(cli, tmp_path, monkeypatch):
    train = ["train", tmp_path / "nothing", "--out", tmp_path / "out", "--track"]
    assert cli(*train, "--experiment", "a/b").code == 2

    def missing(name: str) -> str:
        raise connection.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(connection.metadata, "version", missing)
    result = cli(*train)
    assert result.code == 4
    assert "EXTRAS=mlflow" in result.stderr
