"""When a session decided, and what it knew then: its journal as the timetable of a backtest.

Owns: the reading. Never: trades, or looks at what was decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, final

import msgspec
import numpy as np

from gpuscalp.backtest.moments import Likeness, Moment
from gpuscalp.errors import UsageError
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.recorder import replay
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.journal.blocks import Record
from gpuscalp.live.directory import SessionFile, read_about
from gpuscalp.live.predictor import unpack_rows
from gpuscalp.live.records import (
    AHEAD,
    CLOSED_BEFORE,
    BatchRecord,
    ClockRecord,
    ControlRecord,
    HealthRecord,
    ModelRecord,
    SignalRecord,
    StateRecord,
    decode,
    model_text,
)
from gpuscalp.live.signal_rows import doubts
from gpuscalp.schema import NS_PER_MS, Ticks

# Sections that a session and a backtest share.
SHARED: Final = ("strategy", "orders", "sizing", "risk", "cost", "account", "paper")


def config_of(path: Path) -> dict[str, object]:
    """Return what a session was configured with, as far as a backtest takes it: plain data by section.

    Raises
    ------
    UsageError      there is no session
    """
    config = read_about(path).config
    return {name: msgspec.to_builtins(getattr(config, name)) for name in SHARED}


def likeness(path: Path, *, own_model: bool = True) -> Likeness:
    """Return when a session decided on each of its frames.

    Parameters
    ----------
    path : directory of the session, which need not have ended
    own_model : it is to be traded with the session's model, which must not have changed

    Raises
    ------
    UsageError      there is no session, or operators or a start have commanded it, or its model has changed:
        no backtest does
    JournalError    a byte of the journal was altered, or a part is missing
    """
    about = read_about(path)
    reader = _Reader(path, about, own_model=own_model)
    return Likeness(about.session_id, about.instruments, dict(reader.moments()))


@final
class _Reader:
    """Goes through a journal once."""

    def __init__(self, path: Path, about: SessionFile, *, own_model: bool) -> None:
        self._path, self._own_model = path, own_model
        self._ingest = Ingest(
            about.instruments,
            about.config.feed,
            book_interval_ns=about.config.session.book_interval_ms * NS_PER_MS,
        )
        self._index = {each.symbol: index for index, each in enumerate(about.instruments)}
        self._health = HealthRecord(None, drifted=False)
        self._recv_ns = 0  # largest receive time of a row
        self._reordered = False
        # Those that no frame has taken yet, how many of them the work that is decided on has, and how many
        # there were when its orders left.
        self._clocks: list[tuple[int, int]] = []
        self._clock_count = self._sent_clock_count = 0
        # The work that is being decided on: what all its frames share, and the frame that was last.
        self._shared: Moment | None = None
        self._newest: tuple[int, Moment] | None = None

    def moments(self) -> Iterator[tuple[int, Moment]]:
        """Yield the end of each frame, and its moment."""
        for record, ticks in replay(read_records(self._path / "journal", torn=True), self._ingest):
            yield from self._take(record, ticks)
        yield from self._close()

    def _take(self, record: Record, ticks: Ticks) -> Iterator[tuple[int, Moment]]:
        kind = record.kind
        if len(ticks):
            self._reordered |= int(ticks["recv_ns"].min()) < self._recv_ns
            self._recv_ns = max(self._recv_ns, int(ticks["recv_ns"].max()))
        if kind == RecordKind.CLOCK:
            self._clocks.append((self._recv_ns, decode(record, ClockRecord).exch_ns))
        elif kind == RecordKind.HEALTH:
            self._health = decode(record, HealthRecord)
        elif kind == RecordKind.CONTROL:
            command = decode(record, ControlRecord).command
            raise UsageError(
                "operators have commanded this session, which no backtest repeats",
                where=str(self._path),
                value=str(command),
                fix="`gpuscalp verify` proves it; a backtest with its configuration needs no --like",
            )
        elif kind == RecordKind.MODEL and self._own_model:
            if (change := decode(record, ModelRecord)).role == "lead":
                raise UsageError(
                    "this session has changed its model, which no backtest repeats",
                    where=str(self._path),
                    value=model_text(change),
                    fix="`gpuscalp verify` proves it; --model trades all of it with one model",
                )
        elif kind == RecordKind.STATE:
            event = decode(record, StateRecord).event
            if event in (AHEAD, CLOSED_BEFORE):
                raise UsageError(
                    "a start has halted this session, which no backtest repeats",
                    where=str(self._path),
                    value=event,
                    fix="`gpuscalp verify` proves it; a backtest with its configuration needs no --like",
                )
        elif kind == RecordKind.BATCH:
            batch = decode(record, BatchRecord)
            if not batch.relief:
                yield from self._close()
                self._shared, self._clock_count = self._work(batch), len(self._clocks)
        elif kind == RecordKind.SIGNAL and self._shared is not None:
            if self._newest is not None:
                end_ns, moment = self._newest
                yield end_ns, replace(moment, last=False)
                self._shared = replace(self._shared, clocks=())
            self._newest = self._moment(self._shared, decode(record, SignalRecord))
            self._sent_clock_count = len(self._clocks)
            self._reordered = False

    def _close(self) -> Iterator[tuple[int, Moment]]:
        """Yield the last frame of a work."""
        if self._newest is not None:
            end_ns, moment = self._newest
            sent_clocks = tuple(self._clocks[self._clock_count : self._sent_clock_count])
            yield end_ns, replace(moment, sent_clocks=sent_clocks)
            # Not those that have come since its orders left.
            del self._clocks[: self._sent_clock_count]
        self._newest = self._shared = None

    def _work(self, batch: BatchRecord) -> Moment:
        health = self._health
        unsynced = tuple(self._index[name] for name in self._ingest.unsynced())
        return Moment(
            position=self._recv_ns,
            heard_ns=batch.now_ns,
            decided_ns=0,
            clock_error_ms=float("nan") if health.clock_error_ms is None else health.clock_error_ms,
            device_ok=health.device_ok,
            extra_quality=doubts(health, unsynced, len(self._index)),
            clocks=tuple(self._clocks),
        )

    def _moment(self, shared: Moment, signal: SignalRecord) -> tuple[int, Moment]:
        unproved = unpack_rows(signal.unproved, len(self._index)) if signal.unproved else None
        if signal.late or not signal.margins:
            unproved = np.ones(len(self._index), np.bool_)
        return signal.end_ns, replace(
            shared,
            decided_ns=signal.decided_ns,
            unproved=unproved,
            sent_position=self._recv_ns,
            reordered=self._reordered,
            rows=signal.rows,
        )
