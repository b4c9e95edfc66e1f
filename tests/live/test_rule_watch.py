"""A venue that changes the rules of a symbol, or ends its trading, while a session runs."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.errors import FeedError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.rules import SymbolRules
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.live import rule_watch
from gpuscalp.live.records import HealthRecord
from gpuscalp.live.rule_watch import RuleWatch, differences
from gpuscalp.live.signal_rows import doubts
from gpuscalp.logs import Wanted, read
from gpuscalp.schema import E8, Quality
from tests.live.sessions import SYMBOLS, Running, eager_config, feed_of, instruments

BTC, ETH = 0, 1
OURS = replace(instruments()[BTC], min_qty_e8=100_000, min_notional_e8=5 * E8)


@pytest.mark.parametrize(
    ("change", "state", "why"),
    [
        ({}, "TRADING", ""),
        ({}, "SETTLING", "it does not trade: SETTLING"),
        ({}, "", "it does not trade: not listed"),
        (None, "TRADING", "it is listed without usable filters"),
        ({"tick_size_e8": OURS.tick_size_e8 * 10}, "TRADING", "tick size 0.1, now 1"),
        ({"step_size_e8": E8}, "TRADING", f"step size {OURS.step_size_e8 / E8:g}, now 1"),
        ({"min_qty_e8": E8}, "TRADING", ""),
        ({"min_notional_e8": 100 * E8}, "TRADING", ""),
        ({"max_market_qty_e8": 1}, "TRADING", ""),
    ],
)
def test_what_refuses_all_orders_closes_a_symbol(change: dict[str, Any] | None, state: str, why: str) -> None:
    assert differences(OURS, None if change is None else replace(OURS, **change), state) == why


def test_a_symbol_with_other_rules_is_stale() -> None:
    bits = doubts(HealthRecord(1.0, drifted=False, rules=(ETH,)), (), 2)
    assert bits is not None
    assert bits.tolist() == [0, Quality.STALE]
    assert HealthRecord(1.0, drifted=False, rules=(ETH,)).complaints(SYMBOLS) == [
        "closed, or other rules at the venue: ETHUSDT"
    ]


def report(code: int, kind: ReportKind = ReportKind.REJECTED) -> Report:
    return Report(
        kind=kind, order_id=1, symbol_index=0, at_ns=1, known_ns=1, state=None, code=code, reason="",
        left_e8=0, fill=None, maker=False, money_e8=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "asks"), [(-1111, True), (-4140, True), (-4023, True), (-2019, False), (0, False)]
)
def test_the_list_is_asked_for_after_a_refusal_by_a_rule(
    code: int, asks: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Orders of a wrong size were refused for ever. An answer that does not come changes nothing."""
    monkeypatch.setattr(rule_watch, "_BREATH_S", 0.01)
    monkeypatch.setattr(rule_watch, "_WHILE_CLOSED_S", 600.0)
    names = [each.symbol for each in instruments()]
    asked: list[int] = []

    def exchange_info() -> Any:
        asked.append(1)
        if len(asked) == 2:
            raise FeedError("the venue refuses: HTTP 503")
        body = json.dumps({"symbols": [{"symbol": name, "status": "BREAK"} for name in names]})
        entry = {"filters": [{"filterType": "PRICE_FILTER", "tickSize": "1"}, {"filterType": "LOT_SIZE",
                 "stepSize": "1", "minQty": "1"}]}  # fmt: skip
        rows = [row | entry for row in json.loads(body)["symbols"]]
        return SimpleNamespace(body=json.dumps({"symbols": rows}).encode(), request="GET x")

    async def run() -> None:
        watch = RuleWatch(instruments(), "binance_usdm", SimpleNamespace(exchange_info=exchange_info))  # type: ignore[arg-type]
        task = asyncio.create_task(watch.watch())
        for count in (1, 2):
            watch.on_reports([report(-4023, ReportKind.CANCEL_REJECTED), report(code)])
            until = asyncio.get_running_loop().time() + (60.0 if asks else 0.2)
            while len(asked) < count and asyncio.get_running_loop().time() < until:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        assert (len(asked), watch.closed) == ((2, (BTC, ETH)) if asks else (0, ()))

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert [each.levelname for each in caplog.records] == ["ERROR"] * (2 if asks else 0)


def test_a_session_closes_a_symbol_and_lets_its_position_out(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_watch, "_EVERY_S", 0.1)
    monkeypatch.setattr(rule_watch, "_WHILE_CLOSED_S", 0.1)
    monkeypatch.setattr(rule_watch, "_BREATH_S", 0.05)

    def change(**more: Any) -> None:
        def put(server: Any) -> SymbolRules:
            listing = server.venue.listings[SYMBOLS[ETH]]
            before: SymbolRules = listing.rules
            listing.rules = replace(before, **more)
            return before

        exchange.ask(put)

    config = eager_config(feed_of(exchange, redundancy=1))
    with Running(tmp_path / "session", config, bundle) as running:
        running.wait_trading()
        change(status="SETTLING")
        try:
            closed = running.wait(lambda status: bool(status["health"]["rules"]), "a closed symbol")
            running.wait_trading(SYMBOLS[BTC])
            running.wait(
                lambda status: all(each["symbol"] != SYMBOLS[ETH] for each in status["positions"]),
                "its way out",
            )
        finally:
            change(status="TRADING")
        running.wait(lambda status: not status["health"]["rules"], "an open symbol")
        running.wait_trading(SYMBOLS[ETH])
        running.stop()
    assert closed["health"]["rules"] == [SYMBOLS[ETH]]
    assert running.ended is not None
    story = running.ended.check()  # the journal repeats to the bit
    marks = [record.seq for record, health in story.health if health.rules == (ETH,)]
    after = next(record.seq for record, health in story.health if record.seq > marks[-1] and not health.rules)
    assert not story.entries_between(marks[0], after, ETH)
    assert story.entries_between(marks[0], after, BTC)
    assert story.refused(Quality.STALE, ETH)
    said = [
        each for each in read(running.path, Wanted()) if SYMBOLS[ETH] in each.text and "trade" in each.text
    ]
    assert [
        (each.level, each.text.partition(" (")[0])
        for each in said
        if "rules" in each.text or "opened" in each.text
    ] == [
        ("ERROR", "ETHUSDT: nothing is opened any more: it does not trade: SETTLING"),
        ("WARNING", "ETHUSDT: trades by the session's rules again"),
    ]
