"""How long something took, many times: a bounded sample, its quantiles with intervals.

Owns: the sample and the fit. Never: knows what was measured.
"""

from __future__ import annotations

from array import array
from typing import Final, final

import numpy as np
from msgspec import Struct

from gpuscalp.errors import DataError
from gpuscalp.schema import F64, I64, NS_PER_MS
from gpuscalp.stats import block_bootstrap

# Below this a p99 rests on one or two values.
MIN_SAMPLES: Final = 200
QUANTILES: Final = (0.5, 0.9, 0.99)
_KEPT_MAX: Final = 20_000
_DRAWN: Final = 200  # samples of a fitted leg
_RESAMPLES: Final = 400


class Quantile(Struct, frozen=True):
    """One quantile with its 95 % interval, by moving blocks: neighbouring latencies resemble each other."""

    share: float
    ms: float
    low_ms: float
    high_ms: float


class Fit(Struct, frozen=True):
    """An empirical distribution.

    Attributes
    ----------
    count : durations measured
    kept : of them, evenly spread, what quantiles and intervals are made of
    samples_ms : equally likely values for ``LegConfig``, ascending
    """

    count: int
    kept: int
    quantiles: tuple[Quantile, ...]
    samples_ms: tuple[float, ...]


@final
class Durations:
    """Durations in the order of time, evenly thinned out when they become too many: at most 160 KB."""

    def __init__(self) -> None:
        self.count = 0
        self._stride = 1
        self._kept = array("q")

    def add(self, durations_ns: I64) -> None:
        first = -self.count % self._stride
        self.count += len(durations_ns)
        self._kept.frombytes(durations_ns[first :: self._stride].astype(np.int64).tobytes())
        while len(self._kept) > _KEPT_MAX:
            self._kept, self._stride = self._kept[::2], 2 * self._stride

    def add_one(self, duration_ns: int) -> None:
        self.add(np.array([duration_ns], np.int64))

    @property
    def kept_ms(self) -> F64:
        return np.array(self._kept, np.int64) / NS_PER_MS


def fit(durations: Durations, what: str) -> Fit:
    """Return the distribution of durations.

    Parameters
    ----------
    what : names them in the error

    Raises
    ------
    DataError       there are fewer than MIN_SAMPLES
    """
    if durations.count < MIN_SAMPLES:
        raise DataError(
            "too few samples to fit a latency",
            where=what,
            value=f"{durations.count} of at least {MIN_SAMPLES}",
            fix="let the session run longer",
        )
    # An estimate of the exchange's clock may be off by more than the shortest way.
    kept_ms = np.maximum(durations.kept_ms, 0.0)
    drawn = np.quantile(kept_ms, (np.arange(_DRAWN) + 0.5) / _DRAWN)
    return Fit(
        count=durations.count,
        kept=len(kept_ms),
        quantiles=tuple(_quantile(kept_ms, share) for share in QUANTILES),
        samples_ms=tuple(round(each, 4) for each in drawn.tolist()),
    )


def _quantile(kept_ms: F64, share: float) -> Quantile:
    def statistic(part: F64) -> float:
        return float(np.quantile(part, share))

    interval = block_bootstrap(
        kept_ms,
        statistic,
        block=max(1, round(len(kept_ms) ** (1 / 3))),
        rng=np.random.default_rng(7),
        resamples=_RESAMPLES,
    )
    return Quantile(share, statistic(kept_ms), interval.low, interval.high)
