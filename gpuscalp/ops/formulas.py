"""Columns that are made from others by a formula, on the CPU.

Twin: cuda_formulas; kernel: kernels/formulas.cu.

Runs last, in place over float32[S, F, T] (the stream has T = 1). Every operation is rounded once, to float32.
"""

from __future__ import annotations

import math

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.ops.formula_program import STACK, Code, FormulaProgram
from gpuscalp.schema import F32

_TILE = 1024  # rows at a time: the stack stays in the first-level cache

_COLUMN = int(Code.COLUMN)
_NUMBER = int(Code.NUMBER)
_ADD = int(Code.ADD)
_SUBTRACT = int(Code.SUBTRACT)
_MULTIPLY = int(Code.MULTIPLY)
_DIVIDE = int(Code.DIVIDE)
_MIN = int(Code.MIN)
_MAX = int(Code.MAX)
_NEGATIVE = int(Code.NEGATIVE)
_ABS = int(Code.ABS)

_ZERO = np.float32(0.0)
_NAN = np.float32(np.nan)


def formulas(program: FormulaProgram, features: F32) -> None:
    """Write the columns of the formulas.

    Parameters
    ----------
    program : FormulaProgram     no formula reads the column of another one
    features : float32[S, F, T]  the other columns are read

    Notes
    -----
    A missing value (NaN) makes the result missing; so does a result that is not finite, such as x / 0.
    """
    if len(program.formulas):
        # An instruction goes along the longer axis: in a stream the symbols stand where the frames do else.
        _formulas(program, features if features.shape[2] > 1 else features.T)


@jit
def _formulas(program, features):  # type: ignore[no-untyped-def]
    stack = np.empty((STACK, _TILE), np.float32)
    for part in range(features.shape[0]):
        for start in range(0, features.shape[2], _TILE):
            past = min(start + _TILE, features.shape[2])
            for row in range(program.formulas.shape[0]):
                _evaluate(program, row, features[part, :, start:past], stack)


@jit
def _evaluate(program, row, features, stack):  # type: ignore[no-untyped-def]
    column, first, past = program.formulas[row]
    width = features.shape[1]
    top = -1
    for at in range(first, past):
        code, operand = program.code[at]
        if code == _COLUMN:
            top += 1
            stack[top, :width] = features[operand]
        elif code == _NUMBER:
            top += 1
            stack[top, :width] = program.numbers[operand]
        elif code >= _NEGATIVE:
            _one(code, stack[top, :width])
        else:
            top -= 1
            _two(code, stack[top, :width], stack[top + 1, :width])
    out = features[column]
    for i in range(width):
        value = stack[0, i]
        out[i] = value if value - value == _ZERO else _NAN


@jit
def _one(code, x):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        if code == _NEGATIVE:
            x[i] = -x[i]
        elif code == _ABS:
            x[i] = abs(x[i])
        else:
            x[i] = math.sqrt(x[i])


@jit
def _two(code, x, y):  # type: ignore[no-untyped-def]
    if code == _ADD:
        for i in range(x.size):
            x[i] = x[i] + y[i]
    elif code == _SUBTRACT:
        for i in range(x.size):
            x[i] = x[i] - y[i]
    elif code == _MULTIPLY:
        for i in range(x.size):
            x[i] = x[i] * y[i]
    elif code == _DIVIDE:
        for i in range(x.size):
            x[i] = x[i] / y[i]
    elif code == _MIN:
        for i in range(x.size):
            x[i] = y[i] if y[i] < x[i] or y[i] != y[i] else x[i]
    else:
        for i in range(x.size):
            x[i] = y[i] if y[i] > x[i] or y[i] != y[i] else x[i]
