"""Metrics as Prometheus reads them: names, units, labels, and nothing where nothing is known."""

from __future__ import annotations

import socket
import threading
import urllib.request
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gpuscalp.config import GpuHealthConfig
from gpuscalp.errors import ConfigError
from gpuscalp.monitoring.gpu_judgement import judge_card
from gpuscalp.monitoring.metrics import DeviceCollector, GpuCollector
from gpuscalp.monitoring.nvml import CardSample
from gpuscalp.monitoring.server import served
from tests.fake_nvml import MIB, SAMPLE

FULL = msgspec.structs.replace(
    SAMPLE,
    index=1,
    uuid="GPU-1",
    bus_id="00000000:3B:00.0",
    name='Card "X"',
    used_bytes=10 * MIB,
    free_bytes=70 * MIB,
    total_bytes=80 * MIB,
    memory_mhz_max=2_620,
    link_width_max=8,
    last_xid=79,
    xids=(79,),
)
# Names and units as dcgm-exporter has them.
EXPECTED = {
    "DCGM_FI_DEV_GPU_UTIL": 37,
    "DCGM_FI_DEV_MEM_COPY_UTIL": 12,
    "DCGM_FI_DEV_FB_USED": 10,
    "DCGM_FI_DEV_FB_FREE": 70,
    "DCGM_FI_DEV_FB_TOTAL": 80,
    "DCGM_FI_DEV_GPU_TEMP": 55,
    "DCGM_FI_DEV_GPU_TEMP_LIMIT": 30,
    "DCGM_FI_DEV_POWER_USAGE": 310.5,
    "DCGM_FI_DEV_ENFORCED_POWER_LIMIT": 700,
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 123_456,
    "DCGM_FI_DEV_SM_CLOCK": 1_755,
    "DCGM_FI_DEV_MAX_SM_CLOCK": 1_980,
    "DCGM_FI_DEV_MEM_CLOCK": 2_619,
    "DCGM_FI_DEV_MAX_MEM_CLOCK": 2_620,
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": 73,
    "DCGM_FI_DEV_XID_ERRORS": 79,
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": 2,
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": 0,
    "DCGM_FI_DEV_ROW_REMAP_PENDING": 1,
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": 0,
    "DCGM_FI_DEV_PCIE_RX_THROUGHPUT": 222,
    "DCGM_FI_DEV_PCIE_TX_THROUGHPUT": 111,
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": 3,
    "DCGM_FI_DEV_PCIE_LINK_GEN": 4,
    "DCGM_FI_DEV_PCIE_MAX_LINK_GEN": 5,
    "DCGM_FI_DEV_PCIE_LINK_WIDTH": 16,
    "DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH": 8,
    "gpuscalp_gpu_process_memory_bytes": 3 * MIB,
    "gpuscalp_gpu_lost": 0,
}
CARD = {"gpu": "1", "UUID": "GPU-1", "modelName": 'Card "X"', "pci_bus_id": "00000000:3B:00.0"}


def _parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every series of a scrape; no series may be told twice."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"{key} is told twice"
            found[key] = sample.value
    return found


