"""The last step of the ladder on the CPU: from the element of a window to one column.

A ratio whose denominator is not positive is NaN (there was nothing to measure), never infinite: XGBoost takes
NaN as missing and refuses infinities.
"""

from __future__ import annotations

import math

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.ops.ladder_codes import (
    BEST,
    BEST_BIN,
    BEST_IM,
    BEST_RE,
    CONSTANTS,
    ELEMENT_A,
    ELEMENT_B,
    INPUT_X,
    LEVEL,
    LEVELS,
    OP,
    RESOLVED,
    SIZE,
    STAT,
    TOTAL,
    Op,
    Stat,
)

_SPECTRUM = int(Op.SPECTRUM)
_MEAN = int(Stat.MEAN)
_STD = int(Stat.STD)
_ZSCORE = int(Stat.ZSCORE)
_MIN = int(Stat.MIN)
_MAX = int(Stat.MAX)
_FLOW_IMBALANCE = int(Stat.FLOW_IMBALANCE)
_RSI = int(Stat.RSI)
_ILLIQUIDITY = int(Stat.ILLIQUIDITY)
_TOXICITY = int(Stat.TOXICITY)
_VWAP_DEVIATION = int(Stat.VWAP_DEVIATION)
_VOLATILITY = int(Stat.VOLATILITY)
_BETA = int(Stat.BETA)
_CORRELATION = int(Stat.CORRELATION)
_ROLL_MEASURE = int(Stat.ROLL_MEASURE)
_MOVE = int(Stat.MOVE)
_PATH_ZSCORE = int(Stat.PATH_ZSCORE)
_RANGE_POSITION = int(Stat.RANGE_POSITION)
_RANGE_WIDTH = int(Stat.RANGE_WIDTH)
_SLOPE = int(Stat.SLOPE)
_RESIDUAL_STD = int(Stat.RESIDUAL_STD)
_DECAYED_MEAN = int(Stat.DECAYED_MEAN)
_DECAYED_DIFFERENCE = int(Stat.DECAYED_DIFFERENCE)
_LAST = int(Stat.LAST)
_AMPLITUDE = int(Stat.AMPLITUDE)
_BAND_SHARE = int(Stat.BAND_SHARE)
_CENTROID = int(Stat.CENTROID)
_PARTICIPATION = int(Stat.PARTICIPATION)
_DOMINANT_FREQUENCY = int(Stat.DOMINANT_FREQUENCY)
_DOMINANT_SHARE = int(Stat.DOMINANT_SHARE)
_PHASE_COS = int(Stat.PHASE_COS)
_PHASE_SIN = int(Stat.PHASE_SIN)

_ZERO = np.float32(0.0)
_HALF = np.float32(0.5)
_QUARTER = np.float32(0.25)
_FOUR = np.float32(4.0)
_HUNDRED = np.float32(100.0)
_NAN = np.float32(np.nan)
# A standard deviation below 1/32 of the mean: the deviation is lost in the rounding of the mean.
_BLUR = np.float32(1.0 / 1024.0)
# A spectral bin is the strongest if it exceeds the lower ones by more than rounding.
_STRONGER = np.float32(1.0001)
# Where the Hann window leaves less of the power than this, all that moved lies at the edge of the window, and
# the shares are differences of nearly equal float32 numbers.
_THIN = np.float32(1e-2)


