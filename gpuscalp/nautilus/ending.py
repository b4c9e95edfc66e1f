"""How a session leaves an account: no entry at rest, no position without the stop that it is to have.

Owns: what is done past the session where that cannot do it any more, and what is left. Never: writes down, or
books: the journal may be what has failed. The next start finds it all at the exchange.

A stop that is placed here is a guard (``gpuscalp.nautilus.names.guard_name``). It can only reduce, no journal
knows it, and it is ended once the session's own stop is there again (``gpuscalp.nautilus.asked``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, final

from nautilus_trader.adapters.binance.common.enums import BinanceOrderSide, BinanceOrderType
from nautilus_trader.adapters.binance.http.error import BinanceError

from gpuscalp.account import Position
from gpuscalp.config import OrdersConfig
from gpuscalp.execution.messages import OrderKind, OrderRequest
from gpuscalp.execution.remote import RemoteBroker
from gpuscalp.nautilus.account import AccountView
from gpuscalp.nautilus.asked import stopped_e8
from gpuscalp.nautilus.names import guard_name, is_of_session
from gpuscalp.order_policy import bracket_price_e8
from gpuscalp.schema import E8, NS_PER_MS, Instrument

_LOG: Final = logging.getLogger("gpuscalp.session")
# How long an end waits for entries and brackets, and how often it asks: a cancellation may overtake its
# order.
_LAST_CALLS_S: Final = 5.0
_AGAIN_S: Final = 0.25
# So long the exchange is asked. The services in configs/ give a process 60 s to end.
_SECURE_S: Final = 5.0
_PAUSE_S: Final = 0.5
# An order that was on its way when the first look was made is found by the second.
_LOOKS: Final = 2
_ASKED_TOO_MUCH: Final = frozenset({403, 418, 429})
_TRIGGERS_AT_ONCE: Final = -2021
_NAME_IS_TAKEN: Final = -4116
_EVERYTHING_E8: Final = 1 << 62
_STOPS: Final = frozenset({"STOP_MARKET", "STOP"})


@dataclass(frozen=True, slots=True)
class Left:
    """A position that stays when the process ends; ``guarded_e8``: how much stops at the exchange cover."""

    symbol: int
    qty_e8: int
    guarded_e8: int

    @property
    def bare(self) -> bool:
        return self.guarded_e8 < abs(self.qty_e8)


@final
class Ending:
    """The end of one session at its account.

    Parameters
    ----------
    account : is asked, and is given orders
    session_id : of the names of our orders
    instruments : S
    orders : what protects a position

    Attributes
    ----------
    left : positions that stay, as they were last seen; None where nobody has looked
    entries : names of our entries that may still rest
    error : why the newest look, or a stop, has failed
    """

    def __init__(
        self, account: AccountView, session_id: str, instruments: Sequence[Instrument], orders: OrdersConfig
    ) -> None:
        self._account, self.session_id = account, session_id
        self._instruments, self._stop_bps = instruments, orders.stop_loss_bps
        self._index = {each.symbol: index for index, each in enumerate(instruments)}
        self.left: tuple[Left, ...] | None = None
        self.entries: tuple[str, ...] = ()
        self.error = ""
        self._asked = False
        # Of guards, by symbol, quantity and what was there before: one whose answer was lost, or that the
        # list does not show yet, is refused when it is sent again, not placed twice.
        self._names: dict[tuple[int, int, int], str] = {}

    def lacking(self, broker: RemoteBroker) -> list[int]:
        """Return the symbols that are held, as far as was told, without the stop that they are to have."""
        if self._stop_bps is None:
            return []
        stopped = stopped_e8(broker)
        return [
            index
            for index, position in enumerate(broker.account.positions)
            if stopped[index] < self._instruments[index].at_market_e8(abs(position.qty_e8))
        ]

    async def close(
        self,
        broker: RemoteBroker,
        withheld: Collection[int],
        end: Callable[[int, OrderRequest], None],
        go_on: Callable[[], bool],
    ) -> bool:
        """Wait until no entry and no position without its stop is left; return whether that has come true.

        Parameters
        ----------
        withheld : ids of entries that have never left
        end : asks for the end of an entry that rests
        go_on : lets time close frames, and the engine decide: the stops are its to place; returns whether it
            still can
        """
        left, until_s = True, time.monotonic() + _LAST_CALLS_S
        while left and time.monotonic() < until_s:
            entries = entries_of(broker, withheld)
            for request in entries:
                if request.kind is OrderKind.LIMIT:
                    end(request.order_id, request)
            if not go_on():
                return False
            await asyncio.sleep(_AGAIN_S)  # after the last one too: a frame has to close for its bracket
            left = bool(entries or self.lacking(broker))
        return not left

    async def secure(self, broker: RemoteBroker, strangers: Collection[int] = ()) -> None:
        """End entries that rest and place the stops that are missing, by asking the exchange itself.

        Parameters
        ----------
        broker : a symbol in which nothing is known of ours gets no stop
        strangers : nor does one whose position is somebody else's in part
        """
        ours = {index: most for index, most in concerned(broker).items() if index not in strangers}
        self._asked = True
        clean, until_s = 0, time.monotonic() + _SECURE_S
        while clean < _LOOKS and time.monotonic() < until_s:
            try:
                async with asyncio.timeout(_SECURE_S):
                    clean = clean + 1 if await self._secure(ours) else 0
            except Exception as error:  # whatever the adapter and the network raise
                clean, self.error = 0, f"{type(error).__name__}: {error}"[:300]
                if getattr(error, "status", None) in _ASKED_TOO_MUCH:
                    return  # who goes on is banned, or banned longer
            await asyncio.sleep(_PAUSE_S)

    def words(self) -> str:
        """Return what is open and unprotected, or may be; "" where all is as it is to be."""
        if self._asked and self.left is None:
            return f"the account could not be looked at: {self.error or 'there was no time'}"
        parts = [f"{self._instruments[each.symbol].symbol} {each.qty_e8 / E8:+g}" for each in self.bare()]
        parts += [f"entry {name}" for name in self.entries]
        if self.error and not parts:
            return f"the account could not be looked at to the end: {self.error}"
        return ", ".join(parts) + (f" ({self.error})" if self.error else "")

    def bare(self) -> list[Left]:
        """Return the positions that are to have a stop and have none, or not of their whole size."""
        return [] if self._stop_bps is None else [each for each in self.left or () if each.bare]

    def status(self) -> list[dict[str, Any]] | None:
        """Return the positions that stay, ready for JSON; None before, and where nobody has looked."""
        if self.left is None:
            return None
        return [
            {
                "symbol": self._instruments[each.symbol].symbol,
                "qty": each.qty_e8 / E8,
                "stopped": min(each.guarded_e8, abs(each.qty_e8)) / E8,
            }
            for each in self.left
        ]

    async def _secure(self, ours: Mapping[int, tuple[int, int]]) -> bool:
        """Look once, and do what is missing; return whether nothing was."""
        api, failures = self._account.api, []
        orders, stops = await self._account.open_rows()
        entries = [
            each
            for each in orders
            if is_of_session(self.session_id, each.clientOrderId) and not each.reduceOnly
        ]
        self.entries = tuple(each.clientOrderId for each in entries)
        for entry in entries:
            failures += await _failed(api.cancel_order(symbol=entry.symbol, order_id=entry.orderId))
        positions = await self._account.positions()
        covered: Counter[tuple[int, str]] = Counter()
        for stop in stops:
            if stop.orderType in _STOPS and (stop.reduceOnly or stop.closePosition):
                covered[self._index[stop.symbol], stop.side] += _e8(stop)
        self.left = tuple(
            Left(index, qty_e8, covered[index, "SELL" if qty_e8 > 0 else "BUY"])
            for index, (qty_e8, _) in enumerate(positions)
            if qty_e8
        )
        lacking = [(each, self._missing_e8(each, ours.get(each.symbol, (0, 0)))) for each in self.bare()]
        missing = [(each, qty_e8) for each, qty_e8 in lacking if qty_e8 > 0]
        for lack, qty_e8 in missing:
            failures += await _failed(self._guard(lack, qty_e8, positions[lack.symbol][1]))
        if failures:
            raise failures[0]
        if not missing and not entries:
            self.error = ""
        return not missing and not entries

    def _missing_e8(self, left: Left, ours: tuple[int, int]) -> int:
        """Return how much a stop is to cover that none covers: of what may be ours, as much as one market
        order can have."""
        short_e8, long_e8 = ours
        most_e8 = min(abs(left.qty_e8), long_e8 if left.qty_e8 > 0 else short_e8)
        return self._instruments[left.symbol].at_market_e8(most_e8) - left.guarded_e8

    async def _guard(self, left: Left, missing_e8: int, entry_e8: int) -> None:
        """Place a stop where the session would have; a position that is beyond it already is closed."""
        assert self._stop_bps is not None
        instrument, side = self._instruments[left.symbol], -1 if left.qty_e8 > 0 else 1
        position = Position(left.qty_e8, left.qty_e8 * entry_e8 // E8)
        price_e8 = bracket_price_e8(position, self._stop_bps, side, instrument.tick_size_e8)
        name = self._names.setdefault(
            (left.symbol, missing_e8, left.guarded_e8),
            guard_name(self.session_id, left.symbol, time.time_ns() // NS_PER_MS),
        )
        common = {
            "symbol": instrument.symbol,
            "side": BinanceOrderSide.BUY if side > 0 else BinanceOrderSide.SELL,
            "quantity": _text(missing_e8),
            "reduce_only": "true",
        }
        _LOG.warning("%s %+g has no stop: one is placed, %s", instrument.symbol, left.qty_e8 / E8, name)
        try:
            await self._account.api.new_algo_order(
                order_type=BinanceOrderType.STOP_MARKET,
                trigger_price=_text(price_e8),
                working_type="CONTRACT_PRICE",
                client_algo_id=name,
                **common,
            )
        except BinanceError as error:
            code = _code(error)
            if code == _NAME_IS_TAKEN:  # it is there; the next look is to show it
                return
            if code != _TRIGGERS_AT_ONCE:
                raise
            await self._account.api.new_order(
                order_type=BinanceOrderType.MARKET, new_client_order_id=name, **common
            )


def entries_of(broker: RemoteBroker, withheld: Collection[int]) -> list[OrderRequest]:
    """Return the entries that have left, and have not ended as far as was told."""
    requests = [order.request for number, order in broker.orders.items() if number not in withheld]
    return [each for each in requests if not each.reduce_only]


def concerned(broker: RemoteBroker) -> dict[int, tuple[int, int]]:
    """Return the symbols in which something of ours is, or may be, at the exchange: each with how much of a
    short and of a long position there can be ours, once entries have got what they may still get."""
    found = {index: [-each.qty_e8, each.qty_e8] for index, each in enumerate(broker.account.positions)}
    ours = {index for index, (_, qty_e8) in found.items() if qty_e8}
    for order in broker.orders.values():
        request = order.request
        ours.add(request.symbol_index)
        if not request.reduce_only:
            found[request.symbol_index][request.side > 0] += order.left_e8
    return {index: (found[index][0], found[index][1]) for index in sorted(ours)}


async def _failed(call: Awaitable[object]) -> list[Exception]:
    """Make a call, and return what it has failed of: what it was about keeps nothing else from its stop.

    Raises
    ------
    Exception    the exchange takes no calls
    """
    try:
        await call
    except Exception as error:  # whatever the adapter and the network raise
        if getattr(error, "status", None) in _ASKED_TOO_MUCH:
            raise
        return [error]
    return []


def _code(error: BinanceError) -> object:
    """Return the exchange's number of a refusal; the adapter has no names for the newer ones."""
    return error.message.get("code") if isinstance(error.message, dict) else None


def _e8(stop: Any) -> int:
    """Return how much a stop covers."""
    return _EVERYTHING_E8 if stop.closePosition else int(Decimal(stop.quantity or 0) * E8)


def _text(value_e8: int) -> str:
    """Return a multiple of 1e-8 as decimal text without needless zeros."""
    return format(Decimal(value_e8).scaleb(-8).normalize(), "f")
