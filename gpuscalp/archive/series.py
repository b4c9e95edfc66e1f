"""Whole columns of one symbol and one table, as the reader hands them out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpuscalp.schema import F64, I32, I64

U16 = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class BookSeries:
    """Both sides in arrival order: of quotes the best level, of books the 20 best ones, best first.

    Attributes
    ----------
    recv_ns, exch_ns : int64[N]        receive and exchange time
    bid_px, ask_px : int32[N] of quotes, int32[N, 20] of books
        ticks of the instrument; 0 means: no such level
    bid_qty, ask_qty : float64 of the same shape, contracts
    quality : uint16[N]                Quality bits
    """

    recv_ns: I64
    exch_ns: I64
    bid_px: I32
    ask_px: I32
    bid_qty: F64
    ask_qty: F64
    quality: U16

    def __len__(self) -> int:
        return len(self.recv_ns)
