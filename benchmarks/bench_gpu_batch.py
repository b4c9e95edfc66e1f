"""Batches on a GPU: ``python -m benchmarks gpu_batch``.

Bits first, then times. Features are computed from channels that lie on the device, chunk after chunk into the
same memory, and compared with the ceilings that a plain copy and the card's lanes set (benchmarks.gpu_work).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import gpu_training
from benchmarks.environment import ROOT
from benchmarks.gpu_work import ceiling, context_work, ladder_work
from benchmarks.parts import Keep, attempt_each
from gpuscalp.bench import batch as shared_set
from gpuscalp.bench import stream
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.errors import ParityError
from gpuscalp.features import FeatureGraph
from gpuscalp.ops import cuda_ladder
from gpuscalp.ops.by_device import Ops, ops_for
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_MS, Channel

SYMBOLS: Final = 512
COPY_BYTES: Final = 1 << 30
FRAME_NS: Final = 100 * NS_PER_MS


@dataclass(frozen=True, slots=True)
class Card:
    """What the arithmetic ceiling comes of."""

    multiprocessors: int
    lanes: int
    clock_hz: float


def run(
    symbol_frames: float = 1e8,
    rows: float = 1e8,
    *,
    symbols: int = SYMBOLS,
    repeats: int = 5,
    only: Collection[str] = (),
    keep: Keep | None = None,
) -> dict[str, Any]:
    """Return all figures; of a part that fails the error.

    Parameters
    ----------
    symbol_frames : features of so many symbols × frames
    rows : of the training; they exist one chunk at a time
    symbols : of both
    repeats : of what is compared with another library
    only, keep : see ``attempt_each``

    Raises
    ------
    DeviceError    no GPU can run here
    """
    ops_for("cuda")
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "features": lambda: features(symbol_frames, symbols=symbols),
        "ticks_to_features": lambda: ticks_to_features(symbols=symbols),
        "shared_set": lambda: against_cudf(repeats=repeats),
        "training": lambda: gpu_training.run(rows, symbols=symbols),
    }
    return attempt_each("gpu_batch", parts, only=only, keep=keep)


# ---- features -------------------------------------------------------------------------------------------


def features(symbol_frames: float, *, symbols: int = SYMBOLS, frames: int = 8192) -> dict[str, Any]:
    """Time the ladder and the context over one chunk of ``symbols × frames``, computed again and again."""
    cpu, cuda = ops_for("cpu"), ops_for("cuda")
    graph = FeatureGraph(GridConfig(), FeatureConfig(), [item.symbol for item in stream.instruments(symbols)])
    sample = random_channels(graph, min(symbols, 4), frames)
    on_cpu = Chunk(cpu, graph, sample, threads=len(os.sched_getaffinity(0)))
    on_cuda = Chunk(cuda, graph, sample)
    same_bits(on_cpu.compute(), cuda.to_host(on_cuda.compute()), "features")
    cpu_s = _seconds(on_cpu.compute, lambda: None) / (len(sample) * frames)

    copies = -(-symbols // len(sample))
    whole = Chunk(cuda, graph, np.tile(sample, (copies, 1, 1))[:symbols])
    chunks = max(round(symbol_frames / (symbols * frames)), 1)
    wait = cuda.xp.cuda.get_current_stream().synchronize
    whole.compute()
    seconds = _seconds(lambda: [whole.compute() for _ in range(chunks)], wait, repeats=1)
    computed = chunks * symbols * frames
    work = ladder_work(
        graph.program,
        tile_frames=min(frames, cuda_ladder.TILE_FRAMES),
        step_frames=cuda_ladder.step_frames,
    ) + context_work(graph.context, symbols)
    found, bandwidth = card(cuda), copy_bandwidth(cuda)
    limit = ceiling(
        work,
        computed,
        bytes_per_s=bandwidth,
        multiprocessors=found.multiprocessors,
        clock_hz=found.clock_hz,
        lanes=found.lanes,
    )
    return {
        "symbol_frames": computed,
        "columns": len(graph),
        "seconds": round(seconds, 4),
        "symbol_frames_per_s": round(computed / seconds),
        "copy_bytes_per_s": round(bandwidth),
        "read_bytes": round(work.read_bytes, 1),
        "written_bytes": round(work.written_bytes, 1),
        "operations": round(work.operations, 1),
        "binds": limit.binds,
        "share_of_ceiling": limit.share(seconds),
        "ratio_cpu": cpu_s * computed / seconds,
    }


def random_channels(graph: FeatureGraph, symbols: int, frames: int) -> np.ndarray:
    """Return float32[S, C, H + T], as gpuscalp.bench.batch makes one symbol's."""
    rng = np.random.default_rng(2)
    halo = ops_for("cpu").ladder.halo(graph.program)
    channels = rng.standard_t(5, (symbols, len(Channel), halo + frames)).astype(np.float32)
    for positive in (Channel.BUY_KUSDT, Channel.SELL_KUSDT, Channel.VARIANCE_BPS2):
        channels[:, positive] = np.abs(channels[:, positive])
    return channels


