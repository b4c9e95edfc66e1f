"""From archive and bundle to a run directory, with the real pipeline and a model made by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from gpuscalp.archive import Archive
from gpuscalp.backtest import BacktestResult, backtest_archive, run_backtest
from gpuscalp.backtest import run as runs
from gpuscalp.backtest.run import require_frames, within
from gpuscalp.backtest.summary import Scope
from gpuscalp.bundle import check_free, read_contract
from gpuscalp.contract import Interval, encode
from gpuscalp.errors import ConfigError, FeatureMismatchError, UsageError
from gpuscalp.schema import NS_PER_S, FeatureChunk, FrameBlock
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS, MarketSpec
from gpuscalp.synthetic.write import write
from tests.backtest.model import CONFIG, write_stump_bundle

SECONDS = 60


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("market") / "archive"
    # Funding falls due in the middle: the default market starts five minutes before it.
    start_ns = MarketSpec().start_ns + 270 * NS_PER_S
    write(MarketSpec(start_ns=start_ns, duration_s=SECONDS, symbols=DEFAULT_SYMBOLS[:2]), path)
    return path


@pytest.fixture(scope="module")
def bundle(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stump_bundle(tmp_path_factory.mktemp("model") / "bundle", archive)


@pytest.fixture(scope="module")
def result(archive: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> BacktestResult:
    out = tmp_path_factory.mktemp("runs") / "one"
    return run_backtest(archive, bundle, config=CONFIG, out=out)


def test_run_directory_is_complete(result: BacktestResult) -> None:
    assert sorted(path.name for path in result.run_dir.iterdir()) == [
        "columns.parquet",
        "config.json",
        "entries.parquet",
        "equity.parquet",
        "fills.parquet",
        "report.html",
        "result.json",
        "trades.parquet",
    ]
    assert json.loads((result.run_dir / "result.json").read_text()) == result.summary
    assert not list(result.run_dir.parent.glob("*.partial"))


def test_summary_has_the_keys_that_others_rely_on_and_adds_up(result: BacktestResult) -> None:
    summary = result.summary
    assert {
        "run_dir", "trades", "pnl_usdt", "fees_usdt", "funding_usdt",
        "sharpe", "deflated_sharpe", "max_drawdown_pct",
    } <= summary.keys()  # fmt: skip
    assert summary["trades"] > 20
    assert summary["fees_usdt"] > 0
    assert summary["pnl_usdt"] == pytest.approx(
        summary["gross_usdt"] + summary["delay_usdt"] + summary["spread_usdt"]
        + summary["impact_usdt"] - summary["fees_usdt"] + summary["funding_usdt"]
        + summary["unclosed_usdt"], abs=1e-7,
    )  # fmt: skip
    assert summary["equity_usdt"] == pytest.approx(10_000 + summary["pnl_usdt"], abs=1e-7)
    assert summary["in_sample_share"] == 0
    assert summary["sharpe_annual"] is None
    # The model is right about the direction of what follows the leader, by construction of the market.
    assert summary["gross_usdt"] > 0
    assert summary["edge_correlation"] > 0.1


def test_files_agree_with_the_summary(result: BacktestResult) -> None:
    trades = pq.read_table(result.run_dir / "trades.parquet")
    equity = pq.read_table(result.run_dir / "equity.parquet")
    assert trades.num_rows == result.summary["trades"]
    pnl = np.array(trades["pnl_usdt"])
    assert pnl.sum() + result.summary["unclosed_usdt"] == pytest.approx(result.summary["pnl_usdt"], abs=1e-6)
    assert equity["equity_usdt"][-1].as_py() == pytest.approx(result.summary["equity_usdt"], abs=1e-9)
    assert set(trades["symbol"].to_pylist()) <= {"BTCUSDT", "ETHUSDT"}
    at = np.array(equity["at"].cast("int64"))
    assert (np.diff(at) > 0).all()


def test_same_inputs_give_the_same_bytes(
    result: BacktestResult, archive: Path, bundle: Path, tmp_path: Path
) -> None:
    again = run_backtest(archive, bundle, config=CONFIG, out=tmp_path / "two", threads=1)
    for name in ("config.json", *(path.name for path in result.run_dir.glob("*.parquet"))):
        assert (again.run_dir / name).read_bytes() == (result.run_dir / name).read_bytes()


def test_configuration_is_frozen_with_its_hash(result: BacktestResult) -> None:
    frozen = json.loads((result.run_dir / "config.json").read_text())
    assert frozen["backtest"]["cost"]["taker_fee_bps"] == 2.0
    assert frozen["hash"] == result.summary["config_hash"]
    assert frozen["scope"]["bundle_digest"] == result.summary["bundle_digest"]


def test_report_names_the_numbers_and_claims_nothing(result: BacktestResult) -> None:
    page = result.report.read_text(encoding="utf-8")
    for heading in (
        "Summary", "Equity, drawdown and exposure", "Where the P&amp;L comes from",
        "How sure these figures are", "Predictions against outcomes", "Decisions", "Assumptions",
    ):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<svg") == 6
    assert "no figure here shows that the strategy earns money" in " ".join(page.split())
    assert "not annualised" in page
    assert "IN-SAMPLE" not in page
    assert "LOW_CONFIDENCE" in page


@pytest.mark.parametrize(
    ("venue", "trained", "share"),
    [
        ("binance_usdm", "binance_usdm", 0.5),
        ("binance_spot", "binance_usdm", 0.5),  # the same hours of the same coins: 0 until now
        ("synthetic", "synthetic", 0.5),
        ("synthetic", "binance_usdm", 0.0),
        ("binance_usdm", "synthetic", 0.0),
    ],
)
def test_hours_that_were_trained_on_are_in_sample_on_any_recorded_venue(
    venue: str, trained: str, share: float
) -> None:
    scope = Scope(
        venue=venue, symbols=("BTCUSDT",), start_ns=100, end_ns=200, data_digest="", bundle_digest="",
        trained_venue=trained, trained_from_ns=0, trained_until_ns=150,
    )  # fmt: skip
    assert scope.in_sample_share == share


def test_in_sample_backtest_says_so_loudly(archive: Path, bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "seen"
    copy.mkdir()
    for path in bundle.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(bundle)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    contract = read_contract(copy)
    start_ns, end_ns = Archive.open(archive).time_range("synthetic")
    training = msgspec.structs.replace(
        contract.training, trained_on=Interval(start_ns, (start_ns + end_ns) // 2)
    )
    (copy / "contract.json").write_bytes(
        encode(msgspec.structs.replace(contract, training=training).sealed())
    )
    found = run_backtest(archive, copy, config=CONFIG, out=tmp_path / "run")
    assert found.summary["in_sample_share"] == pytest.approx(0.5, abs=0.01)
    assert any(warning.startswith("IN-SAMPLE: 50%") for warning in found.summary["warnings"])
    page = found.report.read_text(encoding="utf-8")
    assert page.index("IN-SAMPLE") < page.index("Net P&amp;L")


def test_range_trades_inside_it_with_warm_features(archive: Path, bundle: Path, tmp_path: Path) -> None:
    start_ns, _ = Archive.open(archive).time_range("synthetic")
    first, last = start_ns + 20 * NS_PER_S, start_ns + 30 * NS_PER_S
    found = run_backtest(archive, bundle, config=CONFIG, out=tmp_path / "run", start_ns=first, end_ns=last)
    assert 99 <= found.summary["frames"] <= 100
    # Warm from the first frame: nothing is refused for its quality.
    assert "QUALITY" not in found.summary["refusals"]
    trades = pq.read_table(found.run_dir / "trades.parquet")
    decided = np.array(trades["entry_decided"].cast("int64"))
    assert ((decided > first) & (decided <= last)).all()


def test_digest_covers_the_frames_that_warm_the_features(
    archive: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal hashes mean equal results: a part of the day before, read for its last minute, was left out."""
    start_ns, _ = Archive.open(archive).time_range("synthetic")
    digested: list[int | None] = []
    read: list[int | None] = []
    digest, batches = Archive.digest, Archive.tick_batches

    def spy_digest(self: Archive, venue: str, symbols: Any, start: int | None, end: int | None) -> str:
        digested.append(start)
        return digest(self, venue, symbols, start, end)

    def spy_batches(self: Archive, *args: Any, start_ns: int | None = None, **options: Any) -> Any:
        read.append(start_ns)
        return batches(self, *args, start_ns=start_ns, **options)

    monkeypatch.setattr(Archive, "digest", spy_digest)
    monkeypatch.setattr(Archive, "tick_batches", spy_batches)
    first = start_ns + 20 * NS_PER_S
    for begin in (first, None):
        out = tmp_path / f"run{begin}"
        run_backtest(archive, bundle, config=CONFIG, out=out, start_ns=begin, end_ns=first + NS_PER_S)
    assert digested == read
    assert read[0] is not None
    assert read[0] < first
    assert read[1] is None


