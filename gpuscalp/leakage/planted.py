"""Leaks as people really make them, each beside the honest version of the same idea.

The detector has to catch every leak and to pass every honest twin. All are made from the same series, whose
frame t is known at its end; the two differ in one line, as they do in a notebook.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from gpuscalp.leakage.series import Series

F64 = npt.NDArray[np.float64]

WINDOW: Final = 16
BAR: Final = 10  # frames of a coarser bar
HORIZON: Final = 10  # frames of a label
_LEAK_DECAY: Final = 0.8

Transform = Callable[[Series], F64]


@dataclass(frozen=True, slots=True)
class Plant:
    """One leak and its honest twin.

    Attributes
    ----------
    name : what people call it
    leaky, honest : functions from the series to one value per frame, float64[T]
    delay : frames after the end of its frame until a row is known (the interval of a label)
    """

    name: str
    leaky: Transform
    honest: Transform
    delay: int = 0


def _trailing(x: F64) -> F64:
    """Return float64[T, WINDOW]: the last values up to each frame; NaN before the first."""
    if len(x) == 0:
        return np.empty((0, WINDOW))
    return sliding_window_view(np.concatenate([np.full(WINDOW - 1, np.nan), x]), WINDOW)


def _shifted(x: F64, frames: int) -> F64:
    """Return x moved into the past by ``frames`` (negative: into the future); NaN where there is nothing."""
    out = np.full(len(x), np.nan)
    if frames > 0:
        out[:-frames] = x[frames:]
    elif frames < 0:
        out[-frames:] = x[:frames]
    else:
        out[:] = x
    return out


def _expanding_mean(x: F64) -> F64:
    return np.cumsum(x) / np.arange(1, len(x) + 1)


def _decayed(x: F64) -> F64:
    out = x.copy()
    for t in range(1, len(x)):
        out[t] = _LEAK_DECAY * out[t - 1] + (1.0 - _LEAK_DECAY) * x[t]
    return out


def _power(rows: F64) -> F64:
    full = np.nan_to_num(rows)
    return np.asarray((np.abs(np.fft.rfft(full, axis=1)[:, 1:4]) ** 2).sum(axis=1))


def _bars(series: Series, *, stamped_at_open: bool) -> F64:
    """Join the close of coarser bars to the frames, as of the time the bar is stamped with."""
    closes = np.arange(BAR - 1, len(series.mid), BAR)
    stamps = closes - (BAR - 1 if stamped_at_open else 0)
    if len(closes) == 0:
        return np.full(len(series.mid), np.nan)
    at = np.searchsorted(stamps, np.arange(len(series.mid)), side="right") - 1
    return np.where(at >= 0, series.mid[closes[np.maximum(at, 0)]], np.nan)


def _filled(x: F64, *, backwards: bool) -> F64:
    """Fill missing values from the next known one, or from the last."""
    if len(x) == 0:
        return x
    x = x[::-1] if backwards else x
    at = np.maximum.accumulate(np.where(np.isnan(x), -1, np.arange(len(x))))
    filled = np.where(at >= 0, x[np.maximum(at, 0)], np.nan)
    return filled[::-1] if backwards else filled


def _interpolated(series: Series) -> F64:
    """Draw straight lines between samples taken every BAR frames."""
    every = np.arange(len(series.mid))
    return np.interp(every, every[::BAR], series.mid[::BAR]) if len(every) else series.mid


def _nearest_quote(series: Series) -> F64:
    """Join the quote nearest in time to the end of each frame, on either side."""
    if len(series.quote_ns) == 0:
        return series.mid * np.nan
    order = np.argsort(series.quote_ns, kind="stable")
    times, mids = series.quote_ns[order], series.quote_mid[order]
    after = np.minimum(np.searchsorted(times, series.end_ns, side="left"), len(times) - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.abs(times[after] - series.end_ns) < np.abs(series.end_ns - times[before])
    return np.where(nearer, mids[after], mids[before])


def _with_late_quotes(series: Series) -> F64:
    """Cut the quotes into frames by their own times, however late they came."""
    if len(series.quote_ns) == 0:
        return series.mid * np.nan
    order = np.argsort(series.quote_ns, kind="stable")
    at = np.searchsorted(series.quote_ns[order], series.end_ns, side="left") - 1
    return np.where(at >= 0, series.quote_mid[order][np.maximum(at, 0)], np.nan)


def _rank(series: Series, *, whole: bool) -> F64:
    """Return the share of values below this one: of all values, or of the last WINDOW."""
    if whole:
        return np.searchsorted(np.sort(series.mid), series.mid) / max(len(series.mid), 1)
    rows = _trailing(series.mid)
    return np.asarray((rows < rows[:, -1:]).mean(axis=1))


def _range_position(series: Series, *, whole_hour: bool) -> F64:
    """Return the position between low and high: of the whole hour, or of the hour so far."""
    out = np.empty(len(series.mid))
    hour = series.end_ns // 3_600_000_000_000
    for value in np.unique(hour):
        mid = series.mid[hour == value]
        low = np.full(len(mid), mid.min()) if whole_hour else np.minimum.accumulate(mid)
        high = np.full(len(mid), mid.max()) if whole_hour else np.maximum.accumulate(mid)
        out[hour == value] = (mid - low) / np.where(high > low, high - low, 1.0)
    return out


def _target_encoded(series: Series, *, whole: bool) -> F64:
    """Return the mean of the next move by second of the ten: over all frames, or over those before."""
    target = np.nan_to_num(_shifted(series.moves, 1))
    second = (series.end_ns // 1_000_000_000) % 10
    out = np.full(len(target), np.nan)
    for value in np.unique(second):
        at = np.flatnonzero(second == value)
        if whole:
            out[at] = target[at].mean()
        else:
            # The move after an earlier frame has ended by now.
            out[at[1:]] = _expanding_mean(target[at])[:-1]
    return out


def _class(series: Series, horizon: int) -> F64:
    """Return the sign of the mid's change over the horizon."""
    return np.sign(_shifted(series.mid, horizon) - series.mid)


