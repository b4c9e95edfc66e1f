"""A journal is imported like the recording that it is."""

from __future__ import annotations

import gzip
import itertools
import json

import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.archive.formats import recognise
from gpuscalp.archive.ingest import import_sources
from gpuscalp.archive.journal_lines import line_of
from gpuscalp.config import JournalConfig
from gpuscalp.errors import JournalError, UsageError
from gpuscalp.journal import JournalWriter, Record, RecordKind, segments_of


@pytest.fixture
def lines(recordings):
    with gzip.open(recordings / "usdm" / "btcusdt_20240718.gz") as file:
        return list(itertools.islice(file, 2_500))


def _journal(path, lines, *, copies=1, lag=1, opening=b""):
    """Write lines as a session would: messages by socket, the snapshot by REST, decisions between. A second
    connection is so many messages behind."""
    waiting = []
    url = b"GET https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000\n"
    writer = JournalWriter(path, JournalConfig(segment_bytes=65_536), now_ns=1)
    if opening:
        writer.append(RecordKind.SESSION, opening, recv_ns=1)
    for line in lines:
        stamp, _, body = line.rstrip().partition(b" ")
        if body.startswith(b'{"lastUpdateId"'):
            writer.append(RecordKind.REST, url + body, recv_ns=int(stamp))
        else:
            waiting.append((int(stamp), body))
            for number, behind in enumerate((1, lag)[:copies]):
                if len(waiting) >= behind:
                    writer.append(RecordKind.RAW, waiting[-behind][1], recv_ns=int(stamp), connection=number)
        if writer.next_seq % 50 == 0:
            writer.append(RecordKind.SIGNAL, b'{"edge_bps":1}', recv_ns=int(stamp))
            writer.flush()
    for stamp, body in waiting[len(waiting) - lag + 1 :] if copies > 1 else ():
        writer.append(RecordKind.RAW, body, recv_ns=stamp, connection=1)
    writer.close(now_ns=int(stamp))
    return segments_of(path)


def _ticks(archive):
    return np.concatenate(list(Archive.open(archive).tick_batches("binance_usdm", ["BTCUSDT"])))


@pytest.mark.parametrize(("copies", "lag"), [(1, 1), (2, 1), (2, 40)])
def test_journal_gives_the_archive_of_the_recording(lines, tmp_path, copies, lag):
    (tmp_path / "btcusdt.dat").write_bytes(b"".join(lines))
    import_sources([tmp_path / "btcusdt.dat"], tmp_path / "recorded")
    segments = _journal(tmp_path / "journal", lines, copies=copies, lag=lag)
    assert len(segments) > 1
    report = import_sources([tmp_path / "journal"], tmp_path / "journalled").to_dict()
    assert len(report["sources"]) == len(segments)
    assert report["rejects"] == 0
    assert report["late"] == 0
    assert report["duplicates"] == (copies - 1) * sum(b'"stream"' in line for line in lines)
    recorded, journalled = _ticks(tmp_path / "recorded"), _ticks(tmp_path / "journalled")
    assert len(recorded) > 2_000
    assert journalled.tobytes() == recorded.tobytes()


def test_altered_journal_is_not_imported(lines, tmp_path):
    segment = _journal(tmp_path / "journal", lines[:200])[0]
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    with pytest.raises(JournalError):
        import_sources([segment], tmp_path / "archive")


def test_torn_tail_is_told_and_what_came_before_is_kept(lines, tmp_path):
    segment = _journal(tmp_path / "journal", lines[:200])[0]
    data = segment.read_bytes()
    segment.write_bytes(data[:-60])
    report = import_sources([segment], tmp_path / "archive").to_dict()
    assert report["rejects"] == 1
    assert len(_ticks(tmp_path / "archive")) > 100


def test_records_that_are_no_market_data_make_no_line():
    for kind in set(RecordKind) - {RecordKind.RAW, RecordKind.REST}:
        assert line_of(Record(0, 1, kind, 0, b"{}")) == b""


def _session_record(market):
    return json.dumps({"session_id": "s"} | ({} if market is None else {"market": market})).encode()


@pytest.mark.parametrize(
    ("market", "venue"),
    [
        ("synthetic", "synthetic"),
        ("replayed", "replayed"),
        ("binance_usdm", "binance_usdm"),
        (None, "binance_usdm"),
    ],
)
def test_market_of_a_journal_is_that_of_its_session(lines, tmp_path, market, venue):
    """The messages of an embedded exchange look like Binance's, and became data of Binance."""
    segments = _journal(tmp_path / "journal", lines, opening=_session_record(market))
    assert len(segments) > 1
    import_sources([tmp_path / "journal"], tmp_path / "archive")
    assert Archive.open(tmp_path / "archive").venues() == (venue,)
    # Only the first segment says it.
    import_sources(segments[1:], tmp_path / "rest")
    assert Archive.open(tmp_path / "rest").venues() == (venue,)


def test_any_start_of_the_session_says_of_what_its_segments_are(lines, tmp_path):
    """The first one was not copied, and the second cannot be read."""
    first, *_ = _journal(tmp_path / "journal", lines[:200], opening=_session_record("synthetic"))
    _journal(tmp_path / "journal", lines[200:400], opening=_session_record("synthetic"))
    _journal(tmp_path / "journal", lines[400:600])
    _, damaged, asked, _ = _journal(
        tmp_path / "journal", lines[600:800], opening=_session_record("synthetic")
    )
    first.unlink()
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    assert recognise(asked).venue == "synthetic"


def test_a_made_up_market_is_not_imported_as_a_venues(lines, tmp_path):
    segments = _journal(tmp_path / "journal", lines[:200], opening=_session_record("synthetic"))
    with pytest.raises(UsageError, match="messages are of synthetic"):
        import_sources(segments, tmp_path / "archive", venue="binance_usdm")
