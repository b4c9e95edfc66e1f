"""A session once more from its journal: for a restart, and for the proof that it was what it says.

Owns: which recorded outputs belong to which batch, and the comparison. Everything is computed anew and
compared byte for byte; only what each frame was told is taken from the record: times, a device's failure, and
which rows it alone had computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, final

import msgspec
import numpy as np

from gpuscalp.errors import JournalError
from gpuscalp.execution.remote import Heard, RemoteBroker
from gpuscalp.feeds.recorder import ConnectionNote, replay
from gpuscalp.journal.blocks import Record, RecordKind
from gpuscalp.live.engine import Engine, Outcome
from gpuscalp.live.market import Market, Work
from gpuscalp.live.predictor import Rows, Told, unpack_rows
from gpuscalp.live.records import (
    AHEAD,
    CLOSED_BEFORE,
    BatchRecord,
    ClockRecord,
    ControlRecord,
    FillRecord,
    HealthRecord,
    ModelRecord,
    OrderRecord,
    SignalRecord,
    StateRecord,
    VerdictRecord,
    decode,
    encode,
)
from gpuscalp.live.store import Written
from gpuscalp.risk.gate import RiskEvent
from gpuscalp.schema import TICK, Ticks
from gpuscalp.trader import Trader

OUTPUTS: Final[dict[int, type[msgspec.Struct]]] = {
    RecordKind.SIGNAL: SignalRecord,
    RecordKind.VERDICT: VerdictRecord,
    RecordKind.ORDER: OrderRecord,
    RecordKind.FILL: FillRecord,
    RecordKind.STATE: StateRecord,
}
_NEXT: Final = "a frame was decided on that the journal does not have"


@dataclass(slots=True)
class Differences:
    """What was compared, and what did not come out as it was written.

    Attributes
    ----------
    frames, rows : compared; a row is one symbol at one frame
    differing : rows whose features, quotes or quality differ, or whose margins do
    margins_differing : those of them with equal features
    unproved_differing : rows beside these of which a worker had said something else than the CPU says;
        nobody had believed it
    other_differing : by kind: verdicts, orders, fills, states, and frames in what follows from the rows
    first : the first difference in words
    """

    frames: int = 0
    rows: int = 0
    differing: int = 0
    margins_differing: int = 0
    unproved_differing: int = 0
    other_differing: dict[str, int] = field(default_factory=dict)
    first: str = ""

    @property
    def total(self) -> int:
        return self.differing + sum(self.other_differing.values())

    def note(self, kind: str, where: str) -> None:
        self.other_differing[kind] = self.other_differing.get(kind, 0) + 1
        self.first = self.first or f"{kind}: {where}"


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a journal ends in the middle of something: a batch that was taken and not finished.

    Attributes
    ----------
    work : what the engine had been given
    outputs : what had been written of its outcome
    """

    work: Work
    outputs: tuple[Record, ...]


