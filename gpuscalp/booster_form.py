"""What XGBoost takes on trust in a booster's file: lengths, and numbers that it follows as indices.

A child, a parent or a column that is not there leads it out of its arrays, and children that form a circle
keep it for ever: either ends the process, or reads what is none of its business.

Owns: the conditions under which XGBoost may read a booster. Never: asks for more than that and for the kind
that the forest knows; what is merely wrong, XGBoost or the forest refuses (``forest_reader``).
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import msgspec
import numpy as np

from gpuscalp.errors import MemberError
from gpuscalp.forest_reader import OBJECTIVES, base_margins
from gpuscalp.ops.forest_check import FEATURE_COUNT_MAX
from gpuscalp.ubjson import read_ubjson

_LEAF: Final = -1
_NO_PARENT: Final = 2**31 - 1

Numbers = np.ndarray[Any, np.dtype[Any]]


class _TreeParam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    num_nodes: str
    num_feature: str
    size_leaf_vector: str
    num_deleted: str


class _Tree(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tree_param: _TreeParam
    left_children: Numbers
    right_children: Numbers
    parents: Numbers
    split_indices: Numbers
    split_conditions: Numbers
    default_left: Numbers
    split_type: Numbers
    base_weights: Numbers
    loss_changes: Numbers
    sum_hessian: Numbers
    categories: Numbers
    categories_nodes: Numbers
    categories_segments: Numbers
    categories_sizes: Numbers
    id: int


_INDICES: Final = ("left_children", "right_children", "parents", "split_indices")
_PER_NODE: Final = {
    **dict.fromkeys(_INDICES, "i"), "default_left": "u", "split_type": "u",
    **dict.fromkeys(("split_conditions", "base_weights", "loss_changes", "sum_hessian"), "f"),
}  # fmt: skip
_CATEGORIES: Final = ("categories", "categories_nodes", "categories_segments", "categories_sizes")


class _GbtreeParam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    num_trees: str
    num_parallel_tree: str


class _Categories(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enc: list[Any]
    feature_segments: Numbers
    sorted_idx: Numbers


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gbtree_model_param: _GbtreeParam
    trees: list[_Tree]
    tree_info: list[int]
    iteration_indptr: list[int]
    cats: _Categories


class _Gbtree(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="gbtree", tag_field="name"):
    model: _Model


class _LearnerParam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base_score: str
    num_class: str
    num_feature: str
    num_target: str
    boost_from_average: str


class _Objective(msgspec.Struct, frozen=True):
    name: str


class _Learner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    attributes: dict[str, str]
    feature_names: list[str]
    feature_types: list[str]
    gradient_booster: _Gbtree
    learner_model_param: _LearnerParam
    objective: _Objective


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    learner: _Learner
    version: list[int]


def check_booster(data: bytes, where: str) -> None:
    """Refuse a booster by which XGBoost could be led out of its arrays.

    Parameters
    ----------
    data : UBJSON
    where : named in an error

    Raises
    ------
    MemberError    ``where`` goes on with the part of the booster, the number of a tree and of a node in it
    """
    document = read_ubjson(data, where)
    try:
        learner = msgspec.convert(document, _File).learner
    except msgspec.ValidationError as error:
        raise MemberError("a member is no booster of XGBoost's", where=where, value=str(error)) from None
    if learner.objective.name not in OBJECTIVES:
        _refuse("its objective is unknown", f"{where}, objective", learner.objective.name)
    param = learner.learner_model_param
    feature_count = _count(param.num_feature, f"{where}, num_feature")
    if not 1 <= feature_count <= FEATURE_COUNT_MAX:
        _refuse(f"a member has 1 … {FEATURE_COUNT_MAX} columns", f"{where}, num_feature", feature_count)
    if param.num_target != "1":
        _refuse("it has several targets", f"{where}, num_target", param.num_target)
    model = learner.gradient_booster.model
    class_count = max(1, _count(param.num_class, f"{where}, num_class"))
    _check_classes(model, class_count, where)
    base_margins(param.base_score, learner.objective.name, class_count)  # else it refuses every row
    _check_lengths(model, where)
    _check_nodes(model.trees, feature_count, where)


def _check_classes(model: _Model, class_count: int, where: str) -> None:
    """Each round has as many trees as any other, and at least one for each class."""
    tree_count = len(model.trees)
    told = _count(model.gbtree_model_param.num_trees, f"{where}, num_trees")
    if not told == len(model.tree_info) == tree_count:
        _refuse(f"it has {tree_count} trees", f"{where}, num_trees, tree_info", (told, len(model.tree_info)))
    parallel_count = _count(model.gbtree_model_param.num_parallel_tree, f"{where}, num_parallel_tree")
    in_round = class_count * parallel_count
    if not tree_count or not in_round or model.iteration_indptr != [*range(0, tree_count + 1, in_round)]:
        _refuse(
            f"{tree_count} trees are not rounds of {class_count} classes by {parallel_count}",
            f"{where}, iteration_indptr",
            model.iteration_indptr[-1:],
        )
    for index, of_class in enumerate(model.tree_info):
        if not 0 <= of_class < class_count:
            _refuse(f"a tree of none of {class_count} classes", f"{where}, tree_info {index}", of_class)


def _check_lengths(model: _Model, where: str) -> None:
    if model.cats.enc or len(model.cats.feature_segments) or len(model.cats.sorted_idx):
        _refuse("it has categories", f"{where}, cats", len(model.cats.enc))
    for index, tree in enumerate(model.trees):
        count = len(tree.left_children)
        if tree.id != index:  # XGBoost puts a tree where its id says, and leaves a place empty
            _refuse("a tree in another's place", f"{where}, tree {index}, id", tree.id)
        if count == 0 or tree.tree_param.num_nodes != str(count):
            _refuse(
                f"a tree of {count} nodes", f"{where}, tree {index}, num_nodes", tree.tree_param.num_nodes
            )
        if tree.tree_param.size_leaf_vector not in ("0", "1"):
            _refuse("it has vector leaves", f"{where}, tree {index}", tree.tree_param.size_leaf_vector)
        for name, kind in _PER_NODE.items():
            array = getattr(tree, name)
            if len(array) != count or array.dtype.kind != kind:
                told = f"{len(array)} of {array.dtype.name}"
                _refuse(f"{count} nodes have other entries here", f"{where}, tree {index}, {name}", told)
        if any(len(getattr(tree, name)) for name in _CATEGORIES):
            _refuse("it has categories", f"{where}, tree {index}, categories", len(tree.categories))


def _check_nodes(trees: list[_Tree], feature_count: int, where: str) -> None:
    """Every tree is one: each node but the root is the child of one other, so no way leads in a circle."""
    sizes = np.array([len(tree.left_children) for tree in trees])
    roots = np.cumsum(sizes) - sizes
    start, size = np.repeat(roots, sizes), np.repeat(sizes, sizes)
    node = np.arange(len(start)) - start
    left, right, parent, feature = (
        np.concatenate([getattr(tree, name) for tree in trees]).astype(np.int64) for name in _INDICES
    )
    is_split = left != _LEAF

    def require(holds: Numbers, what: str, name: str, array: Numbers) -> None:
        if not holds.all():
            at = int(np.argmin(holds))
            tree = int(np.searchsorted(roots, at, "right")) - 1
            _refuse(what, f"{where}, tree {tree}, node {node[at]}, {name}", int(array[at]))

    is_root = node == 0
    has_parent = np.where(is_root, parent == _NO_PARENT, (parent >= 0) & (parent < size))
    require(has_parent, "a parent that is none of the tree's nodes", "parents", parent)
    for name, child in (("left_children", left), ("right_children", right)):
        is_there = np.where(is_split, (child > 0) & (child < size), child == _LEAF)
        require(is_there, "a child that is none of the tree's nodes", name, child)
        back = parent[np.where(is_split, start + child, 0)]
        require(~is_split | (back == node), "a child that has another parent", name, child)
    require(~is_split | (left != right), "both children are one", "right_children", right)
    of_column = ~is_split | ((feature >= 0) & (feature < feature_count))
    require(of_column, f"a split on none of {feature_count} columns", "split_indices", feature)
    kinds = np.concatenate([tree.split_type for tree in trees])
    require(kinds == 0, "a split on categories", "split_type", kinds)


def _count(text: str, where: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        _refuse("not a count", where, text)
    return int(text)


def _refuse(what: str, where: str, value: object) -> NoReturn:
    raise MemberError(
        f"XGBoost must not read a member: {what}",
        where=where,
        value=value,
        fix="do not use this bundle: the file is damaged, or made to do harm",
    )
