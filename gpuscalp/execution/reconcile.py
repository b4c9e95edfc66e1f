"""What we know of orders, trades and positions against what the exchange says when it is asked.

Owns: the rules. Trades of our orders are booked, each once; an order that the exchange has never heard of has
ended, once nothing that was sent can still arrive; a position or an open order that nobody here knows is a
stranger, and is kept out, taken over or closed by rule. Pure. Never: asks, sends, or waits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import ReportKind
from gpuscalp.execution.remote import FOREIGN, Heard, RemoteBroker
from gpuscalp.schema import E8

Rule = Literal["block", "adopt", "close"]

# Of orders of the exchange's own (Binance USD-M, user data streams, ORDER_TRADE_UPDATE).
OWN_PREFIXES: Final = ("autoclose-", "adl_autoclose", "settlement_autoclose-")
_ENDS: Final = {
    OrderState.CANCELED: ReportKind.CANCELED,
    OrderState.EXPIRED: ReportKind.EXPIRED,
    OrderState.REJECTED: ReportKind.REJECTED,
    OrderState.FILLED: ReportKind.EXPIRED,  # its trades end it; this waits for them
}
FUNDING_NS: Final = 3_600 * 10**9
# So long after the full hour it may still show in the balance: the exchange promises no exact time.
FUNDING_LATE_NS: Final = 60 * 10**9
# The largest rate that Binance charges at one time, rounded up.
_FUNDING_SHARE: Final = 0.04


@dataclass(frozen=True, slots=True)
class FoundOrder:
    """An order as the exchange shows it.

    Attributes
    ----------
    venue_id : its number, or that of the order that came of a conditional one; 0 where there is none yet
    algo_id : the number of a conditional order; 0 of others
    """

    symbol: int
    client_id: str
    state: OrderState
    venue_id: int = 0
    algo_id: int = 0
    executed_e8: int = 0


@dataclass(frozen=True, slots=True)
class FoundTrade:
    """A trade of the account. ``fee_e8`` in the quote currency: 0 where it was paid in another one."""

    symbol: int
    trade_id: int
    venue_id: int
    side: int
    qty_e8: int
    price_e8: int
    fee_e8: int
    maker: bool
    at_ns: int


@dataclass(frozen=True, slots=True)
class Found:
    """What one look at the exchange has found.

    Attributes
    ----------
    wallet_e8 : balance without open positions
    positions : S × (signed quantity, entry price)
    orders : that are open
    asked : by our id, what became of orders of ours that are not open; None: it does not know them
    trades : of the account that are not known here, by number
    client_ids : of the orders of those trades that are none of ours, by the exchange's number
    fee_assets : other currencies in which fees were paid that no look has told of
    """

    wallet_e8: int
    positions: Sequence[tuple[int, int]]
    orders: Sequence[FoundOrder] = ()
    asked: Mapping[int, FoundOrder | None] = field(default_factory=dict)
    trades: Sequence[FoundTrade] = ()
    client_ids: Mapping[int, str] = field(default_factory=dict)
    fee_assets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """What is left when everything is booked.

    Attributes
    ----------
    positions : by symbol, quantity at the exchange less ours
    orders : open at the exchange, none of ours
    wallet_e8 : balance at the exchange less ours
    """

    positions: Mapping[int, int]
    orders: tuple[FoundOrder, ...]
    wallet_e8: int

    @property
    def strange(self) -> bool:
        """Whether there is a position or an order that nobody here knows."""
        return bool(self.positions or self.orders)

    def same_as(self, before: Difference) -> bool:
        """Whether another look had found the same strangers."""
        ids = (
            {(each.client_id, each.venue_id, each.algo_id) for each in one.orders} for one in (before, self)
        )
        return dict(before.positions) == dict(self.positions) and next(ids) == next(ids)

    def words(self, symbols: Sequence[str]) -> str:
        parts = [f"position {symbols[index]} {qty / E8:+g}" for index, qty in self.positions.items()]
        parts += [f"order {symbols[each.symbol]} {each.client_id}" for each in self.orders]
        return ", ".join(parts)


def news(
    broker: RemoteBroker,
    found: Found,
    *,
    number_of: Mapping[str, int],
    overdue: Collection[int],
    known_ns: int,
    ended: Mapping[int, int] = MappingProxyType({}),
) -> list[Heard]:
    """Return what a look has told that was not known, in the order in which it is to be taken.

    Parameters
    ----------
    broker : knows what was told before; not changed
    number_of : our ids of orders that have not ended, by the name that the exchange knows them under
    overdue : ids of orders that cannot be on their way any more
    known_ns : exchange time now
    ended : our ids, by the exchange's number, of orders of trades whose owner is not known otherwise: a trade
        that is told after the end of its order is none of a stranger
    """
    heard: list[Heard] = []
    owner = {
        **ended,
        **{order.venue_id: number for number, order in broker.orders.items() if order.venue_id},
    }
    answers: dict[int, FoundOrder | None] = dict(found.asked)
    for order in found.orders:
        if (number := number_of.get(order.client_id)) is not None:
            answers[number] = order
    for number, answer in answers.items():
        if answer is None or number not in broker.orders:
            continue
        if answer.venue_id:
            owner[answer.venue_id] = number
        if answer.state is not OrderState.REJECTED and broker.orders[number].state is OrderState.NEW:
            heard.append(
                Heard(
                    ReportKind.ACCEPTED, known_ns, known_ns, number, answer.symbol, venue_id=answer.venue_id
                )
            )
    heard += _trades(broker, found, owner, known_ns)
    for number, answer in answers.items():
        sent = broker.orders.get(number)
        if sent is None:
            continue
        symbol = sent.request.symbol_index
        if answer is None:
            if number in overdue:
                heard.append(
                    Heard(ReportKind.REJECTED, known_ns, known_ns, number, symbol, reason="it never arrived")
                )
        elif answer.state in _ENDS:
            heard.append(
                Heard(
                    _ENDS[answer.state],
                    known_ns,
                    known_ns,
                    number,
                    symbol,
                    executed_e8=answer.executed_e8,
                    reason="found",
                )
            )
    if found.fee_assets:
        reason = f"fees in {', '.join(found.fee_assets)}, of which no balance and no loss limit here knows"
        heard.append(Heard(ReportKind.ALARM, known_ns, known_ns, reason=reason))
    return heard


def _trades(broker: RemoteBroker, found: Found, owner: Mapping[int, int], known_ns: int) -> list[Heard]:
    """Return the trades to be booked, and how far each symbol's trades are dealt with."""
    heard: list[Heard] = []
    seen = list(broker.seen)
    stopped: set[int] = set()  # a stranger's trade is not dealt with, nor is what comes after it
    alarmed: set[int] = set()
    for trade in sorted(found.trades, key=lambda each: (each.at_ns, each.trade_id)):
        first_look = broker.seen[trade.symbol] < 0
        if first_look or broker.knows(trade.symbol, trade.trade_id):
            number = 0
        else:
            number = owner.get(trade.venue_id, 0)
            own = found.client_ids.get(trade.venue_id, "").startswith(OWN_PREFIXES)
            if not number and own:
                number = FOREIGN
                if trade.venue_id not in alarmed:
                    alarmed.add(trade.venue_id)
                    reason = f"the exchange has closed by itself: {found.client_ids[trade.venue_id]}"
                    heard.append(
                        Heard(ReportKind.ALARM, trade.at_ns, known_ns, symbol=trade.symbol, reason=reason)
                    )
            if not number:
                stopped.add(trade.symbol)
                continue
            heard.append(_fill(trade, number, known_ns))
        if trade.symbol not in stopped:
            seen[trade.symbol] = max(seen[trade.symbol], trade.trade_id)
    for symbol, (before, after) in enumerate(zip(broker.seen, seen, strict=True)):
        if before < 0 or after > before:
            heard.append(Heard(ReportKind.SEEN, known_ns, known_ns, symbol=symbol, trade_id=max(after, 0)))
    return heard


