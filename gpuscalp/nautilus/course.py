"""What a backtest in NautilusTrader remembers: as much as one of our own, and its signals.

Owns: the wiring of the engine to the recorder of ``gpuscalp backtest``, and the file of the signals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, final

import numpy as np

from gpuscalp.backtest.calibration import PredictionCheck
from gpuscalp.backtest.latency import spread_ms
from gpuscalp.backtest.record import Recorder
from gpuscalp.config import GridConfig
from gpuscalp.execution.booking import BookedFill
from gpuscalp.execution.messages import Report
from gpuscalp.journal.blocks import RecordKind
from gpuscalp.live.engine import Engine, Outcome
from gpuscalp.live.market import Work
from gpuscalp.live.records import SignalRecord
from gpuscalp.live.roles import Roles
from gpuscalp.orders import MarketRow, Order, SignalRow
from gpuscalp.schema import F64, I64, NS_PER_MS, FrameBlock
from gpuscalp.trader import StepReport, Trader

SIGNALS_FILE: Final = "signals.parquet"
_CHUNK: Final = 4_096


@final
class Course:
    """One backtest in progress (``gpuscalp.backtest.summary.Course``).

    It is the engine's watcher, and the strategy's witness.

    Parameters
    ----------
    engine : is watched from now on
    check : is given the predictions
    announced : symbols whose funding has been announced; grows meanwhile
    clock_steps : when the recorder's clock was set forward; grows meanwhile
    grid : of the model
    """

    def __init__(
        self,
        engine: Engine,
        check: PredictionCheck,
        announced: set[int],
        clock_steps: list[tuple[int, int]],
        *,
        grid: GridConfig,
    ) -> None:
        engine.watcher = self
        self.recorder = Recorder()
        self.announced = announced
        self.clock_steps = clock_steps
        self.check = check
        self._engine = engine
        self._lateness_ns, self._max_gap_ns = grid.lateness_ms * NS_PER_MS, grid.max_gap_ms * NS_PER_MS
        self._clock_ns = 0  # the largest exchange time that the engine has been given
        self._holes: list[tuple[int, int]] = []  # longer than the grid's gap, by that clock
        self._markets: list[MarketRow] = []
        self._signals: list[SignalRow] = []
        self._delays: list[int] = []
        self._records: list[SignalRecord] = []
        self._shown: list[SignalRow] = []

    @property
    def trader(self) -> Trader:
        return self._engine.trader

    # The engine's watcher

    def on_step(self, market: MarketRow, signals: SignalRow, report: StepReport) -> None:
        self.recorder.on_step(report, self._engine.trader.gate)
        self._markets.append(market)
        self._signals.append(signals)
        self._shown.append(signals)
        if len(self._markets) == _CHUNK:
            self._check()

    def on_report(self, report: Report, order: Order | None, booked: BookedFill | None) -> None:
        self.recorder.on_report(report, order, booked)

    def on_models(self, roles: Roles) -> None:
        """Nothing: a backtest changes no model."""

    def on_whole(self, end_ns: int, lead: SignalRow, shadow: SignalRow | None) -> None:
        """Nothing: it has neither workers nor a shadow."""

    # The strategy's witness

    def given(self, work: Work) -> None:
        """Note holes in the recording: frames that are closed behind one say nothing about the feed."""
        exch_ns = work.ticks["exch_ns"]
        if not len(exch_ns):
            return
        clock_ns = np.maximum.accumulate(np.append(self._clock_ns or exch_ns[0], exch_ns))
        for at in np.flatnonzero(np.diff(clock_ns) > self._max_gap_ns).tolist():
            self._holes.append((int(clock_ns[at]), int(clock_ns[at + 1])))
        self._clock_ns = int(clock_ns[-1])

    def decided(self, work: Work, outcome: Outcome) -> None:
        for kind, body in outcome.records:
            if kind is RecordKind.SIGNAL and isinstance(body, SignalRecord):
                self._records.append(body)
                self._delays.append(work.now_ns - body.end_ns - self._lateness_ns)

    def finish(self, end_ns: int) -> None:
        """Take in the last state, and check the predictions that are left.

        Parameters
        ----------
        end_ns : exchange time of the last event
        """
        self._check()
        last_ns = max(end_ns, self._records[-1].end_ns + 1) if self._records else end_ns
        self.recorder.finish(self.trader, last_ns)

    def feed_delay_ms(self) -> dict[str, float]:
        """Return median, p99 and largest extra feed delay over all frames that end no run."""
        due_ns = self.end_ns + self._lateness_ns
        told = np.ones(len(due_ns), np.bool_)
        for before, after in self._holes:
            told &= (due_ns <= before) | (due_ns > after)
        delays = np.array(self._delays, np.int64)[told]
        return spread_ms(delays - delays.min() if len(delays) else delays)

    @property
    def end_ns(self) -> I64:
        """int64[T]: ends of the frames that were decided on."""
        return np.array([record.end_ns for record in self._records], np.int64)

    @property
    def signals(self) -> tuple[F64, F64, F64]:
        """Probability float64[T, S, 3], agreement and edge_bps float64[T, S]: what the trader was given."""
        rows = self._shown
        probability, agreement, edge = (
            np.array([getattr(row, name) for row in rows])
            for name in ("probability", "agreement", "edge_bps")
        )
        return probability, agreement, edge

    def digests(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
        """Return uint64[T, S], the digests of "rows" (features, quality, quotes) or "margins"."""
        return np.array([np.frombuffer(getattr(each, name), np.uint64) for each in self._records])

    def write_signals(self, folder: Path, symbols: tuple[str, ...]) -> None:
        """Write one row per frame and symbol: what the model said, and the digests of what it was given."""
        from gpuscalp.arrow import pa, pq

        frames, count = len(self._records), len(symbols)
        probability, agreement, edge = self.signals
        table = pa.table(
            {
                "end": pa.array(np.repeat(self.end_ns, count), pa.timestamp("ns", tz="UTC")),
                "symbol": list(symbols) * frames,
                "down": probability[:, :, 0].ravel(),
                "up": probability[:, :, 2].ravel(),
                "agreement": agreement.ravel(),
                "edge_bps": edge.ravel(),
                "features": self.digests("rows").ravel(),
            }
        )
        pq.write_table(table, folder / SIGNALS_FILE, compression="zstd")

    def _check(self) -> None:
        markets, signals = self._markets, self._signals
        self._markets, self._signals = [], []
        if not markets:
            return
        frames = FrameBlock(
            end_ns=np.array([row.end_ns for row in markets], np.int64),
            channels=np.empty((len(markets), 0, len(markets[0].bid_px)), np.float32),
            quality=np.array([row.quality for row in markets]),
            bid_px=np.array([row.bid_px for row in markets]),
            ask_px=np.array([row.ask_px for row in markets]),
            mark=np.array([row.mark for row in markets]),
        )
        self.check.add(
            frames,
            np.array([row.probability for row in signals]),
            np.array([row.edge_bps for row in signals]),
        )
