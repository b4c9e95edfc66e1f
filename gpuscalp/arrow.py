"""pyarrow, brought in so that no interruption is lost on the way.

At its first conversion pyarrow imports pandas, where it is installed, and throws away whatever is raised
meanwhile: a Ctrl-C would go unheard and leave half of pandas behind, of which the next conversion dies. Here
pandas is imported first, by the interpreter. It costs no more than it would a moment later.

Owns: the order of imports. Never: imported at the top of a file, for both are slow.
"""

from __future__ import annotations

import contextlib

with contextlib.suppress(ImportError):
    import pandas  # noqa: F401

import pyarrow as pa
import pyarrow.pandas_compat  # noqa: F401  # the little that pyarrow would import after pandas
import pyarrow.parquet as pq

__all__ = ["pa", "pq"]
