"""Random variates and an exponential function that are the same on every platform.

Owns: what a simulation needs beyond ``Generator.random()`` (53 bits of PCG64, exact everywhere). ``exp`` and
``log`` of C libraries differ in the last place, and one such bit would end in another market.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gpuscalp.ops._numba import jit

# 2^-n, exact; beyond 2^-64 an excitation is nothing.
_HALVES: Final = np.array([2.0**-n for n in range(65)])
_LN2_HIGH: Final = 6.93147180369123816490e-01  # the leading 33 bits of ln 2, so that n·_LN2_HIGH is exact
_LN2_LOW: Final = 1.90821492927058770002e-10


@jit
def exponential(rng: np.random.Generator) -> float:
    """Draw a standard exponential variate without a logarithm.

    Source: von Neumann (1951), "Various techniques used in connection with random digits", NBS Applied
    Mathematics Series 12. A run of falling uniforms has odd length with probability exp(-first); each
    failure adds one to the whole part.
    """
    whole = 0.0
    while True:
        first = rng.random()
        last = first
        odd = True
        while True:
            following = rng.random()
            if following >= last:
                break
            last = following
            odd = not odd
        if odd:
            return whole + first
        whole += 1.0


@jit
def exp_minus(x: float) -> float:
    """Return exp(-x) for x >= 0 from + − × ÷ alone; relative error below 1e-15.

    Cody and Waite (1980) reduction to half of ln 2, then the Taylor series to x^14/14!.
    """
    n = int(x / (_LN2_HIGH + _LN2_LOW) + 0.5)
    if n > 64:
        return 0.0
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    term = 1.0
    for k in range(14, 0, -1):
        term = 1.0 - term * r / k
    result: float = term * _HALVES[n]
    return result
