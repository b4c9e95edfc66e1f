"""``features.add``: columns by name and by formula, with the same promises as the default ones."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.errors import ConfigError
from gpuscalp.excerpt import Excerpt
from gpuscalp.feature_columns import GROUPS
from gpuscalp.feature_names import group_of
from gpuscalp.features import FeatureGraph
from gpuscalp.ops import context as context_ops
from gpuscalp.ops import ladder as ladder_ops
from gpuscalp.ops.formulas import formulas
from gpuscalp.parity import check_parity
from gpuscalp.schema import Channel
from tests import naive
from tests.ops.test_ladder import random_channels
from tests.random_ticks import instruments, random_ticks

# A column of every family that no default column has, at windows of their own.
COLUMNS = (
    "quote_count.std.16",
    "largest_kusdt.mean.64",
    "spread_bps.min.4",
    "depth5_imbalance.max.64",
    "microprice_bps.zscore.16",
    "price.move.16",
    "price.slope.4",
    "price.residual_std.64",
    "price.rsi.4",
    "flow.toxicity.16",
    "price.volatility.2",
    "flow.impact.16",
    "price.autocorrelation.64",
    "flow_kusdt.ewm.5",
    "flow_kusdt.macd.5_20",
    "return_bps.ewm.16",
    "ofi.spectrum.centroid.32",
    "ofi.spectrum.band2.32",
    "leader.price.slope.4",
    "market.flow.toxicity.16",
    "relative.quote_count.std.16",
)
FORMULAS = (
    "my.pressure = ofi_kusdt.mean.8 / quote_count.std.16",
    "my.pull = max(queue_imbalance.last, 0) * flow.toxicity.16 - market.flow.toxicity.16",
)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "X")


def graph(*add, symbols=SYMBOLS, **options):
    return FeatureGraph(GridConfig(), FeatureConfig(add=add, **options), symbols)


def features_of(made, channels):
    """Return float32[S, F, T] of float32[T, C, S], cold before the first frame."""
    frame_count, channel_count, symbol_count = channels.shape
    halo = ladder_ops.halo(made.program)
    out = np.empty((symbol_count, len(made), frame_count), np.float32)
    padded = np.full((symbol_count, channel_count, halo + frame_count), np.nan, np.float32)
    padded[:, :, halo:] = channels.transpose(2, 1, 0)
    scratch = ladder_ops.batch_scratch(made.program, 4096)
    ladder_ops.batch(made.program, padded, 0, frame_count, 4096, scratch, out)
    context_ops.context(made.context, np.arange(frame_count, dtype=np.int64) * 10**9, out)
    formulas(made.formulas, out)
    return out


def test_added_columns_are_what_their_names_say(rng):
    """Against the oracle, which takes a column from its name alone."""
    made = graph(*COLUMNS)
    channels = random_channels(rng, 700, len(SYMBOLS))
    found = features_of(made, channels)
    end_ns = np.arange(700, dtype=np.int64) * 10**9
    wanted = naive.columns(COLUMNS, channels, end_ns, 0)
    for at, name in enumerate(COLUMNS):
        values = found[:, made.index(name)].astype(np.float64)
        assert np.array_equal(np.isnan(values), np.isnan(wanted[:, at])), name
        largest = np.nanmax(np.abs(wanted[:, at]))
        assert largest > 0, name
        assert np.nanmax(np.abs(values - wanted[:, at])) < 1e-5 * largest, name


def test_default_columns_keep_their_bits_and_their_order(rng):
    channels = random_channels(rng, 600, len(SYMBOLS))
    plain, more = graph(), graph(*COLUMNS, *FORMULAS)
    kept = [name for name in more.names if name in plain.names]
    assert kept == list(plain.names)
    before, after = features_of(plain, channels), features_of(more, channels)
    at = [more.index(name) for name in plain.names]
    assert np.array_equal(before.view(np.uint32), np.ascontiguousarray(after[:, at]).view(np.uint32))


def test_formula_reads_added_columns_and_waits_for_them(rng):
    made = graph(*COLUMNS, *FORMULAS)
    assert made.names[-2:] == ("my.pressure", "my.pull")
    column = made.columns[-2]
    assert (column.window, column.warm_up) == (16, 16)
    assert column.source == "ofi_kusdt.mean.8 / quote_count.std.16"
    found = features_of(made, random_channels(rng, 100, len(SYMBOLS)))
    top, bottom = (found[:, made.index(name)] for name in ("ofi_kusdt.mean.8", "quote_count.std.16"))
    with np.errstate(all="ignore"):
        ratio = top / bottom
    assert np.isfinite(ratio).any()
    wanted = np.where(np.isfinite(ratio), ratio, np.float32(np.nan))
    assert np.array_equal(found[:, made.index("my.pressure")], wanted, equal_nan=True)


def test_column_shares_the_work_of_its_family():
    groups = len(graph().program.groups)
    assert len(graph("return_bps.mean.16", "price.slope.64", "return_bps.ewm.16").program.groups) == groups
    assert len(graph("spread_bps.max.16", "spread_bps.min.16").program.groups) == groups + 1


def test_every_default_name_is_one_of_the_scheme():
    for group in GROUPS:
        for output in group.outputs:
            found = group_of(output.name)
            assert found is not None
            assert (found.op, found.x, found.y) == (group.op, group.x, group.y)
            (same,) = found.outputs
            assert (same.name, same.unit, same.stat, same.window) == (
                output.name,
                output.unit,
                output.stat,
                output.window,
            )


def test_hash_changes_with_every_addition():
    made = [
        graph(),
        graph("price.slope.64"),
        graph("price.slope.16"),
        graph("my.a = price.slope.8 * 2"),
        graph("my.a = price.slope.8 * 3"),
        graph("my.b = price.slope.8 * 2"),
    ]
    assert len({each.hash for each in made}) == len(made)
    assert graph("my.a = price.slope.8   *  2").hash == made[3].hash


def test_everything_else_may_be_dropped():
    assert graph("price.slope.64", "my.a = price.slope.64 * 2", drop=("*",)).names == (
        "price.slope.64",
        "my.a",
    )


def test_column_that_is_there_stays_as_it_is():
    assert graph("price.slope.8", "leader.price.move.8").hash == graph().hash
    assert graph("price.slope.64", "price.slope.64").hash == graph("price.slope.64").hash


@pytest.mark.parametrize("entry", ["price.move.8", " price.move.8 "])
def test_dropped_column_may_be_added_again(entry):
    made = graph(entry, drop=("price.*", "leader.price*", "market.*", "relative.*"))
    assert [name for name in made.names if name.startswith("price.")] == ["price.move.8"]


def test_dropped_column_of_the_clock_may_be_added_again():
    assert graph("time.hour_sin", drop=("time.*",)).names[-1] == "time.hour_sin"
    assert graph("time.hour_sin").hash == graph().hash


def test_spaces_around_an_entry_do_not_make_another_column():
    assert graph("price.slope.64", " price.slope.64").hash == graph("price.slope.64").hash


@pytest.mark.parametrize(
    ("add", "what"),
    [
        (("price.slope.63",), "no column of this name"),
        (("price.slope.2",), "no column of this name"),
        (("price.slope.8192",), "no column of this name"),
        (("price.slope.064",), "no column of this name"),
        (("price.slope.6\N{ARABIC-INDIC DIGIT FOUR}",), "no column of this name"),
        ((f"price.slope.{'1' * 5_000}",), "no column of this name"),
        (("flow_kusdt.macd.8_8",), "no column of this name"),
        (("flow_kusdt.ewm.8_8",), "no column of this name"),
        (("return.spectrum.band1.16",), "no column of this name"),
        (("return.spectrum.band1.4096",), "no column of this name"),
        (("spread_bps.zscore.64",), "no column of this name"),
        (("flow_kusdt.ewm.1",), "no column of this name"),
        (("flow_kusdt.ewm.1024",), "no column of this name"),
        (("flow_kusdt.macd.8",), "no column of this name"),
        (("return_bps.mean.8_32",), "no column of this name"),
        (("leader.time.hour_sin",), "no column of this name"),
        (("leader.leader.price.slope.8",), "no column of this name"),
        (("",), "no column of this name"),
        (("my.a = price.slope.8", "my.a = price.slope.32"), "has a formula already"),
        (("leader.price.slope.64",), "made from price.slope.64, which is not there"),
        (("my.a = price.slope.64",), "price.slope.64 is not among the columns"),
        (("my.a = price.slope.8", "my.b = my.a"), "my.a is not among the columns"),
        (("mine = price.slope.8",), "not a name of your own"),
        (("My.a = price.slope.8",), "not a name of your own"),
        (("price.slope.64 = price.slope.8",), "not a name of your own"),
        (("leader.my.a = price.slope.8",), "not a name of your own"),
        (("my.a == price.slope.8",), "not a formula"),
        (tuple(f"flow_kusdt.ewm.{span}" for span in range(2, 11)), "more than 8 spans"),
    ],
)
def test_what_cannot_be_added_is_refused(add, what):
    with pytest.raises(ConfigError, match=what) as caught:
        graph(*add)
    assert caught.value.where == "features.add"
    assert caught.value.fix


@pytest.mark.parametrize(
    "formula", ["price.slope.64 * 2", "price.slope.8 *  ", "price.slope.8 * 1e39", "log(2)"]
)
def test_refused_formula_is_shown_with_the_name_of_its_column(formula):
    with pytest.raises(ConfigError) as caught:
        graph("my.good = price.slope.8 * 2", f"my.bad={formula}")
    assert caught.value.value == f"my.bad = {formula.strip()}"


def test_clock_alone_is_refused_with_formulas_too():
    with pytest.raises(ConfigError, match="no column is left that is made from the market"):
        graph("my.a = time.hour_sin * 2", drop=("[!t]*", "trade_count*"))


def test_example_of_the_page_can_be_made():
    page = (Path(__file__).resolve().parent.parent / "docs" / "features.md").read_text()
    (block,) = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    options = tomllib.loads(block)["features"]
    made = graph(*options["add"], drop=tuple(options["drop"]))
    assert {entry.split(" = ")[0] for entry in options["add"]} <= set(made.names)


def test_ticks_give_the_same_bits_in_every_way():
    """In any split, as a stream, after a restart, with other threads and chunks."""
    ticks = random_ticks(1, 3_000, 2, step_ms=10.0, disorder_ms=40.0, silences=1, silence_ms=2_500.0)
    listed = instruments(2)
    features = FeatureConfig(leader=listed[0].symbol, add=(*COLUMNS, *FORMULAS))
    report = check_parity(
        Excerpt("synthetic", listed, ticks, complete=True),
        splits=2,
        grid=GridConfig(frame_ms=50, max_gap_ms=2_000),
        features=features,
    )
    assert report.differing == 0
    assert report.columns == len(graph(*COLUMNS, *FORMULAS))
    assert report.frames > 200


def test_longest_windows_can_be_added(rng):
    made = graph("return_bps.mean.4096", drop=("*.512", "*.ewm.*", "*.macd.*"))
    assert made.warm_up_frames == 4_097
    channels = random_channels(rng, 4_200, 1)
    channels[:, Channel.RETURN_BPS] = rng.standard_normal((4_200, 1))
    found = features_of(made, channels)[0, made.index("return_bps.mean.4096")]
    assert np.isnan(found[:4_095]).all()
    wanted = channels[-4_096:, Channel.RETURN_BPS, 0].astype(np.float64).mean()
    assert found[-1] == pytest.approx(wanted, abs=1e-7)
