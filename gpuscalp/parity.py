"""Proof on a user's own data: every way of running the graph gives the same bits.

One pass over all ticks is the reference. Compared with it, frame by frame and column by column: random
splits into batches, in batch and in stream mode; streams that are stopped and restored from a checkpoint;
other chunk sizes and thread counts; and CUDA where it can run. Bits are compared, not values: −0 and 0
differ, any two NaN are equal.

Owns: what is compared and the count. Never: computes a feature itself or tolerates a difference.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.device import resolve
from gpuscalp.errors import DataError, DeviceError
from gpuscalp.excerpt import Excerpt
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import FeatureChunk, FrameBlock, Ticks

FRAME_FIELDS: Final = tuple(item.name for item in fields(FrameBlock))
# Chunks and threads that meet the windows, the tiles and each other at awkward places.
LAYOUTS: Final = ((17, 1), (63, 1), (512, 2), (513, 3), (4096, 4), (100_000, 2))
Places = npt.NDArray[np.int64]
_WHOLE: Final[Places] = np.empty(0, np.int64)
SINGLES: Final = 1_000  # length of the run of one-tick batches in every split


@dataclass(slots=True)
class Check:
    """One way of running the graph against the reference.

    Attributes
    ----------
    name, note : what was run
    runs : passes over the ticks
    values : numbers compared
    differing : of these, how many bits differ; a missing or additional frame counts with all of its numbers
    first : where the first difference lies
    """

    name: str
    note: str
    runs: int = 0
    values: int = 0
    differing: int = 0
    first: str | None = None


@dataclass(slots=True)
class ParityReport:
    """What was compared, and how much of it differs."""

    splits: int
    data: dict[str, Any]
    frames: int
    columns: int
    hash: str
    seed: int
    checks: list[Check] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def values(self) -> int:
        return sum(check.values for check in self.checks)

    @property
    def differing(self) -> int:
        return sum(check.differing for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        return {
            "splits": self.splits,
            "values": self.values,
            "differing": self.differing,
            "checks": [
                {
                    name: getattr(check, name)
                    for name in ("name", "note", "runs", "values", "differing", "first")
                }
                for check in self.checks
            ],
            "skipped": self.skipped,
            "frames": self.frames,
            "columns": self.columns,
            "hash": self.hash,
            "seed": self.seed,
            **self.data,
        }


def check_parity(
    excerpt: Excerpt,
    *,
    splits: int = 100,
    grid: GridConfig | None = None,
    features: FeatureConfig | None = None,
    seed: int = 7,
    on_progress: Progress = silent,
) -> ParityReport:
    """Run the graph in every way over the same ticks and count the bits that differ.

    Parameters
    ----------
    excerpt : the ticks
    splits : random splits into batches, each run in batch and in stream mode; the first is into single ticks
    grid, features : the graph
    seed : of the splits and of the places of the restarts
    on_progress : told runs done, runs in all, and the name of the check

    Returns
    -------
    ParityReport        a difference is a result, not an exception

    Raises
    ------
    DataError           the ticks close no frame, so that there is nothing to compare
    """
    maker = _Maker(excerpt, grid or GridConfig(), features or FeatureConfig())
    reference = _Reference(maker.pipeline().batch([excerpt.ticks]))
    if not len(reference):
        raise DataError("the ticks close no frame: there is nothing to compare", where=excerpt.venue)
    graph = maker.pipeline().graph
    report = ParityReport(splits, excerpt.to_dict(), len(reference), len(graph), graph.hash, seed)
    rng = np.random.default_rng(seed)
    runs = list(_runs(maker, excerpt.ticks, splits, rng, report))
    for done, (check, chunks) in enumerate(runs):
        on_progress(done, len(runs), check.name)
        if check not in report.checks:
            report.checks.append(check)
        check.runs += 1
        reference.compare(chunks(), check)
    return report


Chunks = Callable[[], Iterable[FeatureChunk]]


def _runs(
    maker: _Maker, ticks: Ticks, splits: int, rng: np.random.Generator, report: ParityReport
) -> Iterator[tuple[Check, Chunks]]:
    batch = Check("split, batch", "random batches, the batch engine")
    stream = Check("split, stream", "the same random batches, the streaming engine")
    restart = Check("restart", "stream stopped and restored from a written checkpoint, ten times a run")
    layout = Check("chunks and threads", "other chunk sizes and numbers of threads")
    for index in range(splits):
        places = np.arange(1, len(ticks)) if index == 0 else random_cuts(rng, len(ticks))
        yield batch, partial(_batch, maker, ticks, places)
        yield stream, partial(_stream, maker, ticks, places)
    for _ in range(max(1, splits // 10)):
        places = np.sort(rng.integers(0, len(ticks) + 1, 10))
        yield restart, partial(_stream, maker, ticks, places, restart=True)
    for chunk_frames, threads in LAYOUTS:
        yield layout, partial(_batch, maker, ticks, _WHOLE, chunk_frames=chunk_frames, threads=threads)
    try:
        found = resolve("cuda").reason
        maker.pipeline(device="cuda")
    except DeviceError as error:
        report.skipped["cpu against cuda"] = str(error)
        return
    cuda = Check("cpu against cuda", found)
    places = random_cuts(rng, len(ticks))
    yield cuda, partial(_batch, maker, ticks, _WHOLE, device="cuda")
    yield cuda, partial(_batch, maker, ticks, places, device="cuda")
    yield cuda, partial(_stream, maker, ticks, places, device="cuda")
    few = np.sort(rng.integers(0, len(ticks) + 1, 3))
    yield cuda, partial(_stream, maker, ticks, few, restart=True, device="cuda")


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes fresh pipelines over the same symbols."""

    excerpt: Excerpt
    grid: GridConfig
    features: FeatureConfig

    def pipeline(self, **options: Any) -> FeaturePipeline:
        return FeaturePipeline(
            grid=self.grid, features=self.features, instruments=self.excerpt.instruments, **options
        )


