"""The engine inside a worker: which one it is, the model it has, the canary, and a first frame to warm it.

Owns: opening, once. Never: talks to the session.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpuscalp.bundle import load_bundle, read_contract
from gpuscalp.device import resolve
from gpuscalp.frames import ClosedFrames
from gpuscalp.inference import HostInference, Inference, Margins
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import F32, NS_PER_MS, TICK
from gpuscalp.worker.spec import WorkerSpec


@dataclass(frozen=True, slots=True)
class Opened:
    """An engine that is warm.

    Attributes
    ----------
    margins_shape : (M, R, K) of its answers
    canary : float32[C, F], the bundle's
    device : what is known of the device, ready for JSON
    """

    inference: Inference
    margins_shape: tuple[int, int, int]
    canary: F32
    device: dict[str, Any]


def open_inference(spec: WorkerSpec) -> Opened:
    """Load all that answering needs, and let every kernel run once.

    Raises
    ------
    GpuscalpError    the device cannot run here, or the bundle is refused
    """
    choice = resolve(spec.device)
    contract = read_contract(Path(spec.bundle))
    config = contract.training.config
    pipeline = FeaturePipeline(
        grid=config.grid, features=config.features, instruments=spec.instruments, device=spec.device
    )
    rows = range(*spec.rows)
    # With the twins of the CPU, that the files are sound; the device's own answer is judged by the session.
    forest = load_bundle(Path(spec.bundle), graph=pipeline.graph).ensemble.forest
    predict: Margins | None = None
    if spec.predictor == "xgboost":
        members = [(Path(spec.bundle) / member.file.path).read_bytes() for member in contract.members]
        from gpuscalp.boosters import Boosters

        predict = Boosters(members, spec.device).margins
    inference: Inference
    if spec.device == "cuda":
        from gpuscalp.cuda_inference import CudaInference

        inference = CudaInference(pipeline, forest, rows=rows, margins=predict)
    else:
        inference = HostInference(pipeline, forest, rows=rows, margins=predict)
    frame_ns = config.grid.frame_ms * NS_PER_MS
    offsets = np.zeros(len(spec.instruments) + 1, np.int64)
    # Twice: what is captured at the first frame is launched at the second. Syncing forgets both.
    for end_ns in (frame_ns, 2 * frame_ns):
        inference.step(ClosedFrames(np.array([end_ns], np.int64), np.empty(0, TICK), offsets, restart=False))
    shape = (forest.member_count, len(rows), forest.class_count)
    canary = contract.canary.x.array("float32", "canary.x")
    return Opened(inference, shape, canary, {"device": choice.name, **choice.details})
