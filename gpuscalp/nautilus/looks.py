"""When the account is looked at, and what is done with what was found.

Owns: the rhythm (at the start, after anything doubtful, and every so often), confirmation by a second look,
and the rule for strangers. Never: knows what a difference is (gpuscalp.execution.reconcile).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, final

from gpuscalp.config import NautilusConfig
from gpuscalp.errors import ConfigError, FeedError
from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import ReportKind
from gpuscalp.execution.reconcile import (
    FUNDING_LATE_NS,
    FUNDING_NS,
    Difference,
    Found,
    Rule,
    compare,
    dismiss,
    funding,
    news,
    take_over,
)
from gpuscalp.execution.remote import FOREIGN, Heard, RemoteBroker
from gpuscalp.feeds.rest import WeightBudget
from gpuscalp.live.records import client_id
from gpuscalp.nautilus.asked import Account, apart, needless
from gpuscalp.nautilus.names import is_guard, order_number
from gpuscalp.nautilus.user_stream import UserStream
from gpuscalp.schema import E8, NS_PER_MS, NS_PER_S

_LOG: Final = logging.getLogger("gpuscalp.session")
# Between two looks: what has just happened may be on its way by both roads …
_BREATH_S: Final = 1.0
# … and looks may take half of the calls that the exchange allows, 2,400 by weight in a minute.
_WEIGHT_PER_S: Final = 20.0
# An order without an answer for so long is asked about.
_ANSWER_NS: Final = 2 * NS_PER_S
# What a clock and a network may add to the window within which a request is taken.
_MARGIN_NS: Final = NS_PER_S
_STALE_LOOKS: Final = 3
# The adapter limits no call in time (1.231): one into a connection that is half open would be the last.
_LOOK_MAX_S: Final = 60.0
# Signature, key, and key, address or permission: asking again changes nothing.
_KEYS_REFUSED: Final = frozenset({-1022, -2014, -2015})


@dataclass(slots=True)
class Counts:
    """Of the whole process: looks, calls that failed, trades that only a look has brought, orders that never
    arrived, differences of the balance that nothing explains (each once)."""

    looks: int = 0
    failed: int = 0
    found_trades: int = 0
    never_arrived: int = 0
    wallet_differences: int = 0


@final
class Looks:
    """Looks at one account for one session.

    Parameters
    ----------
    account : is asked
    broker : what is known
    session_id : of the names of our orders
    place : rhythm and rule
    symbols : names
    now : exchange time
    hear : takes what is new: written down, then booked
    budget : of all REST calls from here: what the exchange refuses holds up every one of them
    until_ns : exchange time until which the session has run before; 0 = it is new

    Attributes
    ----------
    difference : what the newest look left unexplained; None before the first
    blocked : it was confirmed, and holds up new positions
    strange_names : of all orders that were found and are none of ours
    stream : brings what looks should not have to find
    """

    def __init__(
        self,
        account: Account,
        broker: RemoteBroker,
        *,
        session_id: str,
        place: NautilusConfig,
        symbols: tuple[str, ...],
        now: Callable[[], int],
        hear: Callable[[Heard], None],
        budget: WeightBudget,
        until_ns: int = 0,
    ) -> None:
        self._account, self._broker, self._session_id = account, broker, session_id
        self._place, self._symbols, self._now = place, symbols, now
        self._hear, self._budget = hear, budget
        self.counts, self.stream = Counts(), UserStream()
        self.difference: Difference | None = None
        self.found: Found | None = None
        self.blocked = False
        self._blamed: frozenset[int] = frozenset()
        self.strange_names: set[str] = set()
        self.error = ""
        self._wanted = asyncio.Event()
        self._began_ns = self._looked_ns = self._ended_ns = time.monotonic_ns()
        self._sent_ns: dict[int, int] = {}
        # What the exchange has charged since then, also while no process ran, was not looked at.
        self._agreed_ns = (until_ns or now()) - FUNDING_LATE_NS
        self._held = self._values()
        self._lock = asyncio.Lock()
        self._pause_s = max(_BREATH_S, account.weight / _WEIGHT_PER_S)

    def want(self, reason: str) -> None:
        """Ask for a look soon."""
        _LOG.debug("the account is to be looked at: %s", reason)
        self._wanted.set()

    def sent(self, order_id: int) -> None:
        """Note that an order leaves now."""
        self._sent_ns[order_id] = time.monotonic_ns()

    def failed(self, error: Exception) -> None:
        """Count a call that has failed: whatever the adapter and the network raise, it is tried again."""
        self.counts.failed += 1
        self.error = f"{type(error).__name__}: {error}"[:300]
        # Of the adapter's errors; those of the network have none. It passes on no headers (1.231), and so no
        # Retry-After: a 429 is waited out for a whole minute. The end of a ban is in the text.
        status = getattr(error, "status", None)
        if isinstance(status, int):
            headers, body = getattr(error, "headers", None), str(getattr(error, "message", ""))
            self._budget.on_reply(status, headers or {}, body.encode(), time.time_ns())

    @property
    def patience_s(self) -> float:
        """How long the exchange takes no calls (429, 418): who goes on asking is banned, or banned longer."""
        return max(0.0, (self._budget.blocked_until_ns - time.time_ns()) / NS_PER_S)

    def poll(self) -> None:
        """Ask for a look about orders that have got no answer, and note what is held between two looks."""
        now_ns = time.monotonic_ns()
        self._held |= self._values()
        for number, order in self._broker.orders.items():
            waiting_ns = now_ns - self._sent_ns.get(number, self._began_ns)
            if (order.state is OrderState.NEW or order.ending) and waiting_ns > _ANSWER_NS:
                self.want(f"no answer about order {number}")

    @property
    def strange_symbols(self) -> frozenset[int]:
        """The symbols of which somebody else holds something, as two looks have found."""
        return self._blamed if self.blocked else frozenset()

    @property
    def objections(self) -> tuple[str, ...]:
        """Why nothing new may be opened: one word each."""
        if self.difference is None:
            return ("account:unseen",)
        age_s = (time.monotonic_ns() - self._looked_ns) / NS_PER_S
        unreachable = ("account:unreachable",) if age_s > _STALE_LOOKS * self._place.look_s else ()
        return (*unreachable, "account:deaf") if self.stream.lost or self.stream.deaf else unreachable

    async def check(self) -> None:
        """Have the account checked, as soon as the exchange answers: a session outlives its maintenance.

        Raises
        ------
        ConfigError    it cannot be traded
        FeedError      the exchange refuses its keys
        """
        pause_s = self._pause_s
        while True:
            await self._wait()
            try:
                async with asyncio.timeout(self._place.connect_s):
                    await self._account.check()
            except ConfigError:
                raise
            except Exception as error:
                self.failed(error)
                body = getattr(error, "message", None)
                if isinstance(body, dict) and body.get("code") in _KEYS_REFUSED:
                    raise FeedError(
                        "the exchange refuses the keys",
                        where=f"nautilus.where = {self._place.where}",
                        value=self.error,
                        fix="check keys, permissions (reading and futures) and the addresses they are for",
                    ) from None
            else:
                self.error = ""
                return
            _LOG.warning("the account cannot be looked at yet: %s", self.error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, max(pause_s, self._place.look_s))

    async def first(self) -> None:
        """Look until nothing is doubtful any more; whatever cannot be explained is dealt with by the rule."""
        while not await self._look(self._place.unknown):
            await asyncio.sleep(self._pause_s)

    async def run(self) -> None:
        """Look again and again, and keep the stream of events, until cancelled."""
        keeping = asyncio.create_task(self.stream.keep(self))
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._place.look_s):
                        await self._wanted.wait()
                self._wanted.clear()
                since_s = (time.monotonic_ns() - self._ended_ns) / NS_PER_S
                await asyncio.sleep(max(_BREATH_S, self._pause_s - since_s))
                if not await self._look(self._place.unknown):
                    self._wanted.set()
        finally:
            keeping.cancel()

    async def take_over(self, rule: Rule) -> Difference:
        """Do with the strangers what an operator wants; return what is left.

        Raises
        ------
        FeedError    no look has succeeded: what there is now is not known
        """
        before = self.counts.looks
        for _ in range(5):
            if await self._look(rule):
                break
            await asyncio.sleep(self._pause_s)
        if self.counts.looks == before:
            raise FeedError(
                "the account cannot be looked at, and nothing was done",
                where="gpuscalp adopt",
                value=self.error,
                fix="try again when the exchange can be reached; gpuscalp status shows failed looks",
            )
        assert self.difference is not None
        return self.difference

    def status(self) -> dict[str, Any]:
        """Return how the two sides stand."""
        difference = self.difference
        return {
            "looks": self.counts.looks,
            "failed": self.counts.failed,
            "error": self.error,
            "blocked": self.blocked,
            "strangers": "" if difference is None else difference.words(self._symbols),
            "wallet_difference_usdt": None if difference is None else difference.wallet_e8 / E8,
            "wallet_differences": self.counts.wallet_differences,
            "found_trades": self.counts.found_trades,
            "repeated_trades": self._broker.duplicate_count,
            "never_arrived": self.counts.never_arrived,
        }

    async def _wait(self) -> None:
        """Wait until the exchange takes calls."""
        while patience_s := self.patience_s:
            await asyncio.sleep(patience_s)

    async def _look(self, rule: Rule) -> bool:
        """Look once, when the exchange takes calls; return whether nothing is left for another look."""
        async with self._lock:
            await self._wait()
            numbers, moves = self._numbers(), tuple(self._broker.moves)
            overdue = self._overdue()  # what leaves later may arrive after the exchange was asked about it
            try:
                async with asyncio.timeout(_LOOK_MAX_S + self._pause_s):
                    found = await self._account.look(self._broker, numbers)
            except Exception as error:
                self.failed(error)
                return False
            finally:
                self._ended_ns = time.monotonic_ns()
            self.error = ""
            self.counts.looks += 1
            found, guards = apart(found, self._session_id)
            settled = await self._judge(found, rule, numbers, overdue, self._broker.quiet(moves))
            try:
                async with asyncio.timeout(_LOOK_MAX_S):
                    for guard in needless(guards, self._broker):
                        await self._account.cancel(guard)
            except Exception as error:  # the next look finds them again
                self.failed(error)
            return settled

    async def _judge(
        self, found: Found, rule: Rule, asked: dict[str, int], overdue: set[int], quiet: frozenset[int]
    ) -> bool:
        broker, known_ns, numbers = self._broker, self._now(), self._numbers()
        names = asked.keys() | numbers.keys()
        named = {
            venue_id: number
            for venue_id, name in found.client_ids.items()
            if (number := order_number(self._session_id, name)) is not None
        } | {each: FOREIGN for each, name in found.client_ids.items() if is_guard(self._session_id, name)}
        overdue, missed = overdue & self._overdue(), False  # one that waited here may have left only now
        for heard in news(broker, found, number_of=numbers, overdue=overdue, known_ns=known_ns, ended=named):
            self.counts.found_trades += heard.kind is ReportKind.FILL
            self.counts.never_arrived += heard.kind is ReportKind.REJECTED
            missed |= heard.order_id > 0 and heard.kind is not ReportKind.REJECTED
            self._hear(heard)
        self._looked_ns, idle = time.monotonic_ns(), not broker.orders and not self._values()
        self.stream.on_look(missed=missed, idle=idle, now_ns=self._looked_ns)
        before, difference = self.difference, compare(broker, found, names, quiet)
        # The first one may be half of something that is happening just now.
        confirmed = difference.strange and before is not None and difference.same_as(before)
        self.found, self.difference = found, difference
        self.strange_names |= {each.client_id for each in difference.orders}
        if confirmed and rule != "block":
            try:
                async with asyncio.timeout(_LOOK_MAX_S):
                    for order in difference.orders:
                        await self._account.cancel(order)
            except Exception as error:  # the next look finds them again
                self.failed(error)
            if not difference.orders:
                for heard in take_over(broker, found, difference, rule, known_ns):
                    self._hear(heard)
                self.difference = compare(broker, found, names)
            return False  # seen once more
        for heard in dismiss(broker, found, quiet, known_ns):
            self._hear(heard)
        if len(quiet) == len(self._symbols):
            self._settle_balance(before, known_ns)
        if confirmed and not self.blocked:
            self.blocked = True
            words = difference.words(self._symbols)
            self._hear(Heard(ReportKind.STRANGER, known_ns, known_ns, reason=words))
        if confirmed:
            self._blamed = frozenset(difference.positions)
        # Of a symbol that moved during the look it does not say that the stranger is gone.
        self.blocked &= difference.strange or not self._blamed <= quiet
        unanswered = any(order.state is OrderState.NEW or order.ending for order in broker.orders.values())
        return not unanswered and (confirmed or not difference.strange)

    def _settle_balance(self, before: Difference | None, known_ns: int) -> None:
        """Book funding; set aside, and count once, what nothing explains."""
        difference, aside_e8 = self.difference, self._broker.unexplained_e8
        assert difference is not None
        self._held |= self._values()
        if not difference.wallet_e8:
            if aside_e8:  # it has come back
                self._set_aside(0, known_ns)
            self._agree(known_ns)
            return
        if difference.wallet_e8 == aside_e8:
            self._agree(known_ns)
            return
        if before is None or before.wallet_e8 != difference.wallet_e8 or difference.strange:
            self.want("the balances differ")
            return
        new = replace(difference, wallet_e8=difference.wallet_e8 - aside_e8)
        heard = funding(new, self._held, agreed_ns=self._agreed_ns, known_ns=known_ns)
        if heard is not None:
            self._hear(heard)
            self.difference = replace(difference, wallet_e8=aside_e8)
        else:
            # Else it would hide all later funding, or pass for it at the next full hour.
            self._set_aside(difference.wallet_e8, known_ns)
            self.counts.wallet_differences += 1
        self._agree(known_ns)

    def _set_aside(self, wallet_e8: int, known_ns: int) -> None:
        """Have it written down that nothing explains a difference: the next process has to know it too."""
        self._hear(Heard(ReportKind.UNEXPLAINED, known_ns, known_ns, money_e8=wallet_e8))

    def _agree(self, known_ns: int) -> None:
        """Note that everything is explained or set aside; not while funding may still be charged."""
        if known_ns % FUNDING_NS >= FUNDING_LATE_NS:
            self._agreed_ns, self._held = known_ns, self._values()

    def _numbers(self) -> dict[str, int]:
        """Return our orders that have not ended, by the name that the exchange knows them under."""
        return {client_id(self._session_id, number): number for number in self._broker.orders}

    def _values(self) -> dict[int, int]:
        """Return what is held, by symbol, at its cost, units."""
        positions = self._broker.account.positions
        return {index: each.cost_e8 for index, each in enumerate(positions) if each.qty_e8}

    def _overdue(self) -> set[int]:
        """Return the orders of which no request can be on its way any more."""
        window_ns = self._place.recv_window_ms * NS_PER_MS + _MARGIN_NS
        now_ns, orders = time.monotonic_ns(), self._broker.orders
        self._sent_ns = {number: sent for number, sent in self._sent_ns.items() if number in orders}
        return {each for each in orders if now_ns - self._sent_ns.get(each, self._began_ns) > window_ns}
