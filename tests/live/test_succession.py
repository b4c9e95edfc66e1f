"""A session changes its model twice by its own rules: a shadow is promoted, and the lead before comes back.

One embedded session runs for all of these tests, its market the synthetic one. Its first lead is sure of UP
whatever it sees; the candidate, prepared in advance, says FLAT with little conviction. So the candidate is
better by both tests, and miscalibrated enough to be sent back. The process that hands it over is a real one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from typer.main import get_command

from gpuscalp.bundle import read_contract
from gpuscalp.cli.app import app
from gpuscalp.config import (
    BoosterConfig,
    CostConfig,
    EngineConfig,
    EnsembleConfig,
    FeatureConfig,
    GridConfig,
    LabelConfig,
    LiveConfig,
    PromotionConfig,
    RetrainingConfig,
    SessionConfig,
    SizingConfig,
    SplitConfig,
    StrategyConfig,
    TrainConfig,
)
from gpuscalp.contract import Interval
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live import retrainer
from gpuscalp.live.control import Request, ask
from gpuscalp.live.directory import lead_of
from gpuscalp.live.models import check_like
from gpuscalp.live.records import ModelRecord, SignalRecord, decode
from gpuscalp.live.run import run_live
from gpuscalp.live.verify import verify
from gpuscalp.registry import Registry
from gpuscalp.retrain.caps import Caps
from gpuscalp.retrain.run import retrain
from gpuscalp.succession import promotion
from gpuscalp.synthetic import VENUE, MarketSpec
from tests.handmade import one_split, write_handmade

# All of them, so that they begin first and stay in one process: they share one session.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FRAME_MS = 50
SECONDS = 300.0  # at most; it is stopped when it has gone back
_DROP = ("*.32", "*.128", "*.512", "*.ewm.*", "*.macd.*", "*.spectrum.*")
SYMBOLS = tuple(each.symbol for each in MarketSpec().symbols)
# DOWN, FLAT, UP
SURE_OF_UP, HARDLY_FLAT = (-3.0, -2.0, 3.0), (0.0, 1.0, 0.0)


def write_model(path: Path, leaves: tuple[float, float, float], *, seed: int) -> Path:
    config = TrainConfig(
        venue=VENUE,
        symbols=SYMBOLS,
        grid=GridConfig(frame_ms=FRAME_MS, lateness_ms=5),
        features=FeatureConfig(leader=SYMBOLS[0], drop=_DROP),
        label=LabelConfig(horizon_ms=FRAME_MS, threshold_bps=0.5),
        split=SplitConfig(folds=2),
        booster=BoosterConfig(rounds=4, early_stopping_rounds=2, max_depth=2, min_child_weight=1.0),
        ensemble=EnsembleConfig(members=1),
    )
    down, flat, up = leaves
    now_ns = time.time_ns()
    return write_handmade(
        path,
        config,
        lambda names: one_split([0, down, down, 0, flat, flat, 0, up, up], 0, len(names)),
        trained_on=Interval(now_ns - 7_200 * 10**9, now_ns - (3_600 + seed) * 10**9),
        returns_bps=(-30.0, 0.0, 30.0),
        seed=seed,
    )


class Lived(NamedTuple):
    path: Path
    first: str
    candidate: str
    ended: dict[str, Any]
    commands: list[list[str]]
    seen: list[dict[str, Any]]  # statuses, one for each change


def watched(path: Path, seen: list[dict[str, Any]], over: threading.Event) -> None:
    """Collect statuses until the session has gone back; then stop it."""
    while not over.wait(0.1):
        with suppress(Exception):
            seen.append(ask(path, Request("status"), timeout_s=30.0))
            if seen[-1]["succession"]["rolled_back"]:
                ask(path, Request("stop"), timeout_s=30.0)
                return


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    folder = tmp_path_factory.mktemp("lived")
    path, commands = folder / "session", []
    first = write_model(folder / "first", SURE_OF_UP, seed=1)
    candidate = write_model(folder / "candidate", HARDLY_FLAT, seed=2)
    digests = [read_contract(each).digest for each in (first, candidate)]
    answer = {"digest": digests[1], "bundle": str(candidate), "rows": 1_000, "metrics": {"log_loss": 0.5}}
    popen = subprocess.Popen

    def prepared(command: list[str], **more: Any) -> subprocess.Popen[bytes]:
        commands.append(command)
        code = f"print({json.dumps(answer)!r})" if len(commands) == 1 else "import time; time.sleep(600)"
        return popen([sys.executable, "-c", code], **more)

    config = LiveConfig(
        venue=VENUE,
        strategy=StrategyConfig(order_usdt=6.0, min_confidence=0.4),
        sizing=SizingConfig(target_volatility_bps="off", kelly_fraction="off", drawdown=False),
        cost=CostConfig(taker_fee_bps=5.0),
        session=SessionConfig(status_ms=100, checkpoint_s=2.0),
        engine=EngineConfig(deadline_ms=5_000),
        retraining=RetrainingConfig(every_hours=0.001, rows_min=50),
        promotion=PromotionConfig(by="rule", rows_min=100, confidence=0.9, window_s=10.0, tolerance=0.02),
    )
    seen: list[dict[str, Any]] = []
    over = threading.Event()
    watcher = threading.Thread(target=watched, args=(path, seen, over), daemon=True)
    with (
        patch.object(retrainer.subprocess, "Popen", prepared),
        patch.object(promotion, "BLOCKS_BEFORE", 10),
    ):
        watcher.start()
        try:
            ended = run_live(path, config, model=first, device="cpu", embedded=True, seconds=SECONDS)
        finally:
            over.set()
            watcher.join(60)
    return Lived(path, *digests, ended, commands, seen)


def records(path: Path, kind: RecordKind, form: type[Any]) -> list[Any]:
    return [decode(each, form) for each in read_records(path / "journal") if each.kind == kind]


def test_candidate_goes_into_the_shadow_takes_the_lead_and_is_sent_back(lived):
    changes = records(lived.path, RecordKind.MODEL, ModelRecord)
    told = [(each.role, each.bundle, each.by) for each in changes]
    assert told == [
        ("shadow", lived.candidate, "retraining"),
        ("lead", lived.candidate, "rule"),
        ("lead", lived.first, "rollback"),
    ]
    promoted, sent_back = changes[1].evidence, changes[2].evidence
    assert promoted["rows"] >= 100
    assert promoted["log_loss_mean"] > 0 < promoted["score_bps_mean"]
    assert min(promoted["log_loss_log10"], promoted["score_bps_log10"]) >= promoted["needed_log10"] == 1.0
    figure = changes[2].reason.split()[0]
    assert abs(sent_back[figure]) > sent_back[f"{figure}_limit"] > 0


def test_no_frame_is_missed_doubled_or_without_a_prediction(lived):
    signals = records(lived.path, RecordKind.SIGNAL, SignalRecord)
    ends = np.array([each.end_ns for each in signals])
    assert (np.diff(ends) == FRAME_MS * 10**6).all()
    at = [index for index, each in enumerate(signals) if each.model]
    assert at == list(range(at[0], at[-1] + 1))  # the candidate's, in one piece
    assert all(each.margins for each in signals[at[0] - 1 : at[-1] + 2])
    assert lived.ended["engine"]["lost_frames"] == 0


def test_session_verifies_to_the_bit(lived):
    found = verify(lived.path)
    assert (found["differing"], found["verdicts_differing"], found["ended"]) == (0, 0, True), found["first"]


def test_status_tells_of_each_step(lived):
    steps = [each["succession"] for each in lived.seen]
    assert steps[0]["retraining"]["state"] in ("idle", "running")
    tested = [each["test"] for each in steps if each["test"] is not None]
    assert tested[-1]["rows"] > tested[0]["rows"]
    assert any(each["watch"] is not None for each in steps)
    assert lived.ended["succession"]["promoted"] == lived.ended["succession"]["rolled_back"] == 1


def test_a_model_expires_by_the_end_of_its_own_training(lived):
    told = {each["model"]["bundle"]: each["model"] for each in lived.seen}
    assert set(told) == {lived.first, lived.candidate}
    for digest, folder in (
        (lived.first, lived.path / "bundle"),
        (lived.candidate, lived.path / "models" / lived.candidate),
    ):
        until_ns = read_contract(folder).training.trained_on.end_ns
        assert told[digest]["trained_until_ns"] == until_ns
        left_s = 168 * 3_600 - told[digest]["age_s"]  # risk.max_model_age_h
        assert told[digest]["expires_in_s"] == pytest.approx(left_s, abs=0.01)


@pytest.fixture(scope="module")
def retrained(lived, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the answer of a retraining in earnest, on the journal of the session; not confined."""
    registry = tmp_path_factory.mktemp("registry") / "models"
    caps = Caps(cores=(0,), memory_mb=1, idle=False)
    like = lead_of(lived.path)
    assert like == lived.path / "bundle"  # which leads again
    return retrain(lived.path, like=like, train_hours=24.0, caps=caps, registry=registry)


