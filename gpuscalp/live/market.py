"""The market side of a session: messages to ticks, the paper broker that sees the same messages, what waits.
Where somebody else keeps the connections, ticks and what an exchange tells of orders come in as such.

Owns: the order in which things happen between a message and the engine. Pure: sockets, files and clocks are
elsewhere, and everything that is not a message comes in as an argument, so that a journal repeats it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from gpuscalp.batcher import Batcher
from gpuscalp.config import GridConfig, LiveConfig
from gpuscalp.execution.booking import in_turn, request_of
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.inbox import Inbox
from gpuscalp.execution.messages import Report
from gpuscalp.execution.remote import Heard, RemoteBroker
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import MarkPrice, Trade
from gpuscalp.live.records import Command, HealthRecord, ModelRecord
from gpuscalp.orders import Order
from gpuscalp.schema import E8, NS_PER_MS, TICK, Instrument, Quality, TickKind, Ticks

_DOUBT: Final = int(Quality.GAP | Quality.RESYNC | Quality.CROSSED)
# Bounds what is remembered of gaps. By a count of works and not by time: a journal repeats it.
_SETTLE_EVERY: Final = 4_096
_NO_TICKS: Final = np.zeros(0, TICK)


@dataclass(frozen=True, slots=True)
class Work:
    """What the engine gets at once.

    Attributes
    ----------
    now_ns : exchange time
    ticks : TICK[N], a view that the next but one ``take`` overwrites
    reports : of the broker, known by now
    commands : of operators, in order
    health : as it is now
    unsynced : indices of symbols whose book is not whole
    recv_ns : when the message came that ended a frame, or else the newest, by the wall clock; 0 if none has
        come since the last work. For the histogram only
    models : changes of what is predicted with, in order, before the first frame
    """

    now_ns: int
    ticks: Ticks
    reports: tuple[Report, ...]
    commands: tuple[Command, ...]
    health: HealthRecord
    unsynced: tuple[int, ...]
    recv_ns: int
    models: tuple[ModelRecord, ...] = ()


@final
class Market:
    """Messages of S symbols on their way to the engine, and orders on their way back.

    Parameters
    ----------
    instruments : S
    config : feed, batch, cost, paper, account
    grid : of the model

    Attributes
    ----------
    ingest, batcher, broker, inbox : the parts, to be read
    health : the last told
    input_count : messages and REST replies of the whole session
    last_recv_ns : receive time of the newest of them
    gap_count : gaps that were noted and that nothing has filled, those of the last minute or so aside
    model_count : changes of models in the whole session
    """

    def __init__(self, instruments: Sequence[Instrument], config: LiveConfig, grid: GridConfig) -> None:
        start_e8 = round(config.account.start_usdt * E8)
        self.inbox = Inbox()
        self.broker: PaperBroker | RemoteBroker
        observers: list[_Observer] = []
        if config.broker == "paper":
            paper = self.broker = PaperBroker(
                instruments, cost=config.cost, paper=config.paper, start_e8=start_e8
            )
            observers = [_Observer(paper, self.inbox, index) for index in range(len(instruments))]
        else:
            self.broker = RemoteBroker(start_e8, len(instruments))
        self.ingest = Ingest(
            instruments,
            config.feed,
            book_interval_ns=config.session.book_interval_ms * NS_PER_MS,
            observers=observers or None,
        )
        self.batcher = Batcher(
            config.batch,
            frame_ns=grid.frame_ms * NS_PER_MS,
            lateness_ns=grid.lateness_ms * NS_PER_MS,
        )
        self.health = HealthRecord(None, drifted=False)
        self.input_count = 0
        self.last_recv_ns = 0
        self._closed_ns = 0  # when the frame ended that waits for the engine; 0 = none does
        self._told_count = self._work_count = 0
        self.gap_count = 0
        self._commands: list[Command] = []
        self._models: list[ModelRecord] = []
        self.model_count = 0
        self._index = {instrument.symbol: index for index, instrument in enumerate(instruments)}

    def count(self, recv_ns: int, inputs: int = 1) -> None:
        """Note that so many messages or replies have come."""
        self.input_count += inputs
        self.last_recv_ns = recv_ns

    def push(self, now_ns: int) -> bool:
        """Hand the ticks of what has come to the batcher; return whether some had to give way."""
        if not self.ingest.tick_count:
            return False
        return self._push(self.ingest.take(), now_ns)

    def on_ticks(self, ticks: Ticks, now_ns: int) -> bool:
        """Take ticks that came as such; return whether some had to give way."""
        self.count(now_ns, len(ticks))
        return self._push(ticks, now_ns)

    def on_heard(self, heard: Heard) -> None:
        """Take what an exchange has told of orders and money."""
        assert isinstance(self.broker, RemoteBroker)
        self.inbox.put(self.broker.take(heard))

    def _push(self, ticks: Ticks, now_ns: int) -> bool:
        before = self.batcher.overload_count
        self.batcher.push(ticks, now_ns)
        if not self._closed_ns and self.batcher.frame_ended:
            self._closed_ns = now_ns
        return self.batcher.overload_count != before

    def on_clock(self, exch_ns: int, now_ns: int) -> bool:
        """Let the exchange's time pass without a message; return whether some ticks had to give way."""
        self.inbox.put(self.broker.advance(exch_ns))
        tick = np.zeros(1, TICK)
        tick["exch_ns"] = tick["recv_ns"] = exch_ns
        tick["symbol"], tick["kind"] = -1, TickKind.CLOCK
        before = self.batcher.overload_count
        self.batcher.push(tick, now_ns)
        return self.batcher.overload_count != before

    def on_command(self, command: Command) -> None:
        """Keep an operator's command for the next work."""
        self._commands.append(command)

    def on_model(self, record: ModelRecord) -> None:
        """Keep a change of models for the next work."""
        self.model_count += 1
        self._models.append(record)

    def work(self, ticks: Ticks | None, now_ns: int) -> Work:
        """Return all that the engine has to know now; commands, models and reports are told once.

        Parameters
        ----------
        ticks : of a batch that was taken, or None where there is nothing but commands
        now_ns : exchange time
        """
        commands, self._commands = tuple(self._commands), []
        models, self._models = tuple(self._models), []
        self._work_count += 1
        if self._work_count % _SETTLE_EVERY == 0:
            self.gap_count += self.ingest.settle()
        told, self._told_count = self._told_count, self.input_count
        newest_ns = self.last_recv_ns if self.input_count > told else 0
        recv_ns, self._closed_ns = self._closed_ns or newest_ns, 0
        return Work(
            now_ns=now_ns,
            ticks=_NO_TICKS if ticks is None else ticks,
            reports=tuple(self.inbox.due(now_ns)),
            commands=commands,
            health=self.health,
            unsynced=tuple(self._index[name] for name in self.ingest.unsynced()),
            recv_ns=recv_ns,
            models=models,
        )

    def send(self, orders: Iterable[tuple[Order, int]], cancels: Iterable[tuple[int, int]]) -> None:
        """Send orders and cancellations to the broker, each with its exchange time."""
        for what, sent_ns in in_turn(orders, cancels):
            if isinstance(what, int):
                self.broker.cancel(what, sent_ns)
            else:
                self.broker.submit(request_of(what), sent_ns)

    @property
    def commands_waiting(self) -> int:
        """How many commands the engine has not been given yet."""
        return len(self._commands)

    @property
    def models_waiting(self) -> int:
        """How many changes of models the engine has not been given yet."""
        return len(self._models)

    @property
    def exch_ns(self) -> int:
        """The largest exchange time that a message has told; 0 before the first."""
        return self.batcher.newest_exch_ns


