"""Writing an archive: rows in, Parquet parts and a manifest out, atomically.

Owns: the split by UTC day, the order of rows, and the commit. Parts are written below ``.staging``,
renamed into place once they are complete, and count only from the moment the manifest names them.
Never: decodes a message.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from gpuscalp import __version__
from gpuscalp.archive import manifest as manifests
from gpuscalp.archive.manifest import Gap, Manifest, Part, Source
from gpuscalp.archive.open_part import OpenPart
from gpuscalp.archive.tables import (
    Columns,
    Table,
    checked_columns,
    day_name,
    is_name,
    part_path,
)
from gpuscalp.errors import ArchiveError, UsageError
from gpuscalp.files import sync_folder
from gpuscalp.schema import NS_PER_DAY, Instrument

STAGING_NAME: Final = ".staging"
# Each open part costs a file descriptor and one unfinished row group. Over the limit the oldest part is
# closed; rows that still come for it open another part of the same day.
OPEN_PARTS_MAX: Final = 400
# A commit writes the whole manifest, which of 27,000 files has 50 MB. One for every file took longer than all
# else. Of sources of so many bytes, packed, a kill undoes a minute's work.
COMMIT_BYTES: Final = 1 << 26


class ArchiveWriter:
    """Write rows of one venue into an archive, new or existing.

    Rows of one symbol and table must arrive sorted by (recv_ns, seq), seq strictly increasing within equal
    recv_ns. The caller must end with ``finish``; leaving a ``with`` block by an exception discards what has
    not been committed.

    Parameters
    ----------
    path : directory of the archive; made if it is not there
    venue : ``binance_usdm``, ``binance_spot`` or ``synthetic``
    instruments : what is known of the symbols; others are observed from their prices

    Raises
    ------
    UsageError
        the directory is something else
    DeadlineError
        another process writes to it
    """

    def __init__(self, path: str | Path, venue: str, *, instruments: Iterable[Instrument] = ()) -> None:
        self.path = Path(path)
        self.venue = _checked_name(venue, "venue")
        if self.path.exists() and not (self.path / manifests.NAME).exists() and not is_empty(self.path):
            raise UsageError(
                "the directory exists and is not an archive",
                where=str(path),
                fix="give a new or empty directory, or an archive to add to",
            )
        self._stack = ExitStack()
        self._stack.enter_context(manifests.writer_lock(self.path))
        try:
            existing = (self.path / manifests.NAME).exists()
            self._manifest = manifests.load(self.path) if existing else Manifest()
            self._staging = self.path / STAGING_NAME
            # What a killed writer left behind was never part of the archive.
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir()
            self.set_instruments(instruments)
        except BaseException:
            self._stack.close()
            raise
        self._open: dict[tuple[str, int, str], OpenPart] = {}
        self._closed: list[Part] = []
        self._sources: list[Source] = []
        self._gaps: list[Gap] = []
        self._numbers: dict[tuple[str, str, str], int] = {}
        for part in self._manifest.parts:
            if part.venue == self.venue:
                self._count_part(part.symbol, part.day, part.table)
        self._last: dict[tuple[str, str], tuple[int, int]] = {}

    @property
    def manifest(self) -> Manifest:
        """The committed state."""
        return self._manifest

    def next_seq(self, symbol: str, *, besides: frozenset[str] = frozenset()) -> int:
        """Return a seq above every committed one of the symbol: later imports go on from here.

        ``besides`` names sources (by digest) whose rows do not count, because they are read once more.
        """
        return 1 + max((part.last_seq for part in self._others(symbol, besides)), default=-1)

    def price_unit_e8(self, symbol: str, *, besides: frozenset[str] = frozenset()) -> int:
        """Return what all committed prices of the symbol are multiples of, 0 for none; as ``next_seq``."""
        return math.gcd(*(part.price_gcd_e8 for part in self._others(symbol, besides)))

    def set_instruments(self, instruments: Iterable[Instrument], *, forget: Iterable[str] = ()) -> None:
        """Store instruments with the next commit, in place of what was known of the same symbols and of those
        to be forgotten."""
        new = {(item.venue, item.symbol): item for item in instruments}
        for venue, symbol in new:
            assert venue == self.venue, f"instrument of {venue} given to a writer of {self.venue}"
            _checked_name(symbol, "symbol")
        gone = {*new, *((self.venue, symbol) for symbol in forget)}
        kept = [item for item in self._manifest.instruments if (item.venue, item.symbol) not in gone]
        self._manifest.instruments = sorted(
            [*kept, *new.values()], key=lambda item: (item.venue, item.symbol)
        )

    def write(self, table: Table, symbol: str, columns: Columns, *, sources: Iterable[str] = ()) -> None:
        """Add rows of one symbol to a table.

        Parameters
        ----------
        columns : those of the table (``tables.COMMON`` and its own); ``quality`` may be left out
        sources : digests of those that the rows may be of

        Raises
        ------
        ArchiveError
            a column is missing, of the wrong type or shape, or the rows are not in arrival order
        """
        rows = checked_columns(table, columns)
        count = len(rows["recv_ns"])
        if count == 0:
            return
        _checked_name(symbol, "symbol")
        self._check_order(table, symbol, rows)
        days = rows["exch_ns"] // NS_PER_DAY
        low, high = int(days.min()), int(days.max())
        for day in range(low, high + 1) if high - low < count else np.unique(days).tolist():
            if low == high:
                chosen = rows
            else:
                mask = days == day
                if not mask.any():
                    continue
                chosen = {name: values[mask] for name, values in rows.items()}
            self._part(symbol, day, table).append(chosen, sources)

    def close_parts(self, *, besides: Iterable[str] = ()) -> None:
        """Complete the files begun, but for those with rows of the sources named."""
        kept = frozenset(besides)
        for key, part in list(self._open.items()):
            if kept.isdisjoint(part.sources):
                self._close_part(key)

    def add(self, sources: Iterable[Source], gaps: Iterable[Gap]) -> None:
        """Complete the files begun, to be committed with their sources and gaps once there is enough. The
        caller must end with ``commit``."""
        self.close_parts()
        self._last.clear()
        self._sources.extend(sources)
        self._gaps.extend(gaps)
        if sum(source.bytes for source in self._sources) >= COMMIT_BYTES:
            self.commit()

    def commit(self) -> None:
        """Make everything written and added so far part of the archive."""
        from gpuscalp.arrow import pa

        self.close_parts()
        for part in self._closed:
            target = self.path / part.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._staging / part.path.replace("/", "+")).replace(target)
        for folder in {(self.path / part.path).parent for part in self._closed}:
            sync_folder(folder)
        manifest = self._manifest
        manifest.gpuscalp, manifest.pyarrow = __version__, pa.__version__
        manifest.parts.extend(self._closed)
        manifest.sources.extend(self._sources)
        manifest.gaps.extend(self._gaps)
        manifests.save(self.path, manifest)
        for each in (self._closed, self._sources, self._gaps, self._last):
            each.clear()

    def finish(self) -> None:
        """Commit and let go of the archive."""
        self.commit()
        self.close()

    def close(self) -> None:
        """Let go of the archive; rows that were not committed are discarded."""
        for part in self._open.values():
            part.discard()
        self._open.clear()
        shutil.rmtree(self._staging, ignore_errors=True)
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _others(self, symbol: str, besides: frozenset[str]) -> list[Part]:
        parts = self._manifest.select(self.venue, (symbol,))
        return [part for part in parts if not part.sources or not besides.issuperset(part.sources)]

    def _check_order(self, table: Table, symbol: str, rows: dict[str, npt.NDArray[Any]]) -> None:
        recv, seq = rows["recv_ns"], rows["seq"]
        last = self._last.get((symbol, table.name))
        step, seq_step = np.diff(recv), np.diff(seq)
        wrong = np.flatnonzero((step < 0) | ((step == 0) & (seq_step <= 0)))
        if wrong.size or (last is not None and (int(recv[0]), int(seq[0])) <= last):
            raise ArchiveError(
                "rows are not in arrival order (recv_ns, seq)",
                where=f"{table.name} of {symbol}, row {int(wrong[0]) + 1 if wrong.size else 0} of this write",
                fix="sort the rows by recv_ns and number them with seq",
            )
        self._last[symbol, table.name] = (int(recv[-1]), int(seq[-1]))

    def _part(self, symbol: str, day: int, table: Table) -> OpenPart:
        key = (symbol, day, table.name)
        part = self._open.pop(key, None)
        if part is None:
            while len(self._open) >= OPEN_PARTS_MAX:
                self._close_part(next(iter(self._open)))
            path = self._next_path(symbol, day_name(day), table.name)
            part = OpenPart(table, self.venue, symbol, day_name(day), path, self._staging)
        self._open[key] = part  # re-inserted: the dict is ordered by last use
        return part

    def _next_path(self, symbol: str, day: str, table: str) -> str:
        number = self._numbers.get((symbol, day, table), 0)
        self._count_part(symbol, day, table)
        return part_path(self.venue, symbol, day, table, number)

    def _count_part(self, symbol: str, day: str, table: str) -> None:
        key = (symbol, day, table)
        self._numbers[key] = self._numbers.get(key, 0) + 1

    def _close_part(self, key: tuple[str, int, str]) -> None:
        self._closed.append(self._open.pop(key).close())


def _checked_name(name: str, what: str) -> str:
    if not is_name(name):
        raise ArchiveError(f"{what} cannot be a folder name", value=name, fix="use letters, digits, _ and -")
    return name


def is_empty(path: Path) -> bool:
    """Whether a directory is empty but for what a writer killed before its first commit leaves behind."""
    if not path.is_dir():
        return False
    names = {item.name for item in path.iterdir()}
    ours = {manifests.LOCK_NAME, STAGING_NAME, f".{manifests.NAME}.partial", "rejects"}
    rest = {name for name in names - ours if not name.startswith("venue=")}
    return not names or (manifests.LOCK_NAME in names and not rest)
