"""The verdict of ``make gpu``: each bar met, missed or not measured, by what a run has left in its file."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_run
from benchmarks.bars import bars, exit_code, table
from benchmarks.parts import attempt, failures
from gpuscalp.errors import ParityError
from tests.waiting import until

ALL_MET: dict[str, Any] = {
    "gpu": {
        "parity": {"frames": 600, "differing_digests": 0, "differing_margins": 0},
        "stream": {
            "symbols": 512,
            "features": 214,
            "trees": 4_500,
            "cuda": {"p50_us": 254.6, "p99_us": 284.0},
            "paced": {"asleep": {"p50_us": 669.0, "p99_us": 990.0}},
            "ratio_peer": 146.4,
        },
        "peer": {"whole": {"p50_us": 37_277.5}},
        "ledger": {
            "frames": 10_000,
            "host_to_device": {"copies": 10_000, "bytes": 1},
            "device_to_host": {"copies": 10_000, "bytes": 1},
        },
        "memory": {"minutes": 30.0, "slope_bytes_per_hour": 0},
        "forest": {"skipped": {}, "table": [{"rows": 512, "ratio_nvforest": 3.1}]},
    },
    "gpu_recordings": {"usdm": {"rows": 1_000_000}},
    "gpu_batch": {
        "features": {"binds": "memory", "share_of_ceiling": 0.55},
        "ticks_to_features": {"ratio_cpu": 2.2},
        "shared_set": {"gpuscalp_s": 0.0016, "cudf_s": 0.016, "ratio_cudf": 10.0},
        "training": {"rows": 100_136_448, "peak_gpu_mb": 40_000, "share_of_float_matrix": 0.467},
    },
    "gpu_worker": {"takeover_killed_ms": 120.0, "takeover_hang_ms": 262.0},
    "crossover": {"points": [{"device": "cpu"}, {"device": "cuda"}]},
    "gpu_tests": {"exit_code": 0},
    "sanitizers": {"memcheck": {"exit_code": 0}, "racecheck": {"exit_code": 0}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """A run in which everything was met, but for one value."""
    result = copy.deepcopy(ALL_MET)
    *outer, last = path.split(".")
    part = result
    for name in outer:
        part = part[name]
    part[last] = value
    return result


def others(result: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The bars that are not met: found and verdict."""
    return {bar.bar: (bar.found, bar.verdict) for bar in bars(result) if bar.verdict != "met"}


def test_all_bars_are_met_by_a_run_that_meets_them():
    found = bars(ALL_MET)
    assert len(found) == 17
    assert {bar.verdict for bar in found} == {"met"}
    assert exit_code(found) == 0


WRONG_BITS = "ParityError: features of the two devices differ: 3"
OTHER_COPIES = "ParityError: other copies than the packed ticks and the answer"


@pytest.mark.parametrize(
    ("path", "value", "bar"),
    [
        ("gpu.parity.differing_margins", 1, "bits: 0 differ"),
        ("gpu", {"failed": "ParityError: margins of the two devices differ: 7"}, "bits: 0 differ"),
        ("gpu_batch.features", {"failed": WRONG_BITS}, "bits: 0 differ"),
        ("gpu_worker", {"failed": "ParityError: a worker's margins are not the CPU's"}, "bits: 0 differ"),
        ("gpu_tests.exit_code", 1, "tests marked gpu pass"),
        ("sanitizers.memcheck.exit_code", 9, "memcheck is clean"),
        ("sanitizers.racecheck.exit_code", 9, "racecheck is clean"),
        ("gpu.ledger", {"failed": OTHER_COPIES}, "copies of 10,000 frames: one in, one out"),
        ("gpu.stream.cuda.p50_us", 300.0, "stream, 512 × 200 columns × 5 × 300 rounds: p50 < 300 µs"),
        ("gpu.stream.cuda.p99_us", 1_000.0, "the same: p99 < 1 ms"),
        ("gpu.stream.paced.asleep.p99_us", 3_900.0, "the same, a step every 20 ms: p99 < 1 ms"),
        ("gpu.stream.ratio_peer", 9.9, "stream ≥ 10 times plain CuPy"),
        ("gpu_batch.features.share_of_ceiling", 0.499, "batch ≥ 50 % of the ceiling that binds"),
        ("gpu_batch.shared_set.ratio_cudf", 4.9, "rolling columns ≥ 5 times cuDF"),
        (
            "gpu_batch.training.share_of_float_matrix",
            0.5,
            "training, 1e8 rows: peak < half of the float matrix",
        ),
        ("gpu.memory.slope_bytes_per_hour", 4_096, "memory of 30 minutes: slope 0"),
        ("gpu_worker.takeover_hang_ms", 1_000.1, "takeover ≤ 1 s"),
    ],
)
def test_what_falls_short_of_a_bar_is_missed(path, value, bar):
    result = changed(path, value)
    assert others(result)[bar][1] == "missed"
    assert exit_code(bars(result)) == 1
    if not isinstance(value, dict):
        assert set(others(result)) == {bar}


