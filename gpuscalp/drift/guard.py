"""Whether a row is unlike everything that the model was trained on.

Owns: the dissimilarity index of a row and its limit. Never: fits them (gpuscalp.train.guard), or decides what
follows from the bit: ``risk.blocked_quality`` does.

The index is the distance of a row to the nearest prototype of the training rows, in columns weighted by what
they bring to the model, divided by the mean distance between two training rows (Meyer and Pebesma 2021,
"Predicting into unknown space? Estimating the area of applicability of spatial prediction models", §2.2). It
has the same bits wherever it is computed, so that a backtest and a replay block the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import numpy as np

from gpuscalp.errors import ModelError
from gpuscalp.ops.nearest import mark_far, squared_distances
from gpuscalp.schema import F32, I32, U32, Quality

_BIT: Final = np.uint32(Quality.OUTLIER)
# The arrays that one is made of: their dtypes, and their axes.
_PARTS: Final[dict[str, tuple[type, int]]] = {
    "columns": (np.int32, 1), "centre": (np.float32, 1), "factor": (np.float32, 1),
    "prototypes": (np.float32, 2), "limit": (np.float32, 0),
}  # fmt: skip


@final
class Guard:
    """Marks rows that lie farther from the training rows than ``limit``. Not safe for two threads.

    Parameters
    ----------
    columns : int32[D]           of the model, those that the index looks at
    centre, factor : float32[D]  a value counts as ``(value - centre) * factor``, a missing one as 0
    prototypes : float32[D, P]   in the same units, in which two training rows lie 1 apart in the mean
    limit : the largest index of a row that is no outlier, taken as float32

    Raises
    ------
    ModelError    the arrays do not fit together
    """

    def __init__(self, columns: I32, centre: F32, factor: F32, prototypes: F32, limit: float) -> None:
        self.columns: I32 = np.ascontiguousarray(columns, np.int32)
        self.limit = float(np.float32(limit))
        self._centre: F32 = np.ascontiguousarray(centre, np.float32)
        self._factor: F32 = np.ascontiguousarray(factor, np.float32)
        self._prototypes: F32 = np.ascontiguousarray(prototypes, np.float32)
        floats = (self._centre, self._factor, self._prototypes, np.float32(limit))
        shapes = [each.shape for each in (self.columns, self._centre, self._factor)]
        fitting = shapes == [(len(columns),)] * 3 and prototypes.ndim == 2 and len(prototypes) == len(columns)
        if not fitting or not prototypes.size or not all(np.isfinite(each).all() for each in floats):
            raise ModelError(
                "the parts of the outlier guard do not fit together", where="guard", value=shapes
            )
        self._limit_squared = np.float32(limit) * np.float32(limit)
        self._work = np.empty(prototypes.shape[1], np.float32)
        self._out = np.empty(0, np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what ``from_arrays`` makes an equal one of."""
        return {
            "columns": self.columns,
            "centre": self._centre,
            "factor": self._factor,
            "prototypes": self._prototypes,
            "limit": np.array(self.limit, np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Guard:
        """Make one of the arrays of another.

        Raises
        ------
        ModelError    one is missing, or they do not fit together
        """
        try:
            found = {name: arrays[name] for name in _PARTS}
        except KeyError as error:
            raise ModelError("a part of the outlier guard is missing", where=str(error)) from None
        for name, (dtype, axes) in _PARTS.items():
            if found[name].dtype != dtype or found[name].ndim != axes:
                raise ModelError(
                    "a part of the outlier guard has another form",
                    where=f"guard.{name}",
                    value=f"{found[name].dtype}{list(found[name].shape)}",
                )
        limit = float(found.pop("limit"))
        return cls(**found, limit=limit)

    def check_columns(self, count: int) -> None:
        """Refuse columns that a model of so many does not have.

        Raises
        ------
        ModelError
        """
        if self.columns.min() < 0 or self.columns.max() >= count:
            raise ModelError("the outlier guard is not of these columns", where="guard.columns", value=count)

    def mark(self, x: F32, quality: U32) -> None:
        """Set ``Quality.OUTLIER`` where a row is one.

        Parameters
        ----------
        x : float32[R, F]      any strides
        quality : uint32[R]    changed in place
        """
        if len(self._out) < len(x):
            self._out = np.empty(len(x), np.float32)
        mark_far(
            x, self.columns, self._centre, self._factor, self._prototypes,
            self._limit_squared, _BIT, self._work, self._out, quality,
        )  # fmt: skip

    def index(self, x: F32) -> F32:
        """Return float32[R], the dissimilarity index of float32[R, F]."""
        out = np.empty(len(x), np.float32)
        squared_distances(x, self.columns, self._centre, self._factor, self._prototypes, self._work, out)
        return np.sqrt(out)
