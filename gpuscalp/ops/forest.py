"""All trees of an ensemble, and the margins that they give: the CPU twin.

Owns the stored form of a forest, what must hold before its indices are trusted, and the prediction.
Never: reads a file, knows XGBoost's format, or makes probabilities of margins.

The margins are those of XGBoost's CPU predictor to the last bit: ``x < threshold`` goes left, NaN goes to the
side that the split names, and the leaves are added in float32, in tree order, onto the base margin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gpuscalp.errors import MemberError, ShapeError
from gpuscalp.ops._numba import jit
from gpuscalp.ops.forest_check import check_forest
from gpuscalp.ops.forest_pack import LINKED, PackedTrees, pack_trees
from gpuscalp.schema import F32, I32, I64, U32

FORMAT: Final = 1

# Rows of a tile. The trees (3.4 MB of 4,500) pass by once a tile, and every tree has a fixed price: 128 take
# 15 % less than 64 (Xeon, 2 MB of L2; on an EPYC 9004 as long). Larger ones leave a smaller L2.
TILE_ROWS: Final = 128
# So few rows walk one after the other: the vector code has a fixed price per tree. Measured for 4,500 trees
# of depth 6, walk against vectors: 321 µs and 463 for four rows, 472 and 500 for six, 623 and 596 for eight.
WALK_ROWS_MAX: Final = 4

_ARRAYS: Final = (
    "left", "right", "feature", "value", "default_left", "tree_start", "tree_member", "tree_class", "base",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """T trees with N nodes in all, of M members that give K margins each.

    The arrays are copied, checked and made read-only. Nodes of a tree are numbered from 0, the root, and
    stand behind their parents.

    Attributes
    ----------
    left, right : int32[N]     children, -1 in a leaf
    feature : int32[N]         column that a split looks at
    value : float32[N]         threshold of a split, weight of a leaf
    default_left : bool[N]     where a split sends NaN
    tree_start : int64[T + 1]  first node of each tree, then N
    tree_member : int32[T]     never falling
    tree_class : int32[T]      margin that the tree adds to
    base : float32[M, K]       base margins: what a forest without trees answers
    objective : str            XGBoost's name of it
    feature_count : int        F, columns of a row
    packed : PackedTrees       the same trees as the kernels walk them; derived

    Raises
    ------
    MemberError
        the arrays do not describe a forest; ``where`` names the array, ``value`` the first bad entry
    """

    left: I32
    right: I32
    feature: I32
    value: F32
    default_left: npt.NDArray[np.bool_]
    tree_start: I64
    tree_member: I32
    tree_class: I32
    base: F32
    objective: str
    feature_count: int
    packed: PackedTrees = field(init=False, repr=False)

    def __post_init__(self) -> None:
        arrays = {name: np.array(getattr(self, name), order="C", copy=True) for name in _ARRAYS}
        check_forest(arrays, self.objective, self.feature_count)
        for name, array in arrays.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        group = self.tree_member.astype(np.int64) * self.class_count + self.tree_class
        packed = pack_trees(
            self.left, self.right, self.feature, self.value, self.default_left, self.tree_start, group,
            self.base, self.feature_count,
        )  # fmt: skip
        object.__setattr__(self, "packed", packed)

    @property
    def member_count(self) -> int:
        """M, boosters in the ensemble."""
        return int(self.base.shape[0])

    @property
    def class_count(self) -> int:
        """K, margins of a member: the number of classes, or 1 for a binary or regression objective."""
        return int(self.base.shape[1])

    @property
    def tree_count(self) -> int:
        """T, trees of all members."""
        return len(self.tree_member)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything as named arrays without objects, fit for ``numpy.savez``."""
        named: dict[str, npt.NDArray[Any]] = {name: getattr(self, name) for name in _ARRAYS}
        named["objective"] = np.array(self.objective)
        named["feature_count"] = np.array(self.feature_count, np.int64)
        named["format"] = np.array(FORMAT, np.int64)
        return named

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Forest:
        """Return the forest that ``arrays`` was made of; trusts nothing.

        Raises
        ------
        MemberError
            an array is missing, unknown, of another dtype, or has an entry that cannot be
        """
        wanted = {*_ARRAYS, "objective", "feature_count", "format"}
        if arrays.keys() != wanted:
            raise MemberError(
                "a forest consists of other arrays",
                where="forest",
                value=sorted(wanted.symmetric_difference(arrays)),
                fix="the file is damaged or of another version: train again",
            )
        if _whole_number(arrays, "format") != FORMAT:
            raise MemberError(
                f"this version reads forests of format {FORMAT}",
                where="forest.format",
                value=arrays["format"],
                fix="train again, or install the version that wrote it",
            )
        objective = arrays["objective"]
        if objective.shape != () or objective.dtype.kind != "U":
            raise MemberError("the objective is not a word", where="forest.objective", value=objective.dtype)
        return cls(
            **{name: arrays[name] for name in _ARRAYS},
            objective=str(objective),
            feature_count=_whole_number(arrays, "feature_count"),
        )

    @classmethod
    def join(cls, forests: Sequence[Forest]) -> Forest:
        """Return one forest with the members of all, in order.

        Raises
        ------
        MemberError
            there is none, or they differ in columns, classes or objective
        """
        if not forests:
            raise MemberError("an ensemble needs at least one member", where="forest")
        first = forests[0]
        kind = (first.feature_count, first.class_count, first.objective)
        for index, other in enumerate(forests):
            if (other.feature_count, other.class_count, other.objective) != kind:
                raise MemberError(
                    "members differ in columns, classes or objective",
                    where=f"member {index}",
                    value=(other.feature_count, other.class_count, other.objective),
                    fix=f"the first one has {kind}: train all members alike",
                )
        node_count = np.cumsum([0] + [len(forest.left) for forest in forests])
        member_count = np.cumsum([0] + [forest.member_count for forest in forests])
        joined = {name: np.concatenate([getattr(forest, name) for forest in forests]) for name in _ARRAYS}
        joined["tree_start"] = np.concatenate(
            [f.tree_start[:-1] + n for f, n in zip(forests, node_count, strict=False)] + [node_count[-1:]]
        ).astype(np.int64)
        joined["tree_member"] = np.concatenate(
            [f.tree_member + m for f, m in zip(forests, member_count, strict=False)]
        ).astype(np.int32)
        return cls(**joined, objective=first.objective, feature_count=first.feature_count)


