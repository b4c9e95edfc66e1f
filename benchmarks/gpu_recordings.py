"""The bits of both devices over real recordings: features and margins, in batch and in stream.

Recordings come from ``$GPUSCALP_RECORDINGS``; without it nothing is compared, and the result says so.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.bench_gpu_batch import same_bits
from gpuscalp.archive import Archive
from gpuscalp.archive.ingest import import_sources
from gpuscalp.bench.model import made_up_forest
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.cuda_inference import CudaInference
from gpuscalp.errors import ParityError
from gpuscalp.inference import HostInference
from gpuscalp.ops.by_device import ops_for
from gpuscalp.ops.forest import Forest
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import FeatureChunk

FOLDERS: Final = {"usdm": "binance_usdm", "spot": "binance_spot"}


def run(
    *, chunk_frames: int = 4_096, members: int = 5, rounds: int = 20, steps: int = 30_000
) -> dict[str, Any]:
    """Compare both devices over every recording there is, venue by venue.

    Parameters
    ----------
    chunk_frames : of a batch
    members, rounds : of the forest
    steps : frames of each venue that are stepped through as well

    Raises
    ------
    DeviceError    no GPU can run here
    ParityError    a bit differs
    """
    ops_for("cuda")
    named = os.environ.get("GPUSCALP_RECORDINGS")
    if not named:
        return {"skipped": "GPUSCALP_RECORDINGS names no folder of recordings"}
    result: dict[str, Any] = {}
    for folder, venue in FOLDERS.items():
        sources = sorted(path for path in (Path(named) / folder).iterdir() if path.is_file())
        with tempfile.TemporaryDirectory() as scratch:
            import_sources(sources, Path(scratch) / "archive", venue=venue)
            archive = Archive.open(Path(scratch) / "archive")
            result[folder] = {"files": len(sources)} | _compare(
                archive, venue, chunk_frames, members, rounds, steps
            )
    return result


def _compare(
    archive: Archive, venue: str, chunk_frames: int, members: int, rounds: int, steps: int
) -> dict[str, Any]:
    def pipeline(device: str) -> FeaturePipeline:
        return FeaturePipeline(
            grid=GridConfig(),
            features=FeatureConfig(),
            instruments=archive.instruments(venue),
            device=device,
            threads=len(os.sched_getaffinity(0)),
            chunk_frames=chunk_frames,
        )

    cpu, cuda = pipeline("cpu"), pipeline("cuda")
    forest: Forest | None = None
    frames = rows = 0
    for wanted, got in zip(
        _chunks(cpu, archive, venue), _chunks(cuda, archive, venue), strict=True
    ):  # a frame that one of them lacks is an error as well
        _same_frames(wanted, got)
        same_bits(wanted.features, got.features, "features")
        x = np.ascontiguousarray(wanted.features.transpose(0, 2, 1).reshape(-1, wanted.features.shape[1]))
        if forest is None:
            forest = made_up_forest(x, members=members, rounds=rounds, depth=6, seed=7)
        same_bits(_margins("cpu", forest, x), _margins("cuda", forest, x), "margins")
        frames += len(wanted.frames)
        rows += len(x)
    if forest is None:
        return {"frames": 0}
    return {
        "symbols": len(cpu.instruments),
        "frames": frames,
        "rows": rows,
        "features": rows * len(cpu.graph),
        "margins": rows * forest.member_count * forest.class_count,
        "stream_frames": _stream(cpu, cuda, archive, venue, forest, steps),
        "differing": 0,
    }


def _chunks(pipeline: FeaturePipeline, archive: Archive, venue: str) -> Iterator[FeatureChunk]:
    return pipeline.batch(archive.tick_batches(venue))


def _same_frames(wanted: FeatureChunk, got: FeatureChunk) -> None:
    for name in ("end_ns", "quality", "bid_px", "ask_px"):
        if not np.array_equal(getattr(wanted.frames, name), getattr(got.frames, name)):
            raise ParityError(f"frames of the two devices differ: {name}")
    same_bits(wanted.frames.channels, got.frames.channels, "channels")


def _margins(device: str, forest: Forest, x: np.ndarray) -> np.ndarray:
    ops = ops_for(device)
    out = ops.xp.empty((forest.member_count, len(x), forest.class_count), np.float32)
    ops.forest.predict_margins(
        forest, ops.xp.asarray(x), out=out, scratch=ops.forest.ForestScratch.of(forest)
    )
    return np.asarray(ops.to_host(out))


def _stream(
    cpu: FeaturePipeline,
    cuda: FeaturePipeline,
    archive: Archive,
    venue: str,
    forest: Forest,
    steps: int,
) -> int:
    """Step the first frames through both engines; return how many there were."""
    host, there = HostInference(cpu, forest), CudaInference(cuda, forest)
    stream, frames = cpu.stream(), 0
    for ticks in archive.tick_batches(venue):
        for closed in stream.close(ticks):
            wanted, got = host.step(closed), there.step(closed)
            for what in ("digests", "margins"):
                if getattr(wanted, what).tobytes() != getattr(got, what).tobytes():
                    raise ParityError(f"{what} of the two devices differ", where=f"{venue}, frame {frames}")
            frames += 1
            if frames == steps:
                there.close()
                return frames
    there.close()
    return frames
