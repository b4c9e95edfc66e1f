"""Objects as bytes and back: the same values, the same sharing, and nothing that is not ours."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp import object_graph
from gpuscalp.account import Account
from gpuscalp.config import PaperConfig
from gpuscalp.errors import DataError, ShapeError
from gpuscalp.execution.latency import legs
from gpuscalp.feeds.merge import Passed
from gpuscalp.feeds.messages import Trade
from gpuscalp.orders import Intent, IntentKind
from gpuscalp.schema import TICK

_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


def again(value: Any, **external: object) -> Any:
    return object_graph.decode(object_graph.encode(value, external=external), external=external)


@given(_PLAIN)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    found = again(value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        [1, 2**63 - 1, -(2**63)],
        [1, 2**63],
        [1, True, 2.0],
        [0.5, -0.0, float("inf")],
        {1, 2, 3},
        frozenset({"a", "b"}),
        deque([1, 2], maxlen=5),
        Counter(a=2),
        bytearray(b"abc"),
        (1 << 70, -(1 << 65)),
        IntentKind.EXIT,
        Trade("BTCUSDT", 1, 2, 3, 4, -1, aggregate=False, market=True),
        Intent(0, 1, IntentKind.ENTER, None, "edge", 0.5, 1.0, 2.0, 3.0),
        Passed(1, "2", gap=True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_containers_and_records_keep_their_kind(value: Any) -> None:
    found = again(value)
    assert found == value
    assert type(found) is type(value)
    assert getattr(found, "maxlen", None) == getattr(value, "maxlen", None)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint32, np.bool_, TICK])
def test_arrays_keep_every_bit(dtype: Any, rng: np.random.Generator) -> None:
    size = np.dtype(dtype).itemsize
    raw = rng.integers(0, 2 if dtype is np.bool_ else 256, (3, 4, size)).astype(np.uint8)
    array = raw.view(dtype).reshape(3, 4)
    found = again(array)
    assert found.tobytes() == array.tobytes()
    assert (found.dtype, found.shape, found.flags.writeable) == (array.dtype, array.shape, True)


def test_object_that_two_know_is_one_object_again() -> None:
    account = Account(100, 2)
    first, second, other = again([account, account, {"here": account.positions[0]}])
    assert first is second
    assert other["here"] is first.positions[0]
    first.positions[0].qty_e8 = 7
    assert other["here"].qty_e8 == 7


def test_circle_comes_back_as_a_circle() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    found = again(ring)
    assert found[1] is found


def test_random_numbers_go_on_where_they_were() -> None:
    leg, _ = legs(PaperConfig().request, PaperConfig().reply, 3)
    uniform = msgspec.structs.replace(PaperConfig().request, kind="uniform", low_ms=1.0, high_ms=9.0)
    leg, _ = legs(uniform, uniform, 3)
    for _ in range(1_500):
        leg.draw_ns()
    copy = again(leg)
    assert [leg.draw_ns() for _ in range(3_000)] == [copy.draw_ns() for _ in range(3_000)]


def test_bound_method_belongs_to_the_new_object() -> None:
    account = Account(100, 1)
    found, method = again((account, account.apply_fill))
    assert method.__self__ is found
    method(0, 10**8, 5 * 10**8, 0)
    assert found.positions[0].qty_e8 == 10**8


def test_external_object_is_the_reader_s_own() -> None:
    config = PaperConfig()
    data = object_graph.encode([config, config], external={"config": config})
    mine = PaperConfig(seed=9)
    assert object_graph.decode(data, external={"config": mine}) == [mine, mine]
    assert object_graph.decode(data, external={"config": mine})[0] is mine


def test_part_of_another_array_is_refused_with_its_place() -> None:
    """Restored, the two would no longer be the same memory: a state that silently comes apart."""
    whole = np.zeros(10)
    with pytest.raises(ShapeError, match="part of another array") as caught:
        object_graph.encode({"a": [whole, whole[:5]]})
    assert caught.value.where is not None


class _Colour(Enum):
    RED = 1


@dataclass
class _Foreign:
    held: list[int] = field(default_factory=list)


@pytest.mark.parametrize(
    "value",
    [_Foreign(), _Colour.RED, lambda: 1, open, object(), iter([]), ValueError()],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_ours_is_refused(value: Any) -> None:
    with pytest.raises(ShapeError, match="cannot be written"):
        object_graph.encode([value])


@pytest.mark.parametrize(
    "node",
    [
        ["o", 0, "os:system", [], []],
        ["o", 0, "gpuscalp.account:Account.apply_fill", [], []],
        ["o", 0, "gpuscalp.nowhere:Thing", [], []],
        ["u", 0, "subprocess:Popen", []],
        ["e", "signal:Signals", "SIGKILL"],
        # By way of what a module of ours has imported, or of the class of something in it.
        ["u", 0, "gpuscalp.live.retrainer:subprocess.Popen", [["args", ["l", 1, ["false"]]]]],
        ["o", 0, "gpuscalp.live.market:Batcher", [], []],
        ["o", 0, "gpuscalp.feeds.binance:re.Pattern", [], []],
        ["u", 0, "gpuscalp.live.market:np.ndarray", [["shape", 1]]],
        ["e", "gpuscalp.trader:IntentKind", "EXIT"],
        ["o", 0, "gpuscalp.account:Account.__class__", [], []],
        # Of ours, and no part of a session's state.
        ["o", 0, "gpuscalp.live.checkpoints:Checkpoints", [], []],
        ["o", 0, "gpuscalp.errors:DataError", [], []],
        # Of another kind than the bytes say.
        ["u", 0, "gpuscalp.account:Account", [["start_e8", 1], ["symbol_count", 1]]],
        ["n", "gpuscalp.account:Account", []],
        ["e", "gpuscalp.account:Account", "EXIT"],
        ["o", 0, "gpuscalp.orders:IntentKind", [], []],
        # What is no method, and what is no attribute.
        ["m", ["l", 0, []], "append"],
        ["m", ["o", 0, "gpuscalp.account:Account", [], []], "__class__"],
        ["m", ["o", 0, "gpuscalp.execution.display:Display", [], []], "last_e8"],
        ["o", 0, "gpuscalp.execution.display:Display", ["last_e8", 5], []],
        ["o", 0, "gpuscalp.account:Account", ["__class__", 5], []],
        # Memory that the bytes only speak of.
        ["b", 0, 1 << 20],
        ["a", 0, "|u1", [1 << 20], 1 << 20],
        ["a", 0, "|O", [1], bytes(8)],
        ["v", "|O", bytes(8)],
        ["@", 5],
        ["?", 0],
        ["x", "nobody"],
    ],
    ids=str,
)
def test_bytes_that_name_something_else_are_refused(node: Any) -> None:
    with pytest.raises(DataError, match="not a graph"):
        object_graph.decode(msgspec.msgpack.encode(node))


@pytest.mark.parametrize("data", [b"\xc1\x00", b"\x91" * 100_000 + b"\xc0"], ids=["none", "deep"])
def test_bytes_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="not a graph"):
        object_graph.decode(data)
