"""Streams that were acknowledged and say nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.watchdog import Watchdog
from gpuscalp.schema import NS_PER_MS, NS_PER_S

CONFIG = FeedConfig(stale_min_ms=5_000, stale_max_ms=60_000, first_message_ms=15_000)
A, B = "btcusdt@aggTrade", "btcusdt@bookTicker"


def _dog(*streams, pauses=None, now_ns=0):
    return Watchdog(CONFIG, streams, {} if pauses is None else pauses, now_ns)


def _every(watchdog, stream, seconds, *, step_s=1):
    for second in range(0, seconds, step_s):
        watchdog.on_message(stream, second * NS_PER_S)


def test_stream_that_never_begins_is_silent_after_the_time_for_a_first_message():
    watchdog = _dog(A, B)
    watchdog.on_message(B, 14 * NS_PER_S)
    assert watchdog.silent(15 * NS_PER_S - 1) == []
    assert watchdog.silent(15 * NS_PER_S) == [A]


def test_stream_that_stops_is_silent_though_its_neighbours_go_on():
    watchdog = _dog(A, B)
    _every(watchdog, A, 80)
    _every(watchdog, B, 80)
    for second in range(80, 90):
        watchdog.on_message(B, second * NS_PER_S)
        assert watchdog.silent(second * NS_PER_S) == ([A] if second >= 84 else [])


def test_stream_delivers_from_its_first_message_after_the_start_until_it_is_silent():
    pauses = {}
    watchdog = _dog(A, B, pauses=pauses)
    # Acknowledged is not delivered: a session once opened positions on a stream that had gone silent,
    # because its new connection had been acknowledged.
    assert watchdog.delivering(1) == []
    watchdog.on_message(A, NS_PER_S)
    assert watchdog.delivering(2 * NS_PER_S) == [A]
    silent_ns = NS_PER_S + watchdog.limit_ns(A)
    assert watchdog.delivering(silent_ns - 1) == [A]
    assert watchdog.delivering(silent_ns) == []
    assert _dog(A, B, pauses=pauses, now_ns=silent_ns).delivering(silent_ns + 1) == []


def test_limit_follows_the_pauses_that_are_usual_for_a_stream():
    watchdog = _dog(A, B)
    _every(watchdog, A, 67, step_s=6)
    for step in range(6_101):
        watchdog.on_message(B, step * 10 * NS_PER_MS)
    assert watchdog.limit_ns(B) == 5 * NS_PER_S
    assert watchdog.limit_ns(A) == 24 * NS_PER_S
    watchdog.on_message(A, 300 * NS_PER_S)
    assert watchdog.limit_ns(A) == 60 * NS_PER_S


def test_burst_of_messages_says_nothing_about_the_pause_after_it():
    # Two trades a few ms apart were enough for the shortest limit, and 256 quotes of one burst made the
    # watch forget the pause before it.
    watchdog = _dog(A)
    for step in range(1_000):
        watchdog.on_message(A, step * NS_PER_MS)
    assert watchdog.silent(59 * NS_PER_S) == []
    for burst_s in (20, 40, 60, 80):
        for step in range(1_000):
            watchdog.on_message(A, burst_s * NS_PER_S + step * NS_PER_MS)
        assert watchdog.limit_ns(A) == 60 * NS_PER_S


def test_one_long_pause_is_forgotten():
    watchdog = _dog(A)
    watchdog.on_message(A, 0)
    now_ns = 50 * NS_PER_S
    for _ in range(1_000):
        watchdog.on_message(A, now_ns)
        now_ns += NS_PER_S
    assert watchdog.limit_ns(A) < 6 * NS_PER_S


def test_usual_pause_survives_a_reconnection_but_the_first_message_is_awaited_anew():
    pauses = {}
    _every(_dog(A, pauses=pauses), A, 71, step_s=10)
    watchdog = _dog(A, pauses=pauses, now_ns=1_000 * NS_PER_S)
    assert watchdog.limit_ns(A) == 15 * NS_PER_S
    watchdog.on_message(A, 1_001 * NS_PER_S)
    assert watchdog.limit_ns(A) == 40 * NS_PER_S


def test_message_of_a_stream_not_asked_for_is_no_matter():
    watchdog = _dog(A)
    watchdog.on_message("other@trade", 1)
    assert watchdog.silent(1) == []


def test_stream_that_waits_for_something_to_happen_is_never_silent():
    # A day without liquidations led to a new connection every 15 s.
    watchdog = _dog("!forceOrder@arr", A)
    watchdog.on_message("!forceOrder@arr", NS_PER_S)
    assert watchdog.silent(10_000 * NS_PER_S) == [A]


def test_stream_of_every_five_seconds_is_not_silent_after_its_first_message():
    # The shortest limit, which counted from the first message on, was the period of !bookTicker itself.
    watchdog = _dog("!bookTicker")
    last_s = 0
    for second in (1, 6, 12, *range(17, 64, 5)):
        assert watchdog.silent(second * NS_PER_S) == []
        watchdog.on_message("!bookTicker", second * NS_PER_S)
        last_s = second
    assert watchdog.silent((last_s + 24) * NS_PER_S) == ["!bookTicker"]


@given(
    first_ms=st.integers(1, 9) | st.integers(50, 90),
    min_ms=st.integers(1, 30),
    more_ms=st.integers(0, 30),
    pauses_ms=st.lists(st.integers(0, 60), max_size=8),
    later_ms=st.integers(0, 100),
)
def test_every_stream_that_has_begun_is_silent_or_delivers_by_its_limit(
    first_ms, min_ms, more_ms, pauses_ms, later_ms
):
    config = FeedConfig(first_message_ms=first_ms, stale_min_ms=min_ms, stale_max_ms=min_ms + more_ms)
    watchdog, now_ns = Watchdog(config, [A], {}, 0), 0
    for pause_ms in pauses_ms:
        now_ns += pause_ms * NS_PER_MS
        watchdog.on_message(A, now_ns)
    is_silent = later_ms * NS_PER_MS >= watchdog.limit_ns(A)
    now_ns += later_ms * NS_PER_MS
    delivers = bool(pauses_ms) and not is_silent
    assert watchdog.silent(now_ns) == ([A] if is_silent else [])
    assert watchdog.delivering(now_ns) == ([A] if delivers else [])
    assert watchdog.is_delivering(A, now_ns) == delivers
