"""What a journal calls durable, while other threads make it so."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from gpuscalp.config import JournalConfig
from gpuscalp.errors import JournalError
from gpuscalp.journal import JournalWriter, RecordKind, segments_of

CONFIG = JournalConfig()
SMALL = JournalConfig(block_bytes=4_096, segment_bytes=65_536)


def test_sync_in_another_thread_makes_durable_what_it_was_asked_for(tmp_path):
    writer = JournalWriter(tmp_path, CONFIG, now_ns=1)
    writer.append(RecordKind.RAW, b"one", recv_ns=1)
    writer.flush()
    asked = writer.pending_sync()
    writer.append(RecordKind.RAW, b"two", recv_ns=2)
    writer.flush()
    writer.settle(*asked)
    assert writer.durable_seq == 1
    writer.sync()
    assert writer.durable_seq == 2
    writer.settle(*asked)
    assert writer.durable_seq == 2
    writer.close(now_ns=1)


@pytest.mark.parametrize("end", ["rotation", "close"])
def test_file_is_not_closed_under_a_thread_that_makes_it_durable(tmp_path, monkeypatch, end):
    """A segment that ended just then was a disk that had failed, and the session ended of it."""
    writer = JournalWriter(tmp_path, SMALL, now_ns=1)
    body, failed, begun, ended = os.urandom(50_000), [], threading.Event(), threading.Event()
    for _ in range(2 if end == "rotation" else 1):
        writer.append(RecordKind.RAW, body, recv_ns=1)
        writer.flush()
    asked, fsync = writer.pending_sync(), os.fsync

    def slow(file):
        if threading.current_thread() is settling:
            begun.set()
            ended.wait(0.2)  # whoever would end the segment has had the time for it
        fsync(file)

    def settle():
        try:
            writer.settle(*asked)
        except BaseException as error:
            failed.append(error)

    settling = threading.Thread(target=settle)
    monkeypatch.setattr(os, "fsync", slow)
    settling.start()
    begun.wait()
    if end == "rotation":
        writer.append(RecordKind.RAW, b"of the next segment", recv_ns=2)
        writer.flush()
    else:
        writer.close(now_ns=2)
    ended.set()
    settling.join()
    assert not failed
    writer.settle(*asked)  # of a file that is closed by now
    writer.close(now_ns=3)
    assert len(segments_of(tmp_path)) == (2 if end == "rotation" else 1)
    assert writer.durable_seq == writer.next_seq


@pytest.mark.parametrize(
    "ask",
    [lambda writer: writer.settle(*writer.pending_sync()), JournalWriter.sync, JournalWriter.flush],
    ids=["settle", "sync", "rotation"],
)
def test_disk_that_has_failed_once_is_not_believed_again(tmp_path, monkeypatch, ask):
    """The kernel tells of what it could not write once. Whoever asked next, for a checkpoint or an operator,
    was told that it was on the disk."""
    writer = JournalWriter(tmp_path, SMALL, now_ns=1)
    for _ in range(2):
        writer.append(RecordKind.RAW, os.urandom(40_000), recv_ns=1)
        writer.flush()

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(JournalError, match="disk failed"):
            writer.settle(*writer.pending_sync())
    writer.append(RecordKind.RAW, b"more", recv_ns=2)
    with pytest.raises(JournalError, match="disk failed"):
        ask(writer)
    assert writer.durable_seq == 0
    assert len(segments_of(tmp_path)) == 1
    writer.abandon()
