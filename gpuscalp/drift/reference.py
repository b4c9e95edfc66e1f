"""What a model's training rows were like, as a bundle keeps it beside the model.

Owns: a thin sample of the rows, the blocks that drift is held against, the outlier guard; and their arrays.
Never: reads a file (gpuscalp.bundle does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gpuscalp.drift.alarm import Floor
from gpuscalp.drift.guard import Guard
from gpuscalp.errors import ModelError
from gpuscalp.schema import F32, I64

# Of 214 columns 1.8 MB.
ROWS_MAX: Final = 2_048


@dataclass(frozen=True, slots=True)
class Reference:
    """Training rows and what was learned from them.

    Attributes
    ----------
    x : float32[R, F]     evenly spread over the training, in the order of time
    end_ns : int64[R]     of their frames
    floor : None where the training was too short for blocks
    guard : None where there were too few rows, or no tree has a split
    """

    x: F32
    end_ns: I64
    floor: Floor | None
    guard: Guard | None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what ``from_arrays`` makes an equal one of."""
        found: dict[str, np.ndarray] = {"x": self.x, "end_ns": self.end_ns}
        for prefix, part in (("floor", self.floor), ("guard", self.guard)):
            if part is not None:
                found |= {f"{prefix}.{name}": value for name, value in part.arrays().items()}
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Reference:
        """Make one of the arrays of another.

        Raises
        ------
        ModelError    they are not of the columns ``names``
        """
        x, end_ns = arrays["x"], arrays["end_ns"]
        if x.ndim != 2 or x.shape[1] != len(names) or x.dtype != np.float32 or len(end_ns) != len(x):
            raise ModelError(
                "the sample of the training rows is not of these columns",
                where="reference",
                value=f"{x.dtype}{list(x.shape)}",
            )
        floor, guard = (_below(arrays, f"{name}.") for name in ("floor", "guard"))
        made = Guard.from_arrays(guard) if guard else None
        if made is not None:
            made.check_columns(len(names))
        return cls(x, end_ns, Floor.from_arrays(floor, names) if floor else None, made)


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
