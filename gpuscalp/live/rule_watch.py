"""Whether the venue still trades a session's symbols, and by the rules that the session has of them.

Owns: when its list is asked for, which change closes a symbol for new positions, and saying it once. Never:
changes a rule: journal and model count in those that the session was begun with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, final

from gpuscalp.archive.instruments import listed
from gpuscalp.errors import GpuscalpError
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.feeds.call_pool import CallPool
from gpuscalp.feeds.rest import RestClient
from gpuscalp.schema import E8, Instrument

_LOG: Final = logging.getLogger("gpuscalp.session")
# The whole list costs a weight of 1, a megabyte and a half on the way, and 4 ms in which no thread of ours
# runs.
_EVERY_S: Final = 600.0
_WHILE_CLOSED_S: Final = 60.0  # a pause of trading ends
# After a refusal that may be about a rule: not at every one of them.
_BREATH_S: Final = 5.0
# Binance USD-M: precision, unknown symbol, tick, step, symbol that is delivered or closed, state in which
# nothing is opened, symbol closed.
_ABOUT_RULES: Final = frozenset({-1111, -1121, -4014, -4023, -4108, -4140, -4141})


def differences(ours: Instrument, theirs: Instrument | None, state: str) -> str:
    """Return in words why nothing may be opened on a symbol; "" where nothing speaks against it.

    Parameters
    ----------
    theirs : as it is listed; None = it is not, or without usable filters
    state : as it is listed; "" = it is not
    """
    if state != "TRADING":
        return f"it does not trade: {state or 'not listed'}"
    if theirs is None:
        return "it is listed without usable filters"
    # Not a higher least quantity or notional: what is below it the venue refuses, and the rest may go on.
    changed = [
        f"{what} {was / E8:.10g}, now {now / E8:.10g}"
        for what, was, now in (
            ("tick size", ours.tick_size_e8, theirs.tick_size_e8),
            ("step size", ours.step_size_e8, theirs.step_size_e8),
        )
        if was != now
    ]
    return ", ".join(changed)


@final
class RuleWatch:
    """Watches the rules of a session's symbols.

    Parameters
    ----------
    instruments : of the session, in the order of axis S
    venue : of an archive
    rest : of the venue; None: nothing is watched
    """

    def __init__(self, instruments: Sequence[Instrument], venue: str, rest: RestClient | None) -> None:
        self._instruments, self._venue, self._rest = tuple(instruments), venue, rest
        self._told: dict[int, str] = {}  # why, by index
        self._wanted = asyncio.Event()

    @property
    def closed(self) -> tuple[int, ...]:
        """Indices of symbols on which nothing may be opened, as the newest list says."""
        return tuple(self._told)

    def on_reports(self, reports: Iterable[Report]) -> None:
        """Ask for the list soon if the venue has refused an order because of a rule."""
        if any(each.kind is ReportKind.REJECTED and each.code in _ABOUT_RULES for each in reports):
            self._wanted.set()

    async def watch(self) -> None:
        """Ask for the list again and again, until cancelled. Without an answer the newest one counts."""
        if self._rest is None:
            return
        ask, calls = partial(self._ask, self._rest), CallPool(1, "rules")
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_WHILE_CLOSED_S if self.closed else _EVERY_S):
                        await self._wanted.wait()
                self._wanted.clear()
                try:
                    self._take(await asyncio.get_running_loop().run_in_executor(calls, ask))
                except GpuscalpError as error:
                    _LOG.debug("the rules of the symbols cannot be asked for: %s", error)
                await asyncio.sleep(_BREATH_S)
        finally:
            calls.shutdown(wait=False, cancel_futures=True)  # one may hang

    def _ask(self, rest: RestClient) -> dict[str, tuple[str, Instrument | None]]:
        reply = rest.exchange_info()
        return listed(
            reply.body, self._venue, {each.symbol for each in self._instruments}, where=reply.request
        )

    def _take(self, listing: dict[str, tuple[str, Instrument | None]]) -> None:
        found = {}
        for index, ours in enumerate(self._instruments):
            state, theirs = listing.get(ours.symbol, ("", None))
            why = differences(ours, theirs, state)
            if why:
                found[index] = why
            if why and why != self._told.get(index):
                _LOG.error("%s: nothing is opened any more: %s (docs/operations.md)", ours.symbol, why)
            elif not why and index in self._told:
                _LOG.warning("%s: trades by the session's rules again", ours.symbol)
        self._told = found
