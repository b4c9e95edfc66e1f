"""Boosters of every kind we train against XGBoost's own margins, bit for bit, and kinds that are refused."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

from gpuscalp.errors import MemberError
from gpuscalp.forest_reader import OBJECTIVES, read_booster
from gpuscalp.ops.forest import Forest, ForestScratch, predict_margins
from tests.host_shim.same_bits import assert_same_bits

with warnings.catch_warnings():
    # What XGBoost imports on its way is not ours to judge.
    warnings.simplefilter("ignore")
    import xgboost

FEATURE_COUNT = 7


def train(rng: np.random.Generator, objective: str, rounds: int = 8, **params: Any) -> xgboost.Booster:
    """Return a booster trained on 400 rows of noise with missing values."""
    x = rng.standard_normal((400, FEATURE_COUNT)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    # Few distinct values: rows that are equal to a threshold are common.
    x[:, :3] = np.round(x[:, :3], 1)
    signal = (
        np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]) * np.nan_to_num(x[:, 2]) + rng.standard_normal(400)
    )
    label = signal
    if objective.startswith("multi:"):
        label = np.digitize(signal, [-0.7, 0.7])
        params = {"num_class": 3, **params}
    elif "logistic" in objective:
        label = signal > 0.3
    settings = {"objective": objective, "nthread": 1, "seed": 3, "max_depth": 4, **params}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # dart and gblinear are deprecated
        return xgboost.train(settings, xgboost.DMatrix(x, label), rounds)


def saved(booster: xgboost.Booster) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # 3.4.1 says here too that gblinear is deprecated
        return bytes(booster.save_raw("json"))


def rows(rng: np.random.Generator, forest: Forest, row_count: int) -> np.ndarray:
    """Return ordinary rows, thresholds, zeros of both signs, infinities, NaN, and rows that are all NaN."""
    shape = (row_count, forest.feature_count)
    x = rng.standard_normal(shape).astype(np.float32)
    kind = rng.random(shape)
    x = np.where(kind < 0.2, np.nan, x)
    x = np.where((kind > 0.5) & (kind < 0.7), rng.choice(forest.value, shape), x)
    extremes = np.array([0.0, -0.0, np.inf, -np.inf, 1e-45, 3.4e38], np.float32)
    x = np.where(kind > 0.9, rng.choice(extremes, shape), x)
    x[rng.random(row_count) < 0.1] = np.nan
    return np.ascontiguousarray(x, np.float32)


def assert_equal_margins(booster: xgboost.Booster, forest: Forest, x: np.ndarray) -> None:
    out = np.empty((forest.member_count, len(x), forest.class_count), np.float32)
    predict_margins(forest, x, out=out, scratch=ForestScratch.of(forest))
    wanted = booster.inplace_predict(x, predict_type="margin", missing=np.nan)
    assert_same_bits(out[0], wanted.reshape(out.shape[1:]), "margins")


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_margins_are_those_of_xgboost_for_any_number_of_rows(rng, objective):
    booster = train(rng, objective)
    forest = read_booster(saved(booster))
    assert (forest.objective, forest.feature_count) == (objective, FEATURE_COUNT)
    for row_count in (1, 7, 8, 63, 64, 127, 128, 129, 4096):
        assert_equal_margins(booster, forest, rows(rng, forest, row_count))


def test_no_rows_give_no_margins(rng):
    # XGBoost itself refuses an empty array.
    forest = read_booster(saved(train(rng, "multi:softprob")))
    out = np.empty((1, 0, 3), np.float32)
    predict_margins(
        forest, np.empty((0, FEATURE_COUNT), np.float32), out=out, scratch=ForestScratch.of(forest)
    )


@pytest.mark.parametrize("depth", [*range(1, 10), 12])
@pytest.mark.parametrize("objective", ["multi:softprob", "binary:logistic"])
def test_margins_of_every_depth(rng, objective, depth):
    booster = train(rng, objective, 4, max_depth=depth, min_child_weight=0, **{"lambda": 0.1})
    forest = read_booster(saved(booster))
    assert_equal_margins(booster, forest, rows(rng, forest, 300))


@pytest.mark.parametrize(
    "params",
    [
        {"gamma": 1e6},  # nothing but single leaves
        {"grow_policy": "lossguide", "max_leaves": 20, "max_depth": 0},
        {"num_parallel_tree": 3, "subsample": 0.5},
        {"tree_method": "exact", "gamma": 3.0},
        {"tree_method": "approx"},
        {"base_score": 0.25},
    ],
    ids=lambda params: next(iter(params)),
)
@pytest.mark.parametrize("objective", ["multi:softprob", "binary:logistic", "reg:squarederror"])
def test_margins_of_other_ways_to_grow(rng, objective, params):
    booster = train(rng, objective, **params)
    forest = read_booster(saved(booster))
    assert_equal_margins(booster, forest, rows(rng, forest, 300))


def test_nodes_that_pruning_left_behind_are_dropped(rng):
    booster = train(rng, "reg:squarederror", tree_method="exact", gamma=5.0, max_depth=6)
    trees = json.loads(saved(booster))["learner"]["gradient_booster"]["model"]["trees"]
    deleted = sum(int(tree["tree_param"]["num_deleted"]) for tree in trees)
    assert deleted > 0, "the example does not prune"
    forest = read_booster(saved(booster))
    assert len(forest.left) == sum(len(tree["left_children"]) for tree in trees) - deleted


def test_a_slice_and_a_reloaded_booster_are_read_as_saved(rng):
    booster = train(rng, "multi:softprob")
    forest = read_booster(saved(booster[:3]))
    assert forest.tree_count == 9
    again = xgboost.Booster()
    again.load_model(bytearray(saved(booster[:3])))
    assert_equal_margins(again, forest, rows(rng, forest, 100))


def edited(data: bytes, *path: str | int, value: object) -> bytes:
    """Return a saved booster with one entry replaced."""
    document = json.loads(data)
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(document).encode()


BASE_SCORE = ("learner", "learner_model_param", "base_score")
MODEL = ("learner", "gradient_booster", "model")
TREE = (*MODEL, "trees", 0)


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:logistic"])
def test_logistic_base_scores_have_the_bits_of_xgboost(rng, objective):
    data = saved(train(rng, objective, 1, max_depth=1))
    # XGBoost holds probabilities 1e-6 away from 0 and 1.
    edges = [1e-9, 1e-7, 9.9e-7, 1e-6, 1.1e-6, 0.5, 0.999998, 0.999999, 0.9999995]
    for probability in np.float32([*edges, *rng.random(150)]):
        for text in (f"{probability}", f"[{probability}]"):
            try:
                booster = xgboost.Booster()
                booster.load_model(bytearray(edited(data, *BASE_SCORE, value=text)))
            except xgboost.core.XGBoostError:
                continue  # an older version does not read the form of a newer one
            forest = read_booster(saved(booster))
            assert_equal_margins(booster, forest, rows(rng, forest, 3))


def test_both_forms_of_a_base_score_are_read(rng):
    data = saved(train(rng, "multi:softprob", 1))
    scalar = read_booster(edited(data, *BASE_SCORE, value="5E-1"))
    assert scalar.base.tolist() == [[0.5, 0.5, 0.5]]
    single = read_booster(edited(data, *BASE_SCORE, value="[4.9915E-1]"))
    assert single.base.tolist() == [[np.float32(0.49915)] * 3]
    vector = read_booster(edited(data, *BASE_SCORE, value="[1E-1,-2E-1,3.5E0]"))
    assert vector.base.tolist() == [[np.float32(0.1), np.float32(-0.2), 3.5]]


@pytest.mark.parametrize("default_left", [0, 1])
def test_split_that_only_asks_whether_a_value_is_missing(rng, default_left):
    """As a training on a GPU writes it; a CPU reads it, and no feature is infinite."""
    data = saved(train(rng, "multi:softprob"))
    for tree in (0, 4):
        place = (*MODEL, "trees", tree)
        data = edited(data, *place, "split_conditions", 0, value=-np.inf)
        data = edited(data, *place, "default_left", 0, value=default_left)
        data = edited(data, *place, "loss_changes", 0, value=np.nan)
    assert data.count(b"-Infinity") == 2
    booster = xgboost.Booster()
    booster.load_model(bytearray(data))
    forest = read_booster(data.replace(b" ", b""))
    x = rows(rng, forest, 500)
    x[np.isinf(x)] = 0.0
    x[::3, :] = np.nan
    assert_equal_margins(booster, forest, x)


# Refusals ---------------------------------------------------------------------------------------------------

REFUSED = {
    "objective": (("learner", "objective", "name"), "rank:pairwise", "objective"),
    "booster": (("learner", "gradient_booster", "name"), "gblinear", "kind of booster"),
    "targets": (("learner", "learner_model_param", "num_target"), "2", "targets"),
    "class count": (("learner", "learner_model_param", "num_class"), "-3", "not a count"),
    "classes": (("learner", "learner_model_param", "num_class"), "2", "base score"),
    "columns": (("learner", "learner_model_param", "num_feature"), "1", "column"),
    "no columns": (("learner", "learner_model_param", "num_feature"), "0", "column"),
    "base score word": (BASE_SCORE, "half", "base score"),
    "base score too long": (BASE_SCORE, "[1,2]", "base scores"),
    "base score infinite": (BASE_SCORE, "1e60", "finite"),
    "weights": ((*MODEL, "weight_drop"), [0.5], "weighted"),
    "categories": ((*MODEL, "cats", "enc"), [{}], "categor"),
    "unknown field": ((*MODEL, "surprise"), 1, "surprise"),
    "tree classes": ((*MODEL, "tree_info"), [0], "classes"),
    "tree class": ((*MODEL, "tree_info", 0), 3, "class"),
    "vector leaf": ((*TREE, "tree_param", "size_leaf_vector"), "3", "vector"),
    "leaf weights": ((*TREE, "leaf_weights"), [1.0], "leaf_weights"),
    "categorical split": ((*TREE, "split_type", 0), 1, "categorical"),
    "child far away": ((*TREE, "left_children", 0), 10**6, "child"),
    "child negative": ((*TREE, "right_children", 0), -1, "child"),
    "circle": ((*TREE, "left_children", 1), 0, "tree"),
    "huge child": ((*TREE, "left_children", 0), 2**63, "read"),
    "column of a split": ((*TREE, "split_indices", 0), 7, "column"),
    "huge column": ((*TREE, "split_indices", 0), 2**40, "read"),
    "threshold": ((*TREE, "split_conditions", 0), -1e60, "threshold"),
    "list": ((*TREE, "default_left"), [1], "entries"),
    "no nodes": ((*TREE, "left_children"), [], "entries"),
    "type": ((*TREE, "split_conditions"), "1", "read"),
    "null": ((*TREE, "split_conditions", 0), None, "read"),
}


@pytest.fixture(scope="module")
def booster_data() -> bytes:
    return saved(train(np.random.default_rng(5), "multi:softprob", 2))


@pytest.mark.parametrize(("path", "value", "word"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_forest_cannot_do_is_refused(booster_data, path, value, word):
    with pytest.raises(MemberError, match=word) as refused:
        read_booster(edited(booster_data, *path, value=value))
    assert refused.value.exit_code == 8
    assert refused.value.fix is not None


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -200])
def test_a_cut_file_is_refused(booster_data, cut):
    with pytest.raises(MemberError, match="cannot be read|can be read"):
        read_booster(booster_data[:cut])


@pytest.mark.parametrize("data", [b"null", b"[]", b"{}", b'{"learner": {}}', b"\xff\xfe", b"{L\x00\x00"])
def test_something_else_is_refused(data):
    with pytest.raises(MemberError):
        read_booster(data)


@pytest.mark.parametrize(
    "params",
    [
        {"booster": "dart", "rate_drop": 0.5},
        {"booster": "gblinear"},
        {"objective": "binary:hinge"},
        {"objective": "count:poisson"},
    ],
    ids=lambda params: next(iter(params.values())),
)
def test_boosters_that_xgboost_can_train_and_the_forest_not_are_refused(rng, params):
    objective = params.get("objective", "reg:squarederror")
    kind = "binary:logistic" if "hinge" in objective else objective
    booster = train_named(rng, kind, params)
    with pytest.raises(MemberError):
        read_booster(saved(booster))


def train_named(rng: np.random.Generator, objective: str, params: dict[str, Any]) -> xgboost.Booster:
    """Train on labels that fit every objective: 0 and 1."""
    x = rng.standard_normal((100, 3)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return xgboost.train(
            {"objective": objective, "nthread": 1, **params}, xgboost.DMatrix(x, x[:, 0] > 0), 8
        )


def test_categorical_models_are_refused(rng):
    x = np.stack([rng.integers(0, 5, 200), rng.integers(0, 3, 200)], axis=1).astype(np.float32)
    matrix = xgboost.DMatrix(x, x[:, 0] == 2, feature_types=["c", "c"], enable_categorical=True)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1, "max_cat_to_onehot": 1}, matrix, 3)
    with pytest.raises(MemberError, match="categor"):
        read_booster(saved(booster))


def test_vector_leaves_are_refused(rng):
    x = rng.standard_normal((200, 3)).astype(np.float32)
    params = {"multi_strategy": "multi_output_tree", "tree_method": "hist", "nthread": 1}
    booster = xgboost.train({"objective": "reg:squarederror", **params}, xgboost.DMatrix(x, x[:, :2]), 3)
    with pytest.raises(MemberError, match="targets"):
        read_booster(saved(booster))


def test_reading_and_predicting_import_no_xgboost(tmp_path, booster_data):
    (tmp_path / "booster.json").write_bytes(booster_data)
    code = (
        "import sys; from pathlib import Path; from gpuscalp.forest_reader import read_booster;"
        "read_booster(Path(sys.argv[1]).read_bytes());"
        "assert not {'xgboost', 'sklearn', 'pandas'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "booster.json")], check=True)