class Chunk:
    """One chunk of features on a device, with all that is worked with."""

    def __init__(self, ops: Ops, graph: FeatureGraph, channels: np.ndarray, *, threads: int = 1) -> None:
        self._ops = ops
        self._program, self._context = ops.tables(graph.program), ops.tables(graph.context)
        self._channels = ops.xp.asarray(channels)
        self._frames = channels.shape[2] - ops.ladder.halo(self._program)
        self._end_ns = ops.xp.arange(1, self._frames + 1, dtype=np.int64) * FRAME_NS
        self._out = ops.xp.empty((len(channels), len(graph), self._frames), np.float32)
        cuts = np.linspace(0, self._frames, (threads if ops.threaded else 1) + 1).astype(int)
        self._pieces = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
        self._scratch = [ops.ladder.batch_scratch(self._program, ops.tile_frames) for _ in self._pieces]

    def compute(self) -> Any:
        def piece(cut: tuple[int, int], scratch: Any) -> None:
            self._ops.ladder.batch(
                self._program, self._channels, *cut, self._ops.tile_frames, scratch, self._out
            )

        if len(self._pieces) == 1:
            piece(self._pieces[0], self._scratch[0])
        else:
            with ThreadPoolExecutor(len(self._pieces)) as pool:
                list(pool.map(piece, self._pieces, self._scratch))
        self._ops.context.context(self._context, self._end_ns, self._out)
        return self._out


def same_bits(cpu: np.ndarray, cuda: np.ndarray, what: str) -> None:
    """Refuse results of which a bit differs; any NaN is as good as any other.

    Raises
    ------
    ParityError
    """
    differ = (cpu.view(np.uint32) != cuda.view(np.uint32)) & ~(np.isnan(cpu) & np.isnan(cuda))
    if differ.any():
        raise ParityError(f"{what} of the two devices differ", value=int(differ.sum()))


def card(ops: Ops) -> Card:
    """Return the current device's multiprocessors, their float32 lanes and their highest clock."""
    device = ops.xp.cuda.Device()
    facts = device.attributes
    lanes = 64 if device.compute_capability in ("75", "80") else 128
    return Card(facts["MultiProcessorCount"], lanes, facts["ClockRate"] * 1e3)


def copy_bandwidth(ops: Ops, size: int = COPY_BYTES) -> float:
    """Return bytes read and written per second by a copy from the device's memory to itself."""
    source, to = (ops.xp.zeros(size, np.uint8) for _ in range(2))
    wait = ops.xp.cuda.get_current_stream().synchronize

    def copy() -> None:
        to[:] = source

    copy()
    return 2.0 * size / _seconds(copy, wait, repeats=9)


def _seconds(task: Callable[[], object], wait: Callable[[], object], *, repeats: int = 3) -> float:
    """Return the least wall time of a task and of what it has queued."""
    least = float("inf")
    wait()
    for _ in range(repeats):
        start = time.perf_counter()
        task()
        wait()
        least = min(least, time.perf_counter() - start)
    return least


# ---- the whole way --------------------------------------------------------------------------------------


