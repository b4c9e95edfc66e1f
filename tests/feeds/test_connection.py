"""The life of a connection: limits, back-off, replies, silence; rotation with overlap."""

from __future__ import annotations

import itertools
from collections import deque

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.connection import NEVER, PARAMS_MAX, Close, Connection, Open, Reply, Send, State
from gpuscalp.feeds.routes import Endpoint
from gpuscalp.feeds.slot import Slot
from gpuscalp.schema import NS_PER_MS, NS_PER_S

CONFIG = FeedConfig()
URL = "ws://127.0.0.1/market/stream"
START_NS = 1_000 * NS_PER_S


def _connection(streams=("btcusdt@aggTrade",), config=CONFIG, jitter=lambda: 0.5):
    return Connection(0, URL, streams, config, jitter=jitter, now_ns=START_NS)


def _live(connection, now_ns=START_NS):
    """Open a connection and answer every SUBSCRIBE; return the time at which it is live."""
    assert connection.poll(now_ns) == [Open(URL)]
    connection.on_open(now_ns)
    while not connection.is_live:
        for action in connection.poll(now_ns):
            assert isinstance(action, Send)
            connection.on_reply(Reply(id=msgspec.json.decode(action.text)["id"]), now_ns)
        now_ns = max(now_ns, min(connection.due_ns, now_ns + NS_PER_S))
    return now_ns


def test_connection_subscribes_all_streams_in_requests_of_bounded_size():
    streams = tuple(f"s{index}usdt@bookTicker" for index in range(2 * PARAMS_MAX + 1))
    connection = _connection(streams)
    connection.poll(START_NS)
    connection.on_open(START_NS)
    requests = [msgspec.json.decode(action.text) for action in connection.poll(START_NS)]
    assert [request["method"] for request in requests] == ["SUBSCRIBE"] * 3
    assert tuple(name for request in requests for name in request["params"]) == streams
    assert max(len(request["params"]) for request in requests) == PARAMS_MAX
    assert len({request["id"] for request in requests}) == 3
    for index, request in enumerate(requests):
        assert not connection.is_live
        assert connection.on_reply(Reply(id=request["id"]), START_NS + index) == []
    assert connection.is_live


@given(
    limit=st.integers(1, 10),
    stream_count=st.integers(1, 200),
    steps=st.lists(st.integers(1, 700), min_size=1, max_size=60),
)
def test_connection_never_sends_more_than_the_limit_in_any_second(limit, stream_count, steps):
    config = FeedConfig(max_messages_per_s=limit, reply_timeout_ms=100_000, idle_timeout_ms=1_000_000)
    connection = _connection([f"s{index}@trade" for index in range(stream_count)], config)
    sent = deque()
    now_ns = START_NS
    connection.poll(now_ns)
    connection.on_open(now_ns)
    for step in steps:
        sent.extend(now_ns for action in connection.poll(now_ns) if isinstance(action, Send))
        now_ns += step * NS_PER_MS
    for first in range(len(sent)):
        assert sum(sent[first] <= time < sent[first] + NS_PER_S for time in sent) <= limit


@given(failures=st.integers(1, 60), jitter=st.floats(0, 1, exclude_max=True))
def test_backoff_grows_is_jittered_and_has_a_cap(failures, jitter):
    connection = _connection(jitter=lambda: jitter)
    now_ns = START_NS
    waits = []
    for _ in range(failures):
        assert connection.poll(now_ns) == [Open(URL)]
        connection.on_closed(now_ns, "refused")
        waits.append((connection.due_ns - now_ns) / NS_PER_MS)
        assert connection.poll(connection.due_ns - 1) == []
        now_ns = connection.due_ns
    for index, wait in enumerate(waits):
        longest = min(CONFIG.backoff_max_ms, CONFIG.backoff_min_ms * 2**index)
        assert longest * 0.5 - 0.001 <= wait <= longest
    assert connection.failures == failures


def test_backoff_begins_anew_after_a_stable_connection():
    connection = _connection()
    for _ in range(6):
        connection.poll(max(connection.due_ns, START_NS))
        connection.on_closed(max(connection.due_ns, START_NS), "refused")
    now_ns = _live(connection, connection.due_ns)
    connection.on_closed(now_ns + CONFIG.stable_ms * NS_PER_MS, "cut")
    assert connection.failures == 1


def test_venue_that_asks_for_patience_gets_it():
    connection = _connection()
    connection.poll(START_NS)
    connection.on_closed(START_NS, "429", retry_after_ms=120_000)
    assert connection.due_ns == START_NS + 120 * NS_PER_S
    assert connection.poll(connection.due_ns - 1) == []
    assert connection.poll(connection.due_ns) == [Open(URL)]


@pytest.mark.parametrize(
    "reply",
    ['{"code":2,"msg":"Invalid request"}', '{"error":{"code":2,"msg":"Invalid request"},"id":1}'],
)
def test_refused_subscription_closes_with_the_reason(reply):
    connection = _connection()
    connection.poll(START_NS)
    connection.on_open(START_NS)
    connection.poll(START_NS)
    (action,) = connection.on_reply(msgspec.json.decode(reply, type=Reply), START_NS)
    assert isinstance(action, Close)
    assert "Invalid request" in action.reason
    assert connection.due_ns == NEVER  # until the owner says that it is closed
    connection.on_closed(START_NS, "1006")
    assert "Invalid request" in connection.reason


