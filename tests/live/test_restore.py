"""A backup that somebody else has made: nothing of it comes to lie outside of the named folder."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.errors import DataError
from gpuscalp.live import restore as restore_module
from gpuscalp.live.restore import restore

MIB = 1 << 20


def crafted(
    path: Path, members: dict[str, bytes], names: list[str], headers: dict[str, dict[str, str]] | None = None
) -> Path:
    """Write a backup whose digests are right, with sources of these names and headers of some members."""
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
            if name in (headers or {}):
                member.pax_headers, data = (headers or {})[name], b""
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


@pytest.mark.parametrize("members", [["one/two", "one"], ["one", "one/two"], ["one/2/3", "one/2"]])
def test_name_of_both_a_file_and_a_folder_is_refused(tmp_path: Path, members: list[str]) -> None:
    """It was an error that nobody had expected, and `--check` found nothing wrong."""
    file = crafted(tmp_path / "b.tar", dict.fromkeys(members, b"1"), ["one"])
    for folder in (tmp_path / "target", None):
        with pytest.raises(DataError, match="damaged") as told:
            restore(file, folder)
        assert "both a file and a folder" in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar"]


@pytest.mark.parametrize("depths", [[20_000], [500] * 200])
def test_names_take_no_more_memory_than_the_file_that_holds_them(tmp_path: Path, depths: list[int]) -> None:
    """A backup of 30 KB whose one name had 50,000 folders took 2.5 GB and a minute and a half."""
    names = [f"s{index}/" + "a/" * depth + "a" for index, depth in enumerate(depths)]
    file = crafted(tmp_path / "b.tar", dict.fromkeys(names, b""), ["s0"])
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="damaged") as told:
            restore(file, None)
        assert tracemalloc.get_traced_memory()[1] < 30 * file.stat().st_size
    finally:
        tracemalloc.stop()
    assert len(str(told.value)) < 4_000


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.size": str(32 * MIB), "GNU.sparse.map": "0,0"},
        {"GNU.sparse.realsize": str(20 * MIB)},
        {"GNU.sparse.size": "many"},
    ],
)
def test_member_is_no_larger_than_the_file_that_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """A file of 10 KB was laid out as any number of zeros, with the right digest."""
    written: list[int] = []
    monkeypatch.setattr(restore_module, "_write", lambda *_: written.append(1))
    zeros = bytes(32 * MIB if "GNU.sparse.map" in headers else 0)
    file = crafted(tmp_path / "b.tar", {"live.toml": zeros}, ["live.toml"], {"live.toml": headers})
    assert file.stat().st_size < MIB
    for folder in (tmp_path / "target", None):
        with pytest.raises(DataError, match="damaged"):
            restore(file, folder)
    assert not written
    assert not (tmp_path / "target").exists()


def test_members_together_are_no_larger_than_the_file_that_holds_them(tmp_path: Path) -> None:
    """Each of them may claim the bytes of all that follow."""
    size = 20 * 10_240
    data = {f"s/{index}": bytes(10_240) for index in range(10)}
    headers = {name: {"GNU.sparse.realsize": str(size)} for name in data}
    file = crafted(tmp_path / "b.tar", data | {"s/end": bytes(2 * size)}, ["s"], headers)
    with pytest.raises(DataError, match="larger than the file that holds it: s/"):
        restore(file, tmp_path / "target")


@pytest.mark.parametrize(
    ("files", "names", "odd"),
    [
        (["live.toml"], ["live.toml", "empty"], "empty"),
        (["live.toml", "other/lost"], ["live.toml"], "other"),
        (["live.toml", "live.tomls"], ["live.toml"], "live.tomls"),
    ],
)
def test_every_file_is_of_a_source_and_every_source_has_files(
    cli: Any, tmp_path: Path, files: list[str], names: list[str], odd: str
) -> None:
    """A source without files passed the check and failed later; a file of none was counted, and dropped."""
    file = crafted(tmp_path / "b.tar", dict.fromkeys(files, b"x = 1\n"), names)
    assert cli("restore", str(file), "--check").code == 1
    with pytest.raises(DataError, match=f"a source without files, or files of no source: {odd}"):
        restore(file, tmp_path / "target")
    assert not (tmp_path / "target").exists()
