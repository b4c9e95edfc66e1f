"""The users of the exchange: keys, open orders, trades, listen key.

Owns: the record of one account. Never: decides.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Final

from gpuscalp.exchange.ledger import Ledger
from gpuscalp.exchange.orders import Order

# Kept for queries; the venue forgets as well, by age.
CLOSED_KEPT: Final = 10_000
TRADES_KEPT: Final = 10_000
LISTEN_KEY_MS: Final = 3_600_000


@dataclass(slots=True)
class User:
    """One account with one API key.

    Attributes
    ----------
    secret : of the HMAC key; or a PEM public key for RSA and Ed25519
    open_orders, closed_orders : by order id
    fills : rows of GET /fapi/v1/userTrades, oldest first
    countdowns : symbol to the time at which its orders are cancelled, ms
    """

    number: int
    api_key: str
    secret: str
    ledger: Ledger
    open_orders: dict[int, Order] = field(default_factory=dict)
    closed_orders: OrderedDict[int, Order] = field(default_factory=OrderedDict)
    fills: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=TRADES_KEPT))
    countdowns: dict[str, int] = field(default_factory=dict)
    listen_key: str = ""
    listen_key_until_ms: int = 0
    _listen_key_count: int = 0

    def start_listening(self, now_ms: int) -> str:
        """Return the listen key, a new one where there is none, and make it live for an hour more."""
        if not self.listen_key:
            self._listen_key_count += 1
            seed = f"{self.api_key} {self._listen_key_count} {now_ms}".encode()
            self.listen_key = hashlib.sha256(seed).hexdigest()
        self.listen_key_until_ms = now_ms + LISTEN_KEY_MS
        return self.listen_key

    def stop_listening(self) -> str:
        """Forget the listen key and return it."""
        key, self.listen_key = self.listen_key, ""
        return key

    def close(self, order: Order) -> None:
        """Move an order that is final to the closed ones."""
        self.open_orders.pop(order.order_id, None)
        self.closed_orders[order.order_id] = order
        while len(self.closed_orders) > CLOSED_KEPT:
            self.closed_orders.popitem(last=False)

    def find(self, symbol: str, order_id: int | None, client_id: str) -> Order | None:
        """Return the newest order of that id or client id; open ones first."""
        if order_id is not None:
            order = self.open_orders.get(order_id) or self.closed_orders.get(order_id)
            return order if order is not None and order.symbol == symbol else None
        for group in (self.open_orders, self.closed_orders):
            for order in reversed(group.values()):
                if order.client_id == client_id and order.symbol == symbol:
                    return order
        return None
