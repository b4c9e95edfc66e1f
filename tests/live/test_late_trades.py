"""The share of trades that come too late for their frames, and what is said of it."""

from __future__ import annotations

import logging

import pytest

from gpuscalp.live.late_trades import LateTrades
from gpuscalp.schema import NS_PER_S

START_S = 1_700_000_000


def minute(
    watch: LateTrades, from_s: int, trades: int, late: int, before: tuple[int, int]
) -> tuple[int, int]:
    """Let so many trades come in each second of a minute; return the counts then."""
    for second in range(60):
        before = before[0] + trades, before[1] + late
        watch.status(before, (START_S + from_s + second) * NS_PER_S)
    return before


def test_a_high_share_is_told_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    """Real sessions once left out more than half of the trades, and nothing said so."""
    caplog.set_level(logging.INFO, "gpuscalp.session")
    watch, before = LateTrades((1_000, 900)), (1_000, 900)
    before = minute(watch, 0, 100, 1, before)
    told = watch.status(before, (START_S + 59) * NS_PER_S)
    assert told == {
        "trades": 7_000, "late_trades": 960, "late_trade_share": 0.01, "late_trades_high": False,
    }  # fmt: skip
    before = minute(watch, 60, 100, 58, before)
    told = watch.status(before, (START_S + 119) * NS_PER_S)
    assert (told["late_trade_share"], told["late_trades_high"]) == (0.58, True)
    (warned,) = caplog.records
    assert (warned.levelname, "% of the last minute's trades" in warned.getMessage()) == ("WARNING", True)
    before = minute(watch, 120, 100, 3, before)
    assert watch.status(before, (START_S + 179) * NS_PER_S)["late_trades_high"], "not yet far below"
    before = minute(watch, 180, 100, 2, before)
    assert not watch.status(before, (START_S + 239) * NS_PER_S)["late_trades_high"]
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"]


def test_few_trades_say_nothing() -> None:
    watch = LateTrades((0, 0))
    told = watch.status((49, 49), START_S * NS_PER_S)
    assert (told["late_trade_share"], told["late_trades_high"]) == (None, False)
    assert watch.status((50, 50), START_S * NS_PER_S)["late_trade_share"] == 1.0
    told = watch.status((50, 50), (START_S + 70) * NS_PER_S)
    assert (told["late_trade_share"], told["late_trades_high"]) == (None, False), "nothing came since"
