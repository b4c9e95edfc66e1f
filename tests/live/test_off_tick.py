"""A venue that makes a tick size finer while a session runs: the symbol is doubted, and it is said."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.server import ServeSpec
from gpuscalp.exchange.source import SourceMessage
from gpuscalp.feeds.messages import Ticker
from gpuscalp.live.off_tick import OffTick
from gpuscalp.live.records import HealthRecord
from gpuscalp.live.signal_rows import doubts
from gpuscalp.live.view import picture
from gpuscalp.logs import Wanted, read
from gpuscalp.schema import NS_PER_S, Quality
from tests.live.sessions import SYMBOLS, TICK_E8, Market, Running, eager_config, feed_of, instruments

BTC, ETH = 0, 1


class FinerMarket:
    """The market of these tests, of which ETHUSDT is quoted between the old ticks while ``finer`` is set."""

    def __init__(self) -> None:
        self.finer = False
        self._market = Market()
        # What it lists; the session is begun with the tick that is ten times as large.
        self.instruments = tuple(replace(each, tick_size_e8=TICK_E8 // 10) for each in instruments())

    def messages(self) -> Iterator[SourceMessage]:
        for message in self._market.messages():
            if self.finer and isinstance(message, Ticker) and message.symbol == SYMBOLS[ETH]:
                bid, ask = message.bid_price_e8 + TICK_E8 // 10, message.ask_price_e8 + TICK_E8 // 10
                yield structs.replace(message, bid_price_e8=bid, ask_price_e8=ask)
            else:
                yield message


def test_rows_off_the_tick_close_their_symbol_and_no_other(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session whose symbol had got a finer tick dropped nearly all of its rows and said nothing of it."""
    monkeypatch.setattr("gpuscalp.live.start.instruments_of", lambda *_: list(instruments()))
    market = FinerMarket()
    with Exchange(market, ServeSpec()) as exchange:
        config = eager_config(feed_of(exchange, redundancy=1))
        with Running(tmp_path / "session", config, bundle) as running:
            running.wait_trading()
            market.finer = True
            doubted = running.wait(lambda status: bool(status["feeds"]["off_tick"]), "a doubt")
            running.wait_trading(SYMBOLS[BTC])
            running.stop()
    assert doubted["feeds"]["off_tick"] == [SYMBOLS[ETH]]
    assert doubted["feeds"]["unsynced"] == doubted["feeds"]["silent"] == []
    assert f"prices off the tick size: {SYMBOLS[ETH]}" in _text(doubted)
    assert running.ended is not None
    story = running.ended.check()  # no entry of it in doubt, and the journal repeats to the bit
    first = next(record.seq for record, health in story.health if health.off_tick == (ETH,))
    last = story.records[-1].seq
    assert story.entries_between(first, last, BTC)
    assert not story.entries_between(first, last, ETH)
    assert story.refused(Quality.STALE, ETH)
    said = [each for each in read(running.path, Wanted()) if "no multiple of the tick size" in each.text]
    assert [(each.level, each.text.partition(":")[0]) for each in said] == [("ERROR", SYMBOLS[ETH])]


def _text(status: dict[str, Any]) -> str:
    return str([getattr(each, "plain", "") for each in picture(status).renderables])


def test_a_symbol_is_doubted_for_a_minute_after_the_last_such_row_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    off_tick = OffTick(instruments(), (7, 0))  # those of an earlier start are known

    def judged(*counts: int, at_s: int) -> tuple[int, ...]:
        return off_tick.judge(counts, at_s * NS_PER_S)

    with caplog.at_level(logging.ERROR):
        assert judged(7, 0, at_s=100) == ()
        assert judged(7, 3, at_s=101) == (ETH,)
        assert judged(8, 3, at_s=102) == (BTC, ETH)
        assert judged(8, 4, at_s=130) == (BTC, ETH)
        assert judged(8, 4, at_s=161) == (BTC, ETH)
        assert judged(8, 4, at_s=162) == (ETH,)
        assert judged(8, 4, at_s=190) == ()
        assert judged(9, 4, at_s=500) == (BTC,)
    assert [record.args[0] for record in caplog.records] == [SYMBOLS[ETH], SYMBOLS[BTC]]  # type: ignore[index]


def test_a_row_off_the_tick_makes_its_symbol_stale() -> None:
    bits = doubts(HealthRecord(1.0, drifted=False, off_tick=(ETH,)), (), 2)
    assert bits is not None
    assert bits.tolist() == [0, Quality.STALE]
