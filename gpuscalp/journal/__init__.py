"""The journal: every raw message and every decision of a session, append-only and checked to the byte."""

from __future__ import annotations

from gpuscalp.journal.blocks import Record, RecordKind
from gpuscalp.journal.reader import JournalReader, read_records, segments_of
from gpuscalp.journal.repair import Repair, Tail, inspect, repair
from gpuscalp.journal.writer import JournalWriter

__all__ = [
    "JournalReader",
    "JournalWriter",
    "Record",
    "RecordKind",
    "Repair",
    "Tail",
    "inspect",
    "read_records",
    "repair",
    "segments_of",
]
