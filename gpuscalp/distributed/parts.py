"""Parts of a recording whose rows have the bits of the whole walk, whoever walks them.

Owns: where a walk must begin for a part, what tells that it did, and which part is whose. Never: starts a
task.

A frame depends on the ticks before it: through its windows, and through the last quote, book and mark of
every symbol, which may be of any age. So a walk begins ahead of its part, and at one frame ahead of the part
it is compared with the walk over the part before: every value of that frame and of its features. All state is
either overwritten by the next tick of its kind or lies within the longest window, and what a walk does not
know yet is missing there. Where the frame has the same bits, so has everything after it.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, final

import numpy as np

from gpuscalp.config import TrainConfig
from gpuscalp.errors import ParityError
from gpuscalp.labels import label_horizon_ns
from gpuscalp.schema import NS_PER_MS, FeatureChunk
from gpuscalp.splits import RowCounts
from gpuscalp.train.dataset import COUNT_BUCKET_NS, LabelledChunk, count_rows, labelled_chunks
from gpuscalp.train.device import TrainingDevice
from gpuscalp.train.source import ArchiveSource
from gpuscalp.train.walk import within

# A recording is cut into so many parts at most; none is shorter than its lead. Those of a year have two
# hours, half of which a worker walks in vain before its piece: little, even for hundreds of workers.
PARTS: Final = 4_096


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of time.

    Attributes
    ----------
    start_ns, end_ns : half-open, of the entries of its rows
    check_ns : close of the frame at which its walk must agree with that of the part before
    lead_ns : how far before ``check_ns`` its walk begins
    """

    start_ns: int
    end_ns: int
    check_ns: int
    lead_ns: int

    @property
    def walk_ns(self) -> int:
        """Return where its walk begins."""
        return self.check_ns - self.lead_ns


@dataclass(frozen=True, slots=True)
class Seen:
    """What the walk over a part found.

    Attributes
    ----------
    counts : of its rows
    frames : close of a frame, ns → the digest of its state; None where there is no such frame
    """

    counts: RowCounts
    frames: dict[int, bytes | None]


# Walks parts; with each come the closes of the frames to note, none later than the part's end.
Look = Callable[[Sequence[tuple[Part, Sequence[int]]]], Sequence[Seen]]


