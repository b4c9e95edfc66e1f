"""The newest record of a kind, and the state of a tail: against reading everything from the front."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.config import JournalConfig
from gpuscalp.errors import DeadlineError
from gpuscalp.journal import JournalWriter, RecordKind, inspect, newest, read_records, repair, segments_of

SMALL = JournalConfig(block_bytes=4_096, segment_bytes=65_536)


def _write(path, kinds, *, flush_every=3, size=8):
    with JournalWriter(path, SMALL, now_ns=1) as journal:
        for number, kind in enumerate(kinds):
            journal.append(kind, os.urandom(size), recv_ns=number)
            if number % flush_every == flush_every - 1:
                journal.flush()


@given(
    kinds=st.lists(st.sampled_from([RecordKind.RAW, RecordKind.STATE, RecordKind.FILL]), max_size=40),
    wanted=st.sets(st.sampled_from([RecordKind.STATE, RecordKind.FILL]), max_size=2),
    flush_every=st.integers(1, 6),
)
def test_newest_is_the_last_that_reading_forwards_finds(tmp_path_factory, kinds, wanted, flush_every):
    path = tmp_path_factory.mktemp("journal")
    _write(path, kinds, flush_every=flush_every)
    every = list(read_records(path))
    expected = [record for record in every if not wanted or record.kind in wanted]
    assert newest(path, wanted or None) == (expected[-1] if expected else None)


def test_newest_looks_into_earlier_segments(tmp_path):
    _write(tmp_path, [RecordKind.STATE, *[RecordKind.RAW] * 100], size=2_000)
    assert len(segments_of(tmp_path)) > 2
    found = newest(tmp_path, {RecordKind.STATE})
    assert found is not None
    assert found.seq == 0


def test_newest_stops_when_it_is_told_to(tmp_path):
    _write(tmp_path, [RecordKind.RAW] * 30)
    with pytest.raises(DeadlineError, match="too long"):
        newest(tmp_path, {RecordKind.STATE}, go_on=lambda: False)


def test_newest_of_a_torn_journal_is_before_the_tear(tmp_path):
    _write(tmp_path, [RecordKind.STATE] * 9)
    last = segments_of(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:-5])
    found = newest(tmp_path)
    assert found is not None
    assert found.seq == 5  # the block of 6, 7 and 8 is cut short


def test_no_journal_has_no_tail_and_nothing_newest(tmp_path):
    assert inspect(tmp_path) is None
    assert newest(tmp_path) is None


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_inspection_foretells_what_repair_does_and_changes_nothing(tmp_path, cut):
    _write(tmp_path, [RecordKind.RAW] * 9)
    last = segments_of(tmp_path)[-1]
    assert inspect(tmp_path).state == "whole"
    last.write_bytes(last.read_bytes()[:-cut])
    before = last.read_bytes()
    tail = inspect(tmp_path)
    assert tail.state == "torn"
    assert last.read_bytes() == before
    done = repair(tmp_path)
    assert (done.at, done.cut_bytes) == (tail.whole_bytes, tail.segment_bytes - tail.whole_bytes)
    assert inspect(tmp_path).state == "whole"


def test_inspection_tells_damage_from_a_tear(tmp_path):
    writer = JournalWriter(tmp_path, SMALL, now_ns=1)
    for number in range(6):
        writer.append(RecordKind.RAW, b"message", recv_ns=number)
        writer.sync()
    writer.close(now_ns=9)
    last = segments_of(tmp_path)[-1]
    data = bytearray(last.read_bytes())
    data[60] ^= 1  # in the first block, which later ones say was on the disk
    last.write_bytes(data)
    assert inspect(tmp_path).state == "damaged"
