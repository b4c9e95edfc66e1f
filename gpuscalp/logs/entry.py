"""One entry of a log: its fields, as a line of JSON, and as a line for people.

Owns: the fields, which are part of the public interface (docs/logs.md). Never: lets a secret pass.
"""

from __future__ import annotations

import datetime
import logging
import traceback
from typing import Final

import msgspec
from msgspec import Struct

from gpuscalp.redaction import redact
from gpuscalp.schema import NS_PER_S
from gpuscalp.terminal import visible

# What somebody sends us must not steer the terminal of who reads it, or begin a line of its own.
_BREAKS: Final = str.maketrans({"\n": " | ", "\r": " "})


class Entry(Struct, frozen=True, omit_defaults=True):
    """One entry.

    Attributes
    ----------
    at : UTC, ISO 8601 with microseconds
    at_ns : the same since 1970
    level : DEBUG, INFO, WARNING, ERROR or CRITICAL
    logger : part of the program, such as gpuscalp.orders
    text : one line
    frame : correlation id from a frame on: SYMBOL@END_NS; @END_NS where it is of all symbols
    order : the id under which the exchange knows the order
    thread : who wrote it, if not the main thread
    error : the traceback of what went wrong
    """

    at: str
    at_ns: int
    level: str
    logger: str
    text: str
    frame: str = ""
    order: str = ""
    thread: str = ""
    error: str = ""


def entry_of(record: logging.LogRecord) -> Entry:
    """Return a record of ``logging`` as an entry, redacted."""
    at_ns = round(record.created * NS_PER_S)
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    error = record.exc_text or ""
    if not error and record.exc_info and record.exc_info[1] is not None:
        error = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
    return Entry(
        at=moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        at_ns=at_ns,
        level=record.levelname,
        logger=record.name,
        text=redact(record.getMessage().translate(_BREAKS)),
        frame=getattr(record, "frame", ""),
        order=getattr(record, "order", ""),
        thread="" if record.threadName in (None, "MainThread") else str(record.threadName),
        error=redact(error),
    )


def as_json(entry: Entry) -> str:
    """Return one line of JSON, without its end."""
    return msgspec.json.encode(entry).decode()


def as_text(entry: Entry) -> str:
    """Return a line for people and their terminals; a traceback follows it on lines of its own."""
    marks = "".join(f" [{mark}]" for mark in (entry.order, entry.frame) if mark)
    line = f"{entry.at} {entry.level:<7} {entry.logger}: {entry.text}{marks}"
    return visible(line if not entry.error else f"{line}\n{entry.error}", but="\n")


class JsonForm(logging.Formatter):
    """``as_json`` for handlers of ``logging``."""

    def format(self, record: logging.LogRecord) -> str:
        return as_json(entry_of(record))


class TextForm(logging.Formatter):
    """``as_text`` for handlers of ``logging``."""

    def format(self, record: logging.LogRecord) -> str:
        return as_text(entry_of(record))
