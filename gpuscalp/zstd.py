"""Frames of Zstandard that name the size of what is in them.

Owns: the choice between the module that Python has from 3.14 on and its backport. Never: opens a file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def packer(level: int) -> Callable[[bytes], bytes]:
    """Return a function that packs bytes into one frame, for one thread at a time."""
    compressor = zstd.ZstdCompressor(level)
    return lambda data: compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)


def packed(pieces: Iterable[memoryview], size: int, level: int) -> Iterator[bytes]:
    """Yield one frame of ``size`` bytes that come in pieces. Other threads run while a piece is packed."""
    compressor = zstd.ZstdCompressor(level)
    compressor.set_pledged_input_size(size)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def size_in(frame: bytes) -> int | None:
    """Return how many bytes a frame says that it holds; None if it is no frame, or does not say.

    Unpacking takes up to twice as much memory, for the pieces and the whole; less if what it says is wrong.
    """
    try:
        return zstd.get_frame_info(frame).decompressed_size
    except zstd.ZstdError:
        return None


def unpack(frame: bytes, size: int) -> bytes | None:
    """Return the ``size`` bytes of a frame, of which ``size_in`` has said so many; None if it is damaged."""
    decompressor = zstd.ZstdDecompressor()
    try:
        data = decompressor.decompress(frame, size)
    except zstd.ZstdError:
        return None
    return data if decompressor.eof and len(data) == size else None
