"""On a real recording: thin books, wide spreads, stale quotes, a position that cannot be closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpuscalp.archive import Archive
from gpuscalp.backtest import BacktestResult, run_backtest
from gpuscalp.cli import run
from gpuscalp.config import BacktestConfig, LabelConfig, RiskConfig, SizingConfig, StrategyConfig
from tests.backtest.model import write_stump_bundle

VENUE = "binance_usdm"


@pytest.fixture(scope="module")
def archive(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "archive"
    source = recordings / "usdm" / "cryptofeed_BINANCE_FUTURES-1125a2.0.gz"
    assert run(["data", "import", str(source), "--out", str(path), "--json"]) == 0
    return path


@pytest.fixture(scope="module")
def result(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> BacktestResult:
    folder = tmp_path_factory.mktemp("runs")
    bundle = write_stump_bundle(
        folder / "bundle",
        archive,
        venue=VENUE,
        signal="queue_imbalance.last",
        threshold=0.3,
        label=LabelConfig(horizon_ms=1_000, threshold_bps=0.3),
    )
    config = BacktestConfig(
        # Costs eat these edges: Kelly would bet nothing on them, and nearly every trade is a loss.
        strategy=StrategyConfig(min_edge_bps=-100.0),
        sizing=SizingConfig(kelly_fraction="off"),
        # The recording has no mark prices to keep a collar around.
        risk=RiskConfig(
            max_daily_loss_usdt=5_000.0, max_drawdown_pct=99.0, max_losses="off", max_collar_bps="off"
        ),
    )
    return run_backtest(archive, bundle, config=config, out=folder / "run")


def column(table: Any, name: str) -> Any:
    values = table[name]
    return np.array(values.cast("int64") if "timestamp" in str(values.type) else values)


def test_money_adds_up_on_a_recording(result: BacktestResult) -> None:
    summary = result.summary
    assert summary["trades"] > 100
    assert summary["pnl_usdt"] == pytest.approx(
        summary["gross_usdt"] + summary["delay_usdt"] + summary["spread_usdt"]
        + summary["impact_usdt"] - summary["fees_usdt"] + summary["funding_usdt"]
        + summary["unclosed_usdt"], abs=1e-6,
    )  # fmt: skip
    # The books of these symbols are thin: more than one rule has something to refuse.
    assert {"WIDE_SPREAD", "STALE_QUOTE"} <= summary["refusals"].keys()


def test_no_fill_is_early_or_better_than_what_was_recorded_then(
    result: BacktestResult, archive: Path
) -> None:
    trades = pq.read_table(result.run_dir / "trades.parquet")
    symbols, sides = trades["symbol"].to_pylist(), trades["side"].to_pylist()
    filled, decided = column(trades, "entry_filled"), column(trades, "entry_decided")
    # 20 ms lateness, 1 ms computing, 20 ms on the way.
    assert (filled - decided >= 41_000_000).all()
    prices = column(trades, "entry_price")
    opened = Archive.open(archive)
    for symbol in opened.symbols(VENUE):
        tick = opened.instruments(VENUE, [symbol])[0].tick_size
        quotes, books = opened.quotes(VENUE, symbol), opened.books(VENUE, symbol)
        at = np.concatenate([quotes.exch_ns, books.exch_ns])
        bid = np.concatenate([quotes.bid_px, books.bid_px[:, 0]])
        ask = np.concatenate([quotes.ask_px, books.ask_px[:, 0]])
        for index, name in enumerate(symbols):
            if name != symbol:
                continue
            then = at == filled[index]
            assert then.any(), "filled at a moment of which nothing was recorded"
            if sides[index] == "long":
                assert prices[index] >= ask[then].min() * tick - 1e-9
            else:
                assert prices[index] <= bid[then].max() * tick + 1e-9
