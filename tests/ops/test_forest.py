"""The forest against a walk in plain Python, bit for bit, and what it refuses."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.errors import MemberError, ShapeError
from gpuscalp.ops.forest import TILE_ROWS, WALK_ROWS_MAX, Forest, ForestScratch, predict_margins
from tests.host_shim.same_bits import assert_same_bits
from tests.ops.forests import random_forest, random_rows, walk
from tests.thorough import examples

# At, below and over the edges between the two kernels, of a vector, and of a tile.
ROW_COUNTS = (
    0,
    1,
    WALK_ROWS_MAX,
    WALK_ROWS_MAX + 1,
    7,
    8,
    63,
    64,
    65,
    TILE_ROWS - 1,
    TILE_ROWS,
    TILE_ROWS + 1,
)


def predict(forest: Forest, x: np.ndarray) -> np.ndarray:
    out = np.full((forest.member_count, len(x), forest.class_count), 77, np.float32)
    predict_margins(forest, x, out=out, scratch=ForestScratch.of(forest))
    return out


@pytest.fixture
def forest(rng) -> Forest:
    """A small one with every kind of tree: a single leaf, padded, perfect, linked."""
    return random_forest(rng, depths=[0, 1, 2, 3, 4, 6, 8, 9, 11])


@pytest.mark.parametrize("row_count", ROW_COUNTS)
def test_margins_are_those_of_the_plain_walk(rng, forest, row_count):
    x = random_rows(rng, row_count, forest)
    assert_same_bits(predict(forest, x), walk(forest, x), "margins")


@pytest.mark.parametrize("depth", range(13))
@pytest.mark.parametrize("full", [0.3, 1.0])
def test_margins_of_every_depth(rng, depth, full):
    forest = random_forest(rng, depths=[depth] * 4, full=full if depth < 10 else 0.3)
    x = random_rows(rng, 20, forest)
    assert_same_bits(predict(forest, x), walk(forest, x), "margins")
    assert_same_bits(predict(forest, x[:1]), walk(forest, x[:1]), "margins of one row")


@given(seed=st.integers(0, 2**32), depths=st.lists(st.integers(0, 10), max_size=8), rows=st.integers(0, 70))
@settings(max_examples=examples(60))
def test_margins_of_random_forests(seed, depths, rows):
    rng = np.random.default_rng(seed)
    members, classes, features = (int(count) for count in rng.integers(1, 4, 3))
    forest = random_forest(
        rng, depths=depths, member_count=members, class_count=classes, feature_count=features, full=0.6
    )
    x = random_rows(rng, rows, forest)
    assert_same_bits(predict(forest, x), walk(forest, x), "margins")


def test_a_row_does_not_depend_on_the_other_rows(rng, forest):
    x = random_rows(rng, 200, forest)
    whole = predict(forest, x)
    for start, stop in ((0, 1), (1, 4), (4, 12), (12, 76), (76, 77), (77, 200)):
        assert_same_bits(predict(forest, x[start:stop]), whole[:, start:stop], f"{start}:{stop}")


def test_leaves_are_added_in_the_order_of_the_trees(rng):
    """2²⁴ swallows a 1 that is added to it; only the order tells these apart."""
    leaves = {"left": [-1] * 4, "right": [-1] * 4, "feature": [0] * 4}
    for values, total in (([2**24, 1, 1, -(2**24)], 0), ([1, 1, 2**24, -(2**24)], 2)):
        forest = Forest(
            **{name: np.array(entries, np.int32) for name, entries in leaves.items()},
            value=np.array(values, np.float32),
            default_left=np.zeros(4, bool),
            tree_start=np.arange(5),
            tree_member=np.zeros(4, np.int32),
            tree_class=np.zeros(4, np.int32),
            base=np.zeros((1, 1), np.float32),
            objective="reg:squarederror",
            feature_count=1,
        )
        for row_count in (1, 9):
            assert (predict(forest, np.zeros((row_count, 1), np.float32)) == total).all()


def test_inputs_stay_as_they_were_and_may_be_read_only(rng, forest):
    x = random_rows(rng, 70, forest)
    before = x.copy()
    x.flags.writeable = False
    stored = {name: array.copy() for name, array in forest.arrays().items()}
    predict(forest, x)
    assert_same_bits(x, before, "x")
    assert not x.flags.writeable
    for name, array in forest.arrays().items():
        assert np.array_equal(array, stored[name]), name


def test_forest_copies_its_arrays_and_cannot_be_written(rng, forest):
    arrays = {name: array.copy() for name, array in forest.arrays().items()}
    copied = Forest.from_arrays(arrays)
    arrays["value"][:] = 0
    assert_same_bits(copied.value, forest.value, "value")
    with pytest.raises(ValueError, match="read-only"):
        copied.value[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        copied.packed.leaves[0] = 1


def test_threads_share_a_forest(rng, forest):
    x = random_rows(rng, 150, forest)
    wanted = predict(forest, x)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: predict(forest, x), range(32)):
            assert_same_bits(got, wanted, "margins")


@pytest.mark.parametrize("row_count", [1, 64, 256])
def test_prediction_allocates_no_arrays(rng, forest, row_count):
    x = random_rows(rng, row_count, forest)
    out = np.empty((forest.member_count, row_count, forest.class_count), np.float32)
    scratch = ForestScratch.of(forest)
    predict_margins(forest, x, out=out, scratch=scratch)
    tracemalloc.start()
    try:
        predict_margins(forest, x, out=out, scratch=scratch)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        predict_margins(forest, x, out=out, scratch=scratch)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # Views and descriptors of the call, the same for any number of rows.
    assert peak < 8192


@pytest.mark.parametrize(
    ("x", "out"),
    [
        (np.zeros((3, 4), np.float32), np.zeros((2, 3, 3), np.float32)),
        (np.zeros((3, 5), np.float64), np.zeros((2, 3, 3), np.float32)),
        (np.zeros((5, 3), np.float32).T, np.zeros((2, 3, 3), np.float32)),
        (np.zeros(5, np.float32), np.zeros((2, 1, 3), np.float32)),
        (np.zeros((3, 5), np.float32), np.zeros((2, 4, 3), np.float32)),
        (np.zeros((3, 5), np.float32), np.zeros((2, 3, 3), np.float64)),
        (np.zeros((3, 5), np.float32), np.zeros((2, 3, 6), np.float32)[:, :, ::2]),
        (np.zeros((3, 5), np.float32), np.broadcast_to(np.float32(0), (2, 3, 3))),
    ],
)
def test_arrays_of_another_form_are_refused(forest, x, out):
    with pytest.raises(ShapeError):
        predict_margins(forest, x, out=out, scratch=ForestScratch.of(forest))


def test_read_only_out_is_refused(forest):
    out = np.zeros((2, 3, 3), np.float32)
    out.flags.writeable = False
    with pytest.raises(ShapeError, match="read-only"):
        predict_margins(forest, np.zeros((3, 5), np.float32), out=out, scratch=ForestScratch.of(forest))


def test_scratch_of_another_forest_is_refused(rng, forest):
    other = random_forest(rng, depths=[2], feature_count=4)
    with pytest.raises(ShapeError, match="scratch"):
        predict_margins(
            forest,
            np.zeros((3, 5), np.float32),
            out=np.zeros((2, 3, 3), np.float32),
            scratch=ForestScratch.of(other),
        )


# Stored form ------------------------------------------------------------------------------------------------


def test_arrays_bring_the_forest_back(rng, forest, tmp_path):
    np.savez(tmp_path / "forest.npz", **forest.arrays())
    with np.load(tmp_path / "forest.npz", allow_pickle=False) as arrays:
        again = Forest.from_arrays(dict(arrays))
    x = random_rows(rng, 70, forest)
    assert_same_bits(predict(again, x), predict(forest, x), "margins")
    assert (again.objective, again.feature_count) == (forest.objective, forest.feature_count)


def test_join_puts_members_one_after_the_other(rng):
    parts = [random_forest(rng, depths=[2, 9, 4], member_count=count) for count in (1, 2, 1)]
    joined = Forest.join(parts)
    x = random_rows(rng, 70, joined)
    assert joined.member_count == 4
    assert_same_bits(predict(joined, x), np.concatenate([predict(part, x) for part in parts]), "margins")


def test_join_refuses_members_of_another_form(rng):
    with pytest.raises(MemberError, match="at least one"):
        Forest.join([])
    with pytest.raises(MemberError, match="differ"):
        Forest.join([random_forest(rng, depths=[1]), random_forest(rng, depths=[1], class_count=2)])


SPOILED = {
    "left of itself": ("left", 0, 0),
    "left of the next tree": ("left", 0, 3),
    "left far away": ("left", 0, 2**31 - 1),
    "left negative": ("left", 0, -2),
    "right without left": ("left", 0, -1),
    "left without right": ("right", 0, -1),
    "right of a leaf": ("right", 1, 2),
    "leaf marked wrongly": ("right", 1, -5),
    "both children the same": ("right", 0, 1),
    "column too large": ("feature", 0, 5),
    "column negative": ("feature", 0, -1),
    "threshold NaN": ("value", 0, np.nan),
    "threshold -inf": ("value", 0, -np.inf),
    "leaf NaN": ("value", 1, np.nan),
    "leaf infinite": ("value", 1, np.inf),
    "start": ("tree_start", 0, 1),
    "start falling": ("tree_start", 1, 7),
    "start wrapping": ("tree_start", 1, -(2**63)),
    "empty tree": ("tree_start", 1, 0),
    "end": ("tree_start", -1, 2**40),
    "member": ("tree_member", -1, 2),
    "member negative": ("tree_member", 0, -1),
    "member order": ("tree_member", 0, 1),
    "class": ("tree_class", 0, 3),
    "class negative": ("tree_class", 0, -1),
    "base": ("base", 0, np.nan),
}


def small_arrays() -> dict[str, np.ndarray]:
    """Two trees: a split with two leaves, then a leaf and a split's three nodes again."""
    return {
        "left": np.array([1, -1, -1, 1, -1, -1], np.int32),
        "right": np.array([2, -1, -1, 2, -1, -1], np.int32),
        "feature": np.array([4, 0, 0, 1, 0, 0], np.int32),
        "value": np.array([0.5, 1, 2, -0.5, 3, 4], np.float32),
        "default_left": np.array([1, 0, 0, 0, 0, 0], bool),
        "tree_start": np.array([0, 3, 6], np.int64),
        "tree_member": np.array([0, 0], np.int32),
        "tree_class": np.array([0, 2], np.int32),
        "base": np.zeros((2, 3), np.float32),
        "objective": np.array("multi:softprob"),
        "feature_count": np.array(5, np.int64),
        "format": np.array(1, np.int64),
    }


