"""What a training run leaves behind, as data.

Owns: the form of ``train --json``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from gpuscalp.contract import TrainingSpec
from gpuscalp.ensemble import Calibration
from gpuscalp.schema import F64
from gpuscalp.splits import Fold
from gpuscalp.train.compare import DeviceComparison
from gpuscalp.train.importance import Importance
from gpuscalp.train.iterator import Tally
from gpuscalp.train.metrics import Score

# Fewer labels of one symbol than this in a fold that do not overlap, and its figures are mostly luck. Other
# symbols do not count: they move with it, and how far is not known of rows that are trained on.
FEW_LABELS: Final = 500.0


@dataclass(frozen=True, slots=True)
class FoldResult:
    """What one fold gave.

    Attributes
    ----------
    fold : Fold
    trained : Tally      rows its members were fitted on
    rounds : tuple       rounds each member kept
    score : Score        of its held-out rows
    """

    fold: Fold
    trained: Tally
    rounds: tuple[int, ...]
    score: Score


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished training run.

    Attributes
    ----------
    bundle : where the bundle was written
    training : TrainingSpec    what the bundle's contract says about the run
    calibration : Calibration
    class_return_bps, class_share : float64[K]   of the rows of the final members
    device_reason : why it ran on ``training.device``
    folds : per fold
    overall : Score of all held-out rows together
    devices : how far the predictions of two devices lie apart, or why that is not known
    importance : by permutation
    rounds : of the final members
    unlabelled_rows : sound rows that got no label, beside the labelled ones of the final members
    seconds : wall time
    peak_rss_mb : largest resident memory of the process so far, MB (1e6 bytes)
    trade_delays_ms : by which trades are dated later than they were made, where their files tell no more
    """

    bundle: Path
    training: TrainingSpec
    calibration: Calibration
    class_return_bps: F64
    class_share: F64
    device_reason: str
    folds: tuple[FoldResult, ...]
    overall: Score
    devices: DeviceComparison
    importance: tuple[Importance, ...]
    rounds: tuple[int, ...]
    unlabelled_rows: int
    seconds: float
    peak_rss_mb: float
    trade_delays_ms: tuple[float, ...]

    @property
    def unlabelled(self) -> str:
        """Say how many of the sound rows got no label."""
        count = self.unlabelled_rows
        share = count / max(count + self.training.rows, 1)
        return f"{count:,} sound rows without a label ({share:.1%})"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a reader must not overlook."""
        found = []
        few = [r.fold.index + 1 for r in self.folds if r.trained.labels_in_time < FEW_LABELS]
        if few:
            found.append(
                f"Fold {', '.join(map(str, few))}: no symbol has {FEW_LABELS:.0f} labels to train on that do "
                "not overlap, and those of other symbols, which move with it, do not make up for that. The "
                "figures of such a fold are mostly luck."
            )
        silent = [r.fold.index + 1 for r in self.folds if not r.score.ic.known]
        if silent:
            found.append(
                f"Fold {', '.join(map(str, silent))}: no information coefficient, because every held-out row "
                "has the same edge or the same return. In that of all rows these count as rows in no order."
            )
        if self.overall.log_loss >= self.overall.base_log_loss:
            found.append("The held-out log loss is no better than that of the base rate.")
        if self.overall.log_loss > self.overall.raw_log_loss + 1e-3:
            found.append(
                "The calibration made the held-out log loss worse: the shares of the classes drift from fold "
                'to fold. More data may help, or ensemble.calibration = "none".'
            )
        if self.training.tried > 1:
            found.append(
                f"The configuration is the best of {self.training.tried} that were tried on these held-out "
                "rows: on them its figures are too high by what luck gave, and no interval allows for that."
            )
        following = [item.name for item in self.importance if item.name.startswith("leader.")]
        if self.training.leader not in self.training.symbols and following:
            found.append(
                f"The leader {self.training.leader} is not among the symbols: {len(following)} columns "
                "(leader.*) have no value. Add its market, name another features.leader, or drop them."
            )
        if self.training.venue == "synthetic":
            found.append("The market is synthetic: what the model finds here was put there.")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``train --json`` prints."""
        return {
            "bundle": str(self.bundle),
            "rows": self.training.rows,
            "unlabelled_rows": self.unlabelled_rows,
            "folds": [
                {
                    "index": result.fold.index,
                    "train_rows": result.trained.rows,
                    "test_start_ns": result.fold.test_start_ns,
                    "test_end_ns": result.fold.test_end_ns,
                    "rounds": list(result.rounds),
                    **result.score.to_dict(),
                }
                for result in self.folds
            ],
            "overall": self.overall.to_dict(),
            "warnings": list(self.warnings),
            "importance": [asdict(item) for item in self.importance if item.gain > 0.0],
            "rounds": list(self.rounds),
            "calibration": {
                "kind": self.calibration.kind,
                "scale": self.calibration.scale.tolist(),
                "bias": self.calibration.bias.tolist(),
            },
            "class_return_bps": self.class_return_bps.tolist(),
            "class_share": self.class_share.tolist(),
            "device": self.training.device,
            "device_reason": self.device_reason,
            "device_comparison": self.devices.to_dict(),
            "trade_delays_ms": self.trade_delays_ms,
            "seconds": self.seconds,
            "peak_rss_mb": self.peak_rss_mb,
        }
