"""All trees of an ensemble on a GPU. Twin: forest; kernel: kernels/forest.cu.

Owns the upload of a forest and the shape of the launch. Never moves rows or margins between host and device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gpuscalp.device import import_cupy
from gpuscalp.errors import ShapeError
from gpuscalp.ops.cuda_module import load_module
from gpuscalp.ops.device_arrays import require
from gpuscalp.ops.forest import Forest
from gpuscalp.ops.forest_pack import PackedTrees

THREADS: Final = 256  # of a block; forest.cu declares the same bound
# Threads of a warp walk the same tree for as many rows, so its upper levels are one load for all of them.
_BLOCK_ROWS_MAX: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class ForestScratch:
    """The trees of one forest in the memory of the current device; not changed by predictions.

    Attributes
    ----------
    forest : Forest       the forest that was uploaded
    trees : PackedTrees   of CuPy arrays; ``nodes`` as uint64, since CuPy has no records
    """

    forest: Forest
    trees: PackedTrees

    @classmethod
    def of(cls, forest: Forest) -> ForestScratch:
        """Upload ``forest``."""
        cupy = import_cupy()
        packed = forest.packed
        host = packed._replace(nodes=packed.nodes.view(np.uint64))
        return cls(forest, PackedTrees(*(cupy.asarray(array) for array in host)))


def predict_margins(forest: Forest, x: Any, *, out: Any, scratch: ForestScratch) -> None:
    """Write the margins of all members; see ``forest.predict_margins``.

    One launch on the current stream, without an allocation or a copy, so it can be captured in a graph.

    Parameters
    ----------
    forest : Forest
    x : float32[R, F]        CuPy, C-contiguous; NaN is missing; not modified
    out : float32[M, R, K]   CuPy, C-contiguous; written; must not overlap ``x``
    scratch : ForestScratch  made by ``ForestScratch.of`` for this forest

    Raises
    ------
    ShapeError
        an array is not as above, or the scratch holds another forest
    """
    if scratch.forest is not forest:
        raise ShapeError("the scratch was made for another forest", where="scratch")
    require(x, "x", np.float32, (None, forest.feature_count))
    row_count = int(x.shape[0])
    require(out, "out", np.float32, (forest.member_count, row_count, forest.class_count))
    if row_count == 0:
        return
    block = _block_shape(row_count)
    trees = scratch.trees
    load_module("forest").get_function("forest_margins")(
        (-(-row_count // block[0]), forest.member_count * forest.class_count),
        block,
        (
            x,
            np.int32(row_count),
            np.int32(forest.feature_count),
            np.int32(forest.class_count),
            trees.nodes,
            trees.leaves,
            trees.links,
            trees.depth,
            trees.node_start,
            trees.tail_start,
            trees.group_start,
            trees.base,
            out,
        ),
        shared_mem=4 * THREADS,
    )


def _block_shape(row_count: int) -> tuple[int, int]:
    """Return rows and trees of a block: few rows leave the threads to the trees, and the other way round."""
    rows = min(_BLOCK_ROWS_MAX, 1 << (row_count - 1).bit_length())
    return rows, THREADS // rows
