"""What the CUDA launchers ask of the arrays that they pass to a kernel.

A kernel knows an array by its address alone: a wrong shape or type is not an error there but a wrong result,
or a fault that ends the process. Hence the check before the launch, in the terms of the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpuscalp.errors import ShapeError


def require(array: Any, name: str, dtype: npt.DTypeLike, shape: tuple[int | None, ...]) -> None:
    """Check one array.

    Parameters
    ----------
    array : CuPy array
    name : str                     of the argument, for the message
    dtype : its exact type
    shape : its shape; None where any extent will do

    Raises
    ------
    ShapeError    the type or the shape is another, or the array is not C-contiguous
    """
    fits = len(array.shape) == len(shape) and all(
        wanted is None or wanted == found for wanted, found in zip(shape, array.shape, strict=True)
    )
    if array.dtype != np.dtype(dtype) or not fits or not array.flags.c_contiguous:
        order = "" if array.flags.c_contiguous else ", not contiguous"
        wanted_shape = ", ".join("any" if extent is None else str(extent) for extent in shape)
        raise ShapeError(
            "wrong array for a kernel",
            where=name,
            value=f"{array.dtype}{tuple(array.shape)}{order}",
            fix=f"{np.dtype(dtype)}({wanted_shape}), C-contiguous",
        )
