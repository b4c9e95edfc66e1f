"""The cache of compiled kernels: what it finds again, what it refuses, that it stands in no way."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
from pathlib import Path

import pytest

from gpuscalp.ops import kernel_cache
from gpuscalp.ops.kernel_cache import (
    cache_folder,
    clear_entries,
    entry_path,
    list_entries,
    load_entry,
    store_entry,
)
from tests.privileges import bound_by_rights

PARTS = ("source", "13.0", "--fmad=false")


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"GPUSCALP_KERNEL_CACHE": "/a/b", "XDG_CACHE_HOME": "/c"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/gpuscalp/kernels"),
        ({"XDG_CACHE_HOME": "", "GPUSCALP_KERNEL_CACHE": ""}, "~/.cache/gpuscalp/kernels"),
        ({"GPUSCALP_KERNEL_CACHE": "~/k"}, "~/k"),
    ],
)
def test_folder_follows_the_environment(environ: dict[str, str], folder: str) -> None:
    assert cache_folder(environ) == Path(folder).expanduser()


def test_entry_is_found_again_by_its_parts_only(tmp_path: Path) -> None:
    path = entry_path(tmp_path / "new" / "folder", "forest", "sm_90", PARTS)
    assert load_entry(path) is None
    assert store_entry(path, b"\0binary\xff")
    assert load_entry(path) == b"\0binary\xff"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "a partial file is left"
    assert entry_path(tmp_path / "new" / "folder", "forest", "sm_90", PARTS) == path


def test_every_part_and_its_place_gives_another_name(tmp_path: Path) -> None:
    made = [
        ("forest", "sm_90", PARTS),
        ("forest", "sm_75", PARTS),
        ("forest", "compute_90", PARTS),
        ("frames", "sm_90", PARTS),
        ("forest", "sm_90", ("source ", *PARTS[1:])),
        ("forest", "sm_90", ("source", "13.1", PARTS[2])),
        ("forest", "sm_90", (*PARTS, "-DN=1")),
        ("forest", "sm_90", PARTS[:2]),
        # The same letters, cut elsewhere.
        ("forest", "sm_90", ("source1", "3.0", PARTS[2])),
        ("forest", "sm_90", ("source13.0", PARTS[2])),
    ]
    assert len({entry_path(tmp_path, *words) for words in made}) == len(made)


@pytest.mark.parametrize("cut", [0, 1, 17, 18, 49, 50, -1])
def test_entry_that_is_cut_short_counts_as_absent(
    tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = entry_path(tmp_path, "forest", "sm_90", PARTS)
    store_entry(path, b"some binary")
    path.write_bytes(path.read_bytes()[:cut])
    assert load_entry(path) is None
    assert "is damaged and is compiled anew" in caplog.text


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    path = entry_path(tmp_path, "forest", "sm_90", PARTS)
    store_entry(path, b"binary")
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0x10]) + whole[index + 1 :])
        assert load_entry(path) is None, index
    path.write_bytes(whole)
    assert load_entry(path) == b"binary"


def test_renamed_entry_is_not_taken_for_another(tmp_path: Path) -> None:
    path = entry_path(tmp_path, "forest", "sm_90", PARTS)
    store_entry(path, b"for sm_90")
    other = entry_path(tmp_path, "forest", "sm_75", PARTS)
    path.rename(other)
    assert load_entry(other) is None


def test_form_on_disk_is_what_the_module_says(tmp_path: Path) -> None:
    path = entry_path(tmp_path, "forest", "sm_90", PARTS)
    store_entry(path, b"binary")
    checksum = hashlib.sha256(path.name.encode() + b"\nbinary").digest()
    assert path.read_bytes() == b"gpuscalp kernel 1\n" + checksum + b"binary"
    words = ("forest", "sm_90", *PARTS)
    name = hashlib.sha256("".join(f"{len(word)}:{word}" for word in words).encode()).hexdigest()
    assert path.name == f"forest-sm_90-{name}.bin"


def test_place_that_cannot_be_written_to_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, kernel_cache.__name__)
    (tmp_path / "file").touch()
    path = entry_path(tmp_path / "file", "forest", "sm_90", PARTS)
    assert not store_entry(path, b"binary")
    assert "is not kept" in caplog.text
    assert load_entry(path) is None
    assert list_entries(tmp_path / "file") == []
    assert clear_entries(tmp_path / "absent") == 0


def test_read_only_folder_still_answers(tmp_path: Path) -> None:
    path = entry_path(tmp_path, "forest", "sm_90", PARTS)
    store_entry(path, b"binary")
    tmp_path.chmod(0o500)
    try:
        assert bound_by_rights(lambda: load_entry(path)) == b"binary"
        assert not bound_by_rights(lambda: store_entry(path, b"binary"))
    finally:
        tmp_path.chmod(0o700)


def test_failure_of_the_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    path = entry_path(tmp_path, "forest", "sm_90", PARTS)
    assert not store_entry(path, b"binary")
    assert list(tmp_path.iterdir()) == []


def test_entry_that_cannot_be_read_counts_as_absent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = entry_path(tmp_path, "forest", "sm_90", PARTS)
    path.mkdir()
    assert load_entry(path) is None
    assert "cannot be read and is compiled anew" in caplog.text


def test_list_and_clear_know_entries_from_other_files(tmp_path: Path) -> None:
    for title, target in (("forest", "sm_90"), ("ladder", "compute_120")):
        store_entry(entry_path(tmp_path, title, target, PARTS), b"x" * 10)
    strangers = ("notes.bin", "forest-sm_90-0.bin", "forest-sm_90-" + "0" * 64 + ".txt")
    for name in strangers:
        (tmp_path / name).touch()
    found = list_entries(tmp_path)
    assert [(entry.title, entry.target, entry.bytes) for entry in found] == [
        ("forest", "sm_90", 60),
        ("ladder", "compute_120", 60),
    ]
    assert clear_entries(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(strangers)


def _write_again_and_again(path: Path, content: bytes, count: int) -> None:
    for _ in range(count):
        assert store_entry(path, content)


def test_reader_beside_several_writers_sees_whole_entries_only(tmp_path: Path) -> None:
    path = entry_path(tmp_path, "ladder", "sm_90", PARTS)
    content = bytes(range(256)) * 2_000
    store_entry(path, content)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_again_and_again, args=(path, content, 60)) for _ in range(3)]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers):
        assert load_entry(path) == content
        reads += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert reads > 0
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
