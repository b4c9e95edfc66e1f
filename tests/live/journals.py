"""What a journal tells, read again for tests: trades by id, gaps, entries, and what was in doubt when.

Decisions and doubts are read from the records themselves; only messages are decoded by the product, because
what they became is what is in question.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from gpuscalp.config import LiveConfig
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import MarkPrice, Trade
from gpuscalp.feeds.recorder import ConnectionNote, replay
from gpuscalp.journal import Record, RecordKind, read_records
from gpuscalp.live.directory import read_about
from gpuscalp.live.records import (
    BatchRecord,
    HealthRecord,
    OrderRecord,
    StateRecord,
    VerdictRecord,
    decode,
)
from gpuscalp.schema import NS_PER_MS, Quality

BLOCKED = Quality.GAP | Quality.RESYNC | Quality.STALE | Quality.CROSSED | Quality.CLOCK_DRIFT


class SeenTrade(NamedTuple):
    symbol: int
    trade_id: int
    qty_e8: int
    gap: bool


class Doubt(NamedTuple):
    """A tick with a blocked quality bit: after which record it was known, and of which moment it is."""

    seq: int
    symbol: int
    exch_ns: int
    quality: int


class _Witness:
    """Notes every trade of one symbol that became a tick."""

    def __init__(self, symbol: int, seen: list[SeenTrade]) -> None:
        self._symbol, self._seen = symbol, seen

    def trade(self, recv_ns: int, exch_ns: int, quality: int, trade: Trade) -> None:
        gap = bool(quality & Quality.GAP)
        self._seen.append(SeenTrade(self._symbol, trade.trade_id, trade.qty_e8, gap))

    def quote(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, best: Sequence[int]) -> None:
        pass

    def book(
        self, recv_ns: int, exch_ns: int, quality: int, update_id: int, top: Sequence[Sequence[int]]
    ) -> None:
        pass

    def mark(self, recv_ns: int, exch_ns: int, quality: int, mark: MarkPrice) -> None:
        pass


class Story:
    """The journal of one session.

    Attributes
    ----------
    records : all
    trades : that became ticks, in order
    doubts : ticks with blocked bits, in order
    unsynced : (from seq, to seq) while the book of a symbol was not whole, by index; to is None at the end
    """

    def __init__(self, path: Path) -> None:
        about = read_about(path)
        self.config: LiveConfig = about.config
        self.symbols = [item.symbol for item in about.instruments]
        self.records: list[Record] = list(read_records(path / "journal"))
        self.trades: list[SeenTrade] = []
        self.doubts: list[Doubt] = []
        self.unsynced: list[tuple[int, int, int | None]] = []
        ingest = Ingest(
            about.instruments,
            about.config.feed,
            book_interval_ns=about.config.session.book_interval_ms * NS_PER_MS,
            observers=[_Witness(index, self.trades) for index in range(len(about.instruments))],
        )
        since: dict[int, int] = {}
        for record, ticks in replay(self.records, ingest):
            doubtful = ticks[(ticks["quality"] & int(BLOCKED)) != 0]
            for symbol, exch_ns, quality in zip(
                doubtful["symbol"].tolist(),
                doubtful["exch_ns"].tolist(),
                doubtful["quality"].tolist(),
                strict=True,
            ):
                self.doubts.append(Doubt(record.seq, symbol, exch_ns, quality))
            now = {self.symbols.index(name) for name in ingest.unsynced()}
            for symbol in now - since.keys():
                since[symbol] = record.seq
            for symbol in since.keys() - now:
                self.unsynced.append((symbol, since.pop(symbol), record.seq))
        self.unsynced += [(symbol, seq, None) for symbol, seq in since.items()]
        self.rejects = dict(ingest.rejects)

    def of(self, kind: RecordKind) -> list[Record]:
        return [record for record in self.records if record.kind == kind]

    @cached_property
    def entries(self) -> list[tuple[int, OrderRecord]]:
        """Orders that open a position, each with the number of the BATCH record that it follows from: what
        was known when it was decided on had been written before that."""
        found, batch_seq = [], -1
        for record in self.records:
            if record.kind == RecordKind.BATCH and not decode(record, BatchRecord).relief:
                batch_seq = record.seq
            elif record.kind == RecordKind.ORDER:
                order = decode(record, OrderRecord)
                if not order.reduce_only and not order.cancel:
                    found.append((batch_seq, order))
        return found

    @cached_property
    def verdicts(self) -> list[tuple[Record, VerdictRecord]]:
        return [(record, decode(record, VerdictRecord)) for record in self.of(RecordKind.VERDICT)]

    @cached_property
    def health(self) -> list[tuple[Record, HealthRecord]]:
        return [(record, decode(record, HealthRecord)) for record in self.of(RecordKind.HEALTH)]

    @cached_property
    def states(self) -> list[StateRecord]:
        return [decode(record, StateRecord) for record in self.of(RecordKind.STATE)]

    @cached_property
    def notes(self) -> list[ConnectionNote]:
        return [decode(record, ConnectionNote) for record in self.of(RecordKind.CONNECTION)]

    @property
    def lost(self) -> list[ConnectionNote]:
        return [note for note in self.notes if note.event == "lost"]

    def refused(self, bit: Quality, symbol: int | None = None) -> list[tuple[Record, VerdictRecord]]:
        """Return the verdicts that were refused because of a quality bit, from the first entry on: at the
        beginning every book has to be fetched."""
        first = self.entries[0][0]
        return [
            (record, verdict)
            for record, verdict in self.verdicts
            if record.seq > first
            and verdict.code == "QUALITY"
            and int(verdict.value or 0) & bit
            and symbol in (None, verdict.symbol)
        ]

    def entries_between(self, first_seq: int, last_seq: int, symbol: int | None = None) -> list[OrderRecord]:
        """Return the entries that were decided on between two records."""
        return [
            order
            for seq, order in self.entries
            if first_seq < seq < last_seq and symbol in (None, order.symbol)
        ]

    def seq_at(self, recv_ns: int) -> int:
        """Return the number of the first record that was written at a time or later."""
        return next((each.seq for each in self.records if each.recv_ns >= recv_ns), self.records[-1].seq)

    def check_no_entry_in_doubt(self) -> None:
        """Assert for every entry: its frame had no doubtful tick, its book was whole, its health was good."""
        doubts: dict[int, list[Doubt]] = {}
        for doubt in self.doubts:
            doubts.setdefault(doubt.symbol, []).append(doubt)
        told = list(self.health)
        health = HealthRecord(None, drifted=True)
        for seq, order in self.entries:
            while told and told[0][0].seq < seq:
                health = told.pop(0)[1]
            where = f"after record {seq}: {order}"
            assert not health.drifted, where
            assert order.symbol not in health.silent, where
            assert order.symbol not in (*health.off_tick, *health.rules), where
            for doubt in doubts.get(order.symbol, ()):
                inside = order.decided_ns - self._frame_ns <= doubt.exch_ns < order.decided_ns
                assert not (inside and doubt.seq < seq), f"{where} in spite of {doubt}"
            for symbol, first, last in self.unsynced:
                broken = first < seq and (last is None or seq < last)
                assert not (broken and symbol == order.symbol), f"{where}: the book was not whole"

    @cached_property
    def _frame_ns(self) -> int:
        from tests.live.sessions import FRAME_MS

        return FRAME_MS * NS_PER_MS
