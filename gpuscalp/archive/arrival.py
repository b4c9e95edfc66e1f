"""Records of one source in arrival order, with receive times that never go back.

Owns: the repair of lines that lie out of order. Pure.

A recording is written in arrival order, so receive times fall only where lines were moved, a stamp was
damaged, or the recorder's clock was set back:

- up to 8 lines in a row that are older than a line before them were moved: they go back to their place,
  at most about 16 lines;
- a single line that is newer than the 8 after it, which fit what came before, has a damaged stamp: it stays
  where it is, with the receive time of the line before it, or where there is none, of the oldest of the 8;
- more than 8 older lines in a row are a clock set back: they stay, their receive time raised to the last one.

Each such line counts once as out of order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Final, TypeAlias

from gpuscalp.feeds.messages import Message

# (receive time, line number, a message in the venue's JSON or already decoded)
Record: TypeAlias = tuple[int, int, bytes | Message]

WINDOW: Final = 8
_BLOCK: Final = 512


def is_newest_first(times: Sequence[int]) -> bool:
    """Whether times fall from line to line, but for a few: nothing that ``Arrival`` can repair."""
    falls = sum(later < earlier for earlier, later in pairwise(times))
    rises = sum(later > earlier for earlier, later in pairwise(times))
    return falls > max(WINDOW, 10 * rises)


class Arrival:
    """Iterate over records in repaired order.

    Attributes
    ----------
    out_of_order : lines moved or re-dated so far
    begin_ns : no record is dated before it; set it before the iteration begins
    """

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self.out_of_order = self.begin_ns = 0
        self._top = 0  # the newest credible receive time
        self._stepped = False  # inside a stretch where the clock was set back

    def __iter__(self) -> Iterator[Record]:
        held: list[Record] = []
        emitted = self.begin_ns
        while True:
            fresh = list(islice(self._records, _BLOCK))
            block = held + fresh
            # The last lines wait: for those that decide about them, and for lines to be moved before them.
            ready = len(block) - 3 * WINDOW if fresh else len(block)
            if ready <= 0 and fresh:
                held = block
                continue
            times = [record[0] for record in block]
            if not self._stepped and times and times[0] >= emitted and times == sorted(times):
                arranged = block
            else:
                decided = len(block) - WINDOW if fresh else len(block)
                arranged = self._arrange(block, times, decided, emitted)
            if ready:
                emitted = self._top = arranged[ready - 1][0]
            yield from arranged[:ready]
            held = arranged[ready:]
            if not fresh:
                return

    def _arrange(self, block: list[Record], times: list[int], decided: int, emitted: int) -> list[Record]:
        """Decide the time of the first records and sort them. Those that are not handed on yet come again
        with the next block, by then in order, so that nothing is counted twice."""
        top, count = max(self._top, emitted), len(times)
        begun = self._top > 0
        keys: list[int] = []
        for index in range(decided):
            time = times[index]
            following = times[index + 1 : index + 1 + WINDOW]
            if time >= top:
                self._stepped = False
                if len(following) == WINDOW and time > max(following) and min(following) >= top:
                    self.out_of_order += 1
                    keys.append(top if begun else min(following))
                else:
                    top, begun = time, True
                    keys.append(top)
                continue
            self.out_of_order += 1
            run = index
            while run < count and run - index <= WINDOW and times[run] < top:
                run += 1
            self._stepped = self._stepped or run - index > WINDOW
            keys.append(top if self._stepped else max(time, emitted))
        order = sorted(range(decided), key=keys.__getitem__)
        return [(keys[index], *block[index][1:]) for index in order] + block[decided:]