def compare(
    broker: RemoteBroker,
    found: Found,
    names: Collection[str],
    quiet: Collection[int] | None = None,
) -> Difference:
    """Return what differs once the news of the same look has been taken.

    Parameters
    ----------
    names : of orders of ours that had not ended when the look began, or now
    quiet : symbols in which nothing moved during the look; of the others it says nothing. None = all
    """
    held = [position.qty_e8 for position in broker.account.positions]
    positions = {
        index: qty - ours
        for index, ((qty, _), ours) in enumerate(zip(found.positions, held, strict=True))
        if qty != ours and (quiet is None or index in quiet)
    }
    orders = tuple(order for order in found.orders if order.client_id not in names)
    return Difference(positions, orders, found.wallet_e8 - broker.account.wallet_e8)


def take_over(
    broker: RemoteBroker, found: Found, difference: Difference, rule: Rule, known_ns: int
) -> list[Heard]:
    """Return what makes the strangers' positions ours: their trades as they were, what is older at its entry.

    Their orders are not among it: whoever takes over cancels those first, because they would change the
    position behind the trader's back.
    """
    heard: list[Heard] = []
    left = dict(difference.positions)
    for trade in sorted(found.trades, key=lambda each: each.trade_id):
        if trade.symbol in left and not broker.knows(trade.symbol, trade.trade_id):
            heard.append(_fill(trade, FOREIGN, known_ns))
            left[trade.symbol] -= trade.side * trade.qty_e8
    for symbol, qty in left.items():
        if qty:
            heard.append(
                Heard(
                    ReportKind.FILL,
                    known_ns,
                    known_ns,
                    FOREIGN,
                    symbol,
                    side=1 if qty > 0 else -1,
                    qty_e8=abs(qty),
                    price_e8=found.positions[symbol][1] or _entry_e8(broker, symbol),
                    reason="older than the session",
                )
            )
    for symbol in difference.positions:
        newest = max((each.trade_id for each in found.trades if each.symbol == symbol), default=0)
        if newest > broker.seen[symbol]:
            heard.append(Heard(ReportKind.SEEN, known_ns, known_ns, symbol=symbol, trade_id=newest))
        if rule == "close":
            heard.append(Heard(ReportKind.CLOSE, known_ns, known_ns, symbol=symbol, reason="closed by rule"))
    return heard


