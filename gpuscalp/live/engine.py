"""The deciding side of a session: ticks to frames, features, signals, verdicts and orders.

Owns: the feature stream, the model, the trader, a flattening that is under way. Pure but for ``clock``, which
tells when each decision is made, and for a device that may fail; both are written down, so that a journal
repeats them.

Order of calls: ``step`` with each Work of the market side, in order; what it returns must be written and sent
before the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns
from typing import Final, Protocol, final

from msgspec import Struct

from gpuscalp.bundle import Bundle
from gpuscalp.errors import UsageError
from gpuscalp.execution.booking import BookedFill, book
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.inference import chunk_digests
from gpuscalp.journal.blocks import RecordKind
from gpuscalp.live.market import Work
from gpuscalp.live.models import calibrated
from gpuscalp.live.predictor import HostPredictor, Prediction, Predictor, Told, unpack_rows
from gpuscalp.live.records import (
    Command,
    ModelRecord,
    OrderRecord,
    StateRecord,
    client_id,
    fill_record,
    verdict_record,
)
from gpuscalp.live.roles import Roles
from gpuscalp.live.signal_rows import blank, doubts, market_row, signal_record, signal_row
from gpuscalp.orders import Conditions, MarketRow, Order, SignalRow
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.registry.names import SHORT
from gpuscalp.risk.gate import RiskEvent
from gpuscalp.schema import F32, NS_PER_MS, NS_PER_S, U32, FeatureChunk
from gpuscalp.trader import StepReport, Trader

# (exchange time) at which a decision is made
Clock = Callable[[], int]
# what a journal says of the next frame
Recalled = Callable[[], Told]
# a model by its digest (gpuscalp.live.models)
Opened = Callable[[str], Bundle]

_EVENTS: Final = {
    Command.HALT: RiskEvent.HALT_ENTRIES,
    Command.REDUCE: RiskEvent.REDUCE,
    Command.FLATTEN: RiskEvent.FLATTEN,
    Command.RESUME: RiskEvent.REARM,
}
# What an exchange that others use too may tell.
_ALARMS: Final = {ReportKind.STRANGER: RiskEvent.STRANGER, ReportKind.ALARM: RiskEvent.ALARM}


class Watcher(Protocol):
    """Looks on, and changes nothing: told of every step and of every report, in order, in the engine's
    thread."""

    def on_step(self, market: MarketRow, signals: SignalRow, report: StepReport) -> None:
        """``signals``: those that the trader was given, if it was given all of them. Where a worker alone has
        said some of them they say nothing: ``on_whole`` follows."""

    def on_report(self, report: Report, order: Order | None, booked: BookedFill | None) -> None:
        """``order``: the one that it concerns, as it was before; ``booked``: the fill, if it is one."""

    def on_models(self, roles: Roles) -> None:
        """Lead, shadow or a calibration is another one from the next step on; ``roles`` is not to be kept."""

    def on_whole(self, end_ns: int, lead: SignalRow, shadow: SignalRow | None) -> None:
        """What the CPU says of every row of the frame of the last ``on_step``; ``shadow``: None without one.
        It is told where ``on_step`` has not said it all, after that frame's orders have left; not of frames
        that the lead did not predict in time, and of several that close at once only of the last."""


@dataclass(slots=True)
class Outcome:
    """What became of one Work, in the order in which it has to be written.

    Attributes
    ----------
    records : kind and body
    orders, cancels : to be sent, each with its exchange time
    answers : to the commands, in order: the gate's state, or why there is no such way
    models : changes of models that were taken, before the first frame
    after_ns : end of the last frame that was decided on before them; 0 = there was none
    frames : frames that have closed
    """

    records: list[tuple[RecordKind, Struct]] = field(default_factory=list)
    orders: list[tuple[Order, int]] = field(default_factory=list)
    cancels: list[tuple[int, int]] = field(default_factory=list)
    answers: list[str | UsageError] = field(default_factory=list)
    models: tuple[ModelRecord, ...] = ()
    after_ns: int = 0
    frames: int = 0


@final
class Engine:
    """Decides on S symbols.

    Parameters
    ----------
    pipeline : of the model's graph
    bundle : the model to begin with
    trader : fresh
    opened : gives further models by their digests
    session_id : goes into the ids under which the exchange knows the orders
    predict_within_ms : a frame that is older when its turn comes gets no prediction
    deadline_ms : a prediction that is there later than this after its work was taken is not looked at

    Attributes
    ----------
    trader, stream, roles : to be read between steps
    predictor : may be replaced between steps
    watcher : may be set before the first step
    begins_ns : frames that end no later make features warm and are not decided on; as ``watcher``
    market : the last frame's row; None before the first
    signals : the last frame's signals; None where it got none
    flattening : positions are being closed, or orders ended, by command
    closing : indices of symbols of which the same is true
    refused_ns : when a closing order was last refused: the next waits a second, or a ban would never end
    frame_count, late_count, lost_count : frames decided on in the whole session, those of them whose
        prediction came after its deadline, and those at which a device failed
    """

    def __init__(
        self,
        pipeline: FeaturePipeline,
        bundle: Bundle,
        trader: Trader,
        *,
        opened: Opened,
        session_id: str,
        predict_within_ms: int,
        deadline_ms: int,
    ) -> None:
        self.trader = trader
        self.stream = pipeline.stream()
        # Without a copy: getting the memory for one would hold up the frame at which a worker begins.
        self._state = partial(self.stream.checkpoint, copy=False)
        self.market: MarketRow | None = None
        self.signals: SignalRow | None = None
        self.flattening = False
        self.closing: set[int] = set()
        self.refused_ns = 0
        self.frame_count = self.late_count = self.lost_count = 0
        self.roles = Roles(bundle.contract.digest)
        self.predictor: Predictor = HostPredictor(bundle.ensemble)
        self._guard = bundle.ensemble.guard
        self._shadow: HostPredictor | None = None
        self._shown: F32 | None = None  # the last frame's features, where the stream has them
        self._in_part = False  # whether of some of these rows a worker alone has said what the lead says
        self._first, self._opened = bundle.contract.digest, opened
        self.watcher: Watcher | None = None
        self.begins_ns = 0
        self._session_id = session_id
        self._within_ns = predict_within_ms * NS_PER_MS
        self._deadline_ns = deadline_ms * NS_PER_MS
        self._symbol_count = len(pipeline.instruments)
        self._blank = blank(len(pipeline.instruments))

    def step(self, work: Work, clock: Clock, recalled: Recalled | None = None) -> Outcome:
        """Book what the broker has told, obey, and decide on every frame that the ticks close.

        Parameters
        ----------
        work : the next one
        clock : exchange time
        recalled : of a journal that is repeated; None: what happens now counts
        """
        outcome = Outcome()
        for report in work.reports:
            self._book(report, outcome)
        for command in work.commands:
            outcome.answers.append(self._obey(command, work.now_ns, outcome))
        self._shown = None
        if work.models:
            self._change(work.models, work.now_ns, outcome)
        extra = doubts(work.health, work.unsynced, self._symbol_count)
        for timed in self._chunks(work):
            if timed[0].frames.end_ns[0] > self.begins_ns:
                self._decide(*timed, work, extra, clock, recalled, outcome)
        if work.now_ns - self.refused_ns >= NS_PER_S:
            self._flatten(work.now_ns, outcome)
        return outcome

    def predict_whole(self) -> None:
        """Predict what the last frame did not wait for; call it when what ``step`` returned has been sent.

        That is what the shadow says, and where workers lead, what the lead says of every row: on those that
        the CPU has looked at it is surest of itself, and looks worse than it is, or than an equal shadow.
        """
        waits, shown, self._shown = self.whole_waits, self._shown, None
        if not waits or shown is None or self.watcher is None or self.market is None:
            return
        lead = signal_row(self.predictor.signals(shown)) if self._in_part else self.signals
        assert lead is not None, "features are shown where there are signals"
        shadow = None if self._shadow is None else signal_row(self._shadow.signals(shown))
        self.watcher.on_whole(self.market.end_ns, lead, shadow)

    @property
    def whole_waits(self) -> bool:
        """Whether there is something for ``predict_whole`` to do."""
        wanted = self._in_part or self._shadow is not None
        return wanted and self._shown is not None and self.watcher is not None

    def assume_roles(self) -> None:
        """Predict with those whom ``roles`` names; it has been changed, or replaced.

        Raises
        ------
        ModelError, FeatureMismatchError, MemberError, CanaryError
            one of them is not there, or not what it was
        """
        lead, shadow = self.roles.lead, self.roles.shadow
        bundle = self._opened(lead.bundle)
        self.predictor.use(lead.bundle, calibrated(bundle, lead.calibration))
        self._guard = bundle.ensemble.guard
        self.trader.trained_until_ns = bundle.contract.training.trained_on.end_ns
        self._shadow = None
        if shadow is not None:
            self._shadow = HostPredictor(calibrated(self._opened(shadow.bundle), shadow.calibration))

    def _change(self, models: tuple[ModelRecord, ...], now_ns: int, outcome: Outcome) -> None:
        outcome.models, outcome.after_ns = models, 0 if self.market is None else self.market.end_ns
        for record in models:
            self.roles.take(record, now_ns, outcome.after_ns)
        self.assume_roles()
        if self.watcher is not None:
            self.watcher.on_models(self.roles)

    def _chunks(self, work: Work) -> Iterator[tuple[FeatureChunk, int]]:
        """Yield each closed frame with the time that its features took."""
        began = perf_counter_ns()
        for closed in self.stream.close(work.ticks):
            self.predictor.begin(closed, self._state)
            yield self.stream.step(closed), perf_counter_ns() - began
            began = perf_counter_ns()

    def _decide(
        self,
        chunk: FeatureChunk,
        features_ns: int,
        work: Work,
        extra: U32 | None,
        clock: Clock,
        recalled: Recalled | None,
        outcome: Outcome,
    ) -> None:
        market = self.market = market_row(chunk.frames)
        digests = chunk_digests(chunk)
        began = perf_counter_ns()
        wanted = work.now_ns - market.end_ns <= self._within_ns
        told = None if recalled is None else recalled()
        x = chunk.features[:, :, 0]
        if self._guard is not None:  # behind the digests: what a worker computes has no such bit
            self._guard.mark(x, market.quality)
        predicted = self.predictor.predict(x, digests, wanted=wanted and (told is None or not told.lost))
        if told is not None:
            unproved = unpack_rows(told.unproved, self._symbol_count) if told.unproved else None
            predicted = Prediction(predicted.signals, told.lost, unproved)
        predict_ns = perf_counter_ns() - began
        decided_ns = clock()
        found = predicted.signals
        late = found is not None and decided_ns - work.now_ns > self._deadline_ns
        self.signals = None if found is None or late else signal_row(found)
        signals = self._blank if self.signals is None else self.signals.without(predicted.unproved)
        self.late_count += late
        self.lost_count += predicted.lost
        asked = perf_counter_ns()
        conditions = Conditions(
            now_ns=decided_ns,
            clock_error_ms=float("nan") if work.health.clock_error_ms is None else work.health.clock_error_ms,
            device_ok=work.health.device_ok,
            extra_quality=extra,
        )
        report = self.trader.step(market, signals, conditions)
        self._in_part = predicted.unproved is not None
        if self.watcher is not None:
            self.watcher.on_step(market, self._blank if self._in_part else signals, report)
        self._shown = None if self.signals is None else chunk.features[:, :, 0]
        stages = (features_ns, predict_ns, perf_counter_ns() - asked)
        outcome.frames += 1
        self.frame_count += 1
        record = signal_record(
            report,
            self.signals or self._blank,
            predicted,
            digests,
            decided_ns,
            stages,
            late=late,
            model="" if self.roles.lead.bundle == self._first else self.roles.lead.bundle[:SHORT],
        )
        outcome.records.append((RecordKind.SIGNAL, record))
        for intent, verdict in zip(report.intents, report.verdicts, strict=True):
            outcome.records.append((RecordKind.VERDICT, verdict_record(report.end_ns, intent, verdict)))
        if report.event is not None:
            self._note_state(str(report.event), decided_ns, outcome)
        for order_id in report.cancels:
            self._cancel(self.trader.open_orders[order_id], decided_ns, outcome)
        for order in report.orders:
            self._send(order, decided_ns, outcome)

    def _book(self, report: Report, outcome: Outcome) -> None:
        gate = self.trader.gate
        outcome.records.append((RecordKind.FILL, fill_record(report)))
        if report.kind in _ALARMS:
            self.trader.apply(_ALARMS[report.kind], report.known_ns)
            self._note_state(f"{report.kind}: {report.reason}", report.known_ns, outcome)
            self._end(self.trader.risk_increasing_orders(), report.known_ns, outcome, reason=report.kind)
            return
        if report.kind is ReportKind.REJECTED and (self.flattening or self.closing):
            self.refused_ns = report.known_ns
        if report.kind is ReportKind.CLOSE:
            self.closing.add(report.symbol_index)
            return
        before, order = gate.snapshot(), self.trader.open_orders.get(report.order_id)
        booked = book(self.trader, report)
        if self.watcher is not None:
            self.watcher.on_report(report, order, booked)
        after = gate.snapshot()
        if after.state != before.state:
            self._note_state(after.cause or "", report.known_ns, outcome)

    def _obey(self, command: Command, now_ns: int, outcome: Outcome) -> str | UsageError:
        """Carry a command out; return the gate's state after it, or why it cannot be."""
        trader = self.trader
        try:
            trader.apply(_EVENTS[command], now_ns)
        except UsageError as error:
            return error
        cancels = trader.risk_increasing_orders()
        if command is Command.RESUME:
            self.flattening, cancels = False, ()
        elif command is Command.FLATTEN:
            self.flattening, cancels = True, tuple(trader.open_orders.values())
        self._note_state(str(command), now_ns, outcome)
        self._end(cancels, now_ns, outcome, reason=str(command))
        return str(trader.gate.state)

    def _end(self, orders: Sequence[Order], at_ns: int, outcome: Outcome, *, reason: str) -> None:
        """Ask for the end of orders now: the next frame may be a minute away."""
        for order in orders:
            self.trader.on_cancel(order.order_id)
            self._cancel(order, at_ns, outcome, reason=reason)

    def _flatten(self, now_ns: int, outcome: Outcome) -> None:
        positions = self.trader.account.positions
        self.closing = {index for index in self.closing if positions[index].qty_e8}
        only = None if self.flattening else self.closing
        for order in () if self.market is None else self.trader.flatten(self.market, "flatten", only=only):
            self._send(order, now_ns, outcome)
        self.flattening &= bool(self.trader.open_orders) or any(each.qty_e8 for each in positions)

    def _send(self, order: Order, sent_ns: int, outcome: Outcome) -> None:
        outcome.orders.append((order, sent_ns))
        outcome.records.append((RecordKind.ORDER, self._order_record(order, sent_ns)))

    def _cancel(self, order: Order, sent_ns: int, outcome: Outcome, *, reason: str = "") -> None:
        outcome.cancels.append((order.order_id, sent_ns))
        record = self._order_record(order, sent_ns, cancel=True, reason=reason)
        outcome.records.append((RecordKind.ORDER, record))

    def _order_record(
        self, order: Order, sent_ns: int, *, cancel: bool = False, reason: str = ""
    ) -> OrderRecord:
        return OrderRecord(
            order_id=order.order_id,
            client_id=client_id(self._session_id, order.order_id),
            symbol=order.symbol_index,
            side=order.side,
            qty_e8=order.qty_e8,
            reduce_only=order.reduce_only,
            decided_ns=order.decided_ns,
            sent_ns=sent_ns,
            mid2_e8=order.mid2_e8,
            reason=reason or order.intent.reason,
            cancel=cancel,
            kind=order.kind,
            time_in_force=order.time_in_force,
            price_e8=order.price_e8,
        )

    def _note_state(self, event: str, at_ns: int, outcome: Outcome) -> None:
        outcome.records.append((RecordKind.STATE, StateRecord(at_ns, event, self.trader.gate.snapshot())))
