"""Variates against their laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gpuscalp.ops.variates import exponential


def test_exponential_follows_its_law():
    rng = np.random.Generator(np.random.PCG64(20))
    draws = np.array([exponential(rng) for _ in range(50_000)])
    # 50,000 draws tell a change of the rate by 1 % from none; a wrong parity of the runs is far beyond it.
    assert stats.kstest(draws, "expon").pvalue > 1e-3
    assert draws.mean() == pytest.approx(1.0, abs=0.02)
    assert np.corrcoef(draws[:-1], draws[1:])[0, 1] == pytest.approx(0.0, abs=0.02)


def test_exponential_uses_only_the_uniforms_of_the_generator():
    """The scalar loop below reads the same stream, so a seed means the same on every platform."""
    fast, plain = (np.random.Generator(np.random.PCG64(5)) for _ in range(2))
    for _ in range(200):
        whole = 0
        while True:
            run = [plain.random()]
            while True:
                run.append(plain.random())
                if run[-1] >= run[-2]:
                    break
            if len(run) % 2 == 0:
                break
            whole += 1
        assert exponential(fast) == whole + run[0]
