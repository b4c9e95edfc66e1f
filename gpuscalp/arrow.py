"""pyarrow, brought in so that no interruption is lost on the way.

At its first conversion pyarrow imports pandas, where it is installed, and throws away whatever is raised
meanwhile: a Ctrl-C would go unheard and leave half of pandas behind, of which the next conversion dies. Here
pandas is imported first, by the interpreter. It costs no more than it would a moment later.

Owns: the order of imports, and how tables are taken from people and shown to them. Never: imported at the top
of a file, for both are slow.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

with contextlib.suppress(ImportError):
    import pandas  # noqa: F401

import pyarrow as pa
import pyarrow.pandas_compat  # the little that pyarrow would import after pandas
import pyarrow.parquet as pq

__all__ = ["pa", "pq", "table_of", "timed"]


def table_of(rows: Any) -> pa.Table:
    """Return as an Arrow table what can be made one: a data frame of any library, or a dict of arrays."""
    with warnings.catch_warnings():
        # Of times pyarrow 25 asks pandas 3.1 in a way that pandas 4 will answer otherwise.
        warnings.filterwarnings("ignore", "Series.values returning", DeprecationWarning)
        return pa.table(rows)


def timed(table: Any) -> Any:
    """Return a table whose columns with names that end in ``_ns`` are timestamps, ns UTC."""
    for index, field in enumerate(table.schema):
        if field.name.endswith("_ns"):
            times = table.column(index).cast(pa.timestamp("ns", tz="UTC"))
            table = table.set_column(index, field.name, times)
    return table
