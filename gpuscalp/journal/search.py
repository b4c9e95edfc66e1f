"""Finding the newest record of a kind without reading all that came before it.

Owns: the way backwards, block by block. Never: repairs, or judges a tail: what is not whole is passed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO

from gpuscalp.errors import DeadlineError, JournalError
from gpuscalp.journal.blocks import (
    SEGMENT_BYTES,
    BlockHeader,
    Record,
    decode_payload,
    decode_segment,
)
from gpuscalp.journal.reader import raw_blocks, segments_of


def newest(
    path: str | Path, kinds: Collection[int] | None = None, *, go_on: Callable[[], bool] = lambda: True
) -> Record | None:
    """Return the last record of the given kinds, of any kind without them; None if there is none.

    Parameters
    ----------
    path : a journal, or one segment
    go_on : asked before every block that is unpacked; False ends the search

    Raises
    ------
    JournalError    a segment before the last one is damaged
    DeadlineError   ``go_on`` said no
    """
    segments = segments_of(path)
    for segment in reversed(segments):
        with segment.open("rb") as file:
            for at, header in reversed(_blocks(file, segment, may_be_torn=segment == segments[-1])):
                if not go_on():
                    raise DeadlineError("the search in the journal took too long", where=str(segment))
                file.seek(at + header.size - header.payload_bytes)
                payload = file.read(header.payload_bytes)
                last = deque(decode_payload(header, payload, f"{segment}, byte {at}", kinds), maxlen=1)
                if last:
                    return last[0]
    return None


def _blocks(file: IO[bytes], segment: Path, *, may_be_torn: bool) -> list[tuple[int, BlockHeader]]:
    """Return offset and header of the blocks; of a torn segment, of those before the first bad byte."""
    found: list[tuple[int, BlockHeader]] = []
    try:
        decode_segment(file.read(SEGMENT_BYTES), str(segment))
        for at, header, _ in raw_blocks(file, segment):
            assert header is not None, "given only where a torn end was asked for"
            found.append((at, header))
    except JournalError:
        if not may_be_torn:
            raise
    return found
