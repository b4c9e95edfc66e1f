"""Logs of a session: written without holding anybody up, kept small, without secrets, and read again."""

from __future__ import annotations

from gpuscalp.logs.entry import Entry, as_json, as_text, entry_of
from gpuscalp.logs.reading import Wanted, follow, frames_of, read
from gpuscalp.logs.writing import LOG_FOLDER, LogWriter

__all__ = [
    "LOG_FOLDER",
    "Entry",
    "LogWriter",
    "Wanted",
    "as_json",
    "as_text",
    "entry_of",
    "follow",
    "frames_of",
    "read",
]
