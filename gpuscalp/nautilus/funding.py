"""Funding in a backtest of NautilusTrader, which has none of its own.

Owns: when funding is due and what it comes to. The rules are those of the paper broker
(``gpuscalp.execution.custody``): the rate and the mark price that were announced last before the time count,
and what the market does not tell of goes on at the known interval. Of several that a mark price shows to be
over at once, each is on the position that is held then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from gpuscalp.account import Account
from gpuscalp.execution.custody import USUAL_INTERVAL_NS, shown_interval_ns

# Receives what an account receives (negative: pays), in 1e-8 of its currency.
Pay = Callable[[int], None]


@final
class Funding:
    """Announcements of S symbols.

    Parameters
    ----------
    symbol_count : S
    pay : moves the money in Nautilus's account

    Attributes
    ----------
    announced : symbols of which a time and a rate are known, or were
    """

    def __init__(self, symbol_count: int, pay: Pay) -> None:
        self._pay = pay
        self._mark_e8 = [0] * symbol_count
        self._rate_e8 = [0] * symbol_count
        self._due_ns = [0] * symbol_count
        self._settled_ns = [-1] * symbol_count
        self._interval_ns = [USUAL_INTERVAL_NS] * symbol_count
        self.announced: set[int] = set()

    def on_mark(
        self, symbol: int, exch_ns: int, mark_e8: int, rate_e8: int | None, next_ns: int, account: Account
    ) -> list[tuple[int, int]]:
        """Take a mark price; return (time, amount received) of each funding that it shows to be over.

        Parameters
        ----------
        account : whose positions receive it
        """
        paid = []
        while 0 < self._due_ns[symbol] <= exch_ns:
            due_ns = self._due_ns[symbol]
            money_e8 = account.funding_of_e8(symbol, self._mark_e8[symbol], self._rate_e8[symbol])
            self._settled_ns[symbol] = due_ns
            self._due_ns[symbol] = due_ns + self._interval_ns[symbol]
            if money_e8:
                self._pay(money_e8)
                paid.append((due_ns, money_e8))
        if mark_e8 > 0:
            self._mark_e8[symbol] = mark_e8
            settled_ns = self._settled_ns[symbol]
            if rate_e8 is not None and next_ns > max(exch_ns, settled_ns):
                interval_ns = shown_interval_ns(settled_ns, exch_ns, next_ns)
                self._interval_ns[symbol] = interval_ns or self._interval_ns[symbol]
                self._rate_e8[symbol], self._due_ns[symbol] = rate_e8, next_ns
                self.announced.add(symbol)
        return paid
