"""One Parquet file under construction.

Owns: its row groups, encodings and checksums, and the facts that the manifest keeps of it. Never: decides
what goes into it.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpuscalp.archive.manifest import Part
from gpuscalp.archive.tables import Table, arrow_schema, crossed_count, footer_crc32

if TYPE_CHECKING:
    from gpuscalp.arrow import pq


class OpenPart:
    """A file that takes rows until ``close`` or ``discard``.

    Attributes
    ----------
    sources : digests of those that the rows may be of, in the order in which they came
    """

    def __init__(self, table: Table, venue: str, symbol: str, day: str, path: str, staging: Path) -> None:
        from gpuscalp.arrow import pq

        self._table, self._venue, self._symbol, self._day, self._path = table, venue, symbol, day, path
        self._file = staging / path.replace("/", "+")
        self._schema = arrow_schema(table)
        leaves = [f"{name}.list.element" if name in table.levels else name for name in self._schema.names]
        narrow = {"side", "quality"}
        self._writer: pq.ParquetWriter = pq.ParquetWriter(
            self._file,
            self._schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=[name for name in leaves if name in narrow],
            # Neighbouring values are close: deltas are a third of the size of plain zstd on quotes.
            column_encoding={name: "DELTA_BINARY_PACKED" for name in leaves if name not in narrow},
            store_schema=True,
            write_page_checksum=True,
        )
        self.sources: dict[str, None] = {}
        self._buffer: list[dict[str, npt.NDArray[Any]]] = []
        self._buffered = 0
        self._rows = self._crossed = self._flagged = self._price_gcd = self._qty_gcd = 0
        self._min_qty = 0
        self._recv: tuple[int, int] | None = None
        self._exch: tuple[int, int] | None = None
        self._last_seq = -1

    def append(self, rows: dict[str, npt.NDArray[Any]], sources: Iterable[str]) -> None:
        self.sources.update(dict.fromkeys(sources))
        count = len(rows["recv_ns"])
        size = self._table.group_rows
        start = 0
        while start < count:
            taken = min(count - start, size - self._buffered)
            # Copied: the caller may reuse its arrays.
            self._buffer.append({name: values[start : start + taken].copy() for name, values in rows.items()})
            self._buffered += taken
            start += taken
            if self._buffered == size:
                self._flush()

    def close(self) -> Part:
        self._flush()
        self._writer.close()
        with self._file.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            footer = footer_crc32(file)
        assert self._recv is not None
        assert self._exch is not None
        return Part(
            venue=self._venue,
            symbol=self._symbol,
            day=self._day,
            table=self._table.name,
            path=self._path,
            rows=self._rows,
            first_recv_ns=self._recv[0],
            last_recv_ns=self._recv[1],
            first_exch_ns=self._exch[0],
            last_exch_ns=self._exch[1],
            last_seq=self._last_seq,
            crossed=self._crossed,
            flagged=self._flagged,
            price_gcd_e8=self._price_gcd,
            qty_gcd_e8=self._qty_gcd,
            min_qty_e8=self._min_qty,
            bytes=self._file.stat().st_size,
            sha256=digest,
            sources=tuple(self.sources),
            footer_crc32=footer,
        )

    def discard(self) -> None:
        self._buffer.clear()
        self._writer.close()

    def _flush(self) -> None:
        from gpuscalp.arrow import pa

        if self._buffered == 0:
            return
        columns = {name: np.concatenate([rows[name] for rows in self._buffer]) for name in self._buffer[0]}
        self._buffer.clear()
        self._buffered = 0
        self._observe(columns)
        arrays = [
            pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=self._schema.field(name).type)
            if name in self._table.levels
            else pa.array(values)
            for name, values in columns.items()
        ]
        self._writer.write_table(
            pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=self._table.group_rows
        )

    def _observe(self, columns: dict[str, npt.NDArray[Any]]) -> None:
        """Fold the rows into the facts of the manifest."""
        recv, exch = columns["recv_ns"], columns["exch_ns"]
        self._rows += len(recv)
        self._recv = (int(recv[0]) if self._recv is None else self._recv[0], int(recv[-1]))
        low, high = int(exch.min()), int(exch.max())
        self._exch = (
            (low, high) if self._exch is None else (min(low, self._exch[0]), max(high, self._exch[1]))
        )
        self._last_seq = max(self._last_seq, int(columns["seq"].max()))
        self._flagged += int(np.count_nonzero(columns["quality"]))
        for name in self._table.prices:
            self._price_gcd = math.gcd(self._price_gcd, int(np.gcd.reduce(columns[name], axis=None)))
        for name in self._table.quantities:
            quantities = columns[name]
            self._qty_gcd = math.gcd(self._qty_gcd, int(np.gcd.reduce(quantities, axis=None)))
            positive = quantities[quantities > 0]
            if positive.size:
                least = int(positive.min())
                self._min_qty = min(self._min_qty, least) if self._min_qty else least
        if "bid_price_e8" in columns:
            self._crossed += crossed_count(columns)