def cut(first_ns: int, end_ns: int, config: TrainConfig, *, warm_up_frames: int) -> tuple[Part, ...]:
    """Cut the time of a recording into parts, on whole buckets of the counts.

    Parameters
    ----------
    first_ns, end_ns : half-open range of its ticks
    warm_up_frames : of the feature graph; a walk is given twice as many before it is compared
    """
    frame_ns = config.grid.frame_ms * NS_PER_MS
    back_ns = label_horizon_ns(config.label, config.grid)
    lead_ns = 2 * warm_up_frames * frame_ns
    length_ns = max((end_ns - first_ns) // PARTS, lead_ns + back_ns)
    length_ns = -(-length_ns // COUNT_BUCKET_NS) * COUNT_BUCKET_NS
    begin_ns = first_ns // COUNT_BUCKET_NS * COUNT_BUCKET_NS
    # A frame may close behind the last tick's time.
    starts = range(begin_ns, end_ns + COUNT_BUCKET_NS, length_ns)
    # Weights of the first rows look back at the labels that are still open then.
    return tuple(
        Part(start, start + length_ns, (start - back_ns) // frame_ns * frame_ns, lead_ns) for start in starts
    )


def starting_at(source: ArchiveSource, time_ns: int) -> ArchiveSource:
    """Return the same source with walks that begin at a time, or where they do anyway if that is later."""
    begin_ns = source.start_ns
    return replace(source, start_ns=time_ns if begin_ns is None else max(begin_ns, time_ns))


def look_at(
    part: Part,
    source: ArchiveSource,
    config: TrainConfig,
    *,
    compare_ns: Sequence[int],
    device: TrainingDevice,
) -> Seen:
    """Walk a part: count its rows, and note the state of some frames.

    Parameters
    ----------
    source : of the whole recording
    compare_ns : closes of the frames, none later than the part's end
    """
    frames: dict[int, bytes | None] = dict.fromkeys(compare_ns)

    def noted(chunks: Iterator[FeatureChunk]) -> Iterator[FeatureChunk]:
        for chunk in chunks:
            for at_ns in frames:
                at = int(np.searchsorted(chunk.frames.end_ns, at_ns))
                if at < len(chunk.frames) and chunk.frames.end_ns[at] == at_ns:
                    frames[at_ns] = _state(chunk, at, device)
            yield chunk

    chunks = noted(starting_at(source, part.walk_ns).chunks())
    counts = count_rows(within(labelled_chunks(chunks, config), part.start_ns, part.end_ns))
    return Seen(counts, frames)


def agree(parts: Sequence[Part], look: Look, *, first_ns: int) -> tuple[tuple[Part, ...], RowCounts]:
    """Lengthen the leads of parts until every walk agrees with the one before it; count the rows.

    Parameters
    ----------
    look : walks some of the parts, all at once
    first_ns : time of the recording's first tick: a walk from there is the whole one

    Returns
    -------
    (the parts with such leads, the counts of all rows)

    Raises
    ------
    ParityError    two walks from the same tick do not agree
    """
    parts, wanted = list(parts), list(range(len(parts)))
    seen: dict[int, Seen] = {}
    while wanted:
        tasks = [(parts[at], [part.check_ns for part in parts[at : at + 2]]) for at in wanted]
        seen |= dict(zip(wanted, look(tasks), strict=True))
        differing = [
            at
            for at, part in enumerate(parts)
            if at and seen[at].frames[part.check_ns] != seen[at - 1].frames[part.check_ns]
        ]
        # All before the first of them are right; a later one may be, and differ from one that is not yet.
        if differing and parts[differing[0]].walk_ns <= first_ns:
            raise ParityError(
                "two walks over the same ticks give other frames",
                where=f"frame at {parts[differing[0]].check_ns} ns",
                fix="machines of the cluster compute differently: compare `gpuscalp doctor` on them",
            )
        wanted = [at for at in differing if parts[at].walk_ns > first_ns]
        for at in wanted:
            parts[at] = replace(parts[at], lead_ns=2 * parts[at].lead_ns)
    counts = RowCounts(
        start_ns=np.concatenate([seen[at].counts.start_ns for at in range(len(parts))]),
        count=np.concatenate([seen[at].counts.count for at in range(len(parts))]),
        bucket_ns=COUNT_BUCKET_NS,
        unlabelled=sum(seen[at].counts.unlabelled for at in range(len(parts))),
    )
    return tuple(parts), counts


def shares(counts: RowCounts, start_ns: int, end_ns: int, workers: int) -> list[tuple[int, int]]:
    """Cut an interval into pieces of nearly equal numbers of rows, on whole buckets.

    Returns
    -------
    half-open (start, end), ns, for each worker; together they are the interval
    """
    inside = (counts.start_ns + counts.bucket_ns > start_ns) & (counts.start_ns < end_ns)
    ends = counts.start_ns[inside] + counts.bucket_ns
    total = np.cumsum(counts.count[inside])
    if len(total) == 0:
        return [(start_ns, end_ns), *[(end_ns, end_ns)] * (workers - 1)]
    wanted = total[-1] * np.arange(1, workers) / workers
    at = np.minimum(np.searchsorted(total, wanted), len(ends) - 1)
    cuts = [start_ns, *np.clip(ends[at], start_ns, end_ns).tolist(), end_ns]
    return list(pairwise(cuts))


@final
class Share:
    """One worker's rows of a recording: of any interval a piece of time with its share of the rows.

    Parameters
    ----------
    source, config : of the whole recording
    parts : with leads whose walks agree
    counts : of the whole recording
    rank, workers : which share
    """

    def __init__(
        self,
        source: ArchiveSource,
        config: TrainConfig,
        *,
        parts: Sequence[Part],
        counts: RowCounts,
        rank: int,
        workers: int,
    ) -> None:
        self._source, self._config = source, config
        self._parts, self._counts = parts, counts
        self._rank, self.workers = rank, workers

    def labelled(self, start_ns: int, end_ns: int) -> Iterator[LabelledChunk]:
        first_ns, last_ns = shares(self._counts, start_ns, end_ns, self.workers)[self._rank]
        if first_ns >= last_ns:
            return iter(())
        at = bisect.bisect_right(self._parts, first_ns, key=lambda part: part.start_ns) - 1
        source = self._source if at < 1 else starting_at(self._source, self._parts[at].walk_ns)
        return within(labelled_chunks(source.chunks(), self._config), first_ns, last_ns)


def _state(chunk: FeatureChunk, at: int, device: TrainingDevice) -> bytes:
    frames = chunk.frames
    digest = hashlib.sha256()
    for array in (
        frames.quality[at],
        frames.bid_px[at],
        frames.ask_px[at],
        frames.mark[at],
        frames.channels[at],
        device.to_host(chunk.features[:, :, at]),
    ):
        # Missing is missing, whatever made it so.
        values = (
            np.where(np.isnan(array), array.dtype.type(np.nan), array) if array.dtype.kind == "f" else array
        )
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.digest()
