"""Writing a journal: records in, whole checked blocks out.

Owns: the open segment, what is buffered, what is on the disk. Never: interprets a body, reads a clock.

Order of calls: ``append`` or ``append_batch`` for everything that comes in; ``flush`` before a decision that
rests on it leaves the process, and at least every ``flush_ms``; ``sync`` at least every ``sync_ms``.

What can be lost
----------------
- process killed (kill -9, crash): what was appended after the last ``flush``. Nothing else: a flushed block
  is in the kernel's memory, and the journal is read up to it.
- power cut, kernel crash: what was flushed after the last ``sync`` began. With the defaults (20 ms, 200 ms)
  at most 220 ms and the time that the disk took for one fsync; for two, if one takes longer than 200 ms.
- Either way the loss is at the end: no record is in the journal without all those before it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import final

from gpuscalp import zstd
from gpuscalp.config import JournalConfig
from gpuscalp.errors import JournalError
from gpuscalp.journal.blocks import (
    BODY_BYTES_MAX,
    RAW_BYTES_MAX,
    Part,
    RecordKind,
    SegmentHeader,
    encode_block,
    encode_segment,
)
from gpuscalp.journal.reader import end_of, segment_number, segment_path, segments_of
from gpuscalp.journal.repair import Repair, repair
from gpuscalp.locks import take_lock

_ENTRY_BYTES = 16
# Many tiny records must not make a block that the reader refuses.
_BLOCK_RECORDS_MAX = 1 << 20


@final
class JournalWriter:
    """Append to the journal in a directory, new or existing.

    Opening repairs a torn tail and starts a new segment. One writer at a time: the directory is locked.

    Parameters
    ----------
    path : the directory; made if it is not there
    config : sizes and compression
    now_ns : wall clock, goes into the header of the first segment; those of later ones have the receive time
        of their first record

    Attributes
    ----------
    repaired : what opening had to cut off, or None
    next_seq : sequence number of the next record
    flushed_seq, durable_seq : all records below are with the kernel, or on the disk
    written_bytes : since opening

    Raises
    ------
    JournalError    the directory is in use, or the journal is damaged in other places than its tail
    """

    def __init__(self, path: str | Path, config: JournalConfig, *, now_ns: int) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._config = config
        self._compress = zstd.packer(config.level)
        self._lock = _locked(self.path)
        self._file = -1
        # Who waits for the disk: the file must not be closed or change meanwhile, or what is known to be
        # durable of one segment would be believed of the next.
        self._settling = threading.Lock()
        self._failure: JournalError | None = None
        try:
            self.repaired: Repair | None = repair(self.path)
            segments = segments_of(self.path)
            self.next_seq = end_of(segments[-1]) if segments else 0
            if segments:
                # A killed process may have left blocks that are with the kernel only. They have to be on the
                # disk before the next segment begins: from then on this one counts as never torn.
                _make_durable(segments[-1])
            self.flushed_seq = self.durable_seq = self.next_seq
            self.written_bytes = 0
            self._parts: list[Part] = []
            self._buffered_bytes = self._buffered_count = 0
            self._size = self._durable_bytes = 0
            self._open_segment(segment_number(segments[-1]) + 1 if segments else 0, now_ns)
        except BaseException:
            os.close(self._lock)
            raise

    def append(self, kind: int, body: bytes, *, recv_ns: int, connection: int = 0) -> int:
        """Append one record and return its sequence number.

        Raises
        ------
        JournalError    the body is larger than 32 MiB, or the disk refuses (see ``flush``)
        """
        return self.append_batch(kind, (body,), recv_ns=recv_ns, connection=connection)

    def append_batch(self, kind: int, bodies: Sequence[bytes], *, recv_ns: int, connection: int = 0) -> int:
        """Append records that came together; return the sequence number of the first.

        ``bodies`` is kept until the next flush and must not be changed.
        """
        assert self._file >= 0, "append to a closed journal"
        size = sum(map(len, bodies))
        if size > BODY_BYTES_MAX:
            raise JournalError("records are too large for one block", value=size, where=str(self.path))
        held = self._buffered_bytes + _ENTRY_BYTES * self._buffered_count
        if held + size + _ENTRY_BYTES * len(bodies) > RAW_BYTES_MAX:
            self.flush()
        first = self.next_seq
        self._parts.append(Part(kind, connection, recv_ns, bodies))
        self.next_seq += len(bodies)
        self._buffered_bytes += size
        self._buffered_count += len(bodies)
        if self._buffered_bytes >= self._config.block_bytes or self._buffered_count >= _BLOCK_RECORDS_MAX:
            self.flush()
        return first

    def flush(self) -> None:
        """Hand all records to the kernel as one block: from here on a kill of the process loses none.

        Raises
        ------
        JournalError    the disk refuses. The records stay buffered and the segment ends at its last whole
                        block, so that a later flush, when there is room again, loses nothing. A disk
                        that has failed is not written to again
        """
        if not self._buffered_count:
            return
        if self._size >= self._config.segment_bytes:
            self._rotate()
        block = encode_block(self._parts, self.flushed_seq, self._durable_bytes, self._compress)
        self._write(block)
        self.flushed_seq = self.next_seq
        self._parts = []
        self._buffered_bytes = self._buffered_count = 0

    def sync(self) -> None:
        """Flush, and return when everything is on the disk."""
        self.flush()
        self.settle(*self.pending_sync())

    def pending_sync(self) -> tuple[int, int, int]:
        """Return what ``settle`` needs to make durable all that is flushed by now."""
        return self._segment, self._size, self.flushed_seq

    def settle(self, segment: int, size: int, seq: int) -> None:
        """Wait for the disk. May run in other threads while records go on being appended and flushed; the end
        of a segment waits for it. What is closed by then was made durable, or given up.

        Raises
        ------
        JournalError    the disk has failed, now or before: nobody knows what is on it
        """
        with self._settling:
            if self._file < 0 or segment != self._segment or size <= self._durable_bytes:
                return
            self._wait()
            self._durable_bytes, self.durable_seq = size, seq

    def close(self, *, now_ns: int) -> None:
        """End the segment with an END record, durable. Further calls do nothing."""
        if self._file < 0:
            return
        try:
            self.append(RecordKind.END, b"", recv_ns=now_ns)
            self.sync()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave as a killed process would: what is not flushed is lost. For tests of recovery."""
        with self._settling:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
                os.close(self._lock)

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush what there is; only ``close`` marks a clean stop."""
        if self._file >= 0:
            try:
                self.sync()
            finally:
                self.abandon()

    def _open_segment(self, segment: int, created_ns: int) -> None:
        """Make a segment and go on in it. If it cannot be made it is not there, and nothing has changed."""
        path = segment_path(self.path, segment)
        header = encode_segment(SegmentHeader(segment, self.flushed_seq, created_ns))
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _refused(path, error) from None
        try:
            _write_all(file, header, path)
            _make_durable(self.path)  # its name has to survive a power cut as well as its content
        except JournalError:
            os.close(file)
            path.unlink()
            raise
        self._file, self._segment, self._size, self._durable_bytes = file, segment, len(header), 0
        self.written_bytes += len(header)

    def _rotate(self) -> None:
        """Make the full segment durable and go on in the next."""
        with self._settling:
            full = self._file
            self._wait()
            self.durable_seq, self._durable_bytes = self.flushed_seq, self._size
            self._open_segment(self._segment + 1, self._parts[0].recv_ns)
            os.close(full)

    def _wait(self) -> None:
        """Wait until the segment is on the disk. After a failure it is not asked again: the kernel tells of
        what it could not write only once."""
        if self._failure is not None:
            raise self._failure
        try:
            _fsync(self._file, self.path)
        except JournalError as error:
            self._failure = error
            raise

    def _write(self, data: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            _write_all(self._file, data, self.path)
        except JournalError:
            try:
                os.ftruncate(self._file, self._size)
                os.lseek(self._file, self._size, os.SEEK_SET)
            except OSError as error:  # a disk that is gone; what it took must not come before a whole block
                self._failure = _refused(self.path, error)
                raise self._failure from None
            raise
        self._size += len(data)
        self.written_bytes += len(data)


def _locked(path: Path) -> int:
    file = take_lock(path / "lock")
    if file is None:
        raise JournalError(
            "another process writes this journal", where=str(path), fix="end it, or use another directory"
        )
    return file


def _make_durable(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise _refused(path, error) from None
    try:
        _fsync(file, path)
    finally:
        os.close(file)


def _write_all(file: int, data: bytes, path: Path) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(file, view) :]
    except OSError as error:
        raise _refused(path, error) from None


def _fsync(file: int, path: Path) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        # After a failed fsync nobody can know what is on the disk: the kernel may have dropped the pages.
        raise JournalError(f"the disk failed: {error.strerror}", where=str(path)) from None


def _refused(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"cannot write the journal: {error.strerror}", where=str(path), fix="make room, or check the disk"
    )
