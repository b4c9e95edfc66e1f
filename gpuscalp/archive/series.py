"""Whole columns of one symbol and one table, as the reader hands them out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpuscalp.schema import F64, I32, I64

U16 = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class QuoteSeries:
    """Best bid and ask in arrival order.

    Attributes
    ----------
    recv_ns, exch_ns : int64[N]      receive and exchange time
    bid_px, ask_px : int32[N]        ticks of the instrument
    bid_qty, ask_qty : float64[N]    contracts
    quality : uint16[N]              Quality bits
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


@dataclass(frozen=True, slots=True)
class BookSeries:
    """The 20 best levels of both sides in arrival order, best first. A price of 0 means: no such level.

    Attributes
    ----------
    recv_ns, exch_ns : int64[N]
    bid_px, ask_px : int32[N, 20]      ticks of the instrument
    bid_qty, ask_qty : float64[N, 20]  contracts
    quality : uint16[N]
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


@dataclass(frozen=True, slots=True)
class MarkSeries:
    """Mark price, index price and funding in arrival order.

    Attributes
    ----------
    recv_ns, exch_ns : int64[N]
    mark, index : float64[N]         quote currency; NaN = unknown
    funding_rate : float64[N]        of the running funding interval, as a fraction
    next_funding_ns : int64[N]       0 = unknown
    quality : uint16[N]
    """

    recv_ns: I64
    exch_ns: I64
    mark: F64
    index: F64
    funding_rate: F64
    next_funding_ns: I64
    quality: U16

    def __len__(self) -> int:
        return len(self.recv_ns)
