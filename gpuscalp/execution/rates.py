"""How many orders an exchange takes in 10 seconds and in a minute.

Owns: the windows, which stand on the exchange's clock: each begins anew at a multiple of its length. Pure:
time comes in, in milliseconds, any clock that does not go back. Never: answers anybody.

Source: Binance documentation, exchangeInfo ``rateLimits`` (ORDERS), USD-M.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from gpuscalp.config import OFF, PaperConfig
from gpuscalp.schema import NS_PER_MS

# Length in ms, orders, name in headers.
ORDER_LIMITS: Final = ((10_000, 300, "10S"), (60_000, 1_200, "1M"))


@dataclass(slots=True)
class Window:
    """What has been counted in the window that runs."""

    number: int = -1
    used: int = 0

    def add(self, count: int, length_ms: int, now_ms: int) -> int:
        """Count, and return what the window has seen."""
        number = now_ms // length_ms
        if number != self.number:
            self.number, self.used = number, 0
        self.used += count
        return self.used


@final
class OrderRates:
    """Counts the orders of one account at the paper exchange.

    Parameters
    ----------
    config : the limits; "off" takes one out of force
    """

    def __init__(self, config: PaperConfig) -> None:
        limits = (config.max_orders_per_10s, config.max_orders_per_minute)
        self._windows = [
            (Window(), length_ms, int(limit))
            for (length_ms, _, _), limit in zip(ORDER_LIMITS, limits, strict=True)
            if limit != OFF
        ]

    def admit(self, now_ns: int) -> bool:
        """Count a new order, refused ones too; return whether it is within the limits."""
        now_ms = now_ns // NS_PER_MS
        used = [window.add(1, length_ms, now_ms) <= limit for window, length_ms, limit in self._windows]
        return all(used)
