"""Whether a shadow model has shown that it is the better one: a test that may be looked at at any time.

Owns: the evidence from paired differences, and the rule of promotion. Never: knows where differences come
from, or a model, or a clock.

The evidence is a wager. Somebody who bets, block after block, that the shadow is better begins with one coin
and cannot, where it is not better, expect to have more than one at any later time; so whoever promotes when
the purse holds 1 / (1 - confidence) coins is wrong with a probability of at most 1 - confidence, however
often he looks and whenever he stops (Ville's inequality; Waudby-Smith & Ramdas 2024, "Estimating means of
bounded random variables by betting"). Both figures have to get there, which is no likelier than one of them
alone (an intersection-union test): no further correction is needed.
"""

from __future__ import annotations

import math
from typing import Final, final

import numpy as np

from gpuscalp.config import PromotionConfig
from gpuscalp.schema import F64

# Blocks that only tell how large differences are; nothing is staked on them.
BLOCKS_BEFORE: Final = 100
# What a bettor stakes everything on: so many root mean squares of the differences before, or so many times
# the largest of them if that is more. A difference beyond it counts as this one.
_ROOTS: Final = 8.0
_LARGEST: Final = 2.0
# Shares of the purse that are staked, each by a bettor of its own with an equal part of the first coin: the
# best share depends on how clear the difference is, which nobody knows before.
_STAKES: Final = tuple(0.96 * 0.5**step for step in range(7))


@final
class Evidence:
    """Paired differences of one figure, block after block: positive where the shadow did better.

    The null hypothesis is that a block's difference has, given all blocks before it, a mean of at most 0. It
    may have any distribution and any spread that the past explains. What is more than 8 root mean squares of
    the earlier differences, and more than twice the largest of them, is cut there: a gain that is cut works
    against the shadow, a loss for it (docs/retraining.md says what that costs).

    Attributes
    ----------
    count : blocks taken
    mean : of all differences, uncut; NaN without any
    log_purse : natural logarithm of what the purse holds
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = math.nan
        self.log_purse = 0.0
        self._squares = self._largest = 0.0
        self._stakes = np.array(_STAKES)
        self._logs: F64 = np.zeros(len(_STAKES))

    def take(self, difference: float) -> None:
        """Take the next block's.

        Parameters
        ----------
        difference : finite
        """
        if self.count >= BLOCKS_BEFORE and self._squares > 0.0:
            scale = max(_ROOTS * math.sqrt(self._squares / self.count), _LARGEST * self._largest)
            self._logs += np.log1p(self._stakes * min(max(difference / scale, -1.0), 1.0))
            top = float(self._logs.max())
            self.log_purse = top + math.log(float(np.exp(self._logs - top).mean()))
        self.count += 1
        self.mean = difference if self.count == 1 else self.mean + (difference - self.mean) / self.count
        self._squares += difference * difference
        self._largest = max(self._largest, abs(difference))

    def shown(self, confidence: float) -> bool:
        """Whether the shadow is better, wrong with a probability of at most ``1 - confidence``."""
        return self.log_purse >= -math.log1p(-confidence)


def promotes(config: PromotionConfig, rows: int, log_loss: Evidence, score: Evidence) -> bool:
    """Whether the rule asks for the shadow.

    Parameters
    ----------
    rows : matured ones that both have predicted
    log_loss, score : lead's less shadow's log loss, and shadow's less lead's score after costs
    """
    return rows >= config.rows_min and all(
        each.mean > 0.0 and each.shown(config.confidence) for each in (log_loss, score)
    )
