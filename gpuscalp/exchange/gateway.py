"""The door for requests: REST and the WebSocket API, over the same endpoints.

Owns: routing, security, limits, and the form of replies. Pure: a request in, a reply out; sockets and time
are the shell's. Never: knows what an endpoint does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from gpuscalp.errors import UNREADABLE
from gpuscalp.exchange import account_calls, market_calls, trade_calls
from gpuscalp.exchange.auth import check_signature, check_time, split_signature
from gpuscalp.exchange.calls import Call, Endpoint
from gpuscalp.exchange.limits import Limits
from gpuscalp.exchange.params import Params
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.users import User
from gpuscalp.exchange.venue import Venue

ENDPOINTS: Final = {
    **market_calls.MARKET_CALLS,
    **trade_calls.TRADE_CALLS,
    **account_calls.ACCOUNT_CALLS,
}
METHODS: Final[dict[str, Endpoint]] = {
    "ping": ENDPOINTS["GET", "/fapi/v1/ping"],
    "time": ENDPOINTS["GET", "/fapi/v1/time"],
    "depth": ENDPOINTS["GET", "/fapi/v1/depth"],
    "order.place": ENDPOINTS["POST", "/fapi/v1/order"],
    "order.modify": ENDPOINTS["PUT", "/fapi/v1/order"],
    "order.cancel": ENDPOINTS["DELETE", "/fapi/v1/order"],
    "order.status": ENDPOINTS["GET", "/fapi/v1/order"],
    "algoOrder.place": ENDPOINTS["POST", "/fapi/v1/algoOrder"],
    "algoOrder.cancel": ENDPOINTS["DELETE", "/fapi/v1/algoOrder"],
    "account.balance": ENDPOINTS["GET", "/fapi/v2/balance"],
    "v2/account.balance": ENDPOINTS["GET", "/fapi/v3/balance"],
    "account.status": ENDPOINTS["GET", "/fapi/v2/account"],
    "v2/account.status": ENDPOINTS["GET", "/fapi/v3/account"],
    "v2/account.position": ENDPOINTS["GET", "/fapi/v3/positionRisk"],
    "userDataStream.start": ENDPOINTS["POST", "/fapi/v1/listenKey"],
    "userDataStream.ping": ENDPOINTS["PUT", "/fapi/v1/listenKey"],
    "userDataStream.stop": ENDPOINTS["DELETE", "/fapi/v1/listenKey"],
}


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; query and body as they were sent, not decoded."""

    method: str
    path: str
    query: str = ""
    body: str = ""
    api_key: str = ""
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Gateway:
    """Requests to a venue.

    Parameters
    ----------
    venue : what they are about
    limits : weights and counts
    """

    def __init__(self, venue: Venue, limits: Limits) -> None:
        self._venue, self.limits = venue, limits

    def handle(self, request: Request, clocks_ms: tuple[int, ...]) -> Reply:
        """Answer one HTTP request.

        Parameters
        ----------
        clocks_ms : the exchange's time first; others that a timestamp may fit as well
        """
        headers: dict[str, str] = {}
        try:
            endpoint = ENDPOINTS.get((request.method, request.path))
            if endpoint is None:
                words = f"Path {request.path}, Method {request.method} is invalid"
                raise ApiError(-5000, status=404, message=words)
            # The query wins over the body.
            pairs = parse_qsl(request.body, keep_blank_values=True)
            pairs += parse_qsl(request.query, keep_blank_values=True)
            params = Params(dict(pairs))
            now_ms = clocks_ms[0]
            headers |= self._charge(request.address, endpoint, params, now_ms)
            user = self._identify(endpoint, request.api_key)
            if endpoint.security == "SIGNED":
                assert user is not None
                check_time(params, clocks_ms)
                check_signature(user, *split_signature(request.query, request.body))
            if endpoint.orders is not None and user is not None:
                headers |= self.limits.count_orders(user.number, endpoint.orders, now_ms)
            answer = endpoint.run(Call(self._venue, params, now_ms, user))
        except ApiError as error:
            return Reply(error.status, msgspec.json.encode(error.body()), headers | error.headers)
        return Reply(200, msgspec.json.encode(answer), headers)

    def handle_message(
        self, data: str | bytes, logon: Logon, address: str, clocks_ms: tuple[int, ...]
    ) -> bytes:
        """Answer one message of the WebSocket API.

        Parameters
        ----------
        logon : of the connection; changed by session.logon and session.logout
        """
        number: Any = None
        try:
            try:
                message = msgspec.json.decode(data)
            except UNREADABLE:
                raise ApiError(-1130, "request") from None
            if not isinstance(message, dict):
                raise ApiError(-1130, "request")
            number, method = message.get("id"), str(message.get("method"))
            values = message.get("params") or {}
            if not isinstance(values, dict):
                raise ApiError(-1130, "params")
            return self._run(number, method, values, logon, address, clocks_ms)
        except ApiError as error:
            body: dict[str, Any] = error.body()
            if "Retry-After" in error.headers:
                seconds = int(error.headers["Retry-After"])
                body["data"] = {"serverTime": clocks_ms[0], "retryAfter": clocks_ms[0] + 1_000 * seconds}
            answer = {"id": number, "status": error.status, "error": body}
            return msgspec.json.encode({**answer, "rateLimits": self._rows(logon.user, clocks_ms[0])})

    def _run(
        self,
        number: Any,
        method: str,
        values: dict[str, Any],
        logon: Logon,
        address: str,
        clocks_ms: tuple[int, ...],
    ) -> bytes:
        now_ms, params = clocks_ms[0], Params(values)
        if method.startswith("session."):
            result = self._session(method, params, values, logon, clocks_ms)
            return msgspec.json.encode({"id": number, "status": 200, "result": result, "rateLimits": []})
        endpoint = METHODS.get(method)
        if endpoint is None:
            raise ApiError(-1130, "method")
        self._charge(address, endpoint, params, now_ms)
        user = logon.user
        if "apiKey" in params or user is None:
            user = self._identify(endpoint, params.optional("apiKey"))
        if endpoint.security == "SIGNED":
            assert user is not None
            check_time(params, clocks_ms)
            if user is not logon.user:
                check_signature(user, _sorted_payload(values), params.optional("signature"))
        if endpoint.orders is not None and user is not None:
            self.limits.count_orders(user.number, endpoint.orders, now_ms)
        result = endpoint.run(Call(self._venue, params, now_ms, user))
        answer = {"id": number, "status": 200, "result": result}
        return msgspec.json.encode({**answer, "rateLimits": self._rows(user, now_ms)})

    def _session(
        self,
        method: str,
        params: Params,
        values: dict[str, Any],
        logon: Logon,
        clocks_ms: tuple[int, ...],
    ) -> dict[str, Any]:
        if method == "session.logon":
            user = self._venue.user_of(params.text("apiKey"))
            if user is None:
                raise ApiError(-2015)
            if not user.secret.lstrip().startswith("-----BEGIN"):
                raise ApiError(-4056, message="HMAC_SHA256 API key is not supported.")
            check_time(params, clocks_ms)
            check_signature(user, _sorted_payload(values), params.optional("signature"))
            logon.user, logon.since_ms = user, clocks_ms[0]
        elif method == "session.logout":
            logon.user = None
        elif method != "session.status":
            raise ApiError(-1130, "method")
        known = logon.user
        return {
            "apiKey": known.api_key if known else None,
            "authorizedSince": logon.since_ms if known else None,
            "connectedSince": logon.connected_ms,
            "returnRateLimits": True,
            "serverTime": clocks_ms[0],
        }

    def _charge(self, address: str, endpoint: Endpoint, params: Params, now_ms: int) -> dict[str, str]:
        weight = endpoint.weight
        return self.limits.charge(address, weight if isinstance(weight, int) else weight(params), now_ms)

    def _identify(self, endpoint: Endpoint, api_key: str) -> User | None:
        if endpoint.security == "NONE":
            return None
        if not api_key:
            raise ApiError(-2014)
        user = self._venue.user_of(api_key)
        if user is None:
            raise ApiError(-2015)
        return user

    def _rows(self, user: User | None, now_ms: int) -> list[dict[str, Any]]:
        return self.limits.order_rows(user.number, now_ms) if user is not None else []


@dataclass(slots=True)
class Logon:
    """Who a connection of the WebSocket API belongs to since session.logon."""

    connected_ms: int
    user: User | None = None
    since_ms: int = 0


def _sorted_payload(values: dict[str, Any]) -> str:
    """Return what the WebSocket API signs: the parameters sorted by name, less the signature."""
    names = sorted(name for name in values if name != "signature")
    return "&".join(f"{name}={_plain(values[name])}" for name in names)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
