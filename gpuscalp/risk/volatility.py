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

from gpuscalp.schema import F64, I32, I64, NS_PER_S


@final
class _Average:
    """Weighted sums of squared moves (bps²) and of time (s)."""

    def __init__(self, symbol_count: int, memory_ms: int) -> None:
        self.memory_s = memory_ms / 1e3
        self.squares = np.zeros(symbol_count)
        self.seconds = np.zeros(symbol_count)

    def add(self, squares: F64, seconds: F64) -> None:
        keep = self.memory_s / (self.memory_s + seconds)
        self.squares *= keep
        self.squares += squares
        self.seconds *= keep
        self.seconds += seconds

    def over(self, horizon_s: float) -> F64:
        with np.errstate(invalid="ignore"):
            rate: F64 = self.squares / self.seconds
        rate *= horizon_s
        return np.sqrt(rate, out=rate)


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
        self._short = _Average(symbol_count, short_ms)
        self._long = _Average(symbol_count, long_ms)
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
        quoted = (bid_px > 0) & (ask_px > 0)
        # As float64: the sum of two int32 prices may not fit.
        mid2 = np.add(bid_px, ask_px, dtype=np.float64)
        before = self._mid2
        with np.errstate(divide="ignore", invalid="ignore"):
            move = 1e4 * (mid2 - before) / before
        # A frame that does not come later, from a source that repeats itself, moves nothing.
        known = quoted & (before > 0) & (self._at_ns < end_ns)
        move[~known] = np.nan
        seconds = np.where(known, (end_ns - self._at_ns) / NS_PER_S, 0.0)
        self.jump_bps = np.abs(move)
        squares = np.where(known, move * move, 0.0)
        self._short.add(squares, seconds)
        self._long.add(squares, seconds)
        self.short_bps = self._short.over(self._short.memory_s)
        np.copyto(before, mid2, where=quoted)
        np.copyto(self._at_ns, end_ns, where=quoted)

    def over_bps(self, symbol_index: int, horizon_ms: float) -> float:
        """Return the standard deviation over a horizon by the long average; NaN before the first move."""
        seconds = float(self._long.seconds[symbol_index])
        if not seconds > 0:
            return float("nan")
        rate = float(self._long.squares[symbol_index]) / seconds
        return float(np.sqrt(rate * horizon_ms / 1e3))
