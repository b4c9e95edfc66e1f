"""The shell on loopback: subscribes, reconnects, rotates, and tells the receiver all of it."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.client import FeedClient
from gpuscalp.feeds.routes import Endpoint
from gpuscalp.feeds.socket import SocketError
from tests.feeds.server import local_venue, until

STREAMS = ("btcusdt@aggTrade", "btcusdt@markPrice@1s")
FAST = {"backoff_min_ms": 1, "backoff_max_ms": 20, "open_timeout_ms": 3_000}


class Recorder:
    def __init__(self):
        self.opened, self.lost, self.messages = [], [], []
        self.ready = set()

    def on_open(self, number, endpoint, now_ns):
        self.opened.append(number)

    def on_messages(self, number, recv_ns, messages):
        self.messages += [(number, message) for message in messages]

    def on_lost(self, number, now_ns, reason):
        self.lost.append((number, reason))

    def joined(self, number):
        return number in self.ready

    def data(self):
        return [(number, message) for number, message in self.messages if b'"stream"' in message]


@asynccontextmanager
async def running(venue, copies=1, **options):
    config = FeedConfig(**{**FAST, **options})
    recorder = Recorder()
    client = FeedClient(
        [Endpoint("market", venue.url + "/market/stream", STREAMS)] * copies,
        config,
        recorder,
        wall=time.time_ns,
        monotonic=time.monotonic_ns,
        jitter=lambda: 0.0,
    )
    task = asyncio.create_task(client.run())
    try:
        yield client, recorder
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _live(client):
    return [c for slot in client.slots for c in slot.connections() if c.is_live]


def _message(number, stream="btcusdt@aggTrade"):
    return f'{{"stream":"{stream}","data":{{"n":{number}}}}}'


async def test_client_subscribes_and_hands_on_every_message_with_its_connection():
    async with local_venue() as venue, running(venue, copies=2) as (client, recorder):
        await until(lambda: len(_live(client)) == 2)
        assert [request["params"] for request in venue.requests] == [list(STREAMS)] * 2
        for number in range(50):
            for socket in venue.clients:
                await socket.send(_message(number))
        await until(lambda: len(recorder.data()) == 100)
        for number in recorder.opened:
            own = [message for which, message in recorder.data() if which == number]
            assert own == [_message(index).encode() for index in range(50)]
        status = client.status()
        assert [(s.state, s.streams) for s in status] == [("live", 2)] * 2
        assert sum(client.opened.values()) == 2
    await asyncio.sleep(0)
    assert len(recorder.lost) == 2
    assert venue.clients == []


async def test_cut_connection_is_lost_once_and_comes_back():
    async with local_venue() as venue, running(venue) as (client, recorder):
        for count in range(1, 5):
            await until(lambda: _live(client) and len(venue.clients) == 1)
            await venue.clients[0].send(_message(count))
            await until(lambda count=count: len(recorder.data()) == count)
            venue.clients[0].transport.abort()
            await until(lambda count=count: len(recorder.lost) == count)
        await until(lambda: _live(client))
        assert recorder.opened == [0] * 5
        assert client.status()[0].cuts == 4
        assert (client.opened, client.lost) == ({"market": 5}, {"market": 4})
    await asyncio.sleep(0)
    assert client.lost == {"market": 4}, "an end that we wanted is no loss"
    assert recorder.lost[-1] == (0, "stopped"), "not what it was cut of before"


async def test_message_that_is_no_text_takes_no_other_with_it():
    """It was an error in the socket's callback: the connection was cut, and what came with it lost."""
    async with local_venue() as venue, running(venue) as (client, recorder):
        await until(lambda: _live(client))
        connection = client.slots[0].connections()[0]
        strange = [b'{"id":"\xff"}', b'{"id":' + b"[" * 10_000, _message(1).encode()]
        client._on_replies(connection, strange, time.monotonic_ns())
        assert _live(client)
        assert recorder.lost == []


class _Lingering:
    """A socket that takes long to close, and delivers meanwhile."""

    def __init__(self, sink):
        self.sink, self.ended, self.closed = sink, asyncio.Event(), asyncio.Event()

    async def send(self, text):
        pass

    async def wait_closed(self):
        await self.ended.wait()
        return "cut"

    async def close(self):
        await self.closed.wait()


