"""The few REST calls that market data need: book snapshots, server time, the list of instruments.

Owns: the weight that may still be spent, and the patience that the venue asks for. Never: signs anything, or
retries by itself: who asks decides, after ``ready_ns``.

Source: Binance USD-M developer documentation, "General Info, Limits": 2400 weight a minute and IP, header
``X-MBX-USED-WEIGHT-1M`` on every reply, 429 with Retry-After above it, 418 with a ban of 2 minutes to 3 days
for those who go on.
"""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final
from urllib.parse import urlencode

import msgspec

from gpuscalp.config import FeedConfig
from gpuscalp.errors import UNREADABLE, DecodeError, FeedError
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.feeds.proxies import UNPROVED, UNPROVED_FIX
from gpuscalp.feeds.times import to_ns
from gpuscalp.schema import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    import urllib3

_MINUTE_NS: Final = 60 * NS_PER_S
# Where the reply does not say how long: the shortest ban that is documented, and the window of the weight.
_PATIENCE_S: Final[Mapping[int, int]] = {418: 120, 429: 60, 403: 300}
_BAN_MAX_S: Final = 3 * 86_400
# Not isdigit, which takes more for digits than int does.
_DIGITS: Final = re.compile(r"[0-9]{1,9}")
_BANNED_UNTIL: Final = re.compile(rb"banned until (\d{13})")
# Calls that may be on their way at once, from several threads, without a new connection for each.
_AT_ONCE: Final = 4
_DEPTH_WEIGHT: Final = ((50, 2), (100, 5), (500, 10), (1000, 20))


@final
class WeightBudget:
    """What may still be asked this minute. Times by the wall clock; any thread may call.

    Parameters
    ----------
    limit : weight a minute
    reserve : part of it that is left alone, for orders: cancelling them must always be possible

    Attributes
    ----------
    used : weight of this minute, as far as it is known
    blocked_until_ns : no call at all before
    refusals : replies 429, 418 and 403 so far
    """

    def __init__(self, limit: int, reserve: int) -> None:
        self._limit, self._reserve = limit, reserve
        self._minute = 0
        self.used = 0
        self.blocked_until_ns = 0
        self.refusals = 0
        self._lock = threading.RLock()

    def ready_ns(self, weight: int, now_ns: int) -> int:
        """Return when a call may be made: ``now_ns`` or later."""
        with self._lock:
            self._turn(now_ns)
            if now_ns < self.blocked_until_ns:
                return self.blocked_until_ns
            fits = self.used + weight <= self._limit - self._reserve
            return now_ns if fits else (self._minute + 1) * _MINUTE_NS

    def spend(self, weight: int, now_ns: int) -> int:
        """Count a call if it may be made now; return when it may: ``now_ns``, or later."""
        with self._lock:
            ready_ns = self.ready_ns(weight, now_ns)
            if ready_ns == now_ns:
                self.used += weight
        return ready_ns

    def on_reply(self, status: int, headers: Mapping[str, str], body: bytes, now_ns: int) -> None:
        """Learn from a reply, good or bad. Header names are matched without case."""
        lower = {name.lower(): value for name, value in headers.items()}
        told = lower.get("x-mbx-used-weight-1m", "")
        with self._lock:
            self._turn(now_ns)
            if _DIGITS.fullmatch(told):
                # Other programs behind the same address count as well; what is on its way is not in it yet.
                self.used = max(self.used, int(told))
        if status not in _PATIENCE_S:
            return
        asked = lower.get("retry-after", "")
        wait_s = int(asked) if _DIGITS.fullmatch(asked) else _PATIENCE_S[status]
        until_ns = now_ns + min(wait_s, _BAN_MAX_S) * NS_PER_S
        ban = _BANNED_UNTIL.search(body)
        if ban is not None:
            until_ns = max(until_ns, min(int(ban.group(1)) * NS_PER_MS, now_ns + _BAN_MAX_S * NS_PER_S))
        with self._lock:
            self.refusals += 1
            self.blocked_until_ns = max(self.blocked_until_ns, until_ns)

    def _turn(self, now_ns: int) -> None:
        minute = now_ns // _MINUTE_NS
        if minute > self._minute:
            self._minute, self.used = minute, 0
        elif minute < self._minute - 1:
            # The clock was set back: patience is a length of time. What was used still counts this minute.
            self.blocked_until_ns -= (self._minute - minute - 1) * _MINUTE_NS
            self._minute = minute


@dataclass(frozen=True, slots=True)
class RestReply:
    """A reply, whole: what the journal gets. ``request`` is ``GET`` and the URL."""

    request: str
    sent_ns: int
    recv_ns: int
    body: bytes