@pytest.mark.parametrize(
    ("path", "value", "bar", "why"),
    [
        ("gpu_recordings", {"skipped": "no folder"}, "bits over recordings: 0 differ", "no folder"),
        ("sanitizers.memcheck", {"skipped": "not on the PATH"}, "memcheck is clean", "not on the PATH"),
        ("sanitizers.racecheck", {"skipped": "ended after 30"}, "racecheck is clean", "ended after 30"),
        ("sanitizers.racecheck.exit_code", 1, "racecheck is clean", "ended with 1"),
        ("gpu.ledger.frames", 70, "copies of 10,000 frames: one in, one out", "over 70 frames"),
        ("gpu.stream.symbols", 8, "the same: p99 < 1 ms", "at 8 symbols"),
        ("gpu.peer.skipped", "no XGBoost", "stream ≥ 10 times plain CuPy", "no XGBoost"),
        ("gpu_batch.features", {"failed": "OutOfMemoryError: x"}, "bits: 0 differ", "OutOfMemoryError"),
        ("gpu_batch.shared_set", {"cudf": "skipped: none"}, "rolling columns ≥ 5 times cuDF", "none"),
        (
            "gpu_batch.training.rows",
            21_000_000,
            "training, 1e8 rows: peak < half of the float matrix",
            "at 21,000,000 rows",
        ),
        (
            "gpu.forest.skipped",
            {"nvforest": "ModuleNotFoundError: none"},
            "the forest beside nvForest",
            "ModuleNotFoundError",
        ),
        ("crossover", {"failed": "DeviceError: x"}, "crossover: both devices measured", "DeviceError: x"),
        ("crossover.points", [{"device": "cpu"}], "crossover: both devices measured", "no point on a GPU"),
        # What an earlier version, or somebody by hand, has written.
        (
            "gpu.stream.cuda",
            {"p99_us": 284.0},
            "stream, 512 × 200 columns × 5 × 300 rounds: p50 < 300 µs",
            "p50_us",
        ),
        ("gpu.stream.paced", {"p99_us": 3_900.0}, "the same, a step every 20 ms: p99 < 1 ms", "asleep"),
        ("gpu_tests", {"passed": 74}, "tests marked gpu pass", "there is no 'exit_code'"),
        ("gpu.memory.minutes", 1.0, "memory of 30 minutes: slope 0", "over 1 minutes"),
        ("gpu_worker", {"failed": "DeviceError: no GPU"}, "takeover ≤ 1 s", "DeviceError: no GPU"),
    ],
)
def test_what_says_nothing_about_a_bar_is_not_measured_and_says_why(path, value, bar, why):
    result = changed(path, value)
    found, verdict = others(result)[bar]
    assert verdict == "not measured"
    assert why in found
    assert {each for _, each in others(result).values()} == {"not measured"}
    assert exit_code(bars(result)) == 3


def test_a_run_that_died_at_once_has_measured_nothing():
    assert {bar.verdict for bar in bars({"environment": {}})} == {"not measured"}


