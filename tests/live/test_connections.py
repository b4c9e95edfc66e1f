"""Connections exchanged before their time, and killed at any time: no tick is lost, none comes twice."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import Fault
from tests.live.sessions import (
    Running,
    check_each_trade_once,
    eager_config,
    feed_of,
    newest_trades,
)
from tests.thorough import examples

_KILLS = examples(24)


@pytest.mark.parametrize("copies", [1, 2])
def test_rotation_before_the_venues_cut_loses_no_tick_and_doubles_none(
    exchange: Exchange, bundle: Path, tmp_path: Path, copies: int
) -> None:
    """A day of 20 seconds: the venue cuts at its end, and each connection is exchanged after one."""
    exchange.set_fault(Fault("cut", life_s=20.0))
    config = eager_config(feed_of(exchange, redundancy=copies, rotate_ms=1_000, overlap_max_ms=15_000))
    with Running(tmp_path / "session", config, bundle) as running:
        # Two routes for each copy. Of each route one may be on its way, beside the one that it is to replace.
        running.wait(lambda status: _opened(status) >= 6 * copies + 2, "two rotations of all connections")
        newest = newest_trades(exchange)
        running.wait_messages()
        running.wait_trading()
        ended = running.stop()
    story = ended.check()
    check_each_trade_once(story, newest)
    assert not any(trade.gap for trade in story.trades)
    # Every one was let go by us, before the venue would have cut it.
    assert {note.reason for note in story.lost} <= {"retired", "stopped"}
    assert sum(note.reason == "retired" for note in story.lost) >= 4 * copies
    assert sum(ended.status["feeds"]["connections_lost"].values()) == 0
    # From when trading began the gate has never been closed, and no book had to be fetched again.
    first = story.entries[0][0]
    assert not any(health.silent for record, health in story.health if record.seq > first)
    assert not any(since > first for _, since, _ in story.unsynced)


def test_either_of_two_connections_may_be_killed_at_any_moment(
    exchange: Exchange, bundle: Path, tmp_path: Path
) -> None:
    seed = time.time_ns() & 0xFFFF_FFFF
    print(f"seed {seed}")
    chance = random.Random(seed)
    quick = {"backoff_min_ms": 10, "backoff_max_ms": 50}
    config = eager_config(feed_of(exchange, redundancy=2, **quick))
    with Running(tmp_path / "session", config, bundle) as running:
        running.wait_trading()
        killed = 0
        for _ in range(_KILLS):
            # One at a time: where both are down at once nobody can have the ticks.
            running.wait(lambda status, gone=killed: _all_deliver(status, exchange, gone), "all connections")
            time.sleep(chance.uniform(0.0, 0.1))
            killed = exchange.ask(lambda server: _kill(server, chance))
        newest = newest_trades(exchange)
        running.wait_messages()
        running.wait_trading()
        ended = running.stop()
    story = ended.check()
    check_each_trade_once(story, newest)
    assert not any(trade.gap for trade in story.trades)
    ends = sum(note.reason != "stopped" for note in story.lost)
    assert ends >= _KILLS
    # The note of a connection that we end says why it had been cut before; it was not lost.
    assert _KILLS <= sum(ended.status["feeds"]["connections_lost"].values()) <= ends


def _opened(status: dict[str, Any]) -> int:
    return sum(status["feeds"]["connections_opened"].values())


def _all_deliver(status: dict[str, Any], exchange: Exchange, gone: int) -> bool:
    """Whether all connections are there again, at both ends, and the one that was killed is not."""
    served = [each["number"] for each in exchange.status()["connections"]]
    connections = status["feeds"]["connections"]
    live = len(connections) == 4 and all(each["state"] == "live" for each in connections)
    return live and len(served) == 4 and gone not in served


def _kill(server: Any, chance: random.Random) -> int:
    """End a connection, as a venue does or as a cable does: with a close frame, or in the middle of anything.
    Return its number."""
    connection = chance.choice(list(server._connections))
    if chance.random() < 0.5:
        server.set_fault(Fault("cut", connection=connection.number))
    else:
        transport = connection.socket._req.transport
        if transport is not None:
            transport.abort()
    return int(connection.number)
