"""Blocks of a journal: how large they get, from which record reading begins, and what is read of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuscalp.config import JournalConfig
from gpuscalp.errors import JournalError
from gpuscalp.journal import (
    JournalReader,
    JournalWriter,
    RecordKind,
    inspect,
    read_records,
    repair,
    segments_of,
    writer,
)
from gpuscalp.journal.blocks import SEGMENT_BYTES, decode_payload
from gpuscalp.journal.reader import raw_blocks

SMALL = JournalConfig(block_bytes=4_096, segment_bytes=65_536)


def _blocks(path):
    return [block for segment in segments_of(path) for block in JournalReader(segment).blocks()]


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    """Several segments of several blocks."""
    path = tmp_path_factory.mktemp("journal")
    with JournalWriter(path, SMALL, now_ns=1) as journal:
        for number in range(90):
            journal.append(RecordKind.RAW, os.urandom(2_000), recv_ns=number)
            if number % 5 == 0:
                journal.append(RecordKind.VERDICT, b"{}", recv_ns=number)
        journal.close(now_ns=99)
    assert len(segments_of(path)) > 2
    return path


def test_every_record_may_be_the_first_that_is_read(journal):
    whole = list(read_records(journal))
    reader = JournalReader(journal)
    assert reader.block_count == 0
    assert [record for block in reader.blocks() for record in block] == whole
    assert reader.block_count == len(_blocks(journal)) > len(segments_of(journal))
    for seq in range(len(whole) + 1):
        assert list(read_records(journal, from_seq=seq)) == whole[seq:]


def test_segments_before_the_first_wanted_record_are_not_read(journal, tmp_path):
    segments = segments_of(journal)
    for segment in segments:
        (tmp_path / segment.name).write_bytes(segment.read_bytes())
    first = segments_of(tmp_path)[0]
    first.write_bytes(first.read_bytes()[:SEGMENT_BYTES])  # only what says where it begins
    begins = next(iter(read_records(segments[1]))).seq
    wanted = [record for record in read_records(journal) if record.seq >= begins]
    assert list(read_records(tmp_path, from_seq=begins)) == wanted
    assert list(read_records(tmp_path, from_seq=begins + 1)) == wanted[1:]


@pytest.mark.parametrize(
    "kinds", [{RecordKind.RAW}, {RecordKind.VERDICT, RecordKind.END}, {RecordKind.ORDER}, set()]
)
def test_records_of_some_kinds_are_those_among_all(journal, kinds):
    found = []
    for segment in segments_of(journal):
        with segment.open("rb") as file:
            file.seek(SEGMENT_BYTES)
            for _, header, payload in raw_blocks(file, segment):
                found += decode_payload(header, payload, "", kinds)
    assert found == [record for record in read_records(journal) if record.kind in kinds]


def test_block_is_written_when_it_is_large_enough(tmp_path):
    with JournalWriter(tmp_path, SMALL, now_ns=1) as journal:
        written = []
        for number in range(12):
            journal.append(RecordKind.RAW, b"x" * 1_000, recv_ns=number)
            written.append(journal.flushed_seq)
    assert written == [0, 0, 0, 0, 5, 5, 5, 5, 5, 10, 10, 10]
    assert [len(block) for block in _blocks(tmp_path)] == [5, 5, 2]


def test_block_holds_no_more_records_than_it_may(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_BLOCK_RECORDS_MAX", 4)
    with JournalWriter(tmp_path, SMALL, now_ns=1) as journal:
        for number in range(10):
            journal.append(RecordKind.RAW, b"", recv_ns=number)
        assert journal.flushed_seq == 8


@pytest.mark.parametrize("bodies", [1, 3])
def test_block_never_unpacks_to_more_than_a_reader_takes(tmp_path, monkeypatch, bodies):
    """Its records, and what is said of each: a reader refuses what would be larger."""
    most = 3_000
    monkeypatch.setattr(writer, "RAW_BYTES_MAX", most)
    with JournalWriter(tmp_path, SMALL, now_ns=1) as journal:
        for number in range(40):
            journal.append_batch(RecordKind.RAW, [b"y" * (number % 7 * 50)] * bodies, recv_ns=number)
    sizes = []
    for segment in segments_of(tmp_path):
        with segment.open("rb") as file:
            file.seek(SEGMENT_BYTES)
            sizes += [header.raw_bytes for _, header, _ in raw_blocks(file, segment)]
    assert max(sizes) <= most
    assert sorted(sizes)[1] > most / 2, "they are as large as they may be, but for the last"
    assert len(list(read_records(tmp_path))) == 40 * bodies


def test_what_was_left_of_a_block_is_told_in_bytes(tmp_path):
    with JournalWriter(tmp_path, SMALL, now_ns=1) as journal:
        for number in range(10):
            journal.append(RecordKind.RAW, os.urandom(900), recv_ns=number)
    (segment,) = segments_of(tmp_path)
    data, whole = segment.read_bytes(), inspect(tmp_path)
    assert (whole.state, whole.ended) == ("whole", False)
    with segment.open("rb") as file:
        file.seek(SEGMENT_BYTES)
        *_, (last_at, last, _) = raw_blocks(file, segment)
    for size in (last_at + 1, last_at + 40, last_at + 100, len(data) - 1):
        segment.write_bytes(data[:size])
        reader = JournalReader(tmp_path, torn=True)
        assert sum(map(len, reader.blocks())) == 10 - last.record_count
        assert reader.torn_bytes == size - last_at
    segment.write_bytes(data[: SEGMENT_BYTES - 1])
    reader = JournalReader(tmp_path, torn=True)
    assert list(reader.blocks()) == []
    assert reader.torn_bytes == SEGMENT_BYTES - 1


def test_each_tail_that_is_cut_off_is_kept(tmp_path):
    with JournalWriter(tmp_path, SMALL, now_ns=1) as journal:
        journal.append(RecordKind.RAW, b"first", recv_ns=1)
    (segment,) = segments_of(tmp_path)
    tails = [b"one", b"two", b"three"]
    kept = []
    for tail in tails:
        with segment.open("ab") as file:
            file.write(tail)
        kept.append(repair(tmp_path).kept)
    assert [path.read_bytes() for path in kept] == tails
    assert [record.body for record in read_records(tmp_path)] == [b"first"]


def test_what_a_killed_process_left_with_the_kernel_is_on_the_disk_before_anything_follows_it(
    tmp_path, monkeypatch
):
    """From then on its segment counts as never torn."""
    killed = JournalWriter(tmp_path, SMALL, now_ns=1)
    killed.append(RecordKind.RAW, b"x", recv_ns=1)
    killed.flush()
    killed.abandon()
    (segment,) = segments_of(tmp_path)
    asked, fsync = [], os.fsync

    def spy(file):
        asked.append((os.fstat(file).st_ino, len(segments_of(tmp_path))))
        fsync(file)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setattr(os, "fdatasync", spy)
    with JournalWriter(tmp_path, SMALL, now_ns=2):
        assert (segment.stat().st_ino, 1) in asked


def test_leaving_the_block_of_code_makes_durable_and_marks_no_clean_stop(tmp_path):
    def fail():
        with journal:
            journal.append(RecordKind.RAW, b"x", recv_ns=1)
            raise ValueError("defect")

    journal = JournalWriter(tmp_path, SMALL, now_ns=1)
    with pytest.raises(ValueError, match="defect"):
        fail()
    assert journal.durable_seq == 1
    tail = inspect(tmp_path)
    assert (tail.state, tail.ended) == ("whole", False)
    with JournalWriter(tmp_path, SMALL, now_ns=2) as journal:
        journal.close(now_ns=3)
    assert inspect(tmp_path).ended


def test_no_descriptor_is_left_by_any_end(tmp_path):
    def held():
        links = (os.path.realpath(path) for path in Path("/proc/self/fd").iterdir())
        return [link for link in links if link.startswith(str(tmp_path))]

    for end in ("close", "abandon", "with"):
        with JournalWriter(tmp_path, SMALL, now_ns=1) as journal:
            for number in range(80):
                journal.append(RecordKind.RAW, os.urandom(2_000), recv_ns=number)
            assert len(held()) == 2, "the segment and the lock"
            if end == "close":
                journal.close(now_ns=2)
            elif end == "abandon":
                journal.abandon()
        assert held() == []
    with JournalWriter(tmp_path, SMALL, now_ns=1), pytest.raises(JournalError, match="another process"):
        JournalWriter(tmp_path, SMALL, now_ns=1)
    assert held() == []


def test_bytes_written_are_those_of_the_files(tmp_path):
    for _ in range(2):
        old = sum(path.stat().st_size for path in segments_of(tmp_path))
        with JournalWriter(tmp_path, SMALL, now_ns=1) as journal:
            for number in range(50):
                journal.append(RecordKind.RAW, os.urandom(2_000), recv_ns=number)
        assert journal.written_bytes == sum(path.stat().st_size for path in segments_of(tmp_path)) - old


def test_who_was_refused_a_damaged_journal_holds_it_no_longer(tmp_path):
    with JournalWriter(tmp_path, SMALL, now_ns=1) as journal:
        for number in range(3):
            journal.append(RecordKind.RAW, b"x", recv_ns=number)
            journal.sync()
    (segment,) = segments_of(tmp_path)
    whole = segment.read_bytes()
    segment.write_bytes(whole[:70] + bytes([whole[70] ^ 1]) + whole[71:])
    with pytest.raises(JournalError, match="altered"):
        JournalWriter(tmp_path, SMALL, now_ns=2)
    segment.write_bytes(whole)
    with JournalWriter(tmp_path, SMALL, now_ns=2) as journal:
        assert journal.next_seq == 3
