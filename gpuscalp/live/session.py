"""A session that runs: everything that has to happen in one order, and survive.

Owns: the order «journal first, then act», starting anew and starting again. Never: knows sockets or tasks:
whoever drives it brings messages and time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from msgspec import Struct, structs

from gpuscalp import __version__
from gpuscalp.errors import ParityError
from gpuscalp.execution.remote import Heard
from gpuscalp.feeds.connection import PLANNED
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.feeds.recorder import Recorder
from gpuscalp.feeds.rest import RestReply
from gpuscalp.feeds.routes import Endpoint
from gpuscalp.journal import JournalWriter, Record, RecordKind, read_records
from gpuscalp.live.checkpoints import Checkpoints, Packed, code_digest
from gpuscalp.live.directory import build, lock, open_models, read_about
from gpuscalp.live.engine import Clock, Outcome
from gpuscalp.live.market import Work
from gpuscalp.live.models import calibrated
from gpuscalp.live.records import (
    AHEAD,
    CLOSED_BEFORE,
    BatchRecord,
    CheckpointRecord,
    ClockRecord,
    Command,
    ControlRecord,
    HealthRecord,
    ModelRecord,
    SessionRecord,
    encode,
    model_text,
)
from gpuscalp.live.repeat import (
    Differences,
    Repeater,
    Tail,
    compare,
    halt_at_start,
    recorded_clock,
    recorded_device,
    written_of,
)
from gpuscalp.live.roles import as_written
from gpuscalp.live.store import Store, Written
from gpuscalp.progress import Progress, silent
from gpuscalp.redaction import redact
from gpuscalp.risk.gate import RiskState
from gpuscalp.schema import NS_PER_S, Ticks

_LOG: Final = logging.getLogger("gpuscalp.session")
_FIRST_MESSAGES_NS: Final = 15 * NS_PER_S  # until then a stream that is silent is no news (docs/feeds.md)
_DURABLE: Final = frozenset({RecordKind.ORDER, RecordKind.FILL, RecordKind.STATE})


@dataclass(frozen=True, slots=True)
class Start:
    """How a session began.

    Attributes
    ----------
    fresh : for the first time
    repeated : records of the journal that were repeated
    torn_bytes : what a crash had left at the journal's end, cut off
    from_seq : where the repetition began
    """

    fresh: bool
    repeated: int
    torn_bytes: int
    from_seq: int


@final
class Session:
    """One session, open for running.

    It is a ``gpuscalp.feeds.client.Receiver``. Order of calls: ``on_messages`` and the other inputs as things
    happen; ``take`` for the next Work; ``apply`` with what the engine made of it, before the next ``take``;
    ``flush`` as often as the configuration says.

    Parameters
    ----------
    path : of an existing session
    now_ns : wall clock
    clock_of : the clock for the decisions on a Work; used here for those that a crash has cut short
    on_progress : told of the records that are repeated at the start
    held : the session's lock, if it has been taken; closed with the session, and where its start is refused

    Raises
    ------
    UsageError      another process runs it
    ParityError     the journal does not come out as it was written
    JournalError    the journal is damaged in other places than its end
    ModelError      a model that it has used is not there, or is not what it was

    Attributes
    ----------
    bundle : the model that it was begun with; ``engine.roles`` has those that it uses
    models : all models that it has
    """

    def __init__(
        self,
        path: Path,
        *,
        now_ns: int,
        clock_of: Callable[[Work], Clock],
        on_progress: Progress = silent,
        held: int | None = None,
    ) -> None:
        self.path, self.about = path, read_about(path)
        self._lock = lock(path) if held is None else held
        self._on_progress = on_progress
        with ExitStack() as undo:  # of what has been taken when the start is refused
            undo.callback(os.close, self._lock)
            about, config = self.about, self.about.config
            self.models, pipeline = open_models(path, about)
            self.bundle = self.models.first
            self.market, self.engine = build(about, self.models, pipeline)
            self.journal = JournalWriter(path / "journal", config.journal, now_ns=now_ns)
            undo.callback(self.journal.abandon)
            self.store = Store(path / "state.sqlite", [each.symbol for each in about.instruments])
            undo.callback(self.store.close)
            self.checkpoints = Checkpoints(
                path / "checkpoints",
                kept=config.session.checkpoints_kept,
                external={"instruments": about.instruments},
            )
            self.open_connections: frozenset[int] = frozenset()
            self.start = self._recover(now_ns, clock_of)
            self.checkpoints.prepare(self.engine)
            undo.pop_all()
        self.recorder = Recorder(self.market.ingest, self.journal)
        self._began_ns, self._complaints = now_ns, list[str]()

    # Inputs: written, then taken. Whatever makes ticks hands them on at once: a journal repeats it so.

    def on_open(self, number: int, endpoint: Endpoint, now_ns: int) -> None:
        self.recorder.on_open(number, endpoint, now_ns)
        _LOG.info("connection %d is open: %s, %d streams", number, endpoint.url, len(endpoint.streams))
        self.open_connections |= {number}

    def on_messages(self, number: int, recv_ns: int, messages: list[bytes]) -> None:
        """Take messages of a connection that came together, and hand on their ticks."""
        self.recorder.on_messages(number, recv_ns, messages)
        self.market.count(recv_ns, len(messages))
        self.push(recv_ns)

    def on_lost(self, number: int, now_ns: int, reason: str) -> None:
        self.recorder.on_lost(number, now_ns, reason)
        if reason in PLANNED:
            _LOG.info("connection %d is closed: %s", number, reason)
        else:
            _LOG.warning("connection %d is lost: %s", number, reason)
        self.open_connections -= {number}
        self.push(now_ns)

    def on_snapshot(self, reply: RestReply, snapshot: DepthSnapshot) -> str:
        """Take a book snapshot; return what became of it."""
        fate = self.recorder.on_snapshot(reply, snapshot)
        self.market.count(reply.recv_ns)
        self.push(reply.recv_ns)
        return fate

    def joined(self, number: int) -> bool:
        return self.recorder.joined(number)

    def poll(self, now_ns: int) -> None:
        """Let go the messages that have waited long enough for others."""
        self.recorder.poll(now_ns)
        self.push(now_ns)

    def push(self, now_ns: int) -> None:
        """Hand on the ticks of the messages that have come."""
        self._relieve(self.market.push(now_ns), now_ns)

    def _relieve(self, gave_way: bool, now_ns: int) -> None:
        if gave_way:
            pushed = self.market.batcher.pushed_count
            self._write(RecordKind.BATCH, BatchRecord(0, pushed, relief=True), now_ns)

    def on_ticks(self, ticks: Ticks, now_ns: int) -> None:
        """Take market events, TICK[N], that came as such."""
        if not len(ticks):
            return
        self.journal.append(RecordKind.TICKS, ticks.tobytes(), recv_ns=now_ns)
        self._relieve(self.market.on_ticks(ticks, now_ns), now_ns)

    def on_heard(self, heard: Heard, now_ns: int) -> None:
        """Take what an exchange has told of orders and money."""
        if heard.reason:  # words of others
            heard = structs.replace(heard, reason=redact(heard.reason))
        self._write(RecordKind.HEARD, heard, now_ns)
        self.market.on_heard(heard)

    def on_clock(self, exch_ns: int, now_ns: int) -> None:
        self._write(RecordKind.CLOCK, ClockRecord(exch_ns), now_ns)
        self._relieve(self.market.on_clock(exch_ns, now_ns), now_ns)

    def on_health(self, health: HealthRecord, now_ns: int) -> None:
        """Take the health if it has changed."""
        if health != self.market.health:
            self._write(RecordKind.HEALTH, health, now_ns)
            self.market.health = health
        if now_ns - self._began_ns < _FIRST_MESSAGES_NS:
            health = structs.replace(health, silent=())
        found = health.complaints([each.symbol for each in self.about.instruments])
        if found != self._complaints:
            self._complaints = found
            _LOG.log(
                logging.WARNING if found else logging.INFO, "health: %s", "; ".join(found) or "well again"
            )

    def on_command(self, command: Command, by: str, now_ns: int) -> None:
        by = redact(by)
        self._write(RecordKind.CONTROL, ControlRecord(command, by), now_ns)
        _LOG.warning("%s, by %s", command, by)
        self.market.on_command(command)

    def on_model(self, record: ModelRecord, now_ns: int) -> ModelRecord:
        """Take a change of models, which counts from the next batch on; return it as it was written.

        Its bundle has to be in ``models``. Let ``models.add`` or ``models.open`` have seen it lately, in a
        thread that nobody waits for: otherwise it is loaded now, and everything stands still meanwhile.

        Raises
        ------
        ModelError, FeatureMismatchError, MemberError, CanaryError
            there is no such model, or the calibration is none of it; nothing was written
        """
        if record.role == "lead" or record.bundle:
            calibrated(self.models.open(record.bundle), record.calibration)
        record = as_written(record)
        self._write(RecordKind.MODEL, record, now_ns)
        another = record.role == "lead" and record.bundle != self.engine.roles.lead.bundle
        _LOG.log(logging.WARNING if another else logging.INFO, "%s", model_text(record))
        self.market.on_model(record)
        return record

    def take(self, exch_ns: int, now_ns: int, *, force: bool = False) -> Work | None:
        """Return the next work if one is due, or in any case with ``force``.

        Parameters
        ----------
        exch_ns, now_ns : exchange time, and wall clock
        """
        taken = self.market.batcher.take(now_ns, force=force)
        if taken is None and not force:
            return None
        self._write(RecordKind.BATCH, BatchRecord(exch_ns, self.market.batcher.pushed_count), now_ns)
        return self.market.work(taken, exch_ns)

    # Outputs: written, and where money is concerned with the kernel and the database, then sent.

    def apply(self, outcome: Outcome, now_ns: int) -> None:
        """Write what the engine has decided, then send its orders."""
        written = [(self._write(kind, body, now_ns), kind, body) for kind, body in outcome.records]
        self._settle(written)
        self.market.send(outcome.orders, outcome.cancels)

    def flush(self) -> None:
        self.journal.flush()

    def checkpoint(self) -> tuple[Packed, int]:
        """Return the state as it is now, for ``Checkpoints.write``; call it between ``apply`` and ``take``.

        The journal has to be on the disk (``settle``) before it is written.
        """
        self.journal.flush()
        seq = self.journal.next_seq
        return self.checkpoints.encode(self.market, self.engine, seq, self.open_connections), seq

    def note_checkpoint(self, name: str, sha256: str, now_ns: int) -> None:
        self._write(RecordKind.CHECKPOINT, CheckpointRecord(name, sha256), now_ns)
        _LOG.debug("checkpoint %s", name)

    def close(self, *, now_ns: int, clean: bool = True) -> None:
        """End the session's process; the session itself can be started again."""
        try:
            if clean:
                self.journal.close(now_ns=now_ns)
            else:
                self.journal.abandon()
        finally:
            self.store.close()
            os.close(self._lock)

    def _write(self, kind: RecordKind, body: Struct, now_ns: int) -> int:
        return self.journal.append(kind, encode(body), recv_ns=now_ns)

    def _settle(self, written: list[Written]) -> None:
        if any(kind in _DURABLE for _, kind, _ in written):
            self.journal.flush()
            self.store.write(written, self.engine.trader.account)

    # Starting again

    def _recover(self, now_ns: int, clock_of: Callable[[Work], Clock]) -> Start:
        end_seq = self.journal.next_seq
        loaded = self.checkpoints.load(self.engine, self.market, until_seq=end_seq)
        from_seq, known = 0, frozenset[int]()
        if loaded is not None:
            self.market, from_seq, known = loaded.market, loaded.seq, loaded.connections
        repeater = Repeater(
            self.market,
            self.engine,
            on_outputs=lambda written: self.store.write(written, self.engine.trader.account),
        )
        repeater.open_connections = set(known)
        if end_seq:
            if self.store.is_new:
                self._restore_store(end_seq)
            records = read_records(self.path / "journal", from_seq=from_seq)
            tail = repeater.run(self._told(record for record in records if record.seq < end_seq))
            _check(repeater.differences, self.path)
            if tail is not None:
                self._finish(tail, clock_of(tail.work), now_ns)
            self.store.write([], self.engine.trader.account)
        self._agree(now_ns)
        self._begin(now_ns)
        # The sockets of a process that has died are gone: what they have not brought is missing.
        self.open_connections = frozenset(repeater.open_connections)
        torn = self.journal.repaired
        return Start(
            fresh=end_seq == 0,
            repeated=end_seq - from_seq,
            torn_bytes=0 if torn is None else torn.cut_bytes,
            from_seq=from_seq,
        )

    def _told(self, records: Iterable[Record]) -> Iterator[Record]:
        for count, record in enumerate(records):
            if not count & 0xFFFF:
                self._on_progress(count, None, "repeating the journal")
            yield record

    def _finish(self, tail: Tail, clock: Clock, now_ns: int) -> None:
        """Finish the step that a crash has cut short: what it had not written is written now."""
        recorded = written_of(tail.outputs)
        outcome = self.engine.step(tail.work, recorded_clock(recorded, clock), recorded_device(recorded))
        differences = Differences()
        begun = Outcome(records=outcome.records[: len(recorded)])
        compare(begun, recorded, tail.outputs, differences)
        _check(differences, self.path)
        rest = outcome.records[len(recorded) :]
        self._settle(recorded + [(self._write(kind, body, now_ns), kind, body) for kind, body in rest])
        self.market.send(outcome.orders, outcome.cancels)

    def _agree(self, now_ns: int) -> None:
        """Hold the state against the database, which must not know more than the journal."""
        witness, trader = self.store.witness(), self.engine.trader
        ahead = witness.seq >= self.journal.next_seq or witness.last_order_id > trader.last_order_id
        looser = witness.state not in ("", RiskState.ACTIVE) and trader.gate.state is RiskState.ACTIVE
        if ahead or looser:
            body = halt_at_start(trader, AHEAD if ahead else CLOSED_BEFORE, witness.last_order_id, now_ns)
            self._settle([(self._write(RecordKind.STATE, body, now_ns), RecordKind.STATE, body)])

    def _restore_store(self, end_seq: int) -> None:
        """Make the database again from the journal."""
        records = read_records(self.path / "journal")
        kept = (each for each in records if each.kind in _DURABLE and each.seq < end_seq)
        self.store.write(written_of(kept), self.engine.trader.account)

    def _begin(self, now_ns: int) -> None:
        about = self.about
        body = SessionRecord(
            version=__version__,
            code=code_digest(),
            session_id=about.session_id,
            bundle=about.bundle,
            graph=self.bundle.contract.graph_hash,
            symbols=tuple(each.symbol for each in about.instruments),
            market=about.market_name,
        )
        self._write(RecordKind.SESSION, body, now_ns)
        self.journal.sync()


def _check(differences: Differences, path: Path) -> None:
    if differences.total:
        raise ParityError(
            "the session does not come out as it was written",
            where=str(path),
            value=f"{differences.total} differences; the first: {differences.first}",
            fix="gpuscalp verify shows all of them; do not go on with this session",
        )
