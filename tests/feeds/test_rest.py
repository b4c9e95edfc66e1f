"""REST: the weight is kept, refusals are heeded, replies are understood."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.config import FeedConfig
from gpuscalp.errors import DecodeError, FeedError
from gpuscalp.feeds.rest import RestClient, WeightBudget
from gpuscalp.schema import NS_PER_MS, NS_PER_S

MINUTE_NS = 60 * NS_PER_S
NOW_NS = 1_700_000_040 * NS_PER_S  # the beginning of a minute


@given(
    limit=st.integers(70, 300),
    reserve=st.integers(0, 40),
    calls=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20_000)), max_size=80),
)
def test_budget_is_never_exceeded_in_any_minute(limit, reserve, calls):
    budget = WeightBudget(limit, reserve)
    now_ns, spent = NOW_NS, {}
    for weight, pause_ms in calls:
        now_ns += pause_ms * NS_PER_MS
        ready_ns = budget.ready_ns(weight, now_ns)
        assert ready_ns >= now_ns
        if ready_ns == now_ns:
            budget.spend(weight, now_ns)
            minute = now_ns // MINUTE_NS
            spent[minute] = spent.get(minute, 0) + weight
    assert all(total <= limit - reserve for total in spent.values())


def test_reserve_is_left_alone():
    budget = WeightBudget(100, 20)
    budget.spend(79, NOW_NS)
    assert budget.ready_ns(1, NOW_NS) == NOW_NS
    assert budget.ready_ns(2, NOW_NS) == NOW_NS + MINUTE_NS


def test_weight_that_others_use_behind_the_same_address_counts():
    budget = WeightBudget(100, 0)
    budget.on_reply(200, {"X-MBX-USED-WEIGHT-1M": "99"}, b"", NOW_NS)
    assert budget.ready_ns(1, NOW_NS) == NOW_NS
    budget.on_reply(200, {"X-MBX-USED-WEIGHT-1M": "²"}, b"", NOW_NS)
    assert budget.ready_ns(2, NOW_NS) == NOW_NS + MINUTE_NS


@pytest.mark.parametrize(
    ("status", "headers", "body", "wait_s"),
    [
        (429, {"Retry-After": "7"}, b"", 7),
        (429, {}, b"", 60),
        (418, {}, b"", 120),
        (418, {"retry-after": "999999999"}, b"", 3 * 86_400),
        (418, {}, b'{"code":-1003,"msg":"IP banned until 1700000340000"}', 300),
        (403, {}, b"<html>", 300),
        (429, {"Retry-After": "²"}, b"", 60),
    ],
)
def test_refusals_are_heeded(status, headers, body, wait_s):
    budget = WeightBudget(100, 0)
    budget.on_reply(status, headers, body, NOW_NS)
    assert budget.ready_ns(1, NOW_NS) == NOW_NS + wait_s * NS_PER_S
    assert budget.refusals == 1


def test_a_clock_that_is_set_back_makes_nobody_wait_for_the_old_time():
    budget = WeightBudget(100, 0)
    budget.spend(90, NOW_NS)
    budget.on_reply(418, {}, b"", NOW_NS)
    back_ns = NOW_NS - 120 * MINUTE_NS
    assert 120 * NS_PER_S <= budget.ready_ns(1, back_ns) - back_ns <= 240 * NS_PER_S
    assert budget.used == 90, "what was used this minute still counts"
    after_ns = back_ns + 4 * MINUTE_NS
    assert budget.spend(90, after_ns) == after_ns
    assert budget.spend(90, after_ns) == after_ns + MINUTE_NS


def test_a_clock_that_goes_back_over_the_edge_of_a_minute_frees_no_weight():
    budget = WeightBudget(100, 0)
    budget.spend(90, NOW_NS)
    assert budget.spend(90, NOW_NS - NS_PER_S) == NOW_NS + MINUTE_NS


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        status, headers, body = self.server.replies.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.requests, server.replies = [], []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server):
    times = iter(range(NOW_NS, NOW_NS + 10_000 * NS_PER_MS, NS_PER_MS))
    config = FeedConfig(rest_url=f"http://127.0.0.1:{server.server_port}")
    client = RestClient(config, clock=lambda: next(times))
    yield client
    client.close()


def test_depth_snapshot_is_fetched_with_its_symbol_and_its_bytes(server, client):
    body = json.dumps(
        {"lastUpdateId": 7, "E": 1_700_000_000_123, "bids": [["4.0", "1"]], "asks": []}
    ).encode()
    server.replies.append((200, {"X-MBX-USED-WEIGHT-1M": "33"}, body))
    reply, snapshot = client.depth("BTCUSDT")
    assert server.requests == ["/fapi/v1/depth?symbol=BTCUSDT&limit=1000"]
    assert reply.body == body
    assert reply.request.endswith(server.requests[0])
    assert (snapshot.symbol, snapshot.last_id, snapshot.bids) == ("BTCUSDT", 7, [(400_000_000, 100_000_000)])
    assert client.budget.used == 33


def test_server_time_comes_with_the_times_around_it(server, client):
    server.replies.append((200, {}, b'{"serverTime":1700000000500}'))
    assert client.server_time() == (NOW_NS, NOW_NS + NS_PER_MS, 1_700_000_000_500 * NS_PER_MS)
    for body in (b"{}", b'{"serverTime":"\xff"}', b'{"serverTime":0}', b'{"serverTime":1' + b"0" * 30 + b"}"):
        server.replies.append((200, {}, body))
        with pytest.raises(DecodeError, match="no time"):
            client.server_time()


def test_after_429_nothing_is_sent_until_it_is_time(server, client):
    server.replies.append((429, {"Retry-After": "3"}, b'{"code":-1003,"msg":"Too many requests"}'))
    with pytest.raises(FeedError, match="429"):
        client.exchange_info()
    with pytest.raises(FeedError, match="no call now"):
        client.exchange_info()
    assert len(server.requests) == 1


def test_two_threads_do_not_both_spend_the_last_weight(server, client):
    """Snapshots are fetched two at once: both had looked before either had spent, into what orders need."""
    refused = []

    def ask(weight):
        try:
            client.get("/fapi/v1/depth", {}, weight=weight)
        except FeedError as error:
            refused.append(error)

    class Watched(int):
        def __radd__(self, used):  # the budget looks whether there is so much
            if other.ident is None:
                other.start()
                other.join(0.2)
            return used + int(self)

    config = FeedConfig()
    last = config.weight_per_minute - config.weight_reserve
    server.replies += [(200, {}, b"{}")] * 2
    other = threading.Thread(target=ask, args=(last,))
    ask(Watched(last))
    other.join()
    assert [error.what for error in refused] == ["the venue's limit allows no call now"]
    assert len(server.requests) == 1


def test_server_that_is_gone_is_an_error_with_the_address():
    config = FeedConfig(rest_url="http://127.0.0.1:9")
    with pytest.raises(FeedError, match="cannot be reached"):
        RestClient(config, clock=lambda: NOW_NS).server_time()
