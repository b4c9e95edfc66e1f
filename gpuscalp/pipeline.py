"""The composition: ticks → frames → features, as a batch over an archive or as a stream.

One graph, two modes, the same bits. No I/O and no clock. What follows the features (ensemble, strategy, risk
gate) is composed in gpuscalp.trader.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, final

import numpy as np

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.errors import ShapeError
from gpuscalp.features import FeatureGraph
from gpuscalp.frames import ClosedFrames, Framer, Grid, block_layout
from gpuscalp.ops.ahead import read_ahead
from gpuscalp.ops.by_device import Ops, Upload, ops_for
from gpuscalp.ops.packed import Field
from gpuscalp.ops.staging import Staging
from gpuscalp.schema import F32, Channel, FeatureChunk, FrameBlock, Instrument, Ticks, joined


@final
class FeaturePipeline:
    """One feature graph over one set of instruments.

    Parameters
    ----------
    grid, features : configuration of the frames and of the graph
    instruments : the symbols, in the order of axis S
    device : "cpu", "cuda"   where frames and features are computed; does not change the bits
    threads : int         threads for the batch on a CPU; does not change the bits
    chunk_frames : int    frames per chunk of the batch; does not change the bits
    keep_on_device : bool   leave ``features`` of a chunk on the device, as a CuPy array on CUDA; the frames
                          come to the host in any case

    Raises
    ------
    DeviceError           the device cannot run here
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
        keep_on_device: bool = False,
    ) -> None:
        if not instruments:
            raise ShapeError("a pipeline needs at least one instrument")
        self._ops = ops_for(device)
        self._keep_on_device = keep_on_device
        self.device = device
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
        threads = self._threads if self._ops.threaded else 1
        blocks = (closed for ticks in tick_batches for closed in grid.push(ticks))
        with (
            closing(self._ops.staging()) as staging,
            closing(read_ahead(blocks, self._ops.ahead)) as ahead,
            _BatchFeatures(
                self._ops, staging, self.graph, len(self.instruments), threads, self._keep_on_device
            ) as window,
        ):
            framer = self._framer(staging.upload)
            for closed in ahead:
                if closed.restart:
                    window.flush()
                    window.restart()
                    framer.restart()
                window.append(framer.fold(closed))
                if window.frame_count >= self._chunk_frames:
                    window.flush()
                yield from window.finished(staging.in_flight)
            window.flush()
            yield from window.finished(0)

    def stream(self) -> FeatureStream:
        """Return the same graph as a stream, cold."""
        return FeatureStream(
            self._ops,
            self.grid,
            self.graph,
            self._framer(),
            len(self.instruments),
            self._keep_on_device,
            identity=self._identity(),
        )

    def _identity(self) -> bytes:
        """Return the SHA-256 of what gives the numbers of a checkpoint their meaning."""
        units = [f"{instrument.symbol} {instrument.tick_size_e8}" for instrument in self.instruments]
        return hashlib.sha256("\n".join([self.graph.hash, *units]).encode()).digest()

    def _framer(self, upload: Upload | None = None) -> Framer:
        return Framer(
            self.grid,
            self.instruments,
            warm_up_frames=self.graph.warm_up_frames,
            ops=self._ops,
            upload=upload,
        )


