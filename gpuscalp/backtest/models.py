"""Which bundle predicts at which time: one for the whole backtest, or a schedule that walks forward.

Owns: loading them, that they fit together, and the cut of a chunk of frames between two of them.
Never: predicts. A bundle whose training reaches into the time that it is to trade has no place in a schedule;
a single bundle may, and the summary says how far it does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from msgspec import structs

from gpuscalp.bundle import Bundle, load_bundle, read_contract
from gpuscalp.config import BacktestConfig
from gpuscalp.contract import ColumnSpec, GraphLike, TrainingSpec
from gpuscalp.errors import ModelError
from gpuscalp.schema import FeatureChunk


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A bundle and the instant after which it predicts: on frames that end later, until the next one's."""

    since_ns: int
    path: Path


Model = Path | Sequence[Scheduled]


def first_path(model: Model) -> Path:
    """Return the path of the bundle, or of the first one of a schedule."""
    return model if isinstance(model, Path) else model[0].path


def training_of(model: Model) -> TrainingSpec:
    """Return what the (first) bundle was trained on, without loading it.

    Raises
    ------
    ModelError
        it cannot be read
    """
    return read_contract(first_path(model)).training


def counted(config: BacktestConfig, training: TrainingSpec) -> BacktestConfig:
    """Return the configuration with at least the trials that the model was chosen from."""
    return structs.replace(config, trials=max(config.trials, training.tried))


@final
class Models:
    """Loaded bundles in the order of time.

    Parameters
    ----------
    model : a bundle's path, or a schedule in the order of time
    graph : that of the running pipeline

    Raises
    ------
    ModelError, FeatureMismatchError
        a bundle cannot be used, differs from the first in more than its ensemble, or has seen what it is to
        trade
    """

    def __init__(self, model: Model, graph: GraphLike) -> None:
        schedule = (Scheduled(0, model),) if isinstance(model, Path) else tuple(model)
        self._since_ns = np.array([item.since_ns for item in schedule], np.int64)
        assert (np.diff(self._since_ns) > 0).all(), "in the order of time"
        self._bundles = [load_bundle(item.path, graph=graph) for item in schedule]
        first = self.first
        for item, bundle in zip(schedule, self._bundles, strict=True):
            _check_alike(first, bundle.contract.training, item.path)
            if not isinstance(model, Path):
                _check_past(bundle.contract.training, item)

    @property
    def first(self) -> TrainingSpec:
        """What the first bundle was trained on."""
        return self._bundles[0].contract.training

    @property
    def columns(self) -> tuple[ColumnSpec, ...]:
        """The columns of all of them, in the order of the rows."""
        return self._bundles[0].contract.columns

    @property
    def digest(self) -> str:
        """Return what identifies them: the digest of the bundle, or one over times and digests."""
        digests = [bundle.contract.digest for bundle in self._bundles]
        if len(digests) == 1:
            return digests[0]
        lines = (f"{at} {digest}" for at, digest in zip(self._since_ns.tolist(), digests, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def parts(self, chunk: FeatureChunk) -> Iterator[tuple[Bundle, FeatureChunk]]:
        """Yield consecutive parts of a chunk, each with the bundle that predicts it; none is empty."""
        end_ns = chunk.frames.end_ns
        bounds = [0, *np.searchsorted(end_ns, self._since_ns[1:], side="right").tolist(), len(end_ns)]
        for bundle, first, last in zip(self._bundles, bounds[:-1], bounds[1:], strict=True):
            if first < last:
                yield bundle, cut(chunk, first, last)


def cut(chunk: FeatureChunk, first: int, last: int) -> FeatureChunk:
    """Return the frames from ``first`` to ``last`` (not included) of a chunk."""
    if first == 0 and last == len(chunk.frames):
        return chunk
    return FeatureChunk(chunk.frames.part(first, last), chunk.features[:, :, first:last])


def _check_alike(first: TrainingSpec, other: TrainingSpec, path: Path) -> None:
    for name in ("venue", "symbols"):
        if getattr(first, name) != getattr(other, name):
            _refuse(name, getattr(other, name), path)
    for name in ("grid", "features", "label"):
        if getattr(first.config, name) != getattr(other.config, name):
            _refuse(name, getattr(other.config, name), path)


def _refuse(name: str, value: object, path: Path) -> None:
    raise ModelError(
        f"the bundles of a schedule differ in {name}",
        where=str(path),
        value=value,
        fix="train all of them with the same configuration; only seeds and times may differ",
    )


def _check_past(training: TrainingSpec, item: Scheduled) -> None:
    if training.trained_on.end_ns > item.since_ns:
        raise ModelError(
            "a bundle of the schedule was trained on the time that it is to trade",
            where=str(item.path),
            value=f"trained until {training.trained_on.end_ns}, trades after {item.since_ns} ns",
            fix="train it on the time before only",
        )