def test_journal_becomes_a_candidate_that_fits_the_session(lived, retrained):
    lead, found = (read_contract(Path(each)) for each in (lived.path / "bundle", retrained["bundle"]))
    check_like(found, lead)
    assert found.digest == retrained["digest"] != lead.digest
    ends = [each.end_ns for each in records(lived.path, RecordKind.SIGNAL, SignalRecord)]
    trained = found.training.trained_on
    assert ends[0] <= trained.start_ns < trained.end_ns <= ends[-1] + FRAME_MS * 10**6
    # Frames of the session but for the first, which warm up, and the last, whose labels have not ended.
    assert 0.7 * len(ends) * len(SYMBOLS) < found.training.rows <= len(ends) * len(SYMBOLS)
    assert retrained["rejects"] == 0
    assert sorted(each.name for each in (lived.path / "retraining").iterdir()) == [
        "answer.json", "candidate", "errors.txt", "lock"
    ]  # fmt: skip


def test_candidate_is_kept_in_the_registry(retrained):
    assert (
        Registry(Path(retrained["registered"])).history().state().current("candidate") == retrained["digest"]
    )


def test_process_is_told_of_its_caps_and_of_the_lead(lived):
    command = lived.commands[0]
    known = {option for each in get_command(app).commands["retrain"].params for option in each.opts}
    assert {word for word in command if word.startswith("--")} <= known
    given = dict(zip(command[5::2], command[6::2], strict=False))
    assert command[1:5] == ["-m", "gpuscalp", "retrain", str(lived.path)]
    assert given["--like"] == str(lived.path / "bundle")
    assert (given["--cores"], given["--memory-mb"]) == ("1", "4096")