@final
class _Observer:
    """Shows the rows of one symbol to the broker (``gpuscalp.feeds.market.RowSink`` without gaps)."""

    def __init__(self, broker: PaperBroker, inbox: Inbox, symbol: int) -> None:
        self._broker, self._inbox, self._symbol = broker, inbox, symbol

    def trade(self, recv_ns: int, exch_ns: int, quality: int, trade: Trade) -> None:  # noqa: ARG002
        reports = self._broker.on_trade(self._symbol, exch_ns, trade.price_e8, trade.qty_e8, trade.side)
        if reports:
            self._inbox.put(reports)

    def quote(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, best: Sequence[int]) -> None:  # noqa: ARG002
        reports = self._broker.on_quote(self._symbol, exch_ns, *best, sound=not quality & _DOUBT)
        if reports:
            self._inbox.put(reports)

    def book(
        self,
        recv_ns: int,  # noqa: ARG002
        exch_ns: int,
        quality: int,
        update_id: int,  # noqa: ARG002
        top: Sequence[Sequence[int]],
    ) -> None:
        reports = self._broker.on_book(self._symbol, exch_ns, *top, sound=not quality & _DOUBT)
        if reports:
            self._inbox.put(reports)

    def mark(self, recv_ns: int, exch_ns: int, quality: int, mark: MarkPrice) -> None:  # noqa: ARG002
        reports = self._broker.on_mark(
            self._symbol, exch_ns, mark.mark_price_e8, mark.funding_rate_e8, mark.next_funding_ns
        )
        if reports:
            self._inbox.put(reports)
