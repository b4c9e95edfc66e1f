"""Reading a journal, block by block, every byte checked.

Owns: the order of segments, the continuity of sequence numbers. Never: repairs, or skips what is damaged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, final

from gpuscalp.errors import JournalError
from gpuscalp.journal.blocks import (
    BLOCK_HEADER_BYTES,
    SEGMENT_BYTES,
    BlockHeader,
    Record,
    RecordKind,
    check_payload,
    decode_header,
    decode_payload,
    decode_segment,
)

SUFFIX: Final = ".gsj"
_NAME: Final = re.compile(r"journal-(\d{8})\.gsj")


def segment_path(path: Path, segment: int) -> Path:
    return path / f"journal-{segment:08d}{SUFFIX}"


def segments_of(path: str | Path) -> list[Path]:
    """Return the segments of a journal, in order; of a segment itself, that one; of a folder not there, none.

    Raises
    ------
    OSError    the folder cannot be read
    """
    path = Path(path)
    if path.is_file():
        return [path]
    try:
        # Not glob: for that a folder that cannot be read is an empty one, and a session would begin anew.
        return sorted(each for each in path.iterdir() if _NAME.fullmatch(each.name))
    except FileNotFoundError:
        return []


def read_records(path: str | Path, *, torn: bool = False, from_seq: int = 0) -> Iterator[Record]:
    """Yield all records of a journal in order.

    Parameters
    ----------
    path : the directory, or one segment
    torn : a tail that was cut short ends the journal, instead of being an error
    from_seq : leave out the records before; whole segments before it are not read

    Raises
    ------
    JournalError    a byte was altered, a block or a segment is missing, or there is no journal
    """
    reader = JournalReader(path, torn=torn, from_seq=from_seq)
    for records in reader.blocks():
        yield from records if records[0].seq >= from_seq else records[from_seq - records[0].seq :]


@final
class JournalReader:
    """One pass over a journal.

    Attributes
    ----------
    ended : whether the last segment read ends with an END record: a clean stop
    torn_bytes : bytes at the end that are no whole block (only where ``torn``)
    block_count : blocks read so far
    """

    def __init__(self, path: str | Path, *, torn: bool = False, from_seq: int = 0) -> None:
        self.path = Path(path)
        self.ended = False
        self.torn_bytes = 0
        self.block_count = 0
        self._torn = torn
        self._segments = segments_of(path)
        if not self._segments:
            raise JournalError("no journal here", where=str(path), fix="name the directory of a session")
        if from_seq:
            self._segments = _from(self._segments, from_seq)

    def blocks(self) -> Iterator[list[Record]]:
        """Yield the records of each block.

        Raises
        ------
        JournalError    see ``read_records``
        """
        seq: int | None = None
        for index, path in enumerate(self._segments):
            last = index == len(self._segments) - 1
            with path.open("rb") as file:
                head = file.read(SEGMENT_BYTES)
                if last and self._torn and len(head) < SEGMENT_BYTES:
                    self.torn_bytes = len(head)
                    return
                header = decode_segment(head, str(path))
                if _NAME.fullmatch(path.name) and segment_number(path) != header.segment:
                    raise JournalError("segment under a wrong name", where=str(path), value=header.segment)
                if seq is not None and header.first_seq != seq:
                    raise JournalError(
                        "records are missing between segments", where=str(path), value=(seq, header.first_seq)
                    )
                seq = header.first_seq
                self.ended = False
                for block in self._blocks_of(file, path, torn=self._torn and last):
                    if block[0].seq != seq:
                        raise JournalError(
                            "a block is missing", where=f"{path}, record {seq}", value=block[0].seq
                        )
                    if self.ended:
                        raise JournalError("records follow the end of a segment", where=str(path))
                    seq += len(block)
                    self.ended = block[-1].kind == RecordKind.END
                    self.block_count += 1
                    yield block

    def _blocks_of(self, file: IO[bytes], path: Path, *, torn: bool) -> Iterator[list[Record]]:
        for at, header, payload in raw_blocks(file, path, torn=torn):
            if header is None:
                self.torn_bytes = len(payload)
                return
            where = f"{path}, byte {at}"
            records = list(decode_payload(header, payload, where))
            if not records:
                raise JournalError("block without records", where=where)
            yield records


def raw_blocks(
    file: IO[bytes], path: Path, *, torn: bool = False
) -> Iterator[tuple[int, BlockHeader | None, bytes]]:
    """Yield (offset, header, payload) of the blocks of a segment, checked but packed. ``file`` stands after
    the segment's header. With ``torn`` a block that the file's end cuts short comes last, its header None.

    Raises
    ------
    JournalError    altered, or cut short without ``torn``
    """
    at = file.tell()
    while True:
        where = f"{path}, byte {at}"
        data = file.read(BLOCK_HEADER_BYTES)
        if not data:
            return
        if torn and len(data) < BLOCK_HEADER_BYTES:
            yield at, None, data
            return
        header = decode_header(data, where)
        payload = file.read(header.payload_bytes)
        if torn and len(payload) < header.payload_bytes:
            yield at, None, data + payload
            return
        check_payload(header, payload, where)
        yield at, header, payload
        at += header.size


def end_of(path: Path) -> int:
    """Return the sequence number after the last record of a whole segment."""
    with path.open("rb") as file:
        seq = decode_segment(file.read(SEGMENT_BYTES), str(path)).first_seq
        for _, header, _ in raw_blocks(file, path):
            assert header is not None
            seq = header.first_seq + header.record_count
    return seq


def _from(segments: list[Path], seq: int) -> list[Path]:
    """Return the segments from the one that holds a record on. A segment that cannot be read stays in."""
    first = 0
    for index, path in enumerate(segments):
        with path.open("rb") as file:
            head = file.read(SEGMENT_BYTES)
        if len(head) < SEGMENT_BYTES or decode_segment(head, str(path)).first_seq > seq:
            break
        first = index
    return segments[first:]


def segment_number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
