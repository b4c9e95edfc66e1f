"""The report where there is little to say, and the words and pictures that were hard to read."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from matplotlib.axes import Axes

from gpuscalp.backtest import figures
from gpuscalp.backtest.band import Figures
from gpuscalp.backtest.band_report import _cells
from gpuscalp.backtest.calibration import PredictionCheck
from gpuscalp.backtest.metrics import total
from gpuscalp.backtest.report import _bin, sections
from gpuscalp.backtest.summary import summarise
from gpuscalp.config import LabelConfig, StrategyConfig
from gpuscalp.report import render
from gpuscalp.stats import OBSERVATIONS_MIN
from tests.backtest.test_session import CONFIG, GRID, made_market, run, scope


def test_report_without_trades_says_so_and_draws_nothing() -> None:
    """It had "nan, nan", "inf", "not known to not known", and five pictures with scales of nothing."""
    config = msgspec.structs.replace(CONFIG, strategy=StrategyConfig(min_edge_bps=1e6))
    session = run(made_market(), config=config)
    assert session.recorder.frame_count > 0
    check = PredictionCheck(LabelConfig(), GRID)
    found = {each.title: each for each in sections(summarise(config, scope(), session, check))}
    page = render("Report", list(found.values()))
    assert "<svg" not in page
    assert ">nan" not in page
    assert " nan" not in page
    assert ">inf" not in page
    assert "not known to not known" not in page
    assert found["Equity, drawdown and exposure"].paragraphs[-1].endswith("there is nothing to draw.")
    assert found["Where the P&L comes from"].paragraphs[-1].endswith("there is nothing to draw.")
    assert found["Predictions against outcomes"].paragraphs[-1].endswith("there is nothing to compare.")
    sure = dict(found["How sure these figures are"].tables[0].rows)
    assert sure["Skewness, kurtosis (normal: 0, 3)"] == "not known"


def test_ends_of_the_bins_are_words() -> None:
    assert [_bin(-float("inf"), 0.1), _bin(0.1, 0.2), _bin(0.9, float("inf"))] == [
        "below 0.1", "0.1 … 0.2", "0.9 and above",
    ]  # fmt: skip


def test_pictures_break_long_names_and_say_that_time_is_utc() -> None:
    """The names of both parts of slippage ran into each other; an axis of hours had no zone."""
    recorder = run(made_market()).recorder
    assert ">UTC</text>" in figures.equity(recorder.time_ns, recorder.equity_usdt)
    assert ">UTC</text>" in figures.exposure(recorder.time_ns, recorder.gross_usdt)
    picture = figures.components(total(recorder.ledger.closed))
    assert ">slippage: delay<" not in picture
    assert "delay</" in picture


@pytest.mark.parametrize("count", [1, OBSERVATIONS_MIN - 1])
def test_few_trades_have_no_certainty_and_every_page_says_why(count: int) -> None:
    """One winning trade made a deflated Sharpe ratio of 0.963 and an interval from 0.3095 to 0.3095."""
    session = run(made_market(400))
    del session.recorder.ledger.closed[count:]
    outcome = summarise(CONFIG, scope(), session, PredictionCheck(LabelConfig(), GRID))
    for name in (
        "sharpe_error", "sharpe_annual", "deflated_sharpe", "mean_pnl_low_usdt", "mean_pnl_high_usdt",
    ):  # fmt: skip
        assert outcome.summary[name] is None, name
    assert outcome.summary["sharpe"] < 0
    few = "1 trade" if count == 1 else f"{outcome.summary['trades_apart']} trades held apart (of 29)"
    assert any(text.startswith(f"Only {few} in 39 returns: with") for text in outcome.warnings)
    assert not any("too wide to decide" in text for text in outcome.warnings)
    found = {each.title: dict(each.tables[0].rows) for each in sections(outcome)[::4] if each.tables}
    why = "not known: fewer than 30 trades held apart, or returns"
    sure, head = found["How sure these figures are"], found["Summary"]
    assert head["Deflated Sharpe ratio, 1 trial(s)"] == sure["Deflated Sharpe ratio"] == why
    assert sure["… its 95 % interval (block bootstrap)"] == why
    assert head["Sharpe ratio per second"].endswith(f"(standard error {why})")
    figures_of_band = Figures.of(session, CONFIG)
    assert (figures_of_band.sharpe_low, figures_of_band.sharpe_high) == (None, None)
    assert _cells(figures_of_band)[4] == f"{outcome.summary['sharpe']:+.4f} ({why})"


def test_trades_that_were_held_together_are_no_certainty() -> None:
    """Forty trades at one moment had a deflated ratio, and a hit rate as sure as that of forty."""
    session = run(made_market(400))
    closed = session.recorder.ledger.closed
    del closed[40:]
    for trade in closed:
        trade.entry_decided_ns, trade.exit_decided_ns = closed[0].entry_decided_ns, closed[-1].exit_decided_ns
    outcome = summarise(CONFIG, scope(), session, PredictionCheck(LabelConfig(), GRID))
    summary = outcome.summary
    assert (summary["trades"], summary["trades_apart"]) == (40, 1)
    assert [summary[name] for name in ("sharpe_error", "deflated_sharpe", "mean_pnl_low_usdt")] == [None] * 3
    assert summary["hit_rate_high"] - summary["hit_rate_low"] > 0.7
    assert any(
        text.startswith("Only 1 trade held apart (of 40) in 39 returns: ") for text in outcome.warnings
    )
    sure = {each.title: each for each in sections(outcome)}["How sure these figures are"]
    assert dict(sure.tables[0].rows)["Trades, and of them held apart"] == "40, 1"


def test_picture_by_symbol_leaves_out_the_smallest_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It showed the first 24 by alphabet, which had made 276 of 780, and did not say so."""
    heights: list[float] = []
    draw_bars = Axes.bar

    def bar(axes: Axes, x: object, height: list[float], **rest: object) -> object:
        heights.extend(height)
        return draw_bars(axes, x, height, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Axes, "bar", bar)
    rows = [replace(total([], f"S{index:02d}"), pnl=(-1.0) ** index * index) for index in range(40)]
    assert "Net P&amp;L by symbol, the 24 largest, USDT" in figures.groups([], rows)
    assert heights == [row.pnl for row in rows[16:]]
    assert "Net P&amp;L by symbol, USDT" in figures.groups([], rows[:24])
