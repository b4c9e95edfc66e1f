"""Finished runs read back: one run, one trade, and runs side by side."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gpuscalp.archive import Archive
from gpuscalp.backtest import run_backtest
from gpuscalp.backtest.compare import compare_runs
from gpuscalp.backtest.compare_report import figure_table
from gpuscalp.backtest.show import show_run, show_trade
from gpuscalp.bundle import read_contract
from gpuscalp.cli import run as command
from gpuscalp.cli.backtest import _shown_run, _shown_trade
from gpuscalp.cli.output import emit
from gpuscalp.config import CostConfig, LegConfig
from gpuscalp.errors import DataError, UsageError
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_S
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS, MarketSpec
from gpuscalp.synthetic.write import write
from tests.backtest.model import CONFIG, write_stump_bundle

PARTS = ("gross", "delay", "impact", "spread", "fees", "funding")
E8 = 10**8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that differ in fee and compute latency, and one of half the time."""
    path = tmp_path_factory.mktemp("saved")
    write(MarketSpec(duration_s=60, symbols=DEFAULT_SYMBOLS[:2]), path / "archive")
    bundle = write_stump_bundle(path / "bundle", path / "archive")
    dear = msgspec.structs.replace(
        CONFIG, cost=CostConfig(taker_fee_bps=3.0, compute=LegConfig(low_ms=30.0, high_ms=1.0))
    )
    half_ns = MarketSpec().start_ns + 30 * NS_PER_S
    for name, config, start_ns in (("a", CONFIG, None), ("b", dear, None), ("half", dear, half_ns)):
        run_backtest(path / "archive", bundle, config=config, out=path / name, start_ns=start_ns)
    return path


def whole(values: Any) -> np.ndarray:
    return np.rint(np.asarray(values, float) * E8).astype(np.int64)


def test_every_trade_and_every_fill_in_the_files_adds_up_to_the_unit(folder: Path) -> None:
    trades, fills = pq.read_table(folder / "a/trades.parquet"), pq.read_table(folder / "a/fills.parquet")
    sums = sum(whole(trades[f"{part}_usdt"]) * (-1 if part == "fees" else 1) for part in PARTS)
    np.testing.assert_array_equal(sums, whole(trades["pnl_usdt"]))
    of = np.asarray(fills["trade_index"])
    for part in PARTS[:-1]:  # funding belongs to no fill
        by_trade = [whole(fills[f"{part}_usdt"])[of == index].sum() for index in range(trades.num_rows)]
        np.testing.assert_array_equal(by_trade, whole(trades[f"{part}_usdt"]))
    # From prices alone: what each fill was away from its quote and from its mid.
    side = np.where(np.array(fills["side"].to_pylist()) == "buy", 1, -1)
    qty, price, touch, mid = (np.asarray(fills[name]) for name in ("qty", "price", "touch", "arrival_mid"))
    np.testing.assert_allclose(np.asarray(fills["spread_usdt"]), -side * qty * (touch - mid), atol=3e-8)
    np.testing.assert_allclose(np.asarray(fills["impact_usdt"]), -side * qty * (price - touch), atol=3e-8)