def ticks_to_features(*, symbols: int = SYMBOLS, frames: int = 2_000, per_frame: int = 4) -> dict[str, Any]:
    """Time ``FeaturePipeline.batch`` on both devices over the same ticks; features stay on the device."""
    made = [stream.market(symbols, per_frame * symbols, frame) for frame in range(16)]
    batches = []
    for frame in range(frames):
        ticks = made[frame % len(made)].copy()
        ticks["exch_ns"] += stream.START_NS + frame * FRAME_NS
        batches.append(ticks)
    seconds: dict[str, float] = {}
    last: dict[str, np.ndarray] = {}
    for device in ("cpu", "cuda"):
        pipeline = FeaturePipeline(
            grid=GridConfig(lateness_ms=0),
            features=FeatureConfig(),
            instruments=stream.instruments(symbols),
            device=device,
            threads=len(os.sched_getaffinity(0)),
            chunk_frames=500,
            keep_on_device=True,
        )
        to_host = ops_for(device).to_host
        for _ in range(2):  # the first time compiles
            start = time.perf_counter()
            for chunk in pipeline.batch(batches):
                kept = chunk
            last[device] = np.array(to_host(kept.features))
            seconds[device] = time.perf_counter() - start
    same_bits(last["cpu"], last["cuda"], "features of ticks")
    ticks_count = frames * per_frame * symbols
    return {
        "ticks": ticks_count,
        "symbol_frames": symbols * frames,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "ticks_per_s": round(ticks_count / seconds["cuda"]),
        "ratio_cpu": seconds["cpu"] / seconds["cuda"],
    }


# ---- a peer ---------------------------------------------------------------------------------------------


def against_cudf(*, frames: int = 1_000_000, repeats: int = 5) -> dict[str, Any]:
    """Compare with cuDF's rolling windows on the columns that both can express.

    cuDF excludes the versions of Numba and pandas that are used here: ``$GPUSCALP_CUDF_PYTHON`` is an
    interpreter that has it (``benchmarks/peer_cudf.py``).

    Raises
    ------
    ParityError    a column is wrong, ours or cuDF's
    """
    ops = ops_for("cuda")
    graph = shared_set.shared_graph()
    halo = ops_for("cpu").ladder.halo(graph.program)
    channels = random_channels(graph, 1, frames)
    ours = Chunk(ops, graph, channels)
    error = shared_set.largest_error(ops.to_host(ours.compute())[0], channels[0])
    if error > shared_set.TOLERANCE:
        raise ParityError("a rolling column is wrong", value=error)
    wait = ops.xp.cuda.get_current_stream().synchronize
    found: dict[str, Any] = {
        "frames": frames,
        "columns": len(graph),
        "gpuscalp_s": _seconds(ours.compute, wait, repeats=repeats),
        "largest_relative_error": error,
    }
    python = os.environ.get("GPUSCALP_CUDF_PYTHON")
    if not python:
        return found | {"cudf": "skipped: GPUSCALP_CUDF_PYTHON names no interpreter that has cuDF"}
    ops.xp.get_default_memory_pool().free_all_blocks()
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "given.npz", Path(folder) / "seen.npz"
        kept = channels[0, : len(shared_set.CHANNELS), halo:]
        np.savez(given, channels=kept, windows=shared_set.WINDOWS, repeats=repeats)
        command = [python, str(ROOT / "benchmarks" / "peer_cudf.py"), str(out), str(given)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            why = (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1]
            return found | {"cudf": f"skipped: {why}"}
        with np.load(out) as seen:
            theirs = dict(seen)
    cudf_s = float(theirs.pop("seconds"))
    for name, values in theirs.items():
        operation, window = name.split(".")
        x = kept[0, -len(values) - int(window) + 1 :].astype(np.float64)
        wanted = shared_set._oracle(x, int(window), operation)
        off = np.abs(values[-len(wanted) :] - wanted).max()
        if not off <= shared_set.TOLERANCE * np.abs(wanted).max():
            raise ParityError("a column of cuDF's is not ours", where=name, value=float(off))
    return found | {"cudf_s": cudf_s, "ratio_cudf": cudf_s / found["gpuscalp_s"]}
