"""The watch over a session's GPUs: what the gate is told, who is told of a failure, what the status shows."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.config import FeedConfig, GpuHealthConfig, MetricsConfig
from gpuscalp.errors import ConfigError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.journal import Record, RecordKind
from gpuscalp.live import run
from gpuscalp.live.gpu_watch import GpuWatch, open_watch
from gpuscalp.live.health import Health
from gpuscalp.live.records import HealthRecord, decode, encode
from gpuscalp.monitoring.nvml_cards import visible_cards
from tests.fake_nvml import MIB, FakeCard, FakeNvml
from tests.live.sessions import Ended, Running, eager_config, feed_of
from tests.live.test_health import OWN, SYMBOLS, _client
from tests.ports import free_port
from tests.waiting import until

CONFIG = GpuHealthConfig(poll_ms=100)
PATIENCE_S = 20.0


def _watch(nvml: FakeNvml | None, config: GpuHealthConfig = CONFIG, **more: Any) -> GpuWatch:
    return GpuWatch(nvml, partial(visible_cards, nvml, {}), config, **more)


def test_gate_is_told_what_is_wrong_with_the_cards_while_it_is():
    nvml = FakeNvml(FakeCard(), FakeCard("GPU-2", "00000000:5E:00.0"))
    watch = _watch(nvml)
    assert watch.reasons() == ("gpu:unread",), "nothing is known yet"
    watch.start()
    try:
        until(lambda: watch.reasons() == ())
        nvml.cards[1].free = 100 * MIB
        until(lambda: watch.reasons() == ("gpu1:memory",))
        nvml.cards[0].reasons = 0x40
        until(lambda: watch.reasons() == ("gpu0:hw_thermal", "gpu1:memory"))
        nvml.cards[0].reasons, nvml.cards[1].free = 0, 9_000 * MIB
        until(lambda: watch.reasons() == ())
    finally:
        watch.stop()


def test_gate_is_told_nothing_while_the_processor_leads():
    leads = [True]
    nvml = FakeNvml(FakeCard(free=0))
    watch = _watch(nvml, leads=lambda: leads[0])
    watch.start()
    try:
        until(lambda: watch.reasons() == ("gpu0:memory",))
        leads[0] = False
        assert watch.reasons() == ()
        assert watch.status()["cards"][0]["doubtful"] == ["memory"], "it is still known"
    finally:
        watch.stop()


def test_failure_is_told_as_long_as_it_lasts():
    """It was told once: after a while the next worker led on a card that was given up."""
    nvml, told = FakeNvml(FakeCard(), FakeCard("GPU-2", "00000000:5E:00.0")), []
    watch = _watch(nvml, on_failed=lambda index, why: told.append((index, why)))

    def rounds() -> set[tuple[int, str]]:
        """Return what is told in the two rounds that come."""
        polls = watch.status()["polls"]
        until(lambda: watch.status()["polls"] > polls)
        told.clear()
        until(lambda: watch.status()["polls"] > polls + 3)
        return set(told)

    watch.start()
    try:
        until(lambda: len(watch.judged()) == 2)
        nvml.cards[1].gone = 15
        assert rounds() == {(1, "lost")}
        assert rounds() == {(1, "lost")}
        nvml.happen(nvml.cards[0], 0x8, 31)  # a program's
        nvml.happen(nvml.cards[0], 0x8, 79)
        assert rounds() == {(0, "xid79"), (1, "lost")}
        nvml.cards[1].gone = None
        until(lambda: watch.reasons() == ("gpu0:xid79",))
        assert rounds() == {(0, "xid79")}
    finally:
        watch.stop()


def test_driver_that_does_not_answer_any_more_is_a_reason():
    nvml = FakeNvml(FakeCard())
    nvml.hang = threading.Event()
    watch = _watch(nvml, GpuHealthConfig(poll_ms=100, silent_ms=50))
    watch.start()
    try:
        until(lambda: watch.reasons() == ("gpu:silent",))
    finally:
        nvml.hang.set()
        watch.stop()


def test_without_nvml_nothing_is_known_and_the_status_says_so():
    watch = _watch(None)
    watch.start()
    assert (watch.reasons(), watch.judged()) == ((), ())
    assert watch.status()["error"] == "nvidia-ml-py is not installed"
    watch.stop()
    nvml = FakeNvml(FakeCard())
    nvml.start_error = 12
    watch = _watch(nvml)
    watch.start()
    until(lambda: watch.status()["error"] == "error 12")
    # A container may have CUDA and not NVML: that alone is no doubt.
    assert watch.reasons() == ()
    watch.stop()


def test_callback_that_fails_is_told_and_does_not_end_the_watch():
    nvml = FakeNvml(FakeCard(free=0, ecc={0: 0, 1: 1}))

    def fail(index: int, why: str) -> None:
        raise ValueError(f"{index} {why}")

    watch = _watch(nvml, on_failed=fail)
    watch.start()
    try:
        until(lambda: watch.status()["error"] == "on_failed: 0 ecc")
        polls = watch.status()["polls"]
        until(lambda: watch.status()["polls"] > polls + 1)
        assert watch.reasons() == ("gpu0:ecc", "gpu0:memory")
    finally:
        watch.stop()


def test_session_on_the_processor_has_no_watch():
    assert open_watch("cpu", CONFIG, None) is None


def test_reasons_go_into_the_record_and_survive_the_journal():
    health = Health(SYMBOLS, OWN)
    found = health.judge(_client(OWN), ClockOffset(FeedConfig()), ("gpu0:memory",))
    assert found.device == ("gpu0:memory",)
    assert not found.device_ok
    assert health.judge(_client(OWN), ClockOffset(FeedConfig())).device_ok
    record = Record(seq=0, recv_ns=0, kind=RecordKind.HEALTH, connection=0, body=encode(found))
    assert decode(record, HealthRecord) == found
    assert json.loads(encode(found))["device"] == ["gpu0:memory"]


def test_sick_card_stops_entries_until_it_is_well_and_the_session_verifies(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml, told = FakeNvml(FakeCard()), []
    watch = _watch(nvml, on_failed=lambda index, why: told.append((index, why)))
    monkeypatch.setattr(run, "open_watch", lambda *_: watch)
    path = tmp_path / "session"
    port = free_port()
    config = eager_config(feed_of(exchange), metrics=MetricsConfig(port=port))
    with Running(path, config, bundle) as running:
        running.wait_trading()
        nvml.cards[0].free = 1 * MIB
        running.wait(lambda status: status["gpu"]["reasons"] == ["gpu0:memory"], "the doubt")
        scraped = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20).read().decode()
        (reason,) = [line for line in scraped.splitlines() if line.startswith("gpuscalp_gpu_reason{")]
        assert 'reason="memory"' in reason
        running.wait_messages(400)
        nvml.cards[0].free = 9_000 * MIB
        running.wait(lambda status: status["gpu"]["reasons"] == [], "the end of the doubt")
        running.wait_trading()
        nvml.cards[0].gone = 15
        running.wait(lambda status: status["gpu"]["reasons"] == ["gpu0:lost"], "the loss")
        running.wait_messages(200)
        ended = running.stop()
    assert set(told) == {(0, "lost")}
    assert nvml.started == 0
    _check_refusals(ended)


def test_session_whose_port_for_metrics_is_taken_does_not_begin(
    exchange: Exchange, bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "session"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = eager_config(feed_of(exchange), metrics=MetricsConfig(port=taken.getsockname()[1]))
        with Running(path, config, bundle) as running:
            error = running.join()
    assert isinstance(error, ConfigError)
    assert not any((path / "journal").glob("*")), "nothing has been written"


def _check_refusals(ended: Ended) -> None:
    """Assert that the journal's verdicts are those of the health that was known when each was asked for."""
    story = ended.check()
    device: tuple[str, ...] = ()
    seen: dict[tuple[str, ...], set[str]] = {}
    known: dict[int, tuple[str, ...]] = {}
    changes = {record.seq: health.device for record, health in story.health}
    for record in story.records:
        device = changes.get(record.seq, device)
        if record.kind == RecordKind.BATCH:
            known[record.seq] = device  # what the engine is given
    batches = sorted(known)
    for record, verdict in story.verdicts:
        given = known[max(seq for seq in batches if seq < record.seq)]
        if verdict.kind == "enter":
            seen.setdefault(given, set()).add(verdict.code)
            assert (verdict.code == "DEVICE") == bool(given), (
                f"record {record.seq}: {verdict.code} with {given}"
            )
    assert {"gpu0:memory", "gpu0:lost"} <= {reason for reasons in seen for reason in reasons}
    assert "" in seen[()], "entries are let through while all is well"
    batch_of_entries = [known[seq] for seq, _ in story.entries]
    assert batch_of_entries, "there were entries"
    assert not any(batch_of_entries), "no entry while a card is sick"
