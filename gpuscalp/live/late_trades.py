"""Whether the trades of the market come in time for their frames.

Owns: the share of the last minute's, and the warning. A trade that comes after its frame has closed is left
out of it: some do, but where many do the features are other ones than those of the training, and nothing else
shows it. Never: part of what a journal repeats; it begins anew with the process.
"""

from __future__ import annotations

import logging
from typing import Any, Final, final

from gpuscalp.rolling import RollingSum
from gpuscalp.schema import NS_PER_S

_LOG: Final = logging.getLogger("gpuscalp.session")
_MINUTE: Final = {"bucket_ns": 5 * NS_PER_S, "buckets": 12}
# Below, a share says more about chance.
_TRADES_MIN: Final = 50
# By event time 0.5 % were late in the recordings of 2023 (gpuscalp.feeds.binance), by transaction time 58 %.
_SHARE_HIGH: Final = 0.05
# Above this a warning stands: a share about the limit would fill the log.
_SHARE_LOW: Final = 0.025


@final
class LateTrades:
    """The share of trades that come too late, over the last minute.

    Parameters
    ----------
    counts : trades so far, and those of them that were late
    """

    def __init__(self, counts: tuple[int, int]) -> None:
        self._counts = counts
        self._minute = RollingSum((2,), **_MINUTE)
        self._high = False

    def status(self, counts: tuple[int, int], now_ns: int) -> dict[str, Any]:
        """Return what a status says of them, as part of its key ``batches``; warn where they are many.

        Parameters
        ----------
        counts : as above, by now
        now_ns : exchange time
        """
        self._minute.add(now_ns, [now - before for now, before in zip(counts, self._counts, strict=True)])
        self._counts = counts
        trades, late = self._minute.total(now_ns).tolist()
        share = late / trades if trades >= _TRADES_MIN else None
        if share is None:
            self._high = False
        elif not self._high and share > _SHARE_HIGH:
            self._high = True
            _LOG.warning(
                "%.0f %% of the last minute's trades came after their frame had closed and are left out: "
                "features of volume and flow are not those of the training",
                100 * share,
            )
        elif self._high and share < _SHARE_LOW:
            self._high = False
            _LOG.info("trades come in time again")
        return {
            "trades": counts[0],
            "late_trades": counts[1],
            "late_trade_share": share,
            "late_trades_high": self._high,
        }
