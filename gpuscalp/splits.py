"""Walk-forward folds over time, purged by label horizon, with an embargo that cannot be turned off.

Owns: where train and test begin and end, and which rows fall into which.
Never: sees a feature, a price or a file.

A row has an entry and an interval ``[end_ns, horizon_end_ns]``, as long for every row: a label that is
decided before does not shorten it, or what the price did would decide which rows there are. A train row's
interval never meets the test interval widened by the embargo on both sides; a test row's lies inside the test
interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gpuscalp.config import SplitConfig
from gpuscalp.errors import ConfigError, DataError
from gpuscalp.schema import I64, NS_PER_MS, NS_PER_S

Flags = npt.NDArray[np.bool_]

# A part shorter than this many horizons has too few independent labels to say anything.
PART_HORIZONS_MIN: Final = 10


@dataclass(frozen=True, slots=True)
class Fold:
    """One train interval and the test interval that follows it.

    Attributes
    ----------
    index : position in the walk, from 0
    train_start_ns : first entry that may be trained on
    test_start_ns, test_end_ns : half-open interval of the test entries
    embargo_ns : distance that train labels keep from the test interval, at least the label horizon
    """

    index: int
    train_start_ns: int
    test_start_ns: int
    test_end_ns: int
    embargo_ns: int

    @property
    def train_end_ns(self) -> int:
        """Train labels end before this instant."""
        return self.test_start_ns - self.embargo_ns

    def train_rows(self, end_ns: I64, horizon_end_ns: I64) -> Flags:
        """bool, shape of the arguments: rows to train on (entries and ends of their horizons, ns)."""
        return (end_ns >= self.train_start_ns) & (horizon_end_ns < self.train_end_ns)

    def test_rows(self, end_ns: I64, horizon_end_ns: I64) -> Flags:
        """bool, shape of the arguments: held-out rows."""
        return (
            (end_ns >= self.test_start_ns)
            & (end_ns < self.test_end_ns)
            & (horizon_end_ns <= self.test_end_ns)
        )

    def early_stopping(self, fraction: float, rows: RowCounts) -> Fold:
        """Return the fold inside the train interval; its test part, the end of it, stops training.

        The test interval of this fold plays no part in it, and the inner split is purged like the outer one.
        It is placed by rows like that, too: by the clock the end of a train interval may be a hole.

        Parameters
        ----------
        fraction : share of the train interval's rows in the part that stops
        rows : RowCounts of all the time that is split
        """
        first, last = rows.before(self.train_start_ns), rows.before(self.train_end_ns)
        return Fold(
            index=self.index,
            train_start_ns=self.train_start_ns,
            # Where there is no row the instant is that of an earlier one.
            test_start_ns=max(rows.instant(last - (last - first) * fraction), self.train_start_ns),
            test_end_ns=self.train_end_ns,
            embargo_ns=self.embargo_ns,
        )


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows per time bucket; empty buckets may be left out.

    Attributes
    ----------
    start_ns : int64[B]   ascending
    count : int64[B]
    bucket_ns : width of every bucket
    unlabelled : sound rows beside them that got no label, in all
    """

    start_ns: I64
    count: I64
    bucket_ns: int
    unlabelled: int = 0

    @property
    def total(self) -> int:
        return int(self.count.sum())

    def between(self, start_ns: int, end_ns: int) -> int:
        """Return the rows of the buckets that meet an interval: no fewer than there are in it."""
        met = (self.start_ns + self.bucket_ns > start_ns) & (self.start_ns < end_ns)
        return int(self.count[met].sum())

    def before(self, time_ns: int) -> float:
        """Return the rows before an instant, as if those of a bucket lay evenly in it."""
        at = int(np.searchsorted(self.start_ns, time_ns)) - 1
        if at < 0:
            return 0.0
        inside = min((time_ns - int(self.start_ns[at])) / self.bucket_ns, 1.0)
        return int(self.count[:at].sum()) + inside * int(self.count[at])

    def instant(self, rows: float) -> int:
        """Return the time before which so many rows lie; there must be some rows at all."""
        cumulative = np.cumsum(self.count)
        at = int(np.searchsorted(cumulative, rows, side="left"))
        at = min(at, len(cumulative) - 1)
        before = int(cumulative[at] - self.count[at])
        inside = (rows - before) / max(int(self.count[at]), 1)
        return int(self.start_ns[at]) + round(min(max(inside, 0.0), 1.0) * self.bucket_ns)


def embargo_ns(config: SplitConfig, horizon_ns: int) -> int:
    """Return the embargo: the label horizon unless the configuration asks for more.

    Raises
    ------
    ConfigError
        it is shorter than the horizon: labels of train and test would overlap
    """
    if config.embargo_ms is None:
        return horizon_ns
    asked_ns = config.embargo_ms * NS_PER_MS
    if asked_ns < horizon_ns:
        raise ConfigError(
            "the embargo is shorter than the label horizon, so train labels would read the test interval",
            where="split.embargo_ms",
            value=config.embargo_ms,
            fix=f"at least {horizon_ns // NS_PER_MS} ms; leave it out to take the horizon",
        )
    return asked_ns


def walk_forward(rows: RowCounts, config: SplitConfig, *, horizon_ns: int) -> tuple[Fold, ...]:
    """Cut the rows' time into consecutive test intervals, each with the train interval before it.

    Boundaries are placed by the number of rows, not by the clock: recordings of separate days joined into one
    archive would otherwise give folds that lie in the hole between them.

    Parameters
    ----------
    rows : RowCounts
    config : number of folds, kind of train interval, embargo, share of rows before the first test
    horizon_ns : label horizon

    Returns
    -------
    tuple of Fold
        in order of time; test intervals are disjoint

    Raises
    ------
    ConfigError
        the embargo is shorter than the horizon
    DataError
        there are no rows, or a part is shorter than ten horizons
    """
    embargo = embargo_ns(config, horizon_ns)
    if rows.total == 0:
        raise DataError("no row can be labelled, so there is nothing to split")
    held_out = 1.0 - config.min_train_fraction
    fractions = [config.min_train_fraction + held_out * k / config.folds for k in range(config.folds)] + [1.0]
    bounds = [_instant(rows, fraction) for fraction in fractions]
    start = int(rows.start_ns[0])
    folds = []
    for index in range(config.folds):
        train_start = start
        if config.mode == "rolling":
            train_start = _instant(rows, fractions[index] - config.min_train_fraction)
        fold = Fold(index, train_start, bounds[index], bounds[index + 1], embargo)
        _check_length(fold, horizon_ns)
        folds.append(fold)
    return tuple(folds)


def _instant(rows: RowCounts, fraction: float) -> int:
    """Return the time before which ``fraction`` of the rows lie."""
    return rows.instant(min(max(fraction, 0.0), 1.0) * rows.total)


def _check_length(fold: Fold, horizon_ns: int) -> None:
    least = PART_HORIZONS_MIN * horizon_ns
    for part, length in (
        ("train", fold.train_end_ns - fold.train_start_ns),
        ("test", fold.test_end_ns - fold.test_start_ns),
    ):
        if length < least:
            raise DataError(
                f"the {part} interval of a fold is too short for the label horizon",
                where=f"fold {fold.index + 1}",
                value=f"{length / NS_PER_S:.1f} s, needed {least / NS_PER_S:.1f} s",
                fix="more data, fewer folds (split.folds), a shorter label.horizon_ms or split.embargo_ms",
            )
