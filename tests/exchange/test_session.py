"""Routes and control messages of a stream connection."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gpuscalp.exchange.session import DisconnectError, Session, route_of
from tests.exchange.conftest import Bench


def _session(path: str = "/market/ws", query: str = "", *, lenient: bool = False) -> Session:
    return Session(1, path, query, lenient=lenient, send=lambda _: None)


def _say(session: Session, message: object, now_ns: int = 0) -> Any:
    reply, _, _ = session.on_text(msgspec.json.encode(message), now_ns)
    return msgspec.json.decode(reply)


@pytest.mark.parametrize(
    ("stream", "route"),
    [
        ("btcusdt@bookTicker", "public"),
        ("!bookTicker", "public"),
        ("btcusdt@trade", "public"),
        ("btcusdt@depth", "public"),
        ("btcusdt@depth20@100ms", "public"),
        ("btcusdt@rpiDepth@500ms", "public"),
        ("btcusdt@aggTrade", "market"),
        ("btcusdt@markPrice@1s", "market"),
        ("!markPrice@arr", "market"),
        ("btcusdt@kline_1m", "market"),
        ("btcusdt@forceOrder", "market"),
        ("3f" * 32, "private"),
    ],
)
def test_each_stream_belongs_to_one_route(stream: str, route: str) -> None:
    assert route_of(stream) == route
    for asked in ("public", "market", "private"):
        assert _session(f"/{asked}/ws").carries(stream) == (asked == route)
    assert _session("/ws").carries(stream) == (route == "public")
    assert _session("/ws", lenient=True).carries(stream)


@pytest.mark.parametrize("number", [0, 7, "a-uuid", 2**53])
def test_ids_are_echoed_with_their_type(number: object) -> None:
    request = {"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": number}
    assert _say(_session(), request) == {"result": None, "id": number}


def test_subscriptions_are_listed_and_taken_back() -> None:
    session = _session("/market/stream", "streams=btcusdt@aggTrade/ethusdt@aggTrade")
    assert session.combined
    _say(session, {"method": "SUBSCRIBE", "params": ["btcusdt@bookTicker"], "id": 1})
    _say(session, {"method": "UNSUBSCRIBE", "params": ["ethusdt@aggTrade"], "id": 2})
    listed = _say(session, {"method": "LIST_SUBSCRIPTIONS", "id": 3})
    assert listed == {"result": ["btcusdt@aggTrade", "btcusdt@bookTicker"], "id": 3}


def test_properties_are_set_and_read() -> None:
    session = _session()
    assert _say(session, {"method": "GET_PROPERTY", "params": ["combined"], "id": 2}) == {
        "result": False,
        "id": 2,
    }
    _say(session, {"method": "SET_PROPERTY", "params": ["combined", True], "id": 3})
    assert session.wrap("a@b", b"{}") == b'{"stream":"a@b","data":{}}'


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        ({"method": "GET_PROPERTY", "params": ["other"], "id": 1}, 0, "Unknown property"),
        ({"method": "SET_PROPERTY", "params": ["combined", 1], "id": 1}, 1, "expected Boolean"),
        ({"method": "GET_PROPERTY", "params": [1], "id": 1}, 2, "property name must be a string"),
        ({"method": "SUBSCRIBE", "params": [], "id": -1}, 2, "must be an unsigned integer"),
        ({"method": "JUMP", "id": 1}, 2, "unknown variant JUMP"),
    ],
)
def test_errors_are_the_documented_ones(request_: object, code: int, words: str) -> None:
    answer = _say(_session(), request_)
    assert answer["code"] == code
    assert words in answer["msg"]


def test_a_message_that_is_no_json_is_answered() -> None:
    reply, _, _ = _session().on_text(b"{", 0)
    assert msgspec.json.decode(reply)["code"] == 3


def test_the_eleventh_message_in_a_second_ends_the_connection() -> None:
    session = _session()
    for _ in range(10):
        _say(session, {"method": "LIST_SUBSCRIPTIONS", "id": 1}, now_ns=5)
    with pytest.raises(DisconnectError):
        session.on_text(b"{}", 999_999_999)
    _say(_session(), {"method": "LIST_SUBSCRIPTIONS", "id": 1}, now_ns=1_000_000_005)


def test_a_number_at_the_end_of_the_path_is_no_stream() -> None:
    assert _session("/public/ws/0").streams == {}
    assert list(_session("/public/ws/btcusdt@trade/ethusdt@trade").streams) == [
        "btcusdt@trade",
        "ethusdt@trade",
    ]


def test_a_private_connection_hears_only_the_events_it_asks_for(bench: Bench) -> None:
    heard: list[Any] = []
    key = bench.venue.users[0].listen_key
    bench.listen("/private/ws", heard.append, query=f"listenKey={key}&events=ACCOUNT_UPDATE/TRADE_LITE")
    bench.order("BUY", 1)
    assert [event["e"] for event in heard] == ["TRADE_LITE", "ACCOUNT_UPDATE"]


def test_a_subscription_on_the_wrong_route_is_acknowledged_and_silent(bench: Bench) -> None:
    heard: dict[str, list[Any]] = {}
    for path in ("/public/ws", "/market/ws", "/ws"):
        heard[path] = []
        session = bench.listen(path, heard[path].append)
        reply, added, _ = session.on_text(
            msgspec.json.encode({"method": "SUBSCRIBE", "params": ["btcusdt@markPrice@1s"], "id": 1}), 0
        )
        assert msgspec.json.decode(reply) == {"result": None, "id": 1}
        bench.venue.hub.subscribe(session, added)
    bench.mark(101.0)
    assert {path: len(items) for path, items in heard.items()} == {"/public/ws": 0, "/market/ws": 1, "/ws": 0}
