"""The files of a bundle: read as the contract names them, written all together or not at all.

Owns: the checks of size and digest, arrays as bytes, the one rename. Never: knows what is in a file.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from gpuscalp.contract import FileSpec
from gpuscalp.errors import MemberError


def read_file(path: Path, spec: FileSpec) -> bytes:
    """Read a file of the bundle at ``path``.

    Raises
    ------
    MemberError
        it is missing, outside the bundle, or not of the size and digest of the contract
    """
    parts = PurePosixPath(spec.path)
    if parts.is_absolute() or ".." in parts.parts or "\0" in spec.path:
        raise MemberError("a file of the bundle lies outside it", where=spec.path)
    try:
        data = (path / parts).read_bytes()
    except OSError as error:
        raise MemberError(
            "a file of the bundle is missing", where=str(path / parts), value=error.strerror
        ) from None
    if len(data) != spec.bytes:
        raise MemberError(
            "a file of the bundle is cut short"
            if len(data) < spec.bytes
            else "a file of the bundle is too long",
            where=str(path / parts),
            value=f"{len(data)} bytes, the contract says {spec.bytes}",
            fix="copy the bundle again, or train it again",
        )
    if hashlib.sha256(data).hexdigest() != spec.sha256:
        raise MemberError(
            "a file of the bundle is not the one the contract was written for",
            where=str(path / parts),
            fix="copy the bundle again, or train it again",
        )
    return data


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpacked(data: bytes, where: Path) -> dict[str, np.ndarray]:
    """Return the arrays of ``packed``, which packs nothing smaller: they are no larger than ``data``.

    Raises
    ------
    MemberError
        they cannot be read
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as held:
            if any(
                each.compress_type != zipfile.ZIP_STORED or each.flag_bits & 1 for each in held.infolist()
            ):
                raise ValueError("they are compressed or encrypted")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise MemberError(f"the arrays cannot be read: {error}", where=str(where)) from None


def file_spec(name: str, data: bytes) -> FileSpec:
    """Return what a contract says about a file."""
    return FileSpec(name, len(data), hashlib.sha256(data).hexdigest())


def write_atomically(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a directory of files, in the place of one that is there; behind a link, where it points."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        whole.chmod(0o755)
        for name, data in files.items():
            target = whole / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if path.exists():
            # A directory cannot be renamed over a full one: the old bundle steps aside, and comes back if
            # the new one does not arrive.
            aside = whole.with_name(f"{whole.name}.old")
            path.rename(aside)
            try:
                whole.rename(path)
            except OSError:
                aside.rename(path)
                raise
            shutil.rmtree(aside)
        else:
            whole.rename(path)
    except BaseException:
        shutil.rmtree(whole, ignore_errors=True)
        raise
