"""Signals of no bundle: where they say what a bundle says, the same trades come of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpuscalp.backtest import BacktestResult, SavedRun, backtest_archive, backtest_signals
from gpuscalp.backtest.own_signals import OwnSignals
from gpuscalp.config import GridConfig
from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.research import load_model, predict, read_features
from gpuscalp.schema import FrameBlock, Quality
from gpuscalp.synthetic import MarketSpec, write
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS
from tests.backtest.model import CONFIG, LABEL, write_stump_bundle


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("market") / "archive"
    write(MarketSpec(duration_s=45, symbols=DEFAULT_SYMBOLS[:2]), path)
    return path


@pytest.fixture(scope="module")
def by_bundle(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> BacktestResult:
    folder = tmp_path_factory.mktemp("bundle")
    write_stump_bundle(folder / "bundle", archive)
    return backtest_archive(str(archive), str(folder / "bundle"), config=CONFIG, out=str(folder / "run"))


@pytest.fixture(scope="module")
def signals(archive: Path, by_bundle: BacktestResult) -> pd.DataFrame:
    bundle = load_model(by_bundle.run_dir.parent / "bundle")
    rows = read_features(archive, bundle=bundle)
    said = predict(bundle, rows).to_pandas()
    said["confidence"] = np.where(said["edge_bps"] > 0, said["p_up"], said["p_down"])
    # Frames alone know no warm-up of features: what was said during it has to be left out.
    warm = (rows["quality"].to_numpy() & Quality.WARM_UP) == 0
    return said.loc[warm, ["symbol", "end_ns", "edge_bps", "confidence", "agreement"]]


def run(archive: Path, signals: Any, out: Path | None, **options: Any) -> BacktestResult:
    return backtest_signals(
        archive, signals, horizon_ms=LABEL.horizon_ms, **{"config": CONFIG, "out": out} | options
    )


@pytest.fixture(scope="module")
def by_signals(
    archive: Path, signals: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> BacktestResult:
    elsewhere = signals.iloc[:3].assign(end_ns=signals["end_ns"] + pd.Timedelta(days=365))
    shuffled = pd.concat([signals, elsewhere]).sample(frac=1.0, random_state=1)
    return run(archive, shuffled, tmp_path_factory.mktemp("own") / "run")


def test_predictions_of_a_bundle_trade_as_the_bundle_does(
    by_bundle: BacktestResult, by_signals: BacktestResult
) -> None:
    theirs, ours = SavedRun.open(by_bundle.run_dir), SavedRun.open(str(by_signals.run_dir))
    assert ours.trades.num_rows > 20
    assert ours.trades.equals(theirs.trades)
    assert ours.fills.equals(theirs.fills)
    assert ours.samples.equals(theirs.samples)
    assert ours.entries is None
    differing = {key for key, value in theirs.result.items() if ours.result.get(key) != value}
    # What is said before the features are warm is a prediction too, and skipped for another reason.
    told_apart = {"run_dir", "report", "bundle_digest", "config_hash", "seconds", "warnings"}
    assert differing <= told_apart | {"refusals", "intents", "no_intent", "predictions", "edge_correlation"}


def test_run_says_what_it_traded(signals: pd.DataFrame, by_signals: BacktestResult) -> None:
    summary = by_signals.summary
    told, count = summary["signals"], len(signals)
    assert (told["given"], told["in_range"], told["met_a_frame"]) == (count + 3, count + 3, count)
    assert summary["in_sample_share"] == 0
    assert [each for each in summary["warnings"] if each.startswith("SIGNALS OF YOUR OWN")]
    frozen = json.loads((by_signals.run_dir / "config.json").read_text())
    assert frozen["signals"]["horizon_ms"] == LABEL.horizon_ms
    page = by_signals.report.read_text()
    assert f"3 of {count + 3} signals were not acted upon" in page
    assert summary["bundle_digest"] in page
    assert "Expected edge against outcome" in page
    assert "Probability of DOWN or UP" not in page
    assert "Trained on" not in page


@pytest.mark.parametrize("unit", ["ms", "us", "int64"])
def test_times_may_have_another_unit(unit: str, archive: Path, signals: pd.DataFrame) -> None:
    """Milliseconds that were taken for nanoseconds lay in 1970, on no frame."""
    ends = signals["end_ns"]
    given = signals.assign(end_ns=ends.astype("int64") if unit == "int64" else ends.dt.as_unit(unit))
    found = OwnSignals.of(given, ("BTCUSDT", "ETHUSDT"), GridConfig())
    assert found.end_ns.tolist() == sorted(end.value for end in ends)


def test_frame_without_a_signal_says_nothing(signals: pd.DataFrame) -> None:
    one = signals[signals["edge_bps"] < 0].iloc[[0]]
    given = {name: one[name].to_numpy() for name in ("symbol", "edge_bps", "confidence")}
    at_ns = one["end_ns"].iloc[0].value
    found = OwnSignals.of(given | {"end_ns": np.array([at_ns])}, ("BTCUSDT", "ETHUSDT"), GridConfig())
    assert found.symbols == tuple(one["symbol"])
    end_ns = at_ns + 100_000_000 * np.arange(-2, 3)
    nothing = np.zeros((5, 1))
    prediction, met = found.over(FrameBlock(end_ns, *[nothing] * 5))
    assert met == 1
    assert np.flatnonzero(np.isfinite(prediction.edge_bps[:, 0])).tolist() == [2]
    (confidence,) = given["confidence"]
    assert prediction.probability[2, 0].tolist() == [confidence, 1.0 - confidence, 0.0]
    assert prediction.agreement[2, 0] == 1.0
    nowhere, met = found.over(FrameBlock(end_ns[3:], *[nothing[3:]] * 5))
    assert (met, np.isnan(nowhere.edge_bps).all()) == (0, True)


def test_what_is_asked_to_be_left_out_is_no_loss(signals: pd.DataFrame) -> None:
    own = OwnSignals.of(signals, ("BTCUSDT", "ETHUSDT"), GridConfig())
    first_ns, last_ns = int(own.end_ns[0]), int(own.end_ns[-1])
    assert own.count_within(None, None) == len(signals)
    assert own.count_within(first_ns, None) == (own.end_ns > first_ns).sum()
    assert own.count_within(None, last_ns) == len(signals)
    assert own.count_within(first_ns, last_ns - 1) == ((own.end_ns > first_ns) & (own.end_ns < last_ns)).sum()


def test_overrides_of_a_whole_configuration_are_refused(archive: Path, signals: pd.DataFrame) -> None:
    """They were lost: the run had other costs than it was asked to have."""
    with pytest.raises(ConfigError, match="takes no overrides.*cost.taker_fee_bps"):
        run(archive, signals, None, overrides={"cost.taker_fee_bps": 9.0})


@pytest.mark.parametrize("horizon_ms", [-1_000, 0, 250])
def test_horizon_of_no_frames_is_refused(
    horizon_ms: int, archive: Path, signals: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="whole number of frames"):
        backtest_signals(archive, signals, horizon_ms=horizon_ms, config=CONFIG, out=tmp_path / "run")


def test_digest_is_that_of_what_is_said_in_any_order(signals: pd.DataFrame) -> None:
    def digest(rows: pd.DataFrame) -> str:
        return OwnSignals.of(rows, ("BTCUSDT", "ETHUSDT"), GridConfig()).digest()

    assert digest(signals.iloc[::-1]) == digest(signals)
    assert digest(signals.assign(edge_bps=-signals["edge_bps"])) != digest(signals)


# What seconds hold, and nanoseconds do not.
YEARS = pd.Timedelta(days=400 * 250).as_unit("s") * 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda rows: rows.drop(columns="edge_bps"), "column of the signals is missing"),
        (lambda rows: rows.assign(symbol="NOPEUSDT"), "no such symbol"),
        (
            lambda rows: rows.assign(end_ns=rows["end_ns"] + pd.Timedelta(1)),
            "not dated at the end of a frame",
        ),
        (lambda rows: pd.concat([rows, rows.iloc[[3]]]), "two signals at one frame"),
        (lambda rows: rows.assign(confidence=60.0), "must lie in 0 … 1; where: confidence; value: 60.0"),
        (lambda rows: rows.iloc[:0], "there are no signals"),
        (lambda rows: rows.assign(end_ns=rows["end_ns"].where(rows.index > 70)), "no time.*a missing value"),
        (lambda rows: rows.assign(end_ns=rows["end_ns"].astype(str)), "no time.*string.; fix: timestamps"),
        (lambda rows: rows.assign(end_ns=rows["end_ns"].dt.as_unit("s") + YEARS), "no time.*out of bounds"),
        (lambda rows: rows.assign(end_ns=np.uint64(2**64 - 10**9)), "no time.*not in range"),
        (lambda rows: rows.assign(symbol=[["BTCUSDT"]] * len(rows)), "no such symbol"),
        (lambda rows: rows.assign(symbol=None), "no such symbol; value: 'None'"),
        (lambda rows: rows.assign(edge_bps=np.inf), "not a finite number; where: edge_bps; value: inf"),
        (
            lambda rows: rows.assign(edge_bps=rows["edge_bps"].shift()),
            "not a finite number.*nan; fix: leave out",
        ),
        (lambda rows: rows.assign(confidence=np.nan), "not a finite number; where: confidence"),
        (lambda rows: rows.assign(edge_bps="1 bp"), "must hold numbers; where: edge_bps; value: .*string"),
    ],
)
def test_signals_that_cannot_be_meant_are_refused(
    change: Any, what: str, archive: Path, signals: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=what):
        run(archive, change(signals), tmp_path / "run")
    assert not (tmp_path / "run").exists()
