"""Room, durability and the kind of file system."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gpuscalp.config import JournalConfig
from gpuscalp.doctor.disk import Disk, check_latency, check_space, read_disk

GIB, MS = 1 << 30, 1_000_000
JOURNAL = JournalConfig()
GOOD = Disk(Path("/data"), "ext4", 100 * GIB, (2 * MS, 3 * MS, 9 * MS))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "ok"),
        ({"free_bytes": 5 * GIB}, "warn"),
        ({"free_bytes": 2 * JOURNAL.segment_bytes - 1}, "fail"),
        ({"free_files": 999}, "fail"),
        ({"free_files": 1_000}, "ok"),
        ({"file_system": "tmpfs"}, "warn"),
        ({"file_system": "nfs4"}, "warn"),
        ({"file_system": None}, "ok"),
    ],
)
def test_room_is_judged_by_segments_of_the_journal(change, status):
    check = check_space(replace(GOOD, **change), JOURNAL)
    assert check.status == status
    assert check.code == (1 if status == "fail" else 0)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "ok"),
        ({"sync_ns": (2 * MS, 201 * MS, 2 * MS)}, "warn"),
        ({"sync_ns": (), "refusal": "Read-only file system"}, "fail"),
    ],
)
def test_fsync_is_judged_by_the_promise_of_the_journal(change, status):
    assert check_latency(replace(GOOD, **change), JOURNAL).status == status


def test_folder_that_is_not_there_is_measured_above_and_left_alone(tmp_path):
    found = read_disk(tmp_path / "a" / "b")
    assert found.folder == tmp_path
    assert found.refusal is None
    assert 1 <= len(found.sync_ns) <= 20
    assert all(each > 0 for each in found.sync_ns)
    assert list(tmp_path.iterdir()) == []
    assert abs(found.free_bytes - shutil.disk_usage(tmp_path).free) < GIB


def test_slow_disk_is_measured_once_and_then_no_longer_than_a_second(tmp_path):
    times = iter(range(0, 10**15, 700 * MS))
    found = read_disk(tmp_path, clock=lambda: next(times))
    assert len(found.sync_ns) < 3


def test_file_system_is_that_of_the_longest_and_last_mount(tmp_path):
    mounts = tmp_path / "mountinfo"
    folder = tmp_path / "with space" / "x"
    folder.mkdir(parents=True)
    escaped = str(tmp_path / "with space").replace(" ", "\\040")
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda rw\n"
        f"23 22 0:5 / {escaped} rw shared:3 - xfs /dev/sdb rw\n"
        f"24 23 0:6 / {escaped} rw - tmpfs none rw\n"
        f"25 22 0:7 / {tmp_path}/with rw - nfs4 host:/x rw\n"
    )
    assert read_disk(folder, mounts=mounts).file_system == "tmpfs"
    assert read_disk(tmp_path, mounts=mounts).file_system == "ext4"
    assert read_disk(tmp_path, mounts=tmp_path / "nothing").file_system is None
