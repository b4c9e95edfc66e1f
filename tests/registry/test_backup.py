"""A registry out of a backup is the one that was saved, whatever went on meanwhile."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from gpuscalp.errors import DataError, ModelError, UsageError
from gpuscalp.live.backup import backup
from gpuscalp.live.restore import restore
from gpuscalp.registry import Registry
from gpuscalp.registry.listing import verify_registry


@pytest.fixture
def registry(tiny, tmp_path) -> Registry:
    """Two models; the champion was another one before."""
    made = Registry(tmp_path / "models")
    a, b, _ = tiny
    with made.writing() as writer:
        for digest in (a, b):
            writer.add(tiny[digest])
            writer.promote("champion", digest, why="better")
        writer.pin(a)
    return made


def _restored(registry: Registry, tmp_path, **words) -> Registry:
    backup([registry.path], tmp_path / "saved.tar", **words)
    restore(tmp_path / "saved.tar", tmp_path / "elsewhere")
    return Registry(tmp_path / "elsewhere" / "models")


def _files(registry: Registry) -> dict[str, bytes]:
    return {
        path.relative_to(registry.path).as_posix(): path.read_bytes()
        for path in registry.path.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def test_restored_registry_is_whole_and_goes_on(cli, registry, tiny, tmp_path):
    answer = cli("backup", registry.path, tmp_path / "b.tar", "--json")
    assert json.loads(answer.stdout)["sources"][0]["kind"] == "registry"
    other = _restored(registry, tmp_path)
    assert _files(other) == _files(registry)
    assert verify_registry(other, device="cpu")["models"] == 2
    with other.writing() as writer:
        writer.rollback("champion", why="back")
        writer.add(tiny[list(tiny)[2]])
    assert other.history().state().current("champion") == next(iter(tiny))


def test_what_happens_meanwhile_is_not_in_it(registry, tiny, tmp_path):
    third = list(tiny)[2]
    before = _files(registry)
    happened = []

    def meanwhile(done: float, total: float | None, name: str) -> None:
        if not happened:
            happened.append(name)
            with registry.writing() as writer:
                writer.add(tiny[third])
                writer.promote("champion", third)

    other = _restored(registry, tmp_path, told=meanwhile)
    assert happened == ["models/history.jsonl"]
    found = _files(other)
    assert {name: found[name] for name in before} == before
    assert other.history().state().current("champion") == list(tiny)[1]
    assert verify_registry(other, device="cpu")


def test_line_that_is_being_written_does_not_count(registry, tmp_path):
    whole = registry.history_path.read_bytes()
    registry.history_path.write_bytes(whole + b'{"sequence": 6, "time')
    assert _restored(registry, tmp_path).history_path.read_bytes() == whole


def test_altered_history_or_a_lost_champion_is_not_saved(registry, tiny, tmp_path):
    champion = registry.bundle_path(list(tiny)[1])
    champion.rename(tmp_path / "away")
    with pytest.raises(DataError, match="the history needs"):
        backup([registry.path], tmp_path / "saved.tar")
    shutil.move(tmp_path / "away", champion)
    registry.history_path.write_bytes(registry.history_path.read_bytes().replace(b"better", b"worse!", 1))
    with pytest.raises(ModelError, match="altered"):
        backup([registry.path], tmp_path / "saved.tar")
    assert not list(tmp_path.glob("*saved.tar*"))


@pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def no_links(request, monkeypatch) -> None:
    """Have no hard links, as FAT, SMB and FUSE."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(request.param, os.strerror(request.param), source, None, target)

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_links")
def test_backup_needs_no_hard_links(registry, tmp_path):
    """It said that it cannot be written there after everything had been copied."""
    out = tmp_path / "out"
    out.mkdir()
    backup([registry.path], out / "b.tar")
    assert [path.name for path in out.iterdir()] == ["b.tar"]
    with tarfile.open(out / "b.tar") as archive:
        assert f"{registry.path.name}/history.jsonl" in archive.getnames()


@pytest.mark.usefixtures("no_links")
def test_without_hard_links_nothing_is_replaced_either(registry, tmp_path):
    out = tmp_path / "out"
    out.mkdir()

    def told(*_: object) -> None:
        (out / "b.tar").write_text("of somebody else")

    with pytest.raises(UsageError, match="something here already"):
        backup([registry.path], out / "b.tar", told=told)
    assert [path.read_text() for path in out.iterdir()] == ["of somebody else"]


@pytest.mark.usefixtures("no_links")
def test_file_that_cannot_be_renamed_leaves_no_empty_one(registry, tmp_path, monkeypatch):
    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path, None, target)

    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        backup([registry.path], out / "b.tar")
    assert list(out.iterdir()) == []
