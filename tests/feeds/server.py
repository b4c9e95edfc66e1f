"""A small venue on loopback: acknowledges subscriptions and sends what a test tells it to."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


class LocalVenue:
    """Attributes: ``clients`` open now, in the order in which they came; ``requests`` they have sent."""

    def __init__(self):
        self.clients = []
        self.requests = []
        self.acknowledge = True
        self.opened = 0
        self.url = ""

    async def handle(self, client):
        self.clients.append(client)
        self.opened += 1
        try:
            async for text in client:
                request = json.loads(text)
                self.requests.append(request)
                if self.acknowledge:
                    await client.send(json.dumps({"result": None, "id": request["id"]}))
        except ConnectionClosed:
            pass  # what a test may well want
        finally:
            self.clients.remove(client)


@asynccontextmanager
async def local_venue(**options):
    venue = LocalVenue()
    async with serve(venue.handle, "127.0.0.1", 0, compression=None, ping_interval=None, **options) as server:
        venue.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield venue


async def until(condition, timeout_s=30.0):
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)