def test_trade_is_told_with_the_row_and_the_answers_that_led_to_it(folder: Path) -> None:
    told = show_trade(folder / "a", 5)
    trade = pq.read_table(folder / "a/trades.parquet").slice(5, 1)
    assert told["trade"]["trade_index"] == 5
    assert told["trade"]["entry_decided"].endswith("00000000")  # the end of a frame of 100 ms
    parts = {name: round(value * E8) for name, value in told["attribution"].items() if name != "trades"}
    assert sum(parts[f"{part}_usdt"] for part in PARTS) == parts["pnl_usdt"] == whole(trade["pnl_usdt"])[0]
    assert [row["leg"] for row in told["fills"]] == ["entry", "exit"]
    # The model's own number, written by the trader.
    side = "up" if told["trade"]["side"] == "long" else "down"
    assert told["probability"][side] == told["trade"]["confidence"]
    (alone,) = told["members"]
    assert alone == pytest.approx(told["probability"], rel=1e-12)
    # The columns, computed again in one go.
    training = read_contract(folder / "bundle").training
    archive = Archive.open(folder / "archive")
    instruments = archive.instruments("synthetic", training.symbols)
    pipeline = FeaturePipeline(
        grid=training.config.grid, features=training.config.features, instruments=instruments
    )
    decided_ns = int(trade["entry_decided"].cast("int64")[0].as_py())
    symbol = training.symbols.index(trade["symbol"][0].as_py())
    expected: dict[str, float] = {}
    for chunk in pipeline.batch(archive.tick_batches("synthetic", training.symbols)):
        for row in np.flatnonzero(chunk.frames.end_ns == decided_ns):
            column = chunk.features[symbol, :, row].astype(float).tolist()
            expected = dict(zip(pipeline.graph.names, column, strict=True))
    shown = {row["name"]: float(row["value"]) for row in told["features"]}
    assert shown.keys() == expected.keys()
    np.testing.assert_array_equal([shown[name] for name in expected], list(expected.values()))
    distance = [abs(row["distance"]) for row in told["features"]]
    known = [value for value in distance if np.isfinite(value)]
    assert known == sorted(known, reverse=True) == distance[: len(known)]
    with pytest.raises(UsageError, match="no such trade"):
        show_trade(folder / "a", 10_000)


def test_run_is_told_with_its_settings_and_the_parts_by_symbol(folder: Path) -> None:
    told = show_run(folder / "a", trades=3)
    assert told["config"]["cost"]["taker_fee_bps"] == 2.0
    assert told["result"] == json.loads((folder / "a/result.json").read_text())
    every, *symbols = told["attribution"].values()
    for name, value in every.items():
        assert round(value * E8) == sum(round(symbol[name] * E8) for symbol in symbols)
    for part in PARTS:
        sign = -1 if part == "fees" else 1
        assert every[f"{part}_usdt"] == pytest.approx(sign * told["result"][f"{part}_usdt"], abs=1e-7)
    pnl = np.abs(pq.read_table(folder / "a/trades.parquet")["pnl_usdt"].to_numpy())
    assert sorted(abs(row["pnl_usdt"]) for row in told["trades"]) == sorted(pnl)[-3:]


