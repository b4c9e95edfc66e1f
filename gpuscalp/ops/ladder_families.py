"""The feature families of the ladder: lift, merge and finish over rows, on the CPU.

A family is three small functions. ``lift`` makes the element of one frame, ``merge`` joins the elements of
two adjacent halves of a window (older, newer), ``finish`` turns the element of a window into one column. Rows
are contiguous; the loops below are what LLVM vectorises. NaN in, NaN out: an element that has seen a NaN
stays NaN.

Every constant is float32: a float64 literal would promote the arithmetic and change the bits.
"""

from __future__ import annotations

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.ops.ladder_codes import CONSTANTS, INPUT_X, INPUT_Y, LEVELS, OP, SIZE, SUMS_SIZE, Op
from gpuscalp.schema import F32, I64, Channel

_MOMENTS = int(Op.MOMENTS)
_EXTREMES = int(Op.EXTREMES)
_SUMS = int(Op.SUMS)
_CROSS = int(Op.CROSS)
_PATH = int(Op.PATH)
_DECAY = int(Op.DECAY)
_SPECTRUM = int(Op.SPECTRUM)

_RETURN = int(Channel.RETURN_BPS)
_BUY = int(Channel.BUY_KUSDT)
_SELL = int(Channel.SELL_KUSDT)
_FLOW = int(Channel.FLOW_KUSDT)
_VWAP = int(Channel.VWAP_FLOW)
_VARIANCE = int(Channel.VARIANCE_BPS2)

_ZERO = np.float32(0.0)
_HALF = np.float32(0.5)


@jit
def _copy(x, out):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        out[i] = x[i]


@jit
def _lift_sums(channels, origin, count, out):  # type: ignore[no-untyped-def]
    move = channels[_RETURN, origin : origin + count]
    buy = channels[_BUY, origin : origin + count]
    sell = channels[_SELL, origin : origin + count]
    signed = channels[_FLOW, origin : origin + count]
    vwap = channels[_VWAP, origin : origin + count]
    variance = channels[_VARIANCE, origin : origin + count]
    for i in range(count):
        r = move[i]
        size = abs(r)
        out[0, i] = (size + r) * _HALF
        out[1, i] = (size - r) * _HALF
        out[2, i] = size
        out[3, i] = buy[i] + sell[i]
        out[4, i] = signed[i]
        out[5, i] = abs(signed[i])
        out[6, i] = vwap[i]
        out[7, i] = variance[i]


@jit
def lift(group: I64, channels: F32, origin: int, count: int, out: F32) -> None:
    """Write the elements of single frames.

    Parameters
    ----------
    group : int64[9]            a row of Program.groups
    channels : float32[C, n]     inputs; frames (or symbols) origin to origin + count are read
    out : float32[E, >= count]   written
    """
    op = group[OP]
    if op == _SUMS:
        _lift_sums(channels, origin, count, out)
        return
    x = channels[group[INPUT_X], origin : origin + count]
    _copy(x, out[0])
    if op == _EXTREMES:
        _copy(x, out[1])
    elif op == _CROSS:
        _copy(channels[group[INPUT_Y], origin : origin + count], out[1])
        out[2:5, :count] = _ZERO
    elif op == _DECAY:
        for element in range(1, group[SIZE]):
            _copy(x, out[element])
    elif op == _SPECTRUM:
        bins = group[SIZE] // 2
        for k in range(1, bins):
            _copy(x, out[k])
        out[bins : 2 * bins, :count] = _ZERO
    elif op == _PATH:
        # Zero where the return is known, else NaN: an offset from an unknown price is unknown.
        for element in range(1, group[SIZE]):
            for i in range(count):
                out[element, i] = x[i] - x[i]
    else:  # MOMENTS
        out[1, :count] = _ZERO


@jit
def _merge_moments(a_mean, a_m2, b_mean, b_m2, mean, m2, half_count):  # type: ignore[no-untyped-def]
    """Chan, Golub, LeVeque (1979), eq. 1.5 for equal halves."""
    weight = np.float32(half_count) * _HALF
    for i in range(mean.size):
        d = b_mean[i] - a_mean[i]
        mean[i] = (a_mean[i] + b_mean[i]) * _HALF
        m2[i] = (a_m2[i] + b_m2[i]) + (d * d) * weight


