"""When one frame is decided on, and what is known then beside the market.

Owns: the record. A backtest makes its own (``gpuscalp.backtest.latency``); one that is to do what a session
did takes the session's, from its journal (``gpuscalp.live.moments``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gpuscalp.backtest.models import cut
from gpuscalp.backtest.tape import Tape
from gpuscalp.errors import DataError
from gpuscalp.inference import chunk_digests
from gpuscalp.schema import E8, I64, U32, FeatureChunk, Instrument

# So many moments are looked at before an archive is refused.
_ENOUGH: Final = 20
_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Moment:
    """Exchange times are ours.

    Attributes
    ----------
    position : how many rows have been heard of
    heard_ns : reports of the broker that are known by then count
    decided_ns : when the gate is asked, and the orders leave
    clock_error_ms, device_ok, extra_quality : as ``gpuscalp.orders.Conditions`` has them
    unproved : bool[S], rows whose prediction does not count: all where there is none; None = none
    clocks : (position, exchange time): when the clock moved the exchange's time, since the last moment
    last : its orders, and those of the moments before it that are not, leave now
    sent_position : how many rows have been heard of when they do; a market goes on while it is decided
    sent_clocks : as ``clocks``, from the moment until then
    reordered : since the orders before left a row came after others that were received later
    rows : uint64[S] as bytes, digests of what was decided on (``gpuscalp.inference.chunk_digests``)
    """

    position: int
    heard_ns: int
    decided_ns: int
    # A recording has no clock of ours that could be wrong, and no device that could fail.
    clock_error_ms: float = 0.0
    device_ok: bool = True
    extra_quality: U32 | None = None
    unproved: npt.NDArray[np.bool_] | None = None
    clocks: tuple[tuple[int, int], ...] = ()
    last: bool = True
    sent_position: int = 0
    sent_clocks: tuple[tuple[int, int], ...] = ()
    reordered: bool = False
    rows: bytes = b""


@dataclass(slots=True)
class Likeness:
    """The moments of a session, by the end of their frames, and how like it the archive is.

    In place of its positions a moment has receive times: all rows that were received by then have been heard
    of. An archive is in the order of receipt; of a journal that holds but for an answer to a request, which
    comes a little later than it was received.

    Attributes
    ----------
    session_id : whose they are
    instruments : as the session knew them: an archive may only have seen them
    moments : frames that are not in it are not traded on
    frame_count : frames of the archive that were compared
    differing_ns : ends of those that are not what the session saw: it closed them before all had come, or
        heard of a book later than it was received; features look back as far as their windows reach
    missed_count : moments whose last row the archive does not have
    """

    session_id: str
    instruments: tuple[Instrument, ...]
    moments: Mapping[int, Moment]
    frame_count: int = 0
    differing_ns: list[int] = field(default_factory=list)
    missed_count: int = 0
    _asked_count: int = 0

    def heard_ns(self, end_ns: I64) -> int:
        """Return up to which receive time the session had heard when the orders of T frames left."""
        found = (self.moments.get(end) for end in end_ns.tolist())
        return max((moment.sent_position for moment in found if moment is not None), default=0)

    def moments_of(self, end_ns: I64, tape: Tape) -> Iterator[tuple[int, Moment]]:
        """Yield the moments of T frames by index, but for those on which the session did not decide.

        Parameters
        ----------
        end_ns : int64[T]
        tape : the rows; has all that the session had heard by then

        Raises
        ------
        DataError    they are not what the session heard
        """
        for index, end in enumerate(end_ns.tolist()):
            moment = self.moments.get(end)
            if moment is None:
                continue
            position = _heard(moment.position, tape)
            row = position - tape.start
            self._asked_count += 1
            if moment.position and (row == 0 or int(tape.recv_ns[row - 1]) != moment.position):
                self.missed_count += 1
            if self._asked_count >= _ENOUGH and 2 * self.missed_count > self._asked_count:
                raise DataError(
                    "the archive does not hold what the session heard",
                    where=f"session {self.session_id}",
                    value=f"{self.missed_count} of {self._asked_count} times its last row is not there",
                    fix="import the journal of this session, all of it, and nothing else",
                )
            here = replace(
                moment,
                position=position,
                clocks=_placed(moment.clocks, tape),
                sent_position=_heard(moment.sent_position, tape),
                sent_clocks=_placed(moment.sent_clocks, tape),
            )
            yield index, here

    def instruments_over(self, archived: Sequence[Instrument]) -> tuple[Instrument, ...]:
        """Return the session's instruments in place of an archive's.

        Raises
        ------
        DataError    they are others, or count prices in another tick
        """
        known = [(each.symbol, each.tick_size_e8) for each in self.instruments]
        if [(each.symbol, each.tick_size_e8) for each in archived] != known:
            raise DataError(
                "the archive's symbols or tick sizes are not those of the session",
                where=f"session {self.session_id}",
                value=[(each.symbol, each.tick_size_e8 / E8) for each in archived],
                fix="import the session's journal with --instruments",
            )
        return self.instruments

    def compare(self, chunk: FeatureChunk) -> None:
        """Note which frames of a chunk are what the session saw."""
        for index, end in enumerate(chunk.frames.end_ns.tolist()):
            moment = self.moments.get(end)
            if moment is None:
                continue
            one = cut(chunk, index, index + 1)
            rows = np.ascontiguousarray(one.features)
            self.frame_count += 1
            if moment.rows != chunk_digests(FeatureChunk(one.frames, rows)).tobytes():
                self.differing_ns.append(end)

    def summary(self) -> dict[str, Any]:
        """Return what ``result.json`` says of it."""
        return {
            "session": self.session_id,
            "session_frames": len(self.moments),
            "frames": self.frame_count,
            "frames_differing": len(self.differing_ns),
            "differing_ns": self.differing_ns[:_SHOWN],
            "reordered_ns": [end for end, moment in self.moments.items() if moment.reordered][:_SHOWN],
            "last_rows_missed": self.missed_count,
        }


def _heard(recv_ns: int, tape: Tape) -> int:
    """Return the position after all rows that were received by a time."""
    return tape.start + int(np.searchsorted(tape.recv_ns, recv_ns, side="right"))


def _placed(clocks: Sequence[tuple[int, int]], tape: Tape) -> tuple[tuple[int, int], ...]:
    return tuple((_heard(recv_ns, tape), exch_ns) for recv_ns, exch_ns in clocks)
