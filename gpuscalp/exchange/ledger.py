"""One user's money on the exchange: balances, positions, leverage, margin, commission.

Owns: exact amounts (``gpuscalp.account``), and the rules of margin. One margin asset, cross margin by
default; in hedge mode a symbol has a LONG and a SHORT position, else one called BOTH.
Never: orders' life cycles, messages.

Units are 1e-8 of the quote currency. Initial margin of a position: |notional at mark| / leverage; of open
orders: for each symbol and position side the larger of what the buys and the sells would add.
Source: Binance, "Leverage and margin of USD-M futures" and the brackets of GET /fapi/v1/leverageBracket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gpuscalp.account import Account, Position, divide_half_even, notional_e8
from gpuscalp.exchange.orders import Order
from gpuscalp.exchange.rules import SymbolRules
from gpuscalp.execution.margin import TIERS, maintenance_e8
from gpuscalp.schema import E8

POSITION_SIDES: Final = ("BOTH", "LONG", "SHORT")
DEFAULT_LEVERAGE: Final = 20


@dataclass(slots=True)
class Booking:
    """What one fill did to the money."""

    fee_e8: int
    realised_e8: int


@dataclass(slots=True)
class Setting:
    """Leverage and margin type of one symbol."""

    leverage: int = DEFAULT_LEVERAGE
    isolated: bool = False


@dataclass(slots=True)
class Ledger:
    """The money of one account.

    Parameters
    ----------
    rules : of all symbols, in a fixed order
    mark_of : mark price of a symbol, 1e-8
    start_e8 : wallet at the start
    maker_e8, taker_e8 : fee rates, multiples of 1e-8
    """

    rules: Sequence[SymbolRules]
    mark_of: Callable[[str], int]
    start_e8: int
    maker_e8: int = 20_000
    taker_e8: int = 50_000
    hedge: bool = False
    updated_ms: int = 0
    account: Account = field(init=False)
    settings: dict[str, Setting] = field(init=False)
    updated: dict[tuple[str, str], int] = field(init=False, default_factory=dict)
    fees_of: dict[tuple[str, str], int] = field(init=False, default_factory=dict)
    _index: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.account = Account(self.start_e8, 3 * len(self.rules))
        self.settings = {item.symbol: Setting() for item in self.rules}
        self._index = {item.symbol: 3 * index for index, item in enumerate(self.rules)}

    def position(self, symbol: str, position_side: str) -> Position:
        return self.account.positions[self._slot(symbol, position_side)]

    def held(self) -> list[tuple[SymbolRules, str, Position]]:
        """Return all positions that are not flat."""
        return [
            (rules, side, position)
            for rules in self.rules
            for side in POSITION_SIDES
            if (position := self.position(rules.symbol, side)).qty_e8
        ]

    def entry_e8(self, position: Position) -> int:
        """Return the average entry price, 1e-8; 0 when flat."""
        return divide_half_even(abs(position.cost_e8) * E8, abs(position.qty_e8)) if position.qty_e8 else 0

    def break_even_e8(self, symbol: str, position_side: str) -> int:
        """Return the price at which closing pays for the commission of opening too."""
        position = self.position(symbol, position_side)
        if not position.qty_e8:
            return 0
        cost = position.cost_e8 + self.fees_of.get((symbol, position_side), 0)
        return divide_half_even(abs(cost) * E8, abs(position.qty_e8))

    def unrealised_e8(self, symbol: str, position_side: str) -> int:
        position = self.position(symbol, position_side)
        return position.value_e8(self.mark_of(symbol)) - position.cost_e8

    def book(self, order: Order, price_e8: int, qty_e8: int, *, maker: bool, now_ms: int) -> Booking:
        """Book one fill. The commission is rounded against the user, the way the venue charges."""
        rate = self.maker_e8 if maker else self.taker_e8
        fee = -((-notional_e8(price_e8, qty_e8) * rate) // E8)
        key = (order.symbol, order.position_side)
        before = self.position(*key).qty_e8
        realised = self.account.apply_fill(self._slot(*key), order.side * qty_e8, price_e8, fee)
        after = self.position(*key).qty_e8
        carried = self.fees_of.get(key, 0) if before * after > 0 else 0
        opened = max(0, abs(after) - (abs(before) if before * after > 0 else 0))
        if before * after > 0 and abs(after) < abs(before):
            carried = divide_half_even(carried * abs(after), abs(before))
        self.fees_of[key] = (carried + divide_half_even(fee * opened, qty_e8)) if after else 0
        self.updated[key] = self.updated_ms = now_ms
        return Booking(fee, realised)

    def fund(self, symbol: str, position_side: str, mark_e8: int, rate_e8: int) -> int:
        """Exchange funding on one position; return what was received, negative if paid."""
        return self.account.apply_funding(self._slot(symbol, position_side), mark_e8, rate_e8)

    def deposit(self, amount_e8: int) -> None:
        """Add to the wallet what is neither profit nor funding."""
        self.account.start_e8 += amount_e8
        self.account.cash_e8 += amount_e8

    def unrealised_total_e8(self) -> int:
        return sum(self.unrealised_e8(rules.symbol, side) for rules, side, _ in self.held())

    def initial_e8(self, symbol: str, position_side: str) -> int:
        notional = abs(self.position(symbol, position_side).value_e8(self.mark_of(symbol)))
        return self._margin(symbol, notional)

    def maintenance_e8(self, symbol: str, position_side: str) -> int:
        notional = abs(self.position(symbol, position_side).value_e8(self.mark_of(symbol)))
        return maintenance_e8(TIERS, notional)

    def maintenance_total_e8(self) -> int:
        return sum(self.maintenance_e8(rules.symbol, side) for rules, side, _ in self.held())

    def initial_total_e8(self) -> int:
        return sum(self.initial_e8(rules.symbol, side) for rules, side, _ in self.held())

    def orders_margin_e8(self, orders: Iterable[Order]) -> int:
        """Return the margin that open orders hold beyond that of the positions."""
        adding: dict[tuple[str, str], list[int]] = {}
        for order in orders:
            if not order.reduce_only and not order.close_position:
                sums = adding.setdefault((order.symbol, order.position_side), [0, 0])
                price = order.price_e8 or self.mark_of(order.symbol)
                sums[order.side < 0] += notional_e8(price, order.left_e8)
        total = 0
        for (symbol, side), (buys, sells) in adding.items():
            value = self.position(symbol, side).value_e8(self.mark_of(symbol))
            after = max(abs(value + buys), abs(value - sells))
            total += self._margin(symbol, max(0, after - abs(value)))
        return total

    def balance_e8(self) -> int:
        """Return wallet plus unrealised profit."""
        return self.account.wallet_e8 + self.unrealised_total_e8()

    def available_e8(self, orders: Iterable[Order]) -> int:
        """Return what new margin may use."""
        return self.balance_e8() - self.initial_total_e8() - self.orders_margin_e8(orders)

    def _margin(self, symbol: str, notional: int) -> int:
        return -(-notional // self.settings[symbol].leverage)

    def _slot(self, symbol: str, position_side: str) -> int:
        return self._index[symbol] + POSITION_SIDES.index(position_side)