@jit
def _merge_min(a, b, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        x = a[i]
        y = b[i]
        low = x if x < y else y  # y when either is NaN
        out[i] = x if x != x else low


@jit
def _merge_max(a, b, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        x = a[i]
        y = b[i]
        high = x if x > y else y
        out[i] = x if x != x else high


@jit
def _merge_sum(a, b, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = a[i] + b[i]


@jit
def _merge_decay(a, b, out, decay):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = a[i] * decay + b[i]


@jit
def _merge_co_moment(a_x, a_y, a_c, b_x, b_y, b_c, out, half_count):  # type: ignore[no-untyped-def]
    weight = np.float32(half_count) * _HALF
    for i in range(out.size):
        out[i] = (a_c[i] + b_c[i]) + ((b_x[i] - a_x[i]) * (b_y[i] - a_y[i])) * weight


@jit
def _merge_path(a, row, a0, b, b0, out, out0, count, half_count):  # type: ignore[no-untyped-def]
    """Shift the older half so that both are relative to the newest frame, then merge."""
    weight = np.float32(half_count) * _HALF
    # Sum of time differences between the halves: n_a n_b / n · h = h² / 2.
    time_weight = np.float32(half_count) * np.float32(half_count) * _HALF
    a_move, a_mean, a_m2, a_low, a_high, a_time = (
        a[row, a0 : a0 + count],
        a[row + 1, a0 : a0 + count],
        a[row + 2, a0 : a0 + count],
        a[row + 3, a0 : a0 + count],
        a[row + 4, a0 : a0 + count],
        a[row + 5, a0 : a0 + count],
    )
    b_move, b_mean, b_m2, b_low, b_high, b_time = (
        b[0, b0 : b0 + count],
        b[1, b0 : b0 + count],
        b[2, b0 : b0 + count],
        b[3, b0 : b0 + count],
        b[4, b0 : b0 + count],
        b[5, b0 : b0 + count],
    )
    move = out[0, out0 : out0 + count]
    mean = out[1, out0 : out0 + count]
    m2 = out[2, out0 : out0 + count]
    low = out[3, out0 : out0 + count]
    high = out[4, out0 : out0 + count]
    time = out[5, out0 : out0 + count]
    for i in range(count):
        shift = b_move[i]
        move[i] = a_move[i] + shift
        older = a_mean[i] - shift
        d = b_mean[i] - older
        mean[i] = (older + b_mean[i]) * _HALF
        m2[i] = (a_m2[i] + b_m2[i]) + (d * d) * weight
        time[i] = (a_time[i] + b_time[i]) + d * time_weight
    for i in range(count):
        x = a_low[i] - b_move[i]
        y = b_low[i]
        least = x if x < y else y
        low[i] = x if x != x else least
        x = a_high[i] - b_move[i]
        y = b_high[i]
        most = x if x > y else y
        high[i] = x if x != x else most


@jit
def _merge_bin(a_re, a_im, b_re, b_im, re, im, cos, sin):  # type: ignore[no-untyped-def]
    """A + e^{-i w h} B, with cos and sin of w h from the table."""
    for i in range(re.size):
        x = b_re[i]
        y = b_im[i]
        re[i] = a_re[i] + (cos * x + sin * y)
        im[i] = a_im[i] + (cos * y - sin * x)


@jit
def merge(  # type: ignore[no-untyped-def]
    constants, group, level, older, row, a0, newer, b0, out, out0, count
):
    """Join the elements of two adjacent halves into those of a window of 2^level frames.

    Parameters
    ----------
    older : float32[>= row + E, n] the earlier halves, from this row on, read at a0
    newer : float32[E, n]          the later halves, read at b0
    out : float32[E, n]            written at out0; neither older nor newer
    count : int                    positions
    """
    op = group[OP]
    half_count = 1 << (level - 1)
    a1 = a0 + count
    b1 = b0 + count
    o1 = out0 + count
    if op == _MOMENTS:
        _merge_moments(
            older[row, a0:a1],
            older[row + 1, a0:a1],
            newer[0, b0:b1],
            newer[1, b0:b1],
            out[0, out0:o1],
            out[1, out0:o1],
            half_count,
        )
    elif op == _EXTREMES:
        _merge_min(older[row, a0:a1], newer[0, b0:b1], out[0, out0:o1])
        _merge_max(older[row + 1, a0:a1], newer[1, b0:b1], out[1, out0:o1])
    elif op == _SUMS:
        for e in range(SUMS_SIZE):
            _merge_sum(older[row + e, a0:a1], newer[e, b0:b1], out[e, out0:o1])
    elif op == _CROSS:
        _merge_co_moment(
            older[row, a0:a1], older[row + 1, a0:a1], older[row + 4, a0:a1],
            newer[0, b0:b1], newer[1, b0:b1], newer[4, b0:b1],
            out[4, out0:o1], half_count,
        )  # fmt: skip
        for e in range(2):
            _merge_moments(
                older[row + e, a0:a1], older[row + 2 + e, a0:a1], newer[e, b0:b1], newer[2 + e, b0:b1],
                out[e, out0:o1], out[2 + e, out0:o1], half_count,
            )  # fmt: skip
    elif op == _PATH:
        _merge_path(older, row, a0, newer, b0, out, out0, count, half_count)
    elif op == _DECAY:
        for e in range(group[SIZE]):
            decay = constants[group[CONSTANTS] + e * LEVELS + level]
            _merge_decay(older[row + e, a0:a1], newer[e, b0:b1], out[e, out0:o1], decay)
    elif op == _SPECTRUM:
        bins = group[SIZE] // 2
        for k in range(bins):
            at = group[CONSTANTS] + (level * bins + k) * 2
            _merge_bin(
                older[row + k, a0:a1], older[row + bins + k, a0:a1], newer[k, b0:b1], newer[bins + k, b0:b1],
                out[k, out0:o1], out[bins + k, out0:o1], constants[at], constants[at + 1],
            )  # fmt: skip