async def test_what_a_socket_delivers_after_its_end_is_not_taken_for_the_next_ones(monkeypatch):
    sockets = []

    async def open_lingering(url, config, *, sink, clock):
        sockets.append(_Lingering(sink))
        return sockets[-1]

    monkeypatch.setattr("gpuscalp.feeds.client.open_socket", open_lingering)
    async with local_venue() as venue, running(venue) as (_, recorder):
        await until(lambda: recorder.opened == [0])
        sockets[0].ended.set()
        await until(lambda: recorder.opened == [0, 0])
        sockets[0].sink(1, [_message("old").encode()])
        sockets[1].sink(2, [_message("new").encode()])
        assert recorder.messages == [(0, _message("new").encode())]
        for socket in sockets:
            socket.closed.set()


async def test_why_a_connection_does_not_come_about_is_told_once_for_each_reason(monkeypatch, caplog):
    """Of a name that could not be resolved, or a certificate that was refused, the log said nothing."""
    reasons = ["name"] * 5 + ["port"] * 5 + ["name"] * 5

    async def open_none(url, config, *, sink, clock):
        raise SocketError("the connection cannot be opened", value=reasons.pop(0))

    monkeypatch.setattr("gpuscalp.feeds.client.open_socket", open_none)
    async with local_venue() as venue, running(venue):
        await until(lambda: len(reasons) == 1)
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["'name'", "'port'", "'name'"]


async def test_age_of_a_stream_is_that_of_its_newest_message_and_grows_without_a_connection():
    async with local_venue() as venue, running(venue, copies=2) as (client, recorder):
        await until(lambda: len(_live(client)) == 2)
        assert client.stream_ages_s() == {}, "nothing has come yet"
        await venue.clients[0].send(_message(1))
        await until(lambda: len(recorder.data()) == 1)
        await asyncio.sleep(0.2)
        assert client.stream_ages_s()["btcusdt@aggTrade"] >= 0.2
        await venue.clients[1].send(_message(1))
        await until(lambda: len(recorder.data()) == 2)
        heard = _heard_s(client)
        venue.clients[0].transport.abort()
        venue.clients[-1].transport.abort()
        await until(lambda: len(recorder.lost) == 2)
        assert set(client.stream_ages_s()) == {"btcusdt@aggTrade"}
        again = _heard_s(client)
        assert max(heard[0], again[0]) <= min(heard[1], again[1]), "its time has changed"


async def test_what_came_before_the_reply_counts_as_delivered():
    """With many streams the first ones deliver while the last request is not answered yet."""
    async with local_venue() as venue, running(venue, first_message_ms=300) as (client, recorder):
        venue.acknowledge = False
        await until(lambda: venue.requests)
        await venue.clients[0].send(_message(1))
        await until(lambda: recorder.data())
        assert client.delivering_streams() == set(), "of a connection that is not acknowledged"
        mark = _message(2, stream="btcusdt@markPrice@1s")
        await venue.clients[0].send(f'{{"result":null,"id":{venue.requests[0]["id"]}}}')
        await venue.clients[0].send(mark)
        await until(lambda: _live(client) and len(recorder.data()) == 2)
        assert client.delivering_streams() == set(STREAMS)
        await asyncio.sleep(0.6)
        assert (client.status()[0].silent, recorder.lost) == ((), [])


def _heard_s(client):
    """Return between which two times the newest message came, by its age."""
    before = time.monotonic()
    age_s = client.stream_ages_s()["btcusdt@aggTrade"]
    return before - age_s, time.monotonic() - age_s


async def test_acknowledged_but_silent_streams_lead_to_a_new_connection():
    async with local_venue() as venue, running(venue, first_message_ms=300) as (_client, recorder):
        venue.acknowledge = False
        await until(lambda: venue.requests)
        await venue.clients[0].send(_message(1))  # the other stream says nothing
        venue.acknowledge = True
        await venue.clients[0].send(f'{{"result":null,"id":{venue.requests[0]["id"]}}}')
        await until(lambda: recorder.lost)
        assert "btcusdt@markPrice@1s" in recorder.lost[0][1]
        assert "btcusdt@aggTrade" not in recorder.lost[0][1]
        await until(lambda: venue.opened >= 2)


