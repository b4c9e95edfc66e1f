"""From sources that share symbols to rows in the archive.

Owns: the merge of sources by receive time, the market state that they share, the account of every line.
Never: chooses which sources belong together, or what is imported.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from gpuscalp import __version__
from gpuscalp.archive.arrival import Arrival, Record
from gpuscalp.archive.buffers import SEQ_STEP, SymbolBuffer
from gpuscalp.archive.formats import SourceFile
from gpuscalp.archive.journal_lines import Copies
from gpuscalp.archive.manifest import Gap, Source
from gpuscalp.archive.price_range import PriceRange
from gpuscalp.archive.rejects import RejectLog
from gpuscalp.archive.source import lines_of
from gpuscalp.archive.tables import TABLES, is_name
from gpuscalp.archive.writer import COMMIT_BYTES, ArchiveWriter
from gpuscalp.errors import DecodeError
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.lead import Lead, event_ns
from gpuscalp.feeds.market import DUPLICATE, LATE, TAKEN, SymbolMarket
from gpuscalp.feeds.messages import (
    Batch,
    DepthSnapshot,
    DepthUpdate,
    Ignored,
    Liquidation,
    MarkPrice,
    Message,
    PartialBook,
    Ticker,
    Trade,
)
from gpuscalp.feeds.times import to_ns
from gpuscalp.journal.reader import SUFFIX as JOURNAL_SUFFIX
from gpuscalp.schema import NS_PER_DAY, NS_PER_MS

# Messages between two hand-overs to the writer: at most 11 MB of book rows.
_FLUSH_MESSAGES: Final = 16_384
_LAST: Final = 2**63 - 1
# When the trade of an aggTrade was made. What is farther from its sending is no measurement.
_MADE: Final = re.compile(rb'"T":\s*(\d{1,19})')
_LAG_MS_MAX: Final = 60_000
_NAMES: Final[dict[type, str]] = {
    Trade: "trade",
    Ticker: "ticker",
    DepthUpdate: "depth",
    DepthSnapshot: "snapshot",
    MarkPrice: "mark",
    PartialBook: "partial_depth",
}

_OfSymbol = Trade | Ticker | DepthUpdate | DepthSnapshot | MarkPrice | PartialBook
_Handlers = dict[type, Callable[[int, Any], str]]


class SourceRun:
    """One source while it is read, and the account of its lines.

    Parameters
    ----------
    file : the source
    known : it is in the archive already and is read again only for the state of the book
    log : where its rejects go
    strict : the first reject is an error

    Attributes
    ----------
    agg_trade_lags_ms : how many aggTrades were sent so long after their trade
    """

    def __init__(self, file: SourceFile, *, known: bool, log: RejectLog, strict: bool) -> None:
        self.file, self.known, self.log = file, known, log
        self.is_journal = file.path.suffix == JOURNAL_SUFFIX
        self.progress = [0]
        self.lines = 0
        self.rows = dict.fromkeys(TABLES, 0)
        self.fates: Counter[tuple[str, str]] = Counter()
        self.agg_trade_lags_ms: Counter[int] = Counter()
        self.first_recv_ns = self.last_recv_ns = 0
        self._lead = Lead()
        self._strict = strict
        self.arrival = Arrival(self._records())

    def reject(self, number: int, error: DecodeError, raw: bytes) -> None:
        """Count and keep a line that cannot be taken.

        Raises
        ------
        DecodeError
            in strict mode
        """
        if self.known:
            return
        if self._strict:
            where = f"{self.file.path}, line {number}" + (f", {error.where}" if error.where else "")
            fix = "repair the source, or import without --strict: bad lines are then kept in a rejects file"
            raise DecodeError(error.what, where=where, value=error.value, fix=fix)
        self.log.add(number, error, raw)

    def check_times(self, recv_ns: int, message: Message) -> None:
        """Refuse a message whose event time cannot be.

        Raises
        ------
        DecodeError
            the times are more than a day apart, or see ``Lead.check``
        """
        exch_ns = event_ns(message)
        if exch_ns:
            if abs(exch_ns - recv_ns) > NS_PER_DAY:
                raise DecodeError("receive time and event time are more than a day apart", value=recv_ns)
            self._lead.check(recv_ns, exch_ns)

    def measure(self, trade: Trade, raw: bytes) -> None:
        """Note how long after its trade an aggTrade was sent."""
        made = _MADE.search(raw)
        if made is not None and trade.aggregate and not self.known:
            with suppress(DecodeError):  # no time: the trade has been taken all the same
                lag_ms = (trade.exch_ns - to_ns(int(made.group(1)))) // NS_PER_MS
                if abs(lag_ms) <= _LAG_MS_MAX:
                    self.agg_trade_lags_ms[lag_ms] += 1

    def summary(self, gap_count: int) -> Source:
        """Return what the manifest keeps. ``lines`` = messages + rejects + set aside, where damage that is
        no line of its own (a cut compressed file) is not among the rejects of lines."""
        messages: Counter[str] = Counter()
        set_aside: Counter[str] = Counter()
        totals = Counter({DUPLICATE: 0, LATE: 0})
        for (name, fate), count in self.fates.items():
            if fate in (TAKEN, DUPLICATE, LATE):
                messages[name] += count
                totals[fate] += count
            else:
                set_aside[fate] += count
        return Source(
            digest=self.file.digest,
            name=self.file.path.name,
            venue=self.file.venue,
            format=self.file.format,
            bytes=self.file.size_bytes,
            lines=self.lines,
            rows=dict(self.rows),
            rejects=dict(sorted(self.log.counts.items())),
            set_aside=dict(sorted(set_aside.items())),
            messages=dict(sorted(messages.items())),
            duplicates=totals[DUPLICATE],
            late=totals[LATE],
            out_of_order=self.arrival.out_of_order,
            gaps=gap_count,
            first_recv_ns=self.first_recv_ns,
            last_recv_ns=self.last_recv_ns,
            imported_by=f"gpuscalp {__version__}",
            trade_delay_ns=self.file.trade_delay_ns,
        )

    def set_aside(self, reason: str, count: int = 1) -> None:
        self.fates["", reason] += count

    def _records(self) -> Iterator[Record]:
        # Not kept behind the last line: of thousands of files the caches would stay.
        reader, number, held = self.file.reader(), 0, 0
        try:
            for line in lines_of(self.file.path, self.progress):
                number += 1
                try:
                    record = reader.read(line, number) if line else None
                except DecodeError as error:
                    self.reject(number, error, line)
                    continue
                if record is None:
                    held += 1
                else:
                    yield record
        except DecodeError as error:
            # The file ends here; this is no line, so it is a line more for the account to add up.
            number += 1
            self.reject(number, error, b"")
        last = reader.finish()
        if last is not None:
            held -= 1
            yield last
        self.lines = number
        if held:
            self.set_aside("no_message", held)


class Assembly:
    """The sources of one component: those that share symbols, directly or over others.

    Parameters
    ----------
    writer : takes the rows
    book_interval_ns : least exchange time between two book rows
    tell : called now and then with the bytes consumed of all sources
    """

    def __init__(self, writer: ArchiveWriter, *, book_interval_ns: int, tell: Callable[[int], None]) -> None:
        self._writer, self._interval_ns, self._tell = writer, book_interval_ns, tell
        self._decoder, self._copies = Decoder(), Copies()
        self._symbols: dict[str, tuple[SymbolMarket, SymbolBuffer, _Handlers, PriceRange]] = {}
        self._replayed: frozenset[str] = frozenset()
        self._seq_base: dict[str, int] = {}
        self._count = 0

    def run(self, runs: Sequence[SourceRun]) -> Iterator[list[Source]]:
        """Import the sources, given in order of their beginning; yield now and then what was added.

        That is only done where no source is half read, so a source is in the archive as a whole or not at
        all. The caller must commit at the end. Where parts end depends on the sources, known ones included,
        and not on what a kill has left of an import.
        """
        begun: list[SourceRun] = []
        ended: list[SourceRun] = []
        ended_bytes = 0
        # Counting on from before them gives the same seq as the import that was interrupted would have.
        self._replayed = frozenset(run.file.digest for run in runs if run.known)
        take, decode = self._take, self._decoder.decode
        for run, record in _merged(runs, begun):
            if record is not None:
                payload = record[2]
                try:
                    if isinstance(payload, bytes):
                        take(run, record, decode(payload))
                    else:
                        take(run, record, payload)
                except DecodeError as error:
                    run.reject(record[1], error, payload if isinstance(payload, bytes) else b"")
                if self._count % _FLUSH_MESSAGES == 0:
                    self._flush(begun)
                    self._tell(sum(each.progress[0] for each in runs))
            else:
                digests = self._flush(begun)
                # Here, where they are still of the source that was read last; a known one is muted.
                for market, *_ in self._symbols.values():
                    market.close_gaps()
                self._writer.close_parts(besides=digests)
                for each in begun:
                    each.log.close()
                    ended_bytes += each.file.size_bytes
                ended.extend(begun)
                begun.clear()
                if ended_bytes >= COMMIT_BYTES:
                    yield self._add(ended)
                    ended.clear()
                    ended_bytes = 0
        if ended:
            yield self._add(ended)

    def unsynced(self) -> dict[str, int]:
        """Return, by symbol, the depth updates that no snapshot ever came for."""
        waiting = {
            name: market.book.unused + market.book.waiting for name, (market, *_) in self._symbols.items()
        }
        return {name: count for name, count in sorted(waiting.items()) if count}

    def _take(self, run: SourceRun, record: Record, message: Message) -> None:
        self._count += 1
        recv_ns = record[0]
        kind = type(message)
        if isinstance(message, Ignored):
            run.set_aside(message.kind)
            return
        if isinstance(message, Liquidation):
            run.set_aside("liquidation")
            return
        run.check_times(recv_ns, message)
        raw = record[2] if isinstance(record[2], bytes) else None
        copied = raw is not None and run.is_journal and self._copies.has_come(raw)
        if isinstance(message, Batch):
            name, fate = self._take_batch(run, recv_ns, message)
        else:
            name, fate = _NAMES[kind], self._handle(run, recv_ns, kind, message)
        run.fates[name, DUPLICATE if copied and fate == LATE else fate] += 1
        if isinstance(message, Trade) and raw is not None:
            run.measure(message, raw)
        run.first_recv_ns = run.first_recv_ns or recv_ns
        run.last_recv_ns = recv_ns

    def _take_batch(self, run: SourceRun, recv_ns: int, batch: Batch) -> tuple[str, str]:
        """Take an array; return what it counts as. It is one line: taken if one of its messages was."""
        fates: dict[str, str] = {}
        for each in batch.messages:
            if isinstance(each, Ignored):
                fates.setdefault(each.kind, "")
            elif isinstance(each, Liquidation):
                fates.setdefault("liquidation", "")
            else:
                fates[self._handle(run, recv_ns, type(each), each)] = _NAMES[type(each)]
        fate = next((fate for fate in (TAKEN, DUPLICATE, LATE, *fates) if fate in fates), "empty")
        return fates.get(fate, ""), fate

    def _handle(self, run: SourceRun, recv_ns: int, kind: type, message: _OfSymbol) -> str:
        entry = self._symbols.get(message.symbol)
        if entry is None:
            entry = self._new_symbol(message.symbol)
        _, buffer, handlers, prices = entry
        prices.check(message)
        buffer.seq = self._seq_base[message.symbol] + self._count * SEQ_STEP
        buffer.muted, buffer.source, buffer.counts = run.known, run.file.digest, run.rows
        return handlers[kind](recv_ns, message)

    def _new_symbol(self, symbol: str) -> tuple[SymbolMarket, SymbolBuffer, _Handlers, PriceRange]:
        if not is_name(symbol):
            raise DecodeError("symbol is no name", where="s", value=symbol[:80])
        buffer = SymbolBuffer(self._writer.venue, symbol)
        market = SymbolMarket(buffer, book_interval_ns=self._interval_ns)
        handlers: _Handlers = {
            Trade: market.on_trade,
            Ticker: market.on_ticker,
            DepthUpdate: market.on_diff,
            DepthSnapshot: market.on_snapshot,
            MarkPrice: market.on_mark,
            PartialBook: market.on_partial_book,
        }
        prices = PriceRange(self._writer.price_unit_e8(symbol, besides=self._replayed))
        self._symbols[symbol] = (market, buffer, handlers, prices)
        self._seq_base[symbol] = self._writer.next_seq(symbol, besides=self._replayed)
        return self._symbols[symbol]

    def _flush(self, begun: Sequence[SourceRun]) -> tuple[str, ...]:
        """Hand the rows to the writer; return the digests of the sources that they may be of."""
        digests = tuple(run.file.digest for run in begun if not run.known)
        for symbol, (_, buffer, *_) in self._symbols.items():
            for table, columns in buffer.drain():
                self._writer.write(table, symbol, columns, sources=digests)
        return digests

    def _add(self, ended: Sequence[SourceRun]) -> list[Source]:
        gaps: list[Gap] = []
        for _, buffer, *_ in self._symbols.values():
            gaps.extend(buffer.gaps)
            buffer.gaps.clear()
        by_source = Counter(gap.source for gap in gaps)
        fresh = [run for run in ended if not run.known]
        sources = [run.summary(by_source[run.file.digest]) for run in fresh]
        if sources:
            for run in fresh:
                run.log.install(self._writer.path)
            self._writer.add(sources, gaps)
        return sources


def _merged(runs: Sequence[SourceRun], begun: list[SourceRun]) -> Iterator[tuple[SourceRun, Record | None]]:
    """Yield the records of all sources by receive time, which never falls. Sources that begin are added to
    ``begun``; a record of None says that they all have ended."""
    waiting = deque(sorted(((run.file.begin_ns, index) for index, run in enumerate(runs))))
    heap: list[tuple[int, int, Record, Iterator[Record]]] = []
    now_ns = 0
    while waiting or heap:
        while waiting and (not heap or waiting[0][0] <= heap[0][0]):
            index = waiting.popleft()[1]
            # A stamp behind the first lines that is damaged may be older than what others have brought.
            runs[index].arrival.begin_ns = now_ns
            begun.append(runs[index])
            records = iter(runs[index].arrival)
            first = next(records, None)
            if first is not None:
                heapq.heappush(heap, (first[0], index, first, records))
        if heap:
            began_ns, index, record, records = heapq.heappop(heap)
            assert began_ns >= now_ns, "receive times fall"
            limit = min(heap[0][0] if heap else _LAST, waiting[0][0] if waiting else _LAST)
            run = runs[index]
            now_ns = began_ns
            yield run, record
            # Nearly always the source goes on alone for a while.
            for record in records:
                if record[0] >= limit:
                    heapq.heappush(heap, (record[0], index, record, records))
                    break
                now_ns = record[0]
                yield run, record
        if not heap and begun:
            yield begun[-1], None