@final
class Repeater:
    """Repeats a session.

    Parameters
    ----------
    market, engine : in the state before the first record; changed
    on_outputs : told of what each step had written, with sequence numbers
    on_step : told of each outcome, for those who look on

    Attributes
    ----------
    differences : so far
    open_connections : numbers of connections that had not ended
    now_ns : receive time of the newest record
    """

    def __init__(
        self,
        market: Market,
        engine: Engine,
        *,
        on_outputs: Callable[[list[Written]], None] | None = None,
        on_step: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._market, self._engine = market, engine
        self._on_outputs, self._on_step = on_outputs, on_step
        self._work: Work | None = None
        self._outputs: list[Record] = []
        self.differences = Differences()
        self.open_connections: set[int] = set()
        self.now_ns = 0

    def run(self, records: Iterable[Record]) -> Tail | None:
        """Take all records in order; return what the journal breaks off in, if it does.

        Raises
        ------
        JournalError, DecodeError    a record is none of its kind
        """
        batcher = self._market.batcher
        batcher.by_hand = True
        try:
            for record, ticks in replay(self._watched(records), self._market.ingest):
                self._take(record, ticks)
        finally:
            batcher.by_hand = False
        if self._outputs and self._work is None:
            raise JournalError("an outcome without a batch", where=f"record {self._outputs[0].seq}")
        if self._work is None:
            return None
        return Tail(self._work, tuple(self._outputs))

    def _watched(self, records: Iterable[Record]) -> Iterable[Record]:
        """Yield the records; finish what an input record ends, before it is taken."""
        for record in records:
            self.now_ns = max(self.now_ns, record.recv_ns)
            if record.kind not in OUTPUTS and self._outputs:
                self._finish()
            if record.kind in (RecordKind.RAW, RecordKind.REST):
                self._market.count(record.recv_ns)
            elif record.kind == RecordKind.CONNECTION:
                note = decode(record, ConnectionNote)
                if note.event == "open":
                    self.open_connections.add(note.number)
                elif note.event == "lost":
                    self.open_connections.discard(note.number)
            yield record

    def _take(self, record: Record, ticks: Ticks) -> None:
        market, kind = self._market, record.kind
        if len(ticks):
            market.batcher.push(ticks, record.recv_ns)
        if kind == RecordKind.STATE and (body := decode(record, StateRecord)).event in (AHEAD, CLOSED_BEFORE):
            self._halt(body, record)
        elif kind in OUTPUTS:
            self._outputs.append(record)
        elif kind == RecordKind.BATCH:
            self._take_batch(decode(record, BatchRecord), record)
        elif kind == RecordKind.TICKS:
            market.on_ticks(np.frombuffer(record.body, TICK), record.recv_ns)
        elif kind == RecordKind.HEARD:
            market.on_heard(decode(record, Heard))
        elif kind == RecordKind.CLOCK:
            market.on_clock(decode(record, ClockRecord).exch_ns, record.recv_ns)
        elif kind == RecordKind.HEALTH:
            market.health = decode(record, HealthRecord)
        elif kind == RecordKind.CONTROL:
            market.on_command(decode(record, ControlRecord).command)
        elif kind == RecordKind.MODEL:
            market.on_model(decode(record, ModelRecord))

    def _take_batch(self, batch: BatchRecord, record: Record) -> None:
        market = self._market
        if batch.relief:
            market.batcher.relieve()
            return
        if self._work is not None:
            self._finish()
        if batch.pushed != market.batcher.pushed_count:
            self.differences.note(
                "ticks", f"record {record.seq}: {market.batcher.pushed_count} instead of {batch.pushed}"
            )
        taken = market.batcher.take(record.recv_ns, force=True)
        self._work = market.work(taken, batch.now_ns)

    def _halt(self, recorded: StateRecord, record: Record) -> None:
        """Halt as a start did, which had finished what came before it."""
        if self._work is not None:
            self._finish()
        trader = self._engine.trader
        found = halt_at_start(trader, recorded.event, recorded.last_order_id, recorded.at_ns)
        if encode(found) != record.body:
            self.differences.note("states", f"record {record.seq}")

    def _finish(self) -> None:
        """Do what the engine did with the last batch, compare, and send what it had sent."""
        records, self._outputs = self._outputs, []
        work, self._work = self._work, None
        if work is None:
            raise JournalError("an outcome without a batch", where=f"record {records[0].seq}")
        written = written_of(records)
        outcome = self._engine.step(work, recorded_clock(written), recorded_device(written))
        compare(outcome, written, records, self.differences)
        self._market.send(outcome.orders, outcome.cancels)
        if isinstance(self._market.broker, RemoteBroker):
            self._market.broker.unsent()  # it left then, or never did
        if self._on_outputs is not None and written:
            self._on_outputs(written)
        if self._on_step is not None:
            self._on_step(outcome)


def written_of(records: Iterable[Record]) -> list[Written]:
    """Return records of outputs with what they say."""
    return [(each.seq, RecordKind(each.kind), decode(each, OUTPUTS[each.kind])) for each in records]


def halt_at_start(trader: Trader, event: str, last_order_id: int, now_ns: int) -> StateRecord:
    """Halt because of what the database knows; return what is to be written, which repeats it."""
    trader.resume_ids(last_order_id)
    trader.apply(RiskEvent.HALT, now_ns)
    return StateRecord(now_ns, event, trader.gate.snapshot(), last_order_id)


def recorded_clock(written: Iterable[Written], then: Callable[[], int] | None = None) -> Callable[[], int]:
    """Return a clock that tells the recorded times of decision, one by one, and then those of ``then``.

    Without ``then`` a decision that was not recorded gets the last recorded time, and shows as a difference.
    """
    times = deque(body.decided_ns for _, _, body in written if isinstance(body, SignalRecord))
    last = times[-1] if times else 0

    def clock() -> int:
        if times:
            return times.popleft()
        return last if then is None else then()

    return clock


def recorded_device(written: Iterable[Written]) -> Callable[[], Told]:
    """Return what tells, frame by frame, what a device did at it; then that nothing happens."""
    told = deque(Told(body.lost, body.unproved) for _, _, body in written if isinstance(body, SignalRecord))
    return lambda: told.popleft() if told else Told()


def compare(
    outcome: Outcome, written: list[Written], records: Iterable[Record], differences: Differences
) -> None:
    """Compare what came out with what was written, record by record."""
    bodies = [record.body for record in records]
    for index in range(max(len(outcome.records), len(written))):
        if index >= len(written):
            kind, body = outcome.records[index]
            differences.note(_plural(kind), _NEXT if isinstance(body, SignalRecord) else "one too many")
            continue
        seq, kind, recorded = written[index]
        where = f"record {seq}"
        if index >= len(outcome.records) or outcome.records[index][0] is not kind:
            differences.note(_plural(kind), where)
            continue
        found = outcome.records[index][1]
        if isinstance(found, SignalRecord) and isinstance(recorded, SignalRecord):
            found = msgspec.structs.replace(found, stages_ns=recorded.stages_ns)
            _compare_rows(found, recorded, where, differences)
        elif encode(found) != bodies[index]:
            differences.note(_plural(kind), where)


def _compare_rows(found: SignalRecord, recorded: SignalRecord, where: str, differences: Differences) -> None:
    rows, rows_then = (np.frombuffer(each.rows, np.uint64) for each in (found, recorded))
    differences.frames += 1
    differences.rows += len(rows_then)
    if found == recorded:
        return
    if any(
        len(getattr(found, name)) != len(getattr(recorded, name)) for name in ("rows", "margins", "signal")
    ):
        differences.note("frames", where)
        return
    other = rows != rows_then
    margins = np.zeros(len(rows), bool)
    if found.margins:
        margins = np.frombuffer(found.margins, np.uint64) != np.frombuffer(recorded.margins, np.uint64)
    if recorded.unproved:
        unproved = unpack_rows(recorded.unproved, len(rows))
        differences.unproved_differing += int((margins & unproved & ~other).sum())
        margins &= ~unproved
        found = _with_word(found, recorded, unproved)
        if found == recorded:
            return
    differences.margins_differing += int((margins & ~other).sum())
    count = int((other | margins).sum())
    differences.differing += count
    if count:
        first = int(np.flatnonzero(other | margins)[0])
        differences.first = differences.first or f"row {first} of frame {recorded.end_ns}, {where}"
    else:
        differences.note("frames", where)


def _with_word(found: SignalRecord, recorded: SignalRecord, unproved: Rows) -> SignalRecord:
    """Return ``found`` with what a worker had said of rows that nobody had proved."""
    merged = {}
    for name in ("margins", "signal"):
        ours, theirs = (
            np.frombuffer(getattr(each, name), np.uint8).reshape(len(unproved), -1)
            for each in (found, recorded)
        )
        merged[name] = np.where(unproved[:, None], theirs, ours).tobytes()
    return msgspec.structs.replace(found, **merged)


def _plural(kind: RecordKind) -> str:
    return {RecordKind.SIGNAL: "frames"}.get(kind, f"{kind.name.lower()}s")
