"""Boosters by which XGBoost would be led out of its arrays are refused before it sees them."""

from __future__ import annotations

import copy
import struct
import subprocess
import sys

import numpy as np
import pytest

from gpuscalp.booster_form import check_booster
from gpuscalp.boosters import load_booster
from gpuscalp.errors import MemberError
from gpuscalp.ubjson import read_ubjson
from gpuscalp.xgb import import_xgboost

MODEL = ("learner", "gradient_booster", "model")
PARAM = ("learner", "learner_model_param")
TREE = (*MODEL, "trees", 1)
FILES = {
    "three classes": {"objective": "multi:softprob", "num_class": 3},
    "two classes": {"objective": "binary:logistic"},
    "pruned": {"objective": "reg:squarederror", "tree_method": "exact", "gamma": 2.0, "max_depth": 6},
    "parallel": {"objective": "multi:softmax", "num_class": 3, "num_parallel_tree": 2},
    "by leaves": {
        "objective": "binary:logistic",
        "grow_policy": "lossguide",
        "max_leaves": 9,
        "max_depth": 0,
    },
}


def trained(params, rounds=3):
    xgboost, rng = import_xgboost(), np.random.default_rng(3)
    x = rng.standard_normal((200, 5)).astype(np.float32)
    target = rng.integers(0, params.get("num_class", 2), len(x))
    return xgboost.train({"max_depth": 4, "nthread": 1, **params}, xgboost.DMatrix(x, target), rounds)


@pytest.fixture(scope="module")
def files():
    return {name: bytes(trained(params).save_raw("ubj")) for name, params in FILES.items()}


def written(value):
    """Write UBJSON as XGBoost does."""
    if isinstance(value, dict):
        parts = (length(len(name)) + name.encode() + written(part) for name, part in value.items())
        return b"{" + b"".join(parts) + b"}"
    if isinstance(value, np.ndarray):
        mark = {"u1": b"U", "i4": b"l", "i8": b"L", "f4": b"d"}[value.dtype.str[1:]]
        return (
            b"[$" + mark + b"#" + length(len(value)) + value.astype(value.dtype.newbyteorder(">")).tobytes()
        )
    if isinstance(value, list):
        return b"[#" + length(len(value)) + b"".join(map(written, value))
    return (
        b"S" + length(len(value)) + value.encode()
        if isinstance(value, str)
        else b"L" + struct.pack(">q", value)
    )


def length(count):
    return b"L" + struct.pack(">q", count)


def edited(data, *path, value):
    """Return a file with one entry replaced, or by ``value`` of the former one."""
    document = read_ubjson(data, "m")
    around = document
    for step in path[:-1]:
        around = around[step]
    before = around[path[-1]]
    around[path[-1]] = value(before) if callable(value) else value
    return written(document)


def entry(at, value):
    """Replace one entry of an array."""

    def replace(array):
        array = array.copy()
        array[at] = value
        return array

    return replace


@pytest.mark.parametrize("name", FILES)
def test_what_xgboost_writes_is_taken_whole_sliced_and_trained_on(files, name):
    data = files[name]
    booster = load_booster(data, "m")
    assert bytes(booster.save_raw("ubj")) == data
    check_booster(bytes(booster[1:3].save_raw("ubj")), "a slice")
    xgboost = import_xgboost()
    x = np.random.default_rng(4).standard_normal((100, 5)).astype(np.float32)
    target = np.arange(100) % FILES[name].get("num_class", 2)
    further = xgboost.train(FILES[name], xgboost.DMatrix(x, target), 2, xgb_model=booster)
    check_booster(bytes(further.save_raw("ubj")), "a warm start")
    assert "pruned" not in name or b"num_deletedSL\x00\x00\x00\x00\x00\x00\x00\x010" not in data


