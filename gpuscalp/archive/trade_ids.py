"""The trade ids of a symbol: which are there twice, and which are not there.

Owns: the account of ids over parts. Never: opens a file.

Ids stand nearly without holes, so they are kept as runs, and an archive of any length fits. Trades and
aggregate trades are numbered apart, and an archive may have the ones of one year and the others of the next.
So two rows are one trade only if they lie in one day or in two that follow one another, and where ids fall
from one day to the next, another numbering begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple, final

import numpy as np

from gpuscalp.archive.manifest import Part
from gpuscalp.schema import I64, NS_PER_DAY


class _Runs(NamedTuple):
    """Runs of whole numbers without holes: the first and the last of each."""

    first: I64
    last: I64


_NONE = _Runs(np.empty(0, np.int64), np.empty(0, np.int64))


class _OfPart(NamedTuple):
    day: int
    runs: _Runs
    sources: frozenset[str]


@final
class TradeIds:
    """The ids of one symbol, of parts in the order of their days.

    Parameters
    ----------
    gaps : the first and the last id of each gap that the manifest lists; they may overlap

    Attributes
    ----------
    twice : rows of a trade beyond the first one
    """

    def __init__(self, gaps: Iterable[tuple[int, int]]) -> None:
        pairs = np.array([*gaps], np.int64).reshape(-1, 2)
        self.twice = 0
        self._gaps = _union(_Runs(pairs[:, 0], pairs[:, 1]))
        self._parts: list[_OfPart] = []
        self._before = self._today = _NONE  # ids of the day before the last part's, and of its own

    def add(self, part: Part, ids: I64) -> None:
        """Take the ids of a part, int64[N > 0] in any order."""
        day = part.first_exch_ns // NS_PER_DAY
        if not self._parts or day != self._parts[-1].day:
            follows = self._parts and day == self._parts[-1].day + 1
            self._before, self._today = self._today if follows else _NONE, _NONE
        ordered = np.sort(ids)
        step = np.diff(ordered)
        edges = np.flatnonzero(step > 1)
        runs = _Runs(ordered[np.append(0, edges + 1)], ordered[np.append(edges, -1)])
        known = _union(self._before, self._today)
        self.twice += int((step == 0).sum() + _count(known, runs).sum())
        self._today = _union(self._today, runs)
        self._parts.append(_OfPart(day, runs, frozenset(part.sources)))

    def missing(self) -> tuple[int, int, int]:
        """Return how many ids between the first and the last of a numbering have no row: those in gaps; those
        behind the last row of one import and before the first of another; the others."""
        numberings: list[list[_OfPart]] = []
        before = 0
        for _, of_day in groupby(self._parts, key=lambda part: part.day):
            parts = list(of_day)
            least = min(int(part.runs.first[0]) for part in parts)
            if not numberings or least < before:
                numberings.append([])
            numberings[-1].extend(parts)
            before = least
        counts = np.array([self._missing_of(parts) for parts in numberings], np.int64).reshape(-1, 3)
        in_gaps, between, others = counts.sum(axis=0).tolist()
        return in_gaps, between, others

    def _missing_of(self, parts: Sequence[_OfPart]) -> tuple[int, int, int]:
        first, last = (np.concatenate(ends) for ends in zip(*(part.runs for part in parts), strict=True))
        of_part = np.repeat(np.arange(len(parts)), [len(part.runs.first) for part in parts])
        order = np.argsort(first, kind="stable")
        first, last, of_part = first[order], last[order], of_part[order]
        reached = np.maximum.accumulate(last)
        reaching = np.maximum.accumulate(np.where(last == reached, np.arange(len(last)), 0))
        at = np.flatnonzero(first[1:] > reached[:-1] + 1)
        holes = _Runs(reached[at] + 1, first[at + 1] - 1)
        in_gaps = _count(self._gaps, holes)
        lost = holes.last - holes.first + 1 - in_gaps
        pairs = zip(of_part[reaching[at]], of_part[at + 1], strict=True)
        apart = np.array([_are_apart(parts[one].sources, parts[other].sources) for one, other in pairs], bool)
        return int(in_gaps.sum()), int(lost[apart].sum()), int(lost[~apart].sum())


def _are_apart(one: frozenset[str], other: frozenset[str]) -> bool:
    return one != other and one.isdisjoint(other)


def _union(*all_runs: _Runs) -> _Runs:
    """Return what is in any of them, sorted; no run touches the next."""
    first, last = (np.concatenate(ends) for ends in zip(*all_runs, strict=True))
    order = np.argsort(first, kind="stable")
    first, reached = first[order], np.maximum.accumulate(last[order])
    begins = np.append(True, first[1:] > reached[:-1] + 1)[: len(first)]
    ends = np.append(begins[1:], True)[: len(first)]
    return _Runs(first[begins], reached[ends])


def _count(runs: _Runs, within: _Runs) -> I64:
    """Return how many numbers of sorted runs lie within each of others."""
    if not len(runs.first):
        return np.zeros_like(within.first)
    below = np.append(0, np.cumsum(runs.last - runs.first + 1))
    counts: list[I64] = []
    for limit in (within.first - 1, within.last):
        at = np.searchsorted(runs.first, limit, side="right")
        counts.append(below[at] - np.where(at > 0, np.maximum(runs.last[at - 1] - limit, 0), 0))
    return counts[1] - counts[0]
