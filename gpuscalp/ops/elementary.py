"""exp and log in float64 from operations with one correct result: the same bits on every machine.

Those of the C library differ between its versions in the last place, and are called one value at a time.
These are additions and multiplications, which a compiler turns into vectors without changing a bit. Errors
are below 1.5 units in the last place (tests/ops/test_elementary.py).

Method: exp halves the range by multiples of ln 2, kept in two parts (Cody and Waite), and sums the Taylor
series; log takes the exponent out and sums the series of the inverse hyperbolic tangent.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from gpuscalp.ops._numba import jit

_LOG2_E: Final = 1.4426950408889634
# ln 2 in two parts; the upper one has so few digits that any exponent times it is exact.
_LN2_HIGH: Final = 0.6931471803691238
_LN2_LOW: Final = 1.9082149292705877e-10
# Added and taken away again it rounds to an integer, which then lies in the lowest bits.
_ROUND: Final = 6755399441055744.0
_ROUND_BITS: Final = int(np.float64(_ROUND).view(np.int64))
_E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9, _E10, _E11, _E12, _E13 = (
    1.0 / math.factorial(power) for power in range(2, 14)
)
_L3, _L5, _L7, _L9, _L11, _L13, _L15, _L17, _L19, _L21 = (2.0 / power for power in range(3, 23, 2))
_BIAS: Final = 1023
_MANTISSA: Final = (1 << 52) - 1
_ONE_BITS: Final = _BIAS << 52
_LEAST_NORMAL: Final = 2.2250738585072014e-308
_UP: Final = 2.0**54
_SQRT_2: Final = 1.4142135623730951


@jit
def exp(x: float) -> float:
    """Return e**x; 0 below −745.2, infinity above 709.8."""
    x = -746.0 if x < -746.0 else x
    x = 710.0 if x > 710.0 else x
    shifted = x * _LOG2_E + _ROUND
    times = shifted - _ROUND
    r = (x - times * _LN2_HIGH) - times * _LN2_LOW
    p = _E12 + r * _E13
    p = _E11 + r * p
    p = _E10 + r * p
    p = _E9 + r * p
    p = _E8 + r * p
    p = _E7 + r * p
    p = _E6 + r * p
    p = _E5 + r * p
    p = _E4 + r * p
    p = _E3 + r * p
    p = _E2 + r * p
    p = 1.0 + r * p
    p = 1.0 + r * p
    # In two steps: the power of two may lie beyond the range of the result.
    exponent = np.float64(shifted).view(np.int64) - _ROUND_BITS
    half = exponent >> 1
    return p * _power_of_2(half) * _power_of_2(exponent - half)


@jit
def log(x: float) -> float:
    """Return the natural logarithm; −infinity of 0, NaN below."""
    small = x < _LEAST_NORMAL
    bits = np.float64(x * _UP if small else x).view(np.int64)
    exponent = (bits >> 52) - _BIAS - (54 if small else 0)
    m = np.int64((bits & _MANTISSA) | _ONE_BITS).view(np.float64)
    upper = m > _SQRT_2
    m = m * 0.5 if upper else m
    whole = np.float64(exponent + 1 if upper else exponent)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = _L19 + z * _L21
    p = _L17 + z * p
    p = _L15 + z * p
    p = _L13 + z * p
    p = _L11 + z * p
    p = _L9 + z * p
    p = _L7 + z * p
    p = _L5 + z * p
    p = _L3 + z * p
    # log m = 2s + s·z·p, and 2s = f − s·f with f = m − 1: the large part is exact that way.
    f = m - 1.0
    found: float = whole * _LN2_HIGH + (f - (s * f - (s * z * p + whole * _LN2_LOW)))
    found = x if x == np.inf else found
    found = -np.inf if x == 0.0 else found
    return found if x >= 0.0 else np.nan


@jit
def _power_of_2(exponent: np.int64) -> float:
    return np.int64((exponent + _BIAS) << 52).view(np.float64)
