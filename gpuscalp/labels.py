"""What a row is trained on: the class of the mid's future, the interval it was read from, and its weight.

Owns: forward-return classes, the triple barrier, average uniqueness, and the rule which rows may be labelled.
Never: reads features, knows a split, or decides which rows a model is trained on beyond the quality word.

Every function works on T consecutive frames of S symbols and looks only forward from the entry, which is
the close of the frame. Results do not depend on how a recording is cut into blocks, provided that a block is
given the frames its horizon needs: ``look_ahead_frames`` after a row, and ``horizon_frames`` before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import reduce
from operator import or_
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gpuscalp.config import GridConfig, LabelConfig, RiskConfig
from gpuscalp.errors import ConfigError
from gpuscalp.schema import F64, I32, I64, NS_PER_MS, FrameBlock, Quality

I8 = npt.NDArray[np.int8]
Flags = npt.NDArray[np.bool_]

BPS: Final = 1e4
NO_CLASS: Final = -1
# The quality bits that keep a row out: those that the risk gate blocks by default.
BLOCKED: Final = int(reduce(or_, (Quality[name] for name in RiskConfig().blocked_quality)))
# They block an entry, but say nothing against the mid of a frame that a label reads. WARM_UP is about
# features. Where a frame is STALE the quote stands, which is what a market without moves looks like: to drop
# the labels that read it would be to drop those that are FLAT.
_READABLE: Final = Quality.WARM_UP | Quality.STALE
# Fixed point of 1 / concurrency: integer sums have one value in any order, so a weight has the same bits
# however the recording is cut. 40 bits leave room for the sum over 8 million frames.
_UNIT: Final = 1 << 40
_BLOCK: Final = 1 << 14  # rows whose labels are made at once: what is made on the way stays in the cache


class Direction(IntEnum):
    """The three classes, in the order of axis K."""

    DOWN = 0
    FLAT = 1
    UP = 2


_FLAT: Final = np.int8(Direction.FLAT)
CLASSES: Final = tuple(direction.name for direction in Direction)


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of T frames of S symbols; entry at the close of the frame.

    Attributes
    ----------
    direction : int8[T, S]       Direction, or NO_CLASS where there is no label
    return_bps : float64[T, S]   mid return from the entry to the end of the label; NaN where there is none
    end_ns : int64[T, S]         last instant that the label looked at; 0 where there is none
    span_frames : int32[T, S]    frames from the entry to ``end_ns``; 0 where there is none
    entry : bool[T, S]           sound rows, with a label or without: quoted, and no bit keeps them out
    """

    direction: I8
    return_bps: F64
    end_ns: I64
    span_frames: I32
    entry: Flags

    @property
    def valid(self) -> Flags:
        """bool[T, S]: there is a label."""
        return np.asarray(self.direction != NO_CLASS)


def horizon_frames(label: LabelConfig, grid: GridConfig) -> int:
    """Return the horizon in frames.

    Raises
    ------
    ConfigError
        the horizon is not a whole number of frames: rounding it would label something else than was asked for
    """
    frames, rest = divmod(label.horizon_ms, grid.frame_ms)
    if rest or frames < 1:
        raise ConfigError(
            "the label horizon must be a whole number of frames",
            where="label.horizon_ms",
            value=label.horizon_ms,
            fix=f"a multiple of grid.frame_ms = {grid.frame_ms}",
        )
    return frames


def label_horizon_ns(label: LabelConfig, grid: GridConfig) -> int:
    """Return the horizon of the labels.

    Raises
    ------
    ConfigError    as ``horizon_frames``
    """
    return horizon_frames(label, grid) * grid.frame_ms * NS_PER_MS


def look_ahead_frames(label: LabelConfig, grid: GridConfig) -> int:
    """Frames after a row that its label and weight need: the weight looks at the labels that overlap."""
    return 2 * horizon_frames(label, grid)


