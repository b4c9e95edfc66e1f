"""Over sockets: connections die and rotate, no tick is lost or doubled, and the journal gives them again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import numpy as np
from websockets.exceptions import ConnectionClosed

from gpuscalp.config import FeedConfig, JournalConfig
from gpuscalp.feeds.client import FeedClient
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.feeds.recorder import Recorder, replay
from gpuscalp.feeds.rest import RestReply
from gpuscalp.feeds.routes import Endpoint
from gpuscalp.journal import JournalWriter, RecordKind, read_records
from gpuscalp.schema import E8, Instrument, Quality, TickKind
from tests.feeds.server import local_venue, until

STREAMS = ("btcusdt@aggTrade", "btcusdt@bookTicker", "btcusdt@depth@100ms")
START_MS = 1_700_000_000_000
INSTRUMENT = Instrument("BTCUSDT", "binance_usdm", E8 // 10, E8 // 1000, E8 // 1000, 5 * E8, "exchange_info")


def _messages(number):
    head = f'"E":{START_MS + number},"s":"BTCUSDT"'
    return [
        f'{{"stream":"btcusdt@aggTrade","data":{{"e":"aggTrade",{head},"a":{number},"p":"100.5","q":"{number}",'
        f'"m":true}}}}',
        f'{{"stream":"btcusdt@bookTicker","data":{{"e":"bookTicker",{head},"u":{3 * number},"b":"100.0",'
        f'"B":"{number}","a":"101.0","A":"3"}}}}',
        f'{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate",{head},"U":{3 * number - 2},'
        f'"u":{3 * number},"pu":{3 * number - 3},"b":[["100.0","{number}"]],"a":[["101.0","3"]]}}}}',
    ]


async def _session(path, rounds, disturb, enough=lambda client: True, **options):
    """Run two connections while a venue sends rounds of messages and something disturbs them: ``rounds`` of
    them, and as many more as it takes until the client has done ``enough``."""
    fast = {"backoff_min_ms": 1, "backoff_max_ms": 5, "open_timeout_ms": 3_000}
    config = FeedConfig(**{**fast, **options})
    ingest = Ingest([INSTRUMENT], config)
    journal = JournalWriter(path, JournalConfig(), now_ns=time.time_ns())
    recorder = Recorder(ingest, journal)
    body = b'{"lastUpdateId":0,"bids":[["100.0","1"]],"asks":[["101.0","1"]]}'
    recorder.on_snapshot(
        RestReply("GET http://venue/fapi/v1/depth?symbol=BTCUSDT&limit=1000", 1, START_MS * 10**6, body),
        DepthSnapshot("BTCUSDT", 0, 0, [(100 * E8, E8)], [(101 * E8, E8)]),
    )
    async with local_venue() as venue:
        client = FeedClient(
            [Endpoint("public", venue.url + "/stream", STREAMS)] * 2,
            config,
            recorder,
            wall=time.time_ns,
            monotonic=time.monotonic_ns,
            jitter=random.Random(1).random,
        )
        task = asyncio.create_task(client.run())

        def live():
            return [c for slot in client.slots for c in slot.connections() if c.is_live]

        await until(lambda: len(live()) == 2)
        number = 0
        while number < rounds or not enough(client):
            number += 1
            for socket in list(venue.clients):
                with contextlib.suppress(ConnectionClosed):
                    for message in _messages(number):
                        await socket.send(message)
            await asyncio.sleep(0.001)
            recorder.poll(time.time_ns())
            await disturb(number, venue, client, recorder)
        await until(lambda: ingest.message_count and _newest(ingest) == number)
        await asyncio.sleep(0.02)
        status = client.status()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    journal.close(now_ns=time.time_ns())
    return ingest, status, number


def _newest(ingest):
    flow = ingest.merge._flows.get(1)
    return 0 if flow is None else (flow.newest or 0) // 3


def _check_complete(ticks, rounds):
    # Before the first bookTicker the snapshot has made a quote of its own.
    for kind, before in ((TickKind.TRADE, 0), (TickKind.QUOTE, 1)):
        own = ticks[ticks["kind"] == kind][before:]
        assert own["q0"].tolist() == [float(number) for number in range(1, rounds + 1)]
    assert (ticks["kind"] == TickKind.BOOK).sum() == rounds + 1
    assert not (ticks["quality"] & Quality.GAP).any()


def _replayed(path):
    again = Ingest([INSTRUMENT], FeedConfig())
    parts = [ticks for _, ticks in replay(read_records(path), again)]
    return np.concatenate(parts), again


def test_killing_either_of_two_connections_loses_and_doubles_nothing(tmp_path):
    rng = random.Random(7)
    killed = []

    async def disturb(number, venue, client, recorder):
        if number % 15:
            return
        slots = [slot.current for slot in client.slots]
        # One dies while the other delivers.
        if not all(c.is_live for c in slots) or not all(recorder.joined(c.number) for c in slots):
            return
        rng.choice(venue.clients).transport.abort()
        killed.append(number)

    ingest, status, rounds = asyncio.run(_session(tmp_path, 300, disturb, lambda _: len(killed) >= 10))
    assert sum(each.cuts for each in status) >= len(killed) - 1
    ticks = ingest.take()
    _check_complete(ticks, rounds)
    replayed, again = _replayed(tmp_path)
    assert replayed.tobytes() == ticks.tobytes()
    assert again.account() == ingest.account()


def test_rotation_loses_and_doubles_nothing(tmp_path):
    async def disturb(number, venue, client, recorder):
        await asyncio.sleep(0.004)

    def enough(client):
        return min(slot.rotation_count for slot in client.slots) >= 2

    session = _session(tmp_path, 50, disturb, enough, rotate_ms=400, overlap_max_ms=60_000)
    ingest, _, rounds = asyncio.run(session)
    ticks = ingest.take()
    _check_complete(ticks, rounds)
    assert _replayed(tmp_path)[0].tobytes() == ticks.tobytes()


def test_journal_names_every_connection(tmp_path):
    async def disturb(number, venue, client, recorder):
        pass

    asyncio.run(_session(tmp_path, 3, disturb))
    notes = [record.body for record in read_records(tmp_path) if record.kind == RecordKind.CONNECTION]
    assert sum(b'"open"' in note for note in notes) == 2
    assert sum(b'"lost"' in note for note in notes) == 2
