"""The bytes of a journal: segment headers, blocks, records. Pure.

Owns: the layout, its checks. Never: opens a file.

A segment is a header and then blocks, nothing between them. All integers are little-endian. ::

    segment header   magic "GPUSJNL1", version u32, segment u32, first_seq u64, created_ns i64, crc u32
    block            header, payload
    block header     mark u32, record_count u32, payload_bytes u32, raw_bytes u32, first_seq u64,
                     durable_bytes u64, payload_crc u32, header_crc u32
    payload          zstd of: entry[record_count], then the bodies, one after another
    entry            recv_ns i64, body_bytes u32, kind u8, connection u8, zero u16

``durable_bytes`` is the length of the segment that was known to be on the disk (fsync had returned) when the
block was written. It is what tells a torn tail, which a power cut may leave, from damage: see
``gpuscalp.journal.repair``. A record has the sequence number ``first_seq`` of its block plus its place in it;
blocks follow on one another without holes, over segments too, so that a missing block shows.

CRC-32 finds every change of one byte, and every burst of up to 32 bits.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np

from gpuscalp import zstd
from gpuscalp.errors import JournalError

MAGIC: Final = b"GPUSJNL1"
VERSION: Final = 1
BLOCK_MARK: Final = 0x4B4C4253  # "SBLK"
# Larger blocks are never written; a header that says so is damaged, and nothing is allocated for it.
RAW_BYTES_MAX: Final = 1 << 26
BODY_BYTES_MAX: Final = 1 << 25

_SEGMENT: Final = struct.Struct("<8sIIQqI")
_BLOCK: Final = struct.Struct("<IIIIQQII")
_CRC: Final = struct.Struct("<I")
SEGMENT_BYTES: Final = _SEGMENT.size
BLOCK_HEADER_BYTES: Final = _BLOCK.size
MARK_BYTES: Final = struct.pack("<I", BLOCK_MARK)

_ENTRY: Final = np.dtype(
    [("recv_ns", "<i8"), ("size", "<u4"), ("kind", "u1"), ("connection", "u1"), ("zero", "<u2")]
)


class RecordKind(IntEnum):
    """What a record is. The body of RAW is the message itself, of REST ``METHOD URL``, LF and the reply,
    of TICKS the array; of all others it is JSON."""

    RAW = 1  # one message of a socket, byte for byte
    REST = 2  # one reply of the venue
    CONNECTION = 3  # a connection was opened, subscribed, cut, rotated
    CLOCK = 4  # the wall clock closed a frame: a replay closes it at the same place
    SESSION = 5  # what runs: configuration, versions, bundle
    BATCH = 6  # what has come so far goes to the engine
    HEALTH = 7  # clock, silent streams, device
    CONTROL = 8  # an operator's command
    TICKS = 9  # market events that came as such and not as messages of a socket: TICK[N]
    HEARD = 10  # what an exchange said of orders and money
    MODEL = 11  # another model or calibration, from the next batch on
    SIGNAL = 16
    VERDICT = 17
    ORDER = 18
    FILL = 19
    STATE = 20  # risk states, stops, account
    CHECKPOINT = 21  # names a checkpoint that holds everything before this record
    END = 255  # a clean stop: nothing may follow in this segment


class Record(NamedTuple):
    """One record as read. ``seq`` counts from 0 over the whole journal."""

    seq: int
    recv_ns: int
    kind: int
    connection: int
    body: bytes


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    segment: int
    first_seq: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class BlockHeader:
    record_count: int
    payload_bytes: int
    raw_bytes: int
    first_seq: int
    durable_bytes: int
    payload_crc: int

    @property
    def size(self) -> int:
        """Bytes of the whole block."""
        return BLOCK_HEADER_BYTES + self.payload_bytes


class Part(NamedTuple):
    """Records that came together: one kind, one connection, one receive time."""

    kind: int
    connection: int
    recv_ns: int
    bodies: Sequence[bytes]


def encode_segment(header: SegmentHeader) -> bytes:
    """Return the first bytes of a segment."""
    body = _SEGMENT.pack(MAGIC, VERSION, header.segment, header.first_seq, header.created_ns, 0)[:-4]
    return body + _CRC.pack(zlib.crc32(body))


def decode_segment(data: bytes, where: str) -> SegmentHeader:
    """Read the first bytes of a segment.

    Raises
    ------
    JournalError    too short, not a journal, of another version, or altered
    """
    if len(data) < SEGMENT_BYTES:
        raise JournalError("segment header is cut short", where=where, value=len(data))
    magic, version, segment, first_seq, created_ns, crc = _SEGMENT.unpack_from(data)
    if magic != MAGIC:
        raise JournalError("not a journal segment", where=where, value=magic)
    if zlib.crc32(data[: SEGMENT_BYTES - 4]) != crc:
        raise JournalError("segment header is damaged", where=where)
    if version != VERSION:
        raise JournalError(
            "journal of another version", where=where, value=version, fix=f"expected {VERSION}"
        )
    return SegmentHeader(segment, first_seq, created_ns)


def encode_block(parts: Sequence[Part], first_seq: int, durable_bytes: int, compress: Any) -> bytes:
    """Return one block.

    Parameters
    ----------
    parts : records in order; not empty
    first_seq : sequence number of the first one
    durable_bytes : see the module
    compress : bytes -> zstd frame
    """
    bodies: list[bytes] = []
    for part in parts:
        bodies.extend(part.bodies)
    entries = np.zeros(len(bodies), _ENTRY)
    entries["size"] = np.fromiter(map(len, bodies), np.uint32, len(bodies))
    at = 0
    for kind, connection, recv_ns, own in parts:
        group = entries[at : at + len(own)]
        group["recv_ns"], group["kind"], group["connection"] = recv_ns, kind, connection
        at += len(own)
    raw = b"".join((entries.tobytes(), *bodies))
    payload = compress(raw)
    header = _BLOCK.pack(
        BLOCK_MARK,
        len(bodies),
        len(payload),
        len(raw),
        first_seq,
        durable_bytes,
        zlib.crc32(payload),
        0,
    )[:-4]
    return b"".join((header, _CRC.pack(zlib.crc32(header)), payload))


def decode_header(data: bytes | memoryview, where: str) -> BlockHeader:
    """Read a block header.

    Raises
    ------
    JournalError    cut short or altered
    """
    if len(data) < BLOCK_HEADER_BYTES:
        raise JournalError("block header is cut short", where=where, value=len(data))
    mark, count, payload, raw, first_seq, durable, payload_crc, crc = _BLOCK.unpack_from(data)
    if mark != BLOCK_MARK or zlib.crc32(data[: BLOCK_HEADER_BYTES - 4]) != crc or raw > RAW_BYTES_MAX:
        raise JournalError("block header is damaged", where=where)
    return BlockHeader(count, payload, raw, first_seq, durable, payload_crc)


def decode_payload(
    header: BlockHeader, payload: bytes, where: str, kinds: Collection[int] | None = None
) -> Iterator[Record]:
    """Yield the records of a block, after the whole of it has been checked.

    Parameters
    ----------
    kinds : only these. Most blocks hold messages alone: making millions of records to learn it takes seconds

    Raises
    ------
    JournalError    cut short or altered
    """
    check_payload(header, payload, where)
    raw = zstd.unpack(payload, header.raw_bytes)
    if raw is None:  # the checksum has been right
        raise JournalError("block cannot be unpacked", where=where)
    size = header.record_count * _ENTRY.itemsize
    entries = np.frombuffer(raw[:size], _ENTRY) if len(raw) >= size else None
    if entries is None or len(raw) != header.raw_bytes or size + int(entries["size"].sum()) != len(raw):
        raise JournalError("block's records do not add up", where=where)
    records = _records(header.first_seq, entries, raw, size)
    if kinds is None:
        return records
    if set(entries["kind"].tobytes()).isdisjoint(kinds):
        return iter(())
    return (record for record in records if record.kind in kinds)


def check_payload(header: BlockHeader, payload: bytes, where: str) -> None:
    """Compare a payload with its header.

    Raises
    ------
    JournalError    cut short or altered
    """
    if len(payload) != header.payload_bytes:
        raise JournalError("block is cut short", where=where, value=len(payload))
    if zlib.crc32(payload) != header.payload_crc:
        raise JournalError("block is damaged: its checksum differs", where=where)
    raw_bytes = zstd.size_in(payload)
    if raw_bytes != header.raw_bytes:
        raise JournalError("block is damaged: it would unpack to another size", where=where, value=raw_bytes)


def _records(first_seq: int, entries: Any, raw: bytes, at: int) -> Iterator[Record]:
    columns = [entries[name].tolist() for name in ("recv_ns", "size", "kind", "connection")]
    for seq, (recv_ns, size, kind, connection) in enumerate(zip(*columns, strict=True), first_seq):
        yield Record(seq, recv_ns, kind, connection, raw[at : at + size])
        at += size