def test_small_arrays_are_sound():
    Forest.from_arrays(small_arrays())


@pytest.mark.parametrize(("name", "place", "value"), SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_entry_is_refused(name, place, value):
    arrays = small_arrays()
    arrays[name].reshape(-1)[place] = value
    with pytest.raises(MemberError) as refused:
        Forest.from_arrays(arrays)
    assert refused.value.where.startswith("forest.")
    assert refused.value.exit_code == 8


@pytest.mark.parametrize("name", sorted(small_arrays()))
def test_a_missing_short_or_retyped_array_is_refused(name):
    arrays = small_arrays()
    del arrays[name]
    with pytest.raises(MemberError, match="other arrays"):
        Forest.from_arrays(arrays)
    whole = small_arrays()
    with pytest.raises(MemberError):
        Forest.from_arrays({**whole, name: whole[name].astype("S8" if name == "objective" else np.float16)})
    with pytest.raises(MemberError):
        Forest.from_arrays({**whole, name: whole[name].reshape(-1)[:-1]})
    with pytest.raises(MemberError):
        Forest.from_arrays({**whole, name: np.stack([whole[name]] * 2)[np.newaxis]})


def test_unknown_arrays_formats_and_counts_are_refused():
    whole = small_arrays()
    with pytest.raises(MemberError, match="other arrays"):
        Forest.from_arrays({**whole, "extra": np.zeros(1)})
    with pytest.raises(MemberError, match="format"):
        Forest.from_arrays({**whole, "format": np.array(2, np.int64)})
    for count in (0, -1, 2**40):
        with pytest.raises(MemberError, match="columns"):
            Forest.from_arrays({**whole, "feature_count": np.array(count, np.int64)})
    with pytest.raises(MemberError, match="flag"):
        Forest.from_arrays({**whole, "default_left": np.full(6, 2, np.uint8).view(bool)})
    with pytest.raises(MemberError, match="empty"):
        Forest.from_arrays({**whole, "objective": np.array("")})


@given(seed=st.integers(0, 2**32))
@settings(max_examples=examples(150))
def test_random_damage_is_refused_or_harmless(seed):
    """Whatever a file says, it is refused, or it is a forest that the plain walk agrees with."""
    rng = np.random.default_rng(seed)
    arrays = small_arrays()
    for _ in range(int(rng.integers(1, 4))):
        name = rng.choice(["left", "right", "feature", "tree_start", "tree_member", "tree_class"])
        flat = arrays[name].reshape(-1)
        flat[rng.integers(len(flat))] = rng.integers(-3, 8)
    try:
        forest = Forest.from_arrays(arrays)
    except MemberError:
        return
    x = random_rows(rng, 9, forest)
    assert_same_bits(predict(forest, x), walk(forest, x), "margins")
