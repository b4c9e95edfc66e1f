"""How long each stage took: histograms of fixed size, exact to 3 % from 64 ns to a minute.

Owns: counts by stage. Never: reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, final

import numpy as np
import numpy.typing as npt

from gpuscalp.schema import I64

# 32 buckets to each doubling: as a float has its exponent and the first five bits behind it.
_STEPS: Final = 5
_LEAST_BITS: Final = 6
_BUCKETS: Final = (36 - _LEAST_BITS) << _STEPS
# Every duration of an octave is shorter than this; the last octave has all longer ones too.
OCTAVES_NS: Final = tuple(1 << bits for bits in range(_LEAST_BITS + 1, 37))


class Stage(IntEnum):
    """The stages of the way from the socket to the order, in order."""

    RECEIVE = 0  # event time to receive time, by the corrected clock
    DECODE = 1
    BATCH = 2  # in the batcher
    FEATURES = 3
    PREDICT = 4
    GATE = 5
    ORDER = 6
    TOTAL = 7  # received to order handed over


@final
class LatencyHistogram:
    """Counts of durations by stage, about 60 KB in all, whatever is put in.

    Attributes
    ----------
    counts : int64[stages, buckets]
    largest_ns, sum_ns : int64[stages]
    """

    def __init__(self) -> None:
        self.counts: I64 = np.zeros((len(Stage), _BUCKETS), np.int64)
        self.largest_ns: I64 = np.zeros(len(Stage), np.int64)
        self.sum_ns: I64 = np.zeros(len(Stage), np.int64)

    def add(self, stage: Stage, duration_ns: int, count: int = 1) -> None:
        """Take one duration, or several equal ones; negative ones count as 0."""
        self.counts[stage, _bucket(duration_ns)] += count
        self.sum_ns[stage] += max(duration_ns, 0) * count
        if duration_ns > self.largest_ns[stage]:
            self.largest_ns[stage] = duration_ns

    def quantile_ns(self, stage: Stage, quantile: float) -> int | None:
        """Return the smallest upper bound of a bucket that at least this share of the durations does not
        exceed; None where there are none."""
        found = quantile_ns(self.counts[stage], quantile)
        return None if found is None else min(found, int(self.largest_ns[stage]))

    def octaves(self) -> I64:
        """Return int64[stages, octaves], the counts by powers of two: see ``OCTAVES_NS``."""
        return np.asarray(self.counts.reshape(len(Stage), len(OCTAVES_NS), -1).sum(axis=2))

    def summary(self) -> Mapping[str, dict[str, float]]:
        """Return count, p50, p99 and largest in µs, of each stage that has any."""
        found = {}
        for stage in Stage:
            p50, p99 = self.quantile_ns(stage, 0.5), self.quantile_ns(stage, 0.99)
            if p50 is None or p99 is None:
                continue
            found[stage.name.lower()] = {
                "count": int(self.counts[stage].sum()),
                "p50_us": p50 / 1e3,
                "p99_us": p99 / 1e3,
                "max_us": int(self.largest_ns[stage]) / 1e3,
            }
        return found

    def clear(self) -> None:
        """Begin anew."""
        self.counts[:] = 0
        self.largest_ns[:] = 0
        self.sum_ns[:] = 0


def quantile_ns(counts: npt.ArrayLike, quantile: float) -> int | None:
    """Return the smallest upper bound of a bucket that at least this share of durations does not exceed.

    Parameters
    ----------
    counts : of one stage, as ``LatencyHistogram`` has them, or sums and differences of such
    """
    risen = np.cumsum(counts)
    total = int(risen[-1])
    if total == 0:
        return None
    return _upper_ns(int(np.searchsorted(risen, max(1, int(np.ceil(quantile * total))))))


def _bucket(duration_ns: int) -> int:
    if duration_ns < 1 << _LEAST_BITS:
        return 0
    exponent = duration_ns.bit_length() - 1
    fraction = (duration_ns >> (exponent - _STEPS)) & ((1 << _STEPS) - 1)
    return min(((exponent - _LEAST_BITS) << _STEPS) + fraction, _BUCKETS - 1)


def _upper_ns(bucket: int) -> int:
    """Return the largest duration that falls into a bucket."""
    exponent, fraction = (bucket >> _STEPS) + _LEAST_BITS, bucket & ((1 << _STEPS) - 1)
    return (((1 << _STEPS) + fraction + 1) << (exponent - _STEPS)) - 1
