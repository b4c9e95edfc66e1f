"""The band of assumptions: every cell is an ordinary run, and the laws that assumptions obey.

The market has a lag planted in it: what the leader does the others do a moment later, and the model follows
the leader. So there is an edge to lose by being late.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gpuscalp.backtest import backtest_archive, run_backtest
from gpuscalp.backtest.band import Assumptions, Band, Cell, Figures, band_plan, cells_of
from gpuscalp.backtest.band_report import band_section, band_warnings, band_words
from gpuscalp.cli.backtest import _band, result_text
from gpuscalp.config import (
    BacktestConfig,
    BandConfig,
    CostConfig,
    LegConfig,
    PaperConfig,
    RiskConfig,
    SizingConfig,
    StrategyConfig,
)
from gpuscalp.errors import ConfigError
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS, MarketSpec
from gpuscalp.synthetic.write import write
from tests.backtest.model import write_stump_bundle

# Nothing here looks at fees or at the account: decisions are the same in every cell of equal latency.
CONFIG = BacktestConfig(
    strategy=StrategyConfig(min_edge_bps=-1_000.0, min_confidence=0.0, min_agreement=0.0),
    sizing=SizingConfig(kelly_fraction="off", drawdown=False, target_volatility_bps="off"),
    risk=RiskConfig(max_losses="off", max_daily_loss_usdt=1e6, max_drawdown_pct=100.0),
    paper=PaperConfig(request=LegConfig(kind="uniform", low_ms=1.0, high_ms=9.0)),
    band=BandConfig(
        latency_quantiles=(0.0, 1.0),
        fixed_factors=(1.0, 10.0),
        fees_bps=((2.0, 5.0), (0.0, 1.7)),
        compute_ms=(0.0, 50.0),
    ),
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("market") / "archive"
    write(MarketSpec(duration_s=90, symbols=DEFAULT_SYMBOLS[:3], lag_strength=0.9), path)
    return path


@pytest.fixture(scope="module")
def bundle(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stump_bundle(tmp_path_factory.mktemp("model") / "bundle", archive)


def banded(
    archive: Path, bundle: Path, out: Path, config: BacktestConfig = CONFIG, processes: int = 1
) -> Any:
    with band_plan(out, processes) as plan:
        return run_backtest(archive, bundle, config=config, out=out, band=plan)


@pytest.fixture(scope="module")
def run_dir(archive: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(banded(archive, bundle, tmp_path_factory.mktemp("runs") / "one").run_dir)


@pytest.fixture(scope="module")
def rows(run_dir: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(run_dir / "band.parquet").to_pylist()
    return found


def test_every_combination_is_there_once(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 3 * 2 * 2 * 2
    names = Assumptions.__struct_fields__
    assert len({tuple(row[name] for name in names) for row in rows}) == len(rows)
    latencies = {(row["latency_quantile"], row["request_ms"], row["reply_ms"]) for row in rows}
    # A uniform leg has quantiles, a fixed one its factors.
    assert latencies == {(0.0, 1.0, 10.0), (1.0, 9.0, 100.0)}


@pytest.mark.parametrize("index", [0, 5, 11, 23])
def test_cell_equals_an_ordinary_run_of_its_assumptions(
    index: int, rows: list[dict[str, Any]], archive: Path, bundle: Path, tmp_path: Path
) -> None:
    """To the last bit, in whatever was compared; the configuration is written down here by hand."""
    row = rows[index]
    config = BacktestConfig(
        strategy=CONFIG.strategy,
        sizing=CONFIG.sizing,
        risk=CONFIG.risk,
        cost=CostConfig(
            taker_fee_bps=row["taker_fee_bps"],
            maker_fee_bps=row["maker_fee_bps"],
            compute=LegConfig(low_ms=row["compute_ms"]),
        ),
        paper=PaperConfig(
            request=LegConfig(low_ms=row["request_ms"]),
            reply=LegConfig(low_ms=row["reply_ms"]),
            queue=row["queue"],
        ),
    )
    found = run_backtest(archive, bundle, config=config, out=tmp_path / "run").summary
    shared = [name for name in Figures.__struct_fields__ if name in found]
    assert len(shared) > 10
    assert {name: row[name] for name in shared} == {name: found[name] for name in shared}
    assert row["trades"] > 100
    assert row["sharpe_high"] - row["sharpe_low"] == pytest.approx(2 * 1.96 * found["sharpe_error"], rel=1e-3)
    assert row["fill_ratio"] == found["orders"]["filled"] / sum(found["orders"].values())  # without a bracket


@pytest.mark.thorough
def test_processes_do_not_change_the_result(
    run_dir: Path, archive: Path, bundle: Path, tmp_path: Path
) -> None:
    other = banded(archive, bundle, tmp_path / "two", processes=2).run_dir
    for name in ("config.json", "trades.parquet", "band.json", "band.parquet"):
        assert (other / name).read_bytes() == (run_dir / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two"]  # what was shared is gone


def test_run_itself_is_not_changed_by_its_band(
    run_dir: Path, archive: Path, bundle: Path, tmp_path: Path
) -> None:
    alone = run_backtest(archive, bundle, config=CONFIG, out=tmp_path / "alone")
    for name in ("config.json", "trades.parquet", "equity.parquet"):
        assert (alone.run_dir / name).read_bytes() == (run_dir / name).read_bytes()
    base = json.loads((run_dir / "band.json").read_text())["base"]
    assert {name: alone.summary[name] for name in base if name in alone.summary}.items() <= base.items()


def test_dearer_fees_never_earn_more(rows: list[dict[str, Any]]) -> None:
    by_fee: dict[float, dict[tuple[Any, ...], dict[str, Any]]] = {}
    for row in rows:
        key = (row["queue"], row["latency_quantile"], row["compute_ms"])
        by_fee.setdefault(row["taker_fee_bps"], {})[key] = row
    cheap, dear = by_fee[1.7], by_fee[5.0]
    for key, row in dear.items():
        assert row["trades"] == cheap[key]["trades"]
        assert row["gross_usdt"] == cheap[key]["gross_usdt"]
        assert row["pnl_usdt"] < cheap[key]["pnl_usdt"]
        assert row["fees_usdt"] == pytest.approx(cheap[key]["fees_usdt"] * 5.0 / 1.7, rel=1e-6)


def test_pessimistic_queue_never_fills_more(rows: list[dict[str, Any]]) -> None:
    """All orders of a backtest take, so here no model may make any difference; resting ones are compared in
    tests/execution/test_laws.py."""
    by_queue: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_queue.setdefault(row["queue"], []).append({k: v for k, v in row.items() if k != "queue"})
    assert by_queue["pessimistic"] == by_queue["proportional"] == by_queue["probabilistic"]


def gains_by_block(archive: Path, bundle: Path, out: Path, request_ms: float, compute_ms: float) -> Any:
    """Return what was made in each block of ten seconds, before fees, with everything else equal."""
    config = msgspec.structs.replace(
        CONFIG,
        cost=CostConfig(taker_fee_bps=0.0, maker_fee_bps=0.0, compute=LegConfig(low_ms=compute_ms)),
        paper=PaperConfig(request=LegConfig(low_ms=request_ms), reply=LegConfig(low_ms=1.0)),
    )
    run_backtest(archive, bundle, config=config, out=out)
    equity = pq.read_table(out / "equity.parquet")
    at = np.array(equity["at"].cast("int64")) // 10**9
    levels = np.array(equity["equity_usdt"])
    edges = np.searchsorted(at, np.arange(at[0], at[-1] + 1, 10))
    return np.diff(levels[np.minimum(edges, len(levels) - 1)])


def test_more_latency_never_earns_more_beyond_its_confidence_interval(
    archive: Path, bundle: Path, tmp_path: Path
) -> None:
    """Paired over blocks of time: the market is the same, so what differs is the latency. And far behind the
    lag there is nothing left to earn: the first and the last differ beyond their interval."""
    ladder = [(1.0, 0.0), (40.0, 0.0), (40.0, 60.0), (250.0, 60.0)]
    gains = [
        gains_by_block(archive, bundle, tmp_path / str(index), *latencies)
        for index, latencies in enumerate(ladder)
    ]
    for early, late in [*pairwise(gains), (gains[0], gains[-1])]:
        count = min(len(early), len(late))
        more = late[:count] - early[:count]
        error = np.std(more, ddof=1) / np.sqrt(count)
        # Student's t at 97.5 % with 7 degrees of freedom.
        assert more.mean() - 2.36 * error <= 0
    lost = gains[0][:count] - gains[-1][:count]
    assert lost.mean() - 2.36 * np.std(lost, ddof=1) / np.sqrt(len(lost)) > 0


def test_report_begins_with_the_worst(run_dir: Path, rows: list[dict[str, Any]]) -> None:
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    worst = min(row["pnl_usdt"] for row in rows)
    flat = " ".join(page.split())
    assert flat.index("How much of it is assumption</h2>") < flat.index("Summary</h2>")
    assert f"The worst of 24 combinations of assumptions ends at {worst:+,.4f} USDT" in flat
    assert "the models of the queue make no difference here" in flat
    assert 'aria-label="Net P&amp;L under each combination' in page
    # Colours are those of the page, in light and in dark.
    picture = page[page.index('aria-label="Net P&amp;L under') :].partition("</svg>")[0]
    assert "var(--series-" in picture
    assert "#0102" not in picture
    summary = json.loads((run_dir / "result.json").read_text())["band"]
    assert summary["worst"]["pnl_usdt"] == worst
    assert summary["best"]["pnl_usdt"] == max(row["pnl_usdt"] for row in rows)
    assert summary["hardest"]["taker_fee_bps"] == 5.0
    assert summary["hardest"]["compute_ms"] == 50.0
    assert summary["hardest"]["request_ms"] == 9.0


LEVELS = ("pessimistic", "8 ms + 9 ms", "1 / 0.2 bps", "3 ms")


def cell(queue: str, pnl: float, taker: float = 5.0, **more: Any) -> Cell:
    figures = Figures(
        trades=more.get("trades", 1),
        pnl_usdt=pnl, gross_usdt=0.0, delay_usdt=0.0, spread_usdt=0.0, impact_usdt=0.0,
        fees_usdt=0.0, funding_usdt=0.0, turnover_usdt=0.0, max_drawdown_pct=0.0, sharpe=None,
        sharpe_low=None, sharpe_high=None, fill_ratio=None, liquidations=0,
        risk_state=more.get("state", "active"),
    )  # fmt: skip
    return Cell(Assumptions(queue, 0.5, 1.0, 1.0, 2.0, taker, 1.0), figures)


def test_words_say_when_assumptions_decide() -> None:
    cells = (cell("pessimistic", -3.0), cell("pessimistic", 1.0, 1.7), cell("proportional", 5.0, 1.7))
    band = Band(cell("pessimistic", 2.0).figures, LEVELS, cells=cells, queue_matters=True)
    words = " ".join(band_words(band))
    assert "The worst of 3 combinations of assumptions ends at -3.0000 USDT" in words
    assert "move the result by 8.0000 USDT, 4.0 times the size of the result itself" in words
    assert "2 combinations end with a profit and 1 do not" in words
    assert "make no difference" not in words
    assert band_warnings(band) == []
    assert band.effects()["queue model"] == {"pessimistic": -1.0, "proportional": 5.0}
    # One row of panels for each queue model, when it matters.
    assert band_section(band).figures[0].count("pessimistic, 2 / 5 bps") == 1


def test_words_say_when_the_base_lies_outside_and_when_the_gate_closed() -> None:
    cells = (cell("pessimistic", -3.0, state="halted"), cell("pessimistic", -1.0))
    band = Band(cell("pessimistic", 2.0).figures, LEVELS, cells, queue_matters=False)
    words, (outside, closed) = " ".join(band_words(band)), band_warnings(band)
    assert "ends at +2.0000 USDT and lies outside of the grid" in outside
    assert "In 1 combinations the risk gate closed" in closed
    assert "None of the combinations end with a profit" in words
    # It was said beside a ratio of the band to a result that the band does not hold.
    assert "times the size" not in words


def test_grid_that_does_not_trade_says_so_and_ends_ties_at_the_hardest() -> None:
    """Fees below all tiers: the run earned, nothing else traded, and the kindest was called the worst."""
    cells = tuple(cell("pessimistic", 0.0, taker, trades=0) for taker in (1.7, 5.0, 3.2))
    band = Band(cell("pessimistic", 17.9).figures, LEVELS, cells, queue_matters=False)
    outside, idle = band_warnings(band)
    assert "ends at +17.9000 USDT and lies outside of the grid" in outside
    assert "whose 3 combinations all end at +0.0000" in outside
    assert idle == "No combination trades: none of the 3 has filled an order."
    assert band.worst is band.best is band.hardest is cells[1]
    section = band_section(band)
    assert (section.paragraphs, section.figures, len(section.tables)) == ([], [], 1)
    assert tuple(section.tables[0].rows[1][1:5]) == LEVELS


def test_tile_that_is_worst_and_best_is_marked_as_both() -> None:
    """Only "best" was written there. And of queues that do not matter the marked one is drawn."""
    cells = tuple(
        cell(queue, -1.0, taker) for queue in ("proportional", "pessimistic") for taker in (1.7, 5.0)
    )
    band = Band(cell("pessimistic", -1.0).figures, LEVELS, cells, queue_matters=False)
    assert ">worst, best</text>" in band_section(band).figures[0]


def test_terminal_begins_with_the_warning_and_fills_the_row_of_the_base() -> None:
    cells = (cell("pessimistic", -3.0), cell("pessimistic", -1.0, 1.7))
    band = Band(cell("pessimistic", 2.0).figures, LEVELS, cells, queue_matters=False)
    money = ("pnl", "gross", "delay", "spread", "impact", "fees", "funding", "unclosed")
    summary = {
        **{f"{name}_usdt": 0.0 for name in money}, "start": "", "end": "", "trades": 1, "trials": 1,
        "max_drawdown_pct": 0.0, "sharpe": None, "sharpe_error": None, "sharpe_interval_s": 1,
        "deflated_sharpe": None, "report": "", "warnings": ["Only 1 trade"],
        "hit_rate": 0.25, "hit_rate_low": 0.125, "hit_rate_high": 0.5, "mean_pnl_usdt": -1.5,
        "mean_pnl_low_usdt": None, "mean_pnl_high_usdt": None,
        "band": {**band.summary(), "warnings": band_warnings(band)},
    }  # fmt: skip
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(result_text(summary))
    lines = console.export_text().splitlines()
    assert lines[0].startswith("! The configuration as it is ends at +2.0000 USDT")
    # What a result is judged by comes before the result.
    names = [line.split()[0] for line in lines if line.strip()]
    assert [name for name in names if name in {"worst", "hardest", "base", "best", "time"}] == [
        "worst", "base", "best", "time"
    ]  # fmt: skip
    (base,) = (line for line in lines if line.startswith("base"))
    assert " ".join(base.split()) == "base 2.0000 1 0.0000 pessimistic 8 ms + 9 ms 3 ms 1 / 0.2 bps"
    assert any(line.endswith("25.0 (95 %: 12.5 to 50.0)") for line in lines)
    (mean,) = (line for line in lines if line.startswith("mean P&L per trade"))
    assert mean.split()[-1] == "-1.5000"


def test_terminal_has_the_hardest_corner_where_it_is_not_the_worst() -> None:
    cells = (cell("proportional", -3.0, 1.7), cell("pessimistic", -1.0), cell("pessimistic", 4.0, 1.7))
    band = Band(cell("pessimistic", 2.0).figures, LEVELS, cells, queue_matters=True)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(_band(band.summary()))
    rows = [line.split() for line in console.export_text().splitlines()]
    shown = [row[:2] + row[4:5] for row in rows if row and row[0] in {"worst", "hardest", "base", "best"}]
    assert shown == [
        ["worst", "-3.0000", "proportional"], ["hardest", "-1.0000", "pessimistic"],
        ["base", "2.0000", "pessimistic"], ["best", "4.0000", "pessimistic"],
    ]  # fmt: skip


def test_grid_that_makes_no_sense_is_refused_before_anything_is_traded(
    archive: Path, bundle: Path, tmp_path: Path
) -> None:
    config = BacktestConfig(band=BandConfig(fixed_factors=(1.0,)))
    with pytest.raises(ConfigError, match="needs its factor"):
        cells_of(config)
    with pytest.raises(ConfigError, match="needs its factor"):
        banded(archive, bundle, tmp_path / "run", config)
    for wrong in ("queue = []", "queue = ['kind']", "latency_quantiles = [1.5]", "fees_bps = [[1.0]]"):
        (tmp_path / "wrong.toml").write_text(f"[band]\n{wrong}\n")
        with pytest.raises(ConfigError):
            backtest_archive(archive, bundle, config=tmp_path / "wrong.toml", band_processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.toml"]


def test_command_trades_the_band_in_processes(archive: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(
        "[band]\nlatency_quantiles = [0.5]\nfixed_factors = [3.0]\nfees_bps = [[2.0, 5.0]]\n"
    )
    words = ["backtest", str(archive), "--model", str(bundle), "--out", str(tmp_path / "run")]
    words += ["--config", str(tmp_path / "small.toml"), "--band", "--processes", "2"]
    code = "import sys; from gpuscalp.cli import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "9 combinations of assumptions" in done.stdout
    assert "30 + 30" in done.stdout
    assert json.loads((tmp_path / "run" / "result.json").read_text())["band"]["cells"] == 9
