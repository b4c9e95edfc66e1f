"""Formulas over columns as tables, shared by the CPU and CUDA twins and by the feature graph."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from gpuscalp.schema import F32, I64

STACK: Final = 8  # values that a formula may have waiting


class Code(IntEnum):
    """What an instruction does: takes its values from the top of a stack and leaves its result there."""

    COLUMN = 0  # operand: index on axis F
    NUMBER = 1  # operand: index into numbers
    ADD = 2
    SUBTRACT = 3
    MULTIPLY = 4
    DIVIDE = 5
    MIN = 6
    MAX = 7
    NEGATIVE = 8
    ABS = 9
    SQRT = 10


class FormulaProgram(NamedTuple):
    """Columns that are made from other columns of the same row.

    formulas : int64[n, 3]   (column, first instruction, instructions after the last)
    code : int64[m, 2]       (Code, operand), in postfix order
    numbers : float32[...]   never empty: a kernel gets its address
    """

    formulas: I64
    code: I64
    numbers: F32
