"""The report where there is little to say, and the words and pictures that were hard to read."""

from __future__ import annotations

import msgspec

from gpuscalp.backtest import figures
from gpuscalp.backtest.calibration import PredictionCheck
from gpuscalp.backtest.metrics import total
from gpuscalp.backtest.report import _bin, sections
from gpuscalp.backtest.summary import summarise
from gpuscalp.config import LabelConfig, StrategyConfig
from gpuscalp.report import render
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
