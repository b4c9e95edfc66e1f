"""Columns of more than one symbol, or of the clock, on a GPU. Twin: context; kernel: kernels/context.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuscalp.ops.context_program import ContextProgram
from gpuscalp.ops.cuda_module import load_module
from gpuscalp.ops.device_arrays import require

THREADS = 256  # of a block: frames × symbols
FRAMES = 32  # of a block of `context`: neighbours in memory
TILE = 32  # edge of a block of `transpose`, as in the kernel


def context(program: ContextProgram, end_ns: Any, features: Any) -> None:
    """Write the leader, cross-sectional and time columns; see ``context.context``.

    Raises
    ------
    ShapeError    an array is of another type or shape, or not contiguous
    """
    symbol_count, feature_count, frame_count = features.shape
    require(features, "features", np.float32, (None, None, None))
    require(end_ns, "end_ns", np.int64, (frame_count,))
    _check_tables(program)
    counts = [
        len(table) for table in (program.leader_columns, program.mean_columns, program.relative_columns)
    ]
    columns = sum(counts) + len(program.time_columns)
    if columns == 0 or frame_count == 0 or symbol_count == 0:
        return
    width = min(FRAMES, frame_count, THREADS)
    load_module("context").get_function("context")(
        (-(-frame_count // width), columns),
        (width, THREADS // width),
        (
            program.leader,
            program.leader_columns,
            np.int64(counts[0]),
            program.mean_columns,
            np.int64(counts[1]),
            program.relative_columns,
            np.int64(counts[2]),
            program.time_columns,
            program.time_steps,
            program.table,
            end_ns,
            features,
            np.int64(symbol_count),
            np.int64(feature_count),
            np.int64(frame_count),
        ),
    )


def transpose(rows: Any, out: Any) -> None:
    """Write float32[S, F] from float32[F, S]; see ``context.transpose``.

    Raises
    ------
    ShapeError    an array is of another type or shape, or not contiguous
    """
    feature_count, symbol_count = rows.shape
    require(rows, "rows", np.float32, (None, None))
    require(out, "out", np.float32, (symbol_count, feature_count))
    if rows.size == 0:
        return
    load_module("context").get_function("transpose")(
        (-(-symbol_count // TILE), -(-feature_count // TILE)),
        (TILE, max(THREADS // TILE, 1)),
        (rows, out, np.int64(feature_count), np.int64(symbol_count)),
    )


def _check_tables(program: ContextProgram) -> None:
    require(program.leader, "program.leader", np.int64, (1,))
    for name in ("leader_columns", "mean_columns", "relative_columns"):
        require(getattr(program, name), f"program.{name}", np.int64, (None, 2))
    require(program.time_columns, "program.time_columns", np.int64, (None, 3))
    require(program.time_steps, "program.time_steps", np.int64, (len(program.time_columns),))
    require(program.table, "program.table", np.float32, (None,))
