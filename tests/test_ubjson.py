"""Files that end the process in which XGBoost reads them are refused; what XGBoost writes is not."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from gpuscalp.boosters import load_booster
from gpuscalp.errors import MemberError
from gpuscalp.ubjson import DEPTH_MAX, read_ubjson
from gpuscalp.xgb import import_xgboost


def length(count):
    return b"L" + struct.pack(">q", count)


NAME = length(1) + b"a"


def objects(depth):
    return b"{" + (NAME + b"{") * (depth - 1) + b"}" * depth


def arrays(depth):
    return b"{" + NAME + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def counted(depth):
    return b"{" + NAME + (b"[#" + length(1)) * (depth - 1) + b"Z" + b"}"


@pytest.mark.parametrize("nested", [objects, arrays, counted])
def test_values_nested_too_deep_are_refused_before_xgboost_sees_them(nested):
    """At 20,000 its parser overflowed the stack: the process was gone, though all digests were right."""
    read_ubjson(nested(DEPTH_MAX), "m")
    for depth in (DEPTH_MAX + 1, 200_000):
        with pytest.raises(MemberError, match="nested more than") as caught:
            load_booster(nested(depth), "m")
        assert caught.value.where == "m"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short"),
        (b"{", "cut short"),
        (b"{" + NAME + b"[", "cut short"),  # XGBoost put nothing after nothing into it, until memory ended
        (b"{" + NAME + b"[#" + length(2**60), "cut short"),
        (b"{" + NAME + b"[$d#" + length(2**62) + b"}", "cut short"),
        (b"{" + NAME + b"S" + length(5) + b"abc}", "cut short"),
        (b"{" + NAME + b"[#" + length(-1) + b"}", "no length at byte"),
        (b"{" + NAME + b"[$S#" + length(0) + b"}", "unknown type"),
        (b"{" + NAME + b"N}", "unknown value"),
        (b"{" + NAME + b"T" + NAME + b"F}", "a second time"),  # XGBoost could take the other one
        (b"{" + length(1) + b"\xffT}", "no booster"),
        (b"{}{}", "belong to it"),
        (b'{"a":' + b"[" * 200_000, "no length at byte"),  # JSON
        (b"[]", "no UBJSON"),
    ],
)
def test_what_is_not_whole_is_refused(data, message):
    with pytest.raises(MemberError, match=message):
        load_booster(data, "m")


def test_every_kind_of_value_is_read():
    values = {
        b"Z": None, b"T": True, b"F": False, b"[]": [], b"{}": {},
        b"i]": 93, b"U\xff": 255, b"I}}": 32125, b"l\xff\xff\xff\xfe": -2,
        b"L" + struct.pack(">q", 2**40): 2**40,
        b"d" + struct.pack(">f", 1.5): 1.5, b"D" + struct.pack(">d", 0.1): 0.1,
        b"S" + length(3) + b"}]{": "}]{", b"[#" + length(0): [], b"[TF[Z]]": [True, False, [None]],
        b"[#" + length(2) + b"{}" + b"T": [{}, True], b"{" + NAME + b"Z}": {"a": None},
    }  # fmt: skip
    for written, value in values.items():
        found = read_ubjson(b"{" + NAME + written + b"}", "m")
        assert found == {"a": value}
        assert type(found["a"]) is type(value)


@pytest.mark.parametrize(
    ("mark", "form"), {"i": "b", "U": "B", "I": "h", "l": "i", "L": "q", "d": "f", "D": "d"}.items()
)
def test_typed_array_is_read_as_numbers_of_its_type(mark, form):
    data = b"[$" + mark.encode() + b"#" + length(3) + struct.pack(f">3{form}", 1, 93, 125)
    found = read_ubjson(b"{" + NAME + data + NAME.replace(b"a", b"b") + b"T}", "m")
    assert found["b"] is True
    assert found["a"].tolist() == [1, 93, 125]
    assert found["a"].dtype == np.dtype(f">{form}" if form != "q" else ">i8")


@pytest.mark.parametrize("objective", ["multi:softprob", "binary:logistic"])
def test_booster_of_many_trees_is_read_and_no_beginning_of_it(rng, objective):
    xgboost = import_xgboost()
    x = rng.standard_normal((300, 7)).astype(np.float32)
    target = rng.integers(0, 3 if objective.startswith("multi") else 2, len(x))
    params = {"objective": objective, "max_depth": 2, "nthread": 1}
    rounds = 2_000
    if objective.startswith("multi"):
        params["num_class"], rounds = 3, 667
    matrix = xgboost.QuantileDMatrix(x, target, feature_names=[f"column {index}" for index in range(7)])
    booster = xgboost.train(params, matrix, rounds)
    data = bytes(booster.save_raw("ubj"))
    again = load_booster(data, "m")
    assert bytes(again.save_raw("ubj")) == data
    for end in rng.integers(0, len(data), 20):
        with pytest.raises(MemberError, match="cut short"):
            read_ubjson(data[:end], "m")