@final
class _BatchFeatures:
    """Collects frames, keeps the halo of the longest window, and computes features chunk by chunk.

    On a GPU a chunk that is flushed is merely under way; ``finished`` waits for the oldest ones.
    """

    def __init__(
        self,
        ops: Ops,
        staging: Staging,
        graph: FeatureGraph,
        symbol_count: int,
        threads: int,
        keep_on_device: bool,
    ) -> None:
        self._ops = ops
        self._staging = staging
        self._under_way: deque[Callable[[], FeatureChunk]] = deque()
        self._keep_on_device = keep_on_device
        self._column_count = len(graph)
        self._program = ops.tables(graph.program)
        self._context = ops.tables(graph.context)
        self._formulas = ops.tables(graph.formulas)
        self._symbol_count = symbol_count
        self._halo = ops.ladder.halo(self._program)
        self._history = ops.xp.full((symbol_count, len(Channel), self._halo), np.nan, np.float32)
        self._blocks: list[FrameBlock] = []
        self.frame_count = 0
        self._pool = ThreadPoolExecutor(threads)
        self._scratch = [ops.ladder.batch_scratch(self._program, ops.tile_frames) for _ in range(threads)]

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

    def finished(self, under_way: int) -> Iterator[FeatureChunk]:
        """Yield the oldest chunks, until no more than so many are under way."""
        while len(self._under_way) > under_way:
            yield self._under_way.popleft()()

    def flush(self) -> None:
        """Begin the chunk of the frames collected so far, if there are any."""
        if not self._blocks:
            return
        xp = self._ops.xp
        frames = joined(self._blocks, xp)
        self._blocks.clear()
        self.frame_count = 0
        channels = xp.concatenate([self._history, frames.channels.transpose(2, 1, 0)], axis=2)
        self._history = channels[:, :, -self._halo :].copy() if self._halo else self._history
        features = xp.empty((self._symbol_count, self._column_count, len(frames)), np.float32)
        self._compute(channels, features)
        self._ops.context.context(self._context, frames.end_ns, features)
        self._ops.formulas.formulas(self._formulas, features)
        if self._keep_on_device:
            fetched = self._staging.fetch(frames.arrays)
            self._under_way.append(lambda: FeatureChunk(FrameBlock(*fetched()), features))
        else:
            fetched = self._staging.fetch([*frames.arrays, features])
            self._under_way.append(lambda: _chunk(fetched()))

    def _compute(self, channels: F32, features: F32) -> None:
        """Cut the frames into one piece per thread; pieces are independent."""
        frame_count = features.shape[2]
        threads = len(self._scratch)
        cuts = np.linspace(0, frame_count, threads + 1).astype(int)

        def work(thread: int) -> None:
            first, last = int(cuts[thread]), int(cuts[thread + 1])
            self._ops.ladder.batch(
                self._program,
                channels,
                first,
                last,
                self._ops.tile_frames,
                self._scratch[thread],
                features,
            )

        if threads == 1:
            work(0)  # in this thread: a stream that the caller has chosen on a GPU is the thread's own
        else:
            list(self._pool.map(work, range(threads)))


