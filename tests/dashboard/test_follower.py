"""Following a journal: the same records as a reader from the beginning finds, whenever it is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuscalp.config import JournalConfig
from gpuscalp.dashboard.follower import JournalFollower
from gpuscalp.journal import JournalWriter, RecordKind, read_records, segments_of

ALL = frozenset(int(kind) for kind in RecordKind)
SECOND = 1_000_000_000


def _write(writer: JournalWriter, start: int, count: int) -> None:
    for number in range(start, start + count):
        kind = RecordKind.SIGNAL if number % 5 == 0 else RecordKind.RAW
        writer.append(kind, b"%d" % number, recv_ns=number * SECOND)
        writer.flush()


def _read(follower: JournalFollower, kinds: frozenset[int] = ALL, **more: int) -> list[bytes]:
    found = [record.body for records in follower.read(kinds, **more) for record in records]
    while follower.behind:
        found += [record.body for records in follower.read(kinds, **more) for record in records]
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_every_record_comes_once_and_in_order_over_segments_and_restarts(path):
    follower = JournalFollower(path, since_ns=0)
    assert _read(follower) == []  # nothing is there yet
    assert not follower.behind
    found = []
    config = JournalConfig(segment_bytes=65_536)
    for start in (0, 40, 80):
        writer = JournalWriter(path, config, now_ns=start)
        _write(writer, start, 20)
        found += _read(follower)
        _write(writer, start + 20, 20)
        if start == 40:
            writer.abandon()  # killed
        else:
            writer.close(now_ns=0)
        found += _read(follower)
    assert len(segments_of(path)) == 3
    assert found == [record.body for record in read_records(path)]
    assert follower.damage == ""


def test_only_the_wanted_kinds_come(path):
    with JournalWriter(path, JournalConfig(), now_ns=0) as writer:
        _write(writer, 0, 21)
    found = _read(JournalFollower(path, since_ns=0), frozenset({RecordKind.SIGNAL}))
    assert found == [b"0", b"5", b"10", b"15", b"20"]


@pytest.mark.parametrize("since_s", [0, 1, 17, 49, 50, 1_000])
def test_blocks_before_the_beginning_are_passed_over(path, since_s):
    with JournalWriter(path, JournalConfig(), now_ns=0) as writer:
        _write(writer, 0, 50)
    found = _read(JournalFollower(path, since_ns=since_s * SECOND))
    assert found == [b"%d" % number for number in range(min(since_s, 49), 50)]


def test_of_a_long_past_only_the_last_bytes_are_read(path):
    with JournalWriter(path, JournalConfig(), now_ns=0) as writer:
        _write(writer, 0, 200)
    size = segments_of(path)[0].stat().st_size
    found = _read(JournalFollower(path, since_ns=0, past_bytes=size // 4))
    assert 40 <= len(found) <= 60
    assert found[-1] == b"199"
    assert found == [b"%d" % number for number in range(200 - len(found), 200)]


def test_one_look_reads_no_more_than_its_piece(path):
    with JournalWriter(path, JournalConfig(), now_ns=0) as writer:
        _write(writer, 0, 100)
    follower = JournalFollower(path, since_ns=0)
    first = [record for records in follower.read(ALL, piece_bytes=500) for record in records]
    assert 1 <= len(first) <= 10
    assert follower.behind
    assert len(first) + len(_read(follower, piece_bytes=500)) == 100


def test_a_block_that_is_being_written_is_waited_for(path):
    writer = JournalWriter(path, JournalConfig(), now_ns=0)
    _write(writer, 0, 3)
    segment = segments_of(path)[0]
    whole = segment.read_bytes()
    follower = JournalFollower(path, since_ns=0)
    assert _read(follower) == [b"0", b"1", b"2"]
    _write(writer, 3, 1)
    more = segment.read_bytes()[len(whole) :]
    for cut in (1, 43, 44, len(more) - 1):
        segment.write_bytes(whole + more[:cut])
        assert _read(follower) == []
        assert follower.damage == ""
    segment.write_bytes(whole + more)
    assert _read(follower) == [b"3"]
    writer.abandon()


def test_damage_is_told_and_the_next_segment_is_gone_on_with(path):
    with JournalWriter(path, JournalConfig(), now_ns=0) as writer:
        _write(writer, 0, 3)
    follower = JournalFollower(path, since_ns=0)
    assert len(_read(follower)) == 3
    with JournalWriter(path, JournalConfig(), now_ns=0) as writer:
        _write(writer, 3, 2)
    first, second = segments_of(path)
    hidden = second.rename(second.with_suffix(".hidden"))
    first.write_bytes(first.read_bytes() + b"\0" * 60)
    assert _read(follower) == []
    assert "damaged" in follower.damage
    hidden.rename(second)
    assert _read(follower) == [b"3", b"4"]
    assert follower.damage == ""


def test_nothing_is_locked_or_changed(path):
    with JournalWriter(path, JournalConfig(), now_ns=0) as writer:
        _write(writer, 0, 3)
    before = {each.name: each.read_bytes() for each in path.iterdir()}
    follower = JournalFollower(path, since_ns=0)
    _read(follower)
    with JournalWriter(path, JournalConfig(), now_ns=0):  # would be refused if it were held
        pass
    assert before.items() <= {each.name: each.read_bytes() for each in path.iterdir()}.items()