def test_table_has_a_line_for_each_bar():
    lines = table(bars(changed("gpu.stream.cuda.p50_us", 333.0))).splitlines()
    assert len(lines) == 18
    (line,) = [line for line in lines if "p50" in line]
    assert line.split()[-3:] == ["333", "µs", "missed"]
    assert len({len(line) for line in lines if line.endswith(" met")}) == 1


def test_part_that_fails_is_told_and_the_parts_of_parts_too(capsys):
    def fails():
        raise ParityError("bits differ", value=3)

    result = {"a": {"b": attempt("a: b", fails), "c": attempt("a: c", lambda: {"value": 1})}}
    assert result["a"]["c"] == {"value": 1}
    assert failures(result) == [result["a"]["b"]["failed"]]
    assert "bits differ" in failures(result)[0]
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture
def played(monkeypatch, tmp_path):
    """A GPU that is there, and processes that are played: what was run, in its order."""
    ran: list[list[str]] = []

    def run(arguments, before=None, limit_s=None):
        ran.append([*(before or []), *arguments])
        if arguments[:2] == ["-m", "benchmarks"]:
            (tmp_path / "a-card-2026-11-26.json").write_text(json.dumps({"environment": {}, **ALL_MET}))
        return None if "racecheck" in ran[-1] else 0

    card = {"cuda": {"usable": True, "name": "A card"}, "commit": "c", "date": "2026-11-26T00:00:00+00:00"}
    monkeypatch.setattr(gpu_run, "_run", run)
    monkeypatch.setattr(gpu_run, "environment", lambda: card)
    monkeypatch.setattr(gpu_run.shutil, "which", lambda _: "/bin/compute-sanitizer")
    monkeypatch.setattr(
        sys, "argv", ["gpu_run", "--out", str(tmp_path), "--minutes", "30", "--", "-k", "forest"]
    )
    return ran, card


def test_benchmarks_come_first_and_a_sanitizer_that_takes_too_long_is_not_measured(played, tmp_path, capsys):
    ran, _ = played
    assert gpu_run.main() == 3
    assert ran[0][:3] == ["-m", "benchmarks", "gpu"]
    assert ran[0][-5:-1] == ["--minutes", "30.0", "--add", "--out"]
    assert ran[1] == ["-m", "pytest", "-m", "gpu", "-k", "forest"]
    assert [command[2] for command in ran[2:]] == ["memcheck", "racecheck"]
    written = json.loads((tmp_path / "a-card-2026-11-26.json").read_text())
    assert len(written["bars"]) == 17
    (missing,) = [bar for bar in written["bars"] if bar["verdict"] != "met"]
    assert missing == {
        "bar": "racecheck is clean",
        "found": "racecheck: ended after 30 minutes",
        "verdict": "not measured",
    }
    assert "racecheck is clean" in capsys.readouterr().out


def test_parts_run_alone_and_the_days_file_keeps_the_others(played, tmp_path, monkeypatch):
    """No loan of a card is as long as a sanitizer takes, and a second run deleted the first's file."""
    ran, _ = played
    out = tmp_path / "a-card-2026-11-26.json"
    out.write_text(json.dumps({"environment": {}, **changed("gpu_tests.exit_code", 1)}))
    before = ["gpu_run", "--out", str(tmp_path), "--parts"]
    monkeypatch.setattr(sys, "argv", [*before, "memcheck"])
    assert gpu_run.main() == 1
    monkeypatch.setattr(sys, "argv", [*before, "tests", "--", "-k", "worker"])
    assert gpu_run.main() == 0
    assert [command[:3] for command in ran] == [
        ["/bin/compute-sanitizer", "--tool", "memcheck"],
        ["-m", "pytest", "-m"],
    ]
    assert ran[1][-2:] == ["-k", "worker"]
    written = json.loads(out.read_text())
    assert written["gpu_tests"]["exit_code"] == 0
    assert {bar["verdict"] for bar in written["bars"]} == {"met"}


