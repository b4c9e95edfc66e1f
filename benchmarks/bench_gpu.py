"""Everything that only a GPU can show, bits first, then times: ``python -m benchmarks gpu``; needs a GPU.

The stream from closed frames to signals (gpu_stream), the forest from one row to a million (gpu_forest).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from benchmarks import gpu_forest, gpu_stream
from benchmarks.gpu_stream import Setup
from benchmarks.parts import Keep, attempt_each
from gpuscalp.bench.model import made_up_forest
from gpuscalp.forest_reader import read_booster
from gpuscalp.ops.by_device import ops_for
from gpuscalp.ops.forest import Forest


def run(
    *,
    minutes: float = 1.0,
    symbols: int = 512,
    steps: int = 3_000,
    warm_up: int = 600,
    ledger_steps: int = 10_000,
    rounds: int = 300,
    rows: Sequence[int] = gpu_forest.ROWS,
    only: Collection[str] = (),
    keep: Keep | None = None,
) -> dict[str, Any]:
    """Return all figures; of a part that fails the error.

    Parameters
    ----------
    minutes : of stepping, for the slope of the GPU's memory
    only, keep : see ``attempt_each``; ``parity`` is always there

    Raises
    ------
    DeviceError    no GPU can run here
    ParityError    a bit differs between the engines: nothing is timed
    """
    ops_for("cuda")
    frames = gpu_stream.closed_frames(symbols)
    sample = gpu_stream.feature_rows(symbols, frames, warm_up=min(warm_up, 520), count=20_000)
    forest, members = _model(sample, rounds)
    setup = Setup(symbols, frames, forest, members)
    parity = {"parity": gpu_stream.parity(setup, warm_up)}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "stream": lambda: gpu_stream.times(setup, steps, warm_up),
        "peer": lambda: gpu_stream.peer(setup, steps // 3, min(warm_up, 100)),
        "ledger": lambda: gpu_stream.ledger(setup, ledger_steps),
        "memory": lambda: gpu_stream.memory(setup, minutes),
        "forest": lambda: gpu_forest.run(forest, members, sample, rows),
    }
    told = None if keep is None else lambda found: keep(parity | found)
    result = parity | attempt_each("gpu", parts, only=only, keep=told)
    stream, peer = result.get("stream", {}), result.get("peer", {})
    if "whole" in peer and "cuda" in stream:
        stream["ratio_peer"] = round(peer["whole"]["p50_us"] / stream["cuda"]["p50_us"], 2)
    return result


def _model(sample: np.ndarray, rounds: int) -> tuple[Forest, list[bytes] | None]:
    """Return five members trained on the rows; where XGBoost is missing a forest of that size, made up."""
    try:
        from benchmarks.bench_forest import train_members
    except ImportError:
        return made_up_forest(sample, members=5, rounds=rounds, depth=6, seed=7), None
    boosters = train_members(5, rounds, 6, len(sample), x=sample)
    forest = Forest.join([read_booster(bytes(booster.save_raw("json"))) for booster in boosters])
    return forest, [bytes(booster.save_raw("ubj")) for booster in boosters]