def dismiss(broker: RemoteBroker, found: Found, quiet: Collection[int], known_ns: int) -> list[Heard]:
    """Return that strangers' trades which have left no position are dealt with.

    What they cost or brought shows in the balance.

    Parameters
    ----------
    quiet : symbols in which nothing moved during the look
    """
    newest: dict[int, int] = {}
    for trade in found.trades:
        newest[trade.symbol] = max(newest.get(trade.symbol, 0), trade.trade_id)
    return [
        Heard(ReportKind.SEEN, known_ns, known_ns, symbol=symbol, trade_id=trade_id)
        for symbol, trade_id in newest.items()
        if symbol in quiet
        and trade_id > broker.seen[symbol]
        and found.positions[symbol][0] == broker.account.positions[symbol].qty_e8
    ]


def _entry_e8(broker: RemoteBroker, symbol: int) -> int:
    """Return our entry price: of a position that is gone the exchange tells none."""
    position = broker.account.positions[symbol]
    return abs(position.cost_e8) * E8 // abs(position.qty_e8)


def funding(
    difference: Difference, held: Mapping[int, int], *, agreed_ns: int, known_ns: int
) -> Heard | None:
    """Return the funding that explains a difference of balance; None where none can.

    Funding is charged at full hours, on positions; the exchange's messages as they reach us do not name it.

    Parameters
    ----------
    difference : without what was found before to have no explanation
    held : by symbol, value of what is or was held since ``agreed_ns``, units
    agreed_ns, known_ns : exchange time when both balances last differed by nothing new, and now
    """
    passed = agreed_ns // FUNDING_NS != known_ns // FUNDING_NS
    limit = _FUNDING_SHARE * sum(abs(value) for value in held.values())
    if not difference.wallet_e8 or difference.strange or not passed or abs(difference.wallet_e8) > limit:
        return None
    symbol = next(iter(held)) if len(held) == 1 else -1
    return Heard(
        ReportKind.FUNDING, known_ns, known_ns, symbol=symbol, money_e8=difference.wallet_e8, reason="funding"
    )


def _fill(trade: FoundTrade, number: int, known_ns: int) -> Heard:
    return Heard(
        ReportKind.FILL,
        trade.at_ns,
        known_ns,
        number,
        trade.symbol,
        venue_id=trade.venue_id,
        trade_id=trade.trade_id,
        side=trade.side,
        qty_e8=trade.qty_e8,
        price_e8=trade.price_e8,
        fee_e8=trade.fee_e8,
        maker=trade.maker,
    )
