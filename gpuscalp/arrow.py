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

from gpuscalp.errors import UsageError, is_out_of_memory

__all__ = ["numbers_of", "pa", "pq", "table_of", "timed"]


def table_of(rows: Any) -> pa.Table:
    """Return as an Arrow table what can be made one: a data frame of any library, or a dict of arrays.

    Raises
    ------
    UsageError    it cannot, or two columns have the same name
    """
    with warnings.catch_warnings():
        # Of times pyarrow 25 asks pandas 3.1 in a way that pandas 4 will answer otherwise.
        warnings.filterwarnings("ignore", "Series.values returning", DeprecationWarning)
        try:
            table = pa.table(rows)
        except (pa.ArrowException, AttributeError, LookupError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise UsageError(
                "no table can be made of the rows",
                value=f"{type(rows).__name__}: {' '.join(str(error).split())[:200]}",
                fix="an Arrow table, a data frame or a dict of arrays of one length, each of one type",
            ) from None
    names = table.column_names
    if len(set(names)) < len(names):
        raise UsageError("two columns have the same name", value=max(names, key=names.count))
    return table


def numbers_of(table: pa.Table, name: str) -> Any:
    """Return a column of numbers as an array; a missing value is NaN.

    Raises
    ------
    UsageError    there is no such column, or it holds something else: a text would be read as a number, and
        a time as nanoseconds
    """
    if name not in table.column_names:
        raise UsageError("a column of the rows is missing", value=name)
    kind = table[name].type
    if not (pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)) or (
        pa.types.is_temporal(kind)
    ):
        raise UsageError("a column of the rows must hold numbers", where=name, value=str(kind))
    return table[name].to_numpy()


def timed(table: Any) -> Any:
    """Return a table whose columns with names that end in ``_ns`` are timestamps, ns UTC."""
    for index, field in enumerate(table.schema):
        if field.name.endswith("_ns"):
            times = table.column(index).cast(pa.timestamp("ns", tz="UTC"))
            table = table.set_column(index, field.name, times)
    return table
