"""Request weights and order counts, and what happens to who ignores them.

Owns: windows, headers, bans. Pure: time comes in, any clock in ms that does not go back.

Over the limit: 429 with Retry-After until the window ends. Who goes on is banned (418) for two minutes, and
each ban in a row doubles, up to three days. Source: Binance documentation, "Limits", USD-M.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from gpuscalp.exchange.refusals import ApiError
from gpuscalp.execution.rates import ORDER_LIMITS, Window

WEIGHT_LIMIT: Final = 2_400
_MINUTE_MS: Final = 60_000
_PATIENCE: Final = 10  # requests over the limit before a ban
_BAN_MS: Final = 120_000
_BAN_MAX_MS: Final = 3 * 86_400_000


@dataclass(slots=True)
class _Address:
    weight: Window = field(default_factory=Window)
    ignored: int = 0
    bans: int = 0
    banned_until_ms: int = 0


class Limits:
    """Counts by address and by account.

    Parameters
    ----------
    weight_limit : weight a minute of one address
    """

    def __init__(self, weight_limit: int = WEIGHT_LIMIT) -> None:
        self.weight_limit = weight_limit
        self._addresses: dict[str, _Address] = {}
        self._orders: dict[tuple[int, str], Window] = {}

    def charge(self, address: str, weight: int, now_ms: int) -> dict[str, str]:
        """Count a request and return its headers.

        Raises
        ------
        ApiError
            -1003 with status 429 or 418, and Retry-After in seconds
        """
        item = self._addresses.setdefault(address, _Address())
        if now_ms < item.banned_until_ms:
            raise banned(item.banned_until_ms, now_ms)
        used = item.weight.add(weight, _MINUTE_MS, now_ms)
        headers = {"X-MBX-USED-WEIGHT-1M": str(used)}
        if used <= self.weight_limit:
            item.ignored = 0
            return headers
        item.ignored += 1
        if item.ignored > _PATIENCE:
            item.ignored = 0
            item.banned_until_ms = now_ms + min(_BAN_MS << item.bans, _BAN_MAX_MS)
            item.bans = min(item.bans + 1, 12)
            raise banned(item.banned_until_ms, now_ms)
        wait = (now_ms // _MINUTE_MS + 1) * _MINUTE_MS - now_ms
        headers["Retry-After"] = str(-(-wait // 1_000))
        raise ApiError(-1003, self.weight_limit, headers=headers)

    def count_orders(self, owner: int, counts: tuple[int, int], now_ms: int) -> dict[str, str]:
        """Count orders of an account (in the windows of 10 s and 1 min) and return the headers.

        Raises
        ------
        ApiError
            -1015 too many
        """
        headers = {}
        for (length, limit, name), count in zip(ORDER_LIMITS, counts, strict=True):
            used = self._orders.setdefault((owner, name), Window()).add(count, length, now_ms)
            headers[f"X-MBX-ORDER-COUNT-{name}"] = str(used)
            if used > limit:
                raise ApiError(-1015, f"{limit} orders per {'10 SECOND' if name == '10S' else '1 MINUTE'}")
        return headers

    def order_rows(self, owner: int, now_ms: int) -> list[dict[str, Any]]:
        """Return limits and counts of an account as the WebSocket API reports them."""
        rows = []
        for length, limit, name in ORDER_LIMITS:
            used = self._orders.setdefault((owner, name), Window()).add(0, length, now_ms)
            interval, number = ("SECOND", 10) if name == "10S" else ("MINUTE", 1)
            rows.append(
                {
                    "rateLimitType": "ORDERS",
                    "interval": interval,
                    "intervalNum": number,
                    "limit": limit,
                    "count": used,
                }
            )
        return rows


def banned(until_ms: int, now_ms: int) -> ApiError:
    """Return what an address hears that is banned up to a time."""
    text = f"Way too many requests; IP banned until {until_ms}. Please use the websocket for live updates."
    wait = str(-(-(until_ms - now_ms) // 1_000))
    return ApiError(-1003, status=418, message=text, headers={"Retry-After": wait})
