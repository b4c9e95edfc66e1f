"""Frame by frame through one trader and one paper broker: rows, reports, step, orders.

Owns: the order of events. Never: opens files, predicts, or measures the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

from gpuscalp.archive import BookSeries
from gpuscalp.backtest.latency import Latency
from gpuscalp.backtest.moments import Likeness, Moment
from gpuscalp.backtest.record import Recorder
from gpuscalp.backtest.venue import Venue
from gpuscalp.config import BacktestConfig, GridConfig
from gpuscalp.execution.booking import book, in_turn, request_of
from gpuscalp.orders import Conditions, MarketRow, Order, SignalRow
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
    like : decide when a live session did
    """

    def __init__(
        self,
        trader: Trader,
        recording: Recording,
        *,
        config: BacktestConfig,
        grid: GridConfig,
        keep: Keep | None = None,
        like: Likeness | None = None,
    ) -> None:
        self.trader = trader
        self._like = like
        self._orders: list[tuple[Order, int]] = []
        self._cancels: list[tuple[int, int]] = []
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
        """Trade through T consecutive frames, of which all ticks have been seen.

        Raises
        ------
        DataError
            it is to do what a live session did, and these are not the rows that the session heard
        """
        if len(frames) == 0:
            return
        if self._keep is not None:
            self._keep.add_frames(frames, prediction)
        moments = self._like or self.latency
        for index, moment in moments.moments_of(frames.end_ns, self.venue.tape):
            self._decide(frames, prediction, index, moment)
        self.venue.drop()

    def _decide(self, frames: FrameBlock, prediction: Prediction, index: int, moment: Moment) -> None:
        trader, recorder, venue = self.trader, self.recorder, self.venue
        venue.play(moment.position, clocks=moment.clocks)
        if len(venue.inbox):
            self._hear(moment.heard_ns)
        market = self._last = MarketRow(
            end_ns=int(frames.end_ns[index]),
            bid_px=frames.bid_px[index],
            ask_px=frames.ask_px[index],
            mark=frames.mark[index],
            quality=frames.quality[index],
            age_ms=frames.channels[index, Channel.AGE_MS],
        )
        conditions = Conditions(
            now_ns=moment.decided_ns,
            clock_error_ms=moment.clock_error_ms,
            device_ok=moment.device_ok,
            extra_quality=moment.extra_quality,
        )
        report = trader.step(market, _signals(prediction, index, moment), conditions)
        recorder.on_step(report, trader.gate)
        self._cancels += [(order_id, moment.decided_ns) for order_id in report.cancels]
        self._orders += [(order, moment.decided_ns) for order in report.orders]
        if moment.last:
            venue.play(moment.sent_position, clocks=moment.sent_clocks)
            self._send()

    def _send(self) -> None:
        """Send what has been decided, in the order in which a live session does."""
        orders, cancels = self._orders, self._cancels
        if not orders and not cancels:
            return
        for what, sent_ns in in_turn(orders, cancels):
            if isinstance(what, int):
                self.venue.broker.cancel(what, sent_ns)
            else:
                self.venue.submit(request_of(what), sent_ns)
        orders.clear()
        cancels.clear()

    def finish(self) -> None:
        """Let the last orders arrive, cancel the rest, close what is held at the last recorded state.

        The market has no more rows: the last quote is shown once more for the closing orders to meet.
        """
        if self._last is None:
            return
        self._send()
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
        self.recorder.finish(self.trader, max(broker.now_ns, self._last.end_ns + 1))

    @property
    def announced(self) -> set[int]:
        """Symbols whose funding has been announced."""
        return self.venue.announced

    @property
    def clock_steps(self) -> Sequence[tuple[int, int]]:
        """When the recorder's clock was set forward; a session's times do not depend on it."""
        return () if self._like is not None else self.venue.tape.delay.steps

    def feed_delay_ms(self) -> dict[str, float]:
        return self.latency.feed_delay_ms()

    def _hear(self, now_ns: int) -> None:
        """Book what is known by now."""
        for report in self.venue.inbox.due(now_ns):
            order = self.trader.open_orders.get(report.order_id)
            self.recorder.on_report(report, order, book(self.trader, report))


def _signals(prediction: Prediction, index: int, moment: Moment) -> SignalRow:
    row = SignalRow(*(getattr(prediction, name)[index] for name in Prediction.__slots__))
    return row.without(moment.unproved)
