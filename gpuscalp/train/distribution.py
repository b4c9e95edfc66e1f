"""A thin sample of the rows that a model was trained on, and how their columns are distributed.

Owns: which rows are taken. They lie on the grid of time, so that chunks and devices do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

import numpy as np

from gpuscalp.config import GridConfig
from gpuscalp.drift import Distribution
from gpuscalp.schema import F32
from gpuscalp.train.dataset import Rows, on_stride
from gpuscalp.train.device import TrainingDevice

# Of 214 columns 17 MB; a share of a tenth is known to within 0.2 percent.
ROWS_MAX: Final = 20_000


@final
class RowSample:
    """Watches the first walk over some rows.

    Parameters
    ----------
    device : where the rows lie
    grid, stride : the training grid
    expected_rows : about how many will come
    """

    def __init__(self, device: TrainingDevice, grid: GridConfig, *, stride: int, expected_rows: int) -> None:
        self._device, self._grid = device, grid
        self._stride = stride * max(-(-expected_rows // ROWS_MAX), 1)
        self._parts: list[F32] = []
        self._walked = False

    def watch(self, rows: Iterator[Rows]) -> Iterator[Rows]:
        """Hand rows on; keep some of them on the first walk."""
        keeps, self._walked = not self._walked, True
        for each in rows:
            if keeps:
                kept = np.flatnonzero(on_stride(each.end_ns, self._grid, self._stride))
                if len(kept):
                    self._parts.append(self._device.to_host(each.x)[kept])
            yield each

    def distribution(self) -> Distribution | None:
        """Return the distribution of what was kept; None if that is nothing."""
        return Distribution.of(np.concatenate(self._parts)) if self._parts else None