def test_what_is_no_run_or_a_broken_one_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the directory of a finished backtest"):
        show_run(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(folder / "a", broken)
    (broken / "trades.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        show_run(broken)


def test_run_against_itself_differs_in_nothing(folder: Path) -> None:
    answer = compare_runs([folder / "a", folder / "a"]).answer
    assert answer["config"] == []
    for figure in answer["figures"]:
        (found,) = figure["differences"]
        assert found["difference"] == 0
        assert found["low"] in (0, None)
    (match,) = answer["trades"]
    assert match["in_both"] == match["equal_pnl"] == match["same_side"] > 50
    assert match["only_first"]["count"] == match["only_other"]["count"] == 0


def test_only_what_differs_is_listed_and_the_differences_add_up(folder: Path) -> None:
    answer = compare_runs([folder / "a", folder / "b"]).answer
    assert [(row["setting"], row["A"], row["B"]) for row in answer["config"]] == [
        ("cost.compute.low_ms", 1.0, 30.0),
        ("cost.taker_fee_bps", 2.0, 3.0),
    ]
    results = [json.loads((folder / name / "result.json").read_text()) for name in "ab"]
    figures = {row["figure"]: row for row in answer["figures"]}
    for row, key, sign in (
        ("net P&L", "pnl_usdt", 1), ("trades", "trades", 1), ("closed trades, fees", "fees_usdt", -1),
        ("closed trades, slippage: delay", "delay_usdt", 1), ("mean P&L per trade", "mean_pnl_usdt", 1),
        ("share of trades with a profit", "hit_rate", 1),
    ):  # fmt: skip
        values = [sign * result[key] for result in results]
        assert list(figures[row]["values"].values()) == pytest.approx(values, abs=1e-6)
        (found,) = figures[row]["differences"]
        assert found["difference"] == pytest.approx(values[1] - values[0], abs=1e-6)
        assert found["low"] <= found["difference"] <= found["high"]
    # Every fill costs half as much again: no resample of blocks can hide that.
    assert figures["closed trades, fees"]["differences"][0]["high"] < 0
    (match,) = answer["trades"]
    gap = match["difference_usdt"]
    assert gap["pnl"] == pytest.approx(sum(gap[part] for part in PARTS), abs=1e-9)
    total = gap["pnl"] - match["only_first"]["pnl_usdt"] + match["only_other"]["pnl_usdt"]
    assert total == pytest.approx(figures["closed trades, net P&L"]["differences"][0]["difference"], abs=1e-7)
    assert match["in_both"] + match["only_first"]["count"] == results[0]["trades"]
    assert match["in_both"] + match["only_other"]["count"] == results[1]["trades"]


def test_planted_differences_are_found(folder: Path, tmp_path: Path) -> None:
    """One trade less, one that made 2.5 more, and 0.01 a second on top: exactly these come out."""
    planted = tmp_path / "planted"
    shutil.copytree(folder / "a", planted)
    trades = pq.read_table(planted / "trades.parquet")
    dropped = trades["pnl_usdt"][4].as_py()
    for name in ("gross_usdt", "pnl_usdt"):
        values = trades[name].to_numpy().copy()
        values[7] += 2.5
        trades = trades.set_column(trades.column_names.index(name), name, pa.array(values))
    pq.write_table(trades.filter(np.arange(trades.num_rows) != 4), planted / "trades.parquet")
    equity = pq.read_table(planted / "equity.parquet")
    raised = equity["equity_usdt"].to_numpy() + 0.01 * np.arange(equity.num_rows)
    at = equity.column_names.index("equity_usdt")
    pq.write_table(equity.set_column(at, "equity_usdt", pa.array(raised)), planted / "equity.parquet")

    answer = compare_runs([folder / "a", planted]).answer
    (match,) = answer["trades"]
    assert (match["only_first"]["count"], match["only_other"]["count"]) == (1, 0)
    assert match["only_first"]["largest"][0]["trade"] == 4
    assert match["only_first"]["pnl_usdt"] == dropped
    (row,) = match["largest"]
    assert (row["first_trade"], row["other_trade"], row["gross_usdt"], row["fees_usdt"]) == (7, 6, 2.5, 0)
    assert match["difference_usdt"]["pnl"] == 2.5
    figures = {row["figure"]: row["differences"][0] for row in answer["figures"]}
    gained = 0.01 * (equity.num_rows - 1)
    assert figures["net P&L"]["difference"] == pytest.approx(gained)
    # The same gain in every block but the last, which may be a little longer: hardly any doubt is left.
    assert figures["net P&L"]["low"] == pytest.approx(gained, abs=0.05)
    assert figures["net P&L"]["high"] == pytest.approx(gained, abs=0.05)
    # The one trade is in some resamples and not in others.
    assert figures["closed trades, signal (gross)"]["low"] <= 0 < 2.5
    assert figures["closed trades, signal (gross)"]["high"] > 2.5


def test_runs_over_another_time_are_compared_only_when_asked_and_where_both_were(folder: Path) -> None:
    with pytest.raises(UsageError, match="not over the same market: start_ns, data_digest differ"):
        compare_runs([folder / "b", folder / "half"])
    answer = compare_runs([folder / "b", folder / "half"], any_market=True).answer
    assert answer["same_market"] is False
    assert answer["blocks"]["count"] in (29, 30)
    assert (answer["warnings"] != []) is (answer["blocks"]["count"] < 30)
    (match,) = answer["trades"]
    # Same settings, same market: after a little while both do the same.
    assert match["in_both"] > 20
    assert match["only_first"]["count"] <= 3
    with pytest.raises(UsageError, match="two to 6"):
        compare_runs([folder / "a"])


def test_page_is_self_contained_and_follows_the_theme(folder: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "page.html"
    words = ["backtest", "compare", *(str(folder / name) for name in "aba"), "--out", str(out)]
    assert command([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["report"] == str(out)
    assert [row["label"] for row in answer["runs"]] == ["A", "B", "C"]
    page = out.read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert "prefers-color-scheme: dark" in page
    assert not re.findall(r'(?:src|href)="(?!#)', page.replace("xlink:href", "href"))
    assert not re.search(r"#0102[01]\d", page), "a stand-in colour is left"
    # Times had nanoseconds, counts had fractions, and one row had figures of different precision.
    assert re.search(r">20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}<", page)
    assert not re.search(r"\d\d:\d\d:\d\d\.\d{4,}", page)
    for heading in ("What differs in the settings", "Trades of A and B", "Trades of A and C"):
        assert f"<h2>{heading}</h2>" in page
    assert command(words) == 0
    assert "taker_fee_bps" in capsys.readouterr().out


def test_figures_of_a_row_have_the_same_decimals(folder: Path) -> None:
    _, rows = figure_table(compare_runs([folder / "a", folder / "b"]).answer)
    forms = {"trades": r"-?[\d,]+", "share of trades with a profit": r"-?\d+\.\d%"}
    for name, *cells in rows:
        numbers = [number for cell in cells for number in str(cell).split(" … ")]
        form = forms.get(str(name), r"-?[\d,]+\.\d{4}")
        assert all(number == "–" or re.fullmatch(form, number) for number in numbers), (name, numbers)


def test_fees_have_one_sign_in_the_summary_and_in_the_parts(folder: Path) -> None:
    """They stood as a positive number among parts that add up to the net P&L."""
    console, answer = Console(width=80), show_run(folder / "a")
    with console.capture() as capture:
        console.print(_shown_run(answer))
    fees = f"{answer['attribution']['all']['fees_usdt']:,.4f}"
    assert fees.startswith("-")
    assert re.search(rf"^  fees +{fees}$", capture.get(), re.MULTILINE)


def test_commands_tell_runs_and_trades_in_words_and_in_json(folder: Path, capsys: Any) -> None:
    run = str(folder / "a")
    for words in (["show", run], ["show", run, "--trade", "2"], ["show", run, "--trades", "0"]):
        assert command(["backtest", *words]) == 0
        assert "impact" in capsys.readouterr().out
        assert command(["backtest", *words, "--json"]) == 0
        json.loads(capsys.readouterr().out)
    assert command(["backtest", "compare", run, str(folder / "half"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["fix"].endswith("--any-market")


def test_a_run_and_a_trade_can_be_read_at_80_columns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # the path of a run is shown as it was given, and may be long
    console, trade = Console(width=80), show_trade(Path("a"), 2)
    with console.capture() as capture:
        console.print(_shown_run(show_run(Path("a"))))
        console.print(_shown_trade(trade))
    text = capture.get()
    # Names of columns, prices and times of fills were cut off.
    assert "…" not in text
    for fill in trade["fills"]:
        assert f" {fill['price']:.10g}" in text
    assert trade["features"][0]["name"][:20] in text


def test_run_without_trades_says_why(folder: Path, capsys: Any) -> None:
    """Only the report did; the table of decisions was empty."""
    answer = show_run(folder / "a")
    nothing = {kind: {} for kind in ("intents", "refusals", "orders", "rejections")}
    answer["result"] |= nothing | {"no_intent": {"low_confidence": 2_444, "low_agreement": 0}}
    emit({}, json=False, text=lambda: _shown_run(answer))
    lines = capsys.readouterr().out.split("decisions and orders")[1].splitlines()
    assert [line.split() for line in lines if "no intent" in line] == [
        ["no", "intent:", "low_confidence", "2,444"]
    ]


@pytest.mark.parametrize("width", [60, 80])
def test_large_sums_lose_no_digit_in_a_narrow_terminal(
    folder: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The parts of the P&L had four decimals, and from some thousands on were cut off by "…"."""
    answer = show_run(folder / "a")
    for row in (*answer["attribution"].values(), *answer["trades"]):
        row |= {name: 987_654.321 for name in row if name.endswith("_usdt")}
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    def digits(columns: int) -> Counter[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        emit({}, json=False, text=lambda: _shown_run(answer))
        text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        assert "…" not in text.partition("USDT  ")[2]
        return Counter(re.findall(r"\d", text))

    assert digits(width) == digits(1_000)


def test_word_run_may_be_left_out(folder: Path, tmp_path: Path, capsys: Any) -> None:
    tail = [str(folder / "archive"), "--model", str(folder / "bundle"), "--json", "--out"]
    assert command(["backtest", *tail, str(tmp_path / "one")]) == 0
    assert command(["backtest", "run", *tail, str(tmp_path / "two")]) == 0
    assert command(["backtest", "--model", str(folder / "bundle"), str(folder / "none"), "--json"]) != 0
    # An archive that is called like a command is named by its path.
    assert command(["backtest", "./show", "--model", str(folder / "bundle"), "--json"]) != 0
    capsys.readouterr()
    one, two = ((tmp_path / name / "trades.parquet").read_bytes() for name in ("one", "two"))
    assert one == two


def test_report_lists_the_trades_with_columns_and_members(folder: Path) -> None:
    page = " ".join((folder / "a/report.html").read_text(encoding="utf-8").split())
    assert "<h2>Trades</h2>" in page
    told = show_trade(folder / "a", 5)
    first = told["features"][0]["name"]
    assert f"{first} " in page
    assert "The bundle does not say which columns matter" in page
    assert "slippage: impact" in page


def test_trades_show_what_they_made_beside_their_side_and_no_column_of_one_value(folder: Path) -> None:
    """The P&L was the fifteenth column, off the screen, behind the date and others that never change."""
    page = " ".join((folder / "a/report.html").read_text(encoding="utf-8").split())
    section = page[page.index("<h2>Trades</h2>") :].partition("</section>")[0]
    table = section[section.index("<table>") :]
    header = re.findall(r"<th[^>]*>(.*?)</th>", table)
    place = header.index("side")
    assert header[place + 1] == "net P&amp;L"
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(<td.*?)</tr>", table)]
    assert len(rows) > 10
    free = {"trade", "decided, UTC", "side", "net P&amp;L"}
    for name, column in zip(header, zip(*rows, strict=True), strict=True):
        assert name in free or len(set(column)) > 1, name
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", row[1]) for row in rows)
    assert all(row[-1].count(";") == 1 for row in rows)
    day = str(show_run(folder / "a")["result"]["start"])[:10]
    caption = section[: section.index("<table>")]
    assert f"decided on {day}" in caption
    count = show_run(folder / "a")["result"]["trades"]
    listed = f"The 100 largest gains and losses of {count} trades" if count > 100 else f"All {count} trades"
    assert f"{listed}; USDT." in caption


def test_runs_of_few_trades_are_compared_without_intervals_and_say_why(
    folder: Path, tmp_path: Path, capsys: Any
) -> None:
    """The mean of two trades against the mean of two others had an interval of almost no width."""
    few = tmp_path / "few"
    shutil.copytree(folder / "b", few)
    # Two symbols at the same time.
    pq.write_table(pq.read_table(few / "trades.parquet").slice(0, 2), few / "trades.parquet")
    assert command(["backtest", "compare", str(folder / "a"), str(few), str(folder / "b"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    for figure in answer["figures"]:
        one, other = figure["differences"]
        assert (one["low"], one["high"]) == (None, None)
        assert (other["low"] is None) == (figure["figure"] == "largest drawdown between blocks")
    (warning,) = answer["warnings"]
    assert warning.startswith(
        "B closed 1 trade(s) held apart in the time that is compared: with fewer than 30 "
    )
    assert command(["backtest", "compare", str(folder / "a"), str(few), "--out", str(tmp_path / "page")]) == 0
    assert "! B closed 1 trade(s)" in capsys.readouterr().out
    assert "B closed 1 trade(s)" in (tmp_path / "page").read_text(encoding="utf-8")
