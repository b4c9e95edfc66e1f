"""Whether a state that was read may be computed with: compiled code looks at no bounds.

Owns: the comparison of its arrays with those of a fresh state, and of the counts and places in them with
their sizes. A file that is merely damaged does not come so far, as its digest is wrong; one that somebody has
made may. Never: judges what is no place in an array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, Final

import numpy as np

from gpuscalp.errors import DataError
from gpuscalp.execution.matching import Matcher
from gpuscalp.feeds.book import LocalBook
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.object_graph import attributes
from gpuscalp.ops import display, levels, queues
from gpuscalp.schema import I64

# Arrays that get longer, and along which axis.
_GROWN: Final = {"_cells": 1, "book": 2, "queue": 2, "_buffers": 0}


def check_bounds(read: list[Any], fresh: list[Any]) -> None:
    """Compare objects that were read with new ones of the same session.

    Raises
    ------
    DataError    an array is of another type or size, or a count or place lies outside of one
    """
    waiting: list[tuple[str, Any, Any]] = [("state", read, fresh)]
    found: dict[tuple[int, int], tuple[str, Any, Any]] = {}
    while waiting:
        where, one, other = waiting.pop()
        if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
            if not _is_alike(one, other, _GROWN.get(where.rpartition(".")[2].partition("[")[0])):
                raise _outside(where)
        elif isinstance(other, MethodType):
            waiting.append((where, getattr(one, "__self__", None), other.__self__))
        elif isinstance(other, list | tuple) and isinstance(one, list | tuple):
            pairs = enumerate(zip(one, other, strict=False))
            waiting += [(f"{where}[{index}]", *pair) for index, pair in pairs]
        elif type(other).__module__.startswith("gpuscalp.") and (id(one), id(other)) not in found:
            found[id(one), id(other)] = where, one, other
            if type(one) is not type(other):
                raise _outside(where)
            held = dict(attributes(one))
            waiting += [(f"{where}.{key}", held.get(key), value) for key, value in attributes(other)]
    # Only now: the arrays are arrays.
    for where, one, other in found.values():
        is_inside = _INSIDE.get(type(one))
        try:
            inside = is_inside is None or is_inside(one, other)
        except (TypeError, AttributeError, LookupError, ValueError):  # something in it is of another kind
            inside = False
        if not inside:
            raise _outside(where)


def _outside(where: str) -> DataError:
    return DataError(
        "the state has an array that cannot be",
        where=where,
        fix="the checkpoint is none of this program's: take it away, and the journal is repeated instead",
    )


def _is_alike(one: Any, other: Any, grown: int | None) -> bool:
    """Whether both are arrays of one type, and of one shape but for the axis that may be longer."""
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return False
    if one.dtype != other.dtype or one.ndim != other.ndim or not one.flags.c_contiguous:
        return False
    pairs = enumerate(zip(one.shape, other.shape, strict=True))
    return all(size == least or (axis == grown and size > least) for axis, (size, least) in pairs)


def _book_is_inside(one: LocalBook, _: LocalBook) -> bool:
    counts = one._cells[[levels.BIDS, levels.ASKS], 0]
    inside = bool(((counts >= 0) & (counts < one._cells.shape[1])).all())
    return inside and all(
        _is_alike(kept.levels, np.empty((0, 2), np.int64), 0) and 0 <= kept.bid_count <= len(kept.levels)
        for kept in one._buffer
    )


def _matcher_is_inside(one: Matcher, other: Matcher) -> bool:
    head, book, queue = one.display.head, one.display.book, one.queues.queue
    return one.queues.power == other.queues.power and all(
        _side_is_inside(head[side], book.shape[2], queue[side])
        and head[side, display.PLACES] == len(one.queues.orders[sign])
        for side, sign in ((display.BIDS, 1), (display.ASKS, -1))
    )


def _side_is_inside(head: I64, width: int, queue: I64) -> bool:
    first, end, taken, levels_queued, places = head[: display.PLACES + 1].tolist()
    if not 0 <= first <= end <= min(width, first + display.MOST_LEVELS) or not 0 <= taken <= width:
        return False
    if not 0 <= levels_queued <= places <= queue.shape[1]:
        return False
    # A place is looked for among the prices until it is found.
    keys = queue[queues.PLACE_KEY, :places].tolist()
    queued: list[int] = queue[queues.QUEUE_KEY, :levels_queued].tolist()
    return keys == sorted(keys) and sorted(set(keys)) == queued


def _names_are_the_same(one: Ingest, other: Ingest) -> bool:
    tables: Iterable[tuple[Any, Any]] = zip(one._table, other._table, strict=True)
    return all(np.array_equal(mine, theirs) for mine, theirs in tables)


_INSIDE: Final[dict[type, Callable[[Any, Any], bool]]] = {
    LocalBook: _book_is_inside,
    Matcher: _matcher_is_inside,
    Ingest: _names_are_the_same,
}
