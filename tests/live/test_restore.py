"""A backup that somebody else has made: nothing of it comes to lie outside of the named folder."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from gpuscalp.errors import DataError
from gpuscalp.live.restore import restore


def crafted(path: Path, members: dict[str, bytes], names: list[str]) -> Path:
    """Write a backup whose digests are right, with sources of these names."""
    files = [
        {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in members.items()
    ]
    sources = [{"name": name, "kind": "config", "path": "/somewhere"} for name in names]
    manifest = {"format": 1, "version": "1", "created_ns": 1, "sources": sources, "files": files}
    text = json.dumps(manifest).encode()
    ends = {"manifest.json": text, "manifest.sha256": hashlib.sha256(text).hexdigest().encode()}
    with tarfile.open(path, "w") as archive:
        for name, data in (members | ends).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "names",
    [
        ["../outside/live.toml"],
        ["sub/live.toml"],
        ["HERE/outside/live.toml"],
        ["live.toml", ".."],
        ["live.toml", "."],
        ["live.toml", ""],
        ["live.toml", "a\0b"],
        ["live.toml", "live.toml"],
    ],
)
def test_source_whose_name_leads_elsewhere_is_refused(tmp_path: Path, names: list[str]) -> None:
    """Members were checked, and what they were renamed to was not: `../outside/live.toml` was written."""
    (tmp_path / "outside").mkdir()
    names = [name.replace("HERE", str(tmp_path)) for name in names]
    file = crafted(tmp_path / "b.tar", {"live.toml": b"bad = true\n"}, names)
    before = sorted(tmp_path.rglob("*"))
    for folder in (tmp_path / "target", None):
        with pytest.raises(DataError, match="damaged") as told:
            restore(file, folder)
        assert "name of a source" in str(told.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_crafted_backup_is_one_where_its_names_are_names(tmp_path: Path) -> None:
    file = crafted(tmp_path / "b.tar", {"live.toml": b"good = true\n"}, ["live.toml"])
    restore(file, tmp_path / "target")
    assert (tmp_path / "target" / "live.toml").read_bytes() == b"good = true\n"
