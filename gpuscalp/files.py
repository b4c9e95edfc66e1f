"""Files that are there whole or not at all, and survive a power cut.

Owns: the order of writing, syncing and renaming; what JSON looks like that people read too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec


def pretty(value: Any) -> bytes:
    """Return a value as indented JSON with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader sees the old content or the new one, at any moment.

    Parameters
    ----------
    durable : after a power cut as well; costs some milliseconds
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
