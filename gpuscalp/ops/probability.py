"""From margins to probabilities, agreement and edge: one pass over the rows, float64, on the host.

Every row is computed alone and in one fixed order, so a row has the same bits in a batch of any size, and by
:mod:`gpuscalp.ops.elementary` on any machine. Rows are taken a block at a time and stand innermost in all
arrays: the loops over them become vectors.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.ops.elementary import exp, log
from gpuscalp.schema import F32, F64

_BLOCK: Final = 64


@jit
def combine(
    margins: F32,
    scale: F64,
    bias: F64,
    class_return_bps: F64,
    raw: F64,
    probability: F64,
    agreement: F64,
    spread: F64,
    edge_bps: F64,
) -> None:
    """Combine the margins of M members row by row.

    The softmax of each member is averaged (``raw``); vector scaling ``softmax(scale · log p + bias)`` turns
    the mean into the calibrated probability. The same scaling is applied to each member alone for its vote
    and its edge, so that a shift of the calibration does not look like disagreement.

    Parameters
    ----------
    margins : float32[M, R, K]
    scale, bias : float64[K]        the calibration; ones and zeros change nothing
    class_return_bps : float64[K]   mean mid return of each class
    raw : float64[R, K]             written: mean probability before the calibration
    probability : float64[R, K]     written: calibrated, sums to 1
    agreement : float64[R]          written: share of members whose likeliest class is the ensemble's
    spread : float64[R]             written: standard deviation over the members of their edge, bps
    edge_bps : float64[R]           written: Σ probability · class_return_bps

    A row with a margin that is not a number gives NaN everywhere.
    """
    member_count, row_count, class_count = margins.shape
    mean = np.empty((class_count, _BLOCK))
    own = np.empty((class_count, _BLOCK))
    logs = np.empty((member_count, class_count, _BLOCK))
    edges = np.empty((member_count, _BLOCK))
    work = np.empty((2, _BLOCK))
    choice = np.empty(_BLOCK, np.int64)
    likeliest = np.empty(_BLOCK, np.int64)
    for start in range(0, row_count, _BLOCK):
        count = min(_BLOCK, row_count - start)
        mean[:] = 0.0
        for member in range(member_count):
            for k in range(class_count):
                for i in range(count):
                    logs[member, k, i] = margins[member, start + i, k]
            _log_softmax(logs[member], count, own, work)
            for k in range(class_count):
                for i in range(count):
                    mean[k, i] += own[k, i]
        for k in range(class_count):
            for i in range(count):
                mean[k, i] /= member_count
                raw[start + i, k] = mean[k, i]
        _vector_scaling(mean, scale, bias, count, own, work)
        _returns(own, class_return_bps, count, work[0])
        _likeliest(own, count, choice)
        for k in range(class_count):
            for i in range(count):
                probability[start + i, k] = own[k, i]
        for i in range(count):
            edge_bps[start + i] = work[0, i]
            agreement[start + i] = 0.0 if work[0, i] == work[0, i] else math.nan
            spread[start + i] = 0.0
        for member in range(member_count):
            _scaled_softmax(logs[member], scale, bias, count, own, work)
            _returns(own, class_return_bps, count, edges[member])
            _likeliest(own, count, likeliest)
            for i in range(count):
                agreement[start + i] += 1.0 if likeliest[i] == choice[i] else 0.0
        _deviations(edges, count, work[0], spread[start : start + count])
        for i in range(count):
            agreement[start + i] /= member_count


@jit
def calibrate(raw: F64, scale: F64, bias: F64, probability: F64) -> None:
    """Apply vector scaling to mean probabilities: the same arithmetic as ``combine``.

    Parameters
    ----------
    raw : float64[R, K]
    scale, bias : float64[K]
    probability : float64[R, K]   written; may be ``raw`` itself
    """
    row_count, class_count = raw.shape
    mean = np.empty((class_count, _BLOCK))
    own = np.empty((class_count, _BLOCK))
    work = np.empty((2, _BLOCK))
    for start in range(0, row_count, _BLOCK):
        count = min(_BLOCK, row_count - start)
        for k in range(class_count):
            for i in range(count):
                mean[k, i] = raw[start + i, k]
        _vector_scaling(mean, scale, bias, count, own, work)
        for k in range(class_count):
            for i in range(count):
                probability[start + i, k] = own[k, i]


# Below: arrays float64[K, B], of which the first ``count`` rows count; ``work`` float64[2, B].


@jit
def _log_softmax(logs: F64, count: int, own: F64, work: F64) -> None:
    """Turn margins into logarithms of probabilities, and write the probabilities into ``own``."""
    class_count = logs.shape[0]
    top, total = work[0], work[1]
    _top(logs, count, top)
    total[:count] = 0.0
    for k in range(class_count):
        for i in range(count):
            logs[k, i] -= top[i]
            own[k, i] = exp(logs[k, i])
            total[i] += own[k, i]
    for k in range(class_count):
        for i in range(count):
            own[k, i] /= total[i]
    for i in range(count):
        total[i] = log(total[i])
    for k in range(class_count):
        for i in range(count):
            logs[k, i] -= total[i]


@jit
def _vector_scaling(mean: F64, scale: F64, bias: F64, count: int, out: F64, work: F64) -> None:
    """Calibrate mean probabilities, which are replaced by their logarithms."""
    for k in range(mean.shape[0]):
        for i in range(count):
            mean[k, i] = log(mean[k, i])
    _scaled_softmax(mean, scale, bias, count, out, work)


@jit
def _scaled_softmax(logs: F64, scale: F64, bias: F64, count: int, out: F64, work: F64) -> None:
    class_count = logs.shape[0]
    top, total = work[0], work[1]
    for k in range(class_count):
        for i in range(count):
            # A class that no member gives any probability has log 0 = -inf, and -inf times a scale of 0 is
            # NaN: -745 is the smallest logarithm that exp still tells from zero.
            value = logs[k, i]
            value = -745.0 if value < -745.0 else value
            out[k, i] = scale[k] * value + bias[k]
    _top(out, count, top)
    total[:count] = 0.0
    for k in range(class_count):
        for i in range(count):
            out[k, i] = exp(out[k, i] - top[i])
            total[i] += out[k, i]
    for k in range(class_count):
        for i in range(count):
            out[k, i] /= total[i]


@jit
def _top(values: F64, count: int, top: F64) -> None:
    top[:count] = -math.inf
    for k in range(values.shape[0]):
        for i in range(count):
            top[i] = values[k, i] if values[k, i] > top[i] else top[i]


@jit
def _returns(probability: F64, class_return_bps: F64, count: int, out: F64) -> None:
    out[:count] = 0.0
    for k in range(probability.shape[0]):
        for i in range(count):
            out[i] += probability[k, i] * class_return_bps[k]


@jit
def _likeliest(values: F64, count: int, best: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    for i in range(count):
        found = 0
        largest = values[0, i]
        for k in range(1, values.shape[0]):
            if values[k, i] > largest:
                found, largest = k, values[k, i]
        best[i] = found


@jit
def _deviations(edges: F64, count: int, centre: F64, out: F64) -> None:
    """Write the standard deviation over the members of each row's edges."""
    member_count = edges.shape[0]
    centre[:count] = 0.0
    for member in range(member_count):
        for i in range(count):
            centre[i] += edges[member, i]
    for i in range(count):
        centre[i] /= member_count
        out[i] = 0.0
    for member in range(member_count):
        for i in range(count):
            out[i] += (edges[member, i] - centre[i]) * (edges[member, i] - centre[i])
    for i in range(count):
        out[i] = math.sqrt(out[i] / member_count)
