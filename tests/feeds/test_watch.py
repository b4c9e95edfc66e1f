"""Which connections are renewed for a silence: those that miss something, never those of a quiet market."""

from __future__ import annotations

import gzip
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.watch import Watch
from gpuscalp.schema import NS_PER_MS, NS_PER_S

CONFIG = FeedConfig()
TRADES, QUOTES, MARKS = "btcusdt@aggTrade", "btcusdt@bookTicker", "btcusdt@markPrice@1s"
LINE = re.compile(rb'(\d+)\.(\d+): {"stream":"([^"]+)"')


class Venue:
    """Brings messages to all connections but those that miss them, and asks the watch every second."""

    def __init__(self, streams, copies=2):
        self.streams = tuple(streams)
        self.watch = Watch(CONFIG, [self.streams] * copies)
        self.missing = set()  # (connection, stream)
        self.overdue = []  # (second, connection, reason)
        self.now_s = 0
        for number in range(copies):
            self.watch.start(number, self.streams, 0)

    def deliver(self, stream, at_ns):
        self.wait(at_ns // NS_PER_S)
        for number, dog in self.watch.watchdogs.items():
            if (number, stream) not in self.missing:
                # The second connection is 80 ms slower.
                dog.on_message(stream, at_ns + 80 * NS_PER_MS * number)

    def wait(self, until_s):
        for second in range(self.now_s + 1, until_s + 1):
            for number, reason in self.watch.overdue(second * NS_PER_S):
                self.overdue.append((second, number, reason))
                self.watch.stop(number)
        self.now_s = max(self.now_s, until_s)

    def every_second(self, streams, seconds):
        for second in seconds:
            for stream in streams:
                self.deliver(stream, second * NS_PER_S)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("name", ["BINANCE_FUTURES-1125a2.0", "BINANCE_FUTURES.ws.1.0"])
def test_recorded_market_renews_no_connection(recordings: Path, name: str, copies: int) -> None:
    # Five busy symbols of 2021 were cut after 9 and 22 s, four of another recording after 7 s.
    with gzip.open(recordings / "usdm" / f"cryptofeed_{name}.gz") as file:
        rows = [match.groups() for match in map(LINE.match, file) if match]
    start_s, market = int(rows[0][0]), Venue({stream.decode() for _, _, stream in rows}, copies)
    for second, fraction, stream in rows:
        at_ns = (int(second) - start_s) * NS_PER_S + int(fraction[:9].ljust(9, b"0"))
        market.deliver(stream.decode(), at_ns)
    assert market.now_s >= 28
    assert len(market.streams) >= 12
    assert market.overdue == []


def test_fifty_bursty_symbols_renew_no_connection(rng: np.random.Generator) -> None:
    # The first cut came after 6 to 8 s, of both connections at once.
    streams = [f"x{index}usdt@aggTrade" for index in range(50)]
    times = []
    for stream in streams:
        begins = np.cumsum(rng.exponential(8.0, 40))
        sizes = rng.integers(1, 40, 40)
        at_s = np.concatenate([at + np.cumsum(rng.exponential(0.004, n)) for at, n in zip(begins, sizes)])  # noqa: B905
        times += [(at, stream) for at in at_s if at < 150]
    market = Venue([*streams, MARKS])
    times += [(float(second), MARKS) for second in range(150)]
    for at, stream in sorted(times):
        market.deliver(stream, int(at * NS_PER_S))
    assert market.overdue == []


def test_connection_that_misses_what_another_one_brings_is_renewed_alone() -> None:
    market = Venue([TRADES, QUOTES])
    market.every_second([TRADES, QUOTES], range(1, 70))
    market.missing.add((1, TRADES))
    market.every_second([TRADES, QUOTES], range(70, 90))
    ((second, number, reason),) = market.overdue
    assert number == 1
    assert second - 69 <= 8
    assert TRADES in reason
    assert QUOTES not in reason


def test_connection_on_which_a_stream_never_begins_is_renewed_if_another_one_brings_it() -> None:
    market = Venue([TRADES, QUOTES])
    market.missing.add((0, TRADES))
    market.every_second([TRADES, QUOTES], range(1, 17))
    assert [(second, number) for second, number, _ in market.overdue] == [(15, 0)]


def test_stream_that_one_copy_never_brings_costs_its_neighbours_ever_less() -> None:
    """Its connection lived for 15 s, for ever: half of the time all of its streams had one copy."""
    market = Venue([TRADES, QUOTES])
    market.missing.add((1, TRADES))
    for second in range(1, 1_500):
        market.every_second([TRADES, QUOTES], [second])
        if 1 not in market.watch.watchdogs:
            market.watch.start(1, market.streams, second * NS_PER_S)
    assert {number for _, number, _ in market.overdue} == {1}
    lives = [late - soon for (soon, *_), (late, *_) in pairwise([(0, 1, ""), *market.overdue])]
    assert lives[0] == 15
    assert all(late >= 4 * soon for soon, late in pairwise(lives))
    assert len(lives) == 4
    # It comes back and is lost again: that is another matter.
    market.missing.clear()
    market.every_second([TRADES, QUOTES], range(1_500, 1_600))
    market.missing.add((1, TRADES))
    market.every_second([TRADES, QUOTES], range(1_600, 1_610))
    assert len(market.overdue) == 5


def test_one_copy_always_stays() -> None:
    market = Venue([TRADES, QUOTES])
    market.every_second([TRADES, QUOTES], range(1, 70))
    market.missing |= {(0, TRADES), (1, QUOTES)}
    market.every_second([TRADES, QUOTES], range(70, 300))
    assert len(market.overdue) == 1, "the only one that is left was cut as well"
    kept = 1 - market.overdue[0][1]
    market.watch.start(2, market.streams, 300 * NS_PER_S)
    market.every_second([TRADES, QUOTES], range(301, 320))
    assert [number for _, number, _ in market.overdue[1:]] == [kept]


def test_marks_that_nobody_brings_are_asked_for_anew_one_copy_at_a_time() -> None:
    market = Venue([TRADES, MARKS])
    market.every_second([TRADES, MARKS], range(1, 70))
    for second in range(70, 1_000):
        market.deliver(TRADES, second * NS_PER_S)
        for number in {0, 1} - market.watch.watchdogs.keys():
            market.watch.start(number, market.streams, second * NS_PER_S)
    seconds = [second - 69 for second, _, _ in market.overdue]
    assert seconds[0] == 5
    assert all(late >= 4 * soon for soon, late in pairwise(seconds))
    assert len(seconds) == 4


def test_quiet_streams_cost_few_connections_however_many_they_are() -> None:
    streams = [f"x{index}usdt@aggTrade" for index in range(50)]
    market = Venue([*streams, MARKS], copies=1)
    for second in range(0, 7_200, 10):
        market.deliver(MARKS, second * NS_PER_S)
        if second % 100 == 0:
            market.deliver(streams[second // 100 % 50], second * NS_PER_S)
        if not market.watch.watchdogs:
            market.watch.start(0, market.streams, second * NS_PER_S)
    assert market.overdue[0][0] == CONFIG.stale_max_ms // 1_000
    assert len(market.overdue) <= 4, "after 1, 4, 16, 64 minutes"


def test_market_that_says_nothing_delivers_nothing() -> None:
    # Quiet or broken: nobody can tell, and nothing is opened on it.
    market = Venue([TRADES, QUOTES])
    market.every_second([TRADES, QUOTES], range(1, 70))
    market.every_second([QUOTES], range(70, 80))
    assert market.watch.delivering(80 * NS_PER_S) == {QUOTES}
    assert market.overdue == []


def test_what_came_before_the_last_acknowledgement_counts() -> None:
    """A stream delivers from the reply to its own request on; a quiet one brought nothing more for a minute,
    and passed for one that had never come."""
    watch = Watch(CONFIG, [[TRADES, QUOTES]] * 2)
    watch.on_early(0, TRADES, 3 * NS_PER_S)
    watch.on_early(1, QUOTES, 4 * NS_PER_S)
    watch.stop(1)  # what an attempt has brought that failed is not its successor's
    for number in (0, 1):
        watch.start(number, [TRADES, QUOTES], 5 * NS_PER_S)
    assert watch.delivering(6 * NS_PER_S) == {TRADES}
    assert watch.heard_ns() == {TRADES: 3 * NS_PER_S}


def test_a_connection_that_has_ended_delivers_nothing_and_what_it_brought_is_known() -> None:
    market = Venue([TRADES, QUOTES])
    market.every_second([TRADES, QUOTES], range(1, 10))
    market.watch.stop(1)
    market.watch.stop(1)
    heard_ns = 9 * NS_PER_S + 80 * NS_PER_MS
    assert market.watch.heard_ns() == {TRADES: heard_ns, QUOTES: heard_ns}
    market.watch.stop(0)
    assert market.watch.delivering(10 * NS_PER_S) == frozenset()
    assert market.watch.heard_ns() == {TRADES: heard_ns, QUOTES: heard_ns}


def test_two_copies_that_miss_something_at_once_are_renewed_one_after_the_other() -> None:
    watch, lost = Watch(CONFIG, [[TRADES, QUOTES]] * 2), {0: TRADES, 1: QUOTES}
    for number in lost:
        watch.start(number, [TRADES, QUOTES], 0)
    found = []
    for second in range(1, 100):
        for number, dog in watch.watchdogs.items():
            for name in (TRADES, QUOTES):
                if second < 70 or name != lost[number]:
                    dog.on_message(name, second * NS_PER_S)
        found.append([number for number, _ in watch.overdue(second * NS_PER_S)])
        if any(found):
            break
    assert [len(each) for each in found if each] == [1]


@pytest.mark.parametrize(("count", "more"), [(1, ""), (3, ""), (4, ", …")])
def test_the_reason_names_the_longest_silence_and_three_streams(count: int, more: str) -> None:
    names = [f"x{number}usdt@markPrice@1s" for number in range(count)]
    watch = Watch(CONFIG, [names])
    watch.start(0, names, 0)
    for second in range(1, 101):
        for name in names:
            watch.watchdogs[0].on_message(name, second * NS_PER_S - 500 * NS_PER_MS * (name == names[0]))
    ((number, reason),) = watch.overdue(200 * NS_PER_S)
    silent_ms = 100_500
    assert number == 0
    assert reason == f"acknowledged, but silent for {silent_ms} ms: {', '.join(names[:3])}{more}"
