"""The end of ``gpuscalp live --broker nautilus`` in positions: by a stop, and by a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import Fault
from gpuscalp.live.verify import verify
from gpuscalp.nautilus.installed import LIVE
from tests.live.sessions import write_eager_bundle
from tests.nautilus.harness import (
    Live,
    agree,
    at_exchange,
    config_of,
    open_at_exchange,
    sent_orders,
    served,
    user_of,
)
from tests.tools import no_nautilus

pytestmark = pytest.mark.skipif(bool(no_nautilus(LIVE)), reason=no_nautilus(LIVE))

ORDERS = '[orders]\nentry = "taker"\nstop_loss_bps = 500.0\n'


@pytest.fixture(scope="module")
def holding_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that wants to buy at every frame and holds for a minute."""
    return write_eager_bundle(tmp_path_factory.mktemp("holding") / "bundle", hold_ms=60_000)


def stops(exchange: Exchange) -> set[str]:
    return {
        name for name, kind, closes in open_at_exchange(exchange) if (kind, closes) == ("STOP_MARKET", True)
    }


def take_stops_away(exchange: Exchange) -> None:
    """End all stops from inside, as an exchange may."""

    def end(server: Any) -> None:
        user, algo = user_of(server), server.venue.algo
        for order in algo.open_orders(user):
            algo.cancel(order, server.venue.now_ms)

    exchange.ask(end)


def held(exchange: Exchange) -> dict[str, float]:
    return at_exchange(exchange)[1]


def test_a_full_disk_leaves_no_position_without_a_stop(tmp_path: Path, holding_bundle: Path) -> None:
    """Nothing was done after a failure of our own: what was filled meanwhile was open without a stop."""
    with served() as exchange:
        config = config_of(exchange, tmp_path / "live.toml", look_s=2.0, more=ORDERS)
        with Live(tmp_path / "session", config, holding_bundle) as live:
            live.wait(lambda _: len(held(exchange)) == len(stops(exchange)) == 2, "two positions with stops")
            own, before = stops(exchange), held(exchange)
            pid = live.pid
            os.kill(pid, signal.SIGSTOP)
            take_stops_away(exchange)
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
            os.kill(pid, signal.SIGCONT)
            assert live.join() == 1
            assert "File too large" in live.output + live.errors
            guards = stops(exchange)
            assert held(exchange) == before
            assert len(guards) == 2
            assert not guards & own, "placed past the session"
            assert all("-guard" in name for name in guards)
            live.start()
            live.wait(lambda _: len(stops(exchange)) == 2 and not stops(exchange) & guards, "its own stops")
            status = agree(live, exchange)
            assert (status["account"]["strangers"], status["state"]) == ("", "active")
            live.ask("stop", flatten=True)
            assert live.join() == 9
            assert (held(exchange), open_at_exchange(exchange)) == ({}, [])
        assert max(sent_orders(exchange).values()) == 1
    found = verify(tmp_path / "session")
    assert (found["differing"], found["verdicts_differing"]) == (0, 0), found["first"]


def test_what_is_left_without_a_stop_is_named(tmp_path: Path, holding_bundle: Path) -> None:
    """An exchange that takes no stops, and a session that is stopped: it ended well, and said nothing."""
    with served() as exchange:
        config = config_of(exchange, tmp_path / "live.toml", look_s=60.0, more=ORDERS)
        with Live(tmp_path / "session", config, holding_bundle) as live:
            live.wait(lambda _: len(held(exchange)) == len(stops(exchange)) == 2, "two positions with stops")
            os.kill(live.pid, signal.SIGSTOP)
            exchange.set_fault(Fault(kind="unknown_lost", path="/fapi/v1/algoOrder"))
            exchange.set_fault(Fault(kind="unknown_lost", path="/fapi/v1/order"))
            take_stops_away(exchange)
            os.kill(live.pid, signal.SIGTERM)
            os.kill(live.pid, signal.SIGCONT)
            assert live.join() == 1
            error = json.loads(live.output)["error"]
            assert error["kind"] == "UnprotectedError"
            for symbol in held(exchange):
                assert symbol in error["value"]
            left = json.loads((tmp_path / "session" / "status.json").read_text())["account"]["left"]
            assert {each["symbol"]: each["stopped"] for each in left} == dict.fromkeys(held(exchange), 0.0)
