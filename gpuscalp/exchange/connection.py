"""One WebSocket of the exchange: what waits to be sent, and when it was last heard of.

Owns: reading and writing frames. Never: knows what they say.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from gpuscalp.exchange.faults import Faults
from gpuscalp.exchange.session import Session

# Beyond it the connection is closed, as the venue does with who reads too slowly.
_WAITING_MAX: Final = 200_000


@dataclass(eq=False)
class Connection:
    """One WebSocket. ``write`` runs in a task of its own for as long as the connection lives."""

    number: int
    socket: web.WebSocketResponse
    opened_s: float
    waiting: deque[bytes] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    heard_s: float = 0.0
    pinged_s: float = 0.0
    closing: bool = False

    def send(self, message: bytes) -> None:
        """Let a message wait for its turn."""
        if len(self.waiting) >= _WAITING_MAX:
            self.closing = True
        else:
            self.waiting.append(message)
        self.wake.set()

    def close(self) -> None:
        """Close after the frame that is being sent; what waits is lost."""
        self.closing = True
        self.wake.set()

    async def texts(self, faults: Faults, session: Session | None) -> AsyncIterator[str]:
        """Yield the text messages; pings are answered, unless the connection is half open.

        Raises
        ------
        DisconnectError
            more pings than the session allows
        """
        async for message in self.socket:
            self.heard_s = time.monotonic()
            if message.type is WSMsgType.TEXT:
                yield message.data
            elif message.type is WSMsgType.PING:
                if session is not None:
                    session.count(time.monotonic_ns())
                if not faults.half_open(self.number):
                    await self.socket.pong(message.data)

    async def write(self) -> None:
        """Send what waits until the connection ends."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            while not self.closing:
                while self.waiting and not self.closing:
                    await self.socket.send_frame(self.waiting.popleft(), WSMsgType.TEXT)
                self.wake.clear()
                if not self.waiting and not self.closing:
                    await self.wake.wait()
            await self.socket.close(code=WSCloseCode.GOING_AWAY)
