"""The command line of the archive: keys of the answers, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.archive import market

Cli = Callable[..., Any]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return market.write(tmp_path / "a.gz", market.lines(300))


def test_import_answers_with_its_keys(cli: Cli, source: Path, tmp_path: Path) -> None:
    result = cli("data", "import", source, "--out", tmp_path / "archive", "--json")
    assert result.code == 0
    answer = json.loads(result.stdout)
    assert [answer[key] for key in ("rows", "rejects", "gaps", "crossed_books")] == [301, 0, 0, 0]
    assert answer["sources"][0]["lines"] == 301
    again = json.loads(cli("data", "import", source, "--out", tmp_path / "archive", "--json").stdout)
    assert (again["rows"], again["skipped"]) == (0, [str(source)])


def test_import_tells_in_words_what_it_did(cli: Cli, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "archive"
    assert "Imported 301 rows from 1 files" in cli("data", "import", source, "--out", out).stdout
    assert "imported before" in cli("data", "import", source, "--out", out).stdout


def test_strict_import_fails_with_a_document(cli: Cli, tmp_path: Path) -> None:
    source = market.write(tmp_path / "a.gz", [*market.lines(30), b"nonsense"])
    result = cli("data", "import", source, "--out", tmp_path / "archive", "--strict", "--json")
    assert result.code == 1
    error = json.loads(result.stdout)["error"]
    assert error["what"] == "line of an unknown form"
    assert error["where"].endswith("a.gz, line 32")


def test_import_tells_what_it_passed_over(cli: Cli, source: Path, tmp_path: Path) -> None:
    folder = source.parent / "more"
    folder.mkdir()
    for name in ("b.zip.CHECKSUM", "c.zip.CHECKSUM"):
        (folder / name).write_text("ab")
    text = cli("data", "import", source.parent, "--out", tmp_path / "archive").stdout
    assert f"passed over   no source by its name: {folder / 'b.zip.CHECKSUM'} and 1 more" in text


def test_import_into_a_folder_of_others_is_wrong_usage(cli: Cli, source: Path, tmp_path: Path) -> None:
    """It was code 1; other commands give 2 for the same mistake."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("important")
    result = cli("data", "import", source, "--out", tmp_path / "mine", "--json")
    assert result.code == 2
    assert json.loads(result.stdout)["error"]["where"] == str(tmp_path / "mine")


def test_info_and_verify_answer_and_refuse(cli: Cli, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "archive"
    cli("data", "import", source, "--out", out)
    assert json.loads(cli("data", "info", out, "--json").stdout)["totals"]["rows"] == 301
    assert "BTCUSDT" in cli("data", "info", out).stdout
    assert json.loads(cli("data", "verify", out, "--json").stdout)["ok"] is True
    text = cli("data", "verify", out).stdout
    for words in ("problems", "missing ids in gaps", "missing ids outside gaps"):
        assert words in text
    next(out.rglob("trades.parquet")).unlink()
    result = cli("data", "verify", out, "--json")
    assert result.code == 1
    assert "missing" in json.loads(result.stdout)["error"]["value"]


@pytest.mark.parametrize("words", [("data", "info"), ("data", "verify"), ("backtest",)])
def test_archive_that_is_not_there_is_wrong_usage(words: tuple[str, ...], cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name in ("none", "file", "folder"):
        more = ("--model", tmp_path) if words == ("backtest",) else ()
        result = cli(*words, tmp_path / name, *more, "--json")
        assert result.code == 2
        assert json.loads(result.stdout)["error"]["where"] == str(tmp_path / name)


def test_download_refuses_an_empty_range(cli: Cli, tmp_path: Path) -> None:
    words = ("BTCUSDT", "--start", "2024-07-18", "--end", "2024-07-17", "--out", tmp_path, "--json")
    result = cli("data", "download", *words)
    assert result.code == 2
    assert json.loads(result.stdout)["error"]["value"] == "2024-07-18 … 2024-07-17"


def test_download_takes_its_server_from_the_environment(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUSCALP_VISION_URL", "nonsense://")
    words = ("BTCUSDT", "--start", "2024-07-18", "--end", "2024-07-18", "--out", tmp_path, "--json")
    result = cli("data", "download", *words)
    assert result.code != 0
    assert json.loads(result.stdout)["error"]["where"].startswith("nonsense:")


def test_export_answers_tells_and_refuses(cli: Cli, source: Path, tmp_path: Path) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    cli("data", "import", source, "--out", archive)
    words = ("data", "export", archive, "--format", "hftbacktest", "--out", out)
    result = cli(*words, "--json")
    assert result.code == 0
    answer = json.loads(result.stdout)
    assert answer["rows"] == {"trades": 100, "quotes": 101, "books": 100}
    assert [Path(file["path"]).name for file in answer["files"]] == ["BTCUSDT_20240718.npz"]
    events = answer["events"]
    assert events["total"] == sum(events[name] for name in ("both", "exchange_only", "local_only"))
    assert events["kinds"]["local"]["trade_buy"] + events["kinds"]["local"]["trade_sell"] == 100
    assert answer["shifted"] == {
        "local_ts": {
            "offset_ns": 0,
            "offset_from": "auto",
            "offset_rows": 0,
            "raised": {"rows": 0, "max_ns": 0},
        },
        "exch_ts": {"raised": {"rows": 0, "max_ns": 0}},
    }
    assert answer["instruments"]["BTCUSDT"]["tick_size"] == 0.1
    refused = cli(*words, "--json")
    assert (refused.code, json.loads(refused.stdout)["error"]["kind"]) == (2, "UsageError")
    text = cli(*words, "--overwrite", "--latency-offset", "1500000").stdout
    assert "BTCUSDT_20240718.npz" in text
    assert "local_ts: 1.500 ms added to all rows (given)" in text
    wrong = cli(*words, "--overwrite", "--latency-offset", "soon")
    assert (wrong.code, "nanoseconds" in wrong.stderr) == (2, True)
    assert cli("data", "export", archive, "--format", "csv", "--out", out).code == 2
