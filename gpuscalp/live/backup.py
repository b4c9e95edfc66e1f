"""Sessions, registries, bundles and configurations into one file, whole or not at all.

Out of it: gpuscalp.live.restore.

Owns: the file (a tar archive whose last members are a manifest with the digest of everything and the digest
of the manifest), the order in which a session that runs is copied, what is looked at before it is saved.
Never: writes into a session that it copies, or over anything that is there.

A session is copied in the reverse of the order in which it is written. It writes its journal first, and
database and checkpoints from it; so these are copied first, and the journal after them, up to its last whole
block: the copy of the journal knows everything that the copies of the others know, as after a kill -9.
Models come in before the journal names them, and are copied after it.

There is what a session needs to go on: its logs are left out, and so is the token of its dashboard; the
restored one makes another.

Of a registry the history comes first: every bundle that an act names was there before the act.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Final, Literal

import msgspec
from msgspec import Struct

from gpuscalp import __version__
from gpuscalp.bundle import CONTRACT_FILE, read_contract
from gpuscalp.errors import DataError, JournalError, UsageError
from gpuscalp.journal import inspect, segments_of
from gpuscalp.journal.reader import end_of
from gpuscalp.live.directory import SESSION_FILE, read_about
from gpuscalp.live.models import FOLDER as MODELS
from gpuscalp.live.store import REFUSED
from gpuscalp.progress import Progress, silent
from gpuscalp.registry import ALIASES, Registry
from gpuscalp.registry.history import read_history
from gpuscalp.registry.names import SHORT
from gpuscalp.registry.store import BUNDLES, HISTORY_FILE

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
SEAL: Final = "manifest.sha256"
_STORE: Final = "state.sqlite"
PIECE_BYTES: Final = 1 << 20
# What a hard link gets on a file system that has none: FAT, SMB, many of FUSE.
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)

Kind = Literal["session", "registry", "bundle", "config"]


class SavedSource(Struct, frozen=True):
    """One thing that was saved: ``name`` in the file, ``path`` as it was given."""

    name: str
    kind: Kind
    path: str


class SavedFile(Struct, frozen=True):
    name: str
    bytes: int
    sha256: str


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a backup holds."""

    format: int
    version: str
    created_ns: int
    sources: tuple[SavedSource, ...]
    files: tuple[SavedFile, ...]


class _Piece(Struct, frozen=True):
    """A file to be copied: so many bytes of it, None for all that are there when its turn comes."""

    name: str
    path: Path
    size: int | None = None


