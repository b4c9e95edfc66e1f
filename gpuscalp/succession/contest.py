"""Lead and shadow on the same rows: what each said, what came, and which of them did better.

Owns: the pairing, the score after costs, the blocks. Never: decides
(gpuscalp.succession.promotion), or labels (gpuscalp.succession.outcomes tells what has matured).

Labels of neighbouring frames overlap, so rows are no independent pieces of evidence. They are averaged over
the symbols of a frame, then over the frames of a block of five horizons, of which the last horizon is left
out: every label of a block has ended when the next block begins, and what is known before a block is all that
the test may stake on (``gpuscalp.succession.promotion.Evidence``).
"""

from __future__ import annotations

from collections import deque
from typing import Final, final

import numpy as np

from gpuscalp.config import CostConfig, GridConfig, LabelConfig
from gpuscalp.labels import NO_CLASS, horizon_frames
from gpuscalp.orders import SignalRow
from gpuscalp.schema import F64, NS_PER_MS
from gpuscalp.strategy import Strategy
from gpuscalp.succession.outcomes import Matured
from gpuscalp.succession.promotion import Evidence

HORIZONS: Final = 5
# Frames beyond the horizon that may wait for their labels: as many as may come in one go.
_SPARE_FRAMES: Final = 1_024


def block_ns(horizon_ms: int) -> int:
    """Return how long a block is, its gap included."""
    return HORIZONS * horizon_ms * NS_PER_MS


@final
class Contest:
    """Follows a lead and a shadow.

    Order of calls: ``note`` for each frame, ``mature`` when labels of noted frames are known.

    Parameters
    ----------
    strategy, cost : what an entry has to clear, and what it costs
    min_edge_bps : beyond the cost, of the same strategy
    label, grid : of both models
    after_ns : frames that end then or before were predicted by others

    Attributes
    ----------
    rows : matured ones that both have predicted
    log_loss, score : evidence from blocks; of the score in bps a row
    """

    def __init__(
        self,
        strategy: Strategy,
        cost: CostConfig,
        *,
        min_edge_bps: float,
        label: LabelConfig,
        grid: GridConfig,
        after_ns: int,
    ) -> None:
        self.rows = 0
        self.log_loss, self.score = Evidence(), Evidence()
        self._strategy, self._fees_bps, self._min_edge_bps = strategy, 2.0 * cost.taker_fee_bps, min_edge_bps
        self._horizon_ns, self._block_ns = label.horizon_ms * NS_PER_MS, block_ns(label.horizon_ms)
        self._after_ns = after_ns
        room = horizon_frames(label, grid) + _SPARE_FRAMES
        self._waiting: deque[tuple[int, SignalRow, SignalRow]] = deque(maxlen=room)
        self._block, self._frames, self._sums = -1, 0, (0.0, 0.0)

    def note(self, end_ns: int, lead: SignalRow, shadow: SignalRow) -> None:
        """Take what both said at a frame. The arrays are kept, and must not be changed any more."""
        if end_ns > self._after_ns:
            self._waiting.append((end_ns, lead, shadow))

    def mature(self, matured: Matured) -> None:
        """Take what came of frames, the oldest first."""
        waiting = self._waiting
        for index, end_ns in enumerate(matured.end_ns.tolist()):
            while waiting and waiting[0][0] < end_ns:
                waiting.popleft()
            if not waiting:
                return
            if waiting[0][0] == end_ns:
                self._take(matured, index, *waiting.popleft())

    def _take(self, matured: Matured, index: int, end_ns: int, lead: SignalRow, shadow: SignalRow) -> None:
        block, into_ns = divmod(end_ns, self._block_ns)
        if block != self._block:
            self._settle()
            self._block = block
        said = np.isfinite(lead.probability).all(axis=1) & np.isfinite(shadow.probability).all(axis=1)
        # A row has a label only where its whole horizon is known, so what it brought is known too.
        good = np.flatnonzero(said & (matured.direction[index] != NO_CLASS))
        if not len(good):
            return
        self.rows += len(good)
        if into_ns > self._block_ns - self._horizon_ns:
            return
        came = matured.direction[index][good]
        losses = [_log_loss(each.probability[good, came]) for each in (lead, shadow)]
        scores = [self._score(each, matured, index)[good] for each in (lead, shadow)]
        self._frames += 1
        self._sums = (
            self._sums[0] + float((losses[0] - losses[1]).mean()),
            self._sums[1] + float((scores[1] - scores[0]).mean()),
        )

    def _score(self, said: SignalRow, matured: Matured, index: int) -> F64:
        """Return float64[S]: what entering on each row would have brought, bps; 0 without an entry."""
        cost_bps = self._fees_bps + matured.spread_bps[index]
        enters = self._strategy.may_act(said) & (np.abs(said.edge_bps) - cost_bps > self._min_edge_bps)
        return np.asarray(
            np.where(enters, np.sign(said.edge_bps) * matured.return_bps[index] - cost_bps, 0.0)
        )

    def _settle(self) -> None:
        if self._frames:
            for evidence, total in zip((self.log_loss, self.score), self._sums, strict=True):
                evidence.take(total / self._frames)
        self._frames, self._sums = 0, (0.0, 0.0)


def _log_loss(probability: F64) -> F64:
    return np.asarray(-np.log(np.maximum(probability, np.finfo(np.float64).tiny)))
