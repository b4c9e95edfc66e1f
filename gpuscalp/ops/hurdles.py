"""One frame of the strategy's hurdles, symbol by symbol. See ``gpuscalp.strategy``.

Comparisons and a few operations a symbol, on the host only: it has no CUDA twin. As array operations of NumPy
they took more time than all that follows them at a frame at which nothing is wanted.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from gpuscalp.ops._numba import jit
from gpuscalp.schema import F64, I32, I64

# What stops a symbol, in the order in which it is tried; CLEARED is what remains, ELAPSED and OPPOSITE are
# reasons to leave what is held.
NO_QUOTE, ORDER_OPEN, HOLDING, NO_SIGNAL, LOW_CONFIDENCE, LOW_AGREEMENT, LOW_EDGE, CLEARED = range(8)
ELAPSED, OPPOSITE = 8, 9
# Columns of the probabilities.
DOWN: Final = 0
UP: Final = 2


@jit
def try_hurdles(
    end_ns: int,
    bid_px: I32,
    ask_px: I32,
    probability: F64,
    agreement: F64,
    edge_bps: F64,
    side: I64,
    waiting: npt.NDArray[np.bool_],
    decided_ns: I64,
    rests_e8: I64,
    hold_ns: int,
    limits: F64,
    confidence: F64,
    cost_bps: F64,
    found: I64,
) -> bool:
    """Find where each symbol stops.

    Parameters
    ----------
    bid_px, ask_px, probability, agreement, edge_bps : of ``MarketRow`` and ``SignalRow``
    side, waiting, decided_ns, rests_e8 : of ``Holdings``; int64[0] where no entry has a rest
    limits : float64[4]  least confidence, agreement, edge after costs; fees of a round trip, bps
    confidence, cost_bps : float64[S]  written; of the side that the edge is on, and of a round trip
    found : int64[S]     written

    Returns
    -------
    bool : whether anything is wanted: CLEARED, ELAPSED or OPPOSITE occurs
    """
    some = False
    for s in range(len(edge_bps)):
        edge, bid, ask = edge_bps[s], np.float64(bid_px[s]), np.float64(ask_px[s])
        quoted = bid > 0 and ask > 0
        confidence[s] = probability[s, UP] if edge > 0 else probability[s, DOWN]
        cost_bps[s] = limits[3] + 2e4 * (ask - bid) / (ask + bid)
        known = np.isfinite(edge) and np.isfinite(confidence[s]) and np.isfinite(agreement[s]) and edge != 0
        confident = known and confidence[s] >= limits[0]
        agreed = confident and agreement[s] >= limits[1]
        elapsed = end_ns - decided_ns[s] >= hold_ns
        held = side[s] != 0
        if held and not elapsed and len(rests_e8):
            # More of a position is an entry, and has to clear what an entry has to.
            held = not ((edge > 0 and rests_e8[s] > 0) or (edge < 0 and rests_e8[s] < 0))
        # What is held is let go of without a quote too: a market order needs none.
        if not (quoted or held):
            found[s] = NO_QUOTE
        elif waiting[s]:
            found[s] = ORDER_OPEN
        elif held:
            opposite = agreed and ((edge > 0 and side[s] < 0) or (edge < 0 and side[s] > 0))
            found[s] = ELAPSED if elapsed else OPPOSITE if opposite else HOLDING
        elif not known:
            found[s] = NO_SIGNAL
        elif not confident:
            found[s] = LOW_CONFIDENCE
        elif not agreed:
            found[s] = LOW_AGREEMENT
        elif not abs(edge) - cost_bps[s] > limits[2]:
            found[s] = LOW_EDGE
        else:
            found[s] = CLEARED
        some = some or found[s] >= CLEARED
    return some
