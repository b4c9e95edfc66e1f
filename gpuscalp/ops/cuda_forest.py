"""All trees of an ensemble on a GPU. Twin: forest; kernel: kernels/forest.cu.

Owns the upload of a forest and the shapes of the launches. Never moves rows or margins between host and
device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gpuscalp.device import import_cupy
from gpuscalp.errors import ShapeError
from gpuscalp.ops.copies import to_device
from gpuscalp.ops.cuda_module import DEFAULT_DYNAMIC_SHARED_BYTES, load_module
from gpuscalp.ops.device_arrays import require
from gpuscalp.ops.forest import Forest
from gpuscalp.ops.forest_pack import PackedTrees

# Rows at a time, for which scratch has room: leaves of 4,500 trees are 18 MB and stay in a large GPU's L2.
SLAB_ROWS: Final = 1024
# Of a block; forest.cu declares the same bounds. 512 threads with 32 rows of 214 columns, 27 KiB of shared
# memory, fill a multiprocessor of every architecture from Turing on.
LEAF_THREADS: Final = 512
MARGIN_THREADS: Final = 256
# Threads of a warp walk the same tree for as many rows, so its upper levels are one load for all of them.
_BLOCK_ROWS_MAX: Final = 32
# Four blocks for each of 132 multiprocessors are resident at once: one more would run after all others.
_LEAF_BLOCKS: Final = 528


@dataclass(frozen=True, slots=True, eq=False)
class ForestScratch:
    """The trees of one forest in the memory of the current device, and room for the leaves of a slab.

    Attributes
    ----------
    forest : Forest       the forest that was uploaded
    trees : PackedTrees   of CuPy arrays; ``nodes`` as uint64, since CuPy has no records
    leaves : float32[T, SLAB_ROWS]   means nothing between calls, which must be on one stream
    """

    forest: Forest
    trees: PackedTrees
    leaves: Any

    @classmethod
    def of(cls, forest: Forest) -> ForestScratch:
        """Upload ``forest``.

        Raises
        ------
        ShapeError    a row is too long for the shared memory of a block
        """
        if 4 * _row_words(forest.feature_count) > DEFAULT_DYNAMIC_SHARED_BYTES:
            raise ShapeError(
                "a row of the forest does not fit into the shared memory of a block",
                where="feature_count",
                value=forest.feature_count,
                fix=f"at most {DEFAULT_DYNAMIC_SHARED_BYTES // 4 - 1} columns, or --device cpu",
            )
        packed = forest.packed
        host = packed._replace(nodes=packed.nodes.view(np.uint64))
        trees = PackedTrees(*(to_device(array) for array in host))
        return cls(forest, trees, import_cupy().empty((forest.tree_count, SLAB_ROWS), np.float32))


def predict_margins(forest: Forest, x: Any, *, out: Any, scratch: ForestScratch) -> None:
    """Write the margins of all members; see ``forest.predict_margins``.

    Two launches per slab of rows on the current stream, without an allocation or a copy, so they can be
    captured in a graph.

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
    for first in range(0, row_count, SLAB_ROWS):
        slab = x[first : first + SLAB_ROWS]
        _find_leaves(forest, slab, scratch)
        _add_leaves(forest, len(slab), first, out, scratch)


def _find_leaves(forest: Forest, x: Any, scratch: ForestScratch) -> None:
    if forest.tree_count == 0:
        return
    row_count, feature_count = x.shape
    row_words = _row_words(feature_count)
    rows = min(_BLOCK_ROWS_MAX, _power_of_two(row_count))
    while 4 * rows * row_words > DEFAULT_DYNAMIC_SHARED_BYTES:
        rows //= 2
    trees_at_once = LEAF_THREADS // rows
    row_blocks = -(-row_count // rows)
    stretches = -(-forest.tree_count // trees_at_once)
    # As many stretches for every block as keep the number of blocks within one wave.
    rounds = -(-stretches * row_blocks // _LEAF_BLOCKS)
    trees = scratch.trees
    load_module("forest").get_function("forest_leaves")(
        (row_blocks, -(-stretches // rounds)),
        (rows, trees_at_once),
        (
            x,
            np.int32(row_count),
            np.int32(feature_count),
            np.int32(row_words),
            np.int64(forest.tree_count),
            trees.nodes,
            trees.leaves,
            trees.links,
            trees.depth,
            trees.node_start,
            trees.tail_start,
            scratch.leaves,
            np.int64(scratch.leaves.shape[1]),
        ),
        shared_mem=4 * rows * row_words,
    )


def _add_leaves(forest: Forest, row_count: int, first_row: int, out: Any, scratch: ForestScratch) -> None:
    rows = min(_BLOCK_ROWS_MAX, _power_of_two(row_count))
    load_module("forest").get_function("forest_margins")(
        (-(-row_count // rows), forest.member_count * forest.class_count),
        (rows, MARGIN_THREADS // rows),
        (
            scratch.leaves,
            np.int64(scratch.leaves.shape[1]),
            np.int32(row_count),
            np.int32(forest.class_count),
            scratch.trees.group_start,
            scratch.trees.base,
            np.int64(first_row),
            np.int64(out.shape[1]),
            out,
        ),
    )


def _row_words(feature_count: int) -> int:
    """Return how far apart rows lie in shared memory: odd, so that equal columns lie in different banks."""
    return feature_count | 1


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
