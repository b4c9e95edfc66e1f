"""Order events of NautilusTrader as the reports of a broker, each once and in order.

Owns: which event makes which report, and what is left of each order. Never: imports NautilusTrader: it reads
events by their attributes.

What ends an order that we did not cancel is EXPIRED here, whatever it is called there: the rest of an order
that takes is "canceled" by Nautilus's backtests and "expired" by Binance. The profit of a fill
(``money_e8``) is not told and stays 0; the trader reckons its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from gpuscalp.execution.filters import Reject
from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.nautilus.names import order_number
from gpuscalp.orders import Fill
from gpuscalp.schema import E8

_MAKER: Final = 1
_BUY: Final = 1
# Binance's code inside the text of a refusal, such as {'code': -2019, 'msg': 'Margin is insufficient.'}
_CODE: Final = re.compile(r"-[1-9]\d{3}\b")
_CODES: Final = frozenset(int(code) for code in Reject)


@final
@dataclass(slots=True)
class _Sent:
    """An order that has not ended."""

    symbol: int
    left_e8: int
    accepted: bool = False
    cancelling: bool = False
    trade_ids: set[str] = field(default_factory=set)


@final
class Reporter:
    """Keeps account of the orders of one session.

    Parameters
    ----------
    session_id : of ``client_id``
    instrument_ids : Nautilus's, in the order of the symbols
    precision : digits of Nautilus's raw quantities
    best : bid and ask × 1e8 by symbol, kept up to date by whoever reads the market
    delay_ns : how much later than they are dated reports are known

    Attributes
    ----------
    repeated_count : events of orders that had ended, or of fills that were told before
    foreign_count : executions of orders that are none of the session's
    """

    def __init__(
        self,
        session_id: str,
        instrument_ids: Sequence[str],
        *,
        precision: int,
        best: Sequence[tuple[int, int]],
        delay_ns: int = 0,
    ) -> None:
        self._session_id, self._best, self._delay_ns = session_id, best, delay_ns
        self._symbols = {name: index for index, name in enumerate(instrument_ids)}
        self._raw_per_e8: int = 10**precision // E8
        self._open: dict[int, _Sent] = {}
        self._at_ns = self._known_ns = 0
        self.repeated_count = self.foreign_count = 0

    def sent(self, order_id: int, symbol: int, left_e8: int) -> None:
        """Note an order that is on its way, or one that a restart has found open."""
        self._open[order_id] = _Sent(symbol, left_e8)

    def cancelling(self, order_id: int) -> bool:
        """Note that an order is to be cancelled; return whether it has not ended."""
        sent = self._open.get(order_id)
        if sent is not None:
            sent.cancelling = True
        return sent is not None

    def told(self, event: Any, now_ns: int) -> list[Report]:
        """Return what an order event reports; nothing for what we know (submitted, updated, triggered).

        Parameters
        ----------
        event : an OrderEvent
        now_ns : exchange time
        """
        name = type(event).__name__
        order_id = order_number(self._session_id, str(event.client_order_id))
        if order_id is None:
            return self._foreign_fill(event, now_ns) if name == "OrderFilled" else []
        sent = self._open.get(order_id)
        if name == "OrderFilled":
            return self._fill(order_id, sent, event, now_ns)
        if name == "OrderAccepted":
            return self._accept(order_id, sent, event, now_ns)
        if name == "OrderCancelRejected":
            return self._still_there(order_id, sent, event, now_ns)
        if name in ("OrderRejected", "OrderDenied"):
            return self._end(order_id, sent, event, now_ns, ReportKind.REJECTED)
        if name == "OrderCanceled" and sent is not None and sent.cancelling:
            return self._end(order_id, sent, event, now_ns, ReportKind.CANCELED)
        if name in ("OrderCanceled", "OrderExpired"):
            return self._end(order_id, sent, event, now_ns, ReportKind.EXPIRED)
        return []

    def funding(self, symbol: int, money_e8: int, at_ns: int, now_ns: int) -> Report:
        """Return the report of funding that was received (negative: paid)."""
        times = self._times(at_ns, now_ns)
        return Report(ReportKind.FUNDING, 0, symbol, *times, money_e8=money_e8)

    def _fill(self, order_id: int, sent: _Sent | None, event: Any, now_ns: int) -> list[Report]:
        trade_id = str(event.trade_id)
        if sent is None or trade_id in sent.trade_ids:
            self.repeated_count += 1
            return []
        sent.trade_ids.add(trade_id)
        reports = [] if sent.accepted else self._accept(order_id, sent, event, now_ns)
        fill = self._execution(order_id, sent.symbol, event)
        sent.left_e8 -= fill.qty_e8
        state = OrderState.PARTIALLY_FILLED
        if sent.left_e8 <= 0:
            state = OrderState.FILLED
            del self._open[order_id]
        report = Report(
            ReportKind.FILL,
            order_id,
            sent.symbol,
            *self._times(event.ts_event, now_ns),
            state=state,
            left_e8=sent.left_e8,
            fill=fill,
            maker=int(event.liquidity_side) == _MAKER,
        )
        return [*reports, report]

    def _foreign_fill(self, event: Any, now_ns: int) -> list[Report]:
        """Return an execution that no order of the session asked for, such as a liquidation."""
        symbol = self._symbols.get(str(event.instrument_id))
        if symbol is None:
            return []
        self.foreign_count += 1
        order_id = -self.foreign_count
        times = self._times(event.ts_event, now_ns)
        fill = self._execution(order_id, symbol, event)
        return [Report(ReportKind.FILL, order_id, symbol, *times, state=OrderState.FILLED, fill=fill)]

    def _execution(self, order_id: int, symbol: int, event: Any) -> Fill:
        bid, ask = self._best[symbol]
        side = 1 if int(event.order_side) == _BUY else -1
        price_e8, qty_e8 = (self._e8(each.raw) for each in (event.last_px, event.last_qty))
        maker = int(event.liquidity_side) == _MAKER
        touch_e8 = price_e8 if maker else ask if side > 0 else bid
        return Fill(
            order_id=order_id,
            symbol_index=symbol,
            side=side,
            qty_e8=qty_e8,
            price_e8=price_e8,
            fee_e8=round(event.commission.as_decimal() * E8),
            exec_ns=event.ts_event,
            mid2_e8=bid + ask if bid and ask else 2 * price_e8,
            touch_e8=touch_e8,
        )

    def _accept(self, order_id: int, sent: _Sent | None, event: Any, now_ns: int) -> list[Report]:
        if sent is None or sent.accepted:
            self.repeated_count += 1
            return []
        sent.accepted = True
        times = self._times(event.ts_event, now_ns)
        state = OrderState.ACCEPTED
        return [Report(ReportKind.ACCEPTED, order_id, sent.symbol, *times, state=state, left_e8=sent.left_e8)]

    def _still_there(self, order_id: int, sent: _Sent | None, event: Any, now_ns: int) -> list[Report]:
        if sent is None:
            self.repeated_count += 1
            return []
        sent.cancelling = False
        times = self._times(event.ts_event, now_ns)
        code, reason = _refusal(event)
        kind = ReportKind.CANCEL_REJECTED
        return [Report(kind, order_id, sent.symbol, *times, code=code, reason=reason, left_e8=sent.left_e8)]

    def _end(
        self, order_id: int, sent: _Sent | None, event: Any, now_ns: int, kind: ReportKind
    ) -> list[Report]:
        if sent is None:
            self.repeated_count += 1
            return []
        del self._open[order_id]
        code, reason = _refusal(event) if kind is ReportKind.REJECTED else (0, "")
        state = {
            ReportKind.REJECTED: OrderState.REJECTED,
            ReportKind.CANCELED: OrderState.CANCELED,
            ReportKind.EXPIRED: OrderState.EXPIRED,
        }[kind]
        times = self._times(event.ts_event, now_ns)
        left_e8 = sent.left_e8
        return [
            Report(
                kind, order_id, sent.symbol, *times, state=state, code=code, reason=reason, left_e8=left_e8
            )
        ]

    def _times(self, at_ns: int, now_ns: int) -> tuple[int, int]:
        """Return when it happened and when it is known; both never go back."""
        self._at_ns = max(self._at_ns, at_ns)
        self._known_ns = max(self._known_ns, now_ns + self._delay_ns)
        return self._at_ns, self._known_ns

    def _e8(self, raw: int) -> int:
        return (raw + self._raw_per_e8 // 2) // self._raw_per_e8


def _refusal(event: Any) -> tuple[int, str]:
    """Return the exchange's code where its text has one that we know, and the text."""
    reason = str(event.reason)
    found = _CODE.search(reason)
    code = int(found.group()) if found else 0
    if not code and getattr(event, "due_post_only", False):
        code = int(Reject.POST_ONLY)
    return code if code in _CODES else 0, reason