def label_frames(frames: FrameBlock, label: LabelConfig, grid: GridConfig) -> Labels:
    """Label T consecutive frames.

    Parameters
    ----------
    frames : FrameBlock
    label, grid : the horizon, the classes and the frame length

    Returns
    -------
    Labels
        No label where the entry frame is blocked or has no quote; where a frame of the horizon that a label
        of this kind may read (forward: its end; barrier: every one, touched before or not) has no quote or
        bears a bit that says its mid is wrong (``BLOCKED`` without WARM_UP and STALE); or where the horizon
        runs past the frames given or over a hole in the grid. Which rows have a label never depends on what
        the mid does after the entry.
    """
    steps = horizon_frames(label, grid)
    quoted = (frames.bid_px > 0) & (frames.ask_px > 0)
    entry = quoted & ((frames.quality & np.uint32(BLOCKED)) == 0)
    path = quoted & ((frames.quality & np.uint32(BLOCKED & ~int(_READABLE))) == 0)
    # Twice the mid, in ticks: an exact integer, and the factor two cancels in the return.
    mid2 = np.add(frames.bid_px, frames.ask_px, dtype=np.int64)
    if label.kind == "forward":
        return forward(
            frames.end_ns, mid2, entry, path, steps=steps, frame_ns=grid.frame_ms * NS_PER_MS,
            threshold_bps=label.threshold_bps,
        )  # fmt: skip
    return triple_barrier(
        frames.end_ns, mid2, entry, path, steps=steps, frame_ns=grid.frame_ms * NS_PER_MS,
        upper_bps=label.upper_bps, lower_bps=label.lower_bps,
    )  # fmt: skip


def forward(
    end_ns: I64, mid2: I64, entry: Flags, path: Flags, *, steps: int, frame_ns: int, threshold_bps: float
) -> Labels:
    """Classify the mid return over a fixed horizon against ±threshold.

    Parameters
    ----------
    end_ns : int64[T]        frame closes
    mid2 : int64[T, S]       twice the mid, ticks
    entry, path : bool[T, S] a row may start here; a label may read the mid here
    steps : horizon in frames
    frame_ns : frame length
    threshold_bps : UP above it, DOWN below its negative, FLAT else (a return equal to it is FLAT)

    Returns
    -------
    Labels
    """
    labels = _none(entry)
    count = len(end_ns) - steps
    if count <= 0:
        return labels
    whole = end_ns[steps:] - end_ns[:count] == steps * frame_ns
    for some, ahead in _blocks(count, mid2.shape[1], steps):
        valid = entry[some] & path[ahead] & whole[some, None]
        returns = _return_bps(mid2[some], mid2[ahead], valid)
        direction = _classes(np.greater, returns, threshold_bps, -threshold_bps)
        labels.return_bps[some] = returns
        labels.direction[some] = np.where(valid, direction, NO_CLASS)
        labels.end_ns[some] = np.where(valid, end_ns[ahead, None], 0)
        labels.span_frames[some] = np.where(valid, np.int32(steps), np.int32(0))
    return labels


