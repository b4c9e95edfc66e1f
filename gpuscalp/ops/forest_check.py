"""What must hold before a kernel follows the indices of a forest: nothing is read out of bounds afterwards.

Owns the conditions and their messages. Never repairs: a file that fails here is damaged, or not ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gpuscalp.errors import MemberError

_DTYPES: Final = {
    "left": np.int32,
    "right": np.int32,
    "feature": np.int32,
    "value": np.float32,
    "default_left": np.bool_,
    "tree_start": np.int64,
    "tree_member": np.int32,
    "tree_class": np.int32,
    "base": np.float32,
}
# Far above any model; below the point where an index of 32 bits or a CUDA grid would not do.
FEATURE_COUNT_MAX: Final = 1 << 20
GROUP_COUNT_MAX: Final = 65_535
NODE_COUNT_MAX: Final = 1 << 28

Arrays = Mapping[str, npt.NDArray[Any]]


def check_forest(arrays: Arrays, objective: str, feature_count: int) -> None:
    """Raise unless the arrays of ``Forest`` describe trees that can be walked.

    Parameters
    ----------
    arrays : mapping   the arrays of ``Forest`` by name
    objective : str
    feature_count : int

    Raises
    ------
    MemberError
        ``where`` names the array, ``value`` the first bad entry and its place
    """
    _check_forms(arrays)
    if not objective:
        raise _fault("the objective is empty", "objective", objective)
    if not 1 <= feature_count <= FEATURE_COUNT_MAX:
        raise _fault(f"a forest has 1 … {FEATURE_COUNT_MAX} columns", "feature_count", feature_count)
    base = arrays["base"]
    if base.ndim != 2 or not 1 <= base.size <= GROUP_COUNT_MAX:
        raise _fault(f"base margins are [members, classes], 1 … {GROUP_COUNT_MAX}", "base", base.shape)
    _require(np.isfinite(base.reshape(-1)), "a base margin is not finite", "base", base.reshape(-1))
    _check_members(arrays["tree_member"], arrays["tree_class"], base.shape)
    _check_starts(arrays["tree_start"], len(arrays["tree_member"]), len(arrays["left"]))
    _check_nodes(arrays, feature_count)


def _check_forms(arrays: Arrays) -> None:
    for name, dtype in _DTYPES.items():
        array = arrays[name]
        if array.dtype != dtype or (name != "base" and array.ndim != 1):
            raise _fault(f"not a list of {np.dtype(dtype).name}", name, f"{array.dtype}{list(array.shape)}")
    node_count = len(arrays["left"])
    for name in ("right", "feature", "value", "default_left"):
        if len(arrays[name]) != node_count:
            raise _fault(f"{node_count} nodes have another number of entries here", name, len(arrays[name]))
    if node_count > NODE_COUNT_MAX:
        raise _fault(f"a forest has at most {NODE_COUNT_MAX} nodes", "left", node_count)
    # A byte that is neither 0 nor 1 would be an index of its own kind in compiled code.
    flags = arrays["default_left"].view(np.uint8)
    _require(flags <= 1, "a flag is neither 0 nor 1", "default_left", flags)


def _check_members(member: npt.NDArray[Any], klass: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if len(klass) != len(member):
        raise _fault("trees have a member each and a class each", "tree_class", (len(member), len(klass)))
    _require(
        (member >= 0) & (member < shape[0]), f"a tree of none of {shape[0]} members", "tree_member", member
    )
    _require(np.diff(member, prepend=0) >= 0, "the members are out of order", "tree_member", member)
    _require((klass >= 0) & (klass < shape[1]), f"a tree of none of {shape[1]} classes", "tree_class", klass)


def _check_starts(start: npt.NDArray[Any], tree_count: int, node_count: int) -> None:
    if len(start) != tree_count + 1:
        raise _fault(f"{tree_count} trees need {tree_count + 1} starts", "tree_start", len(start))
    if start[0] != 0 or start[-1] != node_count:
        raise _fault(
            f"the trees must cover {node_count} nodes", "tree_start", (int(start[0]), int(start[-1]))
        )
    # Compared, not subtracted: the difference of two wild numbers can wrap around.
    _require(start[1:] > start[:-1], "a tree without a node", "tree_start", start[1:])


def _check_nodes(arrays: Arrays, feature_count: int) -> None:
    left, right, start = arrays["left"], arrays["right"], arrays["tree_start"]
    node_count = len(left)
    size = np.diff(start)
    own = np.arange(node_count) - np.repeat(start[:-1], size)
    limit = np.repeat(size, size)
    is_split = left >= 0
    _require((left >= 0) | (left == -1), "a leaf is marked by -1", "left", left)
    _require((right >= 0) == is_split, "a split has two children, a leaf none", "right", right)
    _require(is_split | (right == -1), "a leaf is marked by -1", "right", right)
    for name, child in (("left", left), ("right", right)):
        fits = ~is_split | ((child > own) & (child < limit))
        _require(fits, "a child must stand behind its parent, in the same tree", name, child)
    # With children behind parents this makes trees: every node but the roots hangs on exactly one split.
    first = np.repeat(start[:-1], size)[is_split]
    hanging = np.concatenate((first + left[is_split], first + right[is_split]))
    times = np.bincount(hanging, minlength=node_count)
    _require(times == (own > 0), "a node must hang on one split, a root on none", "left", times)
    feature, value = arrays["feature"], arrays["value"]
    fits = ~is_split | ((feature >= 0) & (feature < feature_count))
    _require(fits, f"a split on none of {feature_count} columns", "feature", feature)
    # +∞ is a threshold that XGBoost can make; -∞ it cannot, and it would send a missing value the wrong way.
    _require(~is_split | (value > -np.inf), "a threshold is NaN or -inf", "value", value)
    _require(is_split | np.isfinite(value), "a leaf is not finite", "value", value)


def _require(holds: npt.NDArray[np.bool_], what: str, name: str, values: npt.NDArray[Any]) -> None:
    if not holds.all():
        place = int(np.argmin(holds))
        raise _fault(what, f"{name}[{place}]", values[place].item())


def _fault(what: str, name: str, value: object) -> MemberError:
    return MemberError(
        what, where=f"forest.{name}", value=value, fix="the file is damaged: copy it again, or train again"
    )
