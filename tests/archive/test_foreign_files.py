"""An archive that somebody else has made: what its files are, whatever its manifest says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from gpuscalp.archive import Archive
from gpuscalp.archive.manifest import NAME
from gpuscalp.archive.tables import TRADES, footer_crc32
from gpuscalp.archive.verify import verify
from gpuscalp.errors import ArchiveError
from gpuscalp.synthetic import MarketSpec, write
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS


@pytest.mark.parametrize("way", ["another column", "texts", "a column less", "no times", "many rows"])
def test_file_of_another_form_is_refused_whatever_its_checksums_say(tmp_path: Path, way: str) -> None:
    """It was a KeyError, an AttributeError or a TypeError; and a file of some kilobytes took all memory."""
    write(MarketSpec(duration_s=2, symbols=DEFAULT_SYMBOLS[:1]), tmp_path)
    file = next(tmp_path.rglob("trades.parquet"))
    table = pq.read_table(file)
    if way == "another column":
        table = table.append_column("more", table["seq"])
    elif way == "texts":
        table = table.set_column(0, "recv_ns", pa.array(["now"] * len(table)))
    elif way == "a column less":
        table = table.drop(["qty_e8"])
    elif way == "many rows":
        table = pa.concat_tables([table] * TRADES.group_rows).combine_chunks()
    pq.write_table(table, file, write_statistics=way != "no times")
    with file.open("rb") as written:
        facts = {"bytes": file.stat().st_size, "footer_crc32": footer_crc32(written), "rows": len(table)}
    manifest = json.loads((tmp_path / NAME).read_text())
    (part,) = (part for part in manifest["parts"] if part["table"] == "trades")
    part |= facts | {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (tmp_path / NAME).write_text(json.dumps(manifest))
    with pytest.raises(ArchiveError, match="damaged"):
        list(Archive.open(tmp_path).tick_batches("synthetic"))
    assert any(
        "trades.parquet: a file of the archive is damaged" in each for each in verify(tmp_path).problems
    )
