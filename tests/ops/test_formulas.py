"""Formulas on the CPU against Python's own reading of them: NumPy in float32, operator by operator."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.errors import ConfigError
from gpuscalp.feature_formulas import FormulaBuilder
from gpuscalp.ops.formula_program import STACK
from gpuscalp.ops.formulas import _TILE, formulas

NAMES = ("a.x", "b.last", "c_d.mean.8", "e.macd.8_32")
_KNOWN = {"min": np.minimum, "max": np.maximum, "abs": np.abs, "sqrt": np.sqrt}


def oracle(text, values):
    """Evaluate by Python, each column an array of NumPy and each number a float32."""
    variables = {f"v{at}": values[name] for at, name in enumerate(values)}
    for at, name in sorted(enumerate(values), key=lambda item: -len(item[1])):
        text = text.replace(name, f"v{at}")
    text = re.sub(r"(?<![\w.])\d[\d.]*(?:e-?\d+)?", lambda number: f"f32({number[0]})", text)
    with np.errstate(all="ignore"):
        found = eval(text, {"__builtins__": {}}, {**_KNOWN, **variables, "f32": np.float32})
    return np.where(np.isfinite(found), found, np.float32(np.nan)).astype(np.float32)


def computed(texts, features):
    """Return the columns of formulas over float32[S, len(NAMES), T], appended to them."""
    builder = FormulaBuilder(NAMES)
    for at, text in enumerate(texts):
        builder.add(len(NAMES) + at, text)
    symbols, _, frames = features.shape
    out = np.full((symbols, len(NAMES) + len(texts), frames), 77, np.float32)
    out[:, : len(NAMES)] = features
    formulas(builder.program(), out)
    assert np.array_equal(out[:, : len(NAMES)], features, equal_nan=True), "a formula wrote elsewhere"
    return out[:, len(NAMES) :]


def awkward(rng, shape):
    """Normal numbers with missing ones, zeros of both signs, denormals and numbers that overflow."""
    values = rng.standard_normal(shape).astype(np.float32)
    for special in (np.nan, 0.0, -0.0, 1e-42, 3e38, -3e38):
        values[rng.random(shape) < 0.05] = special
    return values


def assert_as_python(texts, features):
    found = computed(texts, features)
    for symbol in range(len(features)):
        values = dict(zip(NAMES, features[symbol], strict=True))
        for at, text in enumerate(texts):
            wanted = np.broadcast_to(oracle(text, values), found[symbol, at].shape)
            same = found[symbol, at].view(np.uint32) == np.ascontiguousarray(wanted).view(np.uint32)
            same |= np.isnan(found[symbol, at]) & np.isnan(wanted)
            # Which of two equal zeros a minimum returns is NumPy's affair.
            same |= (found[symbol, at] == wanted) & bool(re.search("min|max", text))
            assert same.all(), text


_NUMBERS = st.sampled_from(["0", "2", "0.1", "1e-3", "3.5e10"])
_TEXTS = st.recursive(
    st.one_of(st.sampled_from(NAMES), _NUMBERS),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda p: f"{p[0]}({p[1]}, {p[2]})"),
        st.tuples(st.sampled_from(["abs", "sqrt", "-"]), inner).map(lambda p: f"{p[0]}({p[1]})"),
    ),
    max_leaves=7,
)


@given(st.lists(_TEXTS.filter(lambda text: any(name in text for name in NAMES)), min_size=1, max_size=3))
def test_formula_is_what_python_makes_of_it(texts):
    assert_as_python(texts, awkward(np.random.default_rng(5), (2, len(NAMES), 70)))


@pytest.mark.parametrize("frames", [0, 1, _TILE - 1, _TILE, _TILE + 1, 2 * _TILE + 3])
def test_number_of_frames_does_not_matter(rng, frames):
    texts = ["a.x / (b.last - c_d.mean.8)", "max(-a.x, sqrt(b.last)) * 0.5"]
    assert_as_python(texts, awkward(rng, (3, len(NAMES), frames)))


def test_operators_bind_as_in_python(rng):
    texts = ["a.x - b.last - a.x * 2", "-a.x + b.last / 3 / a.x", "a.x-(b.last-a.x)", "2e0*e.macd.8_32-1.5"]
    assert_as_python(texts, awkward(rng, (1, len(NAMES), 50)))


def test_each_operation_is_rounded_to_float32():
    features = np.zeros((1, len(NAMES), 1), np.float32)
    features[0, 0], features[0, 1] = 16_777_216.0, 1.0
    both, again = computed(["a.x + b.last - a.x", "a.x * 1.0000001 - a.x"], features).ravel()
    assert both == 0.0  # 2^24 + 1 is no float32
    assert again == np.float32(2.0)


@pytest.mark.parametrize("text", ["a.x / b.last", "sqrt(a.x)", "a.x * 1e30 * 1e30", "min(a.x, c_d.mean.8)"])
def test_what_is_not_finite_is_missing(text):
    features = np.full((1, len(NAMES), 1), np.nan, np.float32)
    features[0, 0], features[0, 1] = -2.0, 0.0
    assert np.isnan(computed([text], features)).all()


def test_infinity_on_the_way_may_be_bounded():
    features = np.zeros((1, len(NAMES), 1), np.float32)
    features[0, 0] = 2.0
    assert computed(["min(a.x / b.last, 10)"], features).item() == 10.0


def test_no_formula_nothing_is_written():
    features = np.full((1, len(NAMES), 3), 5, np.float32)
    formulas(FormulaBuilder(NAMES).program(), features)
    assert (features == 5).all()


def test_columns_that_are_read_are_told():
    assert FormulaBuilder(NAMES).add(4, "e.macd.8_32 + a.x * e.macd.8_32") == (0, 3)


@pytest.mark.parametrize("deep", [STACK, STACK + 1])
def test_formula_needs_no_more_than_the_stack(deep, rng):
    text = "(a.x+" * (deep - 1) + "b.last" + ")" * (deep - 1)
    if deep <= STACK:
        assert_as_python([text], awkward(rng, (1, len(NAMES), 20)))
    else:
        with pytest.raises(ConfigError, match="more than 8 values wait"):
            FormulaBuilder(NAMES).add(4, text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not a formula"),
        ("3", "reads no column"),
        ("a.x +", "not a formula"),
        ("a.x b.last", "knows nothing of this kind"),
        ("a.x[0]", "not a formula"),
        ("[0]", "not a formula"),
        ("a.y", "a.y is not among the columns"),
        ("log(a.x)", "knows nothing of this kind"),
        ("min(a.x)", "knows nothing of this kind"),
        ("sqrt(a.x, a.x)", "knows nothing of this kind"),
        ("min(a.x, b=a.x)", "knows nothing of this kind"),
        ("a.x.real", "not among the columns"),
        ("a.x ** 2", "knows nothing of this kind"),
        ("a.x < 2", "knows nothing of this kind"),
        ("a.x if True else 1", "knows nothing of this kind"),
        ("True * a.x", "knows nothing of this kind"),
        ("'x' + a.x", "knows nothing of this kind"),
        ("2j * a.x", "knows nothing of this kind"),
        ("__import__('os').system('true') + a.x", "knows nothing of this kind"),
        ("a.x * 1e39", "float32 does not hold"),
        ("a.x / 1e-46", "float32 does not hold"),
        ("a.x # twice * 2", "not a formula"),
        (f"a.x * 1{'0' * 400}", "not a formula"),
        ("-" * 490 + "a.x", "not a formula"),
        ("(" * 240 + "a.x" + ")" * 240, "not a formula"),
        ("a.x" + "+a.x" * 200, "at most 500 characters"),
        ("a.x + \x00", "not a formula"),
    ],
)
def test_what_is_no_formula_is_refused(text, what):
    with pytest.raises(ConfigError, match=what) as caught:
        FormulaBuilder(NAMES).add(4, text)
    assert caught.value.where == "features.add"
    assert caught.value.fix
