"""Leader, cross-sectional and time columns, and the transpose: against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.feature_columns import CYCLES, Context
from gpuscalp.feature_names import Group, Output
from gpuscalp.features import FeatureGraph
from gpuscalp.ops import context as context_ops
from gpuscalp.ops.ladder_codes import Op, Stat
from gpuscalp.schema import NS_PER_S, Channel
from tests import naive
from tests.host_shim.same_bits import assert_same_bits

GROUPS = tuple(
    Group(Op.MOMENTS, "test", (Output(name, "", Stat.LAST),), Channel.RETURN_BPS) for name in ("a", "b")
)
CONTEXT = (
    Context("leader", "leader.a", "a"),
    Context("mean", "market.b", "b"),
    Context("relative", "relative.b", "b"),
    Context("relative", "relative.a", "a"),
)


def graph(symbols=("BTCUSDT", "X", "Y"), cycles=CYCLES):
    return FeatureGraph(GridConfig(), FeatureConfig(), symbols, groups=GROUPS, context=CONTEXT, cycles=cycles)


def features(rng, made, symbol_count, frame_count):
    values = rng.normal(size=(symbol_count, len(made), frame_count)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    return values


@pytest.mark.parametrize("symbols", [("X", "BTCUSDT", "Y"), ("X", "Y"), ("BTCUSDT",)])
@pytest.mark.parametrize("frame_count", [0, 1, 33])
def test_columns_across_symbols_are_the_plain_loops(symbols, frame_count, rng):
    made = graph(symbols)
    values = features(rng, made, len(symbols), frame_count)
    before = values.copy()
    context_ops.context(made.context, np.arange(frame_count, dtype=np.int64), values)

    a, b = made.index("a"), made.index("b")
    assert_same_bits(values[:, [a, b]], before[:, [a, b]], "the sources")
    leader = symbols.index("BTCUSDT") if "BTCUSDT" in symbols else None
    for frame in range(frame_count):
        for source, mean_name in ((b, "market.b"), (a, None)):
            column = before[:, source, frame]
            known = column[~np.isnan(column)]
            mean = np.float32(math.nan)
            if len(known):
                total = np.float32(0.0)
                for value in known:
                    total = np.float32(total + value)
                mean = np.float32(total / np.float32(len(known)))
            if mean_name:
                wanted = np.full(len(symbols), mean, np.float32)
                assert_same_bits(values[:, made.index(mean_name), frame].copy(), wanted, mean_name)
            relative = values[:, made.index("relative.b" if source == b else "relative.a"), frame]
            assert_same_bits(relative.copy(), column - mean, "relative")
    wanted = (
        np.full_like(before[:, a], np.nan)
        if leader is None
        else np.tile(before[leader, a], (len(symbols), 1))
    )
    assert_same_bits(values[:, made.index("leader.a")].copy(), wanted, "leader.a")


def test_time_columns_follow_the_clock_over_two_weeks(rng):
    made = graph()
    end_ns = np.sort(rng.integers(0, 14 * 86_400, 5_000)) * NS_PER_S + 1_721_347_000 * NS_PER_S + 7
    values = np.zeros((3, len(made), len(end_ns)), np.float32)
    context_ops.context(made.context, end_ns, values)
    for cycle in CYCLES:
        exact = naive.clock(cycle.name.removeprefix("time."), end_ns)
        got = values[:, made.index(cycle.name)]
        assert np.abs(got - exact).max() <= 6e-7, cycle.name  # the table is rounded to 1e-6


@pytest.mark.parametrize(
    ("name", "second", "value"),
    [
        ("time.hour_cos", 0, 1.0),
        ("time.hour_sin", 900, 1.0),
        ("time.day_sin", 6 * 3600 + 59, 1.0),  # steps of a minute
        ("time.day_sin", 6 * 3600 + 60, 0.99999),
        ("time.to_funding", 8 * 3600, 1.0),
        ("time.to_funding", 12 * 3600, 0.5),
        ("time.to_funding", 16 * 3600 - 1, 1 / 28_800),
    ],
)
def test_time_columns_at_known_instants(name, second, value):
    made = graph()
    values = np.zeros((3, len(made), 1), np.float32)
    context_ops.context(made.context, np.array([second * NS_PER_S]), values)
    assert values[0, made.index(name), 0] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 214])
@pytest.mark.parametrize("symbols", [1, 15, 16, 17, 33])
def test_transpose_moves_every_element(rows, symbols, rng):
    values = rng.normal(size=(rows, symbols)).astype(np.float32)
    out = np.full((symbols, rows), 77, np.float32)
    context_ops.transpose(values, out)
    assert_same_bits(out, np.ascontiguousarray(values.T))
