"""What the model says about a row: class probabilities, agreement of the members, expected edge.

Owns: the forest of all members, the calibration, the mean return of each class, and the outlier guard.
Never: reads a file, trains, or imports XGBoost, SciPy or scikit-learn: this is the live path.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gpuscalp.drift.guard import Guard
from gpuscalp.errors import ModelError, ShapeError
from gpuscalp.labels import CLASSES
from gpuscalp.ops.forest import Forest, ForestScratch, predict_margins
from gpuscalp.ops.probability import combine
from gpuscalp.schema import F32, F64


@dataclass(frozen=True, slots=True)
class Calibration:
    """Vector scaling of the mean probability: ``softmax(scale · log p + bias)``.

    Attributes
    ----------
    kind : "vector", or "none" where nothing was fitted
    scale, bias : float64[K]
    """

    kind: str
    scale: F64
    bias: F64

    @classmethod
    def identity(cls, class_count: int = len(CLASSES)) -> Calibration:
        """Return the calibration that changes nothing."""
        return cls(kind="none", scale=np.ones(class_count), bias=np.zeros(class_count))


@dataclass(frozen=True, slots=True)
class Signals:
    """What the ensemble says about R rows.

    Attributes
    ----------
    probability : float64[R, K]   calibrated, classes in the order of ``Direction``
    agreement : float64[R]        share of members whose likeliest class is the ensemble's, 0 … 1
    spread : float64[R]           standard deviation over the members of their own edge, bps
    edge_bps : float64[R]         expected mid return over the label, signed, before costs
    margins : float32[M, R, K]    raw sums of the leaves
    raw : float64[R, K]           mean probability before the calibration
    """

    probability: F64
    agreement: F64
    spread: F64
    edge_bps: F64
    margins: F32
    raw: F64

    def __len__(self) -> int:
        return len(self.edge_bps)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """M boosters as one.

    Attributes
    ----------
    forest : Forest               all trees of all members
    calibration : Calibration
    class_return_bps : float64[K] mean mid return of each class
    guard : marks rows unlike those of the training; None where the bundle has none

    Raises
    ------
    ModelError
        the three do not fit together
    """

    forest: Forest
    calibration: Calibration
    class_return_bps: F64
    classes: tuple[str, ...] = field(default=CLASSES)
    guard: Guard | None = None

    def __post_init__(self) -> None:
        count = len(self.classes)
        for name, found in (
            ("forest", self.forest.class_count),
            ("calibration.scale", len(self.calibration.scale)),
            ("calibration.bias", len(self.calibration.bias)),
            ("class_return_bps", len(self.class_return_bps)),
        ):
            if found != count:
                raise ModelError(f"the ensemble has {count} classes", where=name, value=found)
        numbers = (self.calibration.scale, self.calibration.bias, self.class_return_bps)
        if not all(np.isfinite(values).all() for values in numbers):
            raise ModelError("calibration and class returns must be finite", where="ensemble")

    def predict(self, x: F32, *, scratch: ForestScratch | None = None) -> Signals:
        """Predict R rows; a row's answer does not depend on the other rows.

        Parameters
        ----------
        x : float32[R, F]   C-contiguous, columns in the order of the graph; NaN is missing
        scratch : working memory to reuse between calls; made anew where None

        Returns
        -------
        Signals

        Raises
        ------
        ShapeError
            ``x`` is not float32[R, F], C-contiguous
        """
        if x.ndim != 2 or x.shape[1] != self.forest.feature_count:
            raise ShapeError(
                f"the ensemble takes float32[R, {self.forest.feature_count}]", where="x", value=x.shape
            )
        if x.dtype != np.float32 or not x.flags.c_contiguous:
            raise ShapeError("rows must be C-contiguous float32", where="x", value=f"{x.dtype}, {x.strides}")
        margins = np.empty((self.forest.member_count, len(x), len(self.classes)), np.float32)
        predict_margins(self.forest, x, out=margins, scratch=scratch or ForestScratch.of(self.forest))
        return self.combine(margins)

    def combine(self, margins: F32) -> Signals:
        """Return what margins mean, whichever device they were computed on.

        Parameters
        ----------
        margins : float32[M, R, K]   on the host
        """
        rows, classes = margins.shape[1:]
        signals = Signals(
            probability=np.empty((rows, classes)),
            agreement=np.empty(rows),
            spread=np.empty(rows),
            edge_bps=np.empty(rows),
            margins=margins,
            raw=np.empty((rows, classes)),
        )
        combine(
            margins,
            self.calibration.scale,
            self.calibration.bias,
            self.class_return_bps,
            signals.raw,
            signals.probability,
            signals.agreement,
            signals.spread,
            signals.edge_bps,
        )
        return signals