def _whole_number(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> int:
    array = arrays[name]
    if array.shape != () or array.dtype != np.int64:
        raise MemberError("not a single int64", where=f"forest.{name}", value=f"{array.dtype}{array.shape}")
    return int(array)


@dataclass(frozen=True, slots=True, eq=False)
class ForestScratch:
    """Working memory of one thread for one shape of forest; its contents mean nothing between calls.

    Attributes
    ----------
    tile : float32[2F · TILE_ROWS]   columns of a tile of rows, then again with −∞ for NaN
    sums : float32[TILE_ROWS]        margins under construction
    index : uint32[TILE_ROWS]        node that each row has come to
    """

    tile: F32
    sums: F32
    index: U32

    @classmethod
    def of(cls, forest: Forest) -> ForestScratch:
        """Return memory that fits ``forest``."""
        return cls(
            np.zeros(2 * forest.feature_count * TILE_ROWS, np.float32),
            np.zeros(TILE_ROWS, np.float32),
            np.zeros(TILE_ROWS, np.uint32),
        )


def predict_margins(forest: Forest, x: F32, *, out: F32, scratch: ForestScratch) -> None:
    """Write the margins of all members; releases the GIL and allocates no arrays.

    A row's margins do not depend on the other rows. Two threads may share a forest but not a scratch.

    Parameters
    ----------
    forest : Forest
    x : float32[R, F]        C-contiguous; NaN is missing; not modified
    out : float32[M, R, K]   C-contiguous; written; must not overlap ``x``
    scratch : ForestScratch  made by ``ForestScratch.of`` for a forest of as many columns

    Raises
    ------
    ShapeError
        an array is not as above

    Notes
    -----
    Twin: cuda_forest.predict_margins. Cost: R · T · depth steps; about 5 ns per row and tree of depth 6 on
    one core of an EPYC 9004 (``python -m benchmarks.bench_forest``).
    """
    rows = len(x) if x.ndim == 2 else -1
    _check_array("x", x, (rows, forest.feature_count))
    _check_array("out", out, (forest.member_count, rows, forest.class_count))
    if not out.flags.writeable:
        raise ShapeError("the array is read-only", where="out")
    if len(scratch.tile) != 2 * forest.feature_count * TILE_ROWS:
        raise ShapeError("the scratch was made for another forest", where="scratch", value=len(scratch.tile))
    # One type for the compiler, whether or not the caller's array can be written.
    read_only = x.view()
    read_only.flags.writeable = False
    _margins(forest.packed, read_only, out, scratch.tile, scratch.sums, scratch.index)


def _check_array(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.dtype != np.float32 or array.shape != shape or not array.flags.c_contiguous:
        raise ShapeError(
            f"the forest takes C-contiguous float32{list(shape)}",
            where=name,
            value=f"{array.dtype}{list(array.shape)}, strides {array.strides}",
        )


@jit
def _fill_tile(x: F32, first: int, count: int, tile: F32) -> None:
    """Turn rows into columns of ``count`` values, and write all of them again with −∞ for NaN."""
    column_count = x.shape[1]
    for row in range(count):
        for column in range(column_count):
            number = x[first + row, column]
            tile[column * count + row] = number
            low = np.float32(-np.inf) if number != number else number
            tile[(column_count + column) * count + row] = low


@jit
def _walk_perfect(trees: PackedTrees, tree: int, tile: F32, count: int, row: int) -> np.float32:
    """Return the leaf that one row of a tile reaches in a perfect tree."""
    depth = trees.depth[tree]
    start = np.uint64(trees.node_start[tree])
    # Unsigned indices: a signed one may count from the end, which costs a test at each load.
    i = np.uint64(0)
    for _ in range(depth):
        node = trees.nodes[start + i]
        goes_left = tile[np.uint64(node.column) * np.uint64(count) + np.uint64(row)] < node.threshold
        i = np.uint64(2) * i + np.uint64(2) - np.uint64(goes_left)
    last = np.uint64(trees.tail_start[tree]) + i - ((np.uint64(1) << depth) - np.uint64(1))
    leaf: np.float32 = trees.leaves[last]
    return leaf


@jit
def _walk_linked(trees: PackedTrees, tree: int, tile: F32, count: int, row: int) -> np.float32:
    """Return the leaf that one row of a tile reaches in a tree too deep to be perfect."""
    start = trees.node_start[tree]
    tail = trees.tail_start[tree]
    i = np.int64(0)
    while trees.links[tail + i] != 0:
        node = trees.nodes[start + i]
        goes_left = tile[np.int64(node.column) * count + row] < node.threshold
        i = np.int64(trees.links[tail + i]) + (0 if goes_left else 1)
    leaf: np.float32 = trees.nodes[start + i].threshold
    return leaf


@jit
def _descend_three_levels(nodes: npt.NDArray[np.void], tile: F32, count: int, index: U32) -> None:
    """Write the node of level 3 that each row reaches.

    All seven splits above are evaluated for every row: their columns lie in one piece each, so this is vector
    code without a gather, and cheaper than three steps of one split each.
    """
    c0 = nodes[0].column * count
    c1 = nodes[1].column * count
    c2 = nodes[2].column * count
    c3 = nodes[3].column * count
    c4 = nodes[4].column * count
    c5 = nodes[5].column * count
    c6 = nodes[6].column * count
    x0 = tile[c0 : c0 + count]
    x1 = tile[c1 : c1 + count]
    x2 = tile[c2 : c2 + count]
    x3 = tile[c3 : c3 + count]
    x4 = tile[c4 : c4 + count]
    x5 = tile[c5 : c5 + count]
    x6 = tile[c6 : c6 + count]
    for row in range(count):
        a = np.uint32(7) if x3[row] < nodes[3].threshold else np.uint32(8)
        b = np.uint32(9) if x4[row] < nodes[4].threshold else np.uint32(10)
        c = np.uint32(11) if x5[row] < nodes[5].threshold else np.uint32(12)
        d = np.uint32(13) if x6[row] < nodes[6].threshold else np.uint32(14)
        a = a if x1[row] < nodes[1].threshold else b
        c = c if x2[row] < nodes[2].threshold else d
        index[row] = a if x0[row] < nodes[0].threshold else c


@jit
def _add_perfect(trees: PackedTrees, tree: int, tile: F32, count: int, index: U32, sums: F32) -> None:
    depth = trees.depth[tree]
    split_count = (1 << depth) - 1
    start = trees.node_start[tree]
    tail = trees.tail_start[tree]
    nodes = trees.nodes[start : start + split_count]
    leaves = trees.leaves[tail : tail + split_count + 1]
    _descend_three_levels(nodes, tile, count, index)
    # Words of 64 bits: an index of 32 would be widened anew for every gather.
    width = np.uint64(count)
    for _ in range(depth - 3):
        for row in range(count):
            i = index[row]
            node = nodes[np.uint64(i)]
            goes_left = tile[np.uint64(node.column) * width + np.uint64(row)] < node.threshold
            index[row] = np.uint32(2) * i + np.uint32(2) - np.uint32(goes_left)
    for row in range(count):
        sums[row] += leaves[index[row] - np.uint32(split_count)]


@jit
def _margins(trees: PackedTrees, x: F32, out: F32, tile: F32, sums: F32, index: U32) -> None:
    class_count = out.shape[2]
    for first in range(0, x.shape[0], TILE_ROWS):
        count = min(TILE_ROWS, x.shape[0] - first)
        _fill_tile(x, first, count, tile)
        for group in range(len(trees.base)):
            for row in range(count):
                sums[row] = trees.base[group]
            for tree in range(trees.group_start[group], trees.group_start[group + 1]):
                if trees.depth[tree] == LINKED:
                    for row in range(count):
                        sums[row] += _walk_linked(trees, tree, tile, count, row)
                elif count <= WALK_ROWS_MAX:
                    for row in range(count):
                        sums[row] += _walk_perfect(trees, tree, tile, count, row)
                else:
                    _add_perfect(trees, tree, tile, count, index, sums)
            for row in range(count):
                out[group // class_count, first + row, group % class_count] = sums[row]
