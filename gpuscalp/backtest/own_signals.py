"""A backtest of signals from elsewhere: what they would have earned, without a bundle and without features.

Owns: the form of such signals, and the wiring of the run. Frames, trading and fills are those of any
backtest. Never: knows whether a signal could have been known at its time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from gpuscalp.archive import Archive, choose_venue
from gpuscalp.backtest.calibration import PredictionCheck
from gpuscalp.backtest.run import BacktestResult, check_free, frozen_of, require_frames, write_run
from gpuscalp.backtest.saved import times
from gpuscalp.backtest.scene import Scene
from gpuscalp.backtest.session import Prediction, Session
from gpuscalp.backtest.summary import Scope, summarise
from gpuscalp.config import BacktestConfig, GridConfig, LabelConfig, to_dict
from gpuscalp.errors import UsageError
from gpuscalp.frames import blocks_within, frame_blocks
from gpuscalp.labels import Direction
from gpuscalp.progress import Progress, silent
from gpuscalp.run_folder import alone_on_out
from gpuscalp.schema import F64, I64, NS_PER_MS, NS_PER_S, FrameBlock
from gpuscalp.times import utc

if TYPE_CHECKING:
    from gpuscalp.arrow import pa

# Quotes and marks of the time before the first frame.
_LEAD_NS: Final = 60 * NS_PER_S
_FORM: Final = "symbol, end_ns, edge_bps, and where you have them confidence and agreement"


@final
@dataclass(frozen=True, slots=True)
class OwnSignals:
    """R signals, ordered by time and symbol.

    Attributes
    ----------
    symbols : S names
    end_ns, symbol : int64[R]    end of the frame that is decided on; index into ``symbols``
    edge_bps, confidence, agreement : float64[R]
    """

    symbols: tuple[str, ...]
    end_ns: I64
    symbol: I64
    edge_bps: F64
    confidence: F64
    agreement: F64

    @classmethod
    def of(cls, rows: Any, known: Sequence[str], grid: GridConfig) -> OwnSignals:
        """Read signals from a table.

        Parameters
        ----------
        rows : an Arrow table, or what can be made one
        known : symbols of the archive
        grid : of the frames that they are about

        Raises
        ------
        UsageError
            a column or a symbol is not known, a value is missing or none of its kind, a time is no end of a
            frame, or two rows are about the same
        """
        from gpuscalp.arrow import table_of

        table = table_of(rows)
        lost = [name for name in ("symbol", "end_ns", "edge_bps") if name not in table.column_names]
        if lost:
            raise UsageError("a column of the signals is missing", value=lost[0], fix=f"columns: {_FORM}")
        names = list(map(str, table["symbol"].to_pylist()))
        met = set(names)
        symbols = tuple(name for name in known if name in met)
        strange = met - set(known)
        if strange or not symbols:
            raise UsageError(
                "the archive has no such symbol" if strange else "there are no signals",
                value=", ".join(sorted(strange)) or None,
                fix=f"it has: {', '.join(known)}",
            )
        place = {name: index for index, name in enumerate(symbols)}
        symbol, end_ns = np.array([place[name] for name in names], np.int64), _times(table)
        off = end_ns % (grid.frame_ms * NS_PER_MS) != 0
        if off.any():
            raise UsageError(
                "a signal is not dated at the end of a frame",
                value=f"{end_ns[off][0]} ns",
                fix=f"frames end at multiples of grid.frame_ms = {grid.frame_ms}",
            )
        order = np.lexsort((symbol, end_ns))
        symbol, end_ns = symbol[order], end_ns[order]
        twice = (np.diff(end_ns) == 0) & (np.diff(symbol) == 0)
        if twice.any():
            at = int(np.flatnonzero(twice)[0])
            raise UsageError(
                "a symbol has two signals at one frame", value=f"{symbols[symbol[at]]}, {end_ns[at]} ns"
            )
        values = [_numbers(table, name)[order] for name in ("edge_bps", "confidence", "agreement")]
        for name, shares in zip(("confidence", "agreement"), values[1:], strict=True):
            beyond = (shares < 0) | (shares > 1)
            if beyond.any():
                raise UsageError("a share must lie in 0 … 1", where=name, value=float(shares[beyond][0]))
        return cls(symbols, end_ns, symbol, *values)

    def digest(self) -> str:
        """Return a sha256 of all of it."""
        digest = hashlib.sha256(" ".join(self.symbols).encode())
        for values in (self.end_ns, self.symbol, self.edge_bps, self.confidence, self.agreement):
            digest.update(values.tobytes())
        return digest.hexdigest()

    def count_within(self, start_ns: int | None, end_ns: int | None) -> int:
        """Return how many are of frames that end in (start, end]; None is open."""
        after = True if start_ns is None else self.end_ns > start_ns
        until = True if end_ns is None else self.end_ns <= end_ns
        return int(np.sum(np.broadcast_to(after & until, len(self.end_ns))))

    def over(self, frames: FrameBlock) -> tuple[Prediction, int]:
        """Return the signals of consecutive frames, and how many they are; a frame without one has NaN."""
        count, width = len(frames), len(self.symbols)
        some = slice(*np.searchsorted(self.end_ns, (frames.end_ns[0], frames.end_ns[-1] + 1)).tolist())
        at = np.searchsorted(frames.end_ns, self.end_ns[some])
        hit = frames.end_ns[at] == self.end_ns[some]
        cells = at[hit], self.symbol[some][hit]
        edge, agreement = np.full((count, width), np.nan), np.full((count, width), np.nan)
        probability = np.zeros((count, width, len(Direction)))
        edge[cells] = self.edge_bps[some][hit]
        agreement[cells] = self.agreement[some][hit]
        side = np.where(self.edge_bps[some][hit] > 0, Direction.UP, Direction.DOWN)
        probability[(*cells, side)] = self.confidence[some][hit]
        probability[..., Direction.FLAT] = 1.0 - probability.sum(axis=-1)
        return Prediction(probability, agreement, edge, np.zeros((count, width))), int(hit.sum())


@alone_on_out
def run_signals(
    archive: Archive,
    rows: Any,
    *,
    config: BacktestConfig,
    horizon_ms: int,
    grid: GridConfig,
    out: Path | None = None,
    venue: str | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    on_progress: Progress = silent,
) -> BacktestResult:
    """Trade signals and write a run directory; see ``gpuscalp.backtest.backtest_signals``."""
    began_s = time.perf_counter()
    venue = choose_venue(archive, venue)
    signals = OwnSignals.of(rows, archive.symbols(venue), grid)
    begin_ns, finish_ns = archive.span(venue, signals.symbols, start_ns, end_ns)
    check_free(out)
    instruments = archive.instruments(venue, signals.symbols)
    scene = Scene(
        archive_path=archive.path,
        venue=venue,
        symbols=signals.symbols,
        instruments=instruments,
        grid=grid,
        horizon_ms=horizon_ms,
        trained_until_ns=finish_ns,  # of no age: what has made the signals is not known
    )
    session = scene.session(config)
    check = PredictionCheck(LabelConfig(horizon_ms=horizon_ms), grid)
    read_from_ns = None if start_ns is None else begin_ns - _LEAD_NS
    ticks = archive.tick_batches(venue, signals.symbols, start_ns=read_from_ns, end_ns=end_ns)
    met = 0
    blocks = frame_blocks(session.watch(ticks), grid, instruments)
    for frames in blocks_within(blocks, begin_ns, finish_ns):
        met += _trade(session, signals, check, frames)
        now_ns = int(frames.end_ns[-1])
        on_progress((now_ns - begin_ns) / 1e9, (finish_ns - begin_ns) / 1e9, utc(now_ns))
    session.finish()
    require_frames(session.recorder.frame_count, archive.path, begin_ns, finish_ns)
    scope = Scope(
        venue=venue,
        symbols=signals.symbols,
        start_ns=begin_ns,
        end_ns=finish_ns,
        data_digest=archive.digest(venue, signals.symbols, read_from_ns, finish_ns),
        bundle_digest=signals.digest(),
        trained_venue="",
        trained_from_ns=0,
        trained_until_ns=0,
    )
    about = {"horizon_ms": horizon_ms, "grid": to_dict(grid)}
    frozen = frozen_of(config, scope, signals=about)
    within = signals.count_within(start_ns, end_ns)
    outcome = summarise(config, scope, session, check, lost_signals=(within - met, within))
    outcome.summary["signals"] = {
        "given": len(signals.end_ns),
        "in_range": within,
        "met_a_frame": met,
        **about,
    }
    return write_run(out, frozen, outcome, began_s=began_s)


def _trade(session: Session, signals: OwnSignals, check: PredictionCheck, frames: FrameBlock) -> int:
    prediction, met = signals.over(frames)
    session.trade(frames, prediction)
    check.add(frames, prediction.probability, prediction.edge_bps)
    return met


def _times(table: pa.Table) -> I64:
    """Return the ends of the frames, int64 ns."""
    from gpuscalp.arrow import pa

    kind = table["end_ns"].type
    found = "a missing value" if table["end_ns"].null_count else str(kind)
    if (pa.types.is_timestamp(kind) or pa.types.is_integer(kind)) and not table["end_ns"].null_count:
        try:
            return times(table, "end_ns")
        except pa.ArrowInvalid as error:  # beyond what 64 bits of nanoseconds hold
            found = str(error)
    raise UsageError(
        "a signal has no time, or none that can be read",
        where="end_ns",
        value=found,
        fix="timestamps, or int64 nanoseconds since 1970, UTC",
    )


def _numbers(table: pa.Table, name: str) -> F64:
    """Return a column as float64[R], all finite; 1 where there is none."""
    from gpuscalp.arrow import pa

    if name not in table.column_names:
        return np.ones(table.num_rows)
    kind = table[name].type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise UsageError("a column of the signals must hold numbers", where=name, value=str(kind))
    values = np.asarray(table[name], np.float64)
    if not np.isfinite(values).all():
        raise UsageError(
            "a signal is not a finite number",
            where=name,
            value=float(values[~np.isfinite(values)][0]),
            fix="leave out the rows of which nothing is said",
        )
    return values
