"""The runs of a walk-forward: every combination once, each with a directory of its own."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from gpuscalp.errors import ConfigError
from gpuscalp.walkforward.plan import runs_of
from tests.walkforward.market import CONFIG


def test_grid_has_every_combination_once_and_the_base_first():
    tried = msgspec.structs.replace(
        CONFIG.tried, min_edge_bps=(-100.0, 1.0), min_confidence=(0.4,), seed=(7, 8)
    )
    runs = runs_of(msgspec.structs.replace(CONFIG, tried=tried))
    assert runs[0].name == "base"
    assert len(runs) == 8 + 1
    assert len({run.name for run in runs}) == 9
    assert {run.config.trials for run in runs} == {8}
    with pytest.raises(ConfigError, match="too many"):
        runs_of(
            msgspec.structs.replace(
                CONFIG, tried=msgspec.structs.replace(tried, seed=tuple(np.arange(200).tolist()))
            )
        )


def test_values_that_share_six_digits_have_runs_of_their_own():
    """Two seeds shared a directory: the walk failed, and gone on with it said one's result for both."""
    swap = msgspec.structs.replace
    tried = swap(CONFIG.tried, min_confidence=(0.4, 0.4000001), seed=(20240101, 20240102, 2**53))
    sizes = (50.0, 12.5, 1234567.0, 1234568.0, 1e6)
    runs = runs_of(swap(CONFIG, tried=tried, judge=swap(CONFIG.judge, sizes=sizes)))
    names = [run.name for run in runs]
    assert len(set(names)) == len(runs) == 3 * 4 + 5
    assert names[1] == "min_edge_bps=-100,min_confidence=0.34,min_agreement=0.5,seed=20240101"
    assert "min_edge_bps=-100,min_confidence=0.4000001,min_agreement=0.5,seed=9007199254740992" in names
    # As they were, so that a walk can be gone on with.
    assert "min_edge_bps=-100,min_confidence=0.4,min_agreement=0.5,seed=7" in names
    assert names[-5:] == ["size-x50", "size-x12.5", "size-x1234567.0", "size-x1234568.0", "size-x1e+06"]


def test_size_that_is_given_twice_is_refused():
    judged = msgspec.structs.replace(CONFIG.judge, sizes=(2.0, 5.0, 2.0))
    with pytest.raises(ConfigError, match="share a directory") as caught:
        runs_of(msgspec.structs.replace(CONFIG, judge=judged))
    assert caught.value.value == "size-x2"


@pytest.mark.parametrize("size", [0.25, 8.0])
def test_size_multiplies_every_amount_of_money_and_nothing_else(size):
    """What is not multiplied refuses orders of a larger account, or lets a smaller one lose more."""
    judged = msgspec.structs.replace(CONFIG.judge, sizes=(size,))
    base, *_, scaled = runs_of(msgspec.structs.replace(CONFIG, judge=judged))
    assert (scaled.kind, scaled.size, scaled.seed) == ("size", size, base.seed)
    found, plain = (msgspec.to_builtins(run.config) for run in (scaled, base))
    for fields in plain.values():
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if name.endswith("_usdt") and isinstance(value, float):
                fields[name] = value * size
    assert found == plain
    assert found["risk"]["max_daily_loss_usdt"] == base.config.risk.max_daily_loss_usdt * size
