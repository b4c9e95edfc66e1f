"""Frame by frame through one trader: executions, funding, step, orders.

Owns: the order of events and the window of recorded quotes around a chunk. Never: opens files, predicts, or
measures the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, final

import numpy as np

from gpuscalp.archive import BookSeries, MarkSeries, QuoteSeries
from gpuscalp.backtest.broker import MAX_WAIT_MS, Execution, TakerBroker
from gpuscalp.backtest.funding import FundingEvent, FundingSchedule
from gpuscalp.backtest.latency import Latency
from gpuscalp.backtest.liquidity import DEPTH_REACH_MS, Liquidity
from gpuscalp.backtest.record import Recorder
from gpuscalp.config import BacktestConfig, GridConfig
from gpuscalp.orders import MarketRow, SignalRow
from gpuscalp.schema import F64, NS_PER_MS, Channel, FrameBlock
from gpuscalp.trader import Trader

# Mark messages come every second or every third; a minute of them before a chunk is enough to know the
# funding that falls due at its beginning.
MARK_REACH_MS: Final = 60_000


class Recording(Protocol):
    """What a session reads of an archive; symbols by index, times half-open in exchange time."""

    def quotes(self, symbol_index: int, start_ns: int, end_ns: int) -> QuoteSeries: ...
    def books(self, symbol_index: int, start_ns: int, end_ns: int) -> BookSeries: ...
    def marks(self, symbol_index: int, start_ns: int, end_ns: int) -> MarkSeries: ...


@dataclass(frozen=True, slots=True)
class Prediction:
    """Signals of T frames: probability float64[T, S, 3], agreement and edge_bps float64[T, S]."""

    probability: F64
    agreement: F64
    edge_bps: F64


@final
class Session:
    """One backtest in progress.

    The caller must give consecutive chunks to :meth:`trade`, then call :meth:`finish` once.

    Parameters
    ----------
    trader : fresh
    recording : what was on offer
    config, grid : costs and latencies; frame length and lateness
    """

    def __init__(
        self, trader: Trader, recording: Recording, *, config: BacktestConfig, grid: GridConfig
    ) -> None:
        self.trader = trader
        self.recorder = Recorder()
        self.latency = Latency(grid, config.cost)
        self.funding = FundingSchedule()
        self._recording = recording
        self._frame_ns = grid.frame_ms * NS_PER_MS
        self._liquidity = tuple(Liquidity(instrument) for instrument in trader.instruments)
        self._broker = TakerBroker(
            trader.instruments, self._liquidity, taker_fee_bps=config.cost.taker_fee_bps
        )
        self._last: MarketRow | None = None

    def trade(self, frames: FrameBlock, prediction: Prediction) -> None:
        """Trade through T consecutive frames."""
        if len(frames) == 0:
            return
        arrivals = self._load(int(frames.end_ns[0]) - self._frame_ns, frames)
        age_ms = np.ascontiguousarray(frames.channels[:, Channel.AGE_MS])
        trader, recorder = self.trader, self.recorder
        for index in range(len(frames)):
            end_ns = int(frames.end_ns[index])
            self._catch_up(end_ns)
            market = MarketRow(
                end_ns=end_ns,
                bid_px=frames.bid_px[index],
                ask_px=frames.ask_px[index],
                mark=frames.mark[index],
                quality=frames.quality[index],
                age_ms=age_ms[index],
            )
            signals = SignalRow(
                probability=prediction.probability[index],
                agreement=prediction.agreement[index],
                edge_bps=prediction.edge_bps[index],
            )
            report = trader.step(market, signals)
            recorder.on_step(report, drawdown_pct=trader.gate.drawdown_pct, state=trader.gate.state)
            for order in report.orders:
                self._broker.submit(order, int(arrivals[index]))
            self._last = market

    def finish(self) -> None:
        """Let the last orders arrive, cancel the rest, close what is held at the last recorded state."""
        if self._last is None:
            return
        end_ns = self._last.end_ns + DEPTH_REACH_MS * NS_PER_MS
        for execution in self._broker.advance(end_ns):
            self._book(execution)
        for execution in self._broker.cancel_all(end_ns):
            self._book(execution)
        for order in self.trader.flatten(self._last, "end_of_data"):
            self._book(self._broker.close_at(order, end_ns))
        equity = self.trader.equity_e8()
        self.trader.gate.observe(end_ns, equity)
        self.recorder.max_drawdown_pct = max(self.recorder.max_drawdown_pct, self.trader.gate.drawdown_pct)
        self.recorder.sample(end_ns, equity, self.trader.gross_e8(), self.trader.gate.state)

    def _load(self, first_ns: int, frames: FrameBlock) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """Load the window around a chunk; return the arrival time of orders by frame."""
        start_ns = first_ns - MAX_WAIT_MS * NS_PER_MS
        end_ns = int(frames.end_ns[-1]) + 2 * DEPTH_REACH_MS * NS_PER_MS
        series: list[QuoteSeries | BookSeries] = []
        for index, liquidity in enumerate(self._liquidity):
            quotes = self._recording.quotes(index, start_ns, end_ns)
            books = self._recording.books(index, start_ns, end_ns)
            liquidity.load(quotes, books)
            series += [quotes, books]
            self.funding.announce(
                index, self._recording.marks(index, first_ns - MARK_REACH_MS * NS_PER_MS, end_ns)
            )
        if self._last is None:
            self.funding.due(first_ns)  # what fell due before the first frame is nobody's
        return self.latency.arrivals(frames.end_ns, series)

    def _catch_up(self, until_ns: int) -> None:
        """Book, in the order of time, what happened since the last frame; at one instant fills come first."""
        executions = self._broker.advance(until_ns)
        fundings = self.funding.due(until_ns)
        if not executions and not fundings:
            return
        happened: list[tuple[int, int, Execution | FundingEvent]] = [
            *((execution.at_ns, 0, execution) for execution in executions),
            *((event.at_ns, 1, event) for event in fundings),
        ]
        for _, _, what in sorted(happened, key=lambda entry: entry[:2]):
            if isinstance(what, Execution):
                self._book(what)
            else:
                payment = self.trader.on_funding(what.symbol_index, what.mark_e8, what.rate_e8)
                self.recorder.ledger.on_funding(what.symbol_index, payment)

    def _book(self, execution: Execution) -> None:
        for fill in execution.fills:
            self.trader.on_fill(fill)
        self.trader.on_done(execution.order.order_id)
        self.recorder.on_execution(execution)
