"""The tables of the context columns, shared by the CPU and CUDA twins and by the feature graph."""

from __future__ import annotations

from typing import NamedTuple

from gpuscalp.schema import F32, I64


class ContextProgram(NamedTuple):
    """Which columns are made from which.

    leader : int64[1]              index of the leader symbol, -1 = not among the symbols
    leader_columns : int64[n, 2]   (source, column): the leader's source column, for every symbol
    mean_columns : int64[m, 2]     (source, column): mean of the source over the symbols where it is not NaN
    relative_columns : int64[r, 2] (source, column): the symbol's source less that mean
    time_columns : int64[k, 3]     (column, period in s, offset into table): table[second of period / step]
    time_steps : int64[k]          seconds per table entry
    table : float32[...]
    """

    leader: I64
    leader_columns: I64
    mean_columns: I64
    relative_columns: I64
    time_columns: I64
    time_steps: I64
    table: F32
