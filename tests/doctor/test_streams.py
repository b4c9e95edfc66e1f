"""One connection to a venue that does what a test says, and how it is judged."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable

import pytest

from gpuscalp.config import FeedConfig
from gpuscalp.doctor.streams import Patience, StreamProbe, addresses, check_stream, probe_stream
from gpuscalp.errors import ConfigError
from gpuscalp.feeds.routes import Endpoint
from tests.feeds.server import local_venue

NAMES = ("btcusdt@aggTrade", "btcusdt@bookTicker")
# A silence is what some of these tests wait for; all else may take its time.
HURRY = Patience(open_s=20.0, reply_s=0.3, data_s=0.3)
CALM = Patience(open_s=20.0, reply_s=20.0, data_s=20.0)


def _run(
    during: Callable,
    *,
    names: tuple[str, ...] = NAMES,
    acknowledge: bool = True,
    patience: Patience = HURRY,
    **options,
) -> StreamProbe:
    """Probe a venue on which ``during`` acts as soon as it has been asked for streams."""

    async def run() -> StreamProbe:
        async with local_venue(**options) as venue:
            venue.acknowledge = acknowledge
            feed = FeedConfig(public_url=venue.url)
            endpoint = Endpoint("public", venue.url + "/stream", names)
            probing = asyncio.ensure_future(probe_stream(endpoint, feed, patience))
            while not venue.requests and not probing.done():
                await asyncio.sleep(0.002)
            if venue.requests:
                assert venue.requests[0]["params"] == list(names)
                if venue.clients:  # it leaves at once where nothing has to be waited for
                    await during(venue.clients[0])
            return await probing

    return asyncio.run(run())


def _message(name: str) -> str:
    return json.dumps({"stream": name, "data": {"e": "any"}})


async def _all(client) -> None:
    for name in NAMES:
        await client.send(_message(name))


async def _one(client) -> None:
    await client.send(_message(NAMES[0]))


async def _none(client) -> None:
    pass


async def _others(client) -> None:
    await client.send(_message("ethusdt@aggTrade"))
    await client.send("no JSON")


async def _close(client) -> None:
    await client.close()


async def _refuse(client) -> None:
    await client.send(json.dumps({"id": 1, "error": {"code": 2, "msg": "Invalid stream"}}))


@pytest.mark.parametrize(
    ("during", "acknowledge", "status", "code", "told"),
    [
        (_all, True, "ok", 0, "all streams delivered"),
        (_one, True, "warn", 0, "silent: btcusdt@bookTicker"),
        (_none, True, "fail", 5, "acknowledged, but silent"),
        (_none, False, "fail", 5, "not acknowledged"),
        (_close, True, "fail", 5, "ended by itself"),
        (_refuse, False, "fail", 1, "Invalid stream"),
    ],
)
def test_connection_is_judged_by_what_it_delivers(during, acknowledge, status, code, told):
    patience = {
        _one: Patience(open_s=20.0, reply_s=20.0, data_s=1.0),  # what does not come has to be waited for
        _none: Patience(open_s=20.0, reply_s=20.0 if acknowledge else 0.3, data_s=0.3),
    }.get(during, CALM)
    check = check_stream("stream_public", _run(during, acknowledge=acknowledge, patience=patience))
    assert (check.name, check.status, check.code) == ("stream_public", status, code)
    assert told in check.what
    assert (check.fix is None) == (status == "ok")
    assert check.value["open_ms"] > 0


def test_messages_of_others_do_not_count():
    probe = _run(_others)
    assert probe.silent == list(NAMES)
    assert check_stream("x", probe).status == "fail"


def test_rare_streams_may_be_silent():
    probe = _run(_none, names=("btcusdt@forceOrder",))
    assert check_stream("x", probe).status == "ok"


def test_closed_port_is_told_as_unreachable():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{free.getsockname()[1]}"
    endpoint = Endpoint("public", url + "/stream", NAMES)
    check = check_stream("x", asyncio.run(probe_stream(endpoint, FeedConfig(public_url=url), HURRY)))
    assert (check.status, check.code) == ("fail", 5)
    assert "network" in (check.fix or "")


@pytest.mark.parametrize(
    ("status", "headers", "fix"),
    [
        (418, {"Retry-After": "33"}, "33 s"),
        (429, {}, "60 s"),
        (404, {}, "correct the URL"),
        (403, {}, "serves"),
    ],
)
def test_refused_handshake_is_told_with_its_fix(status, headers, fix):
    def refuse(connection, request):
        reply = connection.respond(status, "no")
        reply.headers.update(headers)
        return reply

    check = check_stream("x", _run(_none, patience=CALM, process_request=refuse))
    assert (check.status, check.code) == ("fail", 5)
    assert str(status) in check.what
    assert fix in (check.fix or "")


def test_each_address_is_probed_once():
    feed = FeedConfig(redundancy=3)
    assert [name for name, _ in addresses("BTCUSDT", feed)] == ["stream_market", "stream_public"]


def test_redundant_servers_are_probed_as_well():
    feed = FeedConfig(redundancy=2, redundant_urls=("wss://other.example/{route}",))
    found = dict(addresses("BTCUSDT", feed))
    assert list(found) == ["stream_market", "stream_public", "stream_market_1", "stream_public_1"]
    assert found["stream_public_1"].url == "wss://other.example/public/stream"


def test_stream_without_a_route_is_an_error():
    with pytest.raises(ConfigError, match="no route"):
        addresses("BTCUSDT", FeedConfig(streams=("nonsense",)))
