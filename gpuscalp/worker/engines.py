"""The engine inside a worker: which one it is, the model it has, the canary, and a first frame to warm it.

Owns: opening, once. Never: talks to the session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from gpuscalp.bundle import load_bundle, read_contract
from gpuscalp.device import resolve
from gpuscalp.errors import ShapeError
from gpuscalp.frames import ClosedFrames
from gpuscalp.inference import Answer, HostInference, Inference, chunk_digests
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import F32, NS_PER_MS, TICK
from gpuscalp.worker.spec import WorkerSpec

# (x float32[R, F], out float32[M, R, K]), both on the device
Predict = Callable[[Any, Any], None]


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
    if not 0 <= rows.start < rows.stop <= len(spec.instruments):
        raise ShapeError("rows that are not there", value=rows, fix=f"within 0 to {len(spec.instruments)}")
    # With the twins of the CPU, that the files are sound; the device's own answer is judged by the session.
    forest = load_bundle(Path(spec.bundle), graph=pipeline.graph).ensemble.forest
    predict: Predict | None = None
    if spec.predictor == "xgboost":
        members = [(Path(spec.bundle) / member.file.path).read_bytes() for member in contract.members]
        from gpuscalp.boosters import Boosters

        predict = Boosters(members, spec.device).margins
    inference: Inference
    if spec.device == "cuda":
        from gpuscalp.cuda_inference import CudaInference

        inference = CudaInference(pipeline, forest, rows=rows, margins=predict)
    elif predict is not None:
        inference = _HostBoosters(pipeline, predict, rows, (forest.member_count, forest.class_count))
    else:
        inference = HostInference(pipeline, forest, rows=rows)
    frame_ns = config.grid.frame_ms * NS_PER_MS
    offsets = np.zeros(len(spec.instruments) + 1, np.int64)
    # Twice: what is captured at the first frame is launched at the second. Syncing forgets both.
    for end_ns in (frame_ns, 2 * frame_ns):
        inference.step(ClosedFrames(np.array([end_ns], np.int64), np.empty(0, TICK), offsets, restart=False))
    shape = (forest.member_count, len(rows), forest.class_count)
    canary = contract.canary.x.array("float32", "canary.x")
    return Opened(inference, shape, canary, {"device": choice.name, **choice.details})


@final
class _HostBoosters:
    """XGBoost's own predictor on the CPU, behind the CPU's features."""

    def __init__(
        self, pipeline: FeaturePipeline, predict: Predict, rows: range, margins_shape: tuple[int, int]
    ) -> None:
        self._stream, self._rows, self._predict = pipeline.stream(), rows, predict
        self._member_count, self._class_count = margins_shape

    @property
    def rows(self) -> range:
        return self._rows

    def step(self, closed: ClosedFrames) -> Answer:
        chunk = self._stream.step(closed)
        x = chunk.features[self._rows.start : self._rows.stop, :, 0]
        return Answer(chunk_digests(chunk), self.margins(x))

    def margins(self, x: F32) -> F32:
        out = np.empty((self._member_count, len(x), self._class_count), np.float32)
        self._predict(x, out)
        return out

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        self._stream.restore(dict(saved))
