"""Rows of one symbol between the market state and the writer.

Owns: plain integer buffers, row after row. Never: decides what a row is.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gpuscalp.archive.manifest import Gap
from gpuscalp.archive.tables import BOOKS, COMMON, MARKS, QUOTES, TRADES, Table
from gpuscalp.feeds.book import LocalBook
from gpuscalp.feeds.messages import MarkPrice, Trade
from gpuscalp.schema import BOOK_LEVELS

# Rows of different tables that one message makes are numbered within its share of seq.
SEQ_STEP: Final = 4


class SymbolBuffer:
    """The sink of one symbol (``feeds.market.RowSink``).

    Attributes
    ----------
    seq : to be set to the number of the running message times SEQ_STEP before each message
    muted : rows and gaps are dropped: they are in the archive already
    source : digest of the source of the running message
    counts : rows of that source by table; counted up
    """

    def __init__(self, venue: str, symbol: str) -> None:
        self.seq = 0
        self.muted = False
        self.source = ""
        self.counts: dict[str, int] = {}
        self.gaps: list[Gap] = []
        self._venue, self._symbol = venue, symbol
        self._rows = {table.name: array("q") for table in (TRADES, QUOTES, BOOKS, MARKS)}
        self._trades, self._quotes = self._rows["trades"], self._rows["quotes"]
        self._books, self._marks = self._rows["books"], self._rows["marks"]

    def trade(self, recv_ns: int, exch_ns: int, quality: int, trade: Trade) -> None:
        if self.muted:
            return
        self.counts["trades"] += 1
        self._trades.extend(
            (recv_ns, exch_ns, self.seq, quality, trade.trade_id, trade.price_e8, trade.qty_e8, trade.side)
        )

    def quote(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, best: Sequence[int]) -> None:
        if self.muted:
            return
        self.counts["quotes"] += 1
        self._quotes.extend((recv_ns, exch_ns, self.seq, quality, update_id, *best))

    def book(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, book: LocalBook) -> None:
        if self.muted:
            return
        self.counts["books"] += 1
        self._books.extend((recv_ns, exch_ns, self.seq + 1, quality, update_id))
        self._books.frombytes(book.top_bytes())

    def mark(self, recv_ns: int, exch_ns: int, quality: int, mark: MarkPrice) -> None:
        if self.muted:
            return
        self.counts["marks"] += 1
        self._marks.extend(
            (
                recv_ns,
                exch_ns,
                self.seq,
                quality,
                mark.mark_price_e8,
                mark.index_price_e8,
                mark.funding_rate_e8,
                mark.next_funding_ns,
            )
        )

    def gap(self, kind: str, from_ns: int, to_ns: int, first_id: int, last_id: int) -> None:
        if not self.muted:
            self.gaps.append(
                Gap(self._venue, self._symbol, kind, from_ns, to_ns, first_id, last_id, self.source)
            )

    def drain(self) -> Iterator[tuple[Table, dict[str, npt.NDArray[Any]]]]:
        """Yield the buffered rows as columns, table by table, and forget them."""
        for table in (TRADES, QUOTES, BOOKS, MARKS):
            rows = self._rows[table.name]
            if not rows:
                continue
            names = (*COMMON, *table.columns)
            widths = [BOOK_LEVELS if name in table.levels else 1 for name in names]
            matrix = np.frombuffer(rows, np.int64).reshape(-1, sum(widths))
            columns: dict[str, npt.NDArray[Any]] = {}
            start = 0
            for name, width in zip(names, widths, strict=True):
                block = matrix[:, start] if width == 1 else matrix[:, start : start + width]
                # The array below the view is cleared next.
                columns[name] = np.array(block, table.dtype(name), order="C")
                start += width
            del matrix, block
            del rows[:]
            yield table, columns
