"""Digests of rows on a GPU. Twin: row_digest, which says what they are; kernel: kernels/row_digest.cu."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from gpuscalp.device import import_cupy
from gpuscalp.errors import ShapeError
from gpuscalp.ops.cuda_module import load_module
from gpuscalp.ops.device_arrays import require

THREADS: Final = 128  # of a block; the kernel declares the same bound
_ROWS: Final = 8  # of a block, as in the kernel
_MORE_MAX: Final = 3


def digest_rows(rows: Any, *more: Any, out: Any = None) -> Any:
    """Return the digest of each row; see ``row_digest.digest_rows``.

    With ``out`` one launch on the current stream, without an allocation.

    Parameters
    ----------
    more : at most three

    Raises
    ------
    ShapeError    an array is of another type or shape, or not contiguous, or there are too many
    """
    row_count = len(rows)
    require(rows, "rows", np.float32, (None,) * rows.ndim)
    if len(more) > _MORE_MAX:
        raise ShapeError(
            "too many further columns", where="more", value=len(more), fix=f"at most {_MORE_MAX}"
        )
    columns = [column.view(np.uint32) for column in more]
    for index, column in enumerate(columns):
        require(column, f"more[{index}]", np.uint32, (row_count,))
    out = import_cupy().empty(row_count, np.uint64) if out is None else out
    require(out, "out", np.uint64, (row_count,))
    if row_count == 0:
        return out
    words = rows.reshape(row_count, -1).view(np.uint32)
    # The kernel does not look at what stands in for a column that is not there.
    columns += [words] * (_MORE_MAX - len(more))
    load_module("row_digest").get_function("digest")(
        (-(-row_count // _ROWS),),
        (THREADS,),
        (words, np.int64(row_count), np.int64(words.shape[1]), *columns, np.int32(len(more)), out),
    )
    return out
