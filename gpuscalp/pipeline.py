"""The composition: ticks → frames → features, as a batch over an archive or as a stream.

One graph, two modes, the same bits. No I/O and no clock. What follows the features (ensemble, strategy, risk
gate) is composed in gpuscalp.trader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import final

import numpy as np

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.errors import DeviceError, ShapeError
from gpuscalp.features import FeatureGraph
from gpuscalp.frames import ClosedFrames, Framer, Grid
from gpuscalp.ops import context as context_ops
from gpuscalp.ops import ladder as ladder_ops
from gpuscalp.schema import F32, Channel, FeatureChunk, FrameBlock, Instrument, Ticks

TILE_FRAMES = 4096  # elements of one group stay in the second-level cache; does not change the bits


@final
class FeaturePipeline:
    """One feature graph over one set of instruments.

    Parameters
    ----------
    grid, features : configuration of the frames and of the graph
    instruments : the symbols, in the order of axis S
    device : "cpu"        where features are computed
    threads : int         threads for the batch; does not change the bits
    chunk_frames : int    frames per chunk of the batch; does not change the bits
    """

    def __init__(
        self,
        *,
        grid: GridConfig,
        features: FeatureConfig,
        instruments: Sequence[Instrument],
        device: str = "cpu",
        threads: int = 2,
        chunk_frames: int = 8192,
    ) -> None:
        if not instruments:
            raise ShapeError("a pipeline needs at least one instrument")
        if device != "cpu":
            raise DeviceError("no feature engine for this device", value=device, fix="use device = cpu")
        self.grid = grid
        self.instruments = tuple(instruments)
        self.graph = FeatureGraph(grid, features, [instrument.symbol for instrument in instruments])
        self._threads = threads
        self._chunk_frames = chunk_frames

    def batch(self, tick_batches: Iterable[Ticks]) -> Iterator[FeatureChunk]:
        """Yield features of consecutive frames; frames still open at the end are not emitted.

        Chunks hold at least one frame and mostly ``chunk_frames``. Where the ticks pause longer than
        ``grid.max_gap_ms`` a chunk ends early, ``end_ns`` jumps, and the next chunk starts cold.
        """
        grid = Grid(self.grid, len(self.instruments), block_frames=self._chunk_frames)
        framer = self._framer()
        with _BatchFeatures(self.graph, len(self.instruments), self._threads) as window:
            for ticks in tick_batches:
                for closed in grid.push(ticks):
                    if closed.restart:
                        yield from window.flush()
                        window.restart()
                        framer.restart()
                    window.append(framer.fold(closed))
                    if window.frame_count >= self._chunk_frames:
                        yield from window.flush()
            yield from window.flush()

    def stream(self) -> FeatureStream:
        """Return the same graph as a stream, cold."""
        return FeatureStream(self.grid, self.graph, self._framer(), len(self.instruments))

    def _framer(self) -> Framer:
        return Framer(self.grid, self.instruments, warm_up_frames=self.graph.warm_up_frames)


@final
class _BatchFeatures:
    """Collects frames, keeps the halo of the longest window, and computes features chunk by chunk."""

    def __init__(self, graph: FeatureGraph, symbol_count: int, threads: int) -> None:
        self._graph = graph
        self._symbol_count = symbol_count
        self._halo = ladder_ops.halo(graph.program)
        self._history = np.full((symbol_count, len(Channel), self._halo), np.nan, np.float32)
        self._blocks: list[FrameBlock] = []
        self.frame_count = 0
        self._pool = ThreadPoolExecutor(threads)
        self._scratch = [ladder_ops.batch_scratch(graph.program, TILE_FRAMES) for _ in range(threads)]

    def __enter__(self) -> _BatchFeatures:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def append(self, block: FrameBlock) -> None:
        self._blocks.append(block)
        self.frame_count += len(block)

    def restart(self) -> None:
        assert not self._blocks, "flush before a restart"
        self._history[:] = np.nan

    def flush(self) -> Iterator[FeatureChunk]:
        """Yield the chunk of the frames collected so far, if there are any."""
        if not self._blocks:
            return
        frames = _concatenate(self._blocks)
        self._blocks.clear()
        self.frame_count = 0
        channels = np.concatenate([self._history, frames.channels.transpose(2, 1, 0)], axis=2)
        self._history = channels[:, :, -self._halo :].copy() if self._halo else self._history
        features = np.empty((self._symbol_count, len(self._graph), len(frames)), np.float32)
        self._compute(channels, features)
        context_ops.context(self._graph.context, frames.end_ns, features)
        yield FeatureChunk(frames, features)

    def _compute(self, channels: F32, features: F32) -> None:
        """Cut the work into one piece per thread and symbol; pieces are independent."""
        frame_count = features.shape[2]
        threads = len(self._scratch)
        cuts = np.linspace(0, frame_count, threads + 1).astype(int)

        def work(thread: int) -> None:
            first, last = int(cuts[thread]), int(cuts[thread + 1])
            for symbol in range(self._symbol_count):
                ladder_ops.batch(
                    self._graph.program,
                    channels[symbol],
                    first,
                    last,
                    TILE_FRAMES,
                    self._scratch[thread],
                    features[symbol],
                )

        list(self._pool.map(work, range(threads)))


@final
class FeatureStream:
    """The graph fed tick batch by tick batch. ``push`` returns rows that the next call overwrites."""

    def __init__(self, grid: GridConfig, graph: FeatureGraph, framer: Framer, symbol_count: int) -> None:
        self.graph = graph
        self._grid = Grid(grid, symbol_count, block_frames=1)
        self._framer = framer
        self._state = ladder_ops.new_step_state(graph.program, symbol_count)
        self._scratch = ladder_ops.step_scratch(graph.program, symbol_count)
        self._rows = np.empty((len(graph), symbol_count), np.float32)
        self._block = framer.buffers(1)
        self._features = np.empty((symbol_count, len(graph), 1), np.float32)
        self._matrix = self._features.reshape(symbol_count, len(graph))

    @property
    def late_count(self) -> int:
        return self._grid.late_count

    def push(self, ticks: Ticks) -> Iterator[FeatureChunk]:
        """Take ticks in arrival order and yield a chunk of one frame for each frame they close.

        ``chunk.features`` is float32[S, F, 1], C-contiguous: ``features[:, :, 0]`` is the [S, F] matrix that
        the forest reads in place. Consume each chunk before asking for the next.
        """
        for closed in self._grid.push(ticks):
            if closed.restart:
                self._framer.restart()
                self._state.rings[:] = np.nan
            yield from self._frames(closed)

    def checkpoint(self) -> dict[str, np.ndarray]:
        """Return the whole state as plain arrays."""
        saved = {f"grid.{name}": value for name, value in self._grid.checkpoint().items()}
        saved |= {f"frames.{name}": value for name, value in self._framer.checkpoint().items()}
        return saved | {"ladder.rings": self._state.rings.copy(), "ladder.clock": self._state.clock.copy()}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Continue from a checkpoint; the next rows are those of a stream that never stopped.

        Raises
        ------
        ShapeError    the checkpoint is of another graph or number of symbols
        """
        if saved["ladder.rings"].shape != self._state.rings.shape:
            raise ShapeError(
                "checkpoint of another graph",
                value=saved["ladder.rings"].shape,
                fix=f"expected rings of {self._state.rings.shape}",
            )
        for part, target in (("grid", self._grid), ("frames", self._framer)):
            prefix = part + "."
            target.restore(
                {key[len(prefix) :]: value for key, value in saved.items() if key.startswith(prefix)}
            )
        self._state.rings[:] = saved["ladder.rings"]
        self._state.clock[:] = saved["ladder.clock"]

    def _frames(self, closed: ClosedFrames) -> Iterator[FeatureChunk]:
        symbol_count = self._features.shape[0]
        for frame in range(len(closed.end_ns)):
            part = closed.offsets[frame * symbol_count : (frame + 1) * symbol_count + 1]
            one = ClosedFrames(closed.end_ns[frame : frame + 1], closed.ticks, part, False)
            self._framer.fold(one, self._block)
            ladder_ops.step(
                self.graph.program, self._block.channels[0], self._state, self._scratch, self._rows
            )
            context_ops.transpose(self._rows, self._matrix)
            context_ops.context(self.graph.context, self._block.end_ns, self._features)
            yield FeatureChunk(self._block, self._features)


def _concatenate(blocks: list[FrameBlock]) -> FrameBlock:
    if len(blocks) == 1:
        return blocks[0]
    return FrameBlock(
        np.concatenate([block.end_ns for block in blocks]),
        np.concatenate([block.channels for block in blocks]),
        np.concatenate([block.quality for block in blocks]),
        np.concatenate([block.bid_px for block in blocks]),
        np.concatenate([block.ask_px for block in blocks]),
        np.concatenate([block.mark for block in blocks]),
    )
