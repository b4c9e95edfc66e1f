"""A status with everything in it: every metric that is documented is served, with its help and its labels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gpuscalp.latency import LatencyHistogram, Stage
from gpuscalp.monitoring import resources
from gpuscalp.monitoring.alarms import Alarms
from gpuscalp.monitoring.conditions import CONDITIONS
from gpuscalp.monitoring.expressions import Scrapes
from gpuscalp.monitoring.resources import peak_resident_bytes, read_memory, read_resources
from gpuscalp.monitoring.session_metrics import SessionCollector

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
CLASSES = {"DOWN": 0.25, "FLAT": 0.5, "UP": 0.25}


def full_status() -> dict[str, Any]:
    """Return a status in which nothing is unknown."""
    return {
        "session_id": "ab12",
        "venue": "binance_usdm",
        "broker": "paper",
        "config": "c0ffee",
        "device": "cpu",
        "model": {
            "bundle": "f" * 64,
            "trained_until_ns": 1_700_000_000 * 10**9,
            "age_s": 3_600.0,
            "expires_in_s": 601_200.0,
        },
        "succession": {
            "retraining": {"state": "failed"},
            "test": {"rows": 5_000, "log_loss": {"log10": 1.5}, "score_bps": {"log10": -0.2}},
            "promoted": 2,
            "rolled_back": 1,
        },
        "written_ns": 1_700_003_600 * 10**9,
        "uptime_s": 60.0,
        "onlookers": {"errors": 2, "last": {"drift": "MemoryError: "}},
        "state": "reducing",
        "cause": "daily_loss",
        "causes": ["daily_loss", "alarm"],
        "account": {"blocked": True},
        "since_ns": 1_700_003_000 * 10**9,
        "frames": 600,
        "last_frame_age_ms": 150.0,
        "equity_usdt": 990.0,
        "pnl_usdt": -10.0,
        "fees_usdt": 2.0,
        "funding_usdt": -0.5,
        "drawdown_pct": 2.5,
        "daily_loss_usdt": 10.0,
        "health": {"device": ["gpu0:memory"], "venue": ["account:unreachable"]},
        "positions": [{"symbol": "BTCUSDT", "qty": -1.0, "value_usdt": -100.0, "unrealised_usdt": 3.0}],
        "open_orders": [{}, {}],
        "feeds": {
            "connections": [
                {"route": "public", "state": "live"},
                {"route": "public", "state": "live"},
                {"route": "market", "state": "opening"},
            ],
            "connections_opened": {"public": 3},
            "connections_lost": {"public": 1},
            "messages": {"duplicates": 7, "rejects": 2, "gaps": 1},
            "snapshots": {"fetched": 4, "refused": 1},
        },
        "clock": {"offset_ms": -2.5, "error_ms": 0.5, "drifted": False},
        "batches": {
            "waiting": 3,
            "reports": 1,
            "commands": 0,
            "ticks": 900,
            "late": 5,
            "trades": 400,
            "late_trades": 4,
            "late_trade_share": 0.01,
            "late_trades_high": False,
            "taken": 70,
            "conflated": 2,
            "overloads": 1,
        },
        "journal": {"records": 1_000, "durable": 989, "bytes": 123_456},
        "resources": read_resources(Path.cwd()),
        **measured(),
    }


def measured() -> dict[str, Any]:
    """Return the keys of ``gpuscalp.live.monitor``."""
    return {
        "predictions": {
            "window_s": 3_600,
            "rows": 1_000,
            "predicted": {"DOWN": 1, "FLAT": 8, "UP": 1},
            "matured": {"DOWN": 2, "FLAT": 6, "UP": 2},
            "held_out": {"accuracy": 0.6, "log_loss": 0.9},
            "live": {
                "accuracy": 0.55,
                "base_accuracy": 0.5,
                "log_loss": 1.0,
                "base_log_loss": 1.04,
                "brier": 0.6,
                "calibration_error": 0.02,
                **dict.fromkeys(("precision", "recall", "f1", "predicted", "matured"), CLASSES),
            },
        },
        "drift": {
            "rows": 5_000,
            "groups": {"price": {"mean": 0.1, "largest": 0.3, "column": "price.move.8"}},
            "alarm": {"flagged": True},
            "outliers": 0.002,
        },
        "trading": {
            "intents": {"edge": 9},
            "refusals": {"QUALITY": 4},
            "skips": {"low_edge": 100},
            "sent": {"edge": 5},
            "ended": [{"state": "filled", "reason": "edge", "count": 4}],
            "rejects": {"-2019": 1, "-1111": 2},
            "fills": {"maker": 1, "taker": 3},
            "turnover_usdt": 400.0,
        },
        "results": {
            "components_usdt": {
                "signal": -5.0,
                "spread": -1.0,
                "slippage": -1.5,
                "fees": -2.0,
                "funding": -0.5,
            },
            "won": 1,
            "lost": 1,
            "win_ratio": 0.5,
            "sharpe": {"value": 0.1, "error": 0.05, "returns": 100, "interval_s": 60},
        },
        "score": {
            "value": 90.0,
            "parts": {"latency": 20.0, "data": 20.0, "prediction": 16.0, "execution": 20.0, "errors": 14.0},
            "lost": [{"part": "errors", "reason": "device", "points": 6.0, "value": 3.0}],
        },
    }


def full_detail() -> dict[str, Any]:
    latency = LatencyHistogram()
    for duration_ns in (5_000, 1 << 13, 1_000_000, 1_000_000, 20 * 10**9):
        latency.add(Stage.PREDICT, duration_ns)
    return {
        "stages": {
            stage.name.lower(): (latency.octaves()[stage].tolist(), int(latency.sum_ns[stage]))
            for stage in Stage
        },
        "histograms": {
            "batch_ticks": ((1.0, 4.0), [1, 2, 3], 40.0),
            "confidence": ((0.5, 1.0), [4, 5, 0], 6.0),
            "agreement": ((0.5, 1.0), [0, 9, 0], 8.0),
        },
        "streams": {"btcusdt@depth@100ms": 0.2, "!markPrice@arr@1s": 0.9},
        "fates": {"taken": 100, "late": 1, **{f"kind{number}": 1 for number in range(100)}},
        "silent": {"BTCUSDT": True, "ETHUSDT": False},
        "off_tick": {"BTCUSDT": False, "ETHUSDT": True},
        "rules": {"BTCUSDT": True, "ETHUSDT": False},
        "books": {"BTCUSDT": ("resync", 2), "ETHUSDT": ("synced", 0)},
    }


@pytest.fixture(scope="module")
def families() -> dict[str, Any]:
    registry = CollectorRegistry()
    registry.register(SessionCollector(full_status, full_detail))
    text = generate_latest(registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(families: dict[str, Any], name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    assert len(found) == 1, (name, labels, found)
    return float(found[0])


def documented() -> dict[str, tuple[str, set[str]]]:
    """Return the type of every metric, and what is said of its labels, in the tables of docs/metrics.md."""
    found = {}
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) != 6 or not cells[1].startswith("`gpuscalp_"):
            continue
        for name in re.findall(r"`(gpuscalp_\w+)`", cells[1]):
            # The values of a label stand there as well.
            found[name] = (cells[2].split(",")[0], set(re.findall(r"`(\w+)`", cells[3])))
    return found


def test_every_documented_metric_is_served_and_every_served_one_documented(families):
    served = {}
    for family in families.values():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels if label != "le"}
        served[name] = (family.type, labels)
    wanted = documented()
    assert served.keys() == wanted.keys()
    for name, (kind, labels) in served.items():
        assert kind == wanted[name][0], name
        assert labels <= wanted[name][1], name
        assert bool(labels) == bool(wanted[name][1]), name


def test_every_metric_has_help_and_a_unit_of_the_base(families):
    for family in families.values():
        assert family.documentation.strip(), family.name
        assert family.documentation[0].isupper() or family.documentation[0].isdigit(), family.name
        assert not re.search(r"_(ms|us|ns|mb|mib|pct|percent)(_|$)", family.name), family.name
        for unit in ("seconds", "bytes", "usdt"):
            if family.name.endswith(f"_{unit}") and unit != "usdt":
                words = {"seconds": ("seconds", "Unix time"), "bytes": ("bytes",)}[unit]
                assert any(word in family.documentation for word in words), family.name


def test_units_are_converted(families):
    assert value(families, "gpuscalp_last_frame_age_seconds") == 0.15
    assert value(families, "gpuscalp_clock_offset_seconds") == -0.0025
    assert value(families, "gpuscalp_drawdown_ratio") == 0.025
    assert value(families, "gpuscalp_start_time_seconds") == 1_700_003_540
    assert value(families, "gpuscalp_status_timestamp_seconds") == 1_700_003_600
    assert value(families, "gpuscalp_risk_since_timestamp_seconds") == 1_700_003_000


def test_labels_of_one_thing_each(families):
    assert value(families, "gpuscalp_feed_connections", route="public", state="live") == 2
    assert value(families, "gpuscalp_feed_messages_total", fate="duplicate") == 7
    assert value(families, "gpuscalp_feed_messages_total", fate="other_kind") == 100
    assert value(families, "gpuscalp_stream_age_seconds", symbol="BTCUSDT", stream="depth@100ms") == 0.2
    assert value(families, "gpuscalp_stream_age_seconds", symbol="all", stream="!markPrice@arr@1s") == 0.9
    assert value(families, "gpuscalp_symbol_off_tick", symbol="BTCUSDT") == 0
    assert value(families, "gpuscalp_symbol_off_tick", symbol="ETHUSDT") == 1
    assert value(families, "gpuscalp_symbol_rules", symbol="BTCUSDT") == 1
    assert value(families, "gpuscalp_symbol_rules", symbol="ETHUSDT") == 0
    assert value(families, "gpuscalp_book_synced", symbol="BTCUSDT") == 0
    assert value(families, "gpuscalp_book_resyncs_total", symbol="BTCUSDT") == 2
    assert value(families, "gpuscalp_queue_items", queue="journal") == 10
    assert value(families, "gpuscalp_health_reason", source="device", reason="gpu0:memory") == 1
    assert value(families, "gpuscalp_risk_state", state="reducing") == 1
    assert value(families, "gpuscalp_risk_state", state="active") == 0
    # What comes to a gate that is closed already has to be seen as well.
    assert value(families, "gpuscalp_risk_cause", cause="daily_loss") == 1
    assert value(families, "gpuscalp_risk_cause", cause="alarm") == 1
    assert value(families, "gpuscalp_account_blocked") == 1
    assert value(families, "gpuscalp_orders_ended_total", state="filled", reason="edge") == 4
    assert value(families, "gpuscalp_score_lost_points", part="errors", reason="device") == 6
    assert value(families, "gpuscalp_order_rejects_total", code="-1111") == 2
    assert value(families, "gpuscalp_orders_rejected_total") == 3


def test_first_burst_of_rejects_is_told():
    """The series of its code comes with it, at 40 at once: nothing had risen, and nobody was told."""
    status = full_status()
    alarms = Alarms(CONDITIONS)
    scrapes = Scrapes(alarms.ranges)
    fired = []
    for at_s, rejects in ((0, {}), (5, {}), (10, {"-2019": 40})):
        status["trading"]["rejects"] = rejects
        scrapes.add(at_s, SessionCollector(lambda: status, dict).collect(), unix_s=1_700_003_600)
        alarms.observe(scrapes)
        fired.append(("GpuscalpOrderRejects", ()) in alarms.firing)
    assert fired == [False, False, True]


def test_histogram_of_durations_has_exact_bounds(families):
    samples = families["gpuscalp_stage_duration_seconds"].samples
    predict = {
        sample.labels.get("le"): sample.value for sample in samples if sample.labels["stage"] == "predict"
    }
    assert predict[repr((1 << 13) / 1e9)] == 1, "a duration of a bound lies above it"
    assert predict[repr((1 << 14) / 1e9)] == 2
    assert predict[repr((1 << 20) / 1e9)] == 4
    assert predict["+Inf"] == 5
    assert value(families, "gpuscalp_stage_duration_seconds_sum", stage="predict") == pytest.approx(
        20.002013192
    )
    assert {sample.labels["stage"] for sample in samples} == {"predict"}, (
        "a stage without durations is absent"
    )


def test_peak_of_memory_is_not_that_of_the_process_that_started_this_one():
    """``ru_maxrss`` is: it outlives fork and exec."""
    held = np.ones(200 << 17)  # 200 MiB
    code = "from gpuscalp.monitoring.resources import peak_resident_bytes; print(peak_resident_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 1 << 20 < int(done.stdout) < held.nbytes <= peak_resident_bytes()


def test_memory_is_that_of_the_container_where_it_leaves_less(tmp_path, monkeypatch):
    """A container that was almost full told of the whole machine, and no alarm came before its end."""
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    for folder in (proc, cgroup):
        folder.mkdir()
    (proc / "meminfo").write_text("MemTotal: 64000000 kB\nMemFree: 1 kB\nMemAvailable: 60000000 kB\n")
    (cgroup / "memory.max").write_text("4000000000\n")
    (cgroup / "memory.current").write_text("3900000000\n")
    (cgroup / "memory.stat").write_text("anon 1\ninactive_file 100000000\n")
    monkeypatch.setattr(resources, "read_memory", lambda: read_memory(proc, cgroup))
    found = read_resources(tmp_path)
    told = (found["machine_memory_available_bytes"], found["machine_memory_bytes"])
    assert told == (200_000_000, 4_000_000_000)
    (proc / "meminfo").write_text("MemTotal: 64000000 kB\nMemFree: 1 kB\nMemAvailable: 100000 kB\n")
    assert read_memory(proc, cgroup) == (102_400_000, 65_536_000_000), "the machine has less left"
    assert read_memory(proc, tmp_path) == (102_400_000, 65_536_000_000)
    assert read_memory(tmp_path, cgroup) == (200_000_000, 4_000_000_000)
    assert read_memory(tmp_path, tmp_path) is None


@pytest.mark.parametrize(
    ("files", "free_files", "ratio"), [(1_000, 20, 0.02), (1_000, 900, 0.5), (0, 0, 0.5)]
)
def test_disk_without_files_to_be_made_is_as_full_as_one_without_bytes(
    tmp_path, monkeypatch, files, free_files, ratio
):
    """A disk of small files had half of its bytes free when no segment could be begun any more."""
    disk = SimpleNamespace(f_blocks=100, f_bavail=50, f_frsize=4_096, f_files=files, f_favail=free_files)
    monkeypatch.setattr(resources.os, "statvfs", lambda _: disk)
    found = read_resources(tmp_path)
    assert found["disk_free_ratio"] == ratio
    assert (found["disk_free_bytes"], found["disk_bytes"]) == (204_800, 409_600)


def test_resources_are_those_of_this_process(tmp_path):
    found = read_resources(tmp_path)
    assert found["cpus"] == len(os.sched_getaffinity(0))
    assert found["cpu_s"] > 0
    assert 0 < found["disk_free_bytes"] <= found["disk_bytes"]
    assert 0 < found["disk_free_ratio"] <= found["disk_free_bytes"] / found["disk_bytes"]
    if found["memory_bytes"] is not None:
        assert 1 << 20 < found["memory_bytes"] < found["machine_memory_bytes"]
        assert found["machine_memory_available_bytes"] < found["machine_memory_bytes"]
