"""Reads a booster in XGBoost's JSON form into a forest; needs no XGBoost.

Owns XGBoost's names and quirks: what the base score means to each objective, nodes that pruning left behind,
and everything that the forest's kernels cannot evaluate. Never guesses: a field that is not known here means
that XGBoost might compute something else, so the booster is refused.

Seen in files of XGBoost 3.2.0 and 3.4.1. Two traps: 3.4.1 saves ``dart`` under the name ``gbtree``, and only
the list ``weight_drop`` tells it apart; and infinities are written in a way that JSON does not know. A split
that only asks whether a value is missing, which training on a GPU makes, has the threshold ``-Infinity``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, NoReturn

import msgspec
import numpy as np

from gpuscalp.errors import MemberError
from gpuscalp.ops.forest import Forest
from gpuscalp.ops.logit import logit32
from gpuscalp.schema import F32

_MULTI: Final = frozenset({"multi:softprob", "multi:softmax"})
# Their base score is a probability, and the margin its logit.
_LOGISTIC: Final = frozenset({"binary:logistic", "reg:logistic"})
_IDENTITY: Final = frozenset({"reg:squarederror"})
OBJECTIVES: Final = _MULTI | _LOGISTIC | _IDENTITY

_LEAF: Final = -1

# Numbers that are not JSON, as XGBoost writes them: read as text, which ``float`` takes.
_NOT_JSON: Final = re.compile(rb"(?<=[\[,:])(-?Infinity|NaN)(?=[\],}])")
_Number = float | Literal["Infinity", "-Infinity"]

# What does not fit must fail here: a cast would let it wrap around to a number that looks right.
_Index = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]


class _TreeParam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    num_nodes: str
    num_feature: str
    size_leaf_vector: str
    num_deleted: str = "0"


class _Tree(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parallel lists with one entry per node; what is ``Raw`` takes no part in a prediction."""

    tree_param: _TreeParam
    left_children: list[_Index]
    right_children: list[_Index]
    split_indices: list[_Index]
    split_conditions: list[_Number]
    default_left: list[_Index]
    split_type: list[_Index]
    categories: list[int] = []
    categories_nodes: msgspec.Raw = msgspec.Raw()
    categories_segments: msgspec.Raw = msgspec.Raw()
    categories_sizes: msgspec.Raw = msgspec.Raw()
    base_weights: msgspec.Raw = msgspec.Raw()
    loss_changes: msgspec.Raw = msgspec.Raw()
    sum_hessian: msgspec.Raw = msgspec.Raw()
    parents: msgspec.Raw = msgspec.Raw()
    id: msgspec.Raw = msgspec.Raw()


class _Categories(msgspec.Struct, frozen=True):
    enc: list[Any] = []


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    trees: list[_Tree]
    tree_info: list[_Index]
    gbtree_model_param: msgspec.Raw = msgspec.Raw()
    iteration_indptr: msgspec.Raw = msgspec.Raw()
    cats: _Categories = _Categories()
    weight_drop: list[float] = []


class _Booster(msgspec.Struct, frozen=True):
    name: str
    # Decoded once the name is known: the other boosters have none, or one of another form.
    model: msgspec.Raw = msgspec.Raw()


class _LearnerParam(msgspec.Struct, frozen=True):
    base_score: str
    num_class: str
    num_feature: str
    num_target: str = "1"


class _Objective(msgspec.Struct, frozen=True):
    name: str


class _Learner(msgspec.Struct, frozen=True):
    gradient_booster: _Booster
    learner_model_param: _LearnerParam
    objective: _Objective


class _File(msgspec.Struct, frozen=True):
    learner: _Learner


def read_booster(data: bytes) -> Forest:
    """Return the whole model as saved, as a forest of one member.

    Parameters
    ----------
    data : bytes
        What ``bytes(booster.save_raw("json"))`` gives. Every tree counts: ``best_iteration`` is an attribute
        that the caller has to apply, by slicing the booster, before it is saved.

    Returns
    -------
    Forest
        With the bits of ``booster.predict(…, output_margin=True)`` on a CPU.

    Raises
    ------
    MemberError
        If this is no booster, is damaged, or asks for something that the forest does not do: categorical
        splits, ``dart``, ``gblinear``, vector leaves, another objective.
    """
    learner = _decode(_NOT_JSON.sub(rb'"\1"', data), _File).learner
    objective = learner.objective.name
    if objective not in OBJECTIVES:
        _refuse("the forest does not know this objective", "objective", objective, fix=_one_of(OBJECTIVES))
    booster = learner.gradient_booster
    if booster.name != "gbtree":
        _refuse("the forest does not know this kind of booster", "gradient_booster", booster.name)
    param = learner.learner_model_param
    if _count(param.num_target, "num_target") > 1:
        _refuse("the forest does not know models of several targets", "num_target", param.num_target)
    model = _decode(bytes(booster.model), _Model)
    if model.weight_drop:
        _refuse("the forest does not know weighted trees", "weight_drop", "dart")
    if model.cats.enc:
        _refuse("the forest does not know categories", "cats", len(model.cats.enc))
    if len(model.tree_info) != len(model.trees):
        _refuse("trees and their classes differ in number", "tree_info", len(model.tree_info))
    return _forest(model, param, objective)


