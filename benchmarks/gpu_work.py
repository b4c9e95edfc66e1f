"""How much a batch of features moves and computes for each symbol and frame, counted from the graph's tables.

Owns: the count that a measured rate is compared with to say which ceiling binds, and what share of it was
reached. Never: measures.

An operation is one of + − × ÷ √ or a comparison of float32; a sign costs nothing. Divisions and roots take a
GPU several instructions, so the arithmetic ceiling that comes of this is an upper one. Bytes are those that
must pass the GPU's memory: each group reads the channels that it lifts once, and each column is written once;
what is read again right after is in a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gpuscalp.ops.context_program import ContextProgram
from gpuscalp.ops.ladder_codes import (
    ELEMENT_A,
    ELEMENT_B,
    FINISH,
    FINISH_COUNT,
    LEVEL,
    OP,
    SIZE,
    STAT,
    TOP,
    Op,
    Program,
    Stat,
)

_BYTES: Final = 4
# Lanes of a multiprocessor that finish a float32 operation in each cycle (compute capability 8.6 to 12.0; a
# multiprocessor of 7.5 and 8.0 has 64).
LANES: Final = 128

# Channels that a group reads where it is not one.
_INPUTS: Final = {Op.SUMS: 6, Op.CROSS: 2}
_LIFT: Final = {Op.SUMS: 5, Op.PATH: 5}
_MERGE: Final[dict[Op, Callable[[int], int]]] = {
    Op.MOMENTS: lambda _: 7,
    Op.EXTREMES: lambda _: 4,
    Op.SUMS: lambda size: size,
    Op.CROSS: lambda _: 20,
    Op.PATH: lambda _: 18,
    Op.DECAY: lambda size: 2 * size,
    Op.SPECTRUM: lambda size: 4 * size,
}
_FINISH: Final = {
    Stat.STD: 2,
    Stat.ZSCORE: 7,
    Stat.FLOW_IMBALANCE: 3,
    Stat.RSI: 3,
    Stat.ILLIQUIDITY: 3,
    Stat.TOXICITY: 3,
    Stat.VWAP_DEVIATION: 3,
    Stat.VOLATILITY: 2,
    Stat.BETA: 3,
    Stat.CORRELATION: 5,
    Stat.ROLL_MEASURE: 2,
    Stat.RANGE_POSITION: 3,
    Stat.RANGE_WIDTH: 1,
    Stat.SLOPE: 1,
    Stat.RESIDUAL_STD: 6,
    Stat.PATH_ZSCORE: 4,
    Stat.DECAYED_MEAN: 1,
    Stat.DECAYED_DIFFERENCE: 3,
    Stat.AMPLITUDE: 2,
    Stat.DOMINANT_FREQUENCY: 2,
    Stat.DOMINANT_SHARE: 3,
    Stat.PHASE_COS: 3,
    Stat.PHASE_SIN: 3,
}
_PREPARE_BIN: Final = 18
_PREPARE: Final = 2


@dataclass(frozen=True, slots=True)
class Work:
    """Of one symbol at one frame."""

    read_bytes: float
    written_bytes: float
    operations: float

    def __add__(self, other: Work) -> Work:
        return Work(
            self.read_bytes + other.read_bytes,
            self.written_bytes + other.written_bytes,
            self.operations + other.operations,
        )


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The smallest times that a device allows, and which of them binds.

    Attributes
    ----------
    memory_s, arithmetic_s : if it did nothing else
    """

    memory_s: float
    arithmetic_s: float

    @property
    def binds(self) -> str:
        return "memory" if self.memory_s >= self.arithmetic_s else "arithmetic"

    def share(self, seconds: float) -> float:
        """Return the share of the binding ceiling that a measured time reaches."""
        return max(self.memory_s, self.arithmetic_s) / seconds


def ladder_work(program: Program, *, tile_frames: float, step_frames: Callable[[Op, int], int]) -> Work:
    """Return the work of ``ladder.batch`` on a GPU.

    Parameters
    ----------
    program : tables on the host
    tile_frames : frames that a block walks along; infinite leaves the repeated halo out
    step_frames : by family and elements, the frames of a block at a time; it walks in whole steps
    """
    total = Work(0.0, 0.0, 0.0)
    for group in program.groups:
        op, size, top = Op(int(group[OP])), int(group[SIZE]), int(group[TOP])
        reach = (1 << top) - 1
        lifted = 1.0 + reach / tile_frames
        # Merges run in every thread of a step, wanted or not.
        steps = 1.0
        if tile_frames != float("inf"):
            step = step_frames(op, size)
            steps = step * (-(-reach // step) + -(-int(tile_frames) // step)) / tile_frames
        first = int(group[FINISH])
        rows = program.finishes[first : first + int(group[FINISH_COUNT])]
        operations = _LIFT.get(op, 0) * lifted + top * _MERGE[op](size) * steps + _finish(op, size, rows)
        reads = _INPUTS.get(op, 1) * lifted
        total += Work(_BYTES * reads, float(_BYTES * len(rows)), operations)
    return total


def context_work(context: ContextProgram, symbol_count: int) -> Work:
    """Return the work of ``context.context``: it reads the ladder's columns back."""
    leader, mean, relative, time = (
        len(table)
        for table in (
            context.leader_columns,
            context.mean_columns,
            context.relative_columns,
            context.time_columns,
        )
    )
    written = leader + mean + relative + time
    read = (leader + time) / symbol_count + mean + relative
    # Each value is compared with itself and added; then one division for all symbols.
    operations = (mean + relative) * (2 + 1 / symbol_count) + relative
    return Work(_BYTES * read, float(_BYTES * written), operations)


def ceiling(
    work: Work,
    symbol_frames: float,
    *,
    bytes_per_s: float,
    multiprocessors: int,
    clock_hz: float,
    lanes: int = LANES,
) -> Ceiling:
    """Return the smallest times for so many symbol-frames.

    Parameters
    ----------
    bytes_per_s : bytes read and written per second by a plain copy, measured
    multiprocessors, clock_hz, lanes : of the device
    """
    moved = (work.read_bytes + work.written_bytes) * symbol_frames
    return Ceiling(
        memory_s=moved / bytes_per_s,
        arithmetic_s=work.operations * symbol_frames / (multiprocessors * lanes * clock_hz),
    )


def _finish(op: Op, size: int, rows: Any) -> float:
    bins = size // 2
    total = 0
    if op == Op.SPECTRUM:
        total += len({int(row[LEVEL]) for row in rows}) * ((bins - 2) * _PREPARE_BIN + _PREPARE)
    for row in rows:
        stat = Stat(int(row[STAT]))
        if stat == Stat.BAND_SHARE:
            total += int(row[ELEMENT_B]) - int(row[ELEMENT_A]) - 1 + 2
        elif stat == Stat.CENTROID:
            total += 2 * (bins - 2) + 3
        elif stat == Stat.PARTICIPATION:
            total += 3 * (bins - 2) + 2
        else:
            total += _FINISH.get(stat, 0)
    return float(total)
