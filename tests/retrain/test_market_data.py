"""Which segments of a journal are read again, and which journals cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuscalp.config import FeedConfig, JournalConfig, LiveConfig
from gpuscalp.errors import DataError
from gpuscalp.journal import JournalWriter, RecordKind, segments_of
from gpuscalp.journal.blocks import SegmentHeader, encode_segment
from gpuscalp.live.directory import SessionFile
from gpuscalp.retrain.market_data import _needed, import_journal
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


@pytest.mark.parametrize(
    ("snapshots_at", "minute", "first"),
    [({0}, 3.5, 0), ({0, 2}, 3.5, 2), ({0, 2, 3}, 3.5, 3), ({0, 4}, 3.5, 0), ({0}, -9, 0)],
    ids=["the beginning alone", "before", "in the same one", "later ones do not count", "all of it"],
)
def test_segments_before_are_read_as_far_as_books_need_it(tmp_path, snapshots_at, minute, first):
    segments = write(tmp_path, snapshots_at)
    since_ns = START_NS + round(minute * 60) * SECOND
    assert _needed(tmp_path, about(), since_ns) == segments[first:]


def test_books_that_come_whole_need_no_snapshot(tmp_path):
    segments = write(tmp_path, {0})
    feed = FeedConfig(streams=("aggTrade", "bookTicker", "depth20@100ms"))
    since_ns = START_NS + 210 * SECOND
    assert _needed(tmp_path, about(feed=feed), since_ns) == segments[3:]


def test_a_segment_that_has_just_begun_is_left_out(tmp_path):
    segments = write(tmp_path, {0})
    head = encode_segment(SegmentHeader(segment=6, first_seq=0, created_ns=START_NS))
    (tmp_path / "journal-00000006.gsj").write_bytes(head)
    assert _needed(tmp_path, about(), START_NS) == segments


def test_a_journal_without_messages_says_so(tmp_path):
    nautilus = about(broker="nautilus")
    with pytest.raises(DataError, match="NautilusTrader"):
        import_journal(tmp_path, nautilus, tmp_path / "archive", since_ns=0, told=lambda *_: None)
    (tmp_path / "journal").mkdir()
    with pytest.raises(DataError, match="no messages yet"):
        import_journal(tmp_path, about(), tmp_path / "archive", since_ns=0, told=lambda *_: None)
