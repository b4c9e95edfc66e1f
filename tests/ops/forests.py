"""Random forests and a walk in plain Python, for the tests of both twins."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuscalp.ops.forest import Forest

# What a comparison can stumble over: zeros of both signs, denormals, infinities, the ends of the range.
SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 0.5, -0.5, 1.0], np.float32
)
# A forest refuses the others.
THRESHOLDS = SPECIAL[~(np.isnan(SPECIAL) | np.isneginf(SPECIAL))]


def random_tree(
    rng: np.random.Generator, depth: int, feature_count: int, full: float
) -> dict[str, list[Any]]:
    """Return the lists of one tree; ``full`` is the probability that a node above ``depth`` splits."""
    tree: dict[str, list[Any]] = {
        name: [] for name in ("left", "right", "feature", "value", "default_left", "level")
    }

    def add(level: int) -> int:
        for name, value in (("left", -1), ("right", -1), ("feature", 0), ("level", level)):
            tree[name].append(value)
        tree["default_left"].append(bool(rng.random() < 0.5))
        tree["value"].append(np.float32(rng.standard_normal()))
        return len(tree["left"]) - 1

    add(0)
    # Depth first for one half of the trees, breadth first for the other.
    pending, take = [0], -1 if rng.random() < 0.5 else 0
    while pending:
        node = pending.pop(take)
        level = tree["level"][node]
        # The first path goes all the way down: the tree has exactly this depth.
        if level == depth or not (rng.random() < full or len(tree["left"]) == 2 * level + 1):
            continue
        tree["left"][node], tree["right"][node] = add(level + 1), add(level + 1)
        tree["feature"][node] = int(rng.integers(feature_count))
        if rng.random() < 0.3:
            tree["value"][node] = rng.choice(THRESHOLDS)
        pending += [tree["left"][node], tree["right"][node]]
    return tree


def random_forest(
    rng: np.random.Generator,
    *,
    depths: list[int],
    feature_count: int = 5,
    member_count: int = 2,
    class_count: int = 3,
    full: float = 0.8,
) -> Forest:
    """Return a forest whose tree i has depth ``depths[i]``; its classes come in random order."""
    trees = [random_tree(rng, depth, feature_count, full) for depth in depths]
    dtypes = {
        "left": np.int32,
        "right": np.int32,
        "feature": np.int32,
        "value": np.float32,
        "default_left": bool,
    }
    return Forest(
        **{
            name: np.array([entry for tree in trees for entry in tree[name]], dtype)
            for name, dtype in dtypes.items()
        },
        tree_start=np.cumsum([0] + [len(tree["left"]) for tree in trees]).astype(np.int64),
        tree_member=np.sort(rng.integers(member_count, size=len(trees))).astype(np.int32),
        tree_class=rng.integers(class_count, size=len(trees)).astype(np.int32),
        base=rng.standard_normal((member_count, class_count)).astype(np.float32),
        objective="multi:softprob",
        feature_count=feature_count,
    )


def random_rows(rng: np.random.Generator, row_count: int, forest: Forest) -> np.ndarray:
    """Return rows of ordinary and special numbers, thresholds among them, one row in eight all NaN."""
    shape = (row_count, forest.feature_count)
    x = rng.standard_normal(shape).astype(np.float32)
    kind = rng.random(shape)
    x = np.where(kind < 0.3, rng.choice(SPECIAL, shape), x)
    if len(forest.value):
        x = np.where(kind > 0.8, rng.choice(forest.value, shape), x)
    x[rng.random(row_count) < 0.125] = np.nan
    return np.ascontiguousarray(x, np.float32)


def walk(forest: Forest, x: np.ndarray) -> np.ndarray:
    """Return float32[M, R, K], one comparison after the other, from the stored arrays alone."""
    out = np.empty((*forest.base.shape[:1], len(x), *forest.base.shape[1:]), np.float32)
    for row in range(len(x)):
        out[:, row, :] = forest.base
        for tree in range(len(forest.tree_member)):
            first = int(forest.tree_start[tree])
            node = 0
            while forest.left[first + node] != -1:
                value = x[row, forest.feature[first + node]]
                if np.isnan(value):
                    goes_left = forest.default_left[first + node]
                else:
                    goes_left = value < forest.value[first + node]
                node = int((forest.left if goes_left else forest.right)[first + node])
            member, klass = forest.tree_member[tree], forest.tree_class[tree]
            out[member, row, klass] = out[member, row, klass] + forest.value[first + node]
    return out
