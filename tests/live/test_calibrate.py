"""Fits from a session's journal: injected latencies come back, and what was simulated is not fitted.

The sessions are real ones, driven as ``gpuscalp.live.runner`` drives them but with times that the test makes:
a recording's messages arrive after a drawn delay by a clock that is off, and the engine's outcome is written
after a drawn computing time.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gpuscalp.cli import run
from gpuscalp.config import BacktestConfig, JournalConfig, LegConfig, PaperConfig, load
from gpuscalp.errors import DataError, UsageError
from gpuscalp.execution.latency import at_quantile
from gpuscalp.feeds.routes import Endpoint
from gpuscalp.journal import JournalWriter, RecordKind, read_records
from gpuscalp.live.calibrate import calibrate
from gpuscalp.live.directory import create
from gpuscalp.live.records import FillRecord, HealthRecord, OrderRecord, decode, encode
from gpuscalp.live.replay import _recorded_inputs
from gpuscalp.live.session import Session
from gpuscalp.schema import NS_PER_MS
from tests.live import script

# Our clock shows this much more than the exchange's.
AHEAD_NS = 250 * NS_PER_MS
SECONDS = 60


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> script.Material:
    return script.write_material(tmp_path_factory.mktemp("material"), seconds=SECONDS)


def drive(path: Path, material: script.Material, *, feed_ms: Any, compute_ms: Any, seconds: int) -> None:
    """Run a session on the recording; both distributions are functions of a generator."""
    rng = np.random.default_rng(5)
    config = script.trading_config(**{"strategy.min_edge_bps": -1_000.0, "strategy.hold_ms": 2_000})
    create(path, config, material.model, script.INSTRUMENTS, now_ns=1, device="cpu")
    session = Session(path, now_ns=1, clock_of=lambda work: lambda: work.now_ns)
    session.on_open(0, Endpoint("public", "ws://127.0.0.1", ("btcusdt@trade",)), 1)
    session.on_health(HealthRecord(0.4, drifted=False), 1)
    until_ns = (script.START_MS + seconds * 1_000) * NS_PER_MS
    now_ns = 0
    for each in _recorded_inputs([material.recording], set(script.SYMBOLS)):
        if each.recv_ns > until_ns:
            break
        if each.snapshot is not None:
            session.market.ingest.on_snapshot(each.recv_ns, each.snapshot)
            continue
        event_ns = json.loads(each.body)["data"]["T" if b"markPrice" not in each.body else "E"] * NS_PER_MS
        # One socket: no message overtakes another. The recording leaves 25 ms, the delays are shorter.
        now_ns = max(now_ns, event_ns + AHEAD_NS + round(feed_ms(rng) * NS_PER_MS))
        session.on_messages(0, now_ns, [each.body])
        work = session.take(now_ns - AHEAD_NS, now_ns)
        if work is not None:
            outcome = session.engine.step(work, lambda work=work: work.now_ns)  # type: ignore[misc]
            session.apply(outcome, now_ns + round(compute_ms(rng) * NS_PER_MS))
    session.close(now_ns=now_ns)


def feed_ms(rng: np.random.Generator) -> float:
    return float(rng.uniform(4.0, 8.0))


def compute_ms(rng: np.random.Generator) -> float:
    return float(1.0 + rng.exponential(0.5))


@pytest.fixture(scope="module")
def driven(material: script.Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("driven") / "session"
    drive(path, material, feed_ms=feed_ms, compute_ms=compute_ms, seconds=SECONDS)
    return path


def holds(fit: dict[str, Any], share: float, true_ms: float) -> None:
    (found,) = (each for each in fit["quantiles"] if each["share"] == share)
    assert found["low_ms"] <= true_ms <= found["high_ms"], (share, true_ms, found)
    # The interval says something: it is no wider than the distribution's own spread.
    assert found["high_ms"] - found["low_ms"] < 1.5


def test_injected_compute_latency_is_recovered_within_its_intervals(driven: Path) -> None:
    found = calibrate(driven)
    assert found["live"]
    assert found["compute"]["count"] > 500
    for share in (0.5, 0.9, 0.99):
        holds(found["compute"], share, 1.0 - 0.5 * np.log(1 - share))


def test_feed_latency_is_that_from_the_event_whatever_our_clock_shows(driven: Path) -> None:
    """Messages of one instant wait for one another, so the truth is what the journal says came when."""
    found = calibrate(driven)["feed"]
    delays = [
        (record.recv_ns - AHEAD_NS) / NS_PER_MS
        - json.loads(record.body)["data"]["T" if b"markPrice" not in record.body else "E"]
        for record in read_records(driven / "journal")
        if record.kind == RecordKind.RAW
    ]
    for each in found["quantiles"]:
        assert each["ms"] == pytest.approx(np.quantile(delays, each["share"]), abs=0.15)
    assert min(found["samples_ms"]) >= 4.0
    assert max(found["samples_ms"]) <= 8.0


def test_fragment_is_a_configuration_and_its_quantiles_reach_the_band(driven: Path, tmp_path: Path) -> None:
    found = calibrate(driven, out=tmp_path / "fit.toml")
    text = (tmp_path / "fit.toml").read_text()
    assert found["toml"] == text
    config = load(BacktestConfig, tmp_path / "fit.toml")
    assert config.paper.reply.kind == "empirical"
    assert config.paper.request == LegConfig()
    assert config.cost.compute.kind == "empirical"
    assert np.median(config.cost.compute.samples_ms) == pytest.approx(config.band.compute_ms[0], rel=0.02)
    assert list(config.band.compute_ms) == sorted(config.band.compute_ms)
    leg = at_quantile(config.paper.reply, 0.9, fixed_factor=9.0)
    assert leg.low_ms == pytest.approx(found["feed"]["quantiles"][1]["ms"], abs=0.05)
    assert f"{found['compute']['count']:,} samples" in text
    assert "[paper.request] was not measured" in text
    with pytest.raises(UsageError, match="already"):
        calibrate(driven, out=tmp_path / "fit.toml")


def test_reports_of_the_paper_broker_are_known_to_be_simulated(driven: Path) -> None:
    found = calibrate(driven)
    assert found["reports"] > 40
    assert found["simulated"]
    assert found["request"] is found["reply"] is None
    assert any("nothing was fitted" in note for note in found["notes"])
    assert found["resting"] == 0
    assert any("no queue to fit" in note for note in found["notes"])


def test_drawn_latencies_of_the_paper_broker_are_not_fitted_either(
    material: script.Material, tmp_path: Path
) -> None:
    changes = {
        "strategy.min_edge_bps": -1_000.0, "strategy.hold_ms": 2_000,
        "paper.reply.kind": "uniform", "paper.reply.low_ms": 2.0, "paper.reply.high_ms": 90.0,
    }  # fmt: skip
    material.replay(tmp_path / "session", changes)
    found = calibrate(tmp_path / "session")
    assert found["reports"] > 40
    assert found["simulated"]
    # A replay has no sockets: only the engine's own time is there, and it says so.
    assert not found["live"]
    assert found["feed"] is None
    assert found["compute"] == found["stages"]
    assert tomllib.loads(found["toml"]).keys() == {"cost", "band"}
    assert "A replay" in found["toml"]


def test_reports_of_another_broker_are_fitted(driven: Path, tmp_path: Path) -> None:
    """The same session with its reports as an exchange would have dated them."""
    rng = np.random.default_rng(3)
    other = tmp_path / "session"
    other.mkdir()
    for name in ("session.json", "bundle"):
        (other / name).symlink_to(driven / name)
    there, back = rng.uniform(3.0, 5.0, 1_000), 2.0 + rng.gamma(2.0, 1.0, 1_000)
    records = list(read_records(driven / "journal"))
    begin_ns = next(decode(r, FillRecord).at_ns for r in records if r.kind == RecordKind.FILL)
    with JournalWriter(other / "journal", JournalConfig(), now_ns=1) as journal:
        for record in records:
            if record.kind not in (RecordKind.ORDER, RecordKind.FILL, RecordKind.END):
                journal.append(record.kind, record.body, recv_ns=record.recv_ns, connection=record.connection)
        for index in range(1_000):
            sent_ns = begin_ns + index * 50 * NS_PER_MS
            at_ns = sent_ns + round(there[index] * NS_PER_MS)
            order = OrderRecord(index + 1, "", 0, 1, 1, False, sent_ns, sent_ns, 2, "edge")
            report = FillRecord("accepted", index + 1, 0, at_ns, at_ns + round(back[index] * NS_PER_MS))
            journal.append(RecordKind.ORDER, encode(order), recv_ns=sent_ns)
            journal.append(RecordKind.FILL, encode(report), recv_ns=sent_ns)
    found = calibrate(other)
    assert not found["simulated"]
    for name, true in (("request", there), ("reply", back)):
        for each in found[name]["quantiles"]:
            assert each["ms"] == pytest.approx(np.quantile(true, each["share"]), abs=1e-6)
    holds(found["request"], 0.5, 4.0)
    paper = msgspec.convert(tomllib.loads(found["toml"])["paper"], PaperConfig)
    assert paper.request.kind == paper.reply.kind == "empirical"
    assert np.mean(paper.reply.samples_ms) == pytest.approx(back.mean(), rel=0.02)


def test_too_few_frames_are_refused(material: script.Material, tmp_path: Path) -> None:
    drive(tmp_path / "session", material, feed_ms=feed_ms, compute_ms=compute_ms, seconds=5)
    with pytest.raises(DataError, match="too few") as caught:
        calibrate(tmp_path / "session", out=tmp_path / "fit.toml")
    assert "of at least 200" in str(caught.value.value)
    assert not (tmp_path / "fit.toml").exists()
    assert run(["calibrate", str(tmp_path / "session"), "--json"]) == 1


def test_command_prints_the_fragment(driven: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["calibrate", str(driven)]) == 0
    assert tomllib.loads(capsys.readouterr().out).keys() == {"cost", "band", "paper"}
    assert run(["calibrate", str(driven), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compute"]["count"] > 500
