"""Each kind of damage to an archive, and the sentence that names it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuscalp.archive.info import describe
from gpuscalp.archive.ingest import import_sources
from gpuscalp.archive.verify import verify
from gpuscalp.errors import ArchiveError
from tests.archive import market


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    import_sources([market.write(tmp_path / "a.gz", market.lines(300))], tmp_path / "archive")
    return tmp_path / "archive"


def trades(archive: Path) -> Path:
    return next(archive.rglob("trades.parquet"))


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a part and make the manifest agree on its bytes, as a careless tool would."""
    pq.write_table(change(pq.read_table(file, partitioning=None)), file)
    manifest = file.parents[3] / "manifest.json"
    content: dict[str, Any] = json.loads(manifest.read_text())
    for part in content["parts"]:
        if (file.parents[3] / part["path"]) == file:
            part["bytes"] = file.stat().st_size
            part["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(content))


def test_intact_archive_has_no_problems(archive: Path) -> None:
    report = verify(archive)
    assert report.to_dict()["ok"]
    assert (report.files, report.rows) == (3, 301)
    report.raise_if_damaged(archive)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (lambda file: file.unlink(), "missing"),
    (flip, "size or sha256 differ"),
    (lambda file: rewrite(file, lambda table: table.slice(1)), "rows is"),
    (
        lambda file: rewrite(file, lambda table: table.take(pa.array([1, 0, *range(2, len(table))]))),
        "not sorted",
    ),
    (lambda file: rewrite(file, lambda table: pa.concat_tables([table, table])), "trades are there twice"),
    (lambda file: rewrite(file, lambda table: table.drop_columns(["side"])), "columns are not those"),
]


@pytest.mark.parametrize(("damage", "what"), DAMAGE, ids=[what for _, what in DAMAGE])
def test_damage_is_named(archive: Path, damage: Callable[[Path], None], what: str) -> None:
    damage(trades(archive))
    report = verify(archive)
    assert any(what in problem for problem in report.problems), report.problems
    with pytest.raises(ArchiveError, match="the archive is damaged"):
        report.raise_if_damaged(archive)


def test_file_that_the_manifest_does_not_name_is_listed(archive: Path) -> None:
    trades(archive).with_name("trades.7.parquet").write_bytes(b"")
    report = verify(archive)
    assert report.problems == []
    assert [Path(name).name for name in report.unlisted] == ["trades.7.parquet"]


def test_description_counts_what_is_there(archive: Path) -> None:
    answer = describe(archive)
    (symbol,) = answer["symbols"]
    assert symbol["rows"] == {"trades": 100, "quotes": 101, "books": 100, "marks": 0}
    assert symbol["instrument"]["tick_size_e8"] == 10**7
    assert answer["totals"]["rows"] == sum(day["rows"] for day in answer["days"]) == 301
    assert answer["totals"]["rejects"] == 0
    assert [source["name"] for source in answer["sources"]] == ["a.gz"]
