"""How often the best of several configurations is no better than the median when it counts.

Owns: combinatorially symmetric cross-validation over a matrix of returns.
Never: knows what the configurations are, or where their returns come from.

Source: Bailey, Borwein, López de Prado and Zhu (2015), "The Probability of Backtest Overfitting".
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np

from gpuscalp.errors import DataError
from gpuscalp.schema import F64, I64

BLOCKS: Final = 16  # 12,870 ways to halve them
# A block of fewer returns than this has no Sharpe ratio worth a rank.
BLOCK_RETURNS_MIN: Final = 4


@dataclass(frozen=True, slots=True)
class Overfitting:
    """What C combinations say about N configurations.

    Attributes
    ----------
    probability : share of combinations in which the best half-sample configuration ranks below the median in
        the other half (logit < 0); a rank in the very middle counts half
    logits : float64[C]        ln(w / (1 − w)), w = rank / (N + 1) of the chosen one out of sample
    inside, outside : float64[C]   its Sharpe ratio per interval in the half that chose it, and in the other
    chosen : int64[N]          how often each configuration was chosen
    slope : of ``outside`` on ``inside``, least squares; NaN where ``inside`` is constant
    loss : share of combinations in which the chosen one loses in the other half
    """

    probability: float
    logits: F64
    inside: F64
    outside: F64
    chosen: I64
    slope: float
    loss: float


def backtest_overfitting(returns: F64, *, blocks: int = BLOCKS) -> Overfitting:
    """Choose on every half of the blocks, and rank the choice on the other half.

    Parameters
    ----------
    returns : float64[T, N]   of N configurations over the same T intervals, in the order of time
    blocks : even number of consecutive blocks that T is cut into; the first T mod blocks returns are left out

    Notes
    -----
    The measure is the Sharpe ratio (mean over standard deviation with n − 1) of a half; that of returns that
    are all alike counts as 0: who never trades neither wins nor loses. Of configurations that are equally
    good the first is chosen, and equal ones share their mean rank. Combinations overlap, so their share has
    no binomial error; without skill its expectation is 1/2. The paper counts a rank in the very middle, which
    an odd N and ties have, as overfit: three configurations of noise then come to 2/3.

    Raises
    ------
    DataError
        there is nothing to compare, too few returns, or no configuration did anything else than another
    """
    length, count = returns.shape
    if blocks < 2 or blocks % 2:
        raise DataError("the number of blocks must be even", where="blocks", value=blocks)
    if count < 2:
        raise DataError(
            "overfitting comes from choosing, and there is nothing to choose from",
            where="configurations",
            value=count,
            fix="two configurations or more",
        )
    size = length // blocks
    if size < BLOCK_RETURNS_MIN:
        raise DataError(
            "too few returns for so many blocks",
            where="returns",
            value=f"{length} in {blocks} blocks",
            fix="a longer time, a shorter interval, or fewer blocks",
        )
    used = returns[length - size * blocks :]
    if (used == used[:, :1]).all():
        raise DataError(
            "all configurations did the same, so nothing was chosen",
            where="configurations",
            value=count,
            fix="configurations that differ in what they trade",
        )
    cut = used.reshape(blocks, size, count)
    # Not around means: who rests in a half is zero there to the bit, who does what another does is its equal.
    sums, squares = cut.sum(axis=1), (cut**2).sum(axis=1)
    halves = np.array(list(itertools.combinations(range(blocks), blocks // 2)))
    member = np.zeros((len(halves), blocks))
    np.put_along_axis(member, halves, 1.0, axis=1)
    total = size * blocks // 2
    inside_all = _sharpe(member @ sums, member @ squares, total)
    outside_all = _sharpe((1 - member) @ sums, (1 - member) @ squares, total)
    best = np.argmax(inside_all, axis=1)
    rows = np.arange(len(best))
    inside, outside = inside_all[rows, best], outside_all[rows, best]
    below = (outside_all < outside[:, None]).sum(axis=1)
    equal = (outside_all == outside[:, None]).sum(axis=1)
    share = (below + (equal + 1) / 2) / (count + 1)
    spread = float(np.var(inside))
    moved = float(np.mean((inside - inside.mean()) * (outside - outside.mean())))
    logits = np.log(share / (1 - share))
    return Overfitting(
        probability=float(np.mean(share < 0.5) + np.mean(share == 0.5) / 2),
        logits=logits,
        inside=inside,
        outside=outside,
        chosen=np.bincount(best, minlength=count).astype(np.int64),
        slope=moved / spread if spread > 0 else float("nan"),
        loss=float(np.mean(outside < 0)),
    )


def _sharpe(sums: F64, squares: F64, total: int) -> F64:
    """Return float64[C, N] ratios of ``total`` returns each."""
    mean, power = sums / total, squares / total
    variance = (power - mean * mean) * (total / (total - 1))
    # Returns that are all alike leave rounding, of the order of their squares.
    varied = variance > 1e-10 * power
    return np.where(varied, mean / np.sqrt(np.where(varied, variance, 1.0)), 0.0)
