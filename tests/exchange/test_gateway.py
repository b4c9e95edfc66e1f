"""Security, limits and the WebSocket API."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest

from gpuscalp.exchange.auth import check_signature
from gpuscalp.exchange.gateway import Gateway, Logon, Reply, Request
from gpuscalp.exchange.limits import Limits
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.rules import text
from tests.exchange.conftest import Bench


def _code(reply: Reply) -> int:
    code: int = msgspec.json.decode(reply.body)["code"]
    return code


def _signed(
    bench: Bench, *, key: str = "alice", secret: str = "a-secret", shift_ms: int = 0, **more: Any
) -> Reply:
    payload = urlencode({"timestamp": bench.venue.now_ms + shift_ms, **more})
    signature = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
    request = Request("GET", "/fapi/v1/openOrders", f"{payload}&signature={signature}", api_key=key)
    return bench.gateway.handle(request, (bench.venue.now_ms,))


def test_the_key_and_the_signature_have_to_be_right(bench: Bench) -> None:
    assert _signed(bench).status == 200
    assert (_signed(bench, key="").status, _code(_signed(bench, key=""))) == (401, -2014)
    assert (_signed(bench, key="mallory").status, _code(_signed(bench, key="mallory"))) == (401, -2015)
    assert _code(_signed(bench, secret="b-secret")) == -1022


def test_signature_and_number_that_are_none_are_refused(bench: Bench) -> None:
    """They were defects of the exchange."""
    with pytest.raises(ApiError, match="-1022"):
        check_signature(bench.venue.users[0], "a=1", "ñ")
    assert _code(_signed(bench, recvWindow="1" * 5_000)) == -1102


@pytest.mark.parametrize(
    ("shift_ms", "window", "code"),
    [
        (0, 5_000, None),
        (999, 5_000, None),
        (1_000, 5_000, -1021),
        (-5_000, 5_000, None),
        (-5_001, 5_000, -1021),
        (-59_000, 60_000, None),
        (0, 60_001, -1131),
    ],
)
def test_the_timestamp_has_to_lie_in_the_window(
    bench: Bench, shift_ms: int, window: int, code: int | None
) -> None:
    reply = _signed(bench, shift_ms=shift_ms, recvWindow=window)
    assert reply.status == (200 if code is None else 400)
    if code is not None:
        assert _code(reply) == code


def test_parameters_may_come_in_the_body_and_the_query_wins(bench: Bench) -> None:
    body = urlencode({"symbol": "NOPEUSDT", "timestamp": bench.venue.now_ms})
    query = "symbol=BTCUSDT"
    signature = hmac.new(b"a-secret", (query + body).encode(), hashlib.sha256).hexdigest()
    request = Request(
        "GET", "/fapi/v1/openOrders", query, f"{body}&signature={signature.upper()}", api_key="alice"
    )
    assert bench.gateway.handle(request, (bench.venue.now_ms,)).status == 200


def test_public_key_signatures_are_verified(bench: Bench) -> None:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

    user, payload = bench.venue.users[0], b"symbol=BTCUSDT&timestamp=1"
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    edwards = ed25519.Ed25519PrivateKey.generate()
    user.secret = edwards.public_key().public_bytes(*form).decode()
    check_signature(user, payload.decode(), base64.b64encode(edwards.sign(payload)).decode())
    with pytest.raises(ApiError, match="-1022"):
        check_signature(user, "other", base64.b64encode(edwards.sign(payload)).decode())
    for wrong in ("no base64!", "ñ"):
        with pytest.raises(ApiError, match="-1022"):
            check_signature(user, payload.decode(), wrong)
    old = rsa.generate_private_key(65_537, 2_048)
    user.secret = old.public_key().public_bytes(*form).decode()
    signature = old.sign(payload, padding.PKCS1v15(), hashes.SHA256())
    check_signature(user, payload.decode(), base64.b64encode(signature).decode())


@pytest.mark.parametrize("name", ["feeBurn", "multiAssetsMargin"])
def test_a_setting_of_the_account_is_told_to_its_holder_at_the_documented_weight(
    bench: Bench, name: str
) -> None:
    path = f"/fapi/v1/{name}"
    assert bench.gateway.handle(Request("GET", path), (0,)).status == 401
    assert bench.call("GET", path) == {name: False}
    before, after = (
        int(bench.reply("GET", each).headers["X-MBX-USED-WEIGHT-1M"]) for each in ("/fapi/v1/time", path)
    )
    assert after - before == 30


def test_weights_add_up_then_429_then_418(bench: Bench) -> None:
    gateway = Gateway(bench.venue, Limits(weight_limit=45))
    ask = Request("GET", "/fapi/v1/depth", "symbol=BTCUSDT&limit=1000")
    clocks = (bench.venue.now_ms // 60_000 * 60_000 + 10_000,)
    assert gateway.handle(ask, clocks).headers["X-MBX-USED-WEIGHT-1M"] == "20"
    assert gateway.handle(ask, clocks).headers["X-MBX-USED-WEIGHT-1M"] == "40"
    refused = gateway.handle(ask, clocks)
    assert (refused.status, _code(refused), refused.headers["Retry-After"]) == (429, -1003, "50")
    statuses = [gateway.handle(ask, clocks).status for _ in range(12)]
    assert statuses == [429] * 9 + [418] * 3
    assert gateway.handle(ask, (clocks[0] + 60_000,)).status == 418
    assert gateway.handle(ask, (clocks[0] + 121_000,)).status == 200


def test_order_counts_are_reported_and_limited(bench: Bench) -> None:
    for number in range(1, 301):
        headers = bench.reply("POST", "/fapi/v1/order", symbol="NOPE").headers
        assert headers["X-MBX-ORDER-COUNT-10S"] == str(number)
    refused = bench.reply("POST", "/fapi/v1/order", symbol="NOPE")
    assert (refused.status, _code(refused)) == (429, -1015)
    bench.venue.advance(bench.venue.now_ms + 10_000)
    assert _code(bench.reply("POST", "/fapi/v1/order", symbol="NOPE")) == -1121


def test_an_unknown_path_is_404(bench: Bench) -> None:
    assert bench.gateway.handle(Request("GET", "/fapi/v1/nope"), (0,)).status == 404


def test_the_listen_key_stays_the_same_lives_an_hour_and_is_told_when_it_dies(bench: Bench) -> None:
    key = bench.call("POST", "/fapi/v1/listenKey")["listenKey"]
    assert len(key) == 64
    assert bench.call("POST", "/fapi/v1/listenKey")["listenKey"] == key
    bench.venue.advance(bench.venue.now_ms + 3_599_000)
    assert bench.call("PUT", "/fapi/v1/listenKey")["listenKey"] == key
    bench.venue.advance(bench.venue.now_ms + 3_599_999)
    assert bench.heard["alice"] == []
    bench.venue.advance(bench.venue.now_ms + 1)
    assert [item["e"] for item in bench.heard["alice"]] == ["listenKeyExpired"]
    assert bench.call("PUT", "/fapi/v1/listenKey")["code"] == -1125
    assert bench.call("POST", "/fapi/v1/listenKey")["listenKey"] != key


class _Api:
    """One connection of the WebSocket API."""

    def __init__(self, bench: Bench) -> None:
        self._bench, self._logon = bench, Logon(bench.venue.now_ms)

    def call(self, method: str, number: Any = "x", **params: Any) -> Any:
        values = {"apiKey": "alice", "timestamp": self._bench.venue.now_ms, **params}
        payload = "&".join(f"{name}={values[name]}" for name in sorted(values))
        values["signature"] = hmac.new(b"a-secret", payload.encode(), hashlib.sha256).hexdigest()
        message = msgspec.json.encode({"id": number, "method": method, "params": values})
        answer = self._bench.gateway.handle_message(message, self._logon, "a", (self._bench.venue.now_ms,))
        return msgspec.json.decode(answer)


def test_orders_over_the_websocket_api_do_what_rest_does(bench: Bench) -> None:
    api = _Api(bench)
    wanted = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}
    placed = api.call("order.place", 7, **wanted, quantity=1, price=99.5)
    assert (placed["id"], placed["status"], placed["result"]["price"]) == (7, 200, "99.5")
    assert placed["rateLimits"][0]["count"] == 1
    ids = {"symbol": "BTCUSDT", "orderId": placed["result"]["orderId"]}
    assert api.call("order.status", **ids)["result"]["status"] == "NEW"
    changed = api.call("order.modify", side="BUY", quantity="2", price="99.6", **ids)
    assert changed["result"]["origQty"] == "2.000"
    assert api.call("order.cancel", **ids)["result"]["status"] == "CANCELED"
    gone = api.call("order.cancel", **ids)
    assert (gone["status"], gone["error"]) == (400, {"code": -2011, "msg": "Unknown order sent."})
    assert api.call("v2/account.balance")["result"][0]["asset"] == "USDT"
    assert api.call("session.logon")["error"]["code"] == -4056
    assert api.call("nothing")["error"]["code"] == -1130


def test_a_session_logs_on_with_ed25519_and_then_needs_no_signature(bench: Bench) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    private = ed25519.Ed25519PrivateKey.generate()
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    bench.venue.users[0].secret = private.public_key().public_bytes(*form).decode()
    logon, now_ms = Logon(bench.venue.now_ms), bench.venue.now_ms

    def call(method: str, **values: Any) -> Any:
        message = msgspec.json.encode({"id": 1, "method": method, "params": values})
        return msgspec.json.decode(bench.gateway.handle_message(message, logon, "a", (now_ms,)))

    wanted = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "1", "timestamp": now_ms}
    assert call("order.place", **wanted)["error"]["code"] == -2014
    payload = f"apiKey=alice&timestamp={now_ms}".encode()
    signature = base64.b64encode(private.sign(payload)).decode()
    answer = call("session.logon", apiKey="alice", timestamp=now_ms, signature=signature)
    assert (answer["status"], answer["result"]["apiKey"]) == (200, "alice")
    assert call("order.place", **wanted)["status"] == 200
    assert call("session.logout")["result"]["apiKey"] is None
    assert call("order.place", **wanted)["error"]["code"] == -2014


def test_exchange_info_and_account_have_the_documented_keys(bench: Bench) -> None:
    info = bench.call("GET", "/fapi/v1/exchangeInfo")["symbols"][0]
    assert {item["filterType"] for item in info["filters"]} == {
        *("PRICE_FILTER", "LOT_SIZE", "MARKET_LOT_SIZE", "MAX_NUM_ORDERS", "MIN_NOTIONAL"),
        *("PERCENT_PRICE", "POSITION_RISK_CONTROL"),
    }
    assert "RPI" not in info["timeInForce"]
    account = bench.call("GET", "/fapi/v2/account")
    assert (account["totalWalletBalance"], account["canTrade"]) == ("100000.00000000", True)
    assert bench.call("GET", "/fapi/v1/leverageBracket", symbol="BTCUSDT")[0]["brackets"][0]["cum"] == 0
    assert bench.call("GET", "/fapi/v1/commissionRate", symbol="BTCUSDT")["takerCommissionRate"] == "0.0005"


@pytest.mark.parametrize(
    ("value", "places", "written"),
    [
        (10_000_000, 1, "0.1"),
        (6_400_000_000_000, 2, "64000.00"),
        (0, 0, "0"),
        (5, 0, "0.00000005"),
        (-150_000_000, 3, "-1.500"),
        (100_000_000, 0, "1"),
        (123_456_789, 2, "1.23456789"),
    ],
)
def test_numbers_are_written_exactly(value: int, places: int, written: str) -> None:
    assert text(value, places) == written


def test_non_ascii_is_signed_as_it_was_sent(bench: Bench) -> None:
    payload = f"symbol={quote('币安USDT')}&timestamp={bench.venue.now_ms}"
    signature = hmac.new(b"a-secret", payload.encode(), hashlib.sha256).hexdigest()
    request = Request("GET", "/fapi/v1/openOrders", f"{payload}&signature={signature}", api_key="alice")
    assert _code(bench.gateway.handle(request, (bench.venue.now_ms,))) == -1121
