"""Book snapshots for the symbols that need one, as fast as the venue's limits allow, and of all now and then.

Owns: whose turn it is, and the patience after a refusal. Never: judges a snapshot; one that does not fit is
asked for again.

A book that is whole needs none, and takes nothing from one but what is newer. But the journal does: who reads
it from the middle has no book of a symbol before its next snapshot (gpuscalp.retrain.market_data).

A whole book near its edge needs one before the market is there. It gets the deepest, which lasts longest, and
all such books together a quarter of the weight of a minute: where the whole market moves at once those that
come to their edge meanwhile are doubtful, and go first.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Final, final

from gpuscalp.errors import GpuscalpError
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.feeds.rest import RestClient, RestReply
from gpuscalp.schema import NS_PER_S

_LOG: Final = logging.getLogger("gpuscalp.session")
_WAIT_MIN_NS: Final = NS_PER_S // 4
_WAIT_MAX_NS: Final = 30 * NS_PER_S
_AT_ONCE: Final = 2
# (limit, weight): a thousand levels where the weight of a minute reaches for two rounds of all symbols.
_DEPTHS: Final = ((1_000, 20), (500, 10), (100, 5), (50, 2))
_DEEPEST, _DEEPEST_WEIGHT = _DEPTHS[0]
_EDGE_SHARE: Final = 4


def brings_changes(streams: Iterable[str]) -> bool:
    """Whether one of the kinds of streams tells how books change, which says nothing without a whole one."""
    return any(name.partition("@")[0] == "depth" for name in streams)


@final
class Snapshots:
    """Fetches snapshots.

    Parameters
    ----------
    client : makes the calls
    executor : where they are made: they block
    take : is given each reply, in the loop's thread; returns what became of it
    monotonic : clock, ns
    symbols : S, whose number decides how many levels are asked for
    renew_ns : about so often each is asked for though its book is whole, one after another; 0 = never

    Attributes
    ----------
    fetched, refused : calls so far
    """

    def __init__(
        self,
        client: RestClient,
        executor: Executor,
        take: Callable[[RestReply, DepthSnapshot], str],
        *,
        monotonic: Callable[[], int],
        symbols: Sequence[str],
        renew_ns: int,
        weight_per_minute: int,
    ) -> None:
        self._client, self._executor, self._take = client, executor, take
        self._monotonic = monotonic
        self.depth = next(
            (limit for limit, weight in _DEPTHS if 2 * weight * len(symbols) <= weight_per_minute),
            _DEPTHS[-1][0],
        )
        self._running: dict[str, asyncio.Task[None]] = {}
        self._wanted: deque[tuple[str, int]] = deque()
        self._not_before_ns: dict[str, int] = {}
        self._wait_ns: dict[str, int] = {}
        # The first one is the next to be renewed.
        self._renewed = deque(symbols if renew_ns else ())
        self._pause_ns = renew_ns // len(symbols)
        self._renew_ns = monotonic() + self._pause_ns
        self._edge_pause_ns = _EDGE_SHARE * _DEEPEST_WEIGHT * 60 * NS_PER_S // weight_per_minute
        self._edge_ns = monotonic()
        self.fetched = self.refused = 0

    def poll(self, unsynced: Sequence[str], near_edge: Sequence[str] = ()) -> None:
        """Begin to fetch what may be fetched now; what has to wait for its turn follows by itself."""
        now_ns = self._monotonic()
        self._wanted = deque((symbol, self.depth) for symbol in unsynced)
        if self._renewed and now_ns >= self._renew_ns and self._renewed[0] not in unsynced:
            self._wanted.append((self._renewed[0], self.depth))
        if now_ns >= self._edge_ns:
            symbol = next((each for each in near_edge if self._is_free(each, now_ns)), None)
            if symbol is not None:
                self._edge_ns = now_ns + self._edge_pause_ns
                self._wanted.append((symbol, _DEEPEST))
        self._begin()

    def _begin(self) -> None:
        now_ns = self._monotonic()
        while self._wanted and len(self._running) < _AT_ONCE:
            symbol, depth = self._wanted.popleft()
            if self._is_free(symbol, now_ns):
                self._running[symbol] = asyncio.create_task(self._fetch(symbol, depth))

    def _is_free(self, symbol: str, now_ns: int) -> bool:
        return symbol not in self._running and now_ns >= self._not_before_ns.get(symbol, 0)

    async def close(self) -> None:
        self._wanted.clear()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, symbol: str, depth: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            reply, snapshot = await loop.run_in_executor(self._executor, self._client.depth, symbol, depth)
            self.fetched += 1
            if self._take(reply, snapshot) in ("taken", "snapshot_not_needed"):
                self._wait_ns.pop(symbol, None)
                self._end_turn(symbol, self._pause_ns)
        except GpuscalpError as error:
            self.refused += 1
            # Others would be refused as well: they wait for the next poll.
            self._wanted.clear()
            if self._wait_ns.get(symbol) == _WAIT_MAX_NS:
                # One that the venue has delisted is refused for ever.
                self._end_turn(symbol, _WAIT_MAX_NS)
            elif 2 * self._wait_ns.get(symbol, _WAIT_MIN_NS) >= _WAIT_MAX_NS:
                _LOG.warning("no snapshot of %s for half a minute: %s", symbol, error)
        finally:
            # Also after a good one: until the symbol is no longer among the unsynced, a breath.
            wait_ns = self._wait_ns.get(symbol, _WAIT_MIN_NS)
            self._not_before_ns[symbol] = self._monotonic() + wait_ns
            self._wait_ns[symbol] = min(2 * wait_ns, _WAIT_MAX_NS)
            self._running.pop(symbol, None)
            self._begin()

    def _end_turn(self, symbol: str, pause_ns: int) -> None:
        if self._renewed and symbol == self._renewed[0]:
            self._renewed.rotate(-1)
            self._renew_ns = self._monotonic() + pause_ns
