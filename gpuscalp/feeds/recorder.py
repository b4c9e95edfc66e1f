"""Live messages into the journal and into ticks, in one order; and the same ticks again from the journal.

Owns: the order. Everything that can change a tick is written before it is used: messages, snapshots, ends of
connections, and the moments at which waiting messages were let go. ``replay`` repeats the calls in the order
of the records, so that it makes the same ticks, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

import msgspec

from gpuscalp.errors import UNREADABLE, DecodeError
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.feeds.rest import RestReply
from gpuscalp.feeds.routes import Endpoint
from gpuscalp.journal.blocks import Record, RecordKind
from gpuscalp.journal.writer import JournalWriter
from gpuscalp.redaction import redact
from gpuscalp.schema import Ticks


class ConnectionNote(msgspec.Struct, omit_defaults=True):
    """Body of a CONNECTION record. ``event``: "open", "lost", or "poll" for a moment at which what waited
    was let go; url and streams come with "open", the reason with "lost"."""

    event: str
    number: int = 0
    url: str = ""
    streams: tuple[str, ...] = ()
    reason: str = ""


@final
class Recorder:
    """The receiver of ``gpuscalp.feeds.client.FeedClient``.

    Parameters
    ----------
    ingest, journal : own nothing that the other needs; both are the caller's to read and to close
    """

    def __init__(self, ingest: Ingest, journal: JournalWriter) -> None:
        self._ingest, self._journal = ingest, journal
        self._streams: dict[int, tuple[str, ...]] = {}

    def on_open(self, number: int, endpoint: Endpoint, now_ns: int) -> None:
        self._streams[number] = endpoint.streams
        self._note(ConnectionNote("open", number, redact(endpoint.url), endpoint.streams), now_ns)

    def on_messages(self, number: int, recv_ns: int, messages: list[bytes]) -> None:
        self._journal.append_batch(RecordKind.RAW, messages, recv_ns=recv_ns, connection=number & 0xFF)
        self._ingest.on_messages(number & 0xFF, recv_ns, messages)

    def on_lost(self, number: int, now_ns: int, reason: str) -> None:
        self._streams.pop(number, None)
        self._note(ConnectionNote("lost", number, reason=redact(reason)), now_ns)
        self._ingest.on_lost(number & 0xFF, now_ns)

    def joined(self, number: int) -> bool:
        streams = self._streams.get(number)
        return streams is not None and self._ingest.joined(number & 0xFF, streams)

    def on_snapshot(self, reply: RestReply, snapshot: DepthSnapshot) -> str:
        """Take a snapshot from REST; return what became of it."""
        body = redact(reply.request).encode() + b"\n" + reply.body
        self._journal.append(RecordKind.REST, body, recv_ns=reply.recv_ns)
        return self._ingest.on_snapshot(reply.recv_ns, snapshot)

    def poll(self, now_ns: int) -> None:
        """Let go what has waited long enough; to be called at least every few ms."""
        if now_ns >= self._ingest.merge.due_ns:
            self._note(ConnectionNote("poll"), now_ns)
            self._ingest.poll(now_ns)

    def _note(self, note: ConnectionNote, now_ns: int) -> None:
        self._journal.append(RecordKind.CONNECTION, msgspec.json.encode(note), recv_ns=now_ns)


def replay(records: Iterable[Record], ingest: Ingest) -> Iterator[tuple[Record, Ticks]]:
    """Repeat what a recorder did.

    Yields each record and the ticks that it makes, TICK[N], for N > 0, and the records of other kinds, with
    no ticks, in their places. Of messages that came together the last one stands for all.

    Raises
    ------
    DecodeError    a record of the feeds is none: the journal is of another version
    """
    decoder = Decoder()
    for record, bodies in _together(records):
        if bodies:
            ingest.on_messages(record.connection, record.recv_ns, bodies)
        elif record.kind == RecordKind.REST:
            request, _, reply = record.body.partition(b"\n")
            if b"/depth?" in request:
                found = decoder.decode(reply)
                symbol = request.partition(b"symbol=")[2].partition(b"&")[0].decode()
                if isinstance(found, DepthSnapshot):
                    ingest.on_snapshot(
                        record.recv_ns,
                        DepthSnapshot(symbol, found.exch_ns, found.last_id, found.bids, found.asks),
                    )
        elif record.kind == RecordKind.CONNECTION:
            _repeat(record, ingest)
        else:
            yield record, ingest.take()
            continue
        if ingest.tick_count:
            yield record, ingest.take()


def _together(records: Iterable[Record]) -> Iterator[tuple[Record, list[bytes]]]:
    """Yield each record, messages that came together as one: the last of them, and the bodies of all."""
    last: Record | None = None
    bodies: list[bytes] = []
    for record in records:
        raw = record.kind == RecordKind.RAW
        if last is not None and (
            not raw or (record.recv_ns, record.connection) != (last.recv_ns, last.connection)
        ):
            yield last, bodies
            last, bodies = None, []
        if raw:
            last = record
            bodies.append(record.body)
        else:
            yield record, []
    if last is not None:
        yield last, bodies


def _repeat(record: Record, ingest: Ingest) -> None:
    try:
        note = msgspec.json.decode(record.body, type=ConnectionNote)
    except UNREADABLE as error:
        raise DecodeError("not a note of the feeds", where=f"record {record.seq}", value=str(error)) from None
    if note.event == "lost":
        ingest.on_lost(note.number & 0xFF, record.recv_ns)
    elif note.event == "poll":
        ingest.poll(record.recv_ns)
