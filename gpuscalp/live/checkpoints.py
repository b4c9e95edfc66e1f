"""Checkpoints of a session: its whole state as a file, so that a restart need not repeat the whole journal.

Owns: the files, their checks, which one may be used. A checkpoint stands for all records of the journal
before a sequence number; its file has that number in its name. One that is damaged, of another version of the
program, or ahead of the journal (a power cut may take more of the journal than of it) is passed by for the
one before.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, final

import msgspec
import numpy as np

from gpuscalp import object_graph, zstd
from gpuscalp.errors import UNREADABLE, DataError
from gpuscalp.files import sync_folder
from gpuscalp.live import heap
from gpuscalp.live.bounds import check_bounds
from gpuscalp.live.engine import Engine
from gpuscalp.live.market import Market

_MAGIC: Final = b"GPUSCKP2"
_SUFFIX: Final = ".ckpt"
_PARTIAL: Final = ".partial"
_LENGTH: Final = struct.Struct("<q")
_PIECE_BYTES: Final = 1 << 20
# What stands before the arrays: more is no state of ours, and the memory for it is not taken.
_HEAD_BYTES_MAX: Final = 1 << 29
_BREATH_S: Final = 0.003
# What an engine knows beside its stream; of its models only the names.
_STATE: Final = (
    "trader",
    "roles",
    "market",
    "signals",
    "flattening",
    "closing",
    "refused_ns",
    "frame_count",
    "late_count",
    "lost_count",
)


class _Content(msgspec.Struct):
    """What stands before the stream's arrays, whose bytes follow one another in this order."""

    code: str
    seq: int
    graph: bytes
    stream: dict[str, tuple[Any, tuple[int, ...]]]
    connections: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """A state as it was at one moment: not yet bytes in a row, which another thread makes of it."""

    head: bytes
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint that was taken over: the market side, and where the journal goes on."""

    market: Market
    seq: int
    connections: frozenset[int]


@cache
def code_digest() -> str:
    """Return the digest of this package's sources: a state means what the code that made it says."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parent.parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@final
