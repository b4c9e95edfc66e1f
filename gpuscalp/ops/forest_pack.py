"""Trees in the form that the kernels walk, derived from the form that is stored.

Owns the layout that the CPU and the CUDA kernel share. Never reads a file and never checks its input: it is
called with trees that ``gpuscalp.ops.forest`` has found to be sound.

The order. Trees stand grouped by (member, class), within a group in their order in the booster. The sums of
two groups are independent, so the order of every float32 addition is XGBoost's, and a group is one loop.

A perfect tree (depth 3 … 8, padded by repeating leaves) has its splits in level order: the children of i are
2i + 1 and 2i + 2, so no link is loaded and every row takes the same number of steps. A deeper tree would
mostly be padding: it is linked, breadth first, siblings side by side, so one link leads to both.

Missing values cost nothing. A split that sends NaN left reads column ``F + f`` instead of ``f``, and the
second half of the columns is the row again with −∞ for NaN. Then ``value < threshold`` alone decides: false
for NaN, true for −∞. That needs every threshold to be above −∞, which the forest checks.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuscalp.ops._numba import jit
from gpuscalp.schema import F32, I32, I64, U32

# One load brings what a step needs.
NODE: Final = np.dtype([("threshold", "<f4"), ("column", "<u4")])
Nodes = npt.NDArray[np.void]

# The tiled kernel looks at three levels at once, so shallower trees are padded to three.
PERFECT_DEPTH_MIN: Final = 3
PERFECT_DEPTH_MAX: Final = 8
LINKED: Final = 0


class PackedTrees(NamedTuple):
    """T trees in G = M·K groups, read-only.

    Attributes
    ----------
    nodes : NODE[…]            splits of all trees; a leaf of a linked tree keeps its value as threshold
    leaves : float32[…]        leaves of the perfect trees, left to right
    links : uint32[…]          per node of a linked tree: index in the tree of its left child, 0 = leaf
    depth : int32[T]           levels of splits of a perfect tree; 0 = linked
    node_start : int64[T]      first node of a tree
    tail_start : int64[T]      first leaf of a perfect tree, first link of a linked one
    group_start : int64[G + 1] trees of group ``member · K + class``
    base : float32[G]          margin that the leaves are added to
    """

    nodes: Nodes
    leaves: F32
    links: U32
    depth: I32
    node_start: I64
    tail_start: I64
    group_start: I64
    base: F32


def pack_trees(
    left: I32,
    right: I32,
    feature: I32,
    value: F32,
    default_left: npt.NDArray[np.bool_],
    tree_start: I64,
    group: I64,
    base: F32,
    feature_count: int,
) -> PackedTrees:
    """Derive the kernels' form; the arguments are those of ``Forest``, with ``group`` int64[T]."""
    flat_base = base.reshape(-1)
    order = np.argsort(group, kind="stable")
    true_depth = np.empty(len(order), np.int64)
    measure_depths(left, right, tree_start, true_depth)
    true_depth = true_depth[order]
    linked = true_depth > PERFECT_DEPTH_MAX
    depth = np.where(linked, LINKED, np.maximum(true_depth, PERFECT_DEPTH_MIN))
    sizes = np.diff(tree_start)[order]
    node_counts = np.where(linked, sizes, (1 << depth) - 1)
    leaf_counts = np.where(linked, 0, 1 << depth)
    link_counts = np.where(linked, sizes, 0)
    trees = PackedTrees(
        nodes=np.zeros(node_counts.sum(), NODE),
        leaves=np.zeros(leaf_counts.sum(), np.float32),
        links=np.zeros(link_counts.sum(), np.uint32),
        depth=depth.astype(np.int32),
        node_start=_starts(node_counts),
        tail_start=np.where(linked, _starts(link_counts), _starts(leaf_counts)),
        group_start=np.searchsorted(group[order], np.arange(len(flat_base) + 1)).astype(np.int64),
        base=flat_base.copy(),
    )
    longest = max(int(sizes.max(initial=0)), 1 << (PERFECT_DEPTH_MAX + 1))
    _fill_trees(
        left, right, feature, value, default_left, tree_start, order, feature_count, trees,
        np.empty(longest, np.int64),
    )  # fmt: skip
    for array in trees:
        array.setflags(write=False)
    return trees


def _starts(counts: I64) -> I64:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))[:-1].astype(np.int64)


@jit
def measure_depths(left: I32, right: I32, tree_start: I64, depth: I64) -> None:
    """Write the number of split levels of each tree; children stand behind their parents."""
    for tree in range(len(depth)):
        first = tree_start[tree]
        level = np.zeros(tree_start[tree + 1] - first, np.int64)
        deepest = 0
        for node in range(len(level)):
            if left[first + node] >= 0:
                below = level[node] + 1
                level[left[first + node]] = below
                level[right[first + node]] = below
                deepest = max(deepest, below)
        depth[tree] = deepest


@jit
def _fill_trees(
    left: I32,
    right: I32,
    feature: I32,
    value: F32,
    default_left: npt.NDArray[np.bool_],
    tree_start: I64,
    order: I64,
    feature_count: int,
    trees: PackedTrees,
    queue: I64,
) -> None:
    """Write nodes, leaves and links; ``queue`` is working memory, nodes of the source in target order."""
    for tree in range(len(order)):
        source = tree_start[order[tree]]
        start = trees.node_start[tree]
        tail = trees.tail_start[tree]
        queue[0] = 0
        if trees.depth[tree] == LINKED:
            free = 1
            for i in range(tree_start[order[tree] + 1] - source):
                node = source + queue[i]
                trees.nodes[start + i].threshold = value[node]
                if left[node] >= 0:
                    shift = feature_count if default_left[node] else 0
                    trees.nodes[start + i].column = feature[node] + shift
                    trees.links[tail + i] = free
                    queue[free] = left[node]
                    queue[free + 1] = right[node]
                    free += 2
        else:
            split_count = (1 << trees.depth[tree]) - 1
            for i in range(split_count):
                node = source + queue[i]
                if left[node] >= 0:
                    shift = feature_count if default_left[node] else 0
                    trees.nodes[start + i].threshold = value[node]
                    trees.nodes[start + i].column = feature[node] + shift
                    queue[2 * i + 1] = left[node]
                    queue[2 * i + 2] = right[node]
                else:
                    # A leaf above the last level: both ways lead to copies of it.
                    queue[2 * i + 1] = queue[i]
                    queue[2 * i + 2] = queue[i]
            for i in range(split_count + 1):
                trees.leaves[tail + i] = value[source + queue[split_count + i]]
