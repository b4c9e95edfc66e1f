"""The graph: what a column declares about itself is true, and what cannot be built is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.errors import ConfigError
from gpuscalp.feature_columns import CONTEXT, CYCLES, GROUPS, Cycle
from gpuscalp.features import FeatureGraph
from gpuscalp.ops import context as context_ops
from gpuscalp.ops import ladder as ladder_ops
from gpuscalp.schema import Channel
from tests.ops.test_ladder import random_channels


def graph(*, grid=None, symbols=("BTCUSDT", "X"), **options):
    return FeatureGraph(grid or GridConfig(), FeatureConfig(**options), symbols)


DEFAULT = graph()


def features_of(channels):
    """Return float32[S, F, T] of float32[T, C, S], cold before the first frame."""
    frame_count, channel_count, symbol_count = channels.shape
    halo = ladder_ops.halo(DEFAULT.program)
    out = np.empty((symbol_count, len(DEFAULT), frame_count), np.float32)
    scratch = ladder_ops.batch_scratch(DEFAULT.program, 4096)
    padded = np.full((symbol_count, channel_count, halo + frame_count), np.nan, np.float32)
    padded[:, :, halo:] = channels.transpose(2, 1, 0)
    ladder_ops.batch(DEFAULT.program, padded, 0, frame_count, 4096, scratch, out)
    context_ops.context(DEFAULT.context, np.arange(frame_count, dtype=np.int64) * 10**9, out)
    return out


def test_about_two_hundred_columns_each_named_once():
    assert 190 <= len(DEFAULT) <= 230
    assert len(set(DEFAULT.names)) == len(DEFAULT)


def test_every_column_says_what_it_is():
    for column in DEFAULT.columns:
        assert column.unit, column.name
        assert column.source, column.name
        assert column.warm_up >= column.window >= 1, column.name
        assert str(column.window) in column.name or column.window in (1, 512), column.name


def test_warm_up_is_when_a_column_is_there_at_the_latest(rng):
    channels = random_channels(rng, 600, 2)
    channels[0, Channel.RETURN_BPS] = np.nan  # as the fold makes them after the first quote
    channels[:2, Channel.LAGGED_RETURN_BPS] = np.nan
    features = features_of(channels)
    for at, column in enumerate(DEFAULT.columns):
        known = ~np.isnan(features[:, at]).any(axis=0)
        first = int(np.argmax(known)) + 1
        assert known.any(), column.name
        assert column.window <= first, f"{column.name}: a window that is not full has a value"
        # A ratio may have nothing to divide by for a while; what is not a ratio is there on time.
        if column.unit not in ("ratio", "sigma", "cycles/frame") and "spectrum" not in column.name:
            assert first <= column.warm_up, column.name


def test_window_is_exactly_what_a_column_looks_back_over(rng):
    """Change one frame: the columns whose window has left it behind keep their bits, the others do not."""
    channels = random_channels(rng, 1_200, 2)
    channels[:, Channel.RETURN_BPS] = rng.standard_normal((1_200, 2))  # no flat stretches
    channels[:, Channel.LAGGED_RETURN_BPS] = rng.standard_normal((1_200, 2))
    changed, at = channels.copy(), 600
    changed[at] += 1.0
    before, after = features_of(channels), features_of(changed)
    for index, column in enumerate(DEFAULT.columns):
        different = np.flatnonzero((before[:, index] != after[:, index]).any(axis=0))
        if column.name.startswith("time."):
            assert len(different) == 0
            continue
        different = different[~np.isnan(before[:, index, different]).any(axis=0)]
        assert len(different), f"{column.name} did not react"
        assert different.min() >= at, f"{column.name} saw the future"
        assert different.max() < at + column.window, f"{column.name} looks back further than it says"
        # The oldest frame has little weight in a spectrum or a decay, and is seldom an extreme.
        faint = any(part in column.name for part in (".spectrum.", ".ewm.", ".macd.", ".range_"))
        reach = 0.1 if faint else 0.8
        assert different.max() >= at + int(column.window * reach) - 1, (
            f"{column.name} does not use its window"
        )


def test_hash_changes_with_everything_that_changes_a_number():
    hashes = {
        DEFAULT.hash,
        graph(grid=GridConfig(frame_ms=50)).hash,
        graph(grid=GridConfig(lateness_ms=21)).hash,
        graph(leader="X").hash,
        graph(drop=("time.*",)).hash,
        FeatureGraph(GridConfig(), FeatureConfig(), groups=GROUPS[::-1]).hash,
        FeatureGraph(GridConfig(), FeatureConfig(), cycles=(Cycle("time.x", 60, 1, "sin"),)).hash,
    }
    assert len(hashes) == 7


def test_hash_does_not_change_with_the_symbols():
    assert graph(symbols=("A", "B", "C")).hash == DEFAULT.hash


def test_hash_is_the_same_in_another_process():
    code = (
        "from gpuscalp.config import *; from gpuscalp.features import FeatureGraph;"
        "print(FeatureGraph(GridConfig(), FeatureConfig()).hash)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == DEFAULT.hash


def test_dropped_columns_are_gone_and_the_others_keep_their_order():
    part = graph(drop=("return.spectrum.*", "time.*"))
    gone = {name for name in DEFAULT.names if name.startswith(("return.spectrum.", "time."))}
    assert gone
    assert part.names == tuple(name for name in DEFAULT.names if name not in gone)


def test_dropping_a_source_of_a_column_that_stays_is_refused():
    with pytest.raises(ConfigError, match="is made from price.move.8, which is dropped") as caught:
        graph(drop=("price.move.8",))
    assert caught.value.where == "features.drop"


def test_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match="matches no column"):
        graph(drop=("no.such.*",))


def test_keeping_the_clock_alone_is_refused():
    """It used to end in an error of NumPy's, in the first chunk."""
    market = tuple(name for name in graph().names if not name.startswith("time."))
    with pytest.raises(ConfigError, match="no column is left that is made from the market") as caught:
        graph(drop=market)
    assert caught.value.where == "features.drop"


def test_dropping_everything_is_refused():
    with pytest.raises(ConfigError, match="no column is left that is made from the market"):
        graph(drop=("*",))


def test_unknown_column_names_the_nearest():
    with pytest.raises(ConfigError, match="no such column") as caught:
        DEFAULT.index("price.moves.8")
    assert "price.move.8" in caught.value.fix


def test_warm_up_of_the_graph_is_that_of_its_longest_column():
    assert DEFAULT.warm_up_frames == max(column.warm_up for column in DEFAULT.columns) == 514


def test_context_columns_take_unit_and_window_from_their_source():
    by_name = {column.name: column for column in DEFAULT.columns}
    for item in CONTEXT:
        made, source = by_name[item.name], by_name[item.source]
        assert (made.unit, made.window, made.warm_up) == (source.unit, source.window, source.warm_up)
    assert [cycle.name for cycle in CYCLES] == list(DEFAULT.names[-len(CYCLES) :])
