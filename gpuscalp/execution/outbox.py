"""Reports as the exchange sends them: one connection, so that none overtakes another.

Owns: when each report is known to us. Never: decides what happened.
"""

from __future__ import annotations

from typing import Final, final

from gpuscalp.execution.display import Display
from gpuscalp.execution.latency import Leg
from gpuscalp.execution.lifecycle import OrderEvent
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.execution.working import WorkingOrder
from gpuscalp.orders import Fill

_ENDS: Final = {
    OrderEvent.CANCEL: ReportKind.CANCELED,
    OrderEvent.EXPIRE: ReportKind.EXPIRED,
    OrderEvent.REJECT: ReportKind.REJECTED,
}


@final
class Outbox:
    """Collects reports until the broker hands them out.

    Parameters
    ----------
    back : the way from the exchange to us
    """

    def __init__(self, back: Leg) -> None:
        self._back = back
        self._known_ns = -1
        self._reports: list[Report] = []

    def flush(self) -> tuple[Report, ...]:
        """Return what has been added since the last call."""
        if not self._reports:
            return ()
        reports = tuple(self._reports)
        self._reports.clear()
        return reports

    def add(
        self,
        kind: ReportKind,
        at_ns: int,
        order: WorkingOrder | None = None,
        *,
        order_id: int = 0,
        symbol_index: int = -1,
        code: int = 0,
        reason: str = "",
        fill: Fill | None = None,
        maker: bool = False,
        money_e8: int = 0,
    ) -> None:
        """Add one report; an order, where there is one, gives its id, symbol, state and what is left."""
        self._known_ns = max(self._known_ns, at_ns + self._back.draw_ns())
        self._reports.append(
            Report(
                kind=kind,
                order_id=order_id if order is None else order.order_id,
                symbol_index=symbol_index if order is None else order.symbol_index,
                at_ns=at_ns,
                known_ns=self._known_ns,
                state=None if order is None else order.state,
                code=int(code),
                reason=reason,
                left_e8=0 if order is None else order.left_e8,
                fill=fill,
                maker=maker,
                money_e8=money_e8,
            )
        )

    def fill(self, order: WorkingOrder, fill: Fill, *, maker: bool, money_e8: int, liquidation: bool) -> None:
        """Add the report about an execution."""
        reason = "liquidation" if liquidation else ""
        kind = ReportKind.FILL
        self.add(kind, fill.exec_ns, order, fill=fill, maker=maker, money_e8=money_e8, reason=reason)

    def end(self, event: OrderEvent, at_ns: int, order: WorkingOrder, *, reason: str, code: int) -> None:
        """Add the report about the end of an order."""
        self.add(_ENDS[event], at_ns, order, reason=reason, code=code)


def execution(
    order: WorkingOrder,
    display: Display,
    price_e8: int,
    qty_e8: int,
    *,
    maker: bool,
    fee_e8: int,
    at_ns: int,
) -> Fill:
    """Return one execution of an order against a book as it is now."""
    hit, _ = display.best(-order.side)
    return Fill(
        order_id=order.order_id,
        symbol_index=order.symbol_index,
        side=order.side,
        qty_e8=qty_e8,
        price_e8=price_e8,
        fee_e8=fee_e8,
        exec_ns=at_ns,
        mid2_e8=display.mid2_e8,
        touch_e8=hit if hit and not maker else price_e8,
    )