REFUSED = {
    "child far away": (("left_children",), entry(0, 10**6), "node 0, left_children"),
    "child negative": (("right_children",), entry(0, -2), "node 0, right_children"),
    "child is the root": (("left_children",), entry(1, 0), "node 1, left_children"),
    "child of another": (("left_children",), entry(0, 3), "node 0, left_children"),
    "one child": (("right_children",), entry(0, 1), "right_children"),
    "leaf with a child": (("left_children",), entry(0, -1), "node 0, right_children"),
    "parent far away": (("parents",), entry(2, 10**6), "node 2, parents"),
    "parent negative": (("parents",), entry(1, -1), "node 1, parents"),
    "root with a parent": (("parents",), entry(0, 0), "node 0, parents"),
    "column": (("split_indices",), entry(0, 5), "node 0, split_indices"),
    "column negative": (("split_indices",), entry(0, -1), "node 0, split_indices"),
    "categorical": (("split_type",), entry(0, 1), "node 0, split_type"),
    "categories": (("categories_segments",), np.array([2**40]), "categories"),
    "categories' nodes": (("categories_nodes",), np.array([99], np.int32), "categories"),
    "short": (("loss_changes",), lambda array: array[:-1], "loss_changes"),
    "long": (("parents",), lambda array: np.append(array, array[-1:]).astype(np.int32), "parents"),
    "another type": (("split_conditions",), lambda array: array.astype(np.int32), "split_conditions"),
    "no nodes": (("left_children",), lambda array: array[:0], "num_nodes"),
    "number of nodes": (("tree_param", "num_nodes"), "2147483647", "num_nodes"),
    "vector leaf": (("tree_param", "size_leaf_vector"), "3", "tree 1"),
    "place of another": (("id",), 0, "tree 1, id"),  # the place of its own was empty, and XGBoost went there
}  # fmt: skip


@pytest.mark.parametrize(("path", "value", "where"), REFUSED.values(), ids=REFUSED.keys())
def test_tree_that_leads_out_of_its_arrays_is_refused(files, path, value, where):
    with pytest.raises(MemberError, match="must not read") as caught:
        load_booster(edited(files["three classes"], *TREE, *path, value=value), "m")
    assert caught.value.where.startswith("m, ")
    assert where in caught.value.where
    assert caught.value.exit_code == 8
    assert caught.value.fix


WHOLE = {
    "class": ((*MODEL, "tree_info", 2), 3, "tree_info 2"),
    "class negative": ((*MODEL, "tree_info", 2), -1, "tree_info 2"),
    "classes of trees": ((*MODEL, "tree_info"), [0] * 8, "tree_info"),
    "number of trees": ((*MODEL, "gbtree_model_param", "num_trees"), "10", "num_trees"),
    "parallel trees": ((*MODEL, "gbtree_model_param", "num_parallel_tree"), "0", "iteration_indptr"),
    "rounds": ((*MODEL, "iteration_indptr"), [0, 3, 6, 2**40], "iteration_indptr"),
    "no rounds": ((*MODEL, "iteration_indptr"), [], "iteration_indptr"),
    "number of classes": ((*PARAM, "num_class"), "999999999", "iteration_indptr"),
    "number of columns": ((*PARAM, "num_feature"), "999999999", "num_feature"),
    "too few columns": ((*PARAM, "num_feature"), "1", "split_indices"),
    "columns, no number": ((*PARAM, "num_feature"), "-5", "num_feature"),
    "targets": ((*PARAM, "num_target"), "2", "num_target"),
    "objective": (("learner", "objective", "name"), "survival:aft", "objective"),
    "categories": ((*MODEL, "cats", "sorted_idx"), np.array([7], np.int32), "cats"),
}


