"""The ladder on a GPU. Twin: ladder, whose docstrings say what is computed; kernel: kernels/ladder.cu.

Nothing here waits for the device: calls queue on the current stream, and their order there is their order.
What a batch launches runs on streams of its own, between what was queued there before and what comes after.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpuscalp.device import import_cupy
from gpuscalp.ops import ladder as cpu
from gpuscalp.ops.copies import to_device, to_host
from gpuscalp.ops.cuda_module import DEFAULT_DYNAMIC_SHARED_BYTES, load_module
from gpuscalp.ops.device_arrays import require
from gpuscalp.ops.ladder import StepState
from gpuscalp.ops.ladder_codes import (
    FINISH_COUNT,
    FINISH_FIELDS,
    GROUP_FIELDS,
    MAX_SPANS,
    OP,
    SIZE,
    SPECTRUM_BINS,
    TOP,
    Op,
    Program,
)

STEP_THREADS = 64  # of a block of `step`, as in the kernel; one thread per symbol
BATCH_THREADS = 128  # of a block of `batch_…`, as in the kernel: a power of two; neighbouring frames
# Frames that a block of `batch_…` walks along. Before them it computes the halo of its windows, which another
# block computes too: 6 % more for the longest windows of the default graph (511 frames), 3 % for its spectra.
TILE_FRAMES = 8192
# Fewer blocks leave multiprocessors idle: then tiles are shortened, down to the length of the halo. An H100
# has room for about as many at a time of the families that take the most shared memory.
BATCH_BLOCKS = 1024

# FRAMES and WORDS of the families in ladder.cu, by how the names of their entry points end: frames that a
# thread has at a time, and floats of an element in shared memory. DECAY is compiled twice: for up to so many
# spans.
_LAYOUTS = {
    "moments": (4, 2),
    "extremes": (4, 2),
    "sums": (2, 10),
    "cross": (4, 6),
    "path": (4, 6),
    "decay4": (4, 4),
    f"decay{MAX_SPANS}": (2, 10),
    "spectrum": (2, 20),
}
_ROW_BYTES = 16  # of a finish in shared memory


def ring_rows(program: Program) -> int:
    """Return R, the number of rows of StepState.rings."""
    return cpu.ring_rows(_on_host(program))


def halo(program: Program) -> int:
    """Return how many frames before the first one the batch needs."""
    return cpu.halo(_on_host(program))


def new_step_state(program: Program, symbol_count: int) -> StepState:
    """Return the state before the first frame, as CuPy arrays."""
    cupy = import_cupy()
    rings = cupy.full((ring_rows(program), symbol_count), np.nan, np.float32)
    return StepState(rings, cupy.zeros(1, np.int64))


class Launch(NamedTuple):
    """The groups of one entry point whose longest windows are alike: what one launch of the batch computes.

    entry : the kernel's name
    chosen : int32[n]     CuPy; rows of Program.groups
    reach : frames that a window looks back
    shared_bytes : shared memory of a block
    stream : CuPy; where it is launched
    """

    entry: str
    chosen: Any
    reach: int
    shared_bytes: int
    stream: Any


def batch_scratch(program: Program, tile: int) -> tuple[Launch, ...]:  # noqa: ARG001
    """Return the launches of a batch: what is worked with lies in registers and shared memory.

    One for each entry point and length of windows: a block gets no more shared memory than its group needs.
    Those that need the most come first: at the end small blocks fill up the multiprocessors.
    """
    groups = _on_host(program).groups
    _check_program(groups)
    stream = import_cupy().cuda.Stream
    alike: dict[tuple[str, int], list[int]] = {}
    for row, group in enumerate(groups):
        alike.setdefault((_family(Op(group[OP]), int(group[SIZE])), int(group[TOP])), []).append(row)
    launches = [
        Launch(
            f"batch_{family}",
            to_device(np.array(rows, np.int32)),
            (1 << top) - 1,
            _shared_bytes(family, top, int(groups[rows, FINISH_COUNT].max())),
            stream(non_blocking=True),
        )
        for (family, top), rows in alike.items()
    ]
    return tuple(sorted(launches, key=lambda launch: -launch.shared_bytes))


def _shared_bytes(family: str, top: int, finish_count: int) -> int:
    """Return the bytes of shared memory of a block; batch_group in ladder.cu says what lies there.

    Parameters
    ----------
    family : of a group
    top : its highest level
    finish_count : its columns
    """
    frames, words = _LAYOUTS[family]
    elements = frames * BATCH_THREADS + (1 << top) - 1
    if family == "spectrum":
        elements += top + 1  # its table of twiddles, as many numbers for each level
    return _ROW_BYTES * (finish_count + 1) + 4 * words * elements


def step_frames(op: Op, size: int) -> int:
    """Return how many frames a block of ``batch_…`` computes at a time.

    Parameters
    ----------
    op : family of a group
    size : its numbers in an element
    """
    frames, _ = _LAYOUTS[_family(op, size)]
    return frames * BATCH_THREADS


def _family(op: Op, size: int) -> str:
    if op == Op.DECAY:
        return "decay4" if size <= 4 else f"decay{MAX_SPANS}"
    return op.name.lower()


def _tile_frames(launch: Launch, strips: int, frame_count: int, tile: int) -> int:
    """Return the frames for each block: ``tile``, or fewer where there would be too few blocks.

    Parameters
    ----------
    strips : symbols × groups
    """
    wanted = -(-BATCH_BLOCKS // strips)  # tiles of each strip
    return max(min(tile, -(-frame_count // wanted)), min(tile, launch.reach), 1)


def step_scratch(program: Program, symbol_count: int) -> Any:
    """Return an empty array: a thread keeps its element in registers."""
    _check_program(_on_host(program).groups)
    return import_cupy().empty((3, 0, symbol_count), np.float32)


def batch(program: Program, channels: Any, first: int, last: int, tile: int, scratch: Any, out: Any) -> None:
    """Compute all columns of all symbols for frames first to last; see ``ladder.batch``.

    Parameters
    ----------
    scratch : from batch_scratch, on the device that is current now; may be shared

    Raises
    ------
    ShapeError    an array is of another type or shape, or not contiguous
    DeviceError   windows so long that a block's shared memory does not hold them on this GPU
    """
    _check_tables(program)
    symbol_count, column_count, frame_count = out.shape
    _, channel_count, frames_with_halo = channels.shape
    require(channels, "channels", np.float32, (symbol_count, channel_count, None))
    require(out, "out", np.float32, (symbol_count, column_count, None))
    assert 0 <= first <= last <= frame_count, (first, last, frame_count)
    assert tile > 0, tile
    if first == last or symbol_count == 0:
        return
    module, cuda = load_module("ladder"), import_cupy().cuda
    current, begun = cuda.get_current_stream(), cuda.Event(disable_timing=True)
    begun.record(current)
    # Side by side: no launch fills the GPU to its end, and what one leaves (registers, shared memory, time in
    # which it waits) another can use.
    for launch in scratch:
        own = _tile_frames(launch, symbol_count * len(program.groups), last - first, tile)
        most = max(launch.shared_bytes, DEFAULT_DYNAMIC_SHARED_BYTES)
        kernel = module.get_function(launch.entry, max_dynamic_shared_bytes=most)
        launch.stream.wait_event(begun)
        with launch.stream:
            kernel(
                (symbol_count * -(-(last - first) // own), len(launch.chosen)),
                (BATCH_THREADS,),
                (
                    program.groups,
                    launch.chosen,
                    program.finishes,
                    program.constants,
                    channels,
                    np.int64(channel_count),
                    np.int64(frames_with_halo - frame_count),
                    np.int64(first),
                    np.int64(last),
                    np.int64(own),
                    out,
                    np.int64(column_count),
                    np.int64(frame_count),
                ),
                shared_mem=launch.shared_bytes,
            )
        done = cuda.Event(disable_timing=True)
        done.record(launch.stream)
        current.wait_event(done)


def step(program: Program, channels: Any, state: StepState, scratch: Any, out: Any) -> None:
    """Compute all columns of all symbols for the newest frame; see ``ladder.step``.

    Parameters
    ----------
    scratch : float32[3, 0, S]   from step_scratch

    Raises
    ------
    ShapeError    an array is of another type or shape, or not contiguous
    """
    _check_tables(program)
    _, symbol_count = channels.shape
    group_count = len(program.groups)
    require(channels, "channels", np.float32, (None, symbol_count))
    require(state.rings, "state.rings", np.float32, (None, symbol_count))
    require(state.clock, "state.clock", np.int64, (1,))
    require(scratch, "scratch", np.float32, (3, 0, symbol_count))
    require(out, "out", np.float32, (None, symbol_count))
    module = load_module("ladder")
    if symbol_count > 0 and group_count > 0:
        module.get_function("step")(
            (-(-symbol_count // STEP_THREADS), group_count),
            (STEP_THREADS,),
            (
                program.groups,
                program.finishes,
                program.constants,
                channels,
                state.rings,
                state.clock,
                out,
                np.int64(symbol_count),
            ),
        )
    module.get_function("advance_clock")((1,), (1,), (state.clock,))


def _on_host(program: Program) -> Program:
    """Return the tables as NumPy arrays. It waits for the device: for set-up, never for a step."""
    return Program(*(to_host(table) for table in program))


def _check_tables(program: Program) -> None:
    require(program.groups, "program.groups", np.int64, (None, GROUP_FIELDS))
    require(program.finishes, "program.finishes", np.int64, (None, FINISH_FIELDS))
    require(program.constants, "program.constants", np.float32, (None,))


def _check_program(groups: Any) -> None:
    spans = groups[groups[:, OP] == Op.DECAY, SIZE]
    assert not spans.size or spans.max() <= MAX_SPANS, f"a DECAY has at most {MAX_SPANS} spans"
    spectra = groups[groups[:, OP] == Op.SPECTRUM, SIZE]
    assert (spectra == 2 * SPECTRUM_BINS).all(), f"a SPECTRUM has {SPECTRUM_BINS} bins"