def random_cuts(rng: np.random.Generator, count: int) -> Places:
    """Return places to cut ``count`` ticks at: batches of very unequal length, a run of single ticks, and
    empty batches."""
    places = rng.integers(0, count + 1, int(10 ** rng.uniform(0, np.log10(count / 4 + 10))))
    start = int(rng.integers(0, count + 1))
    singles = np.arange(start, min(count, start + SINGLES))
    return np.sort(np.concatenate([places, places[:2], singles]))


def _split(ticks: Ticks, places: Places) -> Iterator[Ticks]:
    start = 0
    for place in places.tolist():
        yield ticks[start:place]
        start = place
    yield ticks[start:]


def _batch(maker: _Maker, ticks: Ticks, places: Places, **options: Any) -> Iterator[FeatureChunk]:
    return maker.pipeline(**options).batch(_split(ticks, places))


def _stream(
    maker: _Maker, ticks: Ticks, places: Places, *, restart: bool = False, device: str = "cpu"
) -> Iterator[FeatureChunk]:
    pipeline = maker.pipeline(device=device)
    stream = pipeline.stream()
    for batch in _split(ticks, places):
        yield from stream.push(batch)
        if restart:
            file = io.BytesIO()
            np.savez(file, allow_pickle=False, **stream.checkpoint())
            file.seek(0)
            stream = pipeline.stream()
            with np.load(file, allow_pickle=False) as saved:
                stream.restore(dict(saved))


class _Reference:
    """All frames of the reference, and the comparison of chunks with it."""

    def __init__(self, chunks: Iterable[FeatureChunk]) -> None:
        collected = [_numbers(chunk) for chunk in chunks]
        self._fields = {
            name: np.concatenate([part[name] for part in collected])
            for name in (collected[0] if collected else ())
        }

    def __len__(self) -> int:
        return len(self._fields["end_ns"]) if self._fields else 0

    def compare(self, chunks: Iterable[FeatureChunk], check: Check) -> None:
        """Add the numbers of all frames to ``check``."""
        at = 0
        for chunk in chunks:
            for name, got in _numbers(chunk).items():
                wanted = self._fields[name][at : at + len(got)]
                check.values += got.size
                different = _differing(got[: len(wanted)], wanted)
                surplus = got.size - wanted.size
                if different.any() or surplus:
                    check.differing += int(different.sum()) + surplus
                    place = at + (int(np.argwhere(different)[0][0]) if different.any() else len(wanted))
                    check.first = check.first or f"{name}, frame {place}, run {check.runs}"
            at += len(chunk.frames)
        for name, wanted in self._fields.items():
            missing = wanted[at:].size
            check.values += missing
            check.differing += missing
            if missing:
                check.first = check.first or f"{name}, frame {at} is missing, run {check.runs}"


def _numbers(chunk: FeatureChunk) -> dict[str, npt.NDArray[Any]]:
    """Return all arrays of a chunk with the axis of frames first."""
    arrays = {name: getattr(chunk.frames, name) for name in FRAME_FIELDS}
    return arrays | {"features": chunk.features.transpose(2, 0, 1)}


def _differing(got: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if got.dtype != wanted.dtype:
        return np.ones(wanted.shape, np.bool_)
    bits = np.dtype(f"u{got.dtype.itemsize}")
    different = np.ascontiguousarray(got).view(bits) != np.ascontiguousarray(wanted).view(bits)
    if got.dtype.kind == "f" and different.any():
        different &= ~(np.isnan(got) & np.isnan(wanted))
    return np.asarray(different)
