"""A session's inputs from NautilusTrader's node, and its orders to it (``gpuscalp.live.source.Source``).

Owns: where an order event leads to, when rows are handed on, health. Never: decides, or believes a
word of Nautilus's own reconciliation: that only leads to a look at the account.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final, final

from msgspec.structs import replace

from gpuscalp.config import LiveConfig
from gpuscalp.errors import FeedError, UsageError
from gpuscalp.execution.messages import OrderRequest, ReportKind
from gpuscalp.execution.reconcile import OWN_PREFIXES, Rule
from gpuscalp.execution.remote import Heard, RemoteBroker
from gpuscalp.feeds.call_pool import CallPool
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.feeds.rest import RestClient
from gpuscalp.latency import Stage
from gpuscalp.live.off_tick import OffTick
from gpuscalp.live.records import Command, HealthRecord, client_id
from gpuscalp.live.session import Session
from gpuscalp.live.source import TIME_IS_UP, Driver
from gpuscalp.live.status import clock_status
from gpuscalp.live.timekeeper import Timekeeper
from gpuscalp.nautilus.account import AccountView
from gpuscalp.nautilus.ending import Ending, concerned
from gpuscalp.nautilus.heard import NOTHING_TO_REDUCE, heard_of
from gpuscalp.nautilus.keys import Keys
from gpuscalp.nautilus.link import Link
from gpuscalp.nautilus.looks import Looks
from gpuscalp.nautilus.names import instrument_name, is_guard, order_number
from gpuscalp.nautilus.node import flush_log, instrument_ids, make_node
from gpuscalp.nautilus.node_log import passed_on
from gpuscalp.nautilus.status import source_status
from gpuscalp.nautilus.streams import Streams
from gpuscalp.schema import NS_PER_MS, TickKind

_LOG: Final = logging.getLogger("gpuscalp.session")
_SILENT: Final = frozenset({"OrderInitialized", "OrderSubmitted", "OrderPendingCancel", "OrderPendingUpdate"})
# Ends that may hide a trade.
_UNSURE: Final = frozenset({ReportKind.CANCELED, ReportKind.EXPIRED})
_LAST_CALLS_S: Final = 5.0  # how long an end waits for calls that are under way


@final
class NautilusSource:
    """Feeds a session from a trading node.

    Parameters
    ----------
    session : is fed; its broker is a RemoteBroker
    config : the session's
    keys : of the account
    account : the same account, to be looked at
    rest : for the venue's time
    clock : our clock's offset; fed here
    """

    def __init__(
        self,
        session: Session,
        config: LiveConfig,
        keys: Keys,
        account: AccountView,
        rest: RestClient,
        clock: ClockOffset,
    ) -> None:
        broker = session.market.broker
        assert isinstance(broker, RemoteBroker)
        self._session, self._config, self._keys, self._account = session, config, keys, account
        self._broker, self._clock = broker, clock
        self._calls = CallPool(1, "rest")
        self._timekeeper = Timekeeper(session, config, clock, rest, self._calls)
        instruments = session.about.instruments
        self._symbols = tuple(each.symbol for each in instruments)
        self._names = instrument_ids([instrument_name(each.venue, each.symbol) for each in instruments])
        self._link = Link(self._names, instruments, self)
        self._off_tick = OffTick(instruments, self._link.rows.off_ticks())
        self._streams = Streams(self._symbols, config, time.monotonic_ns())
        self._started = self._flushing = False
        self._open = False  # the account was looked at, and the node runs: the session may decide
        self._closing = False  # no entry leaves any more
        self._withheld: set[int] = set()  # ids of those that did not
        self._alarmed: set[str] = set()
        self._calling: set[asyncio.Task[None]] = set()
        self._ending = Ending(account, session.about.session_id, instruments, config.orders)
        self._looks = Looks(
            account,
            broker,
            session_id=session.about.session_id,
            place=config.nautilus,
            symbols=self._symbols,
            now=self.now,
            hear=self._hear,
            budget=rest.budget,
            until_ns=session.market.exch_ns,
        )

    def attach(self, driver: Driver) -> None:
        self._driver = driver
        # What a process that has died was about to send is not sent any more: the market has moved, and
        # whether it left is what the first look finds out.
        self._broker.unsent()

    async def run(self) -> None:
        with passed_on(self._session.path, flush=flush_log) as folder:
            await self._run(folder)

    async def _run(self, folder: Path) -> None:
        try:
            await self._looks.check()
            await self._run_node(folder)
        except asyncio.CancelledError:
            # Nobody is to take it for a session in which nothing happened.
            if not self._started and self._driver.stop_reason == TIME_IS_UP:
                raise self._did_not_come_up() from None
            raise

    async def _run_node(self, folder: Path) -> None:
        place, stream = self._config.nautilus, self._looks.stream
        node = make_node(place, self._keys, self._names, self._link, stream=stream, folder=folder)
        self._driver.watch_signals()
        watching = asyncio.create_task(self._timekeeper.watch())
        try:
            # Not ``run_async``, which goes on without a strategy where the start has failed.
            await node.kernel.start_async()
            if not self._started or not self._link.complete:
                raise self._did_not_come_up()
            await self._looks.first()
            self._cancel_again()
            self._open = True
            await self._looks.run()
        finally:
            watching.cancel()
            if self._open:
                await self._close_entries()
            elif concerned(self._broker):  # what a process before this one may have left
                await self._ending.secure(self._broker)
            await node.stop_async()
            self._open = False
            for task in self._calling:
                task.cancel()
            await asyncio.gather(watching, *self._calling, return_exceptions=True)

    def _did_not_come_up(self) -> FeedError:
        return FeedError(
            "NautilusTrader did not come up",
            where=f"nautilus.where = {self._config.nautilus.where}",
            value=self._looks.error or None,
            fix="gpuscalp logs --logger nautilus says why: a wrong key, a missing permission, no way",
        )

    def now(self) -> int:
        return self._timekeeper.now()

    def poll(self, now_ns: int) -> None:
        if self._open:
            self._driver.guarded(partial(self._timekeeper.close_frames, now_ns))
            self._looks.poll()

    def health(self, device: tuple[str, ...]) -> HealthRecord:
        uncertainty_ns = self._clock.uncertainty_ns
        return HealthRecord(
            None if uncertainty_ns is None else float(round(uncertainty_ns / NS_PER_MS)),
            drifted=self._clock.has_drifted,
            silent=self._streams.silent(time.monotonic_ns()),
            device=device,
            venue=self._looks.objections,
            off_tick=self._off_tick.judge(self._link.rows.off_ticks(), time.monotonic_ns()),
        )

    def send(self) -> None:
        if not self._open:
            # A command may come while the node starts, a step may end after it has stopped. Nothing leaves:
            # the first look ends such orders, and a flattening sends its own again.
            self._broker.unsent()
            return
        for sending in self._broker.unsent():
            if sending.request is None:
                if (order := self._broker.orders.get(sending.order_id)) is not None:
                    self._end(sending.order_id, order.request)
                continue
            if self._closing and not sending.request.reduce_only:
                # Nobody would protect what it gets. The next start finds out that it never arrived.
                self._withheld.add(sending.order_id)
                _LOG.warning("order %d is not sent: the session is ending", sending.order_id)
                continue
            name = client_id(self._session.about.session_id, sending.order_id)
            self._looks.sent(sending.order_id)
            self._link.send(sending.request, name)

    def objection(self, command: Command) -> str:
        difference = self._looks.difference
        if command is not Command.RESUME or difference is None:
            return ""
        if not difference.strange and not self._looks.blocked:
            return ""
        words = difference.words(self._symbols) or "the newest look could not tell whether it is gone"
        return f"the exchange has what nobody here knows: {words}"

    async def take_over(self, rule: Rule) -> str:
        """Adopt or close what nobody here knows; return what is left of it, in words.

        Raises
        ------
        UsageError    nothing was looked at yet, or the exchange takes no calls
        FeedError     nothing can be looked at now
        """
        if not self._open:
            raise UsageError("the account was not looked at yet", where="gpuscalp adopt", fix="wait a moment")
        if patience_s := self._looks.patience_s:
            wait = f"wait {patience_s:.0f} s"
            raise UsageError("the exchange takes no calls", where="gpuscalp adopt", fix=wait)
        return (await self._looks.take_over(rule)).words(self._symbols)

    def status(self) -> dict[str, Any]:
        return source_status(
            self._session,
            self._account,
            self._looks,
            self._link,
            started=self._started,
            where=self._config.nautilus.where,
            silent=tuple(self._symbols[index] for index in self._streams.silent(time.monotonic_ns())),
            clock=clock_status(self._session, self._clock),
            left=self._ending.status(),
        )

    def unprotected(self) -> str:
        return self._ending.words()

    def stream_ages_s(self) -> dict[str, float]:
        return self._streams.ages_s(time.monotonic_ns())

    async def close(self) -> None:
        self._calls.shutdown(wait=False, cancel_futures=True)  # one may hang

    # What the link passes on

    def on_started(self) -> None:
        self._started = True

    def on_rows(self, symbol: int, kind: TickKind) -> None:
        self._streams.on_event(symbol, kind, time.monotonic_ns())
        if not self._open:
            self._link.rows.take()
        elif not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def on_order_event(self, event: Any) -> None:
        name, now_ns = type(event).__name__, self.now()
        number = order_number(self._session.about.session_id, str(event.client_order_id))
        if name in _SILENT:
            if name == "OrderSubmitted" and number is not None:
                self._looks.sent(number)  # only now: the loop may have stood still since it was handed over
            return
        if getattr(event, "reconciliation", False):
            self._looks.want(f"Nautilus reconciled: {name}")
            return
        if number is None:
            self._on_foreign(event, now_ns)
            return
        order = self._broker.orders.get(number)
        heard = self._heard(event, number, now_ns)
        if heard is None:
            self._looks.want(f"{name} of order {number}")
        elif order is not None and heard.kind in _UNSURE and not order.request.reduce_only:
            self._begin(self._confirm(heard, order.request))
            return
        elif order is not None or heard.kind is ReportKind.FILL:
            self._hear(heard)
        if number in self._broker.orders and self._link.is_closed(event.client_order_id):
            self._looks.want(f"order {number} is closed in Nautilus")

    def _heard(self, event: Any, number: int, now_ns: int) -> Heard | None:
        """Return what an event says of an order of ours; None where only the exchange can say it."""
        order = self._broker.orders.get(number)
        heard = heard_of(
            event,
            number,
            self._names.index(event.instrument_id),
            now_ns=now_ns,
            quote=self._account.quote,
            cancelling=order is not None and order.cancelling,
            filled_e8=self._link.filled_e8(event.client_order_id),
        )
        if heard is not None and heard.kind is ReportKind.CANCEL_REJECTED:
            self._looks.want(f"order {number} was not cancelled")
        elif heard is not None and heard.code == NOTHING_TO_REDUCE:
            self._looks.want(f"order {number} had nothing to reduce")
        elif heard is not None and heard.kind is ReportKind.FILL and heard.reason:
            self._looks.want(f"order {number}: {heard.reason}")
        return heard

    def _on_foreign(self, event: Any, now_ns: int) -> None:
        """An order that this session has not sent does something."""
        client = str(event.client_order_id)
        self._looks.want(f"{type(event).__name__} of {client}")
        unasked = client.startswith(OWN_PREFIXES) or self._config.nautilus.unknown == "block"
        known = client in self._alarmed or client in self._looks.strange_names
        if unasked and not known and not is_guard(self._ending.session_id, client):
            self._alarmed.add(client)
            reason = f"{type(event).__name__} of an order that was not sent from here: {client}"
            self._hear(Heard(ReportKind.ALARM, event.ts_event, now_ns, reason=reason))

    # Inside

    def _hear(self, heard: Heard) -> None:
        self._driver.guarded(lambda: self._session.on_heard(heard, time.time_ns()))
        self._driver.kick(force=True)

    def _flush(self) -> None:
        """Hand on the rows that have come since the loop last came round."""
        self._flushing = False
        ticks, now_ns = self._link.rows.take(), time.time_ns()
        if not len(ticks):
            return
        exch_ns = int(ticks["exch_ns"].max())
        self._clock.on_event(now_ns, exch_ns)
        self._driver.guarded(lambda: self._session.on_ticks(ticks, now_ns))
        offset_ns = self._clock.offset_ns
        if offset_ns is not None:
            self._driver.latency.add(Stage.RECEIVE, max(0, now_ns + offset_ns - exch_ns), len(ticks))
        self._driver.kick()

    def _end(self, number: int, request: OrderRequest) -> None:
        """Ask for the end of an order: through Nautilus, or past it where it would not ask."""
        name = client_id(self._session.about.session_id, number)
        if not self._link.end(name):
            self._looks.want(f"order {number} is not open in Nautilus")
            self._begin(self._account.end(name, request))

    async def _confirm(self, heard: Heard, request: OrderRequest) -> None:
        """Hear the end of an entry once the exchange has told how much of it was filled.

        Nautilus counts the trades that it has heard of. After one that was lost the trader would hold less
        than it thinks, and would enter again.
        """
        name = client_id(self._session.about.session_id, heard.order_id)
        told = await self._account.executed_e8(name, request)
        if told is None:
            self._looks.want(f"the exchange has not ended order {heard.order_id}")
            return
        self._hear(replace(heard, known_ns=self.now(), executed_e8=max(heard.executed_e8, told)))

    def _begin(self, call: Coroutine[Any, Any, None]) -> None:
        """Let a call run; one that fails is counted, and leads to a look.

        None is made while the exchange takes no calls: the look that follows says how the order has ended,
        and the end of one that has not is asked for again (``gpuscalp.order_policy``).
        """
        if self._looks.patience_s:
            call.close()
            self._looks.want("the exchange takes no calls")
            return

        async def run() -> None:
            try:
                await call
            except Exception as error:  # whatever the adapter and the network raise
                self._looks.failed(error)
                self._looks.want("a call has failed")

        task = asyncio.get_running_loop().create_task(run())
        self._calling.add(task)
        task.add_done_callback(self._calling.discard)

    def _cancel_again(self) -> None:
        """Ask once more for the end of orders of which a process that has died had asked it."""
        for number, order in self._broker.orders.items():
            if order.cancelling:
                self._end(number, order.request)

    async def _close_entries(self) -> None:
        """Leave no order behind that would open a position while nobody is there to protect it.

        The engine goes on meanwhile: what an entry still gets is booked, and its bracket leaves. Where it
        cannot, because the session has failed, the same is done past it.
        """
        self._closing, ending = True, self._ending
        closed = await ending.close(self._broker, self._withheld, self._end, self._go_on)
        if self._calling:
            await asyncio.wait(self._calling, timeout=_LAST_CALLS_S)
        if not closed and concerned(self._broker):  # else nothing there is ours, whatever has failed
            await ending.secure(self._broker, self._looks.strange_symbols)

    def _go_on(self) -> bool:
        self.poll(time.time_ns())
        self._driver.kick()
        return self._driver.failure is None
