"""The one logarithm that a margin needs: XGBoost's base score of a logistic objective, in its own bits."""

from __future__ import annotations

import math

import numpy as np

from gpuscalp.ops._numba import jit


@jit
def logit32(probability: np.float32) -> np.float32:
    """Return ``-log(1/p - 1)`` in float32, step by step as XGBoost computes it.

    A probability nearer to 0 or 1 than 1e-6 is taken for 1e-6 or 1 - 1e-6 (found by comparing margins with
    XGBoost 3.2.0 and 3.4.1; the tests repeat it).

    The logarithm is the C library's ``logf``, which is what XGBoost calls. It is not always the float32 next
    to the exact value, so a logarithm in float64, rounded, would differ in the last bit now and then; NumPy
    has its own vectorised one.

    Parameters
    ----------
    probability : float32   in (0, 1)
    """
    edge = np.float32(1e-6)
    probability = min(max(probability, edge), np.float32(1.0) - edge)
    return np.float32(-math.log(np.float32(1.0) / probability - np.float32(1.0)))