class _ServerTime(msgspec.Struct):
    server_ms: int = msgspec.field(name="serverTime")


class _Refusal(msgspec.Struct):
    code: int = 0
    msg: str = ""


@final
class RestClient:
    """Blocking calls: to be made in a thread of their own.

    Parameters
    ----------
    config : base URL and weights
    clock : wall clock, ns
    proxy_url : HTTP proxy, or None
    timeout_s : of one call, connecting and reading each
    """

    def __init__(
        self,
        config: FeedConfig,
        *,
        clock: Callable[[], int],
        proxy_url: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self.budget = WeightBudget(config.weight_per_minute, config.weight_reserve)
        self._base = config.rest_url.rstrip("/")
        self._clock, self._proxy_url, self._timeout_s = clock, proxy_url, timeout_s
        self._pool: urllib3.PoolManager | None = None
        self._decoder = Decoder()

    def get(self, path: str, params: Mapping[str, object], *, weight: int) -> RestReply:
        """Make one call.

        Raises
        ------
        FeedError    no weight is left or the venue has asked for patience (nothing is sent then), the server
                     cannot be reached, or it refuses
        """
        import urllib3

        url = self._base + path + (f"?{urlencode(params)}" if params else "")
        now_ns = self._clock()
        ready_ns = self.budget.spend(weight, now_ns)
        if ready_ns > now_ns:
            raise FeedError(
                "the venue's limit allows no call now",
                where=url,
                value=f"{(ready_ns - now_ns) / NS_PER_S:.1f} s to wait",
            )
        if self._pool is None:
            timeout = urllib3.Timeout(connect=self._timeout_s, read=self._timeout_s)
            self._pool = (
                urllib3.ProxyManager(self._proxy_url, timeout=timeout, retries=False, maxsize=_AT_ONCE)
                if self._proxy_url
                else urllib3.PoolManager(timeout=timeout, retries=False, maxsize=_AT_ONCE)
            )
        try:
            reply = self._pool.request("GET", url)
        except urllib3.exceptions.HTTPError as error:
            cause = error.args[0] if error.args else None
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise FeedError(UNPROVED, where=url, value=cause.verify_message, fix=UNPROVED_FIX) from None
            raise FeedError(
                "the venue's REST server cannot be reached",
                where=url,
                value=str(error),
                fix="check the network, a proxy and feed.rest_url; gpuscalp doctor looks at each",
            ) from None
        recv_ns = self._clock()
        body = reply.data
        self.budget.on_reply(reply.status, reply.headers, body, recv_ns)
        if reply.status != 200:
            raise FeedError(f"the venue refuses: HTTP {reply.status}", where=url, value=_refusal(body))
        return RestReply(f"GET {url}", now_ns, recv_ns, body)

    def depth(self, symbol: str, limit: int = 1_000) -> tuple[RestReply, DepthSnapshot]:
        """Fetch a book snapshot.

        Raises
        ------
        FeedError      see ``get``
        DecodeError    the reply is no snapshot
        """
        weight = next(weight for most, weight in _DEPTH_WEIGHT if limit <= most)
        reply = self.get("/fapi/v1/depth", {"symbol": symbol, "limit": limit}, weight=weight)
        message = self._decoder.decode(reply.body)
        if not isinstance(message, DepthSnapshot):
            raise DecodeError("the reply is no book snapshot", where=reply.request, value=reply.body[:80])
        snapshot = DepthSnapshot(symbol, message.exch_ns, message.last_id, message.bids, message.asks)
        return reply, snapshot

    def server_time(self) -> tuple[int, int, int]:
        """Return (sent, received, server's time), ns: what ``ClockOffset.on_server_time`` takes.

        Raises
        ------
        FeedError      see ``get``
        DecodeError    the reply holds no time
        """
        reply = self.get("/fapi/v1/time", {}, weight=1)
        try:
            server_ns = to_ns(msgspec.json.decode(reply.body, type=_ServerTime).server_ms)
        except (*UNREADABLE, DecodeError) as error:
            raise DecodeError("the reply holds no time", where=reply.request, value=str(error)) from None
        return reply.sent_ns, reply.recv_ns, server_ns

    def exchange_info(self) -> RestReply:
        """Fetch the list of instruments with their filters, as ``data import --instruments`` reads it.

        Raises
        ------
        FeedError    see ``get``
        """
        return self.get("/fapi/v1/exchangeInfo", {}, weight=1)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.clear()


def _refusal(body: bytes) -> str:
    try:
        told = msgspec.json.decode(body, type=_Refusal)
    except UNREADABLE:
        return body[:200].decode("utf-8", "replace")
    return f"{told.code} {told.msg}".strip()
