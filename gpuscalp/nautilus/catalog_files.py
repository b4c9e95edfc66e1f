"""The files of a catalog, one group of rows after the other.

Owns: reading events in the order in which they were written. A query of Nautilus's own orders by time alone:
1.221 then mixes up what has the same time where its portions end, and a book that is built up of such changes
is another one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from nautilus_trader.persistence.funcs import class_to_filename, urisafe_identifier
from nautilus_trader.serialization.arrow.serializer import ArrowSerializer

from gpuscalp.errors import DataError, is_out_of_memory


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name what cannot be read, whatever Arrow and Nautilus raise of it.

    Raises
    ------
    DataError    it is damaged, or of another version of NautilusTrader
    """
    from gpuscalp.arrow import pa

    try:
        yield
    except (OSError, pa.ArrowException, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise DataError(
            "a file of the catalog cannot be read",
            where=str(path),
            value=str(error)[:200],
            fix="copy it again, or make the catalog again with the installed version of NautilusTrader",
        ) from None


@final
class EventFiles:
    """The events of one type and instrument.

    Parameters
    ----------
    root : of the catalog
    kind, instrument : TradeTick, QuoteTick or OrderBookDelta, and Nautilus's id
    """

    def __init__(self, root: Path, kind: type, instrument: str) -> None:
        folder = root / "data" / class_to_filename(kind) / urisafe_identifier(instrument)
        self._kind = kind
        # Their names begin with their first times.
        self._groups = self._read(sorted(folder.glob("*.parquet")))
        self._events: list[Any] = []

    def until(self, end_ns: int) -> list[Any]:
        """Return the events received up to a time, and forget them."""
        while not self._events or self._events[-1].ts_init <= end_ns:
            more = next(self._groups, None)
            if more is None:
                break
            self._events += more
        count = bisect_right(self._events, end_ns, key=lambda event: event.ts_init)
        taken, self._events = self._events[:count], self._events[count:]
        return taken

    def _read(self, files: list[Path]) -> Iterator[list[Any]]:
        from gpuscalp.arrow import pq

        for path in files:
            with reading(path), pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    yield ArrowSerializer.deserialize(self._kind, table)
