"""What the planted leaks are made from: the mid of one symbol on the grid, as any notebook would have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, final

import numpy as np
import numpy.typing as npt

from gpuscalp.config import GridConfig
from gpuscalp.frames import Framer, Grid
from gpuscalp.schema import I64, Channel, Instrument, TickKind, Ticks

F64 = npt.NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Series:
    """T frames of symbol 0; a value of frame t is known at ``end_ns[t]``.

    Attributes
    ----------
    end_ns : int64[T]
    mid : float64[T]              ticks
    traded : float64[T]           mid of the frames in which there was a trade, else NaN
    quote_ns, quote_mid : int64[N], float64[N]   every quote in the order of arrival
    """

    end_ns: I64
    mid: F64
    traded: F64
    quote_ns: I64
    quote_mid: F64

    @property
    def moves(self) -> F64:
        """float64[T]: change of the mid from the frame before; 0 in the first."""
        return np.diff(self.mid, prepend=self.mid[:1])


@final
class Remembered(Generic[T]):
    """A function of ticks that keeps its last answer, because many probes are given the same ticks.

    Nobody may change the ticks in place meanwhile, nor the answer.
    """

    def __init__(self, make: Callable[[Ticks], T]) -> None:
        self._make = make
        self._last: tuple[Ticks, T] | None = None

    def __call__(self, ticks: Ticks) -> T:
        if self._last is None or self._last[0] is not ticks:
            self._last = None  # not two answers in memory
            self._last = ticks, self._make(ticks)
        return self._last[1]


@final
class SeriesMaker:
    """Makes the series of ticks; remembers the last."""

    def __init__(self, grid: GridConfig, instruments: tuple[Instrument, ...]) -> None:
        self._grid = grid
        self._instruments = instruments
        self._of = Remembered(self._make)

    def __call__(self, ticks: Ticks) -> Series:
        return self._of(ticks)

    def _make(self, ticks: Ticks) -> Series:
        grid = Grid(self._grid, len(self._instruments))
        framer = Framer(self._grid, self._instruments, warm_up_frames=1)
        # A restart would leave holes in the series; the last quote stands until the next one instead.
        blocks = [framer.fold(closed) for closed in grid.push(ticks)]
        quotes = ticks[(ticks["kind"] == TickKind.QUOTE) & (ticks["symbol"] == 0)]
        quote_mid = (quotes["px0"].astype(np.float64) + quotes["px1"]) / 2.0
        if not blocks:
            empty = np.empty(0)
            return Series(np.empty(0, np.int64), empty, empty, quotes["exch_ns"].copy(), quote_mid)
        mid = np.concatenate(
            [(block.bid_px[:, 0].astype(np.float64) + block.ask_px[:, 0]) / 2 for block in blocks]
        )
        count = np.concatenate([block.channels[:, Channel.TRADE_COUNT, 0] for block in blocks])
        return Series(
            np.concatenate([block.end_ns for block in blocks]),
            mid,
            np.where(count > 0, mid, np.nan),
            quotes["exch_ns"].copy(),
            quote_mid,
        )
