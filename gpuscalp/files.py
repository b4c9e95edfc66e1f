"""Files that are there whole or not at all, and survive a power cut.

Owns: the order of writing, syncing and renaming; what JSON looks like that people read too.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec


def pretty(value: Any) -> bytes:
    """Return a value as indented JSON with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def make_writable(folder: Path) -> None:
    """Make a folder where there is none, and see that a file can be written into it.

    For the beginning of long work: what comes of it must not be lost to a path that cannot be.

    Raises
    ------
    OSError
        it cannot; names the folder, or the part of its path that is the reason
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


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
