"""The sources by name, the accounts file, the command."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from itertools import islice
from pathlib import Path

import pytest

from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.exchange.source import ArchiveSource, RecordingSource, WholeBook
from gpuscalp.feeds.messages import MarkPrice, Ticker, Trade
from gpuscalp.rehearsal import SyntheticSource, open_source, read_accounts
from gpuscalp.synthetic import MarketSpec, write
from tests.conftest import ROOT


def test_an_archive_of_the_synthetic_market_gives_the_same_messages(tmp_path: Path) -> None:
    spec = MarketSpec(seed=3, duration_s=6)
    write(spec, tmp_path / "archive")
    direct = list(SyntheticSource(spec).messages())
    archived = list(ArchiveSource(tmp_path / "archive").messages())

    def of(messages: list[object], kind: type, symbol: str) -> list[object]:
        return [item for item in messages if isinstance(item, kind) and item.symbol == symbol]  # type: ignore[attr-defined]

    assert len(direct) == len(archived) > 500
    for symbol in ("BTCUSDT", "SOLUSDT"):
        for kind in (Ticker, WholeBook, MarkPrice):
            assert of(direct, kind, symbol) == of(archived, kind, symbol)
        one, other = of(direct, Trade, symbol), of(archived, Trade, symbol)
        names = ("exch_ns", "price_e8", "qty_e8", "side")
        assert [[getattr(item, name) for name in names] for item in one] == [
            [getattr(item, name) for name in names] for item in other
        ]


def test_messages_come_in_arrival_order_and_again_the_same() -> None:
    source = SyntheticSource(MarketSpec(seed=3, duration_s=5, slice_s=2))
    once, twice = list(source.messages()), list(source.messages())
    assert once == twice
    per_symbol = [item.exch_ns for item in once if item.symbol == "BTCUSDT" and isinstance(item, Trade)]
    assert per_symbol == sorted(per_symbol)


def test_a_recording_of_several_symbols_is_merged(recordings: Path) -> None:
    folder = recordings / "usdm"
    source = RecordingSource([folder / "btcusdt_20240718.gz", folder / "ethusdt_20240718.gz"])
    assert [item.symbol for item in source.instruments] == ["BTCUSDT", "ETHUSDT"]
    assert {item.symbol for item in islice(source.messages(), 2_000)} == {"BTCUSDT", "ETHUSDT"}


def test_what_is_no_recording_is_refused(recordings: Path) -> None:
    with pytest.raises(UsageError, match="not a raw recording"):
        RecordingSource([recordings / "usdm" / "trxusdt_trades_20250304.csv.gz"])
    with pytest.raises(UsageError, match="not both"):
        open_source(archive=Path("a"), recordings=[Path("b")])


def test_accounts_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    path.write_text('[[account]]\napi_key = "a"\nsecret = "s"\nbalance_usdt = 2.5\ntaker_bps = 4\n')
    account = read_accounts(path)[0]
    assert (account.balance_e8, account.maker_e8, account.taker_e8) == (250_000_000, 20_000, 40_000)
    path.write_text('[[account]]\napi_key = "a"\nsecret = "s"\n' * 2)
    with pytest.raises(ConfigError, match="twice"):
        read_accounts(path)
    path.write_text('[[account]]\napi_key = "a"\n')
    with pytest.raises(ConfigError, match="secret"):
        read_accounts(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_accounts(tmp_path / "none.toml")


def test_the_command_tells_where_it_is_and_stops_on_sigterm(recordings: Path) -> None:
    recording = recordings / "usdm" / "btcusdt_20240718.gz"
    words = ["-m", "gpuscalp", "exchange", "--recording", str(recording), "--json"]
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            assert said["symbols"] == ["BTCUSDT"]
            with urllib.request.urlopen(
                f"{said['urls']['rest']}/fapi/v1/depth?symbol=BTCUSDT&limit=5"
            ) as reply:
                assert len(json.load(reply)["bids"]) == 5
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert process.stdout.read() == ""


def test_a_taken_port_is_wrong_usage(cli, recordings: Path) -> None:  # type: ignore[no-untyped-def]
    recording = recordings / "usdm" / "btcusdt_20240718.gz"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = cli("exchange", "--recording", recording, "--port", port, "--duration", 1, "--json")
    assert answer.code == 2
    assert f"127.0.0.1:{port}" in answer.stdout


@pytest.mark.parametrize("words", [("--speed", "fast"), ("--speed", "0"), ("--fault", "nonsense")])
def test_wrong_words_are_wrong_usage(cli, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    assert cli("exchange", *words, "--json").code == 2
