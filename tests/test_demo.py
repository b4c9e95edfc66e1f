"""The demo: the whole way on a synthetic market and on a recording, and what it may overwrite."""

from __future__ import annotations

import io
import json

import pytest

from gpuscalp.archive import Archive
from gpuscalp.cli.demo import _summary
from gpuscalp.demo import DemoResult, demo
from gpuscalp.errors import UsageError


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def result(tmp_path_factory, told) -> DemoResult:
    """Seven minutes instead of fifteen: two seconds less, and still enough rows for three folds."""
    return demo(
        tmp_path_factory.mktemp("demo") / "out",
        seed=5,
        duration_s=420,
        device="cpu",
        on_progress=lambda done, total=None, note="": told.append((done, total, note)),
    )


def test_demo_finds_the_planted_lag_on_rows_it_was_not_trained_on(result):
    ic = result.train.overall.ic
    assert ic.low > 0.08
    judged = [item for item in result.train.importance if item.permutation is not None]
    assert max(judged, key=lambda item: item.permutation).name.startswith("leader.price")
    summary = result.backtest.summary
    assert summary["in_sample_share"] == 0
    assert summary["trades"] > 20
    assert summary["edge_correlation"] > 0.15


def test_demo_leaves_an_archive_a_bundle_a_run_and_a_report(result):
    out = result.archive.parent
    assert sorted(item.name for item in out.iterdir()) == ["archive", "demo.json", "model", "run"]
    assert Archive.open(result.archive).symbols("synthetic") == tuple(sorted(result.symbols))
    assert (result.bundle / "contract.json").is_file()
    assert result.report == result.run_dir / "report.html"
    kept = json.loads((out / "demo.json").read_bytes())
    assert kept["report"] == str(result.report)
    assert kept["seconds"] == pytest.approx(result.seconds, abs=1)
    assert set(kept["stage_seconds"]) == {"market", "training", "backtest"}
    assert sum(kept["stage_seconds"].values()) <= kept["seconds"]


def test_demo_says_in_words_that_the_market_is_synthetic(result):
    assert "The market is synthetic" in result.notes[0]
    assert "planted" in result.notes[1]
    assert "300 ms" in result.notes[1]
    assert "SYNTHETIC: a program made this market" in result.report.read_text(encoding="utf-8")
    assert result.to_dict()["notes"] == list(result.notes)


def test_summary_shows_the_notes_before_any_number(result):
    from rich.console import Console

    console = Console(width=300, highlight=False, file=io.StringIO(), record=True)
    console.print(_summary(result))
    text = console.export_text()
    for expected in ("information coefficient", "Binance's fee", str(result.report)):
        assert text.index("The market is synthetic") < text.index(expected)


def test_regular_fee_is_charged_on_the_whole_turnover(result):
    summary = result.backtest.summary
    gross = summary["pnl_usdt"] + summary["fees_usdt"]
    assert summary["fees_usdt"] == pytest.approx(summary["turnover_usdt"] * 0.2e-4)
    assert result.pnl_at_regular_fee_usdt == pytest.approx(gross - summary["fees_usdt"] * 25)


def test_progress_rises_from_none_to_all_through_every_stage(result, told):
    shares = [done for done, _, _ in told]
    assert shares == sorted(shares)
    assert (shares[0], told[0][1]) == (0.0, 1.0)
    assert shares[-1] == pytest.approx(1.0)
    for stage in ("market", "training", "backtest"):
        assert any(note.startswith(stage) for _, _, note in told)


def test_demo_on_a_recording_takes_its_venue_fees_and_says_what_it_cannot_show(cli, recordings, tmp_path):
    """BTCUSDT of 2023-04-05, seven minutes with a move of 2 %."""
    answer = cli(
        "demo", "--recording", recordings / "usdm" / "btcusdt_20230405.dat.gz", "--out", tmp_path / "out",
        "--device", "cpu", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.stdout + answer.stderr
    body = json.loads(answer.stdout)
    assert not body["synthetic"]
    assert (body["venue"], body["symbols"]) == ("binance_usdm", ["BTCUSDT"])
    assert "cannot show that a strategy earns money" in body["notes"][0]
    traded = body["backtest"]
    assert traded["fees_usdt"] == pytest.approx(traded["turnover_usdt"] * 5e-4)
    assert not any("SYNTHETIC" in warning for warning in traded["warnings"])
    assert body["seconds"] > 0
    assert (tmp_path / "out" / "run" / "report.html").is_file()


# ---- the directory ----------------------------------------------------------------------------------------


class StoppedError(Exception):
    """Ends a demo at its first word, as a user would."""


def stop(done, total=None, note=""):
    raise StoppedError


def test_directory_of_an_earlier_demo_is_replaced_even_if_that_was_killed(tmp_path):
    out = tmp_path / "new" / "out"
    with pytest.raises(StoppedError):
        demo(out, on_progress=stop)
    (out / "archive").mkdir()
    (out / "archive" / "half.parquet").write_text("half")
    (out / "run").write_text("a file")
    with pytest.raises(StoppedError):
        demo(out, on_progress=stop)
    assert [item.name for item in out.iterdir()] == ["demo.json"]
    assert json.loads((out / "demo.json").read_text()) == {"finished": False}


@pytest.mark.parametrize("names", [["letter.txt"], ["archive"], ["archive", "demo.json", "zebra"]])
def test_directory_with_something_else_is_left_alone(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="no demo made"):
        demo(tmp_path, on_progress=stop)
    assert {item.name: item.read_text() for item in tmp_path.iterdir()} == dict.fromkeys(names, "mine")


def test_file_in_the_place_of_the_directory_is_refused(cli, tmp_path):
    (tmp_path / "out").write_text("mine")
    answer = cli("demo", "--out", tmp_path / "out", "--json")
    assert answer.code == 2
    assert json.loads(answer.stdout)["error"]["where"] == "--out"


def test_missing_recording_is_a_usage_error(cli, tmp_path):
    answer = cli("demo", "--recording", tmp_path / "none.gz", "--out", tmp_path / "out", "--json")
    assert answer.code == 2, answer
    assert "none.gz" in answer.stdout
