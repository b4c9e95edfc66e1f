"""Columns that need more than one symbol, or the clock, on the CPU.

Twin: cuda_context; kernel: kernels/context.cu.

Runs after the ladder, in place over float32[S, F, T] (the stream has T = 1).
"""

from __future__ import annotations

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.ops.context_program import ContextProgram
from gpuscalp.schema import F32, I64

_NAN = np.float32(np.nan)
_NS_PER_S = 1_000_000_000


@jit
def context(program: ContextProgram, end_ns: I64, features: F32) -> None:
    """Write the leader, cross-sectional and time columns.

    Parameters
    ----------
    program : ContextProgram
    end_ns : int64[T]            end of each frame
    features : float32[S, F, T]  the ladder's columns are read, the context's are written

    Notes
    -----
    Sums over symbols are float32 in the order of the symbols.
    """
    symbol_count, _, frame_count = features.shape
    leader = program.leader[0]
    _time(program, end_ns, features)
    for symbol in range(symbol_count):
        for row in range(program.leader_columns.shape[0]):
            source = program.leader_columns[row, 0]
            column = program.leader_columns[row, 1]
            for frame in range(frame_count):
                features[symbol, column, frame] = features[leader, source, frame] if leader >= 0 else _NAN
        if symbol > 0:
            for row in range(program.time_columns.shape[0]):
                column = program.time_columns[row, 0]
                for frame in range(frame_count):
                    features[symbol, column, frame] = features[0, column, frame]
    for row in range(program.mean_columns.shape[0]):
        for frame in range(frame_count):
            mean = _mean(features, program.mean_columns[row, 0], frame)
            for symbol in range(symbol_count):
                features[symbol, program.mean_columns[row, 1], frame] = mean
    for row in range(program.relative_columns.shape[0]):
        source = program.relative_columns[row, 0]
        column = program.relative_columns[row, 1]
        for frame in range(frame_count):
            mean = _mean(features, source, frame)
            for symbol in range(symbol_count):
                features[symbol, column, frame] = features[symbol, source, frame] - mean


@jit
def _mean(features, source, frame):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    count = 0
    for symbol in range(features.shape[0]):
        value = features[symbol, source, frame]
        if value == value:
            total = total + value
            count += 1
    return total / np.float32(count) if count > 0 else _NAN


@jit
def _time(program, end_ns, features):  # type: ignore[no-untyped-def]
    """Write the time columns of the first symbol; they are the same for all."""
    for row in range(program.time_columns.shape[0]):
        column = program.time_columns[row, 0]
        period_s = program.time_columns[row, 1]
        offset = program.time_columns[row, 2]
        for frame in range(end_ns.size):
            second = (end_ns[frame] // _NS_PER_S) % period_s
            features[0, column, frame] = program.table[offset + second // program.time_steps[row]]


def transpose(rows: F32, out: F32) -> None:
    """Write float32[S, F] from float32[F, S].

    Parameters
    ----------
    rows : float32[F, S]
    out : float32[S, F]   written
    """
    np.copyto(out, rows.T)
