"""Prices that an archive could not read as ticks beside the others of their symbol.

Owns: the one rule. One damaged price, many times too large or with more decimals than there are, would make
ticks of which the others need more than 32 bits, and no part of the symbol could be read any more. Pure.
"""

from __future__ import annotations

import math
from typing import Final, final

from gpuscalp.errors import DecodeError
from gpuscalp.feeds.decimals import format_e8
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, MarkPrice, PartialBook, Ticker, Trade

_PX_MAX: Final = 2**31 - 1


@final
class PriceRange:
    """What the prices of one symbol have been so far. Call ``check`` with every message, in arrival order.

    The first ones are believed: of two that do not go together the later one is refused.

    Parameters
    ----------
    unit_e8 : what all prices of the archive are multiples of; 0 = there are none
    """

    __slots__ = ("_largest_e8", "_unit_e8")

    def __init__(self, unit_e8: int) -> None:
        self._unit_e8 = self._largest_e8 = unit_e8

    def check(self, message: Trade | Ticker | DepthUpdate | DepthSnapshot | PartialBook | MarkPrice) -> None:
        """Take the prices of one message; those of a mark are never ticks.

        Raises
        ------
        DecodeError
            with them the largest price would be more than 2^31 - 1 of the largest tick that fits all
        """
        if isinstance(message, Trade):
            prices = [message.price_e8]
        elif isinstance(message, Ticker):
            prices = [message.bid_price_e8, message.ask_price_e8]
        elif isinstance(message, MarkPrice):
            return
        else:
            prices = [price for price, _ in message.bids]
            prices += [price for price, _ in message.asks]
        unit, largest = math.gcd(self._unit_e8, *prices), max(self._largest_e8, *prices, 0)
        if largest > _PX_MAX * unit:
            raise DecodeError(
                "price does not fit in 32 bits of ticks beside those before it",
                value=f"{format_e8(largest)} in ticks of {format_e8(unit)}",
            )
        self._unit_e8, self._largest_e8 = unit, largest
