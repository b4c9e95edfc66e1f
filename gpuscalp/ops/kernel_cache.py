"""Keeps what a compiler made, on disk, so that the next process need not compile.

Owns: the folder, the names and the form of its files. Never: compiles, and never stands in the way: a file
that is damaged counts as absent, and where nothing can be written nothing is kept.

A name holds the SHA-256 of everything that the content depends on, so an entry is never out of date and two
processes that write the same name write the same. A file is written under another name and renamed: a reader
sees all of it or none. Its checksum covers the name too, so that a renamed file is not taken for another.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuscalp.user import user_folder

VARIABLE: Final = "GPUSCALP_KERNEL_CACHE"

_MAGIC: Final = b"gpuscalp kernel 1\n"
_DIGEST_BYTES: Final = 32
_NAME: Final = re.compile(r"(?P<title>[a-z][a-z0-9_]*)-(?P<target>(?:sm|compute)_[0-9]+)-[0-9a-f]{64}\.bin")
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the cache, by its name; whether it is whole shows when it is read."""

    path: Path
    title: str
    target: str
    bytes: int
    written_ns: int


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return ``$GPUSCALP_KERNEL_CACHE``, else a folder below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if named := environ.get(VARIABLE):
        return Path(named).expanduser()
    return user_folder("XDG_CACHE_HOME", ".cache", environ) / "kernels"


def entry_path(folder: Path, title: str, target: str, parts: tuple[str, ...]) -> Path:
    """Return where an entry lies.

    Parameters
    ----------
    title, target : what it is and what it is for, such as "forest" and "sm_90"; they can be read in the name
    parts : everything that the content depends on, in a fixed order
    """
    digest = hashlib.sha256()
    for part in (title, target, *parts):
        # With its length in front, a part cannot lend its end to its neighbour.
        digest.update(b"%d:" % len(part.encode()))
        digest.update(part.encode())
    return folder / f"{title}-{target}-{digest.hexdigest()}.bin"


def load_entry(path: Path) -> bytes | None:
    """Return what was stored, or None where it is absent, damaged or cannot be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _LOG.warning("%s cannot be read and is compiled anew: %s", path, error.strerror)
        return None
    start = len(_MAGIC) + _DIGEST_BYTES
    content = data[start:]
    if data[:start] != _MAGIC + _checksum(path, content):
        _LOG.warning("%s is damaged and is compiled anew", path)
        return None
    return content


def store_entry(path: Path, content: bytes) -> bool:
    """Write an entry in one step; False where that is not possible, which is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + _checksum(path, content) + content)
            # mkstemp lets only the owner read; compiled kernels are no secret, and an image is built by root.
            Path(partial).chmod(0o644)
            Path(partial).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(partial).unlink()
            raise
    except OSError as error:
        _LOG.info("%s is not kept: %s", path, error.strerror)
        return False
    return True


def list_entries(folder: Path) -> list[Entry]:
    """Return the entries of a folder by name; none where there is no folder."""
    found = []
    for path, match in _named(folder):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # another process has cleared it
        found.append(Entry(path, match["title"], match["target"], status.st_size, status.st_mtime_ns))
    return found


def clear_entries(folder: Path) -> int:
    """Delete the entries of a folder, whole or damaged, and nothing else; return how many there were."""
    count = 0
    for path, _ in _named(folder):
        path.unlink(missing_ok=True)
        count += 1
    return count


def _named(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for path in sorted(folder.glob("*.bin")):
        match = _NAME.fullmatch(path.name)
        if match is not None:
            yield path, match


def _checksum(path: Path, content: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\n" + content).digest()