@final
class FeatureStream:
    """The graph fed tick batch by tick batch. ``push`` returns rows that the next call overwrites.

    Attributes
    ----------
    there : FeatureChunk   of the newest frame, where the device is; overwritten by the next
    upload : ``Ops.stream_upload``: brings the ticks of one frame there, for ``compute``
    """

    def __init__(
        self,
        ops: Ops,
        grid: GridConfig,
        graph: FeatureGraph,
        framer: Framer,
        symbol_count: int,
        keep_on_device: bool,
        *,
        identity: bytes,
    ) -> None:
        self.graph = graph
        self._identity = np.frombuffer(identity, np.uint8)
        self._ops = ops
        self._symbol_count = symbol_count
        self._grid = Grid(grid, symbol_count, block_frames=1)
        self._framer = framer
        self.upload: Any = ops.stream_upload(symbol_count)
        self._program = ops.tables(graph.program)
        self._context = ops.tables(graph.context)
        self._formulas = ops.tables(graph.formulas)
        self._state = ops.ladder.new_step_state(self._program, symbol_count)
        self._scratch = ops.ladder.step_scratch(self._program, symbol_count)
        self._rows = ops.xp.empty((len(graph), symbol_count), np.float32)
        # Frame and features side by side: one copy brings both, or the frame alone, to the host.
        frame = block_layout(1, symbol_count)
        layout = (*frame, Field((symbol_count, len(graph), 1), np.float32))
        self._mirror = ops.mirror(layout, len(frame) if keep_on_device else None)
        self.there = _chunk(self._mirror.device)
        self._here = _chunk([*self._mirror.host, self.there.features][: len(layout)])
        self._matrix = self.there.features.reshape(symbol_count, len(graph))

    @property
    def late_count(self) -> int:
        return self._grid.late_count

    @property
    def trade_counts(self) -> tuple[int, int]:
        return self._grid.trade_counts

    def push(self, ticks: Ticks) -> Iterator[FeatureChunk]:
        """Take ticks in arrival order and yield a chunk of one frame for each frame they close.

        ``chunk.features`` is float32[S, F, 1], C-contiguous: ``features[:, :, 0]`` is the [S, F] matrix that
        the forest reads in place. Consume each chunk before asking for the next.
        """
        for closed in self.close(ticks):
            yield self.step(closed)

    def close(self, ticks: Ticks) -> Iterator[ClosedFrames]:
        """Take ticks in arrival order and yield the frames they close, one by one, each for ``step``."""
        for closed in self._grid.push(ticks):
            for frame in range(len(closed.end_ns)):
                part = closed.offsets[frame * self._symbol_count : (frame + 1) * self._symbol_count + 1]
                first = closed.restart and frame == 0
                yield ClosedFrames(closed.end_ns[frame : frame + 1], closed.ticks, part, first)

    def step(self, closed: ClosedFrames) -> FeatureChunk:
        """Compute one closed frame; the chunk is overwritten by the next."""
        if closed.restart:
            self.restart()
        self.compute(*self.upload(closed.ticks, closed.offsets, closed.end_ns))
        self._mirror.fetch()
        self._here.frames.end_ns[:] = closed.end_ns
        return self._here

    def restart(self) -> None:
        """Forget everything: the next frame is not adjacent to the last."""
        self._framer.restart()
        self._state.rings[:] = np.nan
        self._state.clock[:] = 0

    def compute(self, ticks: Any, offsets: Any, end_ns: Any) -> None:
        """Compute the next frame where its ticks are, into ``there``, all but its ``end_ns``.

        On CUDA nothing but launches, on the same addresses each time, so that they can be captured.

        Parameters
        ----------
        ticks, offsets, end_ns : of one frame, as ``upload`` gives them
        """
        self._framer.fold_there(ticks, offsets, end_ns, self.there.frames)
        channels = self.there.frames.channels[0]
        self._ops.ladder.step(self._program, channels, self._state, self._scratch, self._rows)
        self._ops.context.transpose(self._rows, self._matrix)
        self._ops.context.context(self._context, end_ns, self.there.features)
        self._ops.formulas.formulas(self._formulas, self.there.features)

    def checkpoint(
        self, *, spare: Mapping[str, np.ndarray] | None = None, copy: bool = True
    ) -> dict[str, np.ndarray]:
        """Return the whole state as NumPy arrays, the same for every device.

        Parameters
        ----------
        spare : what an earlier call has returned and nobody needs any more: its large arrays are written
            anew and returned. The memory of 500 symbols takes 150 ms to get and 6 ms to fill (2 cores, EPYC)
        copy : False: the arrays may be the stream's own, for who is done with them before its next step
        """
        saved = {"identity": self._identity.copy()}
        saved |= {f"grid.{name}": value for name, value in self._grid.checkpoint().items()}
        saved |= {f"frames.{name}": value for name, value in self._framer.checkpoint().items()}
        for name, part in self._state._asdict().items():
            key, found = f"ladder.{name}", self._ops.to_host(part)
            if spare is None:
                saved[key] = np.array(found) if copy else found
            else:
                np.copyto(spare[key], found, casting="no")
                saved[key] = spare[key]
        return saved

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Continue from a checkpoint; the next rows are those of a stream that never stopped.

        The checkpoint may come from another device.

        Raises
        ------
        ShapeError    the checkpoint is of another graph or grid, or of other symbols, order or tick sizes
        """
        if not np.array_equal(saved.get("identity", ()), self._identity):
            raise ShapeError(
                "checkpoint of another graph, or of other symbols",
                value=bytes(saved.get("identity", b"")).hex(),
                fix=f"expected {self._identity.tobytes().hex()}: start cold, or as it was made",
            )
        for part, target in (("grid", self._grid), ("frames", self._framer)):
            prefix = part + "."
            target.restore(
                {key[len(prefix) :]: value for key, value in saved.items() if key.startswith(prefix)}
            )
        self._state.rings[:] = self._ops.to_device(saved["ladder.rings"])
        self._state.clock[:] = self._ops.to_device(saved["ladder.clock"])


def _chunk(arrays: Sequence[Any]) -> FeatureChunk:
    """Return the arrays of a FrameBlock and, last, of features."""
    *frames, features = arrays
    return FeatureChunk(FrameBlock(*frames), features)
