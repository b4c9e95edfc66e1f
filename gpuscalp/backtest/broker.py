"""The backtest's exchange: every order is an immediate-or-cancel taker order that arrives late.

Owns: orders on their way, and what becomes of them at the recorded book. Never: decides, or books money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

from gpuscalp.account import fee_e8, fee_rate_e8
from gpuscalp.backtest.liquidity import Liquidity, State
from gpuscalp.orders import Fill, Order
from gpuscalp.schema import NS_PER_MS, Instrument

# An order that has met no sound state for so long is cancelled: what a market without quotes would have done
# with it is anybody's guess.
MAX_WAIT_MS: Final = 5_000

Outcome = Literal["filled", "partial", "unfilled", "expired", "cancelled"]


@dataclass(frozen=True, slots=True)
class Execution:
    """All that became of one order.

    Attributes
    ----------
    fills : one per price level, best first
    cancelled_qty_e8 : the rest
    at_ns : exchange time of the state that was met, or of the cancellation
    """

    order: Order
    fills: tuple[Fill, ...]
    cancelled_qty_e8: int
    outcome: Outcome
    at_ns: int


@final
class TakerBroker:
    """Executes taker orders against recorded liquidity.

    Call :meth:`advance` with times that do not decrease; it answers every order exactly once.

    Parameters
    ----------
    instruments, liquidity : S each
    taker_fee_bps : charged on the notional of every fill
    """

    def __init__(
        self, instruments: Sequence[Instrument], liquidity: Sequence[Liquidity], *, taker_fee_bps: float
    ) -> None:
        self._steps_e8 = [instrument.step_size_e8 for instrument in instruments]
        self._liquidity = liquidity
        self._rate_e8 = fee_rate_e8(taker_fee_bps)
        self._waiting: list[tuple[int, Order]] = []

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    def submit(self, order: Order, arrival_ns: int) -> None:
        """Take an order that reaches the exchange at ``arrival_ns``."""
        self._waiting.append((arrival_ns, order))

    def advance(self, until_ns: int) -> list[Execution]:
        """Return what happened up to and including ``until_ns``, in the order in which it happened."""
        if not self._waiting:
            return []
        done: list[Execution] = []
        # First come, first served: liquidity is taken in the order of arrival.
        self._waiting.sort(key=lambda entry: (entry[0], entry[1].order_id))
        waiting = []
        for arrival_ns, order in self._waiting:
            give_up_ns = arrival_ns + MAX_WAIT_MS * NS_PER_MS
            state = self._liquidity[order.symbol_index].meet(arrival_ns, order.side)
            if state is not None and state.exch_ns <= min(until_ns, give_up_ns):
                done.append(self._execute(order, state, state.exch_ns))
            elif give_up_ns <= until_ns:
                done.append(Execution(order, (), order.qty_e8, "expired", give_up_ns))
            else:
                waiting.append((arrival_ns, order))
        self._waiting = waiting
        return sorted(done, key=lambda execution: execution.at_ns)

    def cancel_all(self, at_ns: int) -> list[Execution]:
        """Cancel what is still on its way."""
        cancelled = [Execution(order, (), order.qty_e8, "cancelled", at_ns) for _, order in self._waiting]
        self._waiting = []
        return cancelled

    def close_at(self, order: Order, at_ns: int) -> Execution:
        """Execute an order at the last state known at ``at_ns``, without latency: for the end of the data."""
        state = self._liquidity[order.symbol_index].last(at_ns, order.side)
        if state is None:
            return Execution(order, (), order.qty_e8, "unfilled", at_ns)
        return self._execute(order, state, at_ns)

    def _execute(self, order: Order, state: State, at_ns: int) -> Execution:
        taken = self._liquidity[order.symbol_index].take(
            state, order.qty_e8, self._steps_e8[order.symbol_index]
        )
        fills = tuple(
            Fill(
                order_id=order.order_id,
                symbol_index=order.symbol_index,
                side=order.side,
                qty_e8=qty,
                price_e8=price,
                fee_e8=fee_e8(price, qty, self._rate_e8),
                exec_ns=at_ns,
                mid2_e8=state.mid2_e8,
            )
            for price, qty in taken
        )
        rest = order.qty_e8 - sum(fill.qty_e8 for fill in fills)
        outcome: Outcome = "filled" if rest == 0 else "partial" if fills else "unfilled"
        return Execution(order, fills, rest, outcome, at_ns)
