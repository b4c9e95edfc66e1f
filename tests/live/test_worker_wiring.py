"""How a session comes by its workers, and what is left of a start that fails."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from gpuscalp.config import EngineConfig, GpuHealthConfig
from gpuscalp.errors import DeviceError, UsageError
from gpuscalp.journal.blocks import Record, RecordKind
from gpuscalp.live import gpu_watch, workers
from gpuscalp.live.control import is_running
from gpuscalp.live.gpu_watch import open_watch
from gpuscalp.live.records import HealthRecord, SignalRecord, decode
from tests.fake_nvml import MIB, FakeCard, FakeNvml
from tests.live.sessions import Running, eager_config, feed_of, instruments
from tests.waiting import until


def _session(symbol_count: int = 2):
    about = SimpleNamespace(instruments=instruments()[:symbol_count], device="cuda")
    return SimpleNamespace(about=about, path=Path("session"))


@pytest.mark.parametrize(("there", "used"), [(1, 1), (2, 2), (8, 2)])
def test_more_gpus_than_symbols_stay_unused(there, used):
    cuda = {"cuda": {"usable": True, "device_count": there}}
    with mock.patch.object(workers, "look_for_gpus", return_value=cuda):
        specs = workers._specs(_session(), EngineConfig(), ())
    assert [spec.gpu for spec in specs] == list(range(used))


def test_more_gpus_than_symbols_that_were_asked_for_are_refused_and_the_session_is_let_go(
    exchange, bundle, tmp_path
):
    config = eager_config(feed_of(exchange), engine=EngineConfig(workers="cpu", gpus=3))
    path = tmp_path / "session"
    with Running(path, config, bundle) as running:
        error = running.join()
    assert isinstance(error, UsageError)
    assert not is_running(path), "its lock was kept until the process ended"


@pytest.mark.parametrize("what", ["hangs", "says nothing"])
def test_a_driver_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch, what):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\n" + ("exec sleep 600\n" if what == "hangs" else "exit 3\n"))
    program.chmod(0o755)
    monkeypatch.setattr(workers, "_LOOK_S", 0.3)
    monkeypatch.setattr(sys, "executable", str(program))
    began = time.monotonic()
    with pytest.raises(DeviceError, match="does not answer"):
        workers.look_for_gpus("auto")
    assert time.monotonic() - began < 60.0  # it hangs for ten minutes


def test_a_card_that_the_session_does_not_use_stops_nothing(monkeypatch):
    nvml = FakeNvml(FakeCard(), FakeCard("GPU-2", "00000000:5E:00.0", free=1 * MIB))
    monkeypatch.setattr(gpu_watch, "import_nvml", lambda: nvml)
    monkeypatch.setattr(gpu_watch, "cuda_bus_ids", lambda: ())
    fleets = SimpleNamespace(gpus=frozenset({0}), pids=lambda: ())
    predictor = SimpleNamespace(fleets=fleets, leads=True, fail=lambda index, why: None)
    watch = open_watch("cuda", GpuHealthConfig(poll_ms=100), predictor, environment={})
    watch.start()
    try:
        until(lambda: bool(watch.judged()))
        assert [sample.index for sample, _ in watch.judged()] == [0]
        assert watch.reasons() == ()
    finally:
        watch.stop()


def test_records_of_the_versions_before_are_still_read():
    """Before there were workers no version ever wrote device_ok as false."""

    def record(kind, body):
        return Record(seq=0, recv_ns=0, kind=kind, connection=0, body=body)

    health = b'{"clock_error_ms":0.5,"drifted":false,"silent":[1],"device_ok":true}'
    assert decode(record(RecordKind.HEALTH, health), HealthRecord) == HealthRecord(0.5, False, (1,))
    signal = (
        b'{"end_ns":1,"decided_ns":2,"stages_ns":[1,2,3],"rows":"AAAAAAAAAAA=","margins":"","signal":"",'
        b'"equity_e8":5,"skips":[1]}'
    )
    found = decode(record(RecordKind.SIGNAL, signal), SignalRecord)
    assert (found.lost, found.late, found.unproved) == (False, False, b"")