def triple_barrier(
    end_ns: I64,
    mid2: I64,
    entry: Flags,
    path: Flags,
    *,
    steps: int,
    frame_ns: int,
    upper_bps: float,
    lower_bps: float,
) -> Labels:
    """Classify by what the mid meets first: +upper, −lower, or the end of the horizon.

    The mid is looked at on frame closes, as the backtest can trade it. UP where the return is at least
    ``upper_bps``, DOWN where it is at most ``-lower_bps``, FLAT where the horizon ends first; the label ends
    where it was decided.

    Parameters
    ----------
    end_ns, mid2, entry, path, steps, frame_ns : see ``forward``; every frame of the horizon must be in
        ``path``, those behind the touch too
    upper_bps, lower_bps : distances of the barriers from the entry mid, both positive

    Returns
    -------
    Labels

    Notes
    -----
    López de Prado (2018), Advances in Financial Machine Learning, ch. 3. Cost O(T·S·log steps).
    """
    labels = _none(entry)
    count = len(end_ns) - steps
    if count <= 0:
        return labels
    whole = end_ns[steps:] - end_ns[:count] == steps * frame_ns
    width = max(_BLOCK // len(end_ns), 1)
    for left in range(0, mid2.shape[1], width):
        some = slice(left, left + width)
        mids = np.ascontiguousarray(mid2[:, some])
        # Were frames looked at up to the touch only, a row that waits for its touch would meet a doubtful
        # frame more often than one that is touched at once, and FLAT would be rarer than it comes.
        clear = _ahead(np.logical_and, _doubled(np.logical_and, path[:, some], steps), steps)
        valid = entry[:count, some] & clear & whole[:, None]
        span = np.where(valid, np.int32(steps), np.int32(0))
        _shorten(span, mids, steps, upper_bps, lower_bps)
        ends = np.arange(count)[:, None] + span
        returns = _return_bps(mids[:count], np.take_along_axis(mids, ends, axis=0), valid)
        direction = _classes(np.greater_equal, returns, upper_bps, -lower_bps)
        labels.direction[:count, some] = np.where(valid, direction, NO_CLASS)
        labels.return_bps[:count, some] = returns
        labels.end_ns[:count, some] = np.where(valid, end_ns[ends], 0)
        labels.span_frames[:count, some] = span
    return labels


def uniqueness(labels: Labels, taken: Flags) -> F64:
    """Return the average uniqueness of every taken label among the taken labels of its symbol.

    At each frame a label spans, its share is one over the number of labels open there; the weight is the mean
    of the shares over the span. Labels that overlap say the same thing, and together they weigh as one.

    Parameters
    ----------
    labels : Labels
    taken : bool[T, S]   rows that are trained on; those without a label are ignored

    Returns
    -------
    float64[T, S]        in (0, 1]; 0 where no row is taken

    Notes
    -----
    López de Prado (2018), Advances in Financial Machine Learning, ch. 4.
    """
    from gpuscalp.ops.overlap import mean_share  # here: what only names labels does not wait for Numba

    used = np.ascontiguousarray(taken & labels.valid)
    shares = np.zeros(len(used) + 1, np.int64)
    shares[1:] = _UNIT // np.arange(1, len(shares))
    return mean_share(used, np.ascontiguousarray(labels.span_frames), shares, float(_UNIT))


def _none(entry: Flags) -> Labels:
    shape = entry.shape
    return Labels(
        direction=np.full(shape, NO_CLASS, np.int8),
        return_bps=np.full(shape, np.nan),
        end_ns=np.zeros(shape, np.int64),
        span_frames=np.zeros(shape, np.int32),
        entry=entry,
    )


def _shorten(span: npt.NDArray[np.int32], mids: I64, steps: int, upper_bps: float, lower_bps: float) -> None:
    """Shorten the spans above 0, int32[T - steps, S], to the first touch of the mids int64[T, S]."""

    def touched(highest: I64, lowest: I64, entered: I64) -> Flags:
        up, down = (BPS * (extreme - entered) / entered for extreme in (highest, lowest))
        return np.asarray((up >= upper_bps) | (down <= -lower_bps))

    # Most rows of a quiet market touch nothing: their extremes tell it.
    high, low = (_doubled(pick, mids, steps) for pick in (np.maximum, np.minimum))
    entered = np.where(span > 0, mids[: len(span)], 1)
    ever = touched(_ahead(np.maximum, high, steps), _ahead(np.minimum, low, steps), entered)
    rows, symbols = np.nonzero(ever & (span > 0))
    entered = entered[rows, symbols]
    at = rows + 1
    for highest, lowest in zip(reversed(high), reversed(low), strict=True):
        # At the end of the frames the window begins earlier, but behind the entry: where nothing was touched.
        window = np.minimum(at, len(highest) - 1), symbols
        missed = ~touched(highest[window], lowest[window], entered)
        at += missed * (len(mids) - len(highest) + 1)
    span[rows, symbols] = at - rows


def _doubled(pick: np.ufunc, values: npt.NDArray[Any], steps: int) -> list[npt.NDArray[Any]]:
    """Return [T, S], [T - 1, S], [T - 3, S] …: ``pick`` over 1, 2, 4 … ≤ ``steps`` frames from each on."""
    found = [values]
    width = 1
    while 2 * width <= steps:
        found.append(pick(found[-1][:-width], found[-1][width:]))
        width *= 2
    return found


def _ahead(pick: np.ufunc, doubled: list[npt.NDArray[Any]], steps: int) -> npt.NDArray[Any]:
    """Return [T - steps, S]: ``pick`` over frames t+1 … t+steps."""
    found = doubled[-1][1:]
    rest = steps - (1 << (len(doubled) - 1))
    return np.asarray(pick(found[: len(found) - rest], found[rest:]))


def _blocks(count: int, width: int, steps: int) -> Iterator[tuple[slice, slice]]:
    """Yield frames whose arrays fit a processor's cache, and those ``steps`` behind them."""
    length = max(_BLOCK // max(width, 1), 1)
    for start in range(0, count, length):
        stop = min(start + length, count)
        yield slice(start, stop), slice(start + steps, stop + steps)


def _return_bps(start: I64, stop: I64, valid: Flags) -> F64:
    return np.where(valid, BPS * (stop - start) / np.where(valid, start, 1), np.nan)


def _classes(beyond: np.ufunc, returns: F64, upper: float, lower: float) -> I8:
    """Return int8[...]: UP where a return is ``beyond`` the upper limit, DOWN where beyond the lower one."""
    up, down = beyond(returns, upper), beyond(-returns, -lower)
    return np.asarray(_FLAT + up.view(np.int8) - (down & ~up).view(np.int8))
