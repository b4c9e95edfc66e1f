"""The merge of many parts against all rows sorted at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet as pq

from gpuscalp.archive import Archive, streams
from gpuscalp.synthetic import VENUE, MarketSpec, SymbolSpec, write

SYMBOLS = tuple(f"S{index:02d}USDT" for index in range(40))


def test_the_work_of_merging_is_in_proportion_to_rows_and_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All open parts were asked at each group of any of them: 500 symbols took ten times what they hold."""
    listed = tuple(
        # Few rows, but of the first: its books are several groups.
        SymbolSpec(
            symbol, 55_000_000, 2_000, 10_000_000, 1_500, 60_000, 40.0 if symbol == SYMBOLS[0] else 0.2
        )
        for symbol in SYMBOLS
    )
    write(MarketSpec(duration_s=30, symbols=listed, book_interval_ms=10), tmp_path / "archive")
    archive = Archive.open(tmp_path / "archive")
    expected = sorted(
        (recv_ns, seq, SYMBOLS.index(part.symbol))
        for part in archive.manifest.parts
        for recv_ns, seq in zip(
            *pq.read_table(archive.path / part.path, columns=["recv_ns", "seq"]).to_pydict().values(),
            strict=True,
        )
    )
    asked: list[int] = []
    take = streams._Stream.take_before
    monkeypatch.setattr(
        streams._Stream, "take_before", lambda self, recv_ns: (asked.append(recv_ns), take(self, recv_ns))[1]
    )
    pieces = list(archive.arrivals(_made, VENUE, SYMBOLS))
    assert np.concatenate(pieces).tolist() == expected
    parts = archive.manifest.parts
    assert max(part.rows for part in parts if part.table == "books") > 2_048
    assert len(asked) <= len(parts) + len(expected) / 64


def _made(rows: dict[str, Any], table: Any, symbol_index: int) -> np.ndarray:
    made = np.empty(len(rows["recv_ns"]), [("recv_ns", "i8"), ("seq", "i8"), ("symbol", "i8")])
    made["recv_ns"], made["seq"], made["symbol"] = rows["recv_ns"], rows["seq"], symbol_index
    return made
