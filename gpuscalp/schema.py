"""Row layouts and vocabularies that every part shares. Behaviour: naming, places of decimals, and cutting
and joining frames.

Owns: the packed tick, the tick kinds, the quality bits, the channels of a frame, an instrument.
Never: reads files, knows a device, or computes a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import lru_cache
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
NS_PER_DAY: Final = 86_400 * NS_PER_S

# Decimal prices and quantities are exact int64 multiples of 1e-8 wherever they are stored.
E8: Final = 100_000_000

BOOK_LEVELS: Final = 20


class TickKind(IntEnum):
    """What a tick says. The payload fields mean, by kind:

    ====== ============ ============ ============ ============ ============ =================
    kind   px0          px1          q0           q1           q2           q3
    ====== ============ ============ ============ ============ ============ =================
    TRADE  price        —            quantity     —            —            —
    QUOTE  best bid     best ask     bid quantity ask quantity —            —
    BOOK   best bid     best ask     bid, 5 lvls  ask, 5 lvls  bid, 20 lvls ask, 20 lvls
    MARK   —            —            mark price   index price  funding rate next funding, ms
    CLOCK  —            —            —            —            —            —
    ====== ============ ============ ============ ============ ============ =================

    Prices (px) are in ticks of the instrument; quantities in contracts; mark and index price in quote
    currency. BOOK sums run from the best level outwards, in float64. A CLOCK tick belongs to no symbol
    (``symbol = -1``): its ``exch_ns`` is the corrected wall clock, and it only moves the watermark.
    """

    TRADE = 0
    QUOTE = 1
    BOOK = 2
    MARK = 3
    CLOCK = 4


class Quality(IntFlag):
    """Doubts about a row. The same bits keep a row out of training and stop live from opening on it."""

    GAP = 1 << 0  # messages are known to be missing since the last good state
    RESYNC = 1 << 1  # the book is being rebuilt
    STALE = 1 << 2  # no quote for longer than grid.stale_ms
    CROSSED = 1 << 3  # best bid >= best ask
    LATE = 1 << 4  # ticks for an already closed frame were dropped
    CLOCK_DRIFT = 1 << 5  # the clock offset is outside its band
    WARM_UP = 1 << 6  # fewer frames seen than the longest window needs
    FALLBACK = 1 << 7  # computed by another device than the one asked for; never set
    OUTLIER = 1 << 8  # unlike everything that the model was trained on (gpuscalp.drift.guard)


TICK: Final = np.dtype(
    [
        ("exch_ns", np.int64),
        ("recv_ns", np.int64),
        ("px0", np.int32),
        ("px1", np.int32),
        ("q0", np.float64),
        ("q1", np.float64),
        ("q2", np.float64),
        ("q3", np.float64),
        ("symbol", np.int32),
        ("kind", np.uint8),
        ("side", np.int8),  # TRADE: +1 the taker bought, -1 the taker sold; else 0
        ("quality", np.uint16),
    ]
)
assert TICK.itemsize == 64, "a tick is one cache line, on the host and on the device"

Ticks = npt.NDArray[np.void]  # TICK[N]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]


class Channel(IntEnum):
    """The numbers of a frame, in the order of axis C. kUSDT: thousands of the quote currency.

    While a symbol is not quoted on both sides all of its channels are NaN. An empty frame repeats the last
    quote, has zero flow, and ages.
    """

    MICROPRICE_BPS = 0
    SPREAD_BPS = 1
    RETURN_BPS = 2
    TRADE_COUNT = 3
    BUY_KUSDT = 4
    SELL_KUSDT = 5
    VWAP_FLOW = 6
    OFI_KUSDT = 7
    QUEUE_IMBALANCE = 8
    DEPTH5_IMBALANCE = 9
    DEPTH20_IMBALANCE = 10
    VARIANCE_BPS2 = 11
    RANGE_BPS = 12
    QUOTE_COUNT = 13
    LARGEST_KUSDT = 14
    BASIS_BPS = 15
    AGE_MS = 16
    LAGGED_RETURN_BPS = 17
    FLOW_KUSDT = 18


@dataclass(frozen=True, slots=True)
class Instrument:
    """What the venue says about one symbol. Decimal quantities are int64 multiples of 1e-8.

    ``tick_size_e8`` from ``source = "observed"`` is the greatest common divisor of the prices seen: a
    valid unit for arithmetic, but possibly a multiple of the venue's true tick. ``max_market_qty_e8`` is the
    largest quantity of one market order; 0 = not known.
    """

    symbol: str
    venue: str
    tick_size_e8: int
    step_size_e8: int
    min_qty_e8: int
    min_notional_e8: int
    source: str  # "exchange_info" | "observed" | "synthetic"
    max_market_qty_e8: int = 0

    def at_market_e8(self, qty_e8: int) -> int:
        """Return how much of a quantity one market order can have."""
        return min(qty_e8, self.max_market_qty_e8 or qty_e8)

    @property
    def tick_size(self) -> float:
        return self.tick_size_e8 / E8

    @property
    def step_size(self) -> float:
        return self.step_size_e8 / E8


@dataclass(frozen=True, slots=True)
class FrameBlock:
    """T consecutive closed frames of S symbols. Symbols are innermost: coalesced on a GPU, SIMD on a CPU.

    Attributes
    ----------
    end_ns : int64[T]            end of each frame, exchange time
    channels : float32[T, C, S]  see Channel; NaN until the symbol has been quoted
    quality : uint32[T, S]       Quality bits
    bid_px, ask_px : int32[T, S] last quote in ticks; 0 until the symbol has been quoted
    mark : float64[T, S]         last mark price, quote currency; NaN until there is one
    """

    end_ns: I64
    channels: F32
    quality: U32
    bid_px: I32
    ask_px: I32
    mark: F64

    def __len__(self) -> int:
        return len(self.end_ns)

    @property
    def arrays(self) -> list[Any]:
        """The arrays, in the order of the attributes."""
        return [getattr(self, name) for name in FrameBlock.__slots__]

    def part(self, first: int, last: int | None = None) -> FrameBlock:
        """Return the frames from ``first`` to ``last`` (not included; None = the end), in the same memory."""
        return FrameBlock(*(values[first:last] for values in self.arrays))

    def copied(self) -> FrameBlock:
        """Return the same frames in memory of their own."""
        return FrameBlock(*(values.copy() for values in self.arrays))


@lru_cache(maxsize=1 << 10)
def decimal_places(unit_e8: int) -> int:
    """Return how many decimal places a multiple of a unit may have."""
    places = 8
    while places and unit_e8 % 10 == 0:
        unit_e8 //= 10
        places -= 1
    return places


def joined(blocks: Sequence[FrameBlock], xp: ModuleType = np) -> FrameBlock:
    """Return consecutive blocks, one at least, as one; ``xp`` is the module of their arrays.

    A single block is returned as it is.
    """
    if len(blocks) == 1:
        return blocks[0]
    columns = zip(*(block.arrays for block in blocks), strict=True)
    return FrameBlock(*(xp.concatenate(parts) for parts in columns))


@dataclass(frozen=True, slots=True)
class FeatureChunk:
    """Features of T consecutive frames, symbol by symbol, as the batch mode makes them.

    ``features[s].T`` is the [T, F] matrix of one symbol. ``frames`` holds the same T frames (axis T first).

    Attributes
    ----------
    frames : FrameBlock
    features : float32[S, F, T]  NaN = not warm yet, or not observed
    """

    frames: FrameBlock
    features: F32