def test_frame_that_ends_at_the_start_belongs_to_the_time_before() -> None:
    """A demo trains on ticks before an instant and trades from it on: the frame that ends there was seen."""
    block = FrameBlock(
        np.arange(1, 6, dtype=np.int64), np.zeros((5, 1, 1), np.float32), np.zeros((5, 1), np.uint32),
        np.zeros((5, 1), np.int32), np.zeros((5, 1), np.int32), np.zeros((5, 1)),
    )  # fmt: skip
    features = np.arange(5, dtype=np.float32).reshape(1, 1, 5)
    (part,) = within(iter([FeatureChunk(block, features)]), 2, 4)
    assert part.frames.end_ns.tolist() == [3, 4]
    assert part.features.ravel().tolist() == [2, 3]
    assert list(within(iter([FeatureChunk(block, features)]), 5, 9)) == []


def test_graph_of_another_version_is_refused(archive: Path, bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    copy.mkdir()
    contract = msgspec.structs.replace(read_contract(bundle), graph_hash="0" * 64).sealed()
    (copy / "contract.json").write_bytes(encode(contract))
    with pytest.raises(FeatureMismatchError) as caught:
        run_backtest(archive, copy, config=CONFIG, out=tmp_path / "run")
    assert caught.value.exit_code == 8
    assert not (tmp_path / "run").exists()


def test_range_without_a_frame_tells_its_length() -> None:
    """It was "07:54:40 … 07:54:40"."""
    with pytest.raises(UsageError) as caught:
        require_frames(0, Path("archive"), 10**18, 10**18 + 100_000_000)
    assert str(caught.value.value).endswith(" UTC, 100 ms")


def test_wrong_requests_are_refused_before_anything_is_written(
    archive: Path, bundle: Path, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "note").write_text("mine")
    with pytest.raises(UsageError, match="taken"):
        run_backtest(archive, bundle, config=CONFIG, out=taken)
    with pytest.raises(UsageError, match="nothing in the range"):
        run_backtest(archive, bundle, config=CONFIG, out=tmp_path / "run", start_ns=1, end_ns=2)
    with pytest.raises(UsageError, match="no such venue"):
        run_backtest(archive, bundle, config=CONFIG, out=tmp_path / "run", venue="binance_usdm")
    with pytest.raises(ConfigError):
        backtest_archive(archive, bundle, overrides={"trials": 0}, out=tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_second_run_into_a_directory_is_refused_at_its_beginning(
    archive: Path, bundle: Path, tmp_path: Path
) -> None:
    """It computed to its end, and failed there as a defect: the directory was empty when both began."""
    out, refused = tmp_path / "run", []

    def begin_another(*_: object) -> None:
        if not refused:
            with pytest.raises(UsageError, match="another process works on this run directory") as caught:
                run_backtest(archive, bundle, config=CONFIG, out=out)
            refused.append(caught.value)

    out.mkdir()
    result = run_backtest(archive, bundle, config=CONFIG, out=out, on_progress=begin_another)
    assert [(error.exit_code, error.where) for error in refused] == [(2, str(out))]
    assert result.report.is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with pytest.raises(UsageError, match="the run directory is taken"):
        run_backtest(archive, bundle, config=CONFIG, out=out)


def test_folder_that_cannot_be_made_is_found_before_the_run(
    archive: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the way was noticed when the run was over, and the run was lost."""
    (tmp_path / "runs").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "summarise", lambda *_: pytest.fail("it ran"))
    for out in (tmp_path / "runs" / "run", tmp_path / "runs" / "deep" / "run", None):
        with pytest.raises((FileExistsError, NotADirectoryError)):
            run_backtest(archive, bundle, config=CONFIG, out=out)
    with pytest.raises((FileExistsError, NotADirectoryError)):
        check_free(tmp_path / "runs" / "bundle", overwrite=False)


def test_command_prints_one_document_and_needs_no_xgboost(
    archive: Path, bundle: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from gpuscalp.cli import run; code = run(sys.argv[1:]); "
        "heavy = {'xgboost', 'sklearn', 'cupy'} & set(sys.modules); "
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "backtest", str(archive), "--model", str(bundle),
         "--out", str(tmp_path / "run"), "--trials", "3", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["run_dir"] == str(tmp_path / "run")
    assert answer["trials"] == 3


def test_command_that_refuses_prints_the_error(archive: Path, tmp_path: Path) -> None:
    from gpuscalp.cli import run

    assert run(["backtest", str(archive), "--model", str(tmp_path / "none"), "--json"]) == 2
