"""What the tests of faults share: connections, waiting, and the end that every session comes to."""

from __future__ import annotations

from typing import Any

from gpuscalp.exchange.embedded import Exchange
from tests.live.journals import Story
from tests.live.sessions import Ended, Running, check_each_trade_once, newest_trades


def public_connections(exchange: Exchange) -> list[int]:
    """Return the numbers of the connections that carry trades and books."""
    return exchange.ask(
        lambda server: sorted(each.number for each in server.venue.hub.sessions if each.route == "public")
    )


def end(running: Running, exchange: Exchange) -> tuple[Ended, Story]:
    """Let it trade once more without faults, stop it, and check what holds for every session."""
    exchange.clear_faults()
    running.wait(lambda status: not status["feeds"]["unsynced"], "whole books")
    running.wait_trading()
    ended = running.stop()
    return ended, ended.check()


def end_complete(running: Running, exchange: Exchange) -> Story:
    """The same, and each trade of the market has become one tick."""
    exchange.clear_faults()
    newest = newest_trades(exchange)
    running.wait_messages()
    _, story = end(running, exchange)
    check_each_trade_once(story, newest)
    return story


def cuts(status: dict[str, Any]) -> int:
    return sum(each["cuts"] for each in status["feeds"]["connections"])


def is_live(status: dict[str, Any]) -> bool:
    return all(each["state"] == "live" for each in status["feeds"]["connections"])
