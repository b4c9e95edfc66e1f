"""Streams rows into XGBoost's binned matrix; the float matrix never exists.

Owns: the adapter between labelled chunks and ``xgboost.DataIter``, and the tally of what went through it.
XGBoost walks the rows several times (sizes, quantiles, bins); each walk computes the features again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from gpuscalp.errors import DataError
from gpuscalp.labels import Direction
from gpuscalp.schema import F64, I64
from gpuscalp.train.dataset import Rows
from gpuscalp.train.device import TrainingDevice
from gpuscalp.train.together import gather
from gpuscalp.xgb import import_xgboost

RowStream = Callable[[], Iterator[Rows]]


@dataclass(slots=True)
class Tally:
    """What one walk over the rows saw.

    Attributes
    ----------
    count : int64[K]           rows by class
    return_sum : float64[K]    Σ of their mid returns, bps
    weight : Σ of the uniqueness: the number of labels that do not overlap, each symbol's counted
    start_ns, end_ns : first entry and last end of a label
    by_symbol : float64[≤ S]   ``weight`` of each symbol, up to the last that has rows
    """

    count: I64 = field(default_factory=lambda: np.zeros(len(Direction), np.int64))
    return_sum: F64 = field(default_factory=lambda: np.zeros(len(Direction)))
    weight: float = 0.0
    start_ns: int = 0
    end_ns: int = 0
    by_symbol: F64 = field(default_factory=lambda: np.zeros(0))

    def add(self, rows: Rows) -> None:
        self.count += np.bincount(rows.direction, minlength=len(Direction))
        self.return_sum += np.bincount(rows.direction, weights=rows.return_bps, minlength=len(Direction))
        self.weight += float(rows.weight.sum())
        first, last = int(rows.end_ns.min()), int(rows.label_end_ns.max())
        self.start_ns = first if self.start_ns == 0 else min(self.start_ns, first)
        self.end_ns = max(self.end_ns, last)
        own: F64 = np.bincount(rows.symbol, rows.weight, len(self.by_symbol)).astype(np.float64)
        own[: len(self.by_symbol)] += self.by_symbol
        self.by_symbol = own

    @classmethod
    def joined(cls, tallies: Sequence[Tally]) -> Tally:
        """Return the tally of all walks together."""
        seen = [tally for tally in tallies if tally.rows]
        symbols = max((len(tally.by_symbol) for tally in tallies), default=0)
        padded = [np.pad(tally.by_symbol, (0, symbols - len(tally.by_symbol))) for tally in tallies]
        return cls(
            count=np.sum([tally.count for tally in tallies], axis=0),
            return_sum=np.sum([tally.return_sum for tally in tallies], axis=0),
            weight=sum(tally.weight for tally in tallies),
            start_ns=min((tally.start_ns for tally in seen), default=0),
            end_ns=max((tally.end_ns for tally in seen), default=0),
            by_symbol=np.sum(padded, axis=0),
        )

    @property
    def rows(self) -> int:
        return int(self.count.sum())

    @property
    def labels_in_time(self) -> float:
        """Labels that do not overlap, of the symbol with the most: the others move with it."""
        return float(self.by_symbol.max(initial=0.0))

    @property
    def share(self) -> F64:
        """float64[K]: share of each class."""
        return self.count / max(self.rows, 1)

    @property
    def expected_share(self) -> F64:
        """float64[K]: share to expect of rows to come, by Laplace's rule over the labels that do not overlap.

        A class that has not come yet may still come: with a share of zero the base rate's log loss would be
        infinite at its first row, and any model would look good beside it.
        """
        independent = self.share * self.weight
        return np.asarray((independent + 1.0) / (independent.sum() + len(independent)), np.float64)

    @property
    def class_return_bps(self) -> F64:
        """float64[K]: mean mid return of each class; 0 for a class without rows."""
        return self.return_sum / np.maximum(self.count, 1)


def binned_matrix(
    stream: RowStream,
    *,
    device: TrainingDevice,
    max_bin: int,
    threads: int,
    what: str,
    expected_rows: int = 0,
    reference: Any = None,
    level_classes: bool = False,
) -> tuple[Any, Tally]:
    """Build a binned matrix from a stream of rows; each of several workers gives its part.

    Parameters
    ----------
    stream : makes a new walk over the same rows at each call
    device : where the rows lie, and in which form the matrix is kept
    max_bin : bins per column; the boosters must be trained with the same number
    threads : OpenMP threads
    what : name of the rows, for errors
    expected_rows : about how many there are, rather too many than too few; decides the form
    reference : matrix whose bins, and whose form, are taken over (held-out rows of the same model)
    level_classes : give each class the share of the weight that it has of the rows; wanted where uniqueness
        goes with the class

    Returns
    -------
    (QuantileDMatrix or ExtMemQuantileDMatrix, Tally of all workers' rows)

    Raises
    ------
    DataError
        there are no rows, or all are of one class and this matrix would be trained on
    """
    xgboost = import_xgboost()

    tally = Tally()
    walk = in_blocks(stream(), device, device.block_bytes)
    ahead = list(islice(walk, 1))
    columns = max(gather(int(ahead[0].x.shape[1]) if ahead else 0))
    complete = device.complete_row(ahead[0].x) if ahead else None
    if columns == 0:
        raise DataError(
            "no row can be used", where=what, fix="more data, fewer folds, or a smaller stride; see data info"
        )

    def again() -> Iterator[Rows]:
        walk = in_blocks(stream(), device, device.block_bytes)
        yield from _at_least_one(list(islice(walk, 1)), walk, columns, device)

    if reference is None:
        form = getattr(xgboost, device.matrix_type(expected_rows, columns, max_bin))
    else:
        form = type(reference)
    options: dict[str, Any] = {"max_bin": max_bin, "nthread": threads, "ref": reference, "missing": np.nan}
    if form is xgboost.ExtMemQuantileDMatrix and device.page_bytes is not None:
        # By itself it fills up to half of a card on PCIe with pages, whoever else is there.
        options["cache_host_ratio"] = 1.0
    with _held_interrupt() as interrupt:
        first = _at_least_one(ahead, walk, columns, device)
        matrix = form(_walks(first, again, complete, device, tally, interrupt), **options)
    device.release()
    tally = Tally.joined(gather(tally))
    if reference is None and np.count_nonzero(tally.count) < 2:
        raise DataError(
            "all training rows are of one class",
            where=what,
            value=Direction(int(tally.count.argmax())).name,
            fix="lower label.threshold_bps (or the barriers), or use a longer label.horizon_ms",
        )
    if level_classes:
        _level_classes(matrix, tally.count)
    return matrix, tally


def _walks(
    first: Iterator[Rows],
    again: RowStream,
    complete: Any,
    device: TrainingDevice,
    tally: Tally,
    interrupt: _Interrupt,
) -> Any:
    """Return the ``xgboost.DataIter`` that hands one block of rows over per call.

    Parameters
    ----------
    first, again : blocks of the first walk, and what makes those of another
    complete : rows without weight that end every walk, for the form of the matrix; None = none
    tally : takes the rows of the first walk
    """

    class Walks(import_xgboost().DataIter):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows = first
            self._complete = complete
            self._untouched = True
            self._first_walk = True
            super().__init__(release_data=True, min_cache_page_bytes=device.page_bytes)

        def next(self, input_data: Any) -> bool:
            self._untouched = False
            rows = None if interrupt.wanted else next(self._rows, None)
            if rows is None:
                self._first_walk = False
                if self._complete is None or interrupt.wanted:
                    return False
                nothing = device.put(np.zeros(1, np.float32))
                input_data(data=self._complete, label=nothing, weight=nothing)
                self._complete = None
                return True
            if self._first_walk and len(rows):
                tally.add(rows)
            input_data(
                data=rows.x,
                label=device.put(rows.direction.astype(np.float32)),
                weight=device.put(rows.weight.astype(np.float32)),
            )
            return True

        def reset(self) -> None:
            # XGBoost resets before its first walk too; the block that was looked at is not made twice. On a
            # GPU it resets twice between walks, and after the last: no walk begins before it is asked for.
            if not self._untouched:
                self._complete = complete
                self._rows = again()

    return Walks()


def _level_classes(matrix: Any, count: I64) -> None:
    """Scale the weights by class, so that each class has the share of the weight that it has of the rows.

    A barrier label that is touched ends early, overlaps few others and is the more unique for it. Left so, UP
    and DOWN would be learned as likelier than they come: a session decides at every frame, and frames have no
    weight. The sum of the weights, the number of labels that do not overlap, stays.

    Parameters
    ----------
    matrix : this worker's part, its weights are changed
    count : int64[K]   rows by class of all workers
    """
    direction, weight = matrix.get_label().astype(np.int8), matrix.get_weight()
    own = np.bincount(direction, weights=weight, minlength=len(count))
    class_weight = np.sum(gather(own), axis=0)
    wanted = class_weight.sum() * count / count.sum()
    factor = np.divide(wanted, class_weight, out=np.ones(len(count)), where=class_weight > 0.0)
    if len(weight):
        matrix.set_weight(weight * factor.astype(np.float32)[direction])


def in_blocks(rows: Iterator[Rows], device: TrainingDevice, block_bytes: int) -> Iterator[Rows]:
    """Join blocks of few rows while they fit into so many bytes.

    A GPU has little memory: nothing here holds a block that is handed out, or what it was joined from.
    """
    waiting: list[Rows] = []
    waiting_bytes = 0
    for block in rows:
        if waiting and waiting_bytes + block.x.nbytes > block_bytes:
            yield _joined(waiting, device)
            waiting_bytes = 0
        waiting.append(block)
        waiting_bytes += block.x.nbytes
        del block
        if waiting_bytes >= block_bytes:
            yield _joined(waiting, device)
            waiting_bytes = 0
    if waiting:
        yield _joined(waiting, device)


def _at_least_one(
    ahead: list[Rows], blocks: Iterator[Rows], columns: int, device: TrainingDevice
) -> Iterator[Rows]:
    """Yield the first block, taken out of its list, and the others; an empty one where there is none.

    XGBoost wants one of every worker.
    """
    if ahead:
        yield ahead.pop()
        yield from blocks
        return
    none = np.empty(0, np.int64)
    yield Rows(
        x=device.put(np.empty((0, columns), np.float32)),
        direction=np.empty(0, np.int8),
        return_bps=np.empty(0),
        weight=np.empty(0),
        end_ns=none,
        label_end_ns=none,
        symbol=np.empty(0, np.int32),
    )


def _joined(blocks: list[Rows], device: TrainingDevice) -> Rows:
    """Join blocks, and empty their list."""
    if len(blocks) == 1:
        return blocks.pop()
    joined = Rows(
        device.join([block.x for block in blocks]),
        *(np.concatenate([getattr(block, name) for block in blocks]) for name in Rows.__slots__[1:]),
    )
    blocks.clear()
    return joined


@dataclass(slots=True)
class _Interrupt:
    wanted: bool = False


@contextmanager
def _held_interrupt() -> Iterator[_Interrupt]:
    """Hold back what would interrupt us while XGBoost calls us, and raise it afterwards.

    XGBoost asks for rows through a ctypes callback. An exception that is raised there and is no ``Exception``
    is printed and dropped, and XGBoost takes the walk for finished: it would train on some of the rows.
    """
    interrupt = _Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt  # signals are handled by the main thread only
        return

    def note(*_: object) -> None:
        interrupt.wanted = True

    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Else it is ignored, ends the process at once, or is heard by a library, and Python cannot put that back.
    before = {number: handler for number, handler in found.items() if callable(handler)}
    for number in before:
        signal.signal(number, note)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if interrupt.wanted:
            raise KeyboardInterrupt
