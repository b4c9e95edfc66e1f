"""Frame by frame through one trader and one paper broker: rows, reports, step, orders.

Owns: the order of events. Never: opens files, predicts, or measures the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol, final

import numpy as np

from gpuscalp.archive import BookSeries
from gpuscalp.backtest.latency import Latency
from gpuscalp.backtest.record import Recorder
from gpuscalp.backtest.venue import Venue
from gpuscalp.config import BacktestConfig, GridConfig
from gpuscalp.execution.booking import book, request_of
from gpuscalp.orders import Conditions, MarketRow, SignalRow
from gpuscalp.schema import E8, F64, Channel, FrameBlock, Ticks
from gpuscalp.trader import Trader

_EVER: Final = 1 << 62


class Recording(Protocol):
    """What a session reads of an archive beside its ticks."""

    def books(self, symbol_index: int, start_ns: int, end_ns: int) -> BookSeries:
        """Return the books of a half-open range of exchange time, in the order of their ticks."""
        ...


@dataclass(frozen=True, slots=True)
class Prediction:
    """Signals of T frames: probability float64[T, S, 3]; agreement, edge_bps and spread_bps float64[T, S]."""

    probability: F64
    agreement: F64
    edge_bps: F64
    spread_bps: F64


class Keep(Protocol):
    """Keeps what a session is given, for other sessions."""

    def add_ticks(self, ticks: Ticks) -> None: ...

    def add_frames(self, frames: FrameBlock, prediction: Prediction) -> None: ...


@final
class Session:
    """One backtest in progress.

    The caller must let the ticks that features are made of pass through :meth:`watch`, give consecutive
    chunks of frames to :meth:`trade`, then call :meth:`finish` once.

    Parameters
    ----------
    trader : fresh
    recording : levels of the books
    config, grid : costs, latencies, the paper exchange; frame length and lateness
    keep : is given what the session is given, in the same order
    """

    def __init__(
        self,
        trader: Trader,
        recording: Recording,
        *,
        config: BacktestConfig,
        grid: GridConfig,
        keep: Keep | None = None,
    ) -> None:
        self.trader = trader
        self._keep = keep
        self.recorder = Recorder()
        self.latency = Latency(grid, config.cost, config.paper)
        self.venue = Venue(
            trader.instruments,
            cost=config.cost,
            paper=config.paper,
            start_e8=round(config.account.start_usdt * E8),
            read_books=recording.books,
        )
        self._last: MarketRow | None = None

    def watch(self, ticks: Iterable[Ticks]) -> Iterator[Ticks]:
        """Hand ticks on, and keep them for the paper exchange."""
        for batch in ticks:
            if self._keep is not None:
                self._keep.add_ticks(batch)
            self.venue.tape.add(batch)
            yield batch

    def trade(self, frames: FrameBlock, prediction: Prediction) -> None:
        """Trade through T consecutive frames, of which all ticks have been seen."""
        if len(frames) == 0:
            return
        if self._keep is not None:
            self._keep.add_frames(frames, prediction)
        trader, recorder, venue = self.trader, self.recorder, self.venue
        positions, heard_ns = (each.tolist() for each in self.latency.heard(frames.end_ns, venue.tape))
        age_ms = np.ascontiguousarray(frames.channels[:, Channel.AGE_MS])
        for index in range(len(frames)):
            venue.play(positions[index])
            if len(venue.inbox):
                self._hear(heard_ns[index])
            market = self._last = MarketRow(
                end_ns=int(frames.end_ns[index]),
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
                spread_bps=prediction.spread_bps[index],
            )
            # A recording has no clock of ours that could be wrong, and no device that could fail.
            decided_ns = heard_ns[index] + self.latency.compute_ns
            conditions = Conditions(now_ns=decided_ns, clock_error_ms=0.0, device_ok=True, extra_quality=None)
            report = trader.step(market, signals, conditions)
            recorder.on_step(report, drawdown_pct=trader.gate.drawdown_pct, state=trader.gate.state)
            for order in report.orders:
                venue.submit(request_of(order), decided_ns)
        venue.drop()

    def finish(self) -> None:
        """Let the last orders arrive, cancel the rest, close what is held at the last recorded state.

        The market has no more rows: the last quote is shown once more for the closing orders to meet.
        """
        if self._last is None:
            return
        venue, broker = self.venue, self.venue.broker
        venue.play(venue.tape.end)
        if broker.orders:
            venue.inbox.put(broker.advance(broker.cancel_all(broker.now_ns)))
        self._hear(_EVER)
        arrival_ns = broker.now_ns
        for order in self.trader.flatten(self._last, "end_of_data"):
            arrival_ns = venue.submit(request_of(order), broker.now_ns)
        venue.show_again(arrival_ns)
        if broker.orders:
            venue.inbox.put(broker.advance(broker.cancel_all(arrival_ns)))
        self._hear(_EVER)
        equity = self.trader.equity_e8()
        end_ns = max(broker.now_ns, self._last.end_ns + 1)
        self.trader.gate.observe(end_ns, equity)
        self.recorder.max_drawdown_pct = max(self.recorder.max_drawdown_pct, self.trader.gate.drawdown_pct)
        self.recorder.sample(end_ns, equity, self.trader.gross_e8(), self.trader.gate.state)

    def _hear(self, now_ns: int) -> None:
        """Book what is known by now."""
        for report in self.venue.inbox.due(now_ns):
            order = self.trader.open_orders.get(report.order_id)
            self.recorder.on_report(report, order, book(self.trader, report))
