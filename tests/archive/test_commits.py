"""When an import commits, and what a kill leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpuscalp.archive import Archive, assembly, manifest, writer
from gpuscalp.archive.ingest import import_sources
from gpuscalp.archive.verify import verify
from tests.archive import market


def test_many_small_files_are_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rewrote the whole manifest: of thousands that took longer than all else. A part still is only of
    the files that it has rows of."""
    saved, save = [], manifest.save
    monkeypatch.setattr(manifest, "save", lambda *args: (saved.append(1), save(*args)))
    lines = {name: market.lines(299, symbol=name, step_ns=5 * 10**8) for name in ("BTCUSDT", "ETHUSDT")}
    files = [
        market.write(tmp_path / f"{name}.{at}.0", body[at : at + 50])
        for name, body in lines.items()
        for at in range(0, 300, 50)
    ]
    import_sources(files, tmp_path / "archive")
    assert len(saved) == 1
    known = manifest.load(tmp_path / "archive")
    assert len(known.sources) == len(files)
    names = {source.digest: source.name for source in known.sources}
    for part in known.parts:
        at = {int(names[digest].split(".")[1]) for digest in part.sources}
        # Midnight comes with the line 120.
        assert at == set(range(0, 150, 50) if part.day == "2024-07-18" else range(100, 300, 50))
        assert all(names[digest].startswith(part.symbol) for digest in part.sources)
    import_sources(files[::-1], tmp_path / "archive")
    assert len(saved) == 1


def test_gaps_are_of_the_file_that_has_them_and_are_told_once(tmp_path: Path) -> None:
    """Of days of one commit the last had them all, and a day that was read again had its own anew."""
    lines = market.lines(900)
    files = []
    for day, lost in enumerate(({30, 60}, set(), {101})):
        body = lines[:301] if day == 0 else lines[1 + 300 * day : 301 + 300 * day]
        kept = [line for at, line in enumerate(body) if at not in lost]
        files.append(market.write(tmp_path / f"d{day}.gz", kept))
    daily = [import_sources(files[: day + 1], tmp_path / "daily") for day in range(3)]
    assert [report.sources[-1].gaps for report in daily] == [2, 0, 1]
    at_once = import_sources(files, tmp_path / "whole")
    assert [source.gaps for source in at_once.sources] == [2, 0, 1]
    gaps = [
        sorted((gap.first_id, gap.source) for gap in manifest.load(tmp_path / name).gaps)
        for name in ("daily", "whole")
    ]
    assert gaps[0] == gaps[1]
    assert len(set(gaps[0])) == len(gaps[0]) == 3


KILLED = """
import os, signal, sys
from gpuscalp.archive import assembly, manifest, writer
from gpuscalp.archive.ingest import import_sources

calls = {"commit": 0, "save": 0, "append": 0}
point, limit = sys.argv[1], int(sys.argv[2])
assembly.COMMIT_BYTES = writer.COMMIT_BYTES = int(sys.argv[3])

def dying(name, function):
    def wrapped(*args, **kwargs):
        calls[name] += 1
        if name == point and calls[name] == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped

writer.ArchiveWriter.commit = dying("commit", writer.ArchiveWriter.commit)
writer.manifests.save = dying("save", writer.manifests.save)
writer.OpenPart.append = dying("append", writer.OpenPart.append)
import_sources(sys.argv[5:], sys.argv[4])
"""


@pytest.mark.parametrize(("point", "limit"), [("append", 2), ("save", 1), ("commit", 2), ("save", 2)])
def test_killed_import_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, limit: int
) -> None:
    """Killed while rows are written, between the renames and the manifest, and before the second commit. Two
    of the five files make a commit."""
    lines = market.lines(1_800)
    days = [market.write(tmp_path / f"{at}.0", lines[at : at + 361]) for at in range(0, 1_801, 361)]
    enough = days[0].stat().st_size + days[1].stat().st_size // 2
    monkeypatch.setattr(assembly, "COMMIT_BYTES", enough)
    monkeypatch.setattr(writer, "COMMIT_BYTES", enough)
    import_sources(days, tmp_path / "whole")
    words = [sys.executable, "-c", KILLED, point, str(limit), str(enough), str(tmp_path / "killed")]
    words += map(str, days)
    killed = subprocess.run(words, check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    committed = 2 if limit == 2 and point != "append" else 0
    if committed:
        assert len(Archive.open(tmp_path / "killed").manifest.sources) == committed
    report = import_sources(days, tmp_path / "killed")
    assert len(report.skipped) == committed
    assert _parts(tmp_path / "killed") == _parts(tmp_path / "whole")
    checked = verify(tmp_path / "killed")
    assert (checked.problems, checked.unlisted) == ([], [])


def _parts(archive: Path) -> list[tuple[str, str]]:
    return [(part.path, part.sha256) for part in manifest.load(archive).parts]