async def test_stream_that_is_quiet_on_both_connections_cuts_neither():
    """Both saw the same silence, and one look closed both: all their streams lost what came meanwhile."""
    quiet = {"first_message_ms": 1_000, "stale_min_ms": 1_000, "stale_max_ms": 60_000}
    async with local_venue() as venue, running(venue, copies=2, **quiet) as (client, recorder):
        await until(lambda: len(_live(client)) == 2)
        marks = _message(1, "btcusdt@markPrice@1s")
        for _ in range(25):
            for socket in venue.clients:
                await socket.send(marks)
            await asyncio.sleep(0.1)
        assert client.status()[0].silent == ("btcusdt@aggTrade",), "the test has lost its subject"
        assert client.delivering_streams() == {"btcusdt@markPrice@1s"}
        assert recorder.lost == []


async def test_connection_that_misses_what_the_other_one_brings_is_cut_alone():
    sharp = {"first_message_ms": 1_500, "stale_min_ms": 1_500, "stale_max_ms": 60_000}
    async with local_venue() as venue, running(venue, copies=2, **sharp) as (client, recorder):
        await until(lambda: len(_live(client)) == 2)
        whole, numbers = venue.clients[0], {each.number for each in _live(client)}
        async with asyncio.timeout(30):
            while not recorder.lost:
                for socket in venue.clients:
                    await socket.send(_message(1, "btcusdt@markPrice@1s"))
                await whole.send(_message(1))
                await asyncio.sleep(0.05)
        (bringer,) = {number for number, message in recorder.data() if b"aggTrade" in message}
        (loser,) = numbers - {bringer}
        assert [number for number, _ in recorder.lost] == [loser]
        assert "btcusdt@aggTrade" in recorder.lost[0][1]


async def test_request_that_is_not_answered_leads_to_a_new_connection():
    async with local_venue() as venue, running(venue, reply_timeout_ms=100) as (client, recorder):
        venue.acknowledge = False
        await until(lambda: recorder.lost)
        assert "no reply to SUBSCRIBE" in recorder.lost[0][1]
        venue.acknowledge = True
        await until(lambda: _live(client))


async def test_half_open_socket_is_noticed():
    async with local_venue() as venue, running(venue, idle_timeout_ms=200) as (client, recorder):
        await until(lambda: _live(client))
        await until(lambda: recorder.lost)
        assert "half open" in recorder.lost[0][1]


async def test_rotation_opens_the_successor_first_and_retires_the_old_one():
    async with local_venue() as venue, running(venue, rotate_ms=500) as (client, recorder):
        await until(lambda: _live(client))
        await until(lambda: len(venue.clients) == 2)
        assert recorder.lost == []
        recorder.ready.add(1)
        await until(lambda: recorder.lost)
        assert [number for number, _ in recorder.lost] == [0]
        assert next(c.number for c in _live(client)) == 1


async def test_numbers_are_given_again_when_nobody_has_them():
    """The journal has 8 bits for them: after some weeks of rotations two connections were one to it."""
    async with local_venue() as venue, running(venue, copies=2, rotate_ms=100) as (client, recorder):
        recorder.ready |= set(range(100))
        await until(lambda: all(slot.rotation_count >= 3 for slot in client.slots))
    assert len(recorder.opened) >= 8
    assert max(recorder.opened) <= 3
    assert len(recorder.lost) == len(recorder.opened)


async def test_server_that_is_not_there_is_tried_again_until_it_is():
    async with local_venue() as venue:
        url = venue.url
    recorder = Recorder()
    client = FeedClient(
        [Endpoint("market", url + "/stream", STREAMS)],
        FeedConfig(**FAST),
        recorder,
        wall=time.time_ns,
        monotonic=time.monotonic_ns,
        jitter=lambda: 0.0,
    )
    task = asyncio.create_task(client.run())
    await until(lambda: client.slots[0].current.failures >= 5)
    assert recorder.opened == recorder.lost == []
    assert "cannot be opened" in client.status()[0].reason
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_stop_that_comes_together_with_news_is_a_stop():
    """Whatever wakes the client in the same turn of the loop: it was told to end, and ends."""
    async with local_venue() as venue, running(venue) as (client, _):
        await until(lambda: _live(client))
        (task,) = (each for each in asyncio.all_tasks() if each.get_coro().__qualname__ == "FeedClient.run")
        await asyncio.sleep(0.01)
        client._wake.set()
        await asyncio.sleep(0)  # the event has come to who waits for it, and the client has not run yet
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled()
