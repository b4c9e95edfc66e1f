"""Funding in a backtest of NautilusTrader, which has none of its own.

Owns: when funding is due and what it comes to. The rules are those of the paper broker
(``gpuscalp.execution.custody``): the rate and the mark price that were announced last before the time count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from gpuscalp.account import Account

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
        self._settled_ns = [0] * symbol_count
        self.announced: set[int] = set()

    def on_mark(
        self, symbol: int, exch_ns: int, mark_e8: int, rate_e8: int | None, next_ns: int, account: Account
    ) -> tuple[int, int] | None:
        """Take a mark price; return (time, amount received) of funding that it shows to be over.

        Parameters
        ----------
        account : whose positions receive it
        """
        paid = None
        due_ns = self._due_ns[symbol]
        if due_ns and exch_ns >= due_ns:
            money_e8 = account.funding_of_e8(symbol, self._mark_e8[symbol], self._rate_e8[symbol])
            self._due_ns[symbol], self._settled_ns[symbol] = 0, due_ns
            if money_e8:
                self._pay(money_e8)
                paid = due_ns, money_e8
        if mark_e8 > 0:
            self._mark_e8[symbol] = mark_e8
            if rate_e8 is not None and next_ns > max(exch_ns, self._settled_ns[symbol]):
                self._rate_e8[symbol], self._due_ns[symbol] = rate_e8, next_ns
                self.announced.add(symbol)
        return paid
