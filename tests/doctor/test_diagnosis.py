"""Everything at once, against the simulated exchange and its faults."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest

from gpuscalp.config import EngineConfig, FeedConfig, JournalConfig, LiveConfig
from gpuscalp.device_choice import profile_path, this_machine, write_profile
from gpuscalp.device_profile import DeviceProfile, Point
from gpuscalp.doctor import Diagnosis, diagnose, examine
from gpuscalp.doctor.check import Check
from gpuscalp.doctor.model import workload_of
from gpuscalp.doctor.streams import PATIENCE, Patience
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import Fault
from gpuscalp.exchange.server import ServeSpec
from gpuscalp.journal import JournalWriter
from gpuscalp.live.directory import create
from gpuscalp.rehearsal import open_source
from tests.doctor import bundle as made

NETWORK = ("rest", "clock_offset", "symbols", "stream_market", "stream_public")
HURRY = Patience(rest_s=20.0, open_s=20.0, reply_s=0.5, data_s=0.6)


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    with Exchange(open_source(seed=7), ServeSpec()) as served:
        yield served


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return made.write(tmp_path_factory.mktemp("bundle") / "model", ("BTCUSDT", "ETHUSDT"))


@pytest.fixture(autouse=True)
def _no_faults(exchange: Exchange) -> Iterator[None]:
    yield
    exchange.clear_faults()


def _live(exchange: Exchange, **more) -> LiveConfig:
    stream = exchange.urls["stream"]
    urls = {f"{route}_url": f"{stream}/{route}" for route in ("public", "market")}
    return LiveConfig(feed=FeedConfig(rest_url=exchange.urls["rest"], **urls, **more))


def _by_name(found: Diagnosis) -> dict[str, Check]:
    names = [check.name for check in found.checks]
    assert len(names) == len(set(names)), "a name stands for one check"
    return {check.name: check for check in found.checks}


def test_session_would_run_against_the_local_exchange(exchange, bundle, tmp_path):
    begin_s = time.monotonic()
    found = diagnose(_live(exchange), session_dir=tmp_path, model=bundle, device="cpu")
    assert time.monotonic() - begin_s < 10
    checks = _by_name(found)
    assert {name: checks[name].status for name in NETWORK} == dict.fromkeys(NETWORK, "ok")
    assert checks["model"].status == "ok"
    assert {checks[f"session_{name}"].status for name in ("lock", "journal", "state")} == {"ok"}
    assert found.exit_code == 0, [check for check in found.checks if check.status == "fail"]
    assert list(tmp_path.iterdir()) == [], "nothing is left in the directory"
    json.dumps(found.to_dict())


def test_device_is_told_with_what_was_measured_for_the_model(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    work = workload_of(bundle)
    assert work.symbols == 2
    machine = this_machine()
    point = Point("cpu", work.symbols, 200, work.trees, 2_000.0, 3_000.0)
    more = [] if machine.gpu is None else [msgspec.structs.replace(point, device="cuda", p99_us=9_000.0)]
    write_profile(profile_path(), DeviceProfile(1, "2026-11-25", machine, (point, *more)))
    for deadline_ms, late in ((5, False), (1, True)):
        live = LiveConfig(engine=EngineConfig(deadline_ms=deadline_ms))
        found = _by_name(diagnose(live, model=bundle, offline=True))
        assert "cpu 2/3 ms" in found["device"].what
        assert ("will not be kept" in found["device"].what) == late
        assert found["cuda_kernels"].status in ("skip", "ok", "warn")
    assert workload_of(tmp_path) is None


@pytest.mark.parametrize(
    ("fault", "failed", "code"),
    [
        (Fault("silent"), {"stream_market", "stream_public"}, 5),
        (Fault("half_open"), {"stream_market", "stream_public"}, 5),
        (Fault("clock_skew", skew_ms=-1_500), {"clock_offset"}, 1),
        (Fault("clock_skew", skew_ms=300), set(), 0),
        (Fault("banned", retry_after_s=40), {"rest"}, 5),
        (Fault("too_many", path="*/exchangeInfo"), {"rest"}, 5),
        (Fault("maintenance"), {"rest", "stream_market", "stream_public"}, 5),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else None,
)
def test_fault_of_the_exchange_is_found_where_it_is(exchange, fault, failed, code):
    exchange.set_fault(fault)
    # Where all is silent nothing is worth waiting for.
    patience = HURRY if fault.kind in ("silent", "half_open") else PATIENCE
    checks = _by_name(diagnose(_live(exchange), device="cpu", patience=patience))
    assert {name for name in NETWORK if checks[name].status == "fail"} == failed
    codes = {checks[name].code for name in failed}
    assert codes == ({code} if failed else set())
    assert all(checks[name].fix for name in failed)


def test_ban_is_told_with_the_time_to_wait(exchange):
    exchange.set_fault(Fault("banned", retry_after_s=40))
    checks = _by_name(diagnose(_live(exchange, streams=("bookTicker",)), device="cpu"))
    assert "40 s" in (checks["rest"].fix or "")
    assert checks["clock_offset"].status == "skip"


def test_one_silent_stream_is_a_warning_on_its_route(exchange):
    exchange.set_fault(Fault("silent", streams="*@bookTicker"))
    checks = _by_name(diagnose(_live(exchange), device="cpu", patience=Patience(data_s=2.0)))
    assert (checks["stream_public"].status, checks["stream_market"].status) == ("warn", "ok")


def test_model_for_symbols_of_elsewhere_is_refused(exchange, tmp_path):
    bundle = made.write(tmp_path / "model", ("BTCUSDT", "NOSUCHUSDT"))
    checks = _by_name(diagnose(_live(exchange, streams=("bookTicker",)), model=bundle, device="cpu"))
    assert (checks["symbols"].status, checks["symbols"].code) == ("fail", 8)
    assert "NOSUCHUSDT" in checks["symbols"].what


@pytest.mark.parametrize("names_model", [True, False])
def test_tick_size_that_changed_since_the_session_began_is_told(exchange, bundle, tmp_path, names_model):
    listed = {each.symbol: each for each in open_source(seed=7).instruments}
    btc = replace(listed["BTCUSDT"], tick_size_e8=2 * listed["BTCUSDT"].tick_size_e8)
    live = _live(exchange, streams=("bookTicker",))
    create(tmp_path / "session", live, bundle, (btc, listed["ETHUSDT"]), now_ns=time.time_ns())
    path = tmp_path / "live.toml"
    urls = (f'{name} = "{getattr(live.feed, name)}"' for name in ("rest_url", "public_url", "market_url"))
    path.write_text("\n".join(["[feed]", 'streams = ["bookTicker"]', *urls]))
    model = bundle if names_model else None
    found = examine(config=path, model=model, session_dir=tmp_path / "session", device="cpu")
    check = _by_name(found)["symbols"]
    assert (check.status, check.code) == ("fail", 8)
    assert check.value["tick_sizes_compared"] == 2
    assert [each.split()[0] for each in check.value["tick_size_changed"]] == ["BTCUSDT"]


def test_stream_on_no_route_is_told_once_with_code_4(exchange):
    checks = _by_name(diagnose(_live(exchange, streams=("nonsense",)), device="cpu"))
    assert (checks["stream"].status, checks["stream"].code) == ("fail", 4)
    assert checks["rest"].status == "ok"


def test_offline_sends_nothing(monkeypatch):
    feed = FeedConfig(rest_url="http://192.0.2.1", public_url="ws://192.0.2.1", market_url="ws://192.0.2.1")
    asked = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: asked.append(address))
    checks = _by_name(diagnose(LiveConfig(feed=feed), offline=True, device="cpu"))
    assert asked == []
    assert {checks[name].status for name in ("rest", "clock_offset", "symbols", "stream")} == {"skip"}


def test_directory_in_use_fails_and_its_journal_is_left_alone(tmp_path):
    with JournalWriter(tmp_path / "journal", JournalConfig(), now_ns=1):
        checks = _by_name(diagnose(None, session_dir=tmp_path, device="cpu"))
    assert (checks["session_lock"].status, checks["session_lock"].code) == ("fail", 1)
    assert (checks["session_journal"].status, checks["session_state"].status) == ("skip", "skip")


def test_bad_configuration_leaves_the_network_out_and_decides_the_code(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("[feed]\nredundancy = 99\n")
    found = examine(config=path, model=tmp_path / "no_bundle", device="cpu")
    checks = _by_name(found)
    assert checks["rest"].status == "skip"
    assert (checks["config"].code, checks["model"].code) == (4, 8)
    assert found.exit_code == 4
