"""Columns that are made from others by a formula, on a GPU. Twin: formulas; kernel: kernels/formulas.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuscalp.ops.cuda_module import load_module
from gpuscalp.ops.device_arrays import require
from gpuscalp.ops.formula_program import FormulaProgram

THREADS = 128  # of a block, as in the kernel: one thread per symbol and frame


def formulas(program: FormulaProgram, features: Any) -> None:
    """Write the columns of the formulas; see ``formulas.formulas``.

    Raises
    ------
    ShapeError    an array is of another type or shape, or not contiguous
    """
    symbol_count, feature_count, frame_count = features.shape
    require(features, "features", np.float32, (None, None, None))
    require(program.formulas, "program.formulas", np.int64, (None, 3))
    require(program.code, "program.code", np.int64, (None, 2))
    require(program.numbers, "program.numbers", np.float32, (None,))
    rows = symbol_count * frame_count
    if len(program.formulas) == 0 or rows == 0:
        return
    load_module("formulas").get_function("formulas")(
        (-(-rows // THREADS), len(program.formulas)),
        (THREADS,),
        (
            program.formulas,
            program.code,
            program.numbers,
            features,
            np.int64(symbol_count),
            np.int64(feature_count),
            np.int64(frame_count),
        ),
    )
