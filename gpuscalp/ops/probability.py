"""From margins to probabilities, agreement and edge: one pass over the rows, float64, on the host.

Every row is computed alone and in one fixed order, so a row has the same bits in a batch of any size. Host
only: margins are a few numbers per row, and ``exp`` has no correctly rounded form that two devices share.
"""

from __future__ import annotations

import math

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.schema import F32, F64


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
    mean = np.empty(class_count)
    own = np.empty((member_count, class_count))
    logs = np.empty((member_count, class_count))
    for row in range(row_count):
        mean[:] = 0.0
        for member in range(member_count):
            top = -math.inf
            for k in range(class_count):
                top = max(top, float(margins[member, row, k]))
            total = 0.0
            for k in range(class_count):
                logs[member, k] = float(margins[member, row, k]) - top
                own[member, k] = math.exp(logs[member, k])
                total += own[member, k]
            log_total = math.log(total)
            for k in range(class_count):
                mean[k] += own[member, k] / total
                logs[member, k] -= log_total
        for k in range(class_count):
            mean[k] /= member_count
            raw[row, k] = mean[k]
            probability[row, k] = math.log(mean[k])
        _scaled_softmax(probability[row], scale, bias, probability[row])
        choice = _likeliest(probability[row])
        edge = 0.0
        for k in range(class_count):
            edge += probability[row, k] * class_return_bps[k]
        votes = 0
        centre = 0.0
        for member in range(member_count):
            _scaled_softmax(logs[member], scale, bias, own[member])
            if _likeliest(own[member]) == choice:
                votes += 1
            logs[member, 0] = 0.0
            for k in range(class_count):
                logs[member, 0] += own[member, k] * class_return_bps[k]
            centre += logs[member, 0]
        centre /= member_count
        variance = 0.0
        for member in range(member_count):
            variance += (logs[member, 0] - centre) * (logs[member, 0] - centre)
        spread[row] = math.sqrt(variance / member_count)
        edge_bps[row] = edge
        agreement[row] = votes / member_count if edge == edge else math.nan


@jit
def calibrate(raw: F64, scale: F64, bias: F64, probability: F64) -> None:
    """Apply vector scaling to mean probabilities: the same arithmetic as ``combine``.

    Parameters
    ----------
    raw : float64[R, K]
    scale, bias : float64[K]
    probability : float64[R, K]   written; may be ``raw`` itself
    """
    for row in range(raw.shape[0]):
        for k in range(raw.shape[1]):
            probability[row, k] = math.log(raw[row, k])
        _scaled_softmax(probability[row], scale, bias, probability[row])


@jit
def _scaled_softmax(logs: F64, scale: F64, bias: F64, out: F64) -> None:
    top = -math.inf
    for k in range(logs.size):
        # A class that no member gives any probability has log 0 = -inf, and -inf times a scale of 0 is NaN:
        # -745 is the smallest logarithm that exp still tells from zero.
        value = logs[k]
        if value < -745.0:
            value = -745.0
        out[k] = scale[k] * value + bias[k]
        top = max(top, out[k])
    total = 0.0
    for k in range(logs.size):
        out[k] = math.exp(out[k] - top)
        total += out[k]
    for k in range(logs.size):
        out[k] /= total


@jit
def _likeliest(values: F64) -> int:
    best = 0
    for k in range(1, values.size):
        if values[k] > values[best]:
            best = k
    return best
