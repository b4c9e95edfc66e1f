"""A worker that lets XGBoost predict: the same bits as the forest, through the same comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.forest_reader import read_booster
from gpuscalp.ops.forest import Forest
from tests.worker.rig import CLASSES, MEMBERS, Rig, eager, fleet_of, frames, specs, write_truth


def _trained(columns: int) -> tuple[Forest, Sequence[bytes]]:
    import xgboost

    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, columns)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    matrix = xgboost.QuantileDMatrix(x, rng.integers(0, CLASSES, len(x)))
    params = {
        "objective": "multi:softprob",
        "num_class": CLASSES,
        "max_depth": 4,
        "nthread": 1,
        "subsample": 0.7,
    }
    boosters = [xgboost.train(params | {"seed": seed}, matrix, 8) for seed in range(MEMBERS)]
    forest = Forest.join([read_booster(bytes(booster.save_raw("json"))) for booster in boosters])
    return forest, [bytes(booster.save_raw("ubj")) for booster in boosters]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_xgboost_in_a_worker_answers_with_the_forests_bits(tmp_path: Path, device: str):
    truth = write_truth(tmp_path / "bundle", _trained)
    fleet = fleet_of(specs(truth, device=device, predictor="xgboost"), eager())
    try:
        fleet.start()
        run = Rig(truth, fleet, frames(truth.pipeline))
        run.lead()
        run.answered(100)
        assert run.faults() == {}
    finally:
        fleet.close()
