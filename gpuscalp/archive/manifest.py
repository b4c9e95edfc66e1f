"""The manifest: the one file that says which parts, sources, gaps and instruments an archive has.

Owns: ``manifest.json``, its atomic replacement, and the lock that keeps two writers apart. A Parquet file
that the manifest does not name is not part of the archive: that is what makes a commit atomic.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from gpuscalp import __version__
from gpuscalp.errors import UNREADABLE, ArchiveError, DeadlineError, UsageError
from gpuscalp.files import replace_file
from gpuscalp.locks import take_lock
from gpuscalp.schema import NS_PER_MS, Instrument

FORMAT: Final = 1
NAME: Final = "manifest.json"
LOCK_NAME: Final = ".lock"


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """One Parquet file. Rows are sorted by (recv_ns, seq); times are of its rows, both ends included."""

    venue: str
    symbol: str
    day: str
    table: Annotated[str, Meta(pattern="^(trades|quotes|books|marks)$")]
    path: Annotated[str, Meta(pattern=r"^(?!/|(.*/)?\.\.(/|$))[^\0]*$")]  # within the archive
    rows: int
    first_recv_ns: int
    last_recv_ns: int
    first_exch_ns: int
    last_exch_ns: int
    last_seq: int
    crossed: int
    flagged: int  # rows with any quality bit
    price_gcd_e8: int  # 0 where the table has no prices
    qty_gcd_e8: int
    min_qty_e8: int
    bytes: int
    sha256: str
    footer_crc32: int  # see ``tables.footer_crc32``
    sources: tuple[str, ...] = ()


class Gap(Struct, frozen=True, forbid_unknown_fields=True):
    """Messages known to be missing between two receive times.

    ``kind``: ``depth`` (a break of the update chain), ``trade_id`` or ``agg_trade_id`` (a jump of ids).
    ``first_id`` and ``last_id`` are the missing ids, both included.
    """

    venue: str
    symbol: str
    kind: str
    from_ns: int
    to_ns: int
    first_id: int
    last_id: int
    source: str


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """One imported file: what it held and what became of every line.

    ``lines`` = data lines; ``rows`` by table; ``rejects`` by reason; ``set_aside`` by reason (lines that are
    well-formed and deliberately not rows); ``duplicates``, ``late`` and ``out_of_order`` as defined in
    docs/data.md. ``trade_delay_ns`` was added to the times of trades, of which the file only tells when they
    were made; None: it tells more.
    """

    digest: str
    name: str
    venue: str
    format: str
    bytes: int
    lines: int
    rows: dict[str, int]
    rejects: dict[str, int] = {}
    set_aside: dict[str, int] = {}
    messages: dict[str, int] = {}
    duplicates: int = 0
    late: int = 0
    out_of_order: int = 0
    gaps: int = 0
    first_recv_ns: int = 0
    last_recv_ns: int = 0
    imported_by: str = ""
    trade_delay_ns: int | None = None


class Manifest(Struct, forbid_unknown_fields=True):
    """Everything an archive knows about itself."""

    format: int = FORMAT
    gpuscalp: str = __version__
    pyarrow: str = ""
    parts: list[Part] = []
    gaps: list[Gap] = []
    sources: list[Source] = []
    instruments: list[Instrument] = []

    def select(self, venue: str, symbols: Iterable[str] = (), tables: Iterable[str] = ()) -> list[Part]:
        """Return the parts of a venue, optionally only of some symbols and tables."""
        wanted, kinds = frozenset(symbols), frozenset(tables)
        return [
            part
            for part in self.parts
            if part.venue == venue
            and (not wanted or part.symbol in wanted)
            and (not kinds or part.table in kinds)
        ]

    def trade_delays_ms(self, venue: str, symbols: Iterable[str] = ()) -> tuple[float, ...]:
        """Return by how much trades of a venue's symbols were dated later than they were made, where nothing
        told when they were sent; sorted, each once."""
        digests = {digest for part in self.select(venue, symbols, ("trades",)) for digest in part.sources}
        found = {
            source.trade_delay_ns / NS_PER_MS
            for source in self.sources
            if source.venue == venue and source.digest in digests and source.trade_delay_ns is not None
        }
        return tuple(sorted(found))

    def instrument(self, venue: str, symbol: str) -> Instrument:
        """Return the stored instrument, else one observed from the prices and quantities of its parts.

        Raises
        ------
        ArchiveError
            the archive has no prices of this symbol
        """
        for known in self.instruments:
            if known.venue == venue and known.symbol == symbol:
                return known
        parts = self.select(venue, (symbol,))
        tick = math.gcd(*(part.price_gcd_e8 for part in parts))
        if tick == 0:
            raise ArchiveError(
                "the archive has no prices of this symbol",
                where=f"venue {venue}",
                value=symbol,
                fix="see `gpuscalp data info` for what it holds",
            )
        return Instrument(
            symbol=symbol,
            venue=venue,
            tick_size_e8=tick,
            step_size_e8=math.gcd(*(part.qty_gcd_e8 for part in parts)) or 1,
            min_qty_e8=min((part.min_qty_e8 for part in parts if part.min_qty_e8), default=1),
            min_notional_e8=0,
            source="observed",
        )


def load(archive: Path) -> Manifest:
    """Read the manifest of an archive.

    Raises
    ------
    UsageError
        there is none
    ArchiveError
        it cannot be read, or another version of the format wrote it
    """
    path = archive / NAME
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            "this is not an archive: it has no manifest",
            where=str(archive),
            fix="make one with `gpuscalp data import SRC --out ARCHIVE`",
        ) from None
    except OSError as error:
        raise ArchiveError(
            f"the manifest cannot be read: {error.strerror}", where=str(path), fix="name a readable archive"
        ) from None
    try:
        head = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        found = msgspec.json.decode(head.get("format", msgspec.Raw(b"null")))
        if found != FORMAT:
            raise ArchiveError(
                f"the archive has format {found}, this version reads format {FORMAT}",
                where=str(path),
                fix="import the sources again with this version",
            )
        return msgspec.json.decode(raw, type=Manifest)
    except UNREADABLE as error:
        raise ArchiveError(
            f"the manifest is damaged, or of an earlier version: {error}",
            where=str(path),
            fix="restore it from a copy, or import the sources into a new archive",
        ) from None


def save(archive: Path, manifest: Manifest) -> None:
    """Replace the manifest in one step; a kill at any moment leaves the old one or the new one."""
    manifest.parts.sort(key=lambda part: part.path)
    replace_file(archive / NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=1))


@contextmanager
def writer_lock(archive: Path) -> Iterator[None]:
    """Hold the archive's writer lock. The system frees it when the process dies, however it dies.

    Raises
    ------
    DeadlineError
        another process is writing to this archive: nobody waits for it
    """
    archive.mkdir(parents=True, exist_ok=True)
    lock = take_lock(archive / LOCK_NAME)
    if lock is None:
        raise DeadlineError(
            "another process is writing to this archive",
            where=str(archive),
            fix="wait for the running import to end",
        )
    try:
        yield
    finally:
        os.close(lock)
