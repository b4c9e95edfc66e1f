"""Redundant connections to one flow: the first copy of every message wins, none is lost, none comes twice.

Owns: the newest id of each stream, who has joined it, and what waits. Pure; the messages are opaque here.

A connection delivers each of its streams in order and without holes from where it begins. Whoever begins
where the merged stream already was has *joined*: from then on its messages can be taken as they come, because
everything before them has been delivered by then, by itself or by others. So

- the first connection of a stream joins at once; a later one joins when an incumbent has reached its first
  message. Until then its messages wait: taking them would make those of the slower incumbent late;
- when the last incumbent is lost, those that wait take over. If nobody can tell that nothing is missing,
  because ids of this stream have holes by nature (quotes, marks), the first message after it bears a gap;
- where a message names its predecessor (trades by counting, depth by ``pu``) a hole shows. While another
  connection may still bring what is missing, the message waits for it, for ``hold_ms`` at most; then it is
  delivered with a gap.

Who has delivered the newest message and then goes back by itself brings no copies: a damaged id was far
ahead, or the venue's ids have begun anew. What it means is for the market to judge, so it is passed; and when
its ids have risen below the newest one for ``JOIN_MAX_NS``, the flow goes on from them: what was only held up
on its way has been overtaken by then. Where the source of the newest message is gone, the first one in an
empty flow takes its place, or any still behind it after that time.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, Final, NamedTuple, final

from msgspec import Struct

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.connection import NEVER
from gpuscalp.schema import NS_PER_MS, NS_PER_S

# How long a newcomer waits for an incumbent to reach it. Long: while incumbents deliver nobody misses it. No
# copy comes so much later than the first one.
JOIN_MAX_NS: Final = 2 * NS_PER_S
# Messages of one stream that may wait; a stream at 1,000 a second fills it in 8 s.
WAITING_MAX: Final = 8_192
_MISSING_MAX: Final = 64
_NOBODY: Final = -1


class Passed(NamedTuple):
    """A message to be used now. ``gap``: messages before it are missing, or may be."""

    number: int
    item: Any
    gap: bool


class _Held(Struct, frozen=True, order=True):
    ident: int
    order: int  # of arrival: ids may be equal, and items cannot be compared
    previous: int | None
    since_ns: int
    number: int
    item: Any


class _Flow:
    __slots__ = (
        *("back", "broken", "held", "is_idle", "joined", "missing", "newest", "orphaned_ns"),
        *("source", "waiting"),
    )

    def __init__(self) -> None:
        self.newest: int | None = None
        self.source = _NOBODY  # who delivered the newest
        self.orphaned_ns = 0  # when that connection was lost
        self.back = (-1, 0, 0)  # newest id, id that its source went back to, and since when
        self.broken = False  # nobody delivered for a while: what comes next may have lost its predecessors
        self.joined: set[int] = set()
        self.waiting: dict[int, list[_Held]] = {}
        self.held: list[_Held] = []
        self.is_idle = True  # nothing is held or waits
        self.missing: list[tuple[int, int]] = []


@final
class Merge:
    """All streams of all connections.

    Call ``on_message`` for every message, ``on_lost`` when a connection ends, however it ends, and ``poll``
    at ``due_ns``; pass on what they return, in order.

    Attributes
    ----------
    duplicates : copies dropped, by connection
    gap_count : messages passed with a gap
    """

    def __init__(self, config: FeedConfig) -> None:
        self._hold_ns = config.hold_ms * NS_PER_MS
        self._flows: dict[Hashable, _Flow] = {}
        self._busy: set[Hashable] = set()  # flows where something waits
        self._order = 0
        self.duplicates: Counter[int] = Counter()
        self.gap_count = 0

    def judge(self, number: int, key: Hashable, ident: int, previous: int | None) -> bool | None:
        """Say at once what becomes of a message where that is plain, and count it.

        Returns
        -------
        bool or None
            True: to be used now, without a gap, and nothing else with it. False: a copy, dropped. None: not
            plain, nothing was done; give the message to ``on_message``
        """
        flow = self._flows.get(key)
        if flow is None or not flow.is_idle or number not in flow.joined:
            return None
        newest = flow.newest
        if newest is None:
            return None
        if ident > newest:
            if previous is not None and previous > newest:
                return None
            flow.newest, flow.source = ident, number
            return True
        if flow.missing or number == flow.source or flow.source == _NOBODY:
            return None
        flow.broken = False
        self.duplicates[number] += 1
        return False

    def on_message(
        self, number: int, key: Hashable, ident: int, previous: int | None, item: Any, now_ns: int
    ) -> list[Passed]:
        """Take one message.

        Parameters
        ----------
        number : the connection
        key : the stream, such as (symbol, kind): the same for all connections
        ident : rises within the stream
        previous : ident of the message before, where the venue tells it
        item : the message, handed through
        """
        verdict = self.judge(number, key, ident, previous)
        if verdict is not None:
            return [Passed(number, item, False)] if verdict else []
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow()
        self._order += 1
        passed: list[Passed] = []
        self._take(flow, _Held(ident, self._order, previous, now_ns, number, item), passed)
        self._settle(key, flow)
        return passed

    def on_lost(self, number: int, now_ns: int) -> list[Passed]:
        """A connection has ended: what waited for it need not wait any longer."""
        passed: list[Passed] = []
        for key, flow in self._flows.items():
            if number not in flow.joined and number not in flow.waiting:
                continue
            if number == flow.source:
                flow.source, flow.orphaned_ns = _NOBODY, now_ns
            was_joined = number in flow.joined
            flow.joined.discard(number)
            # Who waits has an incumbent, which will bring everything that waited here.
            flow.waiting.pop(number, None)
            if was_joined and not flow.joined:
                flow.broken = True
                self._take_over(flow, passed)
            self._release(flow, passed, now_ns, alone=not flow.joined)
            self._settle(key, flow)
        return passed

    def poll(self, now_ns: int) -> list[Passed]:
        """Release what has waited long enough."""
        passed: list[Passed] = []
        for key in sorted(self._busy, key=repr):
            flow = self._flows[key]
            for number, waiting in list(flow.waiting.items()):
                if number in flow.waiting and now_ns - waiting[0].since_ns >= JOIN_MAX_NS:
                    self._join(flow, number, passed)
            self._release(flow, passed, now_ns, alone=False)
            self._settle(key, flow)
        return passed

    @property
    def due_ns(self) -> int:
        """When ``poll`` has to be called at the latest."""
        due_ns = NEVER
        for key in self._busy:
            flow = self._flows[key]
            if flow.held:
                due_ns = min(due_ns, min(held.since_ns for held in flow.held) + self._hold_ns)
            for waiting in flow.waiting.values():
                due_ns = min(due_ns, waiting[0].since_ns + JOIN_MAX_NS)
        return due_ns

    def joined(self, number: int, belongs: Callable[[Hashable], bool]) -> bool:
        """Whether a connection has joined every stream, of those that belong to it, that anybody else
        delivers: then it can take their place."""
        return all(
            number in flow.joined
            for key, flow in self._flows.items()
            if belongs(key) and (flow.joined or flow.waiting)
        )

    def _take(self, flow: _Flow, held: _Held, passed: list[Passed]) -> None:
        number = held.number
        if number in flow.joined:
            self._advance(flow, held, passed)
            # It may have reached those who wait.
            for other, waiting in list(flow.waiting.items()):
                if flow.newest is not None and waiting[0].ident <= flow.newest:
                    self._join(flow, other, passed)
        elif number in flow.waiting:
            flow.waiting[number].append(held)
            if len(flow.waiting[number]) > WAITING_MAX:
                self._join(flow, number, passed)
        elif not flow.joined or _reaches_back(flow, held):
            if not flow.joined:
                flow.source = number
            flow.joined.add(number)
            self._advance(flow, held, passed)
        else:
            flow.waiting[number] = [held]

    def _join(self, flow: _Flow, number: int, passed: list[Passed]) -> None:
        flow.joined.add(number)
        waiting = flow.waiting.pop(number)
        if flow.newest is not None and waiting[0].ident > flow.newest and waiting[0].previous is None:
            flow.broken = True
        for held in waiting:
            self._advance(flow, held, passed)

    def _take_over(self, flow: _Flow, passed: list[Passed]) -> None:
        """The last incumbent is gone: whoever reaches back farthest goes first."""
        for number in sorted(flow.waiting, key=lambda each: flow.waiting[each][0].ident):
            if number in flow.waiting:
                self._join(flow, number, passed)

    def _advance(self, flow: _Flow, held: _Held, passed: list[Passed]) -> None:
        """Take a message of somebody who has joined."""
        newest = flow.newest
        if newest is not None and held.ident <= newest:
            if flow.source == _NOBODY and held.since_ns - flow.orphaned_ns >= JOIN_MAX_NS:
                flow.source = held.number
            if held.number == flow.source:
                self._go_back(flow, held, passed)
            elif any(first <= held.ident <= last for first, last in flow.missing):
                passed.append(Passed(held.number, held.item, False))
            else:
                self.duplicates[held.number] += 1
            # From here on nothing is missing: the messages of this connection reach back to known ones.
            flow.broken = False
            return
        if held.previous is not None and newest is not None and held.previous > newest:
            if len(flow.joined) > 1 or flow.held:
                if any(other.ident == held.ident for other in flow.held):
                    self.duplicates[held.number] += 1
                else:
                    insort(flow.held, held)
                    if len(flow.held) > WAITING_MAX:
                        self._pass(flow, flow.held.pop(0), passed, gap=True)
                return
            self._pass(flow, held, passed, gap=True)
            return
        self._pass(flow, held, passed, gap=flow.broken and held.previous is None and newest is not None)

    def _go_back(self, flow: _Flow, held: _Held, passed: list[Passed]) -> None:
        """Take a message of the source that does not come after its newest one."""
        newest, last, since_ns = flow.back
        if flow.newest is not None and held.ident < flow.newest:
            if newest != flow.newest or held.ident <= last:
                since_ns = held.since_ns
            flow.back = (flow.newest, held.ident, since_ns)
            if held.since_ns - since_ns >= JOIN_MAX_NS:
                self._release(flow, passed, held.since_ns, alone=True)
                flow.newest, flow.source = held.ident, held.number
                flow.missing.clear()
        passed.append(Passed(held.number, held.item, False))

    def _pass(self, flow: _Flow, held: _Held, passed: list[Passed], *, gap: bool) -> None:
        if gap and flow.newest is not None and held.previous is not None:
            flow.missing.append((flow.newest + 1, held.previous))
            del flow.missing[:-_MISSING_MAX]
        self.gap_count += gap
        flow.newest, flow.source, flow.broken = held.ident, held.number, False
        passed.append(Passed(held.number, held.item, gap))
        while flow.held and (flow.held[0].previous or 0) <= held.ident:
            follower = flow.held.pop(0)
            if follower.ident <= held.ident:
                self.duplicates[follower.number] += 1
                continue
            held = follower
            flow.newest, flow.source = held.ident, held.number
            passed.append(Passed(held.number, held.item, False))

    def _release(self, flow: _Flow, passed: list[Passed], now_ns: int, *, alone: bool) -> None:
        """Let go what waits for messages that nobody will bring, or has waited too long."""
        while flow.held and (alone or now_ns - flow.held[0].since_ns >= self._hold_ns):
            held = flow.held.pop(0)
            if flow.newest is not None and held.ident <= flow.newest:
                self.duplicates[held.number] += 1
                continue
            gap = held.previous is None or flow.newest is None or held.previous > flow.newest
            self._pass(flow, held, passed, gap=gap)

    def _settle(self, key: Hashable, flow: _Flow) -> None:
        flow.is_idle = not flow.held and not flow.waiting
        if flow.is_idle:
            self._busy.discard(key)
        else:
            self._busy.add(key)


def _reaches_back(flow: _Flow, held: _Held) -> bool:
    """Whether everything before a message has been delivered."""
    newest = flow.newest
    if newest is None:
        return False
    return held.ident <= newest or (held.previous is not None and held.previous <= newest)