@jit
def _copy(x, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = x[i]


@jit
def _ratio(x, y, scale, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        quotient = (x[i] * scale) / y[i]
        out[i] = quotient if y[i] > _ZERO else _NAN


@jit
def _scaled_root(x, divisor, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = math.sqrt(x[i] / divisor)


@jit
def _zscore(x, mean, m2, divisor, out):  # type: ignore[no-untyped-def]
    """Of the newest value; missing where the deviation is lost in the rounding of the mean."""
    for i in range(out.size):
        variance = m2[i] / divisor
        z = (x[i] - mean[i]) / math.sqrt(variance)
        out[i] = z if variance > mean[i] * mean[i] * _BLUR else _NAN


@jit
def _path_zscore(mean, m2, divisor, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        variance = m2[i] / divisor
        z = -mean[i] / math.sqrt(variance)
        out[i] = z if variance > _ZERO else _NAN


@jit
def _correlation(x, y, c, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        scale = math.sqrt(x[i]) * math.sqrt(y[i])
        r = c[i] / scale
        out[i] = r if scale > _ZERO else _NAN


@jit
def _roll_measure(c, divisor, out):  # type: ignore[no-untyped-def]
    """Roll (1984): the square of the spread is minus four times the autocovariance.

    Not its root: that is unbounded in slope at zero, where float32 would not resolve it, and where the
    measure is negative it would have to be cut off.
    """
    for i in range(out.size):
        out[i] = -_FOUR * c[i] / divisor


@jit
def _range_position(low, high, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        width = high[i] - low[i]
        position = -low[i] / width
        out[i] = position if width > _ZERO else _NAN


@jit
def _range_width(low, high, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = high[i] - low[i]


@jit
def _residual_std(m2, time, time_m2, divisor, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        left = m2[i] - time[i] * time[i] / time_m2
        out[i] = math.sqrt((_ZERO if left < _ZERO else left) / divisor)


@jit
def _decayed_difference(x, x_norm, y, y_norm, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = x[i] * x_norm - y[i] * y_norm


@jit
def _scale(x, factor, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = x[i] * factor


@jit
def _divide(x, divisor, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = x[i] / divisor


@jit
def _hann(re, im, below_re, below_im, above_re, above_im, power, work, k):  # type: ignore[no-untyped-def]
    """Add bin k, Hann-windowed by its neighbours, to the running total and the running best.

    A single move spreads over all bins equally: the lowest of equal bins is the best, not the one that
    rounding prefers.
    """
    total = work[TOTAL, : power.size]
    best = work[BEST, : power.size]
    best_bin = work[BEST_BIN, : power.size]
    best_re = work[BEST_RE, : power.size]
    best_im = work[BEST_IM, : power.size]
    plain = work[RESOLVED, : power.size]
    number = np.float32(k)
    for i in range(power.size):
        x = _HALF * re[i] - _QUARTER * (below_re[i] + above_re[i])
        y = _HALF * im[i] - _QUARTER * (below_im[i] + above_im[i])
        p = x * x + y * y
        power[i] = p
        total[i] = total[i] + p
        plain[i] = plain[i] + (re[i] * re[i] + im[i] * im[i])
        wins = p > best[i] * _STRONGER
        best[i] = p if wins else best[i]
        best_bin[i] = number if wins else best_bin[i]
        best_re[i] = x if wins else best_re[i]
        best_im[i] = y if wins else best_im[i]


@jit
def prepare(group, elements, at, work, count):  # type: ignore[no-untyped-def]
    """Make what the statistics of one window share: for a spectrum, the Hann-windowed powers.

    work : float32[16, >= count]   written: powers of bins 1 to K-2, then their sum, the largest and its bin
    """
    if group[OP] != _SPECTRUM:
        return
    bins = group[SIZE] // 2
    past = at + count
    for row in range(TOTAL, RESOLVED + 1):
        work[row, :count] = _ZERO
    for k in range(1, bins - 1):
        _hann(
            elements[k, at:past], elements[bins + k, at:past],
            elements[k - 1, at:past], elements[bins + k - 1, at:past],
            elements[k + 1, at:past], elements[bins + k + 1, at:past],
            work[k - 1, :count], work, k,
        )  # fmt: skip
    total = work[TOTAL, :count]
    resolved = work[RESOLVED, :count]
    for i in range(count):
        resolved[i] = total[i] if total[i] > resolved[i] * _THIN else _ZERO


@jit
def _finish_spectrum(stat, a, b, bins, window, work, count, out):  # type: ignore[no-untyped-def]
    total = work[RESOLVED, :count]
    if stat == _AMPLITUDE:
        for i in range(count):
            out[i] = math.sqrt(work[TOTAL, i]) / window
    elif stat == _BAND_SHARE:
        _copy(work[a - 1, :count], out)
        for k in range(a + 1, b):
            for i in range(count):
                out[i] = out[i] + work[k - 1, i]
        for i in range(count):
            share = out[i] / total[i]
            out[i] = share if total[i] > _ZERO else _NAN
    elif stat == _CENTROID:
        out[:] = _ZERO
        for k in range(1, bins - 1):
            number = np.float32(k)
            for i in range(count):
                out[i] = out[i] + work[k - 1, i] * number
        for i in range(count):
            centre = out[i] / total[i] / window
            out[i] = centre if total[i] > _ZERO else _NAN
    elif stat == _PARTICIPATION:
        out[:] = _ZERO
        for k in range(1, bins - 1):
            for i in range(count):
                share = work[k - 1, i] / total[i]
                out[i] = out[i] + share * share
        for i in range(count):
            spread = np.float32(1.0) / out[i]
            out[i] = spread if total[i] > _ZERO else _NAN
    elif stat == _DOMINANT_FREQUENCY:
        for i in range(count):
            frequency = work[BEST_BIN, i] / window
            out[i] = frequency if total[i] > _ZERO else _NAN
    elif stat == _DOMINANT_SHARE:
        _ratio(work[BEST, :count], total, np.float32(1.0), out)
    else:
        row = BEST_RE if stat == _PHASE_COS else BEST_IM
        for i in range(count):
            part = work[row, i] / math.sqrt(work[BEST, i])
            out[i] = part if total[i] > _ZERO else _NAN


@jit
def finish(  # type: ignore[no-untyped-def]
    constants, group, row, elements, at, channels, origin, work, out, out0, count
):
    """Write one column for a stretch of frames (or of symbols).

    Parameters
    ----------
    group, row : int64[...]        rows of Program.groups and Program.finishes
    elements : float32[E, n]       elements of the window, read at ``at``
    channels : float32[C, n]       inputs, read at ``origin`` (for what compares the last value to its window)
    work : float32[16, >= count]   from prepare
    out : float32[n]               written at out0
    """
    stat = row[STAT]
    target = out[out0 : out0 + count]
    frames = 1 << row[LEVEL]
    past = at + count
    if group[OP] == _SPECTRUM:
        bins = group[SIZE] // 2
        _finish_spectrum(stat, row[ELEMENT_A], row[ELEMENT_B], bins, np.float32(frames), work, count, target)
    elif stat <= _LAST:
        _finish_simple(group, stat, frames, elements, at, past, channels, origin, target)
    elif stat <= _PATH_ZSCORE:
        _finish_path(stat, frames, elements, at, past, target)
    else:
        _finish_decay(constants, group, row, elements, at, past, target)


@jit
def _finish_simple(group, stat, frames, elements, at, past, channels, origin, target):  # type: ignore[no-untyped-def]
    """MOMENTS, EXTREMES, SUMS and CROSS: each loop has one call, because LLVM compiles it once per call."""
    less_one = np.float32(frames - 1)
    if stat in (_MEAN, _MIN, _MAX, _LAST, _MOVE):
        _copy(elements[1 if stat == _MAX else 0, at:past], target)
    elif stat in (_STD, _VOLATILITY):
        is_std = stat == _STD
        _scaled_root(elements[1 if is_std else 7, at:past], less_one if is_std else np.float32(1.0), target)
    elif stat == _ZSCORE:
        value = channels[group[INPUT_X], origin : origin + target.size]
        _zscore(value, elements[0, at:past], elements[1, at:past], less_one, target)
    elif stat == _CORRELATION:
        _correlation(elements[2, at:past], elements[3, at:past], elements[4, at:past], target)
    elif stat == _ROLL_MEASURE:
        _roll_measure(elements[4, at:past], less_one, target)
    else:
        above = 2  # ILLIQUIDITY: Σ|return|
        below = 3  # Σ notional, or M2 of y
        scale = np.float32(1.0)
        if stat in (_FLOW_IMBALANCE, _BETA):
            above = 4
        elif stat == _TOXICITY:
            above = 5
        elif stat == _VWAP_DEVIATION:
            above = 6
        elif stat == _RSI:
            above = 0
            below = 2
            scale = _HUNDRED
        _ratio(elements[above, at:past], elements[below, at:past], scale, target)


@jit
def _finish_path(stat, frames, elements, at, past, target):  # type: ignore[no-untyped-def]
    # Sum of squared deviations of 0 … n-1 from their mean.
    time_m2 = np.float32(float(frames) * (float(frames) * float(frames) - 1.0) / 12.0)
    if stat == _PATH_ZSCORE:
        _path_zscore(elements[1, at:past], elements[2, at:past], np.float32(frames - 1), target)
    elif stat == _RANGE_POSITION:
        _range_position(elements[3, at:past], elements[4, at:past], target)
    elif stat == _RANGE_WIDTH:
        _range_width(elements[3, at:past], elements[4, at:past], target)
    elif stat == _SLOPE:
        _divide(elements[5, at:past], time_m2, target)
    else:
        _residual_std(elements[2, at:past], elements[5, at:past], time_m2, np.float32(frames - 2), target)


@jit
def _finish_decay(constants, group, row, elements, at, past, target):  # type: ignore[no-untyped-def]
    norms = group[CONSTANTS] + group[SIZE] * LEVELS + row[LEVEL]
    a = row[ELEMENT_A]
    b = row[ELEMENT_B]
    if row[STAT] == _DECAYED_MEAN:
        _scale(elements[a, at:past], constants[norms + a * LEVELS], target)
    else:
        x_norm = constants[norms + a * LEVELS]
        y_norm = constants[norms + b * LEVELS]
        _decayed_difference(elements[a, at:past], x_norm, elements[b, at:past], y_norm, target)
