"""Which symbols bring prices that are no multiples of the tick size that the session has of them.

Owns: for how long a symbol is doubted, and saying it once. Such a row makes no tick, so of a symbol whose
tick size the venue has made finer the session sees next to nothing, and holds old prices for new. Never:
counts rows (``gpuscalp.feeds.ticks``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, final

from gpuscalp.schema import NS_PER_S, Instrument

_LOG: Final = logging.getLogger("gpuscalp.session")
# With a finer tick of the venue nine rows in ten are off ours, and come by the second. One that comes alone
# (of an order that is older than a coarser tick, for instance) must not close its symbol for ever.
_HOLD_NS: Final = 60 * NS_PER_S


@final
class OffTick:
    """Judges what the counters of rows off the tick say.

    Parameters
    ----------
    instruments : of the session, in the order of axis S
    counts : rows so far by symbol, of which nobody need hear any more
    """

    def __init__(self, instruments: Sequence[Instrument], counts: Sequence[int]) -> None:
        self._instruments = instruments
        self._counts = list(counts)
        self._since_ns: dict[int, int] = {}  # of the last one, monotonic
        self._told: set[int] = set()

    def judge(self, counts: Sequence[int], now_ns: int) -> tuple[int, ...]:
        """Return the indices of symbols of which a row was off the tick within the last minute.

        Parameters
        ----------
        counts : rows so far by symbol
        now_ns : monotonic clock
        """
        for index, count in enumerate(counts):
            if count != self._counts[index]:
                self._counts[index], self._since_ns[index] = count, now_ns
                self._tell(index)
        return tuple(sorted(index for index, at_ns in self._since_ns.items() if now_ns - at_ns < _HOLD_NS))

    def _tell(self, index: int) -> None:
        if index in self._told:
            return
        self._told.add(index)
        ours = self._instruments[index]
        _LOG.error(
            "%s: a price is no multiple of the tick size %.10g of this session: the venue has changed it."
            " Nothing is opened on the symbol while such prices come."
            " Begin a new session (docs/operations.md)",
            ours.symbol,
            ours.tick_size,
        )
