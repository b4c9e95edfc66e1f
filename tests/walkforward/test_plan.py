"""What a walk-forward is going to do."""

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
