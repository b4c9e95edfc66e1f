"""What becomes of a retraining whose registry cannot be written. Journal and training are made up."""

from __future__ import annotations

import fcntl
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.bundle import read_contract
from gpuscalp.cli.retrain import _text
from gpuscalp.errors import UsageError
from gpuscalp.registry import Registry
from gpuscalp.retrain import run
from gpuscalp.retrain.caps import Caps
from gpuscalp.retrain.market_data import Imported
from tests.live.sessions import SYMBOLS, write_eager_bundle
from tests.retrain.test_market_data import about

Retrain = Callable[..., dict[str, Any]]


@pytest.fixture
def steps() -> list[str]:
    """Return the list of what a retraining has done so far."""
    return []


@pytest.fixture
def retrain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[str]) -> Retrain:
    """Return a function that retrains a session with the registry ``models`` beside it; a model that was
    trained before comes of it. ``meanwhile`` happens while it is trained."""
    session = tmp_path / "session"
    session.mkdir()
    made = write_eager_bundle(tmp_path / "made")

    def import_journal(*_: object, **__: object) -> Imported:
        steps.append("import")
        return Imported(1, 1, 0)

    def call(meanwhile: Callable[[], object] = lambda: None) -> dict[str, Any]:
        def train(_: object, out: Path, **__: object) -> SimpleNamespace:
            meanwhile()
            shutil.copytree(made, out)
            return SimpleNamespace(training=read_contract(out).training, peak_rss_mb=1.0)

        monkeypatch.setattr(run, "train_archive", train)
        caps = Caps(cores=(0,), memory_mb=400, idle=False)
        return run.retrain(session, like=made, train_hours=1.0, caps=caps, registry=tmp_path / "models")

    archive = SimpleNamespace(symbols=lambda venue: SYMBOLS)
    monkeypatch.setattr(run, "read_about", lambda path: about())
    monkeypatch.setattr(run, "import_journal", import_journal)
    monkeypatch.setattr(run, "Archive", SimpleNamespace(open=lambda path: archive))
    return call


def test_registry_that_cannot_be_written_is_told_before_the_journal_is_read(retrain, steps, tmp_path):
    """It was opened after hours of training, and its error was all that came of them, every time."""
    (tmp_path / "models").write_text("a file")
    with pytest.raises(UsageError) as caught:
        retrain()
    assert steps == []
    assert (caught.value.what, caught.value.where) == (
        "the registry cannot be written", str(tmp_path / "models" / "bundles")
    )  # fmt: skip
    assert caught.value.value == "Not a directory"


def test_stop_of_a_service_leaves_no_answer_of_an_attended_process(cli, tmp_path, monkeypatch):
    """One that the session finds is taken for an attempt, and the next would be hours away."""
    found = []

    def fitting(_: object) -> None:
        found.append(signal.getsignal(signal.SIGTERM))
        raise UsageError("seen enough")

    monkeypatch.setattr("gpuscalp.retrain.caps.confine", lambda *_: None)
    monkeypatch.setattr("gpuscalp.retrain.caps.fitting", fitting)
    monkeypatch.setattr("gpuscalp.lifeline.end_with", lambda _: None)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(fileno=lambda: 0))
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        assert cli("retrain", tmp_path, "--attended").code == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found == [signal.SIG_DFL]


def test_candidate_outlives_a_registry_that_refuses_it(retrain, tmp_path):
    """A disk that had filled up meanwhile made a failure of a training that was done."""

    def fill() -> None:
        shutil.rmtree(tmp_path / "models")
        (tmp_path / "models").write_text("in the way")

    answer = retrain(fill)
    candidate = tmp_path / "session" / "retraining" / "candidate"
    assert answer["bundle"] == str(candidate)
    assert read_contract(candidate).digest == answer["digest"]
    assert answer["registered"] is None
    assert "Not a directory" in answer["not_registered"]
    assert _text(answer | {"metrics": {"log_loss": 1.0, "base_log_loss": 1.0}}).endswith(
        f"The registry refused it: {answer['not_registered']}"
    )


def test_registry_that_somebody_writes_to_is_waited_for_at_the_end_only(retrain, tmp_path):
    (tmp_path / "models").mkdir()
    with (tmp_path / "models" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = retrain(lambda: fcntl.flock(lock, fcntl.LOCK_UN))
    assert (answer["registered"], answer["not_registered"]) == (str(tmp_path / "models"), None)
    assert Registry(tmp_path / "models").history().state().current("candidate") == answer["digest"]
