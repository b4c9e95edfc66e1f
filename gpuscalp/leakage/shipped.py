"""Probes of what gpuscalp ships: frames, features, labels, and the rows that each fold trains on.

When a row is known: a feature row at the end of its frame; the content of a label at the end of its declared
interval; that a label exists at all once its whole horizon has passed (it is refused if the recording stops
or a frame in it is flagged); a training row of a fold when the fold's test interval begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Literal, final

import numpy as np
from msgspec.structs import replace

from gpuscalp.config import TrainConfig
from gpuscalp.errors import DataError
from gpuscalp.labels import NO_CLASS, label_frames, label_horizon_ns
from gpuscalp.leakage.detector import Rows
from gpuscalp.leakage.series import Remembered
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import I64, NS_PER_MS, Channel, FeatureChunk, FrameBlock, Instrument, Ticks, joined
from gpuscalp.splits import Fold, walk_forward
from gpuscalp.train.dataset import LabelledChunk, RowFilter, count_rows, labelled_chunks


def _purged(fold: Fold) -> RowFilter:
    return fold.train_rows


@final
class Shipped:
    """The shipped graph, labels and splits over one set of instruments; its methods are probes.

    Probes that are given the same array, one after the other, share its features; it must not be changed.
    """

    def __init__(self, config: TrainConfig, instruments: tuple[Instrument, ...]) -> None:
        self.config, self.instruments = config, instruments
        pipeline = FeaturePipeline(grid=config.grid, features=config.features, instruments=instruments)
        self._graph = pipeline.graph
        self._chunks = Remembered[list[FeatureChunk]](lambda ticks: list(pipeline.batch([ticks])))

    def with_labels(self, kind: Literal["forward", "barrier"]) -> Shipped:
        """Return the same with the other kind of label; both share the features."""
        other = copy(self)
        other.config = replace(self.config, label=replace(self.config.label, kind=kind))
        return other

    def features(self, ticks: Ticks) -> Rows:
        """Every feature, float32, and what a frame says beside them is in ``frames``."""
        chunks = self._chunks(ticks)
        count, columns = len(self.instruments), len(self._graph)
        values = [chunk.features.transpose(2, 0, 1).reshape(-1, columns) for chunk in chunks]
        return Rows(
            *_frame_keys([chunk.frames for chunk in chunks], count),
            np.concatenate(values) if values else np.empty((0, columns), np.float32),
            self._graph.names,
        )

    def frames(self, ticks: Ticks) -> Rows:
        """Quality word, last quote, mark price and channels of every frame."""
        blocks = [chunk.frames for chunk in self._chunks(ticks)]
        count = len(self.instruments)
        parts = [
            np.concatenate(
                [
                    np.stack([block.quality, block.bid_px, block.ask_px, block.mark], axis=-1),
                    block.channels.transpose(0, 2, 1),
                ],
                axis=-1,
            ).reshape(len(block) * count, -1)
            for block in blocks
        ]
        names = ("quality", "bid_px", "ask_px", "mark", *(channel.name.lower() for channel in Channel))
        values = np.concatenate(parts) if parts else np.empty((0, len(names)))
        return Rows(*_frame_keys(blocks, count), values.astype(np.float64), names)

    def label_content(self, ticks: Ticks) -> Rows:
        """Class, return and end of every label that there is, known at its end."""
        frames = self._joined(ticks)
        labels = label_frames(frames, self.config.label, self.config.grid)
        rows, symbols = np.nonzero(labels.valid)
        at = rows, symbols
        values = np.stack(
            [labels.direction[at], labels.return_bps[at], labels.end_ns[at] - frames.end_ns[rows]], axis=1
        )
        key = np.stack([frames.end_ns[rows], symbols], axis=1)
        return Rows(
            key,
            labels.end_ns[at],
            values.astype(np.float64),
            ("class", "return_bps", "span_ns"),
            complete=False,
        )

    def label_existence(self, ticks: Ticks) -> Rows:
        """Whether there is a label, known once its horizon has passed."""
        frames = self._joined(ticks)
        labels = label_frames(frames, self.config.label, self.config.grid)
        horizon_ns = label_horizon_ns(self.config.label, self.config.grid)
        key, end_ns = _frame_keys([frames], len(self.instruments))
        valid = (labels.direction != NO_CLASS).astype(np.float64).reshape(-1, 1)
        return Rows(key, end_ns + horizon_ns, valid, ("labelled",))

    def folds(self, ticks: Ticks) -> tuple[Fold, ...]:
        """Return the folds of the unchanged ticks, and the ones inside them that stop the training early.

        Where the ticks are too few for as many folds as the configuration asks for, there are fewer, two at
        least: what a fold may train on is decided in the same way.

        Raises
        ------
        DataError    the recording is too short for two folds
        """
        counts = count_rows(self._labelled(ticks))
        split, horizon_ns = self.config.split, self.config.label.horizon_ms * NS_PER_MS
        while True:
            try:
                outer = walk_forward(counts, split, horizon_ns=horizon_ns)
                break
            except DataError:
                if split.folds <= 2:
                    raise
                split = replace(split, folds=split.folds - 1)
        return outer + tuple(fold.early_stopping(0.2, counts) for fold in outer)

    def training_rows(
        self, ticks: Ticks, folds: Sequence[Fold], choose: Callable[[Fold], RowFilter] = _purged
    ) -> Rows:
        """Class, return and weight of every row that a fold trains on, known when its test interval begins.

        Parameters
        ----------
        ticks, folds : the ticks, and folds that were placed on the unchanged ones
        choose : which rows a fold trains on; by default the shipped rule
        """
        chunks = list(self._labelled(ticks))
        keys, known, values = [], [], []
        for number, fold in enumerate(folds):
            for chunk in chunks:
                at = np.nonzero(chunk.select(choose(fold)))
                frame, symbol = at
                keys.append(np.stack([np.full(len(frame), number), chunk.end_ns[frame], symbol], axis=1))
                known.append(np.full(len(frame), fold.test_start_ns))
                labels = chunk.labels
                values.append(
                    np.stack([labels.direction[at], labels.return_bps[at], chunk.weight[at]], axis=1)
                )
        return Rows(
            np.concatenate([np.empty((0, 3), np.int64), *keys]),
            np.concatenate([np.empty(0, np.int64), *known]),
            np.concatenate([np.empty((0, 3)), *values]),
            ("class", "return_bps", "weight"),
        )

    @property
    def graph_hash(self) -> str:
        return self._graph.hash

    def _labelled(self, ticks: Ticks) -> list[LabelledChunk]:
        return list(labelled_chunks(self._chunks(ticks), self.config))

    def _joined(self, ticks: Ticks) -> FrameBlock:
        blocks = [chunk.frames for chunk in self._chunks(ticks)]
        if not blocks:
            return _no_frames(len(self.instruments))
        return joined(blocks)


def _frame_keys(blocks: Sequence[FrameBlock], symbol_count: int) -> tuple[I64, I64]:
    """Return key (end of the frame, symbol) and known_ns of all frames, frames outermost."""
    ends = [block.end_ns for block in blocks]
    end_ns = np.repeat(np.concatenate(ends) if ends else np.empty(0, np.int64), symbol_count)
    symbols = np.tile(np.arange(symbol_count), len(end_ns) // symbol_count)
    return np.stack([end_ns, symbols], axis=1), end_ns


def _no_frames(symbol_count: int) -> FrameBlock:
    whole, shape = np.empty(0, np.int64), (0, symbol_count)
    return FrameBlock(
        whole,
        np.empty((0, len(Channel), symbol_count), np.float32),
        np.empty(shape, np.uint32),
        np.empty(shape, np.int32),
        np.empty(shape, np.int32),
        np.empty(shape, np.float64),
    )