def test_missing_reply_handshake_and_silence_are_noticed():
    connection = _connection()
    connection.poll(START_NS)
    (action,) = connection.poll(connection.due_ns)
    assert "handshake" in action.reason
    connection.on_closed(START_NS, "")

    now_ns = connection.due_ns
    connection.poll(now_ns)
    connection.on_open(now_ns)
    connection.poll(now_ns)
    (action,) = connection.poll(connection.due_ns)
    assert "SUBSCRIBE" in action.reason
    connection.on_closed(now_ns, "")

    now_ns = _live(connection, connection.due_ns)
    connection.on_heard(now_ns + NS_PER_S)
    assert connection.poll(now_ns + CONFIG.idle_timeout_ms * NS_PER_MS) == []
    (action,) = connection.poll(connection.due_ns)
    assert "half open" in action.reason


def test_retired_connection_never_opens_again():
    connection = _connection()
    _live(connection)
    assert connection.retire() == [Close("retired")]
    connection.on_closed(START_NS, "1000")
    assert connection.state is State.RETIRED
    assert connection.due_ns == NEVER
    assert connection.poll(NEVER - 1) == []
    assert connection.retire() == []


@given(data=st.data())
def test_any_order_of_events_keeps_the_machine_sane(data):
    connection = _connection(tuple(f"s{index}@trade" for index in range(60)))
    now_ns, opened = START_NS, False
    for _ in range(data.draw(st.integers(1, 60))):
        event = data.draw(st.sampled_from(["poll", "open", "closed", "reply", "refuse", "again", "heard"]))
        now_ns += data.draw(st.sampled_from([0, 1, NS_PER_MS, NS_PER_S, 40 * NS_PER_S]))
        actions = []
        if event == "poll":
            actions = connection.poll(now_ns)
        elif event == "open":
            connection.on_open(now_ns)
        elif event == "closed":
            connection.on_closed(now_ns, "cut")
            opened = False
        elif event == "reply":
            actions = connection.on_reply(Reply(id=data.draw(st.integers(0, 5))), now_ns)
        elif event == "refuse":
            actions = connection.on_reply(Reply(code=1), now_ns)
        elif event == "again":
            actions = connection.reconnect("stale")
        else:
            connection.on_heard(now_ns)
        for action in actions:
            if isinstance(action, Open):
                assert not opened, "a second socket while the first is open"
                opened = True
            assert isinstance(action, Open) or opened or event == "refuse"


class Venue:
    """Answers everything at once."""

    def __init__(self, config):
        numbers = itertools.count()
        self.now_ns = START_NS
        self.slot = Slot(
            Endpoint("market", URL, ("btcusdt@aggTrade",)),
            config,
            next_number=lambda: next(numbers),
            jitter=lambda: 0.0,
            now_ns=START_NS,
        )
        self.joined = set()
        self.closed = []

    def step(self):
        for connection, action in self.slot.poll(self.now_ns, self.joined.__contains__):
            if isinstance(action, Open):
                connection.on_open(self.now_ns)
            elif isinstance(action, Send):
                connection.on_reply(Reply(id=msgspec.json.decode(action.text)["id"]), self.now_ns)
            else:
                self.closed.append(connection.number)
                connection.on_closed(self.now_ns, action.reason)

    def run(self, seconds):
        for _ in range(seconds):
            for connection in self.slot.connections():
                connection.on_heard(self.now_ns)
            self.step()
            self.now_ns += NS_PER_S


def test_rotation_overlaps_until_the_successor_has_joined():
    venue = Venue(FeedConfig(rotate_ms=60_000, overlap_max_ms=30_000))
    venue.run(60)
    assert [c.number for c in venue.slot.connections()] == [0]
    venue.run(5)
    assert [(c.number, c.is_live) for c in venue.slot.connections()] == [(0, True), (1, True)]
    venue.joined.add(1)
    venue.run(1)
    assert [c.number for c in venue.slot.connections()] == [1]
    assert venue.closed == [0]
    assert venue.slot.rotation_count == 1


def test_rotation_does_not_wait_for_ever_for_streams_that_say_nothing():
    venue = Venue(FeedConfig(rotate_ms=60_000, overlap_max_ms=30_000))
    venue.run(95)
    assert [c.number for c in venue.slot.connections()] == [1]


def test_old_connection_that_is_cut_during_rotation_is_not_mourned():
    venue = Venue(FeedConfig(rotate_ms=60_000))
    venue.run(62)
    old, new = venue.slot.connections()
    old.on_closed(venue.now_ns, "cut after 24 hours")
    venue.run(1)
    assert venue.slot.connections() == (new,)


def test_successor_that_cannot_come_is_not_waited_for_in_a_busy_loop():
    venue = Venue(FeedConfig(rotate_ms=60_000, overlap_max_ms=5_000))
    venue.run(60)
    for _ in range(60):
        for connection, _ in venue.slot.poll(venue.now_ns, venue.joined.__contains__):
            connection.on_closed(venue.now_ns, "the connection cannot be opened")
        assert len(venue.slot.connections()) == 2
        assert venue.slot.due_ns > venue.now_ns
        venue.now_ns += NS_PER_S
        venue.slot.current.on_heard(venue.now_ns)


def test_switch_is_due_when_the_overlap_of_a_live_successor_ends():
    venue = Venue(FeedConfig(rotate_ms=60_000, overlap_max_ms=5_000))
    venue.run(63)
    assert [c.is_live for c in venue.slot.connections()] == [True, True]
    assert venue.slot.due_ns == START_NS + 65 * NS_PER_S
