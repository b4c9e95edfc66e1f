"""What is said where NautilusTrader is missing or too old, and the names of both sides."""

from __future__ import annotations

import json
from importlib import metadata

import pytest

from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.nautilus.installed import BACKTEST, LIVE, require
from gpuscalp.nautilus.names import instrument_name, order_number, symbol_and_venue


def _installed(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    def found(name: str) -> str:
        assert name == "nautilus_trader"
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr("gpuscalp.nautilus.installed.metadata.version", found)


@pytest.mark.parametrize(
    "words",
    [
        ("backtest", "archive", "--model", "bundle"),
        ("export", "archive", "catalog"),
        ("import", "catalog", "archive"),
    ],
)
def test_a_missing_library_is_an_error_of_configuration_with_the_command_that_helps(
    monkeypatch, cli, words, tmp_path
) -> None:
    _installed(monkeypatch, None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    result = cli("nautilus", *words, "--json")
    error = json.loads(result.stdout)["error"]
    assert result.code == error["code"] == 4
    assert error["what"] == "NautilusTrader is not installed"
    assert "EXTRAS=nautilus" in error["fix"]


@pytest.mark.parametrize(
    ("version", "least", "enough"),
    [
        ("1.221.0", BACKTEST, True),
        ("1.220.0", BACKTEST, False),
        ("1.221.0", LIVE, False),
        ("1.231.0", LIVE, True),
        ("1.9.0", BACKTEST, False),  # not a comparison of texts
        ("2.0.0", LIVE, True),
        ("local", BACKTEST, False),
    ],
)
def test_a_version_is_enough_or_it_is_named(monkeypatch, version, least, enough) -> None:
    _installed(monkeypatch, version)
    if enough:
        assert require(least) == version
        return
    with pytest.raises(ConfigError) as caught:
        require(least)
    assert caught.value.value == version
    assert least in caught.value.what


def test_instruments_are_called_as_the_binance_adapter_calls_them() -> None:
    assert instrument_name("binance_usdm", "1000PEPEUSDT") == "1000PEPEUSDT-PERP.BINANCE"
    assert instrument_name("synthetic", "BTCUSDT") == "BTCUSDT-PERP.SYNTHETIC"
    for venue in ("binance_usdm", "synthetic"):
        assert symbol_and_venue(instrument_name(venue, "BTCUSDT")) == ("BTCUSDT", venue)
    with pytest.raises(UsageError, match="only perpetuals"):
        instrument_name("binance_spot", "BTCUSDT")
    for other in ("BTCUSDT.BINANCE", "BTCUSDT-PERP", "BTCUSDT-PERP.", "-PERP.BINANCE"):
        with pytest.raises(UsageError, match="perpetual"):
            symbol_and_venue(other)


def test_an_order_is_ours_by_the_whole_of_its_name() -> None:
    assert order_number("a1b2", "gs-a1b2-17") == 17
    for other in ("gs-a1b2-", "gs-a1b2-1x", "gs-a1b3-17", "x-a1b2-17", "17", "gs-a1b2-١"):
        assert order_number("a1b2", other) is None