def test_bars_stand_in_the_file_before_the_next_process_begins(played, tmp_path, monkeypatch):
    run = gpu_run._run

    def ended(arguments, before=None, limit_s=None):
        if "pytest" in arguments:
            raise KeyboardInterrupt
        return run(arguments, before, limit_s)

    monkeypatch.setattr(gpu_run, "_run", ended)
    with pytest.raises(KeyboardInterrupt):
        gpu_run.main()
    assert len(json.loads((tmp_path / "a-card-2026-11-26.json").read_text())["bars"]) == 17


def test_bars_stand_in_the_file_of_benchmarks_that_were_ended(played, tmp_path, monkeypatch):
    def ended(arguments, before=None, limit_s=None):
        (tmp_path / "a-card-2026-11-26.json").write_text(json.dumps({"gpu": ALL_MET["gpu"]}))
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_run, "_run", ended)
    with pytest.raises(KeyboardInterrupt):
        gpu_run.main()
    verdicts = [
        bar["verdict"] for bar in json.loads((tmp_path / "a-card-2026-11-26.json").read_text())["bars"]
    ]
    assert (verdicts.count("met"), verdicts.count("not measured")) == (7, 10)


def test_no_gpu_is_a_failure_and_nothing_is_run(played, capsys):
    ran, card = played
    card["cuda"] = {"usable": False, "error": {"what": "no NVIDIA driver"}}
    assert gpu_run.main() == 1
    assert ran == []
    assert "no NVIDIA driver" in capsys.readouterr().err


def test_process_that_exceeds_its_limit_is_ended_with_all_that_it_began(tmp_path):
    left = tmp_path / "left"
    code = (
        "import subprocess, sys, time, pathlib\n"
        "begun = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        f"pathlib.Path({str(left)!r}).write_text(f'{{begun.pid}}.')\n"
        "time.sleep(1000)"
    )
    # On a machine that is very busy the first limits may pass before the other process is there.
    for limit_s in (1.0, 4.0, 16.0, 64.0):
        assert gpu_run._run(["-c", code], limit_s=limit_s) is None
        if left.exists() and left.read_text().endswith("."):
            break
    stat = Path(f"/proc/{left.read_text()[:-1]}/stat")
    while stat.exists() and stat.read_text().split()[2] != "Z":
        time.sleep(0.01)
    assert gpu_run._run(["-c", "raise SystemExit(9)"]) == 9


# What runs on the card: says that it is there, then what it has found when it is interrupted.
RUNS = """
import pathlib, sys, time
at = pathlib.Path({folder!r})
(at / "runs").touch()
try:
    time.sleep(1000)
except KeyboardInterrupt:
    (at / "found").touch()
    {then}
"""
BEGUN = """
import os, sys
from benchmarks import gpu_run
card = {{"usable": True, "name": "A card"}}
gpu_run.environment = lambda: {{"cuda": card, "commit": "c", "date": "2026-11-26T00:00:00+00:00"}}
gpu_run._TESTS = ("-c", {runs!r})
gpu_run._GRACE_S = 0.5
sys.argv = ["gpu_run", "--out", {folder!r}, "--parts", "tests"]
gpu_run.main()
"""


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("then", ["sys.exit(2)", "time.sleep(1000)"], ids=["ends", "does not end"])
def test_who_ends_it_ends_what_runs_on_the_card_which_may_say_what_it_has_found(tmp_path, number, then):
    """SIGTERM, as of ``timeout``, left it on the card by itself; Ctrl-C gave it no moment."""
    runs = RUNS.format(folder=str(tmp_path), then=then)
    code = BEGUN.format(folder=str(tmp_path), runs=runs)
    with subprocess.Popen([sys.executable, "-c", code], cwd=gpu_run.ROOT, stderr=subprocess.PIPE) as process:
        try:
            until((tmp_path / "runs").exists, "what runs on the card")
            process.send_signal(number)
            _, said = process.communicate(timeout=60)  # to the end of all who have its standard error
        finally:
            process.kill()
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in said
    assert (tmp_path / "found").exists()
    assert len(json.loads((tmp_path / "a-card-2026-11-26.json").read_text())["bars"]) == 17
