"""Random variates that are the same on every platform.

Owns: what a simulation needs beyond ``Generator.random()`` (53 bits of PCG64, exact everywhere). ``log`` of C
libraries differs in the last place, and one such bit would end in another market.
"""

from __future__ import annotations

import numpy as np

from gpuscalp.ops._numba import jit


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
