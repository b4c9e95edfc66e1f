"""The first ticks of an archive as one array, for programs that go over them many times.

Owns: the limit. Says whether it is the whole archive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gpuscalp.archive import Archive, choose_venue
from gpuscalp.errors import DataError
from gpuscalp.schema import TICK, Instrument, Ticks

MAX_TICKS: Final = 250_000  # 16 MB


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Ticks in arrival order, in memory.

    Attributes
    ----------
    venue, instruments : where from; the order of the instruments is that of the symbol index
    ticks : TICK[N]
    complete : these are all the ticks that the archive has for them
    """

    venue: str
    instruments: tuple[Instrument, ...]
    ticks: Ticks
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        """Return what a report says about its data."""
        return {
            "venue": self.venue,
            "symbols": [instrument.symbol for instrument in self.instruments],
            "ticks": len(self.ticks),
            "complete": self.complete,
            "from_ns": int(self.ticks["exch_ns"].min()),
            "to_ns": int(self.ticks["exch_ns"].max()),
        }


def read_excerpt(
    path: Path, *, venue: str | None = None, symbols: Sequence[str] = (), max_ticks: int = MAX_TICKS
) -> Excerpt:
    """Read up to ``max_ticks`` ticks from the beginning of an archive.

    Parameters
    ----------
    path : the archive
    venue : may be left out where the archive has only one
    symbols : their order gives the symbol index; empty = all, sorted
    max_ticks : int

    Raises
    ------
    ArchiveError, UsageError
        as the archive
    DataError
        there are no ticks
    """
    archive = Archive.open(path)
    name = choose_venue(archive, venue)
    parts: list[Ticks] = []
    count = 0
    for ticks in archive.tick_batches(name, symbols):
        parts.append(ticks[: max_ticks - count])
        count += len(ticks)
        if count > max_ticks:
            break
    if count == 0:
        raise DataError("there are no ticks", where=f"{path}, venue {name}")
    kept = np.concatenate(parts) if parts else np.empty(0, TICK)
    return Excerpt(name, archive.instruments(name, symbols), kept, count <= max_ticks)
