"""Reading an archive: what it holds, ticks of many symbols merged, whole series of one symbol.

Owns: the public reading interface. Never: changes a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gpuscalp.archive import manifest as manifests
from gpuscalp.archive.manifest import Manifest, Part
from gpuscalp.archive.series import BookSeries
from gpuscalp.archive.streams import Make, PartReader, Rows, in_batches, in_ticks, merged, ticks_of
from gpuscalp.archive.tables import BOOKS, COMMON, QUOTES, TABLES, Table, shown
from gpuscalp.errors import ArchiveError, UsageError
from gpuscalp.schema import BOOK_LEVELS, E8, Instrument, TickKind, Ticks
from gpuscalp.times import require_ns, utc

if TYPE_CHECKING:
    from gpuscalp.arrow import pa

MAX_TICKS: Final = 262_144


class Archive:
    """An archive opened for reading. Make one with ``Archive.open``.

    Time ranges are half-open in exchange time: ``start_ns <= exch_ns < end_ns``; None is open. Rows come in
    arrival order, (recv_ns, seq).
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | Path) -> Archive:
        """Open an archive.

        Raises
        ------
        UsageError
            there is no archive
        ArchiveError
            its manifest is damaged, or a part is missing or of the wrong size
        """
        root = Path(path)
        manifest = manifests.load(root)
        for part in manifest.parts:
            file = root / part.path
            try:
                size = file.stat().st_size
            except OSError:
                size = -1
            if size != part.bytes:
                raise ArchiveError(
                    "a file of the archive is missing" if size < 0 else "a file of the archive was changed",
                    where=str(file),
                    value=f"{size} bytes, the manifest says {part.bytes}" if size >= 0 else None,
                    fix="`gpuscalp data verify` lists the damage; import the sources into a new archive",
                )
        return cls(root, manifest)

    def venues(self) -> tuple[str, ...]:
        return tuple(sorted({part.venue for part in self.manifest.parts}))

    def symbols(self, venue: str) -> tuple[str, ...]:
        """Return the symbols of a venue, sorted.

        Raises
        ------
        UsageError
            the archive does not have the venue
        """
        found = tuple(sorted({part.symbol for part in self.manifest.select(venue)}))
        if not found:
            raise UsageError(
                "the archive has no such venue",
                where=str(self.path),
                value=venue,
                fix=f"it has: {', '.join(self.venues()) or 'nothing'}",
            )
        return found

    def time_range(self, venue: str, symbols: Sequence[str] = ()) -> tuple[int, int]:
        """Return the half-open range of exchange time, ns, that the rows of the symbols lie in."""
        parts = self._parts(venue, symbols)
        assert parts, "a venue with symbols has parts"
        return min(part.first_exch_ns for part in parts), max(part.last_exch_ns for part in parts) + 1

    def span(
        self, venue: str, symbols: Sequence[str], start_ns: int | None, end_ns: int | None
    ) -> tuple[int, int]:
        """Return what there may be of the time that is asked for, half-open; None is open.

        Raises
        ------
        UsageError
            nothing: the range ends before it begins, or lies outside ``time_range``; a time is no integer
        """
        require_ns(start_ns=start_ns, end_ns=end_ns)
        first_ns, last_ns = self.time_range(venue, symbols)
        begin_ns = first_ns if start_ns is None else max(start_ns, first_ns)
        finish_ns = last_ns if end_ns is None else min(end_ns, last_ns)
        if begin_ns >= finish_ns:
            raise UsageError(
                "the archive has nothing in the range asked for",
                where=str(self.path),
                value=f"{utc(begin_ns)} … {utc(finish_ns)}",
                fix=f"it holds {utc(first_ns)} … {utc(last_ns)}",
            )
        return begin_ns, finish_ns

    def instruments(self, venue: str, symbols: Sequence[str] = ()) -> tuple[Instrument, ...]:
        """Return the instruments in the order of ``symbols``, or of all symbols, sorted."""
        names = self._names(venue, symbols)
        return tuple(self.manifest.instrument(venue, symbol) for symbol in names)

    def digest(
        self, venue: str, symbols: Sequence[str] = (), start_ns: int | None = None, end_ns: int | None = None
    ) -> str:
        """Return a sha256 over everything that decides what ``tick_batches`` yields for the same arguments:
        the digests of the parts, their instruments and the range."""
        names = self._names(venue, symbols)
        lines = [f"{venue} {start_ns} {end_ns}"]
        of_symbol: dict[str, list[str]] = {symbol: [] for symbol in names}
        for part in self._parts(venue, names, start_ns=start_ns, end_ns=end_ns):
            of_symbol[part.symbol].append(f"{part.table} {part.sha256}")
        for symbol, instrument in zip(names, self.instruments(venue, names), strict=True):
            lines += [f"{symbol} {instrument.tick_size_e8}", *of_symbol[symbol]]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def tick_batches(
        self,
        venue: str,
        symbols: Sequence[str] = (),
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        kinds: Iterable[TickKind] | None = None,
        max_ticks: int = MAX_TICKS,
    ) -> Iterator[Ticks]:
        """Yield the ticks of all symbols, merged in arrival order (recv_ns, seq, symbol).

        Parameters
        ----------
        venue : one of ``venues()``
        symbols : their order gives the ``symbol`` index of the ticks; empty = all, sorted
        start_ns, end_ns : half-open range of exchange time
        kinds : which ticks; None = all
        max_ticks : length of every batch but the last; does not change the concatenated stream

        Yields
        ------
        TICK[<= max_ticks]
            memory: about one row group per symbol and table, plus two batches

        Raises
        ------
        ArchiveError
            a file is damaged, or a price is no multiple of its instrument's tick size
        UsageError
            the archive does not have the venue or a symbol
        """
        if max_ticks < 1:
            raise UsageError("max_ticks must be positive", value=max_ticks)
        names = self._names(venue, symbols)
        if len(set(names)) != len(names):
            raise UsageError("a symbol is given twice", value=", ".join(names))
        wanted = frozenset(TickKind if kinds is None else kinds)
        tables = tuple(name for name, table in TABLES.items() if table.kind in wanted)
        instruments = self.instruments(venue, names)
        ticks = self.arrivals(
            lambda rows, table, index: ticks_of(rows, table, instruments[index], index),
            venue,
            names,
            start_ns=start_ns,
            end_ns=end_ns,
            tables=tables,
        )
        return in_batches(ticks, max_ticks=max_ticks)

    def arrivals(
        self,
        make: Make,
        venue: str,
        symbols: Sequence[str],
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        tables: Sequence[str] = (),
    ) -> Iterator[npt.NDArray[Any]]:
        """Yield the rows of symbols as ``make`` wants them, in arrival order (recv_ns, seq, symbol).

        Ticks have no room for ids and for the levels of books; this is for who needs those.

        Parameters
        ----------
        make : as ``streams.merged`` has it; the symbol index is that in ``symbols``
        symbols : each once; empty = all, sorted
        start_ns, end_ns : half-open range of exchange time
        tables : empty = all

        Raises
        ------
        ArchiveError
            a file is damaged
        """
        index = {symbol: index for index, symbol in enumerate(self._names(venue, symbols))}
        parts = self._parts(venue, symbols, start_ns=start_ns, end_ns=end_ns, tables=tables)
        readers = [(PartReader(self.path, part, start_ns, end_ns), index[part.symbol]) for part in parts]
        return merged(readers, make)

    def quotes(
        self, venue: str, symbol: str, *, start_ns: int | None = None, end_ns: int | None = None
    ) -> BookSeries:
        """Return all quotes of one symbol, in arrival order."""
        return self._series(QUOTES, venue, symbol, start_ns, end_ns)

    def books(
        self, venue: str, symbol: str, *, start_ns: int | None = None, end_ns: int | None = None
    ) -> BookSeries:
        """Return the top 20 levels of one symbol after every book row, in arrival order."""
        return self._series(BOOKS, venue, symbol, start_ns, end_ns)

    def table(
        self, venue: str, symbol: str, name: str, *, start_ns: int | None = None, end_ns: int | None = None
    ) -> pa.Table:
        """Return all rows of one symbol and table as an Arrow table, in arrival order.

        Times are timestamps (ns, UTC). Prices, quantities and rates are float64, of books lists of 20 values,
        best first. What is not known (a level, the index price, the next funding) is NaN or null.

        Parameters
        ----------
        name : "trades", "quotes", "books", "marks"

        Raises
        ------
        UsageError
            the archive does not have the venue or the symbol, or there is no such table
        ArchiveError
            a file is damaged
        """
        if name not in TABLES:
            raise UsageError("no such table", value=name, fix=f"one of: {', '.join(TABLES)}")
        return shown(TABLES[name], self._rows(TABLES[name], venue, symbol, start_ns, end_ns)[0])

    def _series(
        self, table: Table, venue: str, symbol: str, start_ns: int | None, end_ns: int | None
    ) -> BookSeries:
        rows, instrument = self._rows(table, venue, symbol, start_ns, end_ns)
        what = table.kind.name.lower()
        return BookSeries(
            recv_ns=rows["recv_ns"],
            exch_ns=rows["exch_ns"],
            bid_px=in_ticks(rows["bid_price_e8"], instrument, f"bid of a {what}"),
            ask_px=in_ticks(rows["ask_price_e8"], instrument, f"ask of a {what}"),
            bid_qty=rows["bid_qty_e8"] / E8,
            ask_qty=rows["ask_qty_e8"] / E8,
            quality=rows["quality"],
        )

    def _rows(
        self, table: Table, venue: str, symbol: str, start_ns: int | None, end_ns: int | None
    ) -> tuple[Rows, Instrument]:
        self._names(venue, (symbol,))
        parts = self._parts(venue, (symbol,), start_ns=start_ns, end_ns=end_ns, tables=(table.name,))
        pieces = [rows for part in parts for rows in PartReader(self.path, part, start_ns, end_ns).groups()]
        names = (*COMMON, *table.columns)
        if not pieces:
            empty = {
                name: np.empty((0, BOOK_LEVELS) if name in table.levels else 0, table.dtype(name))
                for name in names
            }
            return empty, self.manifest.instrument(venue, symbol)
        rows = {name: np.concatenate([piece[name] for piece in pieces]) for name in names}
        order = np.lexsort((rows["seq"], rows["recv_ns"]))
        if (np.diff(order) != 1).any():
            rows = {name: values[order] for name, values in rows.items()}
        return rows, self.manifest.instrument(venue, symbol)

    def _names(self, venue: str, symbols: Sequence[str]) -> tuple[str, ...]:
        known = self.symbols(venue)
        for symbol in symbols:
            if symbol not in known:
                raise UsageError(
                    "the archive has no such symbol",
                    where=f"venue {venue} of {self.path}",
                    value=symbol,
                    fix=f"it has: {', '.join(known)}",
                )
        return tuple(symbols) or known

    def _parts(
        self,
        venue: str,
        symbols: Sequence[str],
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        tables: Sequence[str] = (),
    ) -> list[Part]:
        require_ns(start_ns=start_ns, end_ns=end_ns)
        names = self._names(venue, symbols)
        return [
            part
            for part in self.manifest.select(venue, names)
            if (not tables or part.table in tables)
            and (start_ns is None or part.last_exch_ns >= start_ns)
            and (end_ns is None or part.first_exch_ns < end_ns)
        ]


def choose_venue(archive: Archive, venue: str | None) -> str:
    """Return ``venue``, or the only one that the archive has.

    Raises
    ------
    UsageError    none was named and the archive has several, or none
    """
    if venue is not None:
        return venue
    venues = archive.venues()
    if len(venues) != 1:
        raise UsageError(
            "say which venue",
            where=str(archive.path),
            value=", ".join(venues) or "an empty archive",
            fix="--venue NAME",
        )
    return venues[0]
