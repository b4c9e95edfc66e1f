"""Rows as the engine hands them on: of the market to the trader, of signals to the trader and the journal.

Owns: their forms. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuscalp.ensemble import Signals
from gpuscalp.live.predictor import Prediction, pack_rows
from gpuscalp.live.records import HealthRecord, SignalRecord
from gpuscalp.ops.row_digest import U64, digest_rows
from gpuscalp.orders import MarketRow, SignalRow
from gpuscalp.schema import U32, Channel, FrameBlock, Quality
from gpuscalp.trader import StepReport


def market_row(frames: FrameBlock) -> MarketRow:
    """Return the row of one frame, copied: the stream writes the next frame into the same memory."""
    return MarketRow(
        end_ns=int(frames.end_ns[0]),
        bid_px=frames.bid_px[0].copy(),
        ask_px=frames.ask_px[0].copy(),
        mark=frames.mark[0].copy(),
        quality=frames.quality[0].copy(),
        age_ms=frames.channels[0, Channel.AGE_MS].copy(),
    )


def signal_row(signals: Signals) -> SignalRow:
    """Return signals as the trader takes them."""
    return SignalRow(
        probability=signals.probability,
        agreement=signals.agreement,
        edge_bps=signals.edge_bps,
        spread_bps=signals.spread,
    )


def blank(symbol_count: int) -> SignalRow:
    """Return signals that say nothing."""
    nan = np.full(symbol_count, np.nan)
    return SignalRow(np.full((symbol_count, 3), np.nan), nan, nan.copy(), nan.copy())


def doubts(health: HealthRecord, unsynced: Sequence[int], symbol_count: int) -> U32 | None:
    """Return the quality bits that do not come from messages; None where there are none."""
    stale = [*health.silent, *health.off_tick, *health.rules]
    if not health.drifted and not stale and not unsynced:
        return None
    bits = np.zeros(symbol_count, np.uint32)
    if health.drifted:
        bits |= np.uint32(Quality.CLOCK_DRIFT)
    bits[stale] |= np.uint32(Quality.STALE)
    bits[list(unsynced)] |= np.uint32(Quality.RESYNC)
    return bits


def signal_record(
    report: StepReport,
    row: SignalRow,
    predicted: Prediction,
    digests: U64,
    decided_ns: int,
    stages_ns: tuple[int, int, int],
    *,
    late: bool,
    model: str,
) -> SignalRecord:
    """Return what is written of a frame (``SignalRecord``)."""
    margins = shown = unproved = b""
    if predicted.signals is not None:
        by_row = np.ascontiguousarray(predicted.signals.margins.transpose(1, 0, 2))
        margins = digest_rows(by_row.reshape(len(by_row), -1)).tobytes()
        columns = (row.probability[:, 0], row.probability[:, 2], row.agreement, row.edge_bps)
        shown = np.stack(columns, axis=1).astype(np.float32).tobytes()
        if predicted.unproved is not None:
            unproved = pack_rows(predicted.unproved)
    return SignalRecord(
        end_ns=report.end_ns,
        decided_ns=decided_ns,
        stages_ns=stages_ns,
        rows=digests.tobytes(),
        margins=margins,
        signal=shown,
        equity_e8=report.equity_e8,
        skips=tuple(report.skips.tolist()),
        lost=predicted.lost,
        late=late,
        unproved=unproved,
        model=model,
    )