def backup(sources: Sequence[Path], out: Path, *, told: Progress = silent) -> dict[str, Any]:
    """Save sessions (running or not), registries, bundles and configuration files.

    Parameters
    ----------
    sources : directories of sessions, registries or bundles, TOML files
    out : the file to be made
    told : told how many bytes are copied

    Returns
    -------
    ``file``, ``bytes``, ``files``, ``sources``

    Raises
    ------
    UsageError      there is something at ``out``, a source is none, or two have the same name
    JournalError    a journal is damaged
    ModelError      the history of a registry was altered
    DataError       a database is damaged, or models were removed while a registry was copied
    """
    if out.exists():
        raise UsageError("there is something here already", where=str(out), fix="name a new file")
    named = _named(sources)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    files: list[SavedFile] = []
    try:
        partial.touch(mode=0o600, exist_ok=False)  # a session's folder is its owner's alone
        with partial.open("wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
            for source in named:
                with tempfile.TemporaryDirectory(prefix="gpuscalp-backup-") as scratch:
                    for piece in _pieces(source, Path(scratch)):
                        files.append(_add(archive, piece))
                        told(sum(each.bytes for each in files), None, piece.name)
            manifest = Manifest(FORMAT, __version__, time.time_ns(), tuple(named), tuple(files))
            text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
            _add_bytes(archive, MANIFEST, text)
            _add_bytes(archive, SEAL, hashlib.sha256(text).hexdigest().encode())
            archive.close()
            file.flush()
            os.fsync(file.fileno())
        _give_name(partial, out)
    except FileExistsError:
        raise UsageError("there is something here already", where=str(out), fix="name a new file") from None
    finally:
        partial.unlink(missing_ok=True)
    return answer_of(out, manifest)


def _give_name(partial: Path, out: Path) -> None:
    """Give the finished file its name, which nothing else may have.

    Raises
    ------
    FileExistsError    something has it
    """
    try:
        os.link(partial, out)  # unlike a rename it replaces nothing
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # The name is taken first, by an empty file, so that the rename replaces nobody else's.
        out.open("xb").close()
        try:
            partial.replace(out)
        except OSError:
            out.unlink()
            raise


def _named(sources: Sequence[Path]) -> list[SavedSource]:
    found: list[SavedSource] = []
    for path in sources:
        name = path.resolve().name
        if name in {each.name for each in found} | {MANIFEST, SEAL}:
            raise UsageError("two sources have the same name", value=name, fix="save them in two files")
        found.append(SavedSource(name, _kind_of(path), str(path.resolve())))
    if not found:
        raise UsageError(
            "nothing to save", fix="name a session, a registry, a bundle or a configuration file"
        )
    return found


def _kind_of(path: Path) -> Kind:
    if (path / SESSION_FILE).is_file():
        read_about(path)
        return "session"
    if (path / HISTORY_FILE).is_file():
        read_history(path / HISTORY_FILE)
        return "registry"
    if (path / CONTRACT_FILE).is_file():
        read_contract(path)
        return "bundle"
    if path.suffix == ".toml" and path.is_file():
        return "config"
    raise UsageError(
        "neither a session, nor a registry, nor a bundle, nor a TOML file",
        where=str(path),
        fix="name the directory of a session, of a registry or of a bundle, or a configuration",
    )


def _pieces(source: SavedSource, scratch: Path) -> Iterator[_Piece]:
    """Yield the files of a source in the order in which they must be copied."""
    path = Path(source.path)
    if source.kind == "config":
        yield _Piece(source.name, path)
    elif source.kind == "bundle":
        yield from _all_of(path, source.name)
    elif source.kind == "registry":
        yield from _registry(path, source.name, scratch)
    else:
        if (path / _STORE).is_file():
            yield _Piece(f"{source.name}/{_STORE}", _copy_store(path / _STORE, scratch / _STORE))
        # The newest first: the oldest may be replaced while it is looked at.
        for checkpoint in sorted((path / "checkpoints").glob("*.ckpt"), reverse=True):
            held = scratch / checkpoint.name
            try:
                shutil.copyfile(checkpoint, held)
            except FileNotFoundError:
                continue
            yield _Piece(f"{source.name}/checkpoints/{checkpoint.name}", held)
        for name in (SESSION_FILE, "status.json"):
            if (path / name).is_file():
                yield _Piece(f"{source.name}/{name}", path / name)
        yield from _all_of(path / "bundle", f"{source.name}/bundle")
        yield from _journal(path / "journal", f"{source.name}/journal")
        # Last: whatever the journal names had been there before.
        for model in sorted((path / MODELS).glob("[!.]*")):
            yield from _all_of(model, f"{source.name}/{MODELS}/{model.name}")


def _all_of(folder: Path, name: str) -> Iterator[_Piece]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield _Piece(f"{name}/{path.relative_to(folder).as_posix()}", path)


def _registry(path: Path, name: str, scratch: Path) -> Iterator[_Piece]:
    """Yield a registry as it was at one moment of its history, whoever adds or promotes meanwhile."""
    registry = Registry(path)
    history = registry.history()
    held = scratch / HISTORY_FILE
    held.write_bytes(registry.history_path.read_bytes()[: history.whole_bytes])
    yield _Piece(f"{name}/{HISTORY_FILE}", held)
    state = history.state()
    for digest in registry.digests():
        copy = scratch / digest
        try:
            shutil.copytree(registry.bundle_path(digest), copy)
        except (FileNotFoundError, shutil.Error):
            if registry.bundle_path(digest).is_dir():
                raise
            continue  # pruned a moment ago
        yield from _all_of(copy, f"{name}/{BUNDLES}/{digest}")
        shutil.rmtree(copy)
    needed = {state.current(alias) for alias in ALIASES} | state.pinned
    lost = [digest for digest in needed if digest and not registry.bundle_path(digest).is_dir()]
    if lost:
        raise DataError(
            "a model that the history needs is not there: it was removed meanwhile, or is lost",
            where=str(path),
            value=", ".join(sorted(digest[:SHORT] for digest in lost)),
            fix="try again; gpuscalp model verify --registry says whether it is lost",
        )


def _copy_store(path: Path, copy: Path) -> Path:
    """Copy a database as it is at one moment, whoever writes to it, and look whether it is sound."""
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file
            verdict = target.execute("PRAGMA integrity_check").fetchone()[0]
    except REFUSED as error:
        verdict = str(error)
    if verdict != "ok":
        raise DataError(
            "the session's database is damaged",
            where=str(path),
            value=verdict,
            fix="stop the session and move the file away: the next start makes it again from the journal",
        )
    return copy


def _journal(folder: Path, name: str) -> Iterator[_Piece]:
    tail = inspect(folder)
    if tail is None:
        return
    if tail.state == "damaged":
        raise JournalError(
            "the journal was altered after it had been written",
            where=f"{tail.segment}, byte {tail.whole_bytes}",
            fix="gpuscalp restore an older backup",
        )
    for segment in segments_of(folder):
        if segment.name > tail.segment.name:  # begun since
            break
        if segment != tail.segment:
            end_of(segment)  # raises where a byte is not as it was written
        elif tail.whole_bytes == 0:  # not even its header is there yet
            break
        yield _Piece(f"{name}/{segment.name}", segment, tail.whole_bytes if segment == tail.segment else None)


def _add(archive: tarfile.TarFile, piece: _Piece) -> SavedFile:
    with piece.path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size if piece.size is None else piece.size
        hashed = _Hashed(file, size)
        member = tarfile.TarInfo(piece.name)
        member.size, member.mode, member.mtime = size, 0o600, int(time.time())
        archive.addfile(member, hashed)  # type: ignore[arg-type]  # only read is called
    return SavedFile(piece.name, size, hashed.digest.hexdigest())


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
    archive.addfile(member, io.BytesIO(data))


class _Hashed:
    """The first ``size`` bytes of a file, hashed while they are read."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size
        self.digest = hashlib.sha256()

    def read(self, count: int) -> bytes:
        data = self._file.read(min(count, self._left))
        self._left -= len(data)
        self.digest.update(data)
        return data


def answer_of(file: Path, manifest: Manifest) -> dict[str, Any]:
    """Return what a command tells of a backup."""
    return {
        "file": str(file),
        "bytes": file.stat().st_size,
        "files": len(manifest.files),
        "created_ns": manifest.created_ns,
        "sources": [msgspec.to_builtins(source) for source in manifest.sources],
    }