class Checkpoints:
    """The checkpoints in a directory.

    Parameters
    ----------
    path : made if it is not there
    kept : so many of the newest stay
    external : objects that are not written but supplied (``gpuscalp.object_graph``)
    """

    def __init__(self, path: Path, *, kept: int, external: Mapping[str, object]) -> None:
        path.mkdir(parents=True, exist_ok=True)
        for left in path.glob(f"*{_PARTIAL}"):  # of a kill; one process at a time has the session
            left.unlink(missing_ok=True)
        self._path, self._kept, self._external = path, kept, external
        self._spare: dict[str, np.ndarray] | None = None

    def prepare(self, engine: Engine) -> None:
        """Get the memory that the first checkpoint needs, before anything waits for it."""
        self._spare = engine.stream.checkpoint()

    def encode(self, market: Market, engine: Engine, seq: int, connections: frozenset[int]) -> Packed:
        """Return the state as it is now; for the thread that owns the state, and as fast as may be: meanwhile
        everything stands still.

        Raises
        ------
        ShapeError    something in the state cannot be written
        """
        state = (market, *(getattr(engine, name) for name in _STATE))
        spare, self._spare = self._spare, None
        saved = engine.stream.checkpoint(spare=spare)
        arrays = {name: np.ascontiguousarray(array) for name, array in saved.items()}
        stream = {
            name: (np.lib.format.dtype_to_descr(array.dtype), array.shape) for name, array in arrays.items()
        }
        with heap.uncollected():
            graph = object_graph.encode(state, external=self._external)
        content = _Content(code_digest(), seq, graph, stream, tuple(sorted(connections)))
        return Packed(msgspec.msgpack.encode(content), arrays)

    def write(self, packed: Packed, seq: int) -> tuple[str, str]:
        """Compress and write one, durable and whole or not at all; return its name and digest.

        May run in another thread. What was packed must not be used any more: the next one takes its memory.
        """
        digest = hashlib.sha256()
        target = self._path / f"{seq:016d}{_SUFFIX}"
        partial = target.with_suffix(_PARTIAL)
        try:
            with partial.open("wb") as file:
                file.write(_MAGIC + bytes(digest.digest_size))
                for part in _compressed(packed):
                    digest.update(part)
                    file.write(part)
                    # Nobody waits for this, and many wait for the processor.
                    time.sleep(_BREATH_S)
                file.seek(len(_MAGIC))
                file.write(digest.digest())
                file.flush()
                os.fsync(file.fileno())
            partial.rename(target)
        finally:
            self._spare = packed.arrays
            partial.unlink(missing_ok=True)  # of a full disk, which must not be filled by what nobody reads
        sync_folder(self._path)
        for old in sorted(self._path.glob(f"*{_SUFFIX}"))[: -self._kept]:
            old.unlink(missing_ok=True)
        return target.name, digest.hexdigest()

    def load(self, engine: Engine, fresh: Market, *, until_seq: int) -> Loaded | None:
        """Put the newest usable state into a fresh engine; None if there is none.

        Parameters
        ----------
        fresh : a market side as the session begins with: what is read has the arrays that it has
        until_seq : where the journal ends

        Raises
        ------
        DataError     the newest one is of another version of the program, or of none
        ModelError    a model that it names is not there, or is not what it was
        """
        stream_bytes = sum(array.nbytes for array in engine.stream.checkpoint(copy=False).values())
        for path in sorted(self._path.glob(f"*{_SUFFIX}"), reverse=True):
            found = _read(path, bytes_max=_HEAD_BYTES_MAX + stream_bytes)
            if found is None or found[0].seq > until_seq:
                continue
            content, stream = found
            if content.code != code_digest():
                raise DataError(
                    "the session was run by another version of the program",
                    where=str(path),
                    fix="go on with that version, or begin a new session",
                )
            market, *state = object_graph.decode(content.graph, external=self._external)
            if len(state) != len(_STATE):
                raise DataError("not the state of a session", where=str(path))
            check_bounds([market, *state], [fresh, *(getattr(engine, name) for name in _STATE)])
            for name, value in zip(_STATE, state, strict=True):
                setattr(engine, name, value)
            engine.stream.restore(stream)
            engine.assume_roles()
            return Loaded(market, content.seq, frozenset(content.connections))
        return None


def _compressed(packed: Packed) -> Iterator[bytes]:
    """Return the body of the file. Small pieces: compression lets other threads run, copying does not."""
    parts = [array.reshape(-1).view(np.uint8).data for array in packed.arrays.values() if array.size]
    size = _LENGTH.size + len(packed.head) + sum(part.nbytes for part in parts)
    pieces = (
        part[start : start + _PIECE_BYTES]
        for part in (memoryview(_LENGTH.pack(len(packed.head))), memoryview(packed.head), *parts)
        for start in range(0, part.nbytes, _PIECE_BYTES)
    )
    return zstd.packed(pieces, size, level=1)


def _read(path: Path, *, bytes_max: int) -> tuple[_Content, dict[str, np.ndarray]] | None:
    """Return what a file holds; None if it is damaged, of another format, or larger once unpacked."""
    data = path.read_bytes()
    body = data[len(_MAGIC) + 32 :]
    if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != data[len(_MAGIC) : len(_MAGIC) + 32]:
        return None
    size = zstd.size_in(body)
    plain = None if size is None or size > bytes_max else zstd.unpack(body, size)
    try:
        return None if plain is None else _unpacked(plain)
    except (struct.error, TypeError, *UNREADABLE):
        return None


def _unpacked(plain: bytes) -> tuple[_Content, dict[str, np.ndarray]]:
    start = _LENGTH.size + _LENGTH.unpack_from(plain)[0]
    content = msgspec.msgpack.decode(plain[_LENGTH.size : start], type=_Content)
    stream = {}
    for name, (descr, shape) in content.stream.items():
        dtype = np.lib.format.descr_to_dtype(object_graph.as_descr(descr))
        count = int(np.prod(shape, dtype=np.int64))
        stream[name] = np.frombuffer(plain, dtype, count, start).reshape(shape)
        start += count * dtype.itemsize
    return content, stream
