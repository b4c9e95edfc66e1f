"""One look at an account through the HTTP client of NautilusTrader's Binance adapter.

Owns: which calls make a look, and what their replies mean to us. Never: decides what follows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, final

import msgspec
from nautilus_trader.adapters.binance.http.error import BinanceError, get_binance_error_code
from nautilus_trader.core.nautilus_pyo3 import HttpMethod

from gpuscalp.errors import ConfigError, DecodeError, FeedError
from gpuscalp.execution.lifecycle import ENDED, OrderState
from gpuscalp.execution.messages import OrderRequest
from gpuscalp.execution.reconcile import Found, FoundOrder, FoundTrade
from gpuscalp.execution.remote import RemoteBroker
from gpuscalp.orders import OrderKind
from gpuscalp.schema import E8, NS_PER_MS

_PAGE: Final = 1_000
# Of a history that is only paged through: 200,000 trades of one symbol in the three months that Binance tells
# of (six until 2026-08-26).
_PAGES: Final = 200
# Between two of them: 5 by weight each, so that they take half of the calls that the exchange allows.
_PAGE_S: Final = 0.25
# Weights of Binance USD-M: open orders of one symbol and of all (conditional ones as many), trades, the rest.
_ONE, _ALL, _TRADES, _REST = 1, 40, 5, 10
_UNKNOWN_ORDER: Final = -2013
# In which accounts of the European Economic Area have margin, fees and profits, whatever they trade.
_CREDITS: Final = "BNFCR"
_MULTI_ASSETS: Final = "/fapi/v1/multiAssetsMargin"
_FEE_BURN: Final = "/fapi/v1/feeBurn"
_CROSSED: Final = "CROSSED"
# Whoever asks too much gets these, whatever was asked: they say nothing of an order.
_ASKED_TOO_MUCH: Final = frozenset({403, 418, 429})
_QUOTES: Final = ("USDT", "USDC", "FDUSD", "BUSD", "USD")
_STATES: Final = {
    "NEW": OrderState.ACCEPTED,
    "PARTIALLY_FILLED": OrderState.PARTIALLY_FILLED,
    "FILLED": OrderState.FILLED,
    "CANCELED": OrderState.CANCELED,
    "PENDING_CANCEL": OrderState.ACCEPTED,
    "REJECTED": OrderState.REJECTED,
    "NEW_INSURANCE": OrderState.ACCEPTED,  # of a liquidation
    "NEW_ADL": OrderState.ACCEPTED,
    "EXPIRED": OrderState.EXPIRED,
    "EXPIRED_IN_MATCH": OrderState.EXPIRED,
    "TRIGGERING": OrderState.ACCEPTED,
    "TRIGGERED": OrderState.ACCEPTED,
    "FINISHED": OrderState.EXPIRED,
}


def quote_of(symbols: Sequence[str]) -> str:
    """Return the one currency in which symbols are quoted and settled.

    Raises
    ------
    ConfigError    there are several, and so several balances
    """
    found = {next((quote for quote in _QUOTES if name.endswith(quote)), name) for name in symbols}
    if len(found) != 1:
        raise ConfigError(
            "one account trades in one currency",
            where="symbols of the model",
            value=", ".join(sorted(found)),
            fix="train a model for each",
        )
    return found.pop()


@final
class AccountView:
    """Looks at one account.

    Parameters
    ----------
    api : BinanceFuturesAccountHttpAPI
    symbols : names, in the order of axis S

    Attributes
    ----------
    api : as it was given
    other_fees : commission in other currencies than the quote, by asset: it is not in the balance
    others : positions in symbols that are not traded here, in words
    weight : of one look, against the limit of 2,400 a minute
    """

    def __init__(self, api: Any, symbols: Sequence[str]) -> None:
        self.api, self._symbols = api, tuple(symbols)
        self._index = {name: index for index, name in enumerate(symbols)}
        self.quote = quote_of(symbols)
        count = len(self._symbols)
        self._by_symbol = count * _ONE < _ALL
        self.weight = 2 * (count * _ONE if self._by_symbol else _ALL) + count * _TRADES + _REST
        self.other_fees: dict[str, Decimal] = {}
        self.others: tuple[str, ...] = ()
        self._told_fees: dict[str, Decimal] = {}
        self._counted: set[tuple[int, int]] = set()
        self._client_ids: dict[int, str] = {}

    async def check(self) -> None:
        """Refuse an account that cannot be traded.

        Raises
        ------
        ConfigError    it is in hedge mode, multi-assets mode or credits trading mode, pays fees in BNB, or a
            symbol that is traded has isolated margin
        """
        mode = await self.api.query_futures_hedge_mode()
        if mode.dualSidePosition:
            raise ConfigError(
                "the account is in hedge mode: exits are reduce-only, which only one-way mode has",
                where="GET /fapi/v1/positionSide/dual",
                fix="set it to one-way mode; it must be flat for that",
            )
        info = await self.api.query_futures_account_info()
        if any(each.asset == _CREDITS for each in info.assets):
            raise ConfigError(
                f"the account is in credits trading mode: profits, fees and funding are in {_CREDITS}, "
                f"which the balance in {self.quote} lacks",
                where="GET /fapi/v2/account",
                fix="trade with an account that settles in the currency of the symbols",
            )
        if await self._switch(_MULTI_ASSETS, "multiAssetsMargin"):
            raise ConfigError(
                "the account is in multi-assets mode: what other currencies lose in value liquidates "
                f"positions; sizes and limits know of {self.quote} alone",
                where=f"GET {_MULTI_ASSETS}",
                fix="set it to single-asset mode; it must be flat for that",
            )
        if await self._switch(_FEE_BURN, "feeBurn"):
            raise ConfigError(
                f"the account pays its fees in BNB: the balance in {self.quote} lacks them, and so no loss "
                "limit knows of them",
                where=f"GET {_FEE_BURN}",
                fix="switch it off: paying fees with BNB, in the preferences of futures trading",
            )
        settings = await self.api.query_futures_symbol_config()
        isolated = [
            f"{each.symbol} {each.leverage}x"
            for each in settings
            if each.symbol in self._index and each.marginType != _CROSSED
        ]
        if isolated:
            raise ConfigError(
                "symbols have isolated margin: a position there is liquidated with what was set aside for it "
                "alone, maybe before its stop; sizes and limits count on the whole balance",
                where="GET /fapi/v1/symbolConfig",
                value=", ".join(isolated),
                fix="set them to cross margin; they must be flat for that",
            )

    async def _switch(self, path: str, name: str) -> bool:
        """Return a setting of the account that the adapter has no call for."""
        signed = {"timestamp": str(time.time_ns() // NS_PER_MS)}
        reply = await self.api.client.sign_request(HttpMethod.GET, path, signed)
        return bool(msgspec.json.decode(reply)[name])

    async def wallet_e8(self) -> int:
        """Return the balance without open positions."""
        info = await self.api.query_futures_account_info()
        return sum(_e8(each.walletBalance) for each in info.assets if each.asset == self.quote)

    async def look(self, broker: RemoteBroker, number_of: Mapping[str, int]) -> Found:
        """Return what there is now: orders first, then trades, positions and balance.

        Parameters
        ----------
        broker : which trades and orders are known
        number_of : our ids of orders that have not ended, by their name
        """
        orders = await self._open_orders()
        shown = {order.client_id for order in orders}
        asked = {
            number: await self._ask(name, broker, number)
            for name, number in number_of.items()
            if name not in shown and number in broker.orders
        }
        self._counted = {each for each in self._counted if each[1] > broker.seen[each[0]]}
        trades: list[FoundTrade] = []
        for index in range(len(self._symbols)):
            trades += await self._trades(index, broker.seen[index])
        positions = await self.positions()
        wallet = await self.wallet_e8()
        owned = {each.venue_id for each in (*orders, *(a for a in asked.values() if a)) if each.venue_id}
        owned |= {order.venue_id for order in broker.orders.values() if order.venue_id}
        strange = {
            trade.venue_id: trade
            for trade in trades
            if broker.seen[trade.symbol] >= 0
            and not broker.knows(trade.symbol, trade.trade_id)
            and trade.venue_id not in owned
        }
        # Asked once, as long as nobody has dealt with them.
        self._client_ids = {each: name for each, name in self._client_ids.items() if each in strange}
        for venue_id, trade in strange.items():
            if venue_id not in self._client_ids:
                self._client_ids[venue_id] = await self._client_id(trade)
        # Here and not before: a look that has failed has told nobody.
        before, self._told_fees = self._told_fees, dict(self.other_fees)
        paid_in = tuple(asset for asset, paid in self.other_fees.items() if paid != before.get(asset, 0))
        return Found(wallet, positions, orders, asked, trades, dict(self._client_ids), paid_in)

    async def cancel(self, order: FoundOrder) -> None:
        """Cancel an order that no strategy knows; one that has ended meanwhile is no error."""
        try:
            if order.algo_id and not order.venue_id:
                await self.api.cancel_algo_order(algo_id=order.algo_id)
            else:
                await self.api.cancel_order(symbol=self._symbols[order.symbol], order_id=order.venue_id)
        except BinanceError as error:
            _must_be_about_the_order(error)  # the next look says what became of it

    async def end(self, name: str, request: OrderRequest) -> None:
        """Ask for the end of an order of ours by its name; one that has ended meanwhile is no error."""
        symbol = self._symbols[request.symbol_index]
        try:
            if request.kind is OrderKind.STOP_MARKET:
                try:
                    await self.api.cancel_algo_order(client_algo_id=name)
                    return
                except BinanceError as error:  # it has gone off: there is an order of the same name
                    _must_be_about_the_order(error)
            await self.api.cancel_order(symbol=symbol, orig_client_order_id=name)
        except BinanceError as error:
            _must_be_about_the_order(error)  # as above

    async def executed_e8(self, name: str, request: OrderRequest) -> int | None:
        """Return how much of an order of ours was filled; None where the exchange has not ended it."""
        symbol = self._symbols[request.symbol_index]
        order = await _known(self.api.query_order(symbol=symbol, orig_client_order_id=name))
        return None if order is None or _STATES[order.status.value] not in ENDED else _e8(order.executedQty)

    async def open_rows(self) -> tuple[list[Any], list[Any]]:
        """Return the open orders of our symbols as the exchange shows them, and the conditional ones."""
        orders: list[Any] = []
        algos: list[Any] = []
        for symbol in self._symbols if self._by_symbol else (None,):
            orders += await self.api.query_open_orders(symbol)
            algos += await self.api.query_open_algo_orders(symbol)
        return [each for each in orders if each.symbol in self._index], [
            each for each in algos if each.symbol in self._index
        ]

    async def _open_orders(self) -> list[FoundOrder]:
        orders, algos = await self.open_rows()
        return [*map(self._order, orders), *map(self._algo, algos)]

    async def _ask(self, name: str, broker: RemoteBroker, number: int) -> FoundOrder | None:
        """Return what became of an order that is not open; None: the exchange does not know it."""
        request = broker.orders[number].request
        symbol = self._symbols[request.symbol_index]
        if request.kind is OrderKind.STOP_MARKET:
            algo = await _known(self.api.query_algo_order(client_algo_id=name))
            if algo is None:
                return None
            if algo.actualOrderId and int(algo.actualOrderId):
                order = await _known(self.api.query_order(symbol=symbol, order_id=int(algo.actualOrderId)))
                if order is not None:
                    return self._order(order, name)
            return self._algo(algo)
        order = await _known(self.api.query_order(symbol=symbol, orig_client_order_id=name))
        return None if order is None else self._order(order)

    async def _trades(self, index: int, seen: int) -> list[FoundTrade]:
        symbol = self._symbols[index]
        if seen < 0:  # the first look: where the numbers stand
            page = await self.api.query_user_trades(symbol=symbol) or await self._older(symbol)
            return [self._trade(index, each, counts=False) for each in page]
        found: list[FoundTrade] = []
        while True:
            page = await self.api.query_user_trades(symbol=symbol, from_id=seen + 1, limit=_PAGE)
            found += [self._trade(index, each) for each in page]
            if len(page) < _PAGE:
                return found
            seen = max(each.id for each in page)

    async def _older(self, symbol: str) -> list[Any]:
        """Return the newest trade of a symbol that has traded nothing lately, alone; none if it never has.

        Who asks for no number gets the last seven days (Binance USD-M, Account Trade List). That they are
        empty does not say that the numbers begin here: the whole history would be news to the next look.

        Raises
        ------
        FeedError    the history is longer than anybody's who does not trade for a week
        """
        newest: list[Any] = []
        for _ in range(_PAGES):
            first = newest[0].id + 1 if newest else 1
            page = await self.api.query_user_trades(symbol=symbol, from_id=first, limit=_PAGE)
            newest = [max(page, key=lambda each: each.id)] if page else newest
            if len(page) < _PAGE:
                return newest
            await asyncio.sleep(_PAGE_S)
        raise FeedError(
            "the account's trades of three months are too many to find the newest of them",
            where=f"GET /fapi/v1/userTrades, {symbol}",
            value=f"more than {_PAGES * _PAGE}, none in the last seven days",
            fix="trade it once by hand: what is no older than seven days is found at once",
        )

    async def positions(self) -> list[tuple[int, int]]:
        """Return S × (signed quantity, entry price)."""
        positions = [(0, 0)] * len(self._symbols)
        others = []
        for each in await self.api.query_futures_position_risk():
            qty_e8 = _e8(each.positionAmt)
            if not qty_e8:
                continue
            index = self._index.get(each.symbol)
            if index is None:
                others.append(f"{each.symbol} {qty_e8 / E8:+g}")
            else:
                # The entry price may have more digits than money: half a unit is no matter.
                positions[index] = (qty_e8, round(Decimal(each.entryPrice) * E8))
        self.others = tuple(others)
        return positions

    async def _client_id(self, trade: FoundTrade) -> str:
        symbol = self._symbols[trade.symbol]
        order = await _known(self.api.query_order(symbol=symbol, order_id=trade.venue_id))
        return "" if order is None else str(order.clientOrderId)

    def _order(self, order: Any, name: str = "") -> FoundOrder:
        return FoundOrder(
            symbol=self._index[order.symbol],
            client_id=name or order.clientOrderId,
            state=_STATES[order.status.value],
            venue_id=int(order.orderId),
            executed_e8=_e8(order.executedQty),
        )

    def _algo(self, order: Any) -> FoundOrder:
        return FoundOrder(
            symbol=self._index[order.symbol],
            client_id=order.clientAlgoId,
            state=_STATES[order.algoStatus],
            venue_id=int(order.actualOrderId or 0),
            algo_id=int(order.algoId),
        )

    def _trade(self, index: int, trade: Any, *, counts: bool = True) -> FoundTrade:
        price_e8, qty_e8, fee_e8 = _e8(trade.price), _e8(trade.qty), 0
        # Written down it could never be booked, and the journal with it never be taken up again.
        if counts and (price_e8 <= 0 or qty_e8 <= 0):
            raise DecodeError(
                "the exchange tells of a trade without a price or a quantity",
                where=f"GET /fapi/v1/userTrades, {self._symbols[index]}, trade {trade.id}",
                value=f"price {trade.price}, qty {trade.qty}",
                fix="ask the exchange: until it tells them, looks fail, and soon nothing is opened",
            )
        if trade.commissionAsset == self.quote:
            fee_e8 = _e8(trade.commission)
        elif counts and (index, trade.id) not in self._counted:
            self._counted.add((index, trade.id))
            before = self.other_fees.get(trade.commissionAsset, Decimal(0))
            self.other_fees[trade.commissionAsset] = before + Decimal(trade.commission)
        return FoundTrade(
            symbol=index,
            trade_id=int(trade.id),
            venue_id=int(trade.orderId),
            side=1 if trade.buyer else -1,
            qty_e8=qty_e8,
            price_e8=price_e8,
            fee_e8=fee_e8,
            maker=bool(trade.maker),
            at_ns=int(trade.time) * NS_PER_MS,
        )


async def _known(call: Any) -> Any:
    """Return the reply, or None where the exchange does not know the order; other refusals are raised."""
    try:
        return await call
    except BinanceError as error:
        code = get_binance_error_code(error)
        if code is not None and code.value == _UNKNOWN_ORDER:
            return None
        raise


def _must_be_about_the_order(error: BinanceError) -> None:
    """Raise a refusal that is about the caller: nothing was done, and the exchange wants to be left alone."""
    if error.status in _ASKED_TOO_MUCH:
        raise error


def _e8(text: str) -> int:
    """Return decimal text as a multiple of 1e-8; finer digits are cut off."""
    return int(Decimal(text) * E8)
