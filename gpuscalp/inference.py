"""One closed frame to margins: features and all members, where the device is, and nothing else.

Owns: the form in which an engine answers, the same for every device: digests of the features' bits, by which
another device can tell that it computed the same, and margins. Never: closes frames, says what margins mean,
or decides whose answer counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np

from gpuscalp.frames import ClosedFrames
from gpuscalp.ops.forest import Forest, ForestScratch, predict_margins
from gpuscalp.ops.row_digest import U64, digest_rows
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import F32, FeatureChunk

# (x float32[R, F], out float32[M, R, K]), both on the device; on CUDA it writes on the current stream
Margins = Callable[[Any, Any], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine says about one frame; overwritten by its next answer.

    Attributes
    ----------
    digests : uint64[S]            of each symbol's features, quality and quotes (``chunk_digests``)
    margins : float32[M, R, K]     of the rows that this engine predicts
    """

    digests: U64
    margins: F32


class Inference(Protocol):
    """An engine for S symbols of which it predicts R rows. Not safe for two threads."""

    def step(self, closed: ClosedFrames) -> Answer:
        """Compute the next frame, exactly one."""
        ...

    def margins(self, x: F32) -> F32:
        """Return float32[M, N, K] for float32[N, F]: the canary's way, beside the stream."""
        ...

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        """Continue from ``FeatureStream.checkpoint`` of any device."""
        ...


def chunk_digests(chunk: FeatureChunk) -> U64:
    """Return uint64[S], the digests of one frame's rows: all that a decision reads of it."""
    frames = chunk.frames
    return digest_rows(chunk.features, frames.quality[0], frames.bid_px[0], frames.ask_px[0])


@final
class HostInference:
    """The CPU's twin.

    Parameters
    ----------
    pipeline : on the CPU
    forest : all members
    rows : of S that are predicted; None = all
    margins : predicts in place of the forest (``Boosters.margins``); None = the forest
    """

    def __init__(
        self,
        pipeline: FeaturePipeline,
        forest: Forest,
        *,
        rows: range | None = None,
        margins: Margins | None = None,
    ) -> None:
        self._stream, self._forest = pipeline.stream(), forest
        scratch = ForestScratch.of(forest)
        self._predict = margins or (lambda x, out: predict_margins(forest, x, out=out, scratch=scratch))
        self._rows = range(len(pipeline.instruments)) if rows is None else rows
        self._out = np.empty((forest.member_count, len(self._rows), forest.class_count), np.float32)

    def step(self, closed: ClosedFrames) -> Answer:
        chunk = self._stream.step(closed)
        x = chunk.features[self._rows.start : self._rows.stop, :, 0]
        self._predict(x, self._out)
        return Answer(chunk_digests(chunk), self._out)

    def margins(self, x: F32) -> F32:
        out = np.empty((self._forest.member_count, len(x), self._forest.class_count), np.float32)
        self._predict(x, out)
        return out

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        self._stream.restore(dict(saved))
