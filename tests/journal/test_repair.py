"""The tail of a journal, as it is found and as it is made whole."""

from __future__ import annotations

import os

import pytest

from gpuscalp.config import JournalConfig
from gpuscalp.journal import JournalWriter, RecordKind, inspect, repair, segments_of

SMALL = JournalConfig(block_bytes=4_096, segment_bytes=65_536)


def _write(path, count):
    with JournalWriter(path, SMALL, now_ns=1) as journal:
        for number in range(count):
            journal.append(RecordKind.RAW, os.urandom(8), recv_ns=number)
            if number % 3 == 2:
                journal.flush()


def test_no_journal_has_no_tail(tmp_path):
    assert inspect(tmp_path) is None


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_inspection_foretells_what_repair_does_and_changes_nothing(tmp_path, cut):
    _write(tmp_path, 9)
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
