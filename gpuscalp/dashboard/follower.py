"""Reading a journal while it is written, from some time ago on, a bounded piece at a time.

Owns: the place in the journal up to which has been read. Never: takes a lock, changes a file, or makes
records of blocks that hold none of the wanted kinds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Final, final

from gpuscalp.errors import JournalError
from gpuscalp.journal.blocks import (
    BLOCK_HEADER_BYTES,
    SEGMENT_BYTES,
    Record,
    decode_header,
    decode_payload,
    decode_segment,
)
from gpuscalp.journal.reader import raw_blocks, segments_of

# Packed bytes: of the past at most, and of one piece.
PAST_BYTES: Final = 64 << 20
PIECE_BYTES: Final = 4 << 20


@final
class JournalFollower:
    """Follows one journal.

    Parameters
    ----------
    path : the directory; it may not be there yet
    since_ns : wall clock; earlier blocks are passed over
    past_bytes : of the blocks that are there, only so many of the last ones are read

    Attributes
    ----------
    behind : there is more to be read at once
    damage : what cannot be read, in words; "" while all is well. A new segment is gone on with
    """

    def __init__(self, path: Path, *, since_ns: int, past_bytes: int = PAST_BYTES) -> None:
        self._path, self._since_ns, self._past_bytes = path, since_ns, past_bytes
        self._segment: Path | None = None
        self._at = SEGMENT_BYTES
        self.behind, self.damage = True, ""

    def read(self, kinds: Collection[int], *, piece_bytes: int = PIECE_BYTES) -> Iterator[list[Record]]:
        """Yield the records of the wanted kinds, block by block, of about ``piece_bytes`` of the journal."""
        segments = segments_of(self._path) if self._path.is_dir() else []
        if self._segment is None and segments:
            self._segment, self._at = self._start(segments)
        if self._segment is None:
            self.behind = False
            return
        first, left = self._at, piece_bytes
        yield from self._blocks(self._segment, frozenset(kinds), left)
        self.behind = self._at - first >= left
        if not self.behind and (later := [each for each in segments if each > self._segment]):
            # A new segment is begun when the one before will not grow any more.
            self._segment, self._at, self.behind, self.damage = later[0], SEGMENT_BYTES, True, ""

    def _blocks(self, segment: Path, kinds: frozenset[int], left: int) -> Iterator[list[Record]]:
        try:
            with segment.open("rb") as file:
                file.seek(self._at)
                for at, header, payload in raw_blocks(file, segment, torn=True):
                    if header is None:  # it is being written
                        return
                    self._at = at + header.size
                    found = list(decode_payload(header, payload, f"{segment}, byte {at}", kinds))
                    if found:
                        yield found
                    left -= header.size
                    if left <= 0:
                        return
        except (JournalError, OSError) as error:
            self.damage = str(error)

    def _start(self, segments: list[Path]) -> tuple[Path, int]:
        """Return the segment and the place in it to begin at."""
        left = self._past_bytes
        for segment in reversed(segments):
            try:
                with segment.open("rb") as file:
                    places = _places(file, segment, left)
                    if not places:
                        continue
                    left -= sum(size for _, size in places)
                    if (
                        left <= 0
                        or segment == segments[0]
                        or self._received(file, places[0][0]) < self._since_ns
                    ):
                        return segment, self._search(file, places)
            except (JournalError, OSError) as error:
                self.damage = str(error)
                return segments[-1], SEGMENT_BYTES
        return segments[-1], SEGMENT_BYTES

    def _search(self, file: IO[bytes], places: list[tuple[int, int]]) -> int:
        """Return where the first block that is new enough begins; the last one if none is."""
        low, high = 0, len(places) - 1
        while low < high:
            middle = (low + high) // 2
            if self._received(file, places[middle][0]) < self._since_ns:
                low = middle + 1
            else:
                high = middle
        return places[low][0]

    def _received(self, file: IO[bytes], at: int) -> int:
        """Return when the first record of a block was received."""
        file.seek(at)
        header = decode_header(file.read(BLOCK_HEADER_BYTES), file.name)
        payload = file.read(header.payload_bytes)
        return next(decode_payload(header, payload, file.name)).recv_ns


def _places(file: IO[bytes], segment: Path, last_bytes: int) -> list[tuple[int, int]]:
    """Return offset and size of the whole blocks in the last bytes of a segment, by their headers."""
    decode_segment(file.read(SEGMENT_BYTES), str(segment))
    end = segment.stat().st_size
    found, at = [], SEGMENT_BYTES
    while at + BLOCK_HEADER_BYTES <= end:
        file.seek(at)
        header = decode_header(file.read(BLOCK_HEADER_BYTES), f"{segment}, byte {at}")
        if at + header.size > end:
            break
        if at >= end - last_bytes:
            found.append((at, header.size))
        at += header.size
    return found
