"""Every refusal of a configuration names its source, the value and a way on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from gpuscalp.config import (
    BacktestConfig,
    LiveConfig,
    TrainConfig,
    TuneConfig,
    WalkForwardConfig,
    load,
    variable_of,
)
from gpuscalp.errors import ConfigError

CONFIGS = Path(__file__).parent.parent / "configs"


def _refused(text: str | None, tmp_path: Path, env: dict[str, str] | None = None) -> ConfigError:
    path = None
    if text is not None:
        path = tmp_path / "some file.toml"
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(TrainConfig, path, env=env)
    error = caught.value
    assert error.where
    assert error.fix
    return error


@pytest.mark.parametrize(
    ("name", "kind"), [("train", TrainConfig), ("backtest", BacktestConfig), ("paper", LiveConfig)]
)
def test_shipped_file_holds_the_defaults(name, kind):
    assert load(kind, CONFIGS / f"{name}.toml") == kind()


def test_misspelt_key_names_the_nearest(tmp_path):
    error = _refused("[grid]\nframe_msx = 3\n", tmp_path)
    assert error.value == "grid.frame_msx"
    assert error.fix == "did you mean 'frame_ms'?"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("[grid]\nframe_ms = -3\n", "grid.frame_ms", -3),
        ("[grid]\nframe_ms = 'x'\n", "grid.frame_ms", "x"),
        ("grid = 50\n", "grid", 50),
        ("symbols = [1]\n", "symbols.0", [1]),
    ],
)
def test_value_out_of_range_is_shown_with_its_key(text, key, value, tmp_path):
    # It said only "Expected `int` >= 1 - at `$.grid.frame_ms`": no value and no way on.
    error = _refused(text, tmp_path)
    assert error.what.startswith(f"{key}: expected ")
    assert error.value == value


@pytest.mark.parametrize("value", [-1, 10**16])
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (TrainConfig, "ensemble.seed"),
        (WalkForwardConfig, "train.ensemble.seed"),
        (WalkForwardConfig, "tried.seed"),
    ],
)
def test_seed_that_no_generator_takes_is_refused(kind, key, value):
    """It was accepted, and ended in a traceback after the training."""
    given = [value] if key == "tried.seed" else value
    with pytest.raises(ConfigError, match="expected"):
        load(kind, overrides={key: given})
    load(kind, overrides={key: [0] if key == "tried.seed" else 0})


def _keys(kind: type[Struct], before: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        inner = field.type
        if isinstance(inner, type) and issubclass(inner, Struct):
            yield from _keys(inner, f"{before}{field.name}.")
        else:
            yield before + field.name


def _accepted(kind: type[Struct], number: float) -> Iterator[tuple[str, Struct]]:
    """Yield each key that takes a number, alone or in one of the shapes that keys have, and what it makes.

    As ``load`` decodes, which would take ten times as long to say what is wrong with the others.
    """
    for key in _keys(kind):
        for value in (number, [number], [[number] * 2], {"x": {"high": number, "choices": [number]}}):
            data: Any = value
            for part in reversed(key.split(".")):
                data = {part: data}
            with suppress(msgspec.ValidationError):
                yield key, msgspec.convert(data, kind)


@pytest.mark.parametrize("kind", [TrainConfig, TuneConfig, BacktestConfig, LiveConfig, WalkForwardConfig])
def test_what_is_accepted_comes_back_equal_from_json(kind):
    """An infinity was written as null: the model was lost, and the session could not start. A not-a-number
    traded nothing, and a number too large for 64 bits was a defect of ours."""
    for number in (math.nan, math.inf, -math.inf, 1e300, 10**30, -(10**30)):
        assert [key for key, _ in _accepted(kind, number)] == []
    decoder, seen = msgspec.json.Decoder(kind), set()
    for number in (10**12, -(10**12), 0.25):
        for key, config in _accepted(kind, number):
            assert decoder.decode(msgspec.json.encode(config)) == config, key
            seen.add(key)
    assert len(seen) > 10


def test_infinity_as_a_limit_is_told_the_word_for_it():
    with pytest.raises(ConfigError, match=r"risk\.max_leverage") as caught:
        load(LiveConfig, env={"GPUSCALP__RISK__MAX_LEVERAGE": "inf"})
    assert (caught.value.where, caught.value.value) == ("GPUSCALP__RISK__MAX_LEVERAGE", math.inf)
    assert '"off"' in caught.value.fix


def test_seed_of_a_judgement_is_refused_below_nothing():
    with pytest.raises(ConfigError, match=r"judge\.seed"):
        load(WalkForwardConfig, overrides={"judge.seed": -1})


@pytest.mark.parametrize("kind", [BacktestConfig, LiveConfig, WalkForwardConfig])
def test_taking_what_no_resting_entry_has_left_is_refused(kind):
    """It was accepted, and did nothing."""
    section = "backtest.orders" if kind is WalkForwardConfig else "orders"
    with pytest.raises(ConfigError, match="no entry rests"):
        load(kind, overrides={f"{section}.then": "take"})
    load(kind, overrides={f"{section}.then": "take", f"{section}.entry": "post_only"})
    # A session that was begun with both can still be repeated.
    assert msgspec.convert({"orders": {"then": "take"}}, BacktestConfig).orders.then == "take"


def test_environment_is_named_as_the_source(tmp_path):
    error = _refused(None, tmp_path, {"GPUSCALP__GRID__FRAME": "50", "HOME": "/"})
    assert error.where == "GPUSCALP__GRID__FRAME"


def test_variable_of_a_key_is_that_of_its_section_too():
    env = {"HOME": "/", "GPUSCALP__GRID": "{frame_ms = 50}", "GPUSCALP__FEED__REST_URL": "http://localhost"}
    assert variable_of("grid.frame_ms", env) == "GPUSCALP__GRID"
    assert variable_of("feed.rest_url", env) == "GPUSCALP__FEED__REST_URL"
    assert variable_of("feed.redundancy", env) is None
    assert variable_of("grids.frame_ms", env) is None


@pytest.mark.parametrize("text", ["[gri\n", "a = = 1\n"])
def test_file_that_is_no_toml_is_refused(text, tmp_path):
    _refused(text, tmp_path)


def test_folder_or_nothing_in_place_of_the_file_is_refused(tmp_path):
    # A folder ended in a traceback.
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(ConfigError) as caught:
            load(TrainConfig, path)
        assert caught.value.fix
