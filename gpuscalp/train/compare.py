"""How far the predictions of two devices lie apart: bits of the forest, and what XGBoost says on CUDA.

Owns: the counting. The forest must give the same bits on both devices; XGBoost's CUDA predictor adds the
leaves of some objectives in another order, so it is told by differences and by decisions that turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np

from gpuscalp.config import StrategyConfig
from gpuscalp.ensemble import Ensemble, Signals
from gpuscalp.errors import ParityError
from gpuscalp.schema import F32, I64
from gpuscalp.train.device import Predictor

_MILLION: Final = 1e6
_DOWN, _UP = 0, 2


@dataclass(frozen=True, slots=True)
class DeviceComparison:
    """What came of it. Without a comparison only ``reason`` says anything.

    Attributes
    ----------
    made : whether there was a second device
    reason : what was compared, or why nothing was
    rows : held-out rows predicted by both
    margins : margins whose bits were compared between the forests; all were equal, else it is an error
    margin, probability : largest difference between the forest and XGBoost on CUDA
    class_flips : rows with another likeliest class
    decision_flips : rows that would be entered, at the default thresholds and before costs, on one side only
    """

    made: bool
    reason: str
    rows: int = 0
    margins: int = 0
    margin: float = 0.0
    probability: float = 0.0
    class_flips: int = 0
    decision_flips: int = 0

    @property
    def class_flips_per_million(self) -> float:
        return self.class_flips / max(self.rows, 1) * _MILLION

    @property
    def decision_flips_per_million(self) -> float:
        return self.decision_flips / max(self.rows, 1) * _MILLION

    def to_dict(self) -> dict[str, Any]:
        """Return the part of ``train --json``."""
        if not self.made:
            return {"made": False, "reason": self.reason}
        return {
            "made": True,
            "reason": self.reason,
            "rows": self.rows,
            "forest_margins_compared": self.margins,
            "forest_margins_differing": 0,
            "xgboost_margin_difference": self.margin,
            "xgboost_probability_difference": self.probability,
            "class_flips_per_million": self.class_flips_per_million,
            "decision_flips_per_million": self.decision_flips_per_million,
        }


@final
class Comparer:
    """Compares block by block.

    Parameters
    ----------
    ensemble : whose margins are compared
    other_forest, other_library : the same rows to margins: the same forest on the other device, and XGBoost
    """

    made = True

    def __init__(self, ensemble: Ensemble, other_forest: Predictor, other_library: Predictor) -> None:
        self._ensemble = ensemble
        self._other_forest = other_forest
        self._other_library = other_library
        self.rows = self.margins = self.class_flips = self.decision_flips = 0
        self.margin = self.probability = 0.0

    def add(self, x: Any, signals: Signals) -> None:
        """Compare the signals of rows, made where training happens, with the others'.

        Raises
        ------
        ParityError    the forests of the two devices differ in a bit
        """
        _check_bits(signals.margins, self._other_forest(x))
        other = self._ensemble.combine(self._other_library(x))
        self.rows += len(signals)
        self.margins += signals.margins.size
        self.margin = max(self.margin, _largest(signals.margins, other.margins))
        self.probability = max(self.probability, _largest(signals.probability, other.probability))
        likeliest = [found.probability.argmax(axis=1) for found in (signals, other)]
        self.class_flips += int((likeliest[0] != likeliest[1]).sum())
        self.decision_flips += int((decisions(signals) != decisions(other)).sum())


def total(parts: Sequence[Comparer | DeviceComparison], reason: str) -> DeviceComparison:
    """Return what comparisons of different rows found together."""
    return DeviceComparison(
        made=any(part.made for part in parts),
        reason=reason,
        rows=sum(part.rows for part in parts),
        margins=sum(part.margins for part in parts),
        margin=max((part.margin for part in parts), default=0.0),
        probability=max((part.probability for part in parts), default=0.0),
        class_flips=sum(part.class_flips for part in parts),
        decision_flips=sum(part.decision_flips for part in parts),
    )


def decisions(signals: Signals) -> I64:
    """Return int64[R]: 1 to buy, -1 to sell, 0 to wait, by ``StrategyConfig``'s defaults and before costs.

    Costs move the hurdle and take rows away from it: without them more rows lie near a threshold, so the
    count of flips is on the safe side.
    """
    thresholds = StrategyConfig()
    edge = signals.edge_bps
    confidence = np.where(edge > 0, signals.probability[:, _UP], signals.probability[:, _DOWN])
    entered = (confidence >= thresholds.min_confidence) & (signals.agreement >= thresholds.min_agreement)
    return np.where(entered, np.sign(edge), 0).astype(np.int64)


def _check_bits(ours: F32, theirs: F32) -> None:
    differing = int((ours.view(np.uint32) != theirs.view(np.uint32)).sum())
    if differing:
        raise ParityError(
            "the forest does not give the same margins on both devices",
            where="held-out rows",
            value=f"{differing} of {ours.size} margins differ",
            fix="do not use this GPU for predictions; gpuscalp model verify tells about a bundle",
        )


def _largest(a: Any, b: Any) -> float:
    return float(np.abs(a.astype(np.float64) - b).max(initial=0.0))