def _forest(model: _Model, param: _LearnerParam, objective: str) -> Forest:
    class_count = max(1, _count(param.num_class, "num_class"))
    feature_count = _count(param.num_feature, "num_feature")
    sizes = [0]
    columns: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in _COLUMNS}
    for index, tree in enumerate(model.trees):
        _check_tree(tree, f"tree {index}")
        kept, left = _breadth_first(tree, f"tree {index}")
        sizes.append(len(kept))
        is_split = left >= 0
        columns["left"].append(left)
        columns["right"].append(np.where(is_split, left + 1, _LEAF))
        value = np.array([float(number) for number in tree.split_conditions])[kept]
        # No number lies below -∞, so only a missing one goes left there. The forest writes -∞ for a missing
        # value, and means the same by the next number.
        value[is_split & (value == -np.inf)] = np.finfo(np.float32).min
        columns["value"].append(value)
        columns["feature"].append(np.where(is_split, np.array(tree.split_indices, np.int32)[kept], 0))
        columns["default_left"].append(np.array(tree.default_left, np.int32)[kept] != 0)
    whole = {name: _joined(parts, _COLUMNS[name]) for name, parts in columns.items()}
    return Forest(
        **whole,
        tree_start=np.cumsum(sizes).astype(np.int64),
        tree_member=np.zeros(len(model.trees), np.int32),
        tree_class=np.array(model.tree_info, np.int32),
        base=base_margins(param.base_score, objective, class_count)[np.newaxis],
        objective=objective,
        feature_count=feature_count,
    )


_COLUMNS: Final[dict[str, type]] = {
    "left": np.int32, "right": np.int32, "feature": np.int32, "value": np.float32, "default_left": np.bool_,
}  # fmt: skip


def _joined(parts: list[np.ndarray[Any, Any]], dtype: type) -> np.ndarray[Any, Any]:
    # A number beyond float32 becomes an infinity, which the forest judges.
    with np.errstate(over="ignore"):
        return np.concatenate([np.empty(0, dtype), *parts]).astype(dtype)


def _check_tree(tree: _Tree, where: str) -> None:
    if tree.tree_param.size_leaf_vector not in ("0", "1"):
        _refuse("the forest does not know vector leaves", where, tree.tree_param.size_leaf_vector)
    if tree.categories or any(tree.split_type):
        _refuse("the forest does not know categorical splits", where, max(tree.split_type, default=0))
    count = len(tree.left_children)
    lists: dict[str, Sequence[object]] = {
        "right_children": tree.right_children,
        "split_indices": tree.split_indices,
        "split_conditions": tree.split_conditions,
        "default_left": tree.default_left,
    }
    for name, entries in lists.items():
        if len(entries) != count:
            _refuse(f"{count} nodes have another number of entries here", f"{where}, {name}", len(entries))
    if count == 0:
        _refuse("a tree without a node", where, count)


def _breadth_first(tree: _Tree, where: str) -> tuple[list[int], np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the nodes that can be reached, and the new number of the left child of each (-1 in a leaf).

    Pruning leaves nodes behind that hang on nothing (``num_deleted``). In the new order children stand behind
    their parents and the right one next to the left.
    """
    count = len(tree.left_children)
    kept = [0]
    left = []
    for node in kept:
        children = (tree.left_children[node], tree.right_children[node])
        if children[0] == _LEAF:
            left.append(_LEAF)
            continue
        if not all(0 <= child < count for child in children):
            _refuse(f"a child that is none of {count} nodes", f"{where}, node {node}", children)
        left.append(len(kept))
        kept.extend(children)
        if len(kept) > count:
            _refuse("the nodes do not form a tree", f"{where}, node {node}", children)
    return kept, np.array(left, np.int64)


def base_margins(text: str, objective: str, class_count: int) -> F32:
    """Return float32[K]; a scalar, as older versions write it, holds for every class."""
    try:
        scores = msgspec.json.decode(text, type=float | list[float])
    except msgspec.MsgspecError:
        _refuse("a base score is a number or a list of numbers", "base_score", text)
    with np.errstate(over="ignore"):
        score = np.atleast_1d(np.array(scores, np.float64)).astype(np.float32)
    if len(score) not in (1, class_count):
        _refuse(f"{class_count} classes need as many base scores", "base_score", text)
    if objective in _LOGISTIC:
        if not ((score > 0) & (score < 1)).all():
            _refuse("the base score of a logistic objective is a probability", "base_score", text)
        score = np.array([logit32(probability) for probability in score], np.float32)
    return np.broadcast_to(score, class_count).copy()


def _count(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        _refuse("not a count", name, text)
    return int(text)


def _decode(data: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _refuse(f"not a booster that can be read: {error}", "booster", f"{len(data)} bytes", fix=_FIX_FILE)


_FIX_FILE: Final = 'save it with booster.save_raw("json") by XGBoost 3.2 … 3.4'
_FIX_MODEL: Final = "train with booster gbtree, numerical columns and one target"


def _one_of(names: frozenset[str]) -> str:
    return "train with one of " + ", ".join(sorted(names))


def _refuse(what: str, where: str, value: object, *, fix: str = _FIX_MODEL) -> NoReturn:
    raise MemberError(what, where=where, value=value, fix=fix)
