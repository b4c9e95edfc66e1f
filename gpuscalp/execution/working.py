"""An order as the exchange keeps it.

Owns: quantities and state of one order; the only way to change the state is the table of lifecycle.
Never: matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from gpuscalp.execution.lifecycle import OPEN, OrderEvent, OrderState, next_state
from gpuscalp.execution.messages import OrderKind, OrderRequest, TimeInForce


@final
@dataclass(slots=True, eq=False)
class WorkingOrder:
    """Mutable, compared by identity. Prices and quantities in 1e-8.

    Attributes
    ----------
    kind : a stop that has gone off is a market order
    price_e8 : limit; 0 for a market order
    trigger_e8 : of a stop
    arrived : whether the exchange knows of it
    """

    order_id: int
    symbol_index: int
    side: int
    qty_e8: int
    price_e8: int
    kind: OrderKind
    time_in_force: TimeInForce
    reduce_only: bool
    trigger_e8: int = 0
    filled_e8: int = 0
    arrived: bool = False
    state: OrderState = OrderState.NEW

    @classmethod
    def of(cls, request: OrderRequest) -> WorkingOrder:
        return cls(
            order_id=request.order_id,
            symbol_index=request.symbol_index,
            side=request.side,
            qty_e8=request.qty_e8,
            price_e8=request.price_e8 if request.kind is OrderKind.LIMIT else 0,
            kind=request.kind,
            time_in_force=request.time_in_force if request.kind is OrderKind.LIMIT else TimeInForce.IOC,
            reduce_only=request.reduce_only,
            trigger_e8=request.price_e8 if request.kind is OrderKind.STOP_MARKET else 0,
        )

    @property
    def left_e8(self) -> int:
        return self.qty_e8 - self.filled_e8

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    def happen(self, event: OrderEvent) -> None:
        """Go where the table leads."""
        self.state = next_state(self.state, event, order_id=self.order_id)

    def fill(self, qty_e8: int) -> None:
        """Count an execution."""
        assert 0 < qty_e8 <= self.left_e8
        self.happen(OrderEvent.FILL_REST if qty_e8 == self.left_e8 else OrderEvent.FILL_PART)
        self.filled_e8 += qty_e8