@pytest.mark.parametrize(("path", "value", "where"), WHOLE.values(), ids=WHOLE.keys())
def test_booster_that_does_not_hold_together_is_refused(files, path, value, where):
    with pytest.raises(MemberError, match="must not read") as caught:
        load_booster(edited(files["three classes"], *path, value=value), "m")
    assert where in caught.value.where


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("learner", "gradient_booster", "name"), "dart"),
        ((*MODEL, "weight_drop"), [1]),
        ((*TREE, "left_children"), [1, -1, -1]),
        ((*TREE, "leaf_weights"), np.array([1], np.int32)),
        ((*TREE, "tree_param"), {}),
        ((*MODEL, "trees"), []),
        (("learner",), []),
    ],
    ids=lambda part: str(part)[-20:],
)
def test_booster_of_another_form_is_refused(files, path, value):
    document = (
        edited(files["three classes"], *path[:-1], value=lambda part: {**part, path[-1]: value})
        if path[1:]
        else written({"learner": value, "version": [3, 2, 0]})
    )
    with pytest.raises(MemberError):
        check_booster(document, "m")


def test_circle_apart_from_the_root_cannot_be_reached(files):
    """Every node has one parent, so a circle hangs on nothing: XGBoost reads it and never walks into it."""
    document = read_ubjson(files["three classes"], "m")
    tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
    circle = {  # nodes 1 and 2 are each other's parents
        "left_children": [-1, 2, 1, -1, -1],
        "right_children": [-1, 3, 4, -1, -1],
        "parents": [2**31 - 1, 2, 1, 1, 2],
    }
    for name, values in circle.items():
        tree[name] = np.array(values, np.int32)
    others = ("split_indices", "split_conditions", "default_left", "split_type")
    for name in (*others, "base_weights", "loss_changes", "sum_hessian"):
        tree[name] = np.resize(tree[name], 5)
    tree["tree_param"]["num_nodes"] = "5"
    booster = load_booster(written(document), "m")
    assert np.isfinite(booster.inplace_predict(np.zeros((1, 5), np.float32))).all()


@pytest.mark.parametrize(
    ("name", "score"), [("three classes", "[1E-1,2E-1]"), ("two classes", "[2E0]"), ("two classes", "nan")]
)
def test_base_score_with_which_no_row_can_be_computed_is_refused(files, name, score):
    """XGBoost read it, and raised an error of its own at the first row."""
    with pytest.raises(MemberError, match="base score"):
        load_booster(edited(files[name], *PARAM, "base_score", value=score), "m")


LOAD = """
import sys, warnings
from pathlib import Path
import numpy as np
from gpuscalp.boosters import Boosters
from gpuscalp.errors import MemberError
warnings.simplefilter("ignore")
read = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, end=" ", flush=True)
    try:
        Boosters([path.read_bytes()], "cpu")
        read += 1
    except MemberError:
        pass
print("read", read)
"""


def test_no_changed_number_ends_the_process(files, tmp_path):
    """One number of a tree's arrays, or one byte of the file: refused, or a model that XGBoost computes."""
    rng = np.random.default_rng(11)
    count = 0
    for data in files.values():
        document = read_ubjson(data, "m")
        trees = document["learner"]["gradient_booster"]["model"]["trees"]
        for number in range(60):
            if number % 4:
                changed = copy.deepcopy(document)
                tree = changed["learner"]["gradient_booster"]["model"]["trees"][rng.integers(len(trees))]
                names = [name for name, part in tree.items() if isinstance(part, np.ndarray) and len(part)]
                array = tree[name := str(rng.choice(names))].copy()
                near = rng.integers(-2, len(array) + 2)
                far = rng.choice([-(2**31), 2**31 - 1, 10**6, 2**24])
                with np.errstate(over="ignore"):
                    array[rng.integers(len(array))] = np.int64(near if number % 3 else far).astype(
                        array.dtype
                    )
                tree[name] = array
                mutant = written(changed)
            else:
                mutant = bytearray(data)
                mutant[rng.integers(len(data))] = rng.integers(256)
            (tmp_path / f"{count:04d}").write_bytes(mutant)
            count += 1
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, (done.stdout[-40:], done.stderr)
    assert 20 < int(done.stdout.split()[-1]) < count - 60
