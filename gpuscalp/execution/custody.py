"""The money at the paper exchange: account, marks, margin, funding due.

Owns: what fills and funding do to the account, what an order may cost, when the account is liquidated.
Never: orders' lives, queues.
"""

from __future__ import annotations

from typing import Final, final

from gpuscalp.account import Account, fee_e8, fee_rate_e8
from gpuscalp.config import CostConfig
from gpuscalp.execution.margin import initial_e8, is_liquidated

NEVER: Final = 1 << 62
# Between two fundings of a symbol (Binance USD-M, GET /fapi/v1/fundingInfo): 8 hours unless it says fewer.
USUAL_INTERVAL_NS: Final = 8 * 3_600 * 10**9
SHORTEST_INTERVAL_NS: Final = 3_600 * 10**9
# The venue sends a mark price every one to three seconds: after a minute without one it is known no more.
MARK_AGE_MAX_NS: Final = 60 * 10**9


@final
class Custody:
    """One account over S symbols.

    Parameters
    ----------
    start_e8 : wallet at the start
    symbol_count : S
    cost : fees
    leverage : of all symbols
    liquidation_fee_bps : paid on what the exchange closes

    Attributes
    ----------
    mark_e8 : list of S prices that value positions: the mark, or what stands in while none is known; 0 = none
    funding_due_ns : when the next funding of any symbol is due
    """

    def __init__(
        self,
        start_e8: int,
        symbol_count: int,
        *,
        cost: CostConfig,
        leverage: int,
        liquidation_fee_bps: float,
    ) -> None:
        self.account = Account(start_e8, symbol_count)
        self.mark_e8 = [0] * symbol_count
        self._told_e8 = [0] * symbol_count  # the last mark
        self._told_ns = [-NEVER] * symbol_count
        self._leverage = leverage
        self._maker_e8 = fee_rate_e8(cost.maker_fee_bps)
        self._taker_e8 = fee_rate_e8(cost.taker_fee_bps)
        self._liquidation_e8 = fee_rate_e8(liquidation_fee_bps)
        self.funding_due_ns = NEVER
        self._due_ns = [NEVER] * symbol_count
        self._rate_e8 = [0] * symbol_count
        self._settled_ns = [-1] * symbol_count
        self._interval_ns = [0] * symbol_count  # 0 = not known
        # What the next funding takes for granted; "" where it was announced.
        self._unsaid = [""] * symbol_count

    def known_mark_e8(self, symbol_index: int, now_ns: int) -> int:
        """Return the mark price; 0 before the first, and where none has come for ``MARK_AGE_MAX_NS``."""
        fresh = now_ns - self._told_ns[symbol_index] <= MARK_AGE_MAX_NS
        return self._told_e8[symbol_index] if fresh else 0

    def stand_in(self, symbol_index: int, now_ns: int, price_e8: int) -> None:
        """Value a symbol at another price, the mid, while its mark is not known."""
        if not self.known_mark_e8(symbol_index, now_ns):
            self.mark_e8[symbol_index] = price_e8

    def unmarked(self, now_ns: int) -> list[int]:
        """Return the symbols that are held and whose mark price is not known."""
        held = (index for index, position in enumerate(self.account.positions) if position.qty_e8)
        return [index for index in held if not self.known_mark_e8(index, now_ns)]

    def held_e8(self, symbol_index: int) -> int:
        return self.account.positions[symbol_index].qty_e8

    def fee_e8(self, price_e8: int, qty_e8: int, *, maker: bool, liquidation: bool = False) -> int:
        """Return the fee of a fill."""
        rate = self._liquidation_e8 if liquidation else self._maker_e8 if maker else self._taker_e8
        return fee_e8(price_e8, qty_e8, rate)

    def announce(
        self, symbol_index: int, at_ns: int, mark_e8: int, rate_e8: int | None, next_funding_ns: int
    ) -> None:
        """Take a mark message; the rate that counts is the last one announced before its time."""
        self.mark_e8[symbol_index] = self._told_e8[symbol_index] = mark_e8
        self._told_ns[symbol_index] = at_ns
        settled_ns = self._settled_ns[symbol_index]
        if rate_e8 is None or next_funding_ns <= max(settled_ns, at_ns):
            return
        if interval_ns := shown_interval_ns(settled_ns, at_ns, next_funding_ns):
            self._interval_ns[symbol_index] = interval_ns
        self._rate_e8[symbol_index] = rate_e8
        self._due_ns[symbol_index] = next_funding_ns
        self._unsaid[symbol_index] = ""
        self.funding_due_ns = min(self._due_ns)

    def due_ns(self, symbol_index: int) -> int:
        """Return when the next funding of one symbol is due."""
        return self._due_ns[symbol_index]

    def next_due(self) -> int:
        """Return the symbol whose funding is due first."""
        return self._due_ns.index(self.funding_due_ns)

    def settle(self, symbol_index: int) -> tuple[int, str]:
        """Exchange the funding of one symbol that is due.

        The next one is due an interval later, at the same rate, unless a mark message says otherwise before:
        the exchange goes on charging while nobody hears of it.

        Returns
        -------
        What was received, and what was taken for granted; "" where the funding had been announced.
        """
        index, due_ns, unsaid = symbol_index, self._due_ns[symbol_index], self._unsaid[symbol_index]
        interval_ns = self._interval_ns[index]
        self._settled_ns[index] = due_ns
        self._due_ns[index] = due_ns + (interval_ns or USUAL_INTERVAL_NS)
        self._unsaid[index] = "not announced: the last rate" + ("" if interval_ns else ", every 8 hours")
        self.funding_due_ns = min(self._due_ns)
        return self.account.apply_funding(index, self._told_e8[index], self._rate_e8[index]), unsaid

    def affords(self, symbol_index: int, before_e8: int, after_e8: int, others: dict[int, int]) -> bool:
        """Whether the balance covers the initial margin once a symbol's exposure has grown.

        Parameters
        ----------
        before_e8, after_e8 : exposure of the symbol, a quantity, without and with the order
        others : exposures of the other symbols
        """
        if after_e8 <= before_e8:
            return True
        needed = initial_e8(after_e8, self.mark_e8[symbol_index], self._leverage)
        needed += sum(initial_e8(qty, self.mark_e8[index], self._leverage) for index, qty in others.items())
        return needed <= self.account.equity_e8(self.mark_e8)

    def is_liquidated(self) -> bool:
        return is_liquidated(self.account, self.mark_e8)


def shown_interval_ns(settled_ns: int, at_ns: int, next_ns: int) -> int:
    """Return the interval of funding that an announcement shows; 0 where it shows none.

    Parameters
    ----------
    settled_ns : the last funding; negative before the first
    at_ns, next_ns : time of the announcement, and of the funding that it names

    Notes
    -----
    Later than the shortest interval after a funding another one may have been missed.
    """
    soon = settled_ns >= 0 and at_ns - settled_ns < SHORTEST_INTERVAL_NS
    interval_ns = next_ns - settled_ns
    return interval_ns if soon and interval_ns >= SHORTEST_INTERVAL_NS else 0
