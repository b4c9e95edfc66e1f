"""The detector: rows known at a time must not change when what comes after that time does.

Owns: the comparison. Never: knows what the rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuscalp.errors import ShapeError
from gpuscalp.leakage.futures import FUTURES, arrived
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import I64, NS_PER_MS, Ticks

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """What a probe makes of ticks: R rows, each with the time from which it claims to be known.

    Attributes
    ----------
    key : int64[R, K]        identifies a row across futures, such as (time, symbol); unique
    known_ns : int64[R]      from then on, in exchange time, the row is known and must never change again; it
                             may hold nothing dated at or after this instant
    values : float[R, F]     float32 or float64; NaN equals NaN
    names : F names
    complete : bool          every row is there as soon as it is known. False: rows that are missing in
                             another future say nothing, only those present in both are compared
    tolerance : float        differences up to this share of the column's largest magnitude are rounding; 0
                             asks for the same bits
    """

    key: I64
    known_ns: I64
    values: npt.NDArray[Any]
    names: tuple[str, ...]
    complete: bool = True
    tolerance: float = 0.0


Probe = Callable[[Ticks], Rows]


@dataclass(slots=True)
class Finding:
    """What the detector says about one probe.

    Attributes
    ----------
    name : of the probe
    columns : names of its columns
    values : numbers compared, over all cuts and futures
    leaks : leaking column (``rows`` = whole rows come or go) → the first evidence in words
    seen : columns of which a finite number was compared
    """

    name: str
    columns: tuple[str, ...]
    values: int = 0
    leaks: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    @property
    def unseen(self) -> tuple[str, ...]:
        """Columns that were NaN wherever they were compared: that no leak was found says nothing of them."""
        return tuple(name for name in self.columns if name not in self.seen)


def examine(
    probes: Mapping[str, Probe],
    ticks: Ticks,
    *,
    cuts_ns: Sequence[int] | None = None,
    cut_count: int = 20,
    lateness_ns: int = 20 * NS_PER_MS,
    seed: int = 7,
    on_progress: Progress = silent,
) -> dict[str, Finding]:
    """Give every probe other futures after each cut, and compare the rows that were known at the cut.

    Parameters
    ----------
    probes : name → function from ticks to rows. It must not keep state between calls nor change the ticks
    ticks : TICK[N]           in arrival order
    cuts_ns : where to cut; by default ``cut_count`` random times between the first tick and the last
    lateness_ns : how long the probes wait for late ticks (GridConfig.lateness_ms): a row known at t may hang
        on the arrival, though not on the content, of ticks dated up to t + lateness
    seed : of cuts and futures

    Returns
    -------
    dict from name to Finding; a probe without look-ahead has no leaks

    Raises
    ------
    ShapeError    a probe gave arrays that do not belong together, or the same key twice
    """
    rng = np.random.default_rng(seed)
    if cuts_ns is None:
        first, last = int(ticks["exch_ns"].min()), int(ticks["exch_ns"].max())
        cuts_ns = [int(cut) for cut in rng.integers(first, last + 1, cut_count)]
    wanted = {name: _checked(name, probe(ticks.copy())) for name, probe in probes.items()}
    for name, rows in wanted.items():
        _require_unique(_as_records(rows.key), name)
    findings = {name: Finding(name, rows.names) for name, rows in wanted.items()}
    total = len(cuts_ns) * len(FUTURES)
    for done, (cut_ns, label) in enumerate((cut, label) for cut in cuts_ns for label in FUTURES):
        on_progress(done, total, label)
        past = arrived(ticks, cut_ns, lateness_ns)
        other = FUTURES[label](ticks, past, cut_ns, rng)
        other.flags.writeable = False
        for name, probe in probes.items():
            got = _checked(name, probe(other))
            _compare(wanted[name], got, cut_ns, f"{label} after {cut_ns}", findings[name])
    return findings


def _checked(name: str, rows: Rows) -> Rows:
    count = len(rows.known_ns)
    if rows.key.ndim != 2 or len(rows.key) != count or rows.values.shape != (count, len(rows.names)):
        raise ShapeError(
            "a probe's arrays do not belong together",
            where=f"probe {name}",
            value=f"key {rows.key.shape}, known_ns {rows.known_ns.shape}, values {rows.values.shape}",
            fix="key int64[R, K], known_ns int64[R], values float[R, F] with F names",
        )
    return rows


def _compare(wanted: Rows, got: Rows, cut_ns: int, what: str, finding: Finding) -> None:
    known, now = wanted.known_ns <= cut_ns, got.known_ns <= cut_ns
    a, b, surplus = _match(wanted.key[known], got.key[now], finding.name)
    missing = int(known.sum()) - len(a)
    if wanted.complete and (missing or surplus):
        finding.leaks.setdefault("rows", f"{missing} rows missing, {surplus} more: {what}")
    before, after = wanted.values[known][a], got.values[now][b]
    finding.values += before.size
    finite = np.isfinite(before).any(axis=0)
    finding.seen.update(wanted.names[column] for column in np.flatnonzero(finite).tolist())
    different = _different(before, after, wanted.tolerance)
    for column in np.flatnonzero(different.any(axis=0)).tolist():
        row = int(np.argmax(different[:, column]))
        key = wanted.key[known][a][row].tolist()
        was, became = before[row, column].item(), after[row, column].item()
        evidence = f"row {key}: {was!r} became {became!r}: {what}"
        finding.leaks.setdefault(wanted.names[column], evidence)


def _match(a: I64, b: I64, name: str) -> tuple[I64, I64, int]:
    """Return the places of common keys in a and in b, and how many keys only b has."""
    if a.shape == b.shape and np.array_equal(a, b):
        every = np.arange(len(a))
        return every, every, 0
    left, right = _as_records(a), _as_records(b)
    _require_unique(right, name)
    _, at_a, at_b = np.intersect1d(left, right, assume_unique=True, return_indices=True)
    return at_a, at_b, len(b) - len(at_b)


def _as_records(key: I64) -> npt.NDArray[np.void]:
    """Return each row of a key as one value that can be sorted."""
    fields = np.dtype([(f"f{column}", np.int64) for column in range(key.shape[1])])
    return np.ascontiguousarray(key).view(fields).ravel()


def _require_unique(records: npt.NDArray[np.void], name: str) -> None:
    if len(np.unique(records)) != len(records):
        raise ShapeError("a probe gave two rows with the same key", where=f"probe {name}")


def _different(before: npt.NDArray[Any], after: npt.NDArray[Any], tolerance: float) -> Flags:
    missing = np.isnan(before) & np.isnan(after)
    if tolerance == 0.0:
        bits = np.dtype(f"u{before.dtype.itemsize}")
        same = np.ascontiguousarray(before).view(bits) == np.ascontiguousarray(after).view(bits)
        return np.asarray(~same & ~missing)
    if before.size == 0:
        return np.zeros(before.shape, np.bool_)
    scale = np.nanmax(np.abs(before), axis=0, initial=0.0)
    apart = np.isnan(before) != np.isnan(after)
    return np.asarray(~missing & (apart | (np.abs(before - after) > tolerance * scale)))
