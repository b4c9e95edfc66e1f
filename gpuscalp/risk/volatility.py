"""How far and how wildly mids move: the jump from frame to frame and two averages of squared moves.

Owns: the estimates of S symbols. Never: compares them with a limit.

Both averages are exponential with the weights made by division alone, so that a replay on another machine has
the same bits: over a frame of length d an old sum keeps ``τ / (τ + d)`` of itself (the implicit Euler step of
the exponential filter with time constant τ). The estimate is Σ move² / Σ d, both sums with the same weights:
unbiased from the first move on, whatever the lengths of the frames.
"""

from __future__ import annotations

from typing import final

import numpy as np

from gpuscalp.ops.moves import take_moves
from gpuscalp.schema import F64, I32, I64


@final
class Volatility:
    """Moves of the mids of S symbols.

    Call :meth:`observe` once per frame, in order.

    Parameters
    ----------
    symbol_count : S
    short_ms, long_ms : memories of the two averages

    Attributes
    ----------
    jump_bps : float64[S]   |move| of the mid since the quote of the last frame that had one; NaN where there
        was none before, or is none now
    short_bps : float64[S]  standard deviation over the short horizon; NaN before the first move
    """

    def __init__(self, symbol_count: int, *, short_ms: int, long_ms: int) -> None:
        # The short average and the long one: weighted sums of squared moves (bps²) and of time (s).
        self._memory_s = np.array([short_ms, long_ms]) / 1e3
        self._squares = np.zeros((2, symbol_count))
        self._seconds = np.zeros((2, symbol_count))
        self._mid2 = np.zeros(symbol_count)
        self._at_ns: I64 = np.zeros(symbol_count, np.int64)
        self.jump_bps: F64 = np.full(symbol_count, np.nan)
        self.short_bps: F64 = np.full(symbol_count, np.nan)

    def observe(self, end_ns: int, bid_px: I32, ask_px: I32) -> None:
        """Take in the quotes at the end of one frame.

        Parameters
        ----------
        bid_px, ask_px : int32[S]  ticks; 0 where there is no quote
        """
        take_moves(
            end_ns,
            bid_px,
            ask_px,
            self._mid2,
            self._at_ns,
            self._memory_s,
            self._squares,
            self._seconds,
            self.jump_bps,
            self.short_bps,
        )

    def over_bps(self, symbol_index: int, horizon_ms: float) -> float:
        """Return the standard deviation over a horizon by the long average; NaN before the first move."""
        seconds = float(self._seconds[1, symbol_index])
        if not seconds > 0:
            return float("nan")
        rate = float(self._squares[1, symbol_index]) / seconds
        return float(np.sqrt(rate * horizon_ms / 1e3))