PLANTS: Final[tuple[Plant, ...]] = (
    Plant(
        "gradient over both sides",
        lambda s: np.gradient(s.mid) if len(s.mid) > 1 else s.mid,
        lambda s: s.moves,
    ),
    Plant(
        "centred window",
        lambda s: _shifted(_trailing(s.mid).mean(axis=1), WINDOW // 2),
        lambda s: _trailing(s.mid).mean(axis=1),
    ),
    Plant(
        "whole-series scaling",
        lambda s: (s.mid - s.mid.mean()) / (s.mid.std() or 1.0) if len(s.mid) else s.mid,
        lambda s: s.mid - _expanding_mean(s.mid),
    ),
    Plant(
        "as-of join on bar open",
        lambda s: _bars(s, stamped_at_open=True),
        lambda s: _bars(s, stamped_at_open=False),
    ),
    Plant("off-by-one merge", lambda s: _shifted(s.moves, 1), lambda s: _shifted(s.moves, 0)),
    Plant(
        "FFT window including t+1",
        lambda s: _shifted(_power(_trailing(s.moves)), 1),
        lambda s: _power(_trailing(s.moves)),
    ),
    Plant(
        "missing values filled from the future",
        lambda s: _filled(s.traded, backwards=True),
        lambda s: _filled(s.traded, backwards=False),
    ),
    Plant(
        "filter run forwards and backwards",
        lambda s: _decayed(_decayed(s.mid)[::-1])[::-1],
        lambda s: _decayed(s.mid),
    ),
    Plant("rank over the whole series", lambda s: _rank(s, whole=True), lambda s: _rank(s, whole=False)),
    Plant(
        "high and low of an hour that has not ended",
        lambda s: _range_position(s, whole_hour=True),
        lambda s: _range_position(s, whole_hour=False),
    ),
    Plant("line between samples", _interpolated, lambda s: _bars(s, stamped_at_open=False)),
    Plant("nearest instead of last quote", _nearest_quote, lambda s: s.mid),
    Plant("late ticks put back into closed frames", _with_late_quotes, lambda s: s.mid),
    Plant(
        "target encoded over everything",
        lambda s: _target_encoded(s, whole=True),
        lambda s: _target_encoded(s, whole=False),
    ),
    Plant(
        "label that reads past its declared end",
        lambda s: _class(s, HORIZON + 1),
        lambda s: _class(s, HORIZON),
        delay=HORIZON,
    ),
)
