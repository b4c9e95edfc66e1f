"""Files to import: opened by what they are, read line by line, never held in memory.

Owns: gzip, zip, journal and plain files, the digest of a file, bounded lines. Never: knows what a line means.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

from gpuscalp.archive.journal_lines import JOURNAL_MAGIC, JournalContent
from gpuscalp.errors import DecodeError, UsageError

BLOCK_BYTES: Final = 1 << 18
LINE_BYTES_MAX: Final = 1 << 24
HEAD_BYTES: Final = 1 << 18

# What unpacking raises; bz2 and gzip an OSError without a number.
_DAMAGE: Final = (EOFError, OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def digest_of(path: Path) -> str:
    """Return the sha256 of a file.

    Raises
    ------
    UsageError
        there is no such file
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> UsageError:
    what = f"cannot read the source: {error.strerror}"
    return UsageError(what, where=str(path), fix="correct the path or the permissions")


def head_of(path: Path) -> bytes:
    """Return the whole lines among the first bytes of the content; all of it where the file is short or
    its first line is very long. Damage further on does not show here."""
    head = b""
    try:
        with open_content(path) as (content, _):
            while len(head) < HEAD_BYTES:
                block = _read(path, content, HEAD_BYTES - len(head))
                if not block:
                    return head
                head += block
    except DecodeError:
        pass
    return head[: head.rfind(b"\n") + 1] or head


def lines_of(path: Path, progress: list[int] | None = None) -> Iterator[bytes]:
    """Yield the lines of a file, without their ends, decompressed by what the file is.

    Parameters
    ----------
    path : gzip (also several members), zip with one member, or plain
    progress : element 0 is set to the bytes of the file consumed so far

    Raises
    ------
    DecodeError
        the compressed stream is damaged or cut, or a line is longer than 16 MiB; what came before has been
        yielded
    """
    rest = b""
    with open_content(path) as (content, raw):
        while True:
            try:
                block = _read(path, content, BLOCK_BYTES)
            except DecodeError:
                if rest:
                    yield rest.removesuffix(b"\r")
                raise
            if progress is not None:
                progress[0] = raw.tell()
            if not block:
                break
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield line[:-1] if line.endswith(b"\r") else line
            if len(rest) > LINE_BYTES_MAX:
                raise DecodeError("line is longer than 16 MiB", where=str(path))
    if rest:
        yield rest.removesuffix(b"\r")
    if progress is not None:
        progress[0] = path.stat().st_size  # a zip file ends in its directory, which is not read here


def content_of(path: Path) -> bytes:
    """Return the whole content of a file.

    Raises
    ------
    UsageError, DecodeError
        as ``open_content``, or the compressed stream is damaged or cut
    """
    with open_content(path) as (content, _):
        return _read(path, content)


def _read(path: Path, content: IO[bytes], size: int = -1) -> bytes:
    try:
        return content.read(size)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the system
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DecodeError:
    return DecodeError("compressed file is damaged or cut", where=str(path), value=str(error)[:200])


@contextmanager
def open_content(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file and yield (decompressed content, the file itself).

    Raises
    ------
    UsageError
        there is no such file, or it is a zip file with several members, a password or a compression that
        Python does not know
    DecodeError
        it begins like a zip file and is none
    """
    try:
        raw = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from None
    with raw:
        magic = raw.read(8)
        raw.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=raw) as content:
                yield cast(IO[bytes], content), raw
        elif magic == JOURNAL_MAGIC:
            yield cast(IO[bytes], JournalContent(path)), raw
        elif magic[:4] == b"PK\x03\x04":
            with _open_zip(path, raw) as archive:
                members = [name for name in archive.namelist() if not name.endswith("/")]
                if len(members) != 1:
                    raise UsageError(
                        "a zip file must hold exactly one file", where=str(path), value=len(members)
                    )
                with _open_member(path, archive, members[0]) as member:
                    yield member, raw
        else:
            yield raw, raw


def _open_zip(path: Path, raw: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(raw)
    except (zipfile.BadZipFile, OSError, ValueError) as error:  # also offsets and names that are none
        raise _damaged(path, error) from None
    except RuntimeError as error:  # a version of the format that is not known here
        raise _locked(path, error) from None


def _open_member(path: Path, archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    try:
        return archive.open(name)
    except (zipfile.BadZipFile, OSError, ValueError) as error:  # also offsets and names that are none
        raise _damaged(path, error) from None
    except RuntimeError as error:  # a password, or a compression that is not known here
        raise _locked(path, error) from None


def _locked(path: Path, error: RuntimeError) -> UsageError:
    return UsageError(
        "the zip file cannot be unpacked",
        where=str(path),
        value=str(error)[:200],
        fix="unpack it yourself, or pack it again with deflate and without a password",
    )
