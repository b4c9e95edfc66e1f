"""What the session itself has found of the last frames: the measure of what workers answer.

Owns: digests and margins of as many frames as may wait for an answer. Never: knows a worker.
"""

from __future__ import annotations

from typing import final

import numpy as np

from gpuscalp.ops.row_digest import U64
from gpuscalp.schema import F32
from gpuscalp.worker.memory import SLOTS


@final
class History:
    """The last SLOTS frames.

    Parameters
    ----------
    margins_shape : (M, S, K)

    Attributes
    ----------
    kept, settled : index of the newest frame with digests; of the newest of which it is said which margins
        count. -1: none
    """

    def __init__(self, margins_shape: tuple[int, int, int]) -> None:
        self.kept = self.settled = -1
        self._digests = np.zeros((SLOTS, margins_shape[1]), np.uint64)
        self._margins = np.zeros((SLOTS, *margins_shape), np.float32)
        self._known = np.zeros(SLOTS, np.bool_)

    def keep(self, digests: U64) -> None:
        """Take the digests of the next frame."""
        self.kept += 1
        self._digests[self.kept % SLOTS] = digests

    def settle(self, margins: F32 | None) -> None:
        """Take the margins that count in the newest frame; None: it has no predictions."""
        self.settled = self.kept
        self._known[self.settled % SLOTS] = margins is not None
        if margins is not None:
            self._margins[self.settled % SLOTS] = margins

    def digests(self, index: int) -> U64:
        digests: U64 = self._digests[index % SLOTS]
        return digests

    def margins(self, index: int) -> F32 | None:
        slot = index % SLOTS
        return self._margins[slot] if self._known[slot] else None
