"""A backtest over two recordings that lie ten days apart: the days between are no evidence, and no delay."""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from gpuscalp.archive.writer import ArchiveWriter
from gpuscalp.backtest import BacktestResult, run_backtest
from gpuscalp.backtest.compare import compare_runs
from gpuscalp.config import CostConfig
from gpuscalp.schema import NS_PER_S
from gpuscalp.synthetic.market import instruments, slices
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS, VENUE, MarketSpec
from gpuscalp.synthetic.write import _write_rows
from gpuscalp.walkforward.recorded import read_run, returns_of
from tests.backtest.model import CONFIG, write_stump_bundle

FIRST = MarketSpec(duration_s=50, symbols=DEFAULT_SYMBOLS[:2])
SECOND = msgspec.structs.replace(FIRST, start_ns=FIRST.start_ns + 10 * 86_400 * NS_PER_S, seed=FIRST.seed + 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[BacktestResult]:
    path = tmp_path_factory.mktemp("apart")
    listed = instruments(FIRST)
    trades = [0] * len(listed)
    with ArchiveWriter(path / "archive", VENUE, instruments=listed) as writer:
        for spec in (FIRST, SECOND):
            for rows in (rows for pieces in slices(spec) for rows in pieces):
                _write_rows(writer, rows, listed[rows.index], trades[rows.index])
                trades[rows.index] += len(rows.trades["seq"])
        writer.finish()
    bundle = write_stump_bundle(path / "bundle", path / "archive", venue=VENUE)
    dear = msgspec.structs.replace(CONFIG, cost=CostConfig(taker_fee_bps=3.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpuscalp.backtest.figures.draw", lambda *_, **__: "")  # takes most of the time
        return [
            run_backtest(path / "archive", bundle, config=config, out=path / name)
            for name, config in (("a", CONFIG), ("b", dear))
        ]


def test_ratio_and_warnings_are_those_of_the_recorded_time(runs: list[BacktestResult]) -> None:
    """The interval was that of ten days, and nearly all of the returns were zeros of the days between."""
    summary = json.loads((runs[0].run_dir / "result.json").read_text())
    equity = pq.read_table(runs[0].run_dir / "equity.parquet")
    at = np.asarray(equity["at"].cast("int64")).tolist()
    assert summary["trades_apart"] >= 30
    assert summary["sharpe_interval_s"] == 1
    assert 97 <= summary["sharpe_returns"] == int(summary["recorded_s"]) <= 100
    assert summary["sharpe_annual"] is None
    steps = [later - earlier for earlier, later in pairwise(at)]
    (hole,) = [step for step in steps if step > 60 * NS_PER_S]
    assert summary["recorded_s"] == pytest.approx((at[-1] - at[0] - hole) / NS_PER_S)
    told = " ".join(summary["warnings"])
    assert "Only 0.0 of the 240.0 hours from start to end were recorded (0.0%)" in told
    assert "not annualised" in told


def test_hole_is_no_delay_of_the_feed(runs: list[BacktestResult]) -> None:
    """The largest was ten days: that of the frames which the first row behind the hole closes."""
    for run in runs:
        assert run.summary["feed_delay_ms"]["max"] < 1_000


def test_runs_are_compared_over_the_recorded_time(runs: list[BacktestResult]) -> None:
    paths = [run.run_dir for run in runs]
    answer = compare_runs(paths).answer
    assert answer["blocks"]["seconds"] == 1
    assert 97 <= answer["blocks"]["count"] <= 100
    (net,) = [row for row in answer["figures"] if row["figure"] == "net P&L"]
    recorded = [read_run(path) for path in paths]
    returns = returns_of(recorded, 1)
    assert len(returns) == answer["blocks"]["count"]
    for label, run, column in zip("AB", recorded, returns.T, strict=True):
        earned = run.summary["equity_usdt"] - run.summary["start_usdt"]
        assert column.sum() * run.summary["start_usdt"] == pytest.approx(earned, abs=1e-6)
        assert net["values"][label] == pytest.approx(earned, abs=1e-6)
