"""The stream on which the exchange tells of our orders, where NautilusTrader keeps it.

Owns: that it is subscribed to again, for as long as it takes, and the judgement whether it brings anything.
Without it an entry fills and nobody hears of it: it stands without a stop until a look finds it.

The adapter asks for a new listen key once: one refusal then, just when the exchange comes back, and no event
comes until the next start (1.231).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, Final, Protocol, final

from gpuscalp.schema import NS_PER_S

_LOG: Final = logging.getLogger("gpuscalp.session")
# So many looks that have found what no event told, without an event between them: one may follow a cut.
_LOOKS: Final = 2
# How long nothing is opened on a stream that may bring events again while there is none to bring: twice as
# long each time that it was tried in vain.
_REST_NS: Final = 60 * NS_PER_S
_REST_MAX_NS: Final = 3_600 * NS_PER_S
_PAUSE_S, _PAUSE_MAX_S = 1.0, 30.0
# The adapter limits no call in time (1.231). These are for closing what there was, for Nautilus's own
# reconciliation, and for all of it.
_CLOSE_S, _HOOK_S, _ALL_S = 5.0, 10.0, 40.0
_CALLED: Final = ("connect", "session_logon", "subscribe_user_data_stream", "disconnect")
# What the adapter begins where the stream or the session was lost, or its listen key has expired.
REPLACED: Final = ("_resubscribe", "_reauth_and_resubscribe")


class Calls(Protocol):
    """Who knows how the exchange takes calls (``gpuscalp.nautilus.looks.Looks``)."""

    @property
    def patience_s(self) -> float: ...

    def failed(self, error: Exception) -> None: ...

    def want(self, reason: str) -> None: ...


@final
class UserStream:
    """The stream of one session's account.

    Attributes
    ----------
    lost : it is to be subscribed to again
    deaf : looks have found what it did not tell, and it has told of no order since
    """

    def __init__(self) -> None:
        self.lost = self.deaf = False
        self._wanted = asyncio.Event()
        self._client: Any = None
        self._hook: Any = None
        self._kept = False
        self._missed = 0  # looks that have found what it did not tell, since its last event
        self._missed_ns = 0
        self._rest_ns = _REST_NS

    def take(self, client: Any) -> None:
        """Take over the adapter's client of it (BinanceUserDataWebSocketClient).

        Raises
        ------
        AttributeError    it lacks what is replaced or called here
        """
        self._hook = client._on_resubscribe
        for name in _CALLED:
            getattr(client, name)

        async def again() -> None:
            self.again()

        for name in REPLACED:
            setattr(client, name, again)
        self._client = client

    def again(self) -> None:
        """Have it subscribed to again."""
        self.lost = True
        self._wanted.set()

    def on_event(self) -> None:
        """It has told of an order, and the adapter could read it."""
        if self.deaf:
            _LOG.info("the exchange tells of orders again")
        self._missed, self.deaf, self._rest_ns = 0, False, _REST_NS

    def on_look(self, *, missed: bool, idle: bool, now_ns: int) -> None:
        """Judge it by a look.

        Parameters
        ----------
        missed : the look has found what no event has told
        idle : nothing is held and no order is alive, so that there is nothing that it could tell
        now_ns : of the monotonic clock
        """
        if self.lost or not self._kept:
            return
        if missed:
            self._missed, self._missed_ns = self._missed + 1, now_ns
        elif self.deaf and idle and now_ns - self._missed_ns > self._rest_ns:
            # Else it would be deaf for good: without an order no event comes. The next look that finds
            # something is enough.
            self.deaf, self._missed = False, _LOOKS - 1
            self._rest_ns = min(2 * self._rest_ns, _REST_MAX_NS)
        if self._missed >= _LOOKS:
            _LOG.warning("looks find what the exchange's stream has not told: it is subscribed to again")
            self._missed, self.deaf = 0, True
            self.again()

    async def keep(self, calls: Calls) -> None:
        """Subscribe to it again whenever it is lost, until cancelled."""
        self._kept, pause_s = True, _PAUSE_S
        while True:
            await self._wanted.wait()
            while patience_s := calls.patience_s:
                await asyncio.sleep(patience_s)
            self._wanted.clear()
            try:
                async with asyncio.timeout(_ALL_S):
                    await self._subscribe()
            except Exception as error:  # whatever the adapter and the network raise
                calls.failed(error)
                _LOG.warning("the exchange's stream is not there yet: %s: %s", type(error).__name__, error)
                self._wanted.set()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
            else:
                self.lost, pause_s = self._wanted.is_set(), _PAUSE_S
                calls.want("the stream of orders is there again")

    async def _subscribe(self) -> None:
        """Do what the adapter does at its start, for keys of both kinds."""
        client = self._client
        with suppress(Exception):  # what cannot be closed is not waited for
            async with asyncio.timeout(_CLOSE_S):
                await client.disconnect()
        await client.connect()
        await client.session_logon()
        await client.subscribe_user_data_stream(pre_dispatch_hook=self._reconcile)

    async def _reconcile(self) -> None:
        """Let Nautilus compare its state; events are held back meanwhile."""
        async with asyncio.timeout(_HOOK_S):
            await self._hook()
