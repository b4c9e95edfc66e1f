"""Which labelled chunks a training walks: those of the whole recording, or those of one worker's part.

Owns: cutting a walk to an interval. Never: changes a row: what is inside has the bits of the whole walk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final, Protocol, final

from gpuscalp.config import TrainConfig
from gpuscalp.train.dataset import LabelledChunk, labelled_chunks
from gpuscalp.train.source import FeatureSource

# Earlier and later than every row.
BEGINNING: Final = 0
END: Final = 2**63 - 1


class Recording(Protocol):
    """Labelled chunks, as often as they are asked for."""

    @property
    def workers(self) -> int:
        """Among how many the rows of an interval are shared out."""
        ...

    def labelled(self, start_ns: int, end_ns: int) -> Iterator[LabelledChunk]:
        """Yield the chunks with the rows that enter in a half-open interval; no other row is taken."""
        ...


@final
class WholeRecording:
    """All rows of a source; every walk begins where the recording does."""

    workers = 1

    def __init__(self, source: FeatureSource, config: TrainConfig) -> None:
        self._source, self._config = source, config

    def labelled(self, start_ns: int, end_ns: int) -> Iterator[LabelledChunk]:
        return within(labelled_chunks(self._source.chunks(), self._config), start_ns, end_ns)


def within(chunks: Iterable[LabelledChunk], start_ns: int, end_ns: int) -> Iterator[LabelledChunk]:
    """Yield the chunks that meet a half-open interval, without the rows that do not enter in it.

    The walk ends with the first chunk behind the interval.
    """
    for chunk in chunks:
        if chunk.end_ns[0] >= end_ns:
            return
        inside = (chunk.end_ns >= start_ns) & (chunk.end_ns < end_ns)
        if inside.all():
            yield chunk
        elif inside.any():
            inside = inside[:, None]
            yield replace(chunk, sound=chunk.sound & inside, taken=chunk.taken & inside)
