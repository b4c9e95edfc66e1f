"""Oracle of the frames: ticks to channels, one tick at a time, in plain Python.

Shares no code with the package. Numbers are Python integers and floats (float64); a channel is rounded to
float32 once, at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

TRADE, QUOTE, BOOK, MARK, CLOCK = range(5)
GAP, RESYNC, STALE, CROSSED, LATE, WARM_UP = 1, 2, 4, 8, 16, 64
CHANNELS = 19
MS = 1_000_000


@dataclass
class Frame:
    """One closed frame of all symbols."""

    end_ns: int
    restart: bool
    channels: list[list[float]]  # [S][C]
    quality: list[int]
    bid: list[int]
    ask: list[int]
    mark: list[float]


@dataclass
class Symbol:
    """What one symbol remembers."""

    tick_size: float
    bid: int = 0
    ask: int = 0
    bid_qty: float = math.nan
    ask_qty: float = math.nan
    depth: tuple[float, float, float, float] = (math.nan,) * 4
    mark: float = math.nan
    last_mid2: int = 0
    last_return: float = math.nan
    quote_ns: int = 0
    frame_count: int = 0
    doubts: int = 0


@dataclass
class Result:
    frames: list[Frame] = field(default_factory=list)
    late_count: int = 0


def frames(
    ticks: np.ndarray,
    tick_sizes: list[float],
    *,
    frame_ms: int = 100,
    lateness_ms: int = 20,
    stale_ms: int = 5_000,
    max_gap_ms: int = 60_000,
    warm_up_frames: int = 514,
) -> Result:
    """Return every frame that the ticks close, and how many ticks came too late."""
    frame_ns, lateness_ns, gap_ns = frame_ms * MS, lateness_ms * MS, max_gap_ms * MS
    result = Result()
    symbols = [Symbol(size) for size in tick_sizes]
    waiting: dict[tuple[int, int], list[tuple]] = {}
    open_frame: int | None = None
    seen_ns = 0  # the newest exchange time less the lateness
    restart = False

    def close() -> None:
        nonlocal open_frame, restart
        end_ns = (open_frame + 1) * frame_ns
        frame = Frame(end_ns, restart, [], [], [], [], [])
        for index, symbol in enumerate(symbols):
            events = waiting.pop((open_frame, index), [])
            channels, quality = _fold(symbol, events, end_ns, stale_ms * MS, warm_up_frames)
            frame.channels.append(channels)
            frame.quality.append(quality)
            frame.bid.append(symbol.bid)
            frame.ask.append(symbol.ask)
            frame.mark.append(symbol.mark)
        result.frames.append(frame)
        open_frame += 1
        restart = False

    for tick in ticks.tolist():
        time_ns, kind, symbol_index = tick[0], tick[9], tick[8]
        moved_ns = time_ns - lateness_ns
        if open_frame is not None and moved_ns - seen_ns > gap_ns:
            while open_frame <= (seen_ns + lateness_ns) // frame_ns:
                close()
            symbols = [Symbol(size) for size in tick_sizes]
            open_frame, restart = None, True
        if open_frame is None:
            open_frame, seen_ns = moved_ns // frame_ns, moved_ns
        seen_ns = max(seen_ns, moved_ns)
        if kind != CLOCK:
            late = time_ns // frame_ns < open_frame and kind != MARK
            result.late_count += late
            at = max(open_frame, time_ns // frame_ns)
            waiting.setdefault((at, symbol_index), []).append((late, tick))
        while (open_frame + 1) * frame_ns <= seen_ns:
            close()
    return result


def _fold(
    symbol: Symbol, events: list[tuple], end_ns: int, stale_ns: int, warm_up_frames: int
) -> tuple[list[float], int]:
    quality = symbol.doubts
    trades = quotes = 0
    known = symbol.bid > 0 and symbol.ask > 0
    buy = sell = vwap_flow = ofi = variance = largest = 0.0
    mids = [symbol.bid + symbol.ask] if known else []
    for late, (exch_ns, _, px0, px1, q0, q1, q2, q3, _, kind, side, flags) in events:
        quality |= flags
        if late:
            quality |= LATE
        if kind == TRADE:
            if late:
                continue
            notional = px0 * symbol.tick_size * q0 / 1000.0
            trades += 1
            buy, sell = (buy + notional, sell) if side > 0 else (buy, sell + notional)
            largest = max(largest, notional)
            if known:
                mid2 = symbol.bid + symbol.ask
                vwap_flow += (2 * px0 - mid2) / mid2 * 1e4 * notional
        elif kind == QUOTE:
            quotes += 1
            now = px0 > 0 and px1 > 0
            mids += [px0 + px1] if now else []
            if known and now:
                ofi += q0 if px0 >= symbol.bid else 0.0
                ofi -= symbol.bid_qty if px0 <= symbol.bid else 0.0
                ofi -= q1 if px1 <= symbol.ask else 0.0
                ofi += symbol.ask_qty if px1 >= symbol.ask else 0.0
                variance += ((mids[-1] - mids[-2]) / mids[-2] * 1e4) ** 2
            symbol.bid, symbol.ask, symbol.bid_qty, symbol.ask_qty = px0, px1, q0, q1
            symbol.quote_ns, known = exch_ns, now
        elif kind == BOOK:
            symbol.depth = (q0, q1, q2, q3)
            symbol.doubts = flags & (GAP | RESYNC)
        elif kind == MARK:
            symbol.mark = q0
    if not known:
        symbol.last_mid2, symbol.frame_count, symbol.last_return = 0, 0, math.nan
        return [math.nan] * CHANNELS, quality | WARM_UP
    return _close(
        symbol, quality, end_ns, stale_ns, warm_up_frames, mids,
        (trades, buy, sell, vwap_flow, ofi, variance, largest, quotes),
    )  # fmt: skip


def _close(
    symbol: Symbol, quality: int, end_ns: int, stale_ns: int, warm_up_frames: int, mids: list, sums: tuple
) -> tuple[list[float], int]:
    trades, buy, sell, vwap_flow, ofi, variance, largest, quotes = sums
    mid2 = symbol.bid + symbol.ask
    mid = mid2 * 0.5 * symbol.tick_size
    spread = symbol.ask - symbol.bid
    imbalance = _share(symbol.bid_qty, symbol.ask_qty)
    moved = (mid2 - symbol.last_mid2) / symbol.last_mid2 * 1e4 if symbol.last_mid2 else math.nan
    age_ns = end_ns - symbol.quote_ns
    channels = [
        spread * imbalance / mid2 * 1e4,
        2 * spread / mid2 * 1e4,
        moved,
        trades,
        buy,
        sell,
        vwap_flow,
        ofi * mid / 1000.0,
        imbalance,
        _share(*symbol.depth[:2]),
        _share(*symbol.depth[2:]),
        variance,
        (max(mids) - min(mids)) / mid2 * 1e4,
        quotes,
        largest,
        (mid - symbol.mark) / symbol.mark * 1e4,
        age_ns / 1e6,
        symbol.last_return,
        buy - sell,
    ]
    symbol.frame_count += 1
    symbol.last_mid2, symbol.last_return = mid2, moved
    quality |= CROSSED * (symbol.bid >= symbol.ask)
    quality |= STALE * (age_ns > stale_ns)
    quality |= WARM_UP * (symbol.frame_count < warm_up_frames)
    return channels, quality


def _share(x: float, y: float) -> float:
    """Return (x − y) / (x + y), or NaN where there is nothing on either side."""
    return (x - y) / (x + y) if x + y != 0 else math.nan


def channels(result: Result) -> np.ndarray:
    """Return float32[T, C, S], as the package lays frames out."""
    stacked = np.array([frame.channels for frame in result.frames], np.float64)
    return stacked.astype(np.float32).transpose(0, 2, 1)
