"""What a backup holds, laid out again, whole or not at all.

Owns: the checks on the way out: every byte is compared with the manifest before anything takes its place.
Never: replaces anything, or leaves a part of something.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import msgspec

from gpuscalp.errors import UNREADABLE, DataError, UsageError
from gpuscalp.live.backup import FORMAT, MANIFEST, PIECE_BYTES, SEAL, Manifest, SavedFile, answer_of
from gpuscalp.progress import Progress, silent

_MANIFEST_BYTES_MAX: Final = 1 << 28
# Of one name: a source's own, folders and digests come to some hundred characters.
_NAME_MAX: Final = 1_024


def restore(file: Path, folder: Path | None, *, told: Progress = silent) -> dict[str, Any]:
    """Check every byte of a backup and lay out what it holds in a folder, each source under its name.

    Parameters
    ----------
    file : made by ``backup``
    folder : made if it is not there; None checks only
    told : told how many bytes are checked

    Returns
    -------
    as ``backup``, and ``restored``: the paths

    Raises
    ------
    UsageError    there is no such file, or something in the folder has the name of a source
    DataError     the backup is damaged or incomplete; nothing was restored
    """
    if not file.is_file():
        raise UsageError("no such file", where=str(file), fix="name a file that `gpuscalp backup` made")
    with _staging(folder) as staging:
        manifest = _unpack(file, staging, told)
        restored = []
        if folder is not None and staging is not None:
            targets = [folder / source.name for source in manifest.sources]
            taken = next((target for target in targets if target.exists() or target.is_symlink()), None)
            if taken is not None:
                raise UsageError(
                    "there is something here already", where=str(taken), fix="restore into another folder"
                )
            for source in manifest.sources:
                if source.kind == "session":
                    (staging / source.name).chmod(0o700)  # its owner's alone, as it was begun
            restored = _lay_out(staging, targets)
    return answer_of(file, manifest) | {"restored": restored}


@contextmanager
def _staging(folder: Path | None) -> Iterator[Path | None]:
    """Yield a folder inside of the target's, which is gone afterwards; None where nothing is laid out."""
    if folder is None:
        yield None
        return
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".restore-", dir=folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _unpack(file: Path, staging: Path | None, told: Progress) -> Manifest:
    """Read a backup to its end, into a folder or nowhere, and compare it with its manifest."""
    found: dict[str, SavedFile] = {}
    ends: dict[str, bytes] = {}
    done, size = 0, file.stat().st_size
    try:
        with tarfile.open(file, "r:") as archive:
            _check_names(file, archive.getnames())
            for member in archive:
                source = archive.extractfile(member) if member.isreg() else None
                if source is None or SEAL in ends:
                    raise _damaged(file, f"not a member of a backup: {member.name}")
                # A member may claim what is not there, as holes or as the bytes of its neighbours.
                if member.issparse() or done + member.size > size:
                    raise _damaged(file, f"larger than the file that holds it: {member.name}")
                if member.name in (MANIFEST, SEAL):
                    if member.size > _MANIFEST_BYTES_MAX:
                        raise _damaged(file, f"{member.name}: {member.size} bytes")
                    ends[member.name] = source.read()
                    continue
                found[member.name] = _write(member.name, source, staging)
                done += member.size
                told(done, size, member.name)
    except (tarfile.TarError, EOFError, ValueError) as error:  # ValueError: a header that is none
        raise _damaged(file, str(error)) from None
    return _checked(file, ends, found)


def _check_names(file: Path, names: Sequence[str]) -> None:
    """Refuse names that are too long or lead elsewhere, and two of which one is the other, or its folder."""
    for name in names:
        if len(name) > _NAME_MAX or not _is_inside(name):
            raise _damaged(file, f"not a member of a backup: {name[:_NAME_MAX]}")
    # Sorted by their parts, a folder stands right before what is in it: a set of all folders above a name
    # would have a size that grows as the square of the name's.
    for one, other in pairwise(sorted(name.split("/") for name in names)):
        if one == other[: len(one)]:
            raise _damaged(file, f"twice, or both a file and a folder: {'/'.join(one)}")


def _checked(file: Path, ends: Mapping[str, bytes], found: Mapping[str, SavedFile]) -> Manifest:
    """Return the manifest if it tells of what was found, and of nothing else."""
    if set(ends) != {MANIFEST, SEAL}:
        raise _damaged(file, "it is cut short: the manifest is missing")
    if hashlib.sha256(ends[MANIFEST]).hexdigest().encode() != ends[SEAL]:
        raise _damaged(file, "the manifest is damaged")
    try:
        manifest = msgspec.json.decode(ends[MANIFEST], type=Manifest)
    except UNREADABLE as error:
        raise _damaged(file, str(error)) from None
    if manifest.format != FORMAT:
        raise DataError(
            "backup of another format",
            where=str(file),
            value=manifest.format,
            fix=f"this version reads format {FORMAT}: restore it with the version that made it",
        )
    told_of = {each.name: each for each in manifest.files}
    for name in sorted(told_of.keys() | found.keys()):
        if told_of.get(name) != found.get(name):
            raise _damaged(file, name)
    sources = [source.name for source in manifest.sources]
    for name in sources:
        # What it is called is where it is moved to: a name that leads elsewhere was not written by us.
        if name in ("", ".", "..") or "/" in name or "\0" in name or sources.count(name) > 1:
            raise _damaged(file, f"not a name of a source: {name!r}")
    holding = {PurePosixPath(name).parts[0] for name in found}
    if holding != set(sources):
        odd = ", ".join(sorted(holding ^ set(sources)))
        raise _damaged(file, f"a source without files, or files of no source: {odd}")
    return manifest


def _write(name: str, source: IO[bytes], staging: Path | None) -> SavedFile:
    digest, size = hashlib.sha256(), 0
    target = Path(os.devnull) if staging is None else staging / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        while piece := source.read(PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
            file.write(piece)
        if staging is not None:
            file.flush()
            os.fsync(file.fileno())
    return SavedFile(name, size, digest.hexdigest())


def _lay_out(staging: Path, targets: Sequence[Path]) -> list[str]:
    """Move everything to its place, or nothing."""
    moved: list[Path] = []
    try:
        for target in targets:
            (staging / target.name).rename(target)
            moved.append(target)
    except OSError:
        for target in moved:
            target.rename(staging / target.name)
        raise
    return [str(target) for target in targets]


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and path.as_posix() == name


def _damaged(file: Path, what: str) -> DataError:
    return DataError(
        "the backup is damaged: nothing was restored",
        where=str(file),
        value=what,
        fix="take another copy of it",
    )
