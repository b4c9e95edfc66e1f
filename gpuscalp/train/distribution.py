"""A thin sample of the rows that a model was trained on, and what live rows are later held against.

Owns: which rows are taken. They lie on the grid of time, so that chunks and devices do not matter. The first
walk over the rows gives the sample and with it the tenths of every column, the second one counts whole blocks
of time in these tenths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from gpuscalp.config import GridConfig
from gpuscalp.drift.alarm import WINDOWS_PER_BLOCK, Floor
from gpuscalp.drift.stability import BINS, Distribution, bin_counts
from gpuscalp.schema import F32, I64, NS_PER_MS
from gpuscalp.splits import RowCounts
from gpuscalp.train.dataset import Rows, on_stride
from gpuscalp.train.device import TrainingDevice
from gpuscalp.train.together import gather

# Of 214 columns 17 MB; a share of a tenth is known to within 0.2 percent.
ROWS_MAX: Final = 20_000
# Of 214 columns 10 MB while they are counted; more of them would not make a rank more telling.
BLOCKS_MAX: Final = 512
# Neighbours are alike: more rows of a block would say nothing new.
BLOCK_ROWS_MAX: Final = 1_024


@dataclass(frozen=True, slots=True)
class KeptRows:
    """What was kept of the rows that the members were trained on.

    Attributes
    ----------
    x : float32[R, F]   in the order of time
    end_ns : int64[R]
    distribution : of their columns
    floor : of whole blocks; None where they are too few
    """

    x: F32
    end_ns: I64
    distribution: Distribution
    floor: Floor | None


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Which rows are counted: every ``every``-th block of time, on a stride."""

    block_ns: int
    every: int
    stride: int

    @classmethod
    def of(cls, counts: RowCounts, grid: GridConfig, *, window: int, stride: int) -> _Blocks:
        block_ns = WINDOWS_PER_BLOCK * window * grid.frame_ms * NS_PER_MS
        span_ns = max(len(counts.count) * counts.bucket_ns, 1)
        rows = counts.total * block_ns / span_ns
        return cls(
            block_ns,
            max(-(-span_ns // block_ns // BLOCKS_MAX), 1),
            stride * max(round(rows / BLOCK_ROWS_MAX), 1),
        )


@final
class RowSample:
    """Watches the first two walks over some rows.

    Parameters
    ----------
    device : where the rows lie
    grid, stride : the training grid
    counts : of the rows that will come
    names : of their columns
    window : the longest, in frames
    """

    def __init__(
        self,
        device: TrainingDevice,
        grid: GridConfig,
        *,
        stride: int,
        counts: RowCounts,
        names: Sequence[str],
        window: int,
    ) -> None:
        self._device, self._grid, self._names = device, grid, tuple(names)
        self._stride = stride * max(-(-counts.total // ROWS_MAX), 1)
        self._blocks = _Blocks.of(counts, grid, window=window, stride=stride)
        self._parts: list[tuple[I64, F32]] = []
        self._counts: dict[int, I64] = {}
        self._distribution: Distribution | None = None
        self._walks = 0

    def watch(self, rows: Iterator[Rows]) -> Iterator[Rows]:
        """Hand rows on; keep some of them on the first walk, and count others on the second."""
        self._walks += 1
        if self._walks == 2 and (parts := self._all_parts()):
            self._distribution = Distribution.of(np.concatenate([x for _, x in parts]))
        keep = {1: self._keep, 2: self._count}.get(self._walks)
        for each in rows:
            if keep is not None:
                keep(each)
            yield each

    def kept(self) -> KeptRows | None:
        """Return what all workers have kept; None if that is nothing."""
        parts = self._all_parts()
        counted = gather(self._counts)
        if not parts:
            return None
        end_ns, x = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.argsort(end_ns, kind="stable")
        distribution = self._distribution or Distribution.of(x)
        shape = (len(self._names), BINS)
        blocks = sorted({block for worker in counted for block in worker})
        counts = [sum(worker[block] for worker in counted if block in worker) for block in blocks]
        floor = Floor.of(
            np.array(counts, np.int64).reshape(-1, *shape), self._names, block_ns=self._blocks.block_ns
        )
        return KeptRows(x[order], end_ns[order], distribution, floor)

    def _all_parts(self) -> list[tuple[I64, F32]]:
        return [part for worker in gather(self._parts) for part in worker]

    def _keep(self, rows: Rows) -> None:
        kept = np.flatnonzero(on_stride(rows.end_ns, self._grid, self._stride))
        if len(kept):
            self._parts.append((rows.end_ns[kept], self._device.taken(rows.x, kept)))

    def _count(self, rows: Rows) -> None:
        blocks = rows.end_ns // self._blocks.block_ns
        wanted = on_stride(rows.end_ns, self._grid, self._blocks.stride) & (blocks % self._blocks.every == 0)
        if self._distribution is None or not wanted.any():
            return
        x = self._device.taken(rows.x, np.flatnonzero(wanted))
        blocks = blocks[wanted]
        for block in np.unique(blocks).tolist():
            found = bin_counts(self._distribution.edges, x[blocks == block])
            self._counts[block] = self._counts[block] + found if block in self._counts else found
