"""Rows that count twice, because sources that overlap in time were imported apart.

Owns: what is the same row. Never: finds trades with equal ids (verify.py: of any sources).

An import merges its sources and drops what they share; two imports know nothing of each other. The archive
does not keep whether a trade is an aggregate, but the two kinds are numbered apart, and ids of one numbering
rise with time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, final

import numpy as np

from gpuscalp.archive.manifest import Part
from gpuscalp.schema import I64, NS_PER_S

# Far more than trades overtake one another, and than the times of files and of streams differ.
_SLACK_NS: Final = 10 * NS_PER_S


@final
class Overlaps:
    """The rows of parts that share time with a part of another import: no others are kept in memory."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._shared = _shared_times(parts)
        # By venue, symbol and table, and then by import: int64[N, 2], exchange times and ids.
        self._rows: dict[tuple[str, str, str], dict[tuple[str, ...], list[I64]]] = {}

    def add(self, part: Part, rows: Mapping[str, Any]) -> None:
        """Take rows of a part."""
        if part.path not in self._shared:
            return
        begin_ns, end_ns = self._shared[part.path]
        exch_ns = rows["exch_ns"]
        ids = rows.get("trade_id", rows.get("update_id", np.zeros_like(exch_ns)))
        keys = np.stack([exch_ns, ids], axis=1)[(exch_ns >= begin_ns) & (exch_ns <= end_ns)]
        of_table = self._rows.setdefault((part.venue, part.symbol, part.table), {})
        of_table.setdefault(part.sources, []).append(keys)

    def problems(self) -> Iterator[str]:
        """Yield one sentence for each symbol and table with rows that count twice."""
        for (venue, symbol, table), imports in self._rows.items():
            keys = [np.unique(np.concatenate(pieces), axis=0) for pieces in imports.values()]
            if table == "trades":
                if _are_numbered_apart(keys):
                    yield (
                        f"{venue} {symbol}: trades and aggregate trades of the same time are there, so that "
                        "volume counts twice (overlapping sources imported separately)"
                    )
                continue
            twice = sum(map(len, keys)) - len(np.unique(np.concatenate(keys), axis=0))
            if twice:
                yield (
                    f"{venue} {symbol}: {twice} {table} are there twice "
                    "(overlapping sources imported separately)"
                )


def _shared_times(parts: Sequence[Part]) -> dict[str, tuple[int, int]]:
    """Return, by path, from when to when a part may share rows with parts of other imports."""
    shared: dict[str, tuple[int, int]] = {}
    alike: dict[tuple[str, str, str], list[Part]] = {}
    for part in sorted(parts, key=lambda part: part.first_exch_ns):
        earlier = alike.setdefault((part.venue, part.symbol, part.table), [])
        earlier[:] = [each for each in earlier if each.last_exch_ns >= part.first_exch_ns]
        for other in earlier:
            if other.sources != part.sources:
                span = part.first_exch_ns, min(part.last_exch_ns, other.last_exch_ns)
                for path in (part.path, other.path):
                    known = shared.get(path, span)
                    shared[path] = min(known[0], span[0]), max(known[1], span[1])
        earlier.append(part)
    return shared


def _are_numbered_apart(keys: Sequence[I64]) -> bool:
    """Whether ids of one import do not lie between those that others have before and behind them."""
    for index, (exch_ns, ids) in enumerate(each.T for each in keys):
        others = np.concatenate([each for at, each in enumerate(keys) if at != index] or [keys[0][:0]])
        others = others[np.argsort(others[:, 0], kind="stable")]
        before = np.searchsorted(others[:, 0], exch_ns - _SLACK_NS, side="right") - 1
        behind = np.searchsorted(others[:, 0], exch_ns + _SLACK_NS)
        within = (before >= 0) & (behind < len(others))
        before, behind, ids = before[within], behind[within], ids[within]
        if ((others[before, 1] > ids) | (others[behind, 1] < ids)).any():
            return True
    return False
