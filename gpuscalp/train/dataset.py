"""Rows with labels, streamed: chunks of features joined with the labels that their future decides.

Owns: the look-ahead buffer of the horizon, and the choice of rows by stride and quality.
Never: holds more than the chunks that the horizon spans, or copies a feature before its row is wanted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuscalp.config import GridConfig, LabelConfig, TrainConfig
from gpuscalp.labels import (
    Labels,
    horizon_frames,
    label_frames,
    label_horizon_ns,
    look_ahead_frames,
    uniqueness,
)
from gpuscalp.schema import F64, I64, NS_PER_MS, NS_PER_S, FeatureChunk, FrameBlock
from gpuscalp.splits import RowCounts
from gpuscalp.train.device import TrainingDevice

I8 = npt.NDArray[np.int8]
Flags = npt.NDArray[np.bool_]

# A row belongs to a set by its entry and the end of its horizon, both in ns. By the end of its label, which a
# touch may bring forward, the last rows of a set would be those that were touched, and none that is FLAT.
RowFilter = Callable[[I64, I64], Flags]

COUNT_BUCKET_NS = 10 * NS_PER_S
# Symbols whose labels are turned round at a time: those of one cache line, which one symbol's walk down the
# frames would fetch whole for every frame.
_SIDE_BY_SIDE = 16


@dataclass(frozen=True, slots=True)
class Rows:
    """R labelled rows.

    Attributes
    ----------
    x : float32[R, F]          C-contiguous copy where training happens; NaN is missing
    direction : int8[R]        class
    return_bps : float64[R]    realised mid return over the label
    weight : float64[R]        average uniqueness of the label
    end_ns, label_end_ns : int64[R]   entry and end of the label
    symbol : int32[R]          index of the symbol
    """

    x: Any
    direction: I8
    return_bps: F64
    weight: F64
    end_ns: I64
    label_end_ns: I64
    symbol: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.direction)


@dataclass(frozen=True, slots=True)
class LabelledChunk:
    """One chunk with its labels.

    Attributes
    ----------
    chunk : FeatureChunk
    labels : Labels          of the chunk's T frames
    weight : float64[T, S]   average uniqueness; 0 where the row is not taken
    sound : bool[T, S]       good and on the stride, with a label or without
    taken : bool[T, S]       those of them that have one
    horizon_ns : from the entry of a row until it is known whether it has a label
    """

    chunk: FeatureChunk
    labels: Labels
    weight: F64
    sound: Flags
    taken: Flags
    horizon_ns: int

    @property
    def end_ns(self) -> I64:
        return self.chunk.frames.end_ns

    def inside(self, wanted: RowFilter) -> Flags:
        """bool[T, 1]: frames whose rows ``wanted`` wants, taken or not."""
        entry_ns = self.end_ns[:, None]
        return wanted(entry_ns, entry_ns + self.horizon_ns)

    def select(self, wanted: RowFilter) -> Flags:
        """bool[T, S]: the taken rows that ``wanted`` wants."""
        return self.taken & self.inside(wanted)

    def rows(self, chosen: Flags, device: TrainingDevice) -> Iterator[Rows]:
        """Yield the chosen rows, one symbol after the other; symbols without any are left out.

        Parameters
        ----------
        chosen : bool[T, S]
        device : where the rows are wanted
        """
        symbol_count = chosen.shape[1]
        for start in range(0, symbol_count, _SIDE_BY_SIDE):
            some = slice(start, start + _SIDE_BY_SIDE)
            picked, direction, return_bps, weight, label_end_ns = (
                # The copy first: frames that lie 2^n bytes apart would push each other out of the cache.
                np.ascontiguousarray(np.ascontiguousarray(each[:, some]).T)
                for each in (
                    chosen, self.labels.direction, self.labels.return_bps, self.weight, self.labels.end_ns
                )
            )  # fmt: skip
            for turn in range(len(picked)):
                at = np.flatnonzero(picked[turn])
                if len(at) == 0:
                    continue
                yield Rows(
                    x=device.gather(self.chunk.features[start + turn], at),
                    direction=direction[turn].take(at),
                    return_bps=return_bps[turn].take(at),
                    weight=weight[turn].take(at),
                    end_ns=self.end_ns.take(at),
                    label_end_ns=label_end_ns[turn].take(at),
                    symbol=np.full(len(at), start + turn, np.int32),
                )


def labelled_chunks(chunks: Iterable[FeatureChunk], config: TrainConfig) -> Iterator[LabelledChunk]:
    """Join consecutive chunks with their labels.

    A chunk is held back until the frames after it cover the horizon of its last row; the same labels and
    weights come out however the recording is cut into chunks.

    Parameters
    ----------
    chunks : consecutive chunks of one recording; each must stay unchanged until the next ones have come
    config : label, grid and stride

    Yields
    ------
    LabelledChunk, one per chunk, in order
    """
    ahead = look_ahead_frames(config.label, config.grid)
    # A weight needs the labels that are still open at the entry.
    back = horizon_frames(config.label, config.grid)
    waiting: deque[FeatureChunk] = deque()
    waiting_frames = 0
    past: FrameBlock | None = None
    for chunk in chunks:
        if len(chunk.frames) == 0:
            continue
        waiting.append(chunk)
        waiting_frames += len(chunk.frames)
        while waiting_frames - len(waiting[0].frames) >= ahead:
            first = waiting.popleft()
            waiting_frames -= len(first.frames)
            yield _label(first, past, waiting, ahead, config)
            past = _tail(past, first.frames, back)
    while waiting:
        first = waiting.popleft()
        yield _label(first, past, waiting, ahead, config)
        past = _tail(past, first.frames, back)


def count_rows(chunks: Iterable[LabelledChunk]) -> RowCounts:
    """Count the taken rows in buckets of ten seconds, for the placing of folds, and those without a label."""
    counts: dict[int, int] = {}
    unlabelled = 0
    for chunk in chunks:
        unlabelled += int((chunk.sound & ~chunk.taken).sum())
        per_frame = chunk.taken.sum(axis=1)
        buckets, at = np.unique(chunk.end_ns // COUNT_BUCKET_NS, return_inverse=True)
        for bucket, count in zip(buckets.tolist(), np.bincount(at, weights=per_frame).tolist(), strict=True):
            if count:
                counts[bucket] = counts.get(bucket, 0) + int(count)
    order = sorted(counts)
    return RowCounts(
        start_ns=np.array(order, np.int64) * COUNT_BUCKET_NS,
        count=np.array([counts[bucket] for bucket in order], np.int64),
        bucket_ns=COUNT_BUCKET_NS,
        unlabelled=unlabelled,
    )


def on_stride(end_ns: I64, grid: GridConfig, stride: int) -> Flags:
    """bool[T]: frames on the stride, counted on the grid itself so that chunks do not matter."""
    return np.asarray(end_ns // (grid.frame_ms * NS_PER_MS) % stride == 0)


def _label(
    first: FeatureChunk,
    past: FrameBlock | None,
    later: Iterable[FeatureChunk],
    ahead: int,
    config: TrainConfig,
) -> LabelledChunk:
    parts = [] if past is None else [past]
    start = 0 if past is None else len(past)
    parts.append(first.frames)
    missing = ahead
    for chunk in later:
        if missing <= 0:
            break
        parts.append(chunk.frames.part(0, missing))
        missing -= len(chunk.frames)
    context = _join(parts)
    labels = label_frames(context, config.label, config.grid)
    sound = labels.entry & on_stride(context.end_ns, config.grid, config.stride_frames)[:, None]
    taken = sound & labels.valid
    weight = uniqueness(labels, taken)
    inside = slice(start, start + len(first.frames))
    return LabelledChunk(
        chunk=first,
        labels=_slice_labels(labels, inside),
        weight=weight[inside],
        sound=sound[inside],
        taken=taken[inside],
        horizon_ns=label_horizon_ns(config.label, config.grid),
    )


def _tail(past: FrameBlock | None, frames: FrameBlock, back: int) -> FrameBlock:
    if past is not None and len(frames) < back:
        frames = _join([past, frames])
    # Joined alone, which copies: a view would keep all frames alive.
    return _join([frames.part(max(len(frames) - back, 0))])


def _join(parts: list[FrameBlock]) -> FrameBlock:
    """Join what labels read; channels are left out."""
    symbol_count = parts[0].quality.shape[1]
    count = sum(len(part) for part in parts)
    return FrameBlock(
        end_ns=np.concatenate([part.end_ns for part in parts]),
        channels=np.empty((count, 0, symbol_count), np.float32),
        quality=np.concatenate([part.quality for part in parts]),
        bid_px=np.concatenate([part.bid_px for part in parts]),
        ask_px=np.concatenate([part.ask_px for part in parts]),
        mark=np.empty((count, 0)),
    )


def _slice_labels(labels: Labels, part: slice) -> Labels:
    return Labels(*(getattr(labels, name)[part] for name in Labels.__slots__))


def label_spec(label: LabelConfig) -> str:
    """Say in one line what the label is."""
    if label.kind == "forward":
        return f"mid return over {label.horizon_ms} ms against ±{label.threshold_bps:g} bps"
    return (
        f"first of +{label.upper_bps:g} bps, −{label.lower_bps:g} bps and {label.horizon_ms} ms, "
        "on frame closes"
    )
