"""Micro-batches: ticks from the feed on one side, batches for the engine on the other, within a bound.

Owns: what waits, when a batch closes, what gives way in an overload. Pure: time is an argument. The feed
never waits for the engine: ``push`` always takes everything.

A batch closes when it is large enough, when its oldest tick has waited long enough, or when a frame has ended
(its ticks are of no use before, and late after). In an overload, when more than ``conflate_above`` ticks
wait, quotes, books and marks conflate: of each symbol, kind and frame only the newest stays, with
``Quality.GAP``, because sums over the frame have lost what was left out. Trades and clock ticks never give
way. If that is not enough, conflation goes over frames; and if trades alone pass ``hard_limit``, ``push``
raises: the engine has stopped, and going on would only hide it.

What conflates depends on when batches were taken and how ticks came. Who has to reproduce a session writes
down both: where batches were taken, and where ``overload_count`` grew; a batcher that is set to
``by_hand`` lets ticks give way only when :meth:`Batcher.relieve` is called.
"""

from __future__ import annotations

from typing import final

import numpy as np
import numpy.typing as npt

from gpuscalp.config import BatchConfig
from gpuscalp.errors import DeadlineError, ShapeError
from gpuscalp.schema import I64, NS_PER_MS, TICK, Quality, TickKind, Ticks

_GAP = int(Quality.GAP)


@final
class Batcher:
    """Collects ticks.

    Parameters
    ----------
    config : BatchConfig
    frame_ns : length of a frame
    lateness_ns : a frame ends when an exchange time this far behind its end has been seen

    Attributes
    ----------
    pushed_count, batch_count, conflated_count, overload_count : since the beginning
    largest_count : most ticks that ever waited
    newest_exch_ns : largest exchange time seen
    frame_ended : a frame has ended whose batch has not been taken
    by_hand : ticks give way only in ``relieve``; to be set
    """

    def __init__(self, config: BatchConfig, *, frame_ns: int, lateness_ns: int = 0) -> None:
        if config.conflate_above > config.hard_limit:
            raise ShapeError("batch.conflate_above lies above batch.hard_limit", value=config.conflate_above)
        self._config, self._frame_ns, self._lateness_ns = config, frame_ns, lateness_ns
        self._buffers = [np.zeros((1 << 12, 8), np.int64) for _ in range(2)]
        self._count = 0
        self._oldest_ns = 0
        self.newest_exch_ns = 0
        self.by_hand = False
        self._frame: int | None = None  # the open frame
        self.frame_ended = False
        self._relief_count = config.conflate_above
        self.pushed_count = self.batch_count = self.conflated_count = self.overload_count = 0
        self.largest_count = 0

    def __len__(self) -> int:
        """Ticks that wait."""
        return self._count

    def push(self, ticks: Ticks, now_ns: int) -> None:
        """Take ticks, in arrival order.

        Raises
        ------
        ShapeError       the array is not TICK[N]
        DeadlineError    more trades wait than ``hard_limit``
        """
        if ticks.dtype != TICK or ticks.ndim != 1:
            raise ShapeError("ticks must be a TICK[N] array", value=f"{ticks.dtype}{ticks.shape}")
        if not len(ticks):
            return
        if not self._count:
            self._oldest_ns = now_ns
        words = np.ascontiguousarray(ticks).view(np.int64).reshape(-1, 8)
        self._reserve(self._count + len(ticks))
        self._buffers[0][self._count : self._count + len(ticks)] = words
        self._count += len(ticks)
        self.pushed_count += len(ticks)
        self.largest_count = max(self.largest_count, self._count)
        self._watch_frames(int(ticks["exch_ns"].max()))
        if self._count > self._relief_count and not self.by_hand:
            self.relieve()

    def take(self, now_ns: int, *, force: bool = False) -> Ticks | None:
        """Return the batch, TICK[N], if it has to close now, or in any case with ``force``.

        It is in arrival order, and a view that the next call but one overwrites. None if nothing waits.
        """
        if not self._count:
            return None
        config, waited_ns = self._config, now_ns - self._oldest_ns
        full = self._count >= config.max_ticks or waited_ns >= config.max_age_ms * NS_PER_MS
        if not (self.frame_ended or full or force):
            return None
        ticks = self._pending()
        self._buffers.reverse()
        self._count = 0
        self._relief_count = config.conflate_above
        self.frame_ended = False
        self.batch_count += 1
        return ticks

    @property
    def closes_ns(self) -> int:
        """The exchange time from which on a tick ends the open frame; 0 where none is open."""
        if self._frame is None or self.frame_ended:
            return 0
        return (self._frame + 1) * self._frame_ns + self._lateness_ns

    def _pending(self) -> Ticks:
        ticks: Ticks = self._buffers[0].reshape(-1).view(TICK)[: self._count]
        return ticks

    def _reserve(self, count: int) -> None:
        if count > len(self._buffers[0]):
            larger = np.zeros((1 << (count - 1).bit_length(), 8), np.int64)
            larger[: self._count] = self._buffers[0][: self._count]
            self._buffers[0] = larger

    def _watch_frames(self, exch_ns: int) -> None:
        if exch_ns <= self.newest_exch_ns:
            return
        self.newest_exch_ns = exch_ns
        frame = (exch_ns - self._lateness_ns) // self._frame_ns
        if self._frame is None:
            self._frame = frame
        elif frame > self._frame:
            self._frame, self.frame_ended = frame, True

    def relieve(self) -> None:
        """Let quotes, books and marks give way.

        Raises
        ------
        DeadlineError    more trades wait than ``hard_limit``
        """
        self.overload_count += 1
        self._conflate(by_frame=True)
        if self._count > self._config.hard_limit:
            self._conflate(by_frame=False)
        # Where trades make up most of it, not at every push: each tick is looked at a few times at most.
        self._relief_count = min(max(self._relief_count, 2 * self._count), self._config.hard_limit)
        if self._count > self._config.hard_limit:
            raise DeadlineError(
                "the engine has stopped: more ticks wait than may",
                where="batcher",
                value=self._count,
                fix="fewer symbols or a faster device; batch.hard_limit only puts it off",
            )

    def _conflate(self, *, by_frame: bool) -> None:
        ticks = self._pending()
        kind = ticks["kind"]
        yields = np.flatnonzero((kind != TickKind.TRADE) & (kind != TickKind.CLOCK))
        groups = _groups(ticks[yields], self._frame_ns if by_frame else 0)
        # The last of each group, and whether others stood before it.
        backwards = groups[::-1]
        _, first, sizes = np.unique(backwards, return_index=True, return_counts=True)
        last = yields[len(backwards) - 1 - first]
        keep = np.ones(self._count, bool)
        keep[yields] = False
        keep[last] = True
        ticks["quality"][last[sizes > 1]] |= _GAP
        kept = self._buffers[0][: self._count][keep]
        given_way = self._count - len(kept)
        self._buffers[0][: len(kept)] = kept
        self._count = len(kept)
        self.conflated_count += given_way


def _groups(ticks: Ticks, frame_ns: int) -> I64:
    """Return one number for each symbol, kind and (where its length is given) frame."""
    columns: list[npt.NDArray[np.int64]] = [ticks["symbol"].astype(np.int64), ticks["kind"].astype(np.int64)]
    if frame_ns:
        columns.append(ticks["exch_ns"] // frame_ns)
    number = np.zeros(len(ticks), np.int64)
    for column in columns:
        _, place = np.unique(column, return_inverse=True)
        number = number * (int(place.max(initial=0)) + 1) + place.reshape(-1)
    return number
