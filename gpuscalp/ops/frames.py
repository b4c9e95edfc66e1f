"""Ticks to frames on the CPU. Twin: cuda_frames; kernel: kernels/frames.cu.

Sums are float64 in event order; prices stay integers until a difference is taken; every channel is scaled
and rounded to float32 once, at the close of its frame. Only correctly rounded operations appear.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.schema import F32, F64, I32, I64, U32, Channel, Quality, TickKind, Ticks

CHANNEL_COUNT = len(Channel)

_TRADE = int(TickKind.TRADE)
_QUOTE = int(TickKind.QUOTE)
_BOOK = int(TickKind.BOOK)
_MARK = int(TickKind.MARK)
_STALE = int(Quality.STALE)
_CROSSED = int(Quality.CROSSED)
_WARM_UP = int(Quality.WARM_UP)
# Doubts that hold from one book to the next: a book that says nothing new is no sounder for it.
_LASTING = int(Quality.GAP | Quality.RESYNC)

(
    _MICROPRICE,
    _SPREAD,
    _RETURN,
    _TRADE_COUNT,
    _BUY,
    _SELL,
    _VWAP_FLOW,
    _OFI,
    _QUEUE,
    _DEPTH5,
    _DEPTH20,
    _VARIANCE,
    _RANGE,
    _QUOTE_COUNT,
    _LARGEST,
    _BASIS,
    _AGE,
    _LAGGED_RETURN,
    _FLOW,
) = range(CHANNEL_COUNT)


class FrameState(NamedTuple):
    """What one symbol remembers from frame to frame. Plain arrays, so that a checkpoint is a copy.

    integers : int64[6, S]  bid and ask (ticks), twice the mid of the last close, time of the last quote
                            (exchange ns), frames closed since the first quote, GAP and RESYNC of the last
                            book
    reals : float64[8, S]   bid and ask quantity, depth sums (bid 5, ask 5, bid 20, ask 20), mark price,
                            last return (bps); NaN until known
    """

    integers: I64
    reals: F64

    @staticmethod
    def empty(symbol_count: int) -> FrameState:
        return FrameState(
            np.zeros((6, symbol_count), np.int64), np.full((8, symbol_count), np.nan, np.float64)
        )


@jit
def fold(
    ticks: Ticks,
    offsets: I64,
    end_ns: I64,
    tick_size: F64,
    stale_ns: int,
    warm_up_frames: int,
    state: FrameState,
    channels: F32,
    quality: U32,
    bid_px: I32,
    ask_px: I32,
    mark: F64,
) -> None:
    """Fold the ticks of T whole frames into channels.

    Parameters
    ----------
    ticks : TICK[N]                ordered by (frame, symbol), event order within
    offsets : int64[T * S + 1]     ticks of frame t and symbol s: offsets[t * S + s] to the next
    end_ns : int64[T]              end of each frame
    tick_size : float64[S]         price of one tick, quote currency
    stale_ns : int                 a quote older than this sets STALE
    warm_up_frames : int           WARM_UP is set until this many frames have closed since the first quote
    state : FrameState             updated in place
    channels : float32[T, C, S]    written
    quality : uint32[T, S]         written
    bid_px, ask_px : int32[T, S]   written; 0 until the symbol has been quoted
    mark : float64[T, S]           written; NaN until there is a mark price

    Notes
    -----
    OFI: Cont, Kukanov, Stoikov (2014), the sum of signed changes of the best queues.
    """
    symbol_count = tick_size.size
    for frame in range(end_ns.size):
        for symbol in range(symbol_count):
            first = offsets[frame * symbol_count + symbol]
            last = offsets[frame * symbol_count + symbol + 1]
            sums = _accumulate(ticks, first, last, tick_size[symbol], state, symbol)
            _close(
                sums, end_ns[frame], tick_size[symbol], stale_ns, warm_up_frames, state, symbol,
                channels[frame], quality[frame],
            )  # fmt: skip
            bid_px[frame, symbol] = state.integers[0, symbol]
            ask_px[frame, symbol] = state.integers[1, symbol]
            mark[frame, symbol] = state.reals[6, symbol]


@jit
def _two_sided(bid, ask):  # type: ignore[no-untyped-def]
    """Return twice the mid in ticks, or 0 where a side is missing: half a quote has no mid."""
    return bid + ask if bid > 0 and ask > 0 else np.int64(0)


@jit
def _accumulate(ticks, first, last, tick_size, state, symbol):  # type: ignore[no-untyped-def]
    """Run through the ticks of one symbol in one frame; return the frame's sums.

    The last quote, book and mark are kept in the state.
    """
    integers = state.integers
    reals = state.reals
    bid = integers[0, symbol]
    ask = integers[1, symbol]
    flags = integers[5, symbol]
    trade_count = 0
    quote_count = 0
    buy = 0.0
    sell = 0.0
    vwap_flow = 0.0
    ofi = 0.0
    variance = 0.0
    largest = 0.0
    mid2 = _two_sided(bid, ask)
    high2 = mid2
    low2 = mid2
    for index in range(first, last):
        tick = ticks[index]
        flags |= tick.quality
        kind = tick.kind
        if kind == _TRADE:
            notional = (tick.px0 * tick_size) * tick.q0 / 1000.0
            trade_count += 1
            if tick.side > 0:
                buy += notional
            else:
                sell += notional
            if notional > largest:
                largest = notional
            if mid2 > 0:
                vwap_flow += float(2 * tick.px0 - mid2) / float(mid2) * 10000.0 * notional
        elif kind == _QUOTE:
            quote_count += 1
            new_bid = np.int64(tick.px0)
            new_ask = np.int64(tick.px1)
            new_mid2 = _two_sided(new_bid, new_ask)
            if mid2 > 0 and new_mid2 > 0:
                if new_bid >= bid:
                    ofi += tick.q0
                if new_bid <= bid:
                    ofi -= reals[0, symbol]
                if new_ask <= ask:
                    ofi -= tick.q1
                if new_ask >= ask:
                    ofi += reals[1, symbol]
                move = float(new_mid2 - mid2) / float(mid2) * 10000.0
                variance += move * move
            if new_mid2 > 0:
                high2 = max(high2, new_mid2)
                low2 = min(low2, new_mid2) if low2 > 0 else new_mid2
            mid2 = new_mid2
            bid = new_bid
            ask = new_ask
            reals[0, symbol] = tick.q0
            reals[1, symbol] = tick.q1
            integers[3, symbol] = tick.exch_ns
        elif kind == _BOOK:
            reals[2, symbol] = tick.q0
            reals[3, symbol] = tick.q1
            reals[4, symbol] = tick.q2
            reals[5, symbol] = tick.q3
            integers[5, symbol] = tick.quality & _LASTING
        elif kind == _MARK:
            reals[6, symbol] = tick.q0
    integers[0, symbol] = bid
    integers[1, symbol] = ask
    return flags, trade_count, quote_count, buy, sell, vwap_flow, ofi, variance, largest, high2 - low2


@jit
def _close(  # type: ignore[no-untyped-def]
    sums, end_ns, tick_size, stale_ns, warm_up_frames, state, symbol, channels, quality
):
    """Scale the sums of one frame into channels and judge its quality."""
    integers = state.integers
    reals = state.reals
    flags, trade_count, quote_count, buy, sell, vwap_flow, ofi, variance, largest, range2 = sums
    bid = integers[0, symbol]
    ask = integers[1, symbol]
    mid2 = _two_sided(bid, ask)
    if mid2 == 0:
        for channel in range(CHANNEL_COUNT):
            channels[channel, symbol] = np.nan
        quality[symbol] = flags | _WARM_UP
        # The symbol is cold: what follows is not adjacent to what was known before.
        integers[2, symbol] = 0
        integers[4, symbol] = 0
        reals[7, symbol] = np.nan
        return

    mid = float(mid2) * 0.5 * tick_size
    imbalance = (reals[0, symbol] - reals[1, symbol]) / (reals[0, symbol] + reals[1, symbol])
    previous_mid2 = integers[2, symbol]
    moved = math.nan
    if previous_mid2 > 0:
        moved = float(mid2 - previous_mid2) / float(previous_mid2) * 10000.0
    age_ns = end_ns - integers[3, symbol]
    frames_closed = integers[4, symbol] + 1

    channels[_MICROPRICE, symbol] = float(ask - bid) * imbalance / float(mid2) * 10000.0
    channels[_SPREAD, symbol] = float(2 * (ask - bid)) / float(mid2) * 10000.0
    channels[_RETURN, symbol] = moved
    channels[_TRADE_COUNT, symbol] = trade_count
    channels[_BUY, symbol] = buy
    channels[_SELL, symbol] = sell
    channels[_VWAP_FLOW, symbol] = vwap_flow
    channels[_OFI, symbol] = ofi * mid / 1000.0
    channels[_QUEUE, symbol] = imbalance
    channels[_DEPTH5, symbol] = (reals[2, symbol] - reals[3, symbol]) / (reals[2, symbol] + reals[3, symbol])
    channels[_DEPTH20, symbol] = (reals[4, symbol] - reals[5, symbol]) / (reals[4, symbol] + reals[5, symbol])
    channels[_VARIANCE, symbol] = variance
    channels[_RANGE, symbol] = float(range2) / float(mid2) * 10000.0
    channels[_QUOTE_COUNT, symbol] = quote_count
    channels[_LARGEST, symbol] = largest
    channels[_BASIS, symbol] = (mid - reals[6, symbol]) / reals[6, symbol] * 10000.0
    channels[_AGE, symbol] = float(age_ns) / 1000000.0
    channels[_LAGGED_RETURN, symbol] = reals[7, symbol]
    channels[_FLOW, symbol] = buy - sell

    if bid >= ask:
        flags |= _CROSSED
    if age_ns > stale_ns:
        flags |= _STALE
    if frames_closed < warm_up_frames:
        flags |= _WARM_UP
    quality[symbol] = flags

    integers[2, symbol] = mid2
    integers[4, symbol] = frames_closed
    reals[7, symbol] = moved
