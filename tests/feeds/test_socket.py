"""The fast way of a socket gives what the library would, however the bytes are cut."""

from __future__ import annotations

import asyncio
import http
import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.socket import SocketError, open_socket
from tests.feeds.server import local_venue, until

CONFIG = FeedConfig(open_timeout_ms=5_000)


def _frame(opcode, data, fin=True):
    return Frame(opcode, data, fin).serialize(mask=False)


async def _received(chunks, count):
    """Send raw bytes in given chunks; return the messages that arrive."""
    got = []
    async with local_venue() as venue:
        socket = await open_socket(
            venue.url, CONFIG, sink=lambda _, found: got.extend(found), clock=time.time_ns
        )
        await until(lambda: venue.clients)
        for chunk in chunks:
            venue.clients[0].transport.write(chunk)
            await asyncio.sleep(0)
        await until(lambda: len(got) >= count)
        await socket.close()
    return got


sizes = st.sampled_from([0, 1, 125, 126, 127, 300, 65_535, 65_536])


@settings(max_examples=25)
@given(
    data=st.data(),
    messages=st.lists(
        st.tuples(sizes, st.sampled_from(["whole", "fragments", "ping between", "binary"])), max_size=6
    ),
)
def test_messages_arrive_whole_and_in_order_however_they_are_cut(data, messages):
    stream, sent = b"", []
    for number, (size, form) in enumerate(messages):
        body = bytes([65 + number]) * size
        sent.append(body)
        if form == "whole":
            stream += _frame(Opcode.TEXT, body)
        elif form == "binary":
            stream += _frame(Opcode.BINARY, body)
        elif form == "fragments":
            half = size // 2
            stream += _frame(Opcode.TEXT, body[:half], fin=False) + _frame(Opcode.PING, b"p")
            stream += _frame(Opcode.CONT, body[half:])
        else:
            stream += _frame(Opcode.PING, b"ping") + _frame(Opcode.TEXT, body)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(stream)])]
    assert asyncio.run(_received(chunks, len(sent))) == sent


async def test_pings_are_answered_with_their_payload_and_heard():
    calls = []
    async with local_venue() as venue:
        socket = await open_socket(
            venue.url, CONFIG, sink=lambda recv_ns, found: calls.append((recv_ns, found)), clock=lambda: 7
        )
        await until(lambda: venue.clients)
        async with asyncio.timeout(30):
            await (await venue.clients[0].ping(b"payload"))  # done when the same payload comes back
        assert (7, []) in calls
        await socket.close()


async def test_closing_by_the_server_is_told_with_its_reason():
    async with local_venue() as venue:
        socket = await open_socket(venue.url, CONFIG, sink=lambda *_: None, clock=time.time_ns)
        await until(lambda: venue.clients)
        await venue.clients[0].close(1001, "24 hours")
        async with asyncio.timeout(30):
            assert "received 1001 (going away) 24 hours" in await socket.wait_closed()
        await socket.send("after the end")


async def test_cut_without_a_word_is_told():
    got = []
    async with local_venue() as venue:
        socket = await open_socket(
            venue.url, CONFIG, sink=lambda _, found: got.extend(found), clock=time.time_ns
        )
        await until(lambda: venue.clients)
        venue.clients[0].transport.write(_frame(Opcode.TEXT, b"whole") + _frame(Opcode.TEXT, b"cut off")[:4])
        await until(lambda: got)
        venue.clients[0].transport.abort()
        async with asyncio.timeout(30):
            assert "no close frame received" in await socket.wait_closed()
    assert got == [b"whole"]


async def test_frame_beyond_the_limit_ends_the_connection_and_takes_no_memory():
    async with local_venue() as venue:
        socket = await open_socket(venue.url, CONFIG, sink=lambda *_: None, clock=time.time_ns)
        await until(lambda: venue.clients)
        venue.clients[0].transport.write(b"\x81\x7f" + (1 << 40).to_bytes(8, "big") + b"x" * 100)
        async with asyncio.timeout(30):
            assert "1009" in await socket.wait_closed()


async def test_masked_frame_of_a_server_is_an_error():
    async with local_venue() as venue:
        socket = await open_socket(venue.url, CONFIG, sink=lambda *_: None, clock=time.time_ns)
        await until(lambda: venue.clients)
        venue.clients[0].transport.write(Frame(Opcode.TEXT, b"masked").serialize(mask=True))
        async with asyncio.timeout(30):
            assert "1002" in await socket.wait_closed()


@pytest.mark.parametrize(
    ("status", "header", "wait_ms"), [(429, None, 60_000), (418, "300", 300_000), (503, None, 5_000)]
)
async def test_refused_handshake_says_how_long_to_wait(status, header, wait_ms):
    def refuse(connection, request):
        response = connection.respond(http.HTTPStatus(status), "no")
        if header:
            response.headers["Retry-After"] = header
        return response

    async with local_venue(process_request=refuse) as venue:
        with pytest.raises(SocketError, match=str(status)) as caught:
            await open_socket(venue.url, CONFIG, sink=lambda *_: None, clock=time.time_ns)
        assert caught.value.retry_after_ms == wait_ms


async def test_nobody_there_is_an_error_with_the_address():
    async with local_venue() as venue:
        url = venue.url
    with pytest.raises(SocketError, match="cannot be opened"):
        await open_socket(url, CONFIG, sink=lambda *_: None, clock=time.time_ns)