def _scrape(*collectors: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return _parsed(generate_latest(registry).decode())


def _judged(*samples: CardSample) -> GpuCollector:
    judged = tuple((sample, judge_card(sample, GpuHealthConfig())) for sample in samples)
    return GpuCollector(lambda: judged)


def test_card_is_exported_under_the_names_and_units_of_dcgm():
    found = _scrape(_judged(FULL))
    labels = tuple(sorted(CARD.items()))
    assert {name: value for (name, told), value in found.items() if told == labels} == EXPECTED
    reasons = {
        (dict(told)["verdict"], dict(told)["reason"]): value
        for (name, told), value in found.items()
        if name == "gpuscalp_gpu_reason"
    }
    assert reasons == {
        ("failed", "xid79"): 1,
        ("doubtful", "hw_thermal"): 1,
        ("doubtful", "memory"): 1,
        ("doubtful", "remap_pending"): 1,
    }


def test_what_is_not_known_is_absent_and_not_zero():
    found = _scrape(
        _judged(FULL, CardSample(index=2, at_ns=0), CardSample(index=3, at_ns=0, lost="GPU is lost"))
    )
    told = {(dict(labels)["gpu"], name): value for (name, labels), value in found.items()}
    assert {name for gpu, name in told if gpu == "2"} == {"gpuscalp_gpu_lost"}
    assert told["2", "gpuscalp_gpu_lost"] == 0
    assert told["3", "gpuscalp_gpu_lost"] == 1
    assert {name for gpu, name in told if gpu == "3"} == {"gpuscalp_gpu_lost", "gpuscalp_gpu_reason"}


def _worker(gpu: int | None, state: str, **more: Any) -> dict[str, Any]:
    return {"state": state, "device": "cuda", "gpu": gpu, "rows": [0, 4], "faults": {}, "restarts": 0} | more


def _engine(*workers: dict[str, Any], **more: Any) -> dict[str, Any]:
    engine = {
        "device": "cuda",
        "why": "asked for",
        "leading": True,
        "lost_frames": 7,
        "late_predictions": 3,
        "deadline_ms": 200,
        "workers": list(workers),
        "past_workers": [],
        "last_fault": None,
    }
    return {"engine": engine | more}


def test_engine_and_its_faults_are_exported():
    status = _engine(
        _worker(0, "leading"),
        _worker(1, "dead", faults={"hang": 2, "out_of_memory": 1}, restarts=3),
        last_fault={"reason": "hang", "detail": "…", "at_ns": 5},
    )
    assert _scrape(DeviceCollector(lambda: status)) == {
        ("gpuscalp_engine_info", (("device", "cuda"), ("why", "asked for"))): 1,
        ("gpuscalp_engine_gpu_leading", ()): 1,
        ("gpuscalp_engine_lost_frames_total", ()): 7,
        ("gpuscalp_engine_late_predictions_total", ()): 3,
        ("gpuscalp_engine_deadline_seconds", ()): 0.2,
        ("gpuscalp_engine_faults_total", (("gpu", "1"), ("reason", "hang"))): 2,
        ("gpuscalp_engine_faults_total", (("gpu", "1"), ("reason", "out_of_memory"))): 1,
        ("gpuscalp_engine_restarts_total", (("gpu", "0"),)): 0,
        ("gpuscalp_engine_restarts_total", (("gpu", "1"),)): 3,
        ("gpuscalp_engine_worker_state", (("gpu", "0"), ("state", "leading"))): 1,
        ("gpuscalp_engine_worker_state", (("gpu", "1"), ("state", "dead"))): 1,
    }


def test_workers_without_a_gpu_share_their_series():
    # Prometheus refuses the whole scrape where one series is told twice.
    status = _engine(
        _worker(None, "ready", faults={"hang": 1}, restarts=1),
        _worker(None, "ready", faults={"hang": 2}, restarts=2),
    )
    found = _scrape(DeviceCollector(lambda: status))
    assert found["gpuscalp_engine_faults_total", (("gpu", ""), ("reason", "hang"))] == 3
    assert found["gpuscalp_engine_restarts_total", (("gpu", ""),)] == 3
    assert found["gpuscalp_engine_worker_state", (("gpu", ""), ("state", "ready"))] == 2


def test_counts_go_on_over_the_workers_of_another_model():
    """They stood in the workers' own status alone: with a new model they were gone, and came back at 0."""
    before = _worker(0, "leading", faults={"hang": 2}, restarts=3)
    past = {"gpu": 0, "faults": {"hang": 2}, "restarts": 3, "last_fault": None}
    between = _engine(past_workers=[past])
    after = _engine(_worker(0, "leading", faults={"hang": 1, "killed": 1}, restarts=1), past_workers=[past])
    told = []
    for status in (_engine(before), between, after):
        found = _scrape(DeviceCollector(lambda status=status: status))
        told.append(
            {
                (name.removeprefix("gpuscalp_engine_"), dict(labels).get("reason")): value
                for (name, labels), value in found.items()
                if name in ("gpuscalp_engine_faults_total", "gpuscalp_engine_restarts_total")
            }
        )
    assert told[0] == told[1] == {("faults_total", "hang"): 2, ("restarts_total", None): 3}
    assert told[2] == {
        ("faults_total", "hang"): 3,
        ("faults_total", "killed"): 1,
        ("restarts_total", None): 4,
    }


@pytest.mark.parametrize("status", [{}, {"engine": None}])
def test_session_without_such_an_engine_exports_nothing_of_it(status):
    assert _scrape(DeviceCollector(lambda: status)) == {}


def test_scrape_over_loopback_reads_what_is_true_now_and_the_port_is_free_afterwards():
    status: dict[str, Any] = {}
    before = threading.active_count()
    with served("127.0.0.1", 0, [DeviceCollector(lambda: status), _judged(FULL)]) as port:
        url = f"http://127.0.0.1:{port}/metrics"

        def scrape() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
            with urllib.request.urlopen(url, timeout=20) as reply:
                assert reply.headers["Content-Type"].startswith("text/plain")
                return _parsed(reply.read().decode())

        first = scrape()
        assert first["DCGM_FI_DEV_FB_FREE", tuple(sorted(CARD.items()))] == 70
        assert not any(name.startswith("gpuscalp_engine") for name, _ in first)
        status |= _engine(_worker(0, "leading"))
        assert scrape()["gpuscalp_engine_lost_frames_total", ()] == 7
    assert threading.active_count() == before
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_port_that_is_taken_is_named_with_a_way_on():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught, served("127.0.0.1", port, []):
            pass
    assert caught.value.value == f"127.0.0.1:{port}"
    assert "metrics.port" in str(caught.value.fix)
