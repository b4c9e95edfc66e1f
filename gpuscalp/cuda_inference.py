"""The GPU's twin of HostInference: one copy of ticks in, one launch of a graph, one copy of the answer out.

Owns: the order of these three, and when the graph has to be captured anew. Never: knows a kernel or CUDA's
own calls (gpuscalp.ops), closes frames, or falls back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np

from gpuscalp.errors import DeviceError
from gpuscalp.frames import ClosedFrames
from gpuscalp.inference import Answer, Margins
from gpuscalp.ops import cuda_forest
from gpuscalp.ops.copies import pinned_mirror, to_device
from gpuscalp.ops.cuda_row_digest import digest_rows
from gpuscalp.ops.device_stream import DeviceStream
from gpuscalp.ops.forest import Forest
from gpuscalp.ops.packed import Field
from gpuscalp.ops.tick_upload import TickUpload
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import F32


@final
class CudaInference:
    """An engine on the current GPU. Close it when done.

    Parameters
    ----------
    pipeline : on CUDA
    forest : all members
    rows : of S that are predicted; None = all
    margins : predicts in place of the forest's kernel, outside the graph (``Boosters.margins``); None = the
        kernel, inside it

    Attributes
    ----------
    capture_count : int    graphs made so far: 1, and 1 more for each time that the buffer for ticks grew

    Raises
    ------
    DeviceError    the pipeline is not on CUDA
    """

    def __init__(
        self,
        pipeline: FeaturePipeline,
        forest: Forest,
        *,
        rows: range | None = None,
        margins: Margins | None = None,
    ) -> None:
        if pipeline.device != "cuda":
            raise DeviceError("the pipeline is on another device", value=pipeline.device, fix='device="cuda"')
        self._forest, self._predict = forest, margins
        symbol_count = len(pipeline.instruments)
        self._rows = range(symbol_count) if rows is None else rows
        self.capture_count = 0
        self._device = DeviceStream()
        with self._device:
            self._stream = pipeline.stream()
            self._upload: TickUpload = self._stream.upload
            matrix = self._stream.there.features.reshape(symbol_count, -1)
            self._x = matrix[self._rows.start : self._rows.stop]
            self._scratch = cuda_forest.ForestScratch.of(forest)
            shape = (forest.member_count, len(self._rows), forest.class_count)
            self._mirror = pinned_mirror((Field((symbol_count,), np.uint64), Field(shape, np.float32)))
            self._answer = Answer(*self._mirror.host)
            # Loads the kernels, on a frame without ticks; a capture could not.
            self._launch()
            self._stream.restart()
        self._replay = self._capture()

    def step(self, closed: ClosedFrames) -> Answer:
        """Compute the next frame, exactly one; waits for the answer, which the next step overwrites."""
        with self._device:
            if closed.restart:
                self._stream.restart()
            if self._upload.reserve(int(closed.offsets[-1] - closed.offsets[0])):
                self._replay = self._capture()
            self._upload(closed.ticks, closed.offsets, closed.end_ns)
            self._replay()
            if self._predict is not None:
                self._predict(self._x, self._mirror.device[1])
            self._mirror.fetch()
        return self._answer

    def margins(self, x: F32) -> F32:
        shape = (self._forest.member_count, len(x), self._forest.class_count)
        with self._device:
            mirror = pinned_mirror((Field(shape, np.float32),))
            self._predict_rows(to_device(x), mirror.device[0])
            mirror.fetch()
        out: F32 = mirror.host[0]
        return out

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        with self._device:
            self._stream.restore(dict(saved))

    def close(self) -> None:
        """Wait for the device. Its memory goes with this object."""
        self._device.synchronize()

    def _capture(self) -> Callable[[], None]:
        self.capture_count += 1
        return self._device.capture(self._launch)

    def _launch(self) -> None:
        """Queue every kernel of a frame."""
        self._stream.compute(*self._upload.arrays)
        chunk = self._stream.there
        frames, (digests, margins) = chunk.frames, self._mirror.device
        digest_rows(chunk.features, frames.quality[0], frames.bid_px[0], frames.ask_px[0], out=digests)
        if self._predict is None:
            self._predict_rows(self._x, margins)

    def _predict_rows(self, x: Any, out: Any) -> None:
        if self._predict is None:
            cuda_forest.predict_margins(self._forest, x, out=out, scratch=self._scratch)
        else:
            self._predict(x, out)
