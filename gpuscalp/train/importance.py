"""Which columns the model reads, and what it loses without them.

Owns: gain (what splits on a column won in training) and permutation (what the held-out log loss loses when
the column is shuffled). Gain favours columns with many values; permutation is measured on rows that the
members of its fold have not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gpuscalp.ensemble import Ensemble
from gpuscalp.schema import F64
from gpuscalp.train.held_out import Sample
from gpuscalp.train.metrics import log_loss

# Shuffling is one prediction of the sample per column; the rest of the columns hold next to no gain.
PERMUTED_COLUMNS_MAX: Final = 30


@dataclass(frozen=True, slots=True)
class Importance:
    """One column.

    Attributes
    ----------
    gain : share of the total gain of all members' splits
    permutation : rise of the held-out log loss when the column is shuffled, nats; None where not measured
    """

    name: str
    gain: float
    permutation: float | None


def gain_shares(boosters: Sequence[Any], names: Sequence[str]) -> F64:
    """Return each column's share of the total gain, over all boosters.

    Parameters
    ----------
    boosters : XGBoost boosters trained without column names
    names : columns in order

    Returns
    -------
    float64[F], sums to 1, or all 0 where no tree has a split
    """
    total = np.zeros(len(names))
    for booster in boosters:
        for key, gain in booster.get_score(importance_type="total_gain").items():
            total[int(key.removeprefix("f"))] += gain
    whole = total.sum()
    return total / whole if whole else total


def importances(
    ensemble: Ensemble, sample: Sample, gain: F64, names: Sequence[str], *, rng: np.random.Generator
) -> tuple[Importance, ...]:
    """Measure what shuffling costs for the columns with the largest gain.

    Parameters
    ----------
    ensemble : members that have not seen the sample, calibrated by earlier folds only
    sample : held-out rows
    gain : float64[F]
    names : columns in order
    rng : shuffles

    Returns
    -------
    tuple of Importance, by permutation, then by gain
    """
    order = np.argsort(-gain, kind="stable")
    measured = [int(index) for index in order[:PERMUTED_COLUMNS_MAX] if gain[index] > 0.0 and len(sample.x)]
    losses: dict[int, float] = {}
    if measured:
        base = log_loss(ensemble.predict(sample.x).probability, sample.direction)
        x = sample.x.copy()
        for index in measured:
            x[:, index] = sample.x[rng.permutation(len(x)), index]
            losses[index] = log_loss(ensemble.predict(x).probability, sample.direction) - base
            x[:, index] = sample.x[:, index]
    found = [Importance(names[i], float(gain[i]), losses.get(int(i))) for i in order]
    return tuple(sorted(found, key=lambda item: (-(item.permutation or 0.0), -item.gain)))
