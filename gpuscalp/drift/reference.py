"""What a model's training rows were like, as a bundle keeps it beside the model.

Owns: how the columns were distributed, a thin sample of the rows, the blocks that drift is held against, the
outlier guard; and their arrays.
Never: reads a file (gpuscalp.bundle does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gpuscalp.drift.alarm import Floor
from gpuscalp.drift.guard import Guard
from gpuscalp.drift.stability import BINS, TENTHS, Distribution
from gpuscalp.errors import ModelError
from gpuscalp.schema import F32, I64

# Of 214 columns 1.8 MB.
ROWS_MAX: Final = 2_048


@dataclass(frozen=True, slots=True)
class Reference:
    """Training rows and what was learned from them.

    Attributes
    ----------
    trained : how the columns were distributed
    x : float32[R, F]     evenly spread over the training, in the order of time
    end_ns : int64[R]     of their frames
    floor : None where the training was too short for blocks
    guard : None where there were too few rows, or no tree has a split
    """

    trained: Distribution
    x: F32
    end_ns: I64
    floor: Floor | None
    guard: Guard | None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what ``from_arrays`` makes an equal one of."""
        found: dict[str, np.ndarray] = {"x": self.x, "end_ns": self.end_ns}
        found |= {"edges": self.trained.edges, "shares": self.trained.shares}
        for prefix, part in (("floor", self.floor), ("guard", self.guard)):
            if part is not None:
                found |= {f"{prefix}.{name}": value for name, value in part.arrays().items()}
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Reference:
        """Make one of the arrays of another.

        Raises
        ------
        ModelError    one is missing, or they are not of the columns ``names``
        """
        try:
            x, end_ns, edges, shares = (arrays[name] for name in ("x", "end_ns", "edges", "shares"))
        except KeyError as error:
            raise ModelError("a part of the reference is missing", where=str(error)) from None
        count, rows = len(names), x.shape[:1]
        for name, found, dtype, shape in (
            ("x", x, np.float32, (*rows, count)),
            ("end_ns", end_ns, np.int64, rows),
            ("edges", edges, np.float32, (count, TENTHS - 1)),
            ("shares", shares, np.float64, (count, BINS)),
        ):
            if found.dtype != dtype or found.shape != shape:
                raise ModelError(
                    "the bundle's reference of training rows is of other columns",
                    where=f"reference.{name}",
                    value=f"{found.dtype}{list(found.shape)}",
                    fix="train the model again",
                )
        floor, guard = (_below(arrays, f"{name}.") for name in ("floor", "guard"))
        made = Guard.from_arrays(guard) if guard else None
        if made is not None:
            made.check_columns(count)
        return cls(
            Distribution(edges, shares), x, end_ns, Floor.from_arrays(floor, names) if floor else None, made
        )


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
