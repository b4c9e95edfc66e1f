"""The journal: what is written is read, nothing altered passes, torn tails are cut where they may be."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.config import JournalConfig
from gpuscalp.dashboard.follower import JournalFollower
from gpuscalp.errors import JournalError
from gpuscalp.journal import JournalReader, JournalWriter, RecordKind, read_records, repair, segments_of
from gpuscalp.journal.blocks import (
    BLOCK_HEADER_BYTES,
    SEGMENT_BYTES,
    Part,
    SegmentHeader,
    decode_header,
    decode_segment,
    encode_block,
    encode_segment,
)
from gpuscalp.journal.reader import end_of, segment_path
from gpuscalp.zstd import zstd

CONFIG = JournalConfig()
SMALL = JournalConfig(block_bytes=4_096, segment_bytes=65_536)


def _write(path, bodies, *, config=CONFIG, flush_every=3, end=True):
    writer = JournalWriter(path, config, now_ns=1)
    for number, body in enumerate(bodies):
        writer.append(RecordKind.RAW, body, recv_ns=1_000 + number, connection=number % 3)
        if number % flush_every == flush_every - 1:
            writer.flush()
    if end:
        writer.close(now_ns=9)
    else:
        writer.flush()
        writer.abandon()


def _bodies(path, **options):
    return [record.body for record in read_records(path, **options) if record.kind != RecordKind.END]


def _block_ends(segment: Path) -> list[int]:
    data, at = segment.read_bytes(), SEGMENT_BYTES
    ends = [at]
    while at < len(data):
        at += decode_header(data[at : at + BLOCK_HEADER_BYTES], "").size
        ends.append(at)
    return ends


def test_records_come_back_with_all_they_came_with(tmp_path):
    writer = JournalWriter(tmp_path, CONFIG, now_ns=1)
    assert writer.append_batch(RecordKind.RAW, [b"a", b"", b"ccc"], recv_ns=7, connection=2) == 0
    assert writer.append(RecordKind.VERDICT, b"{}", recv_ns=-5) == 3
    writer.close(now_ns=11)
    assert [tuple(record) for record in read_records(tmp_path)] == [
        (0, 7, RecordKind.RAW, 2, b"a"),
        (1, 7, RecordKind.RAW, 2, b""),
        (2, 7, RecordKind.RAW, 2, b"ccc"),
        (3, -5, RecordKind.VERDICT, 0, b"{}"),
        (4, 11, RecordKind.END, 0, b""),
    ]


@given(
    bodies=st.lists(st.binary(max_size=200), max_size=40),
    flush_every=st.integers(1, 9),
    runs=st.integers(1, 3),
)
def test_journal_of_several_runs_reads_as_one(tmp_path_factory, bodies, flush_every, runs):
    path = tmp_path_factory.mktemp("journal")
    for _ in range(runs):
        _write(path, bodies, flush_every=flush_every)
    assert _bodies(path) == bodies * runs
    assert [record.seq for record in read_records(path)] == list(range((len(bodies) + 1) * runs))


def test_rotation_keeps_every_record_and_counts_on(tmp_path):
    bodies = [os.urandom(2_000) for _ in range(200)]
    _write(tmp_path, bodies, config=SMALL)
    assert len(segments_of(tmp_path)) > 4
    assert _bodies(tmp_path) == bodies


def test_missing_segment_is_an_error(tmp_path):
    _write(tmp_path, [os.urandom(2_000) for _ in range(200)], config=SMALL)
    segments_of(tmp_path)[2].unlink()
    with pytest.raises(JournalError, match="missing between segments"):
        _bodies(tmp_path)


def test_missing_block_is_an_error(tmp_path):
    _write(tmp_path, [b"one", b"two", b"three"], flush_every=1)
    segment = segments_of(tmp_path)[0]
    ends, data = _block_ends(segment), segment.read_bytes()
    segment.write_bytes(data[: ends[1]] + data[ends[2] :])
    with pytest.raises(JournalError, match="a block is missing"):
        _bodies(tmp_path)


def test_every_altered_byte_is_caught(tmp_path):
    _write(tmp_path / "whole", [b'{"e":"trade","p":"%d"}' % n for n in range(12)], flush_every=4)
    segment = segments_of(tmp_path / "whole")[0]
    data = segment.read_bytes()
    copy = tmp_path / segment.name
    for at in range(len(data)):
        copy.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        with pytest.raises(JournalError):
            list(read_records(copy))


@pytest.mark.parametrize("named", [1 << 26, -1], ids=["more", "nothing"])
def test_payload_that_would_unpack_to_another_size_is_refused_before_it_does(tmp_path, named):
    """A journal of 98 KB took 3 GiB: a frame that names its own size is unpacked to that, limit or not."""
    options = {zstd.CompressionParameter.content_size_flag: named > 0}
    packed = zstd.compress(bytes(1 << 26), options=options)
    block = encode_block([Part(RecordKind.RAW, 0, 1, [b"a"])], 0, 0, lambda _: packed)
    segment = segment_path(tmp_path, 0)
    segment.write_bytes(encode_segment(SegmentHeader(0, 0, 1)) + block)
    for read in (lambda: list(read_records(tmp_path)), lambda: end_of(segment)):
        with pytest.raises(JournalError, match="unpack to another size"):
            read()
    follower = JournalFollower(tmp_path, since_ns=0)
    assert list(follower.read({RecordKind.RAW})) == []
    assert "unpack to another size" in follower.damage


def test_altered_byte_is_not_repaired_away(tmp_path):
    # All but the newest block was durable when a later one was written: no byte of it may be cut off.
    writer = JournalWriter(tmp_path / "whole", CONFIG, now_ns=1)
    for number in range(6):
        writer.append(RecordKind.RAW, b"message %d" % number, recv_ns=number)
        writer.sync()
    writer.close(now_ns=9)
    segment = segments_of(tmp_path / "whole")[0]
    data, ends = segment.read_bytes(), _block_ends(segment)
    copy = tmp_path / segment.name
    for at in range(SEGMENT_BYTES, ends[-2]):
        changed = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        copy.write_bytes(changed)
        with pytest.raises(JournalError, match="altered"):
            repair(copy)
        assert copy.read_bytes() == changed


def test_altered_byte_with_torn_allowed_is_still_caught(tmp_path):
    # The checksum of a header tells a wrong length from a cut file.
    _write(tmp_path / "whole", [b"x" * 50] * 6)
    segment = segments_of(tmp_path / "whole")[0]
    data, copy = segment.read_bytes(), tmp_path / segment.name
    for at in range(len(data)):
        copy.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(JournalError):
            list(read_records(copy, torn=True))


def test_tail_cut_anywhere_is_repaired_to_the_last_whole_block(tmp_path):
    bodies = [b"message %d" % number for number in range(9)]
    _write(tmp_path / "whole", bodies, end=False)
    segment = segments_of(tmp_path / "whole")[0]
    data, ends = segment.read_bytes(), _block_ends(segment)
    for size in range(len(data)):
        path = tmp_path / f"cut-{size}"
        path.mkdir()
        (path / segment.name).write_bytes(data[:size])
        blocks = max((index for index, end in enumerate(ends) if end <= size), default=0)
        if size not in ends:
            if size > SEGMENT_BYTES:
                with pytest.raises(JournalError, match="cut short"):
                    _bodies(path)
            assert _bodies(path, torn=True) == bodies[: 3 * blocks]
        with JournalWriter(path, CONFIG, now_ns=2) as writer:
            assert (writer.repaired is None) == (size in ends)
            assert writer.next_seq == 3 * blocks
            writer.append(RecordKind.RAW, b"after", recv_ns=1)
            writer.close(now_ns=3)
        assert _bodies(path) == [*bodies[: 3 * blocks], b"after"]
        if size not in ends:
            cut = ends[blocks] if size >= SEGMENT_BYTES else 0
            assert writer.repaired.kept.read_bytes() == data[cut:size]
        shutil.rmtree(path)


def test_holes_left_by_a_power_cut_are_repaired_but_nothing_durable(tmp_path):
    writer = JournalWriter(tmp_path / "whole", CONFIG, now_ns=1)
    for number in range(3):
        writer.append(RecordKind.RAW, b"synced %d" % number, recv_ns=number)
        writer.sync()
    for number in range(3):
        writer.append(RecordKind.RAW, b"flushed %d" % number, recv_ns=number)
        writer.flush()
    writer.abandon()
    segment = segments_of(tmp_path / "whole")[0]
    data, ends = segment.read_bytes(), _block_ends(segment)
    # The page of the first unsynced block did not reach the disk, those behind it did.
    holed = tmp_path / "holed"
    holed.mkdir()
    (holed / segment.name).write_bytes(data[: ends[3]] + b"\0" * (ends[4] - ends[3]) + data[ends[4] :])
    assert repair(holed).at == ends[3]
    assert _bodies(holed) == [b"synced 0", b"synced 1", b"synced 2"]
    # The same in what had been synced is damage.
    (holed / segment.name).write_bytes(data[: ends[2]] + b"\0" * (ends[3] - ends[2]) + data[ends[3] :])
    with pytest.raises(JournalError, match="altered"):
        repair(holed)


@given(
    steps=st.lists(st.sampled_from(["append", "flush", "sync"]), max_size=30),
    lost=st.integers(0, 2_000),
    garbage=st.binary(max_size=60),
)
def test_loss_by_power_cut_is_bounded_by_the_last_sync(tmp_path_factory, steps, lost, garbage):
    path = tmp_path_factory.mktemp("power")
    writer = JournalWriter(path, CONFIG, now_ns=1)
    appended = []
    for step in steps:
        if step == "append":
            appended.append(b"m%d" % len(appended))
            writer.append(RecordKind.RAW, appended[-1], recv_ns=0)
        else:
            getattr(writer, step)()
    _, size, _ = writer.pending_sync()
    durable_seq, durable_bytes, flushed = writer.durable_seq, writer._durable_bytes, writer.flushed_seq
    writer.abandon()
    segment = segments_of(path)[0]
    keep = max(size - lost, durable_bytes, SEGMENT_BYTES)
    segment.write_bytes(segment.read_bytes()[:keep] + (garbage if keep < size else b""))
    repair(path)
    found = _bodies(path)
    assert found == appended[: len(found)]
    assert durable_seq <= len(found) <= flushed


def test_killed_process_loses_only_what_was_not_flushed(tmp_path):
    script = (
        "import os, sys; from gpuscalp.config import JournalConfig; from gpuscalp.journal import *\n"
        "w = JournalWriter(sys.argv[1], JournalConfig(), now_ns=1)\n"
        "[w.append(1, b'%d' % n, recv_ns=n) for n in range(500)]; w.flush()\n"
        "[w.append(1, b'%d' % n, recv_ns=n) for n in range(500, 600)]; os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert _bodies(tmp_path) == [b"%d" % n for n in range(500)]
    with JournalWriter(tmp_path, CONFIG, now_ns=2) as writer:
        assert writer.repaired is None
        assert writer.next_seq == 500


def test_second_writer_is_refused(tmp_path):
    with JournalWriter(tmp_path, CONFIG, now_ns=1), pytest.raises(JournalError, match="another process"):
        JournalWriter(tmp_path, CONFIG, now_ns=1)
    JournalWriter(tmp_path, CONFIG, now_ns=1).close(now_ns=1)


def test_full_disk_keeps_the_records_until_there_is_room(tmp_path, monkeypatch):
    writer = JournalWriter(tmp_path, CONFIG, now_ns=1)
    writer.append(RecordKind.RAW, b"before", recv_ns=1)
    writer.flush()
    real = os.write

    def full(file, data):
        if len(data) > 8:
            return real(file, bytes(data[:8]))
        raise OSError(28, "No space left on device")

    writer.append(RecordKind.RAW, b"while full", recv_ns=2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(JournalError, match="No space"):
            writer.flush()
    assert _bodies(tmp_path) == [b"before"]
    writer.close(now_ns=3)
    assert _bodies(tmp_path) == [b"before", b"while full"]


def test_disk_that_is_gone_is_told_of_with_its_place(tmp_path, monkeypatch):
    """What could not be cut off again was what one was told, without a place. And when the disk came back the
    next block stood behind that part of one: whatever was acted upon then was not in the journal any more."""
    write = os.write

    def gone(*_):
        raise OSError(errno.EIO, "Input/output error")

    def part(file, data):
        write(file, data[:20])
        gone()

    journal = JournalWriter(tmp_path, JournalConfig(), now_ns=1)
    journal.append(RecordKind.RAW, b"before", recv_ns=1)
    journal.flush()
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", part)
        patched.setattr(os, "ftruncate", gone)
        journal.append(RecordKind.RAW, b"message", recv_ns=1)
        with pytest.raises(JournalError, match=f"Input/output error.*{tmp_path}"):
            journal.flush()
    with pytest.raises(JournalError, match="Input/output error"):
        journal.flush()
    journal.abandon()
    with JournalWriter(tmp_path, JournalConfig(), now_ns=2) as after:
        assert after.next_seq == 1
    assert _bodies(tmp_path) == [b"before"]


@pytest.mark.parametrize("fails", ["write", "fsync of the folder"])
def test_full_disk_at_a_rotation_leaves_the_full_segment_as_it_is(tmp_path, monkeypatch, fails):
    """The next refused flush once cut the full segment, 256 MiB by default, to nothing; and the file of a
    segment whose folder could not be synced stayed in the way of every later one."""
    bodies = [os.urandom(2_000) for _ in range(33)]
    writer = JournalWriter(tmp_path, SMALL, now_ns=1)
    for body in bodies:
        writer.append(RecordKind.RAW, body, recv_ns=1)
    writer.flush()
    assert len(segments_of(tmp_path)) == 1
    sync = os.fsync

    def full(file, data=b""):
        if fails == "write" or stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(28, "No space left on device")
        sync(file)

    writer.append(RecordKind.RAW, b"while full", recv_ns=2)
    with monkeypatch.context() as patch:
        patch.setattr(os, fails.partition(" ")[0], full)
        for _ in range(2):
            with pytest.raises(JournalError, match="No space"):
                writer.flush()
    assert _bodies(tmp_path) == bodies
    writer.flush()
    assert len(segments_of(tmp_path)) == 2
    writer.close(now_ns=3)
    assert _bodies(tmp_path) == [*bodies, b"while full"]


def test_a_segment_says_when_its_first_record_came(tmp_path):
    """All segments of a process once said when it began."""
    _write(tmp_path, [os.urandom(2_000) for _ in range(200)], config=SMALL)
    first, *others = segments_of(tmp_path)
    assert decode_segment(first.read_bytes(), "").created_ns == 1
    assert len(others) > 2
    for each in others:
        came_ns = next(iter(read_records(each))).recv_ns
        assert decode_segment(each.read_bytes(), "").created_ns == came_ns > 1_000


def test_reader_tells_a_clean_stop(tmp_path):
    _write(tmp_path, [b"x"], end=False)
    reader = JournalReader(tmp_path)
    assert len(list(reader.blocks())) == 1
    assert not reader.ended
    _write(tmp_path, [b"x"])
    reader = JournalReader(tmp_path)
    list(reader.blocks())
    assert reader.ended


def test_empty_directory_is_no_journal(tmp_path):
    with pytest.raises(JournalError, match="no journal"):
        JournalReader(tmp_path)


def test_folder_that_cannot_be_read_is_no_empty_one(tmp_path):
    """To a search by pattern it is, from Python 3.12 on: a session would have begun anew."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            segments_of(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert segments_of(tmp_path) == segments_of(tmp_path / "not-there") == []
