"""Which segments of a journal are read again, and which journals cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from gpuscalp.archive import Archive
from gpuscalp.config import FeedConfig, JournalConfig, LiveConfig
from gpuscalp.errors import DataError
from gpuscalp.journal import JournalWriter, RecordKind, read_records, segments_of
from gpuscalp.journal.blocks import SegmentHeader, encode_segment
from gpuscalp.live.directory import SessionFile
from gpuscalp.retrain.market_data import _needed, import_journal
from gpuscalp.schema import Quality, TickKind
from tests.live import script
from tests.live.sessions import SYMBOLS, instruments

SECOND = 10**9
START_NS = 1_700_000_000 * SECOND


def about(**changes: object) -> SessionFile:
    config = LiveConfig(**changes)
    return SessionFile("0" * 8, START_NS, "", "cpu", "", config, instruments())


def write(path: Path, snapshots_at: set[int]) -> list[Path]:
    """Write a journal of six segments a minute apart, each with a message, some with whole books."""
    for number in range(6):
        now_ns = START_NS + number * 60 * SECOND
        # A new process begins a new segment.
        writer = JournalWriter(path, JournalConfig(), now_ns=now_ns)
        for symbol in SYMBOLS if number in snapshots_at else ():
            body = f"GET https://host/fapi/v1/depth?limit=1000&symbol={symbol}\n{{}}".encode()
            writer.append(RecordKind.REST, body, recv_ns=now_ns)
        writer.append(RecordKind.RAW, b'{"stream":"x"}', recv_ns=now_ns)
        writer.close(now_ns=now_ns)
    found = segments_of(path)
    assert len(found) == 6
    return found


def record(path: Path, *, seconds: int) -> None:
    """Write a random market as the journal of a session."""
    config = JournalConfig(segment_bytes=65_536, block_bytes=4_096)
    writer = JournalWriter(path / "journal", config, now_ns=0)
    for line in script.write_recording(path / "market.txt", seconds=seconds).read_text().splitlines():
        head, _, body = line.partition(" ")
        if head.startswith("http"):
            at_s, _, body = body.removeprefix("-> ").partition(": ")
            request = f"GET {head}\n{body}".encode()
            writer.append(RecordKind.REST, request, recv_ns=round(float(at_s) * 1e3) * SECOND // 1_000)
        else:
            writer.append(RecordKind.RAW, body.encode(), recv_ns=int(head))
    writer.close(now_ns=int(head))


@pytest.mark.parametrize(
    ("snapshots_at", "minute", "first"),
    [({0}, 3.5, 0), ({0, 2}, 3.5, 2), ({0, 2, 3}, 3.5, 3), ({0, 4}, 3.5, 0), ({0}, -9, 0)],
    ids=["the beginning alone", "before", "in the same one", "later ones do not count", "all of it"],
)
def test_segments_before_are_read_as_far_as_books_need_it(tmp_path, snapshots_at, minute, first):
    segments = write(tmp_path, snapshots_at)
    since_ns = START_NS + round(minute * 60) * SECOND
    start = min(3, max(0, int(minute)))  # the segment that the time lies in
    assert _needed(tmp_path, about(), since_ns) == (segments[first:], start - first)


def test_a_symbol_that_the_venue_no_longer_has_is_not_looked_for_in_all_the_journal(tmp_path):
    segments = write(tmp_path, {0})
    since_ns, feed = START_NS + 330 * SECOND, FeedConfig(rotate_ms=40_000)
    assert _needed(tmp_path, about(feed=feed), since_ns) == (segments[3:], 2)


@pytest.mark.parametrize("rotated", [True, False], ids=["one process", "several"])
@pytest.mark.parametrize("streams", [("depth@100ms",), ("depth",), ("depth20@100ms",)], ids=lambda it: it[0])
def test_segments_of_one_process_are_told_apart(tmp_path, rotated, streams):
    """They all bore the time at which their process began: a training of the last hours had one segment, or
    began at the last resync, whenever that was."""
    config = JournalConfig(segment_bytes=65_536) if rotated else JournalConfig()
    writer = JournalWriter(tmp_path, config, now_ns=START_NS)
    for minute in range(60):
        at_ns = START_NS + minute * 60 * SECOND
        for symbol in SYMBOLS if minute in (0, 30) else ():
            body = f"GET https://host/fapi/v1/depth?limit=1000&symbol={symbol}\n{{}}".encode()
            writer.append(RecordKind.REST, body, recv_ns=at_ns)
        writer.append(RecordKind.RAW, os.urandom(10_000), recv_ns=at_ns)
        writer.flush()
        if not rotated and minute % 7 == 6:
            writer.close(now_ns=at_ns)
            writer = JournalWriter(tmp_path, config, now_ns=at_ns)
    writer.close(now_ns=at_ns)
    first_ns = [next(iter(read_records(each))).recv_ns for each in segments_of(tmp_path)]
    since_ns = START_NS + 40 * 60 * SECOND
    start = max(index for index, at_ns in enumerate(first_ns) if at_ns <= since_ns)
    whole = START_NS + 30 * 60 * SECOND
    first = start
    if streams != ("depth20@100ms",):
        first = max(index for index, at_ns in enumerate(first_ns) if at_ns <= whole)
        assert first < start
    found = _needed(tmp_path, about(feed=FeedConfig(streams=streams)), since_ns)
    assert found == (segments_of(tmp_path)[first:], start - first)


def test_what_lies_before_takes_no_room_and_books_go_on_from_it(tmp_path):
    record(tmp_path, seconds=20)
    begun_ns = [next(iter(read_records(each))).recv_ns for each in segments_of(tmp_path / "journal")]
    assert len(begun_ns) >= 2

    def imported(name: str, since_ns: int) -> tuple[int, np.ndarray]:
        about_it = replace(about(), instruments=script.INSTRUMENTS)
        found = import_journal(tmp_path, about_it, tmp_path / name, since_ns=since_ns, told=lambda *_: None)
        archive = Archive.open(tmp_path / name)
        return found.rows, np.concatenate(list(archive.tick_batches("binance_usdm", script.SYMBOLS)))

    all_rows, everything = imported("all", 0)
    rows, ticks = imported("some", begun_ns[-1])
    later = everything[everything["recv_ns"] >= begun_ns[-1]]
    assert 0 < rows < 0.7 * all_rows
    assert ticks.tobytes() == later.tobytes()
    books = ticks[ticks["kind"] == TickKind.BOOK]
    assert len(books)
    assert not (books["quality"] & Quality.RESYNC).any()


@pytest.mark.parametrize(
    ("market", "venue"),
    [("synthetic", "synthetic"), ("replayed", "binance_usdm"), ("venue", "binance_usdm")],
)
def test_no_model_of_a_made_up_market_is_one_of_the_venue(tmp_path, market, venue):
    """One that a session on an embedded exchange trained anew could be taken to the real one."""
    record(tmp_path, seconds=2)
    about_it = replace(about(venue="binance_usdm"), instruments=script.INSTRUMENTS, market=market)
    import_journal(tmp_path, about_it, tmp_path / "archive", since_ns=0, told=lambda *_: None)
    archive = Archive.open(tmp_path / "archive")
    assert archive.venues() == (venue,)
    assert {each.venue for each in archive.instruments(venue)} == {venue}


def test_books_that_come_whole_need_no_snapshot(tmp_path):
    segments = write(tmp_path, {0})
    feed = FeedConfig(streams=("aggTrade", "bookTicker", "depth20@100ms"))
    since_ns = START_NS + 210 * SECOND
    assert _needed(tmp_path, about(feed=feed), since_ns) == (segments[3:], 0)


def test_a_segment_that_has_just_begun_is_left_out(tmp_path):
    segments = write(tmp_path, {0})
    head = encode_segment(SegmentHeader(segment=6, first_seq=0, created_ns=START_NS))
    (tmp_path / "journal-00000006.gsj").write_bytes(head)
    assert _needed(tmp_path, about(), START_NS) == (segments, 0)


def test_a_journal_without_messages_says_so(tmp_path):
    nautilus = about(broker="nautilus")
    with pytest.raises(DataError, match="NautilusTrader"):
        import_journal(tmp_path, nautilus, tmp_path / "archive", since_ns=0, told=lambda *_: None)
    (tmp_path / "journal").mkdir()
    with pytest.raises(DataError, match="no messages yet"):
        import_journal(tmp_path, about(), tmp_path / "archive", since_ns=0, told=lambda *_: None)
