"""What an event of NautilusTrader says of an order of ours, as a session hears it.

Owns: which words of it count. Never: believes what only the exchange can say, asks, or books.
"""

from __future__ import annotations

import re
from typing import Any, Final

from gpuscalp.execution.messages import ReportKind
from gpuscalp.execution.remote import Heard
from gpuscalp.nautilus.instruments import RAW_PER_E8
from gpuscalp.schema import E8

# Of Binance USD-M: a reduce-only order found nothing to reduce.
NOTHING_TO_REDUCE: Final = -2022
# Binance's body as the adapter words it, {'code': -2019, 'msg': …}. Not any number in a text: the page of a
# proxy in front of the exchange says nothing of an order, and has "iso-8859-1" in it.
_CODE: Final = re.compile(r"""['"]code['"]\s*:\s*(-\d{4})\b""")
# Binance's answers that say nothing of what became of an order (error codes of USD-M, November 2026).
_NO_ANSWER: Final = frozenset({-1000, -1001, -1006, -1007})
_MAKER: Final = 1
_BUY: Final = 1
_ENDS: Final = {"OrderCanceled": ReportKind.CANCELED, "OrderExpired": ReportKind.EXPIRED}
_REFUSALS: Final = frozenset({"OrderRejected", "OrderDenied"})


def heard_of(
    event: Any, number: int, symbol: int, *, now_ns: int, quote: str, cancelling: bool, filled_e8: int
) -> Heard | None:
    """Return what an event says of an order; None where only the exchange can say it.

    Parameters
    ----------
    event : an OrderEvent
    number, symbol : our id of its order, and the index of its symbol
    now_ns : exchange time
    quote : the currency of the balance
    cancelling : we have asked for the end of the order
    filled_e8 : what Nautilus counts as filled of it: of an end, not less was
    """
    name = type(event).__name__
    if name == "OrderAccepted":
        # That of a conditional order is the number of the condition, not of an order.
        return Heard(ReportKind.ACCEPTED, event.ts_event, now_ns, number, symbol)
    if name == "OrderFilled":
        return _fill(event, number, symbol, now_ns, quote)
    if name in _ENDS:
        kind = _ENDS[name] if cancelling else ReportKind.EXPIRED
        return Heard(kind, event.ts_event, now_ns, number, symbol, executed_e8=filled_e8)
    if name in _REFUSALS or name == "OrderCancelRejected":
        reason = str(event.reason)
        code = _code(reason)
        if name == "OrderRejected" and (not code or code in _NO_ANSWER):
            return None
        kind = ReportKind.REJECTED if name in _REFUSALS else ReportKind.CANCEL_REJECTED
        return Heard(kind, event.ts_event, now_ns, number, symbol, code=code, reason=reason[:200])
    return None


def _fill(event: Any, number: int, symbol: int, now_ns: int, quote: str) -> Heard | None:
    trade_id, fee = str(event.trade_id), event.commission
    asset = str(fee.currency)
    # So that its order ends, Nautilus tells of a fill without a number, a price or a quantity too. Written
    # down it could never be booked: the exchange has the trade as it was.
    if not trade_id.isdigit() or event.last_px.raw <= 0 or event.last_qty.raw <= 0:
        return None
    return Heard(
        ReportKind.FILL,
        event.ts_event,
        now_ns,
        number,
        symbol,
        venue_id=int(event.venue_order_id.value),
        trade_id=int(trade_id),
        side=1 if int(event.order_side) == _BUY else -1,
        qty_e8=int(event.last_qty.raw) // RAW_PER_E8,
        price_e8=int(event.last_px.raw) // RAW_PER_E8,
        # In another currency (BNB) it is none of this balance: a look sums it up, and alarms.
        fee_e8=int(fee.as_decimal() * E8) if asset == quote else 0,
        maker=int(event.liquidity_side) == _MAKER,
        reason="" if asset == quote else f"fee in {asset}",
    )


def _code(text: str) -> int:
    """Return Binance's error code in a text; 0 if there is none."""
    found = _CODE.search(text)
    return int(found.group(1)) if found else 0
