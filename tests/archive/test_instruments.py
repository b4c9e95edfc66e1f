"""Instruments of the venue's exchangeInfo: which of them an archive keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpuscalp.archive import Archive
from gpuscalp.archive.ingest import import_sources
from gpuscalp.archive.instruments import parse_exchange_info, trading_symbols
from gpuscalp.errors import DataError
from gpuscalp.schema import Instrument
from tests.archive import market

VENUE = "binance_usdm"


@pytest.mark.parametrize("again", [False, True], ids=["without", "with"])
def test_stored_instrument_goes_when_finer_prices_come(tmp_path: Path, again: bool) -> None:
    """The symbol could not be read any more: its prices were no multiples of the tick size stored before."""
    info = tmp_path / "exchangeInfo.json"
    filters = [
        {"filterType": "PRICE_FILTER", "tickSize": "0.1"},
        {"filterType": "LOT_SIZE", "stepSize": "0.1", "minQty": "0.1"},
    ]
    info.write_text(json.dumps({"symbols": [{"symbol": "BTCUSDT", "filters": filters}]}))
    one = market.write(tmp_path / "a.gz", market.lines(30))
    assert import_sources([one], tmp_path / "archive", instruments=info).misfits == []
    later = market.lines(30, start_ns=market.START_NS + 600 * 10**9)
    two = market.write(tmp_path / "b.gz", [line.replace(b'"100.1"', b'"100.13"') for line in later])
    report = import_sources([two], tmp_path / "archive", instruments=info if again else None)
    assert report.misfits == ["BTCUSDT"]
    archive = Archive.open(tmp_path / "archive")
    (instrument,) = archive.instruments(VENUE)
    assert (instrument.tick_size_e8, instrument.source) == (10**6, "observed")
    assert sum(map(len, archive.tick_batches(VENUE))) == 62


def test_exchange_info_gives_the_instruments_it_fits(tmp_path: Path) -> None:
    def symbol(name: str, tick: str) -> dict[str, Any]:
        price = {"filterType": "PRICE_FILTER", "tickSize": tick}
        lot = {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.002"}
        return {"symbol": name, "filters": [price, lot, {"filterType": "MIN_NOTIONAL", "notional": "100"}]}

    info = tmp_path / "exchangeInfo.json"
    info.write_text(json.dumps({"symbols": [symbol("BTCUSDT", "0.05"), symbol("ETHUSDT", "0.3")]}))
    sources = [
        market.write(tmp_path / f"{name}.gz", market.lines(30, symbol=name))
        for name in ("BTCUSDT", "ETHUSDT")
    ]
    report = import_sources(sources, tmp_path / "archive", instruments=info)
    assert report.misfits == ["ETHUSDT"]
    bitcoin, ether = Archive.open(tmp_path / "archive").instruments(VENUE)
    assert (bitcoin.tick_size_e8, bitcoin.step_size_e8, bitcoin.min_qty_e8) == (5 * 10**6, 10**5, 2 * 10**5)
    assert (bitcoin.min_notional_e8, bitcoin.source) == (100 * 10**8, "exchange_info")
    assert (ether.tick_size_e8, ether.source) == (10**7, "observed")
    # A stored one that fits is kept where a new one does not.
    info.write_text(json.dumps({"symbols": [symbol("BTCUSDT", "0.3")]}))
    assert import_sources(sources, tmp_path / "archive", instruments=info).misfits == ["BTCUSDT"]
    assert Archive.open(tmp_path / "archive").instruments(VENUE, ("BTCUSDT",)) == (bitcoin,)
    for damaged in (b"[]", b'{"symbols":[{"symbol":"\xff"}]}', b'{"symbols":' + b"[" * 10_000):
        info.write_bytes(damaged)
        with pytest.raises(DataError, match="not an exchangeInfo"):
            import_sources(sources, tmp_path / "archive", instruments=info)
    info.write_bytes(b"\x1f\x8b cut")
    with pytest.raises(DataError, match="damaged or cut"):
        import_sources(sources, tmp_path / "archive", instruments=info)


def _listed(symbol: str, filters: list[dict[str, Any]], status: str = "TRADING") -> dict[str, Any]:
    return {"symbol": symbol, "status": status, "contractType": "", "filters": filters}


FILTERS = [
    {"filterType": "PRICE_FILTER", "tickSize": "0.1"},
    {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001"},
]
UNUSABLE = [
    _listed("NEWUSDT", [], "PENDING_TRADING"),
    _listed("ODDUSDT", [FILTERS[0] | {"tickSize": "0"}, FILTERS[1]]),
    _listed("HALFUSDT", FILTERS[:1]),
    _listed("LESSUSDT", [*FILTERS, {"filterType": "MARKET_LOT_SIZE", "maxQty": "-1"}]),
]


@pytest.mark.parametrize("entry", UNUSABLE, ids=lambda entry: entry["symbol"])
def test_a_symbol_without_usable_filters_takes_no_other_with_it(entry: dict[str, Any]) -> None:
    """One symbol that was listed before it trades, with no filter yet, kept every session from starting."""
    content = json.dumps({"symbols": [entry, _listed("BTCUSDT", FILTERS)]}).encode()
    assert list(parse_exchange_info(content, VENUE, where="x", wanted=["BTCUSDT"])) == ["BTCUSDT"]
    with pytest.raises(DataError, match=r"usable filters|must be positive|negative") as refused:
        parse_exchange_info(content, VENUE, where="x", wanted=["BTCUSDT", entry["symbol"]])
    assert refused.value.value == entry["symbol"]
    with pytest.raises(DataError):
        parse_exchange_info(json.dumps({"symbols": [entry]}).encode(), VENUE, where="x")


def test_largest_market_order_is_read_in_whole_steps_or_is_not_known() -> None:
    def listed(**most: str) -> int:
        filters = [*FILTERS, {"filterType": "MARKET_LOT_SIZE", "stepSize": "0.001", **most}]
        content = json.dumps({"symbols": [_listed("BTCUSDT", filters)]}).encode()
        return parse_exchange_info(content, VENUE, where="x")["BTCUSDT"].max_market_qty_e8

    assert listed(maxQty="120") == 120 * 10**8
    assert listed(maxQty="0.0129") == 1_200_000
    assert listed(maxQty="0.00000000") == listed() == 0
    with pytest.raises(DataError, match="usable filters"):
        listed(maxQty="many")
    older = {"symbol": "A", "venue": VENUE, "source": "x", "tick_size_e8": 1, "step_size_e8": 1}
    kept = msgspec.convert(older | {"min_qty_e8": 1, "min_notional_e8": 0}, Instrument)
    assert kept.max_market_qty_e8 == 0, "what an archive of before has"


def test_an_import_needs_usable_filters_of_its_own_symbols_only(tmp_path: Path) -> None:
    source = market.write(tmp_path / "a.gz", market.lines(30))
    info = tmp_path / "exchangeInfo.json"
    info.write_text(json.dumps({"symbols": [UNUSABLE[0], _listed("BTCUSDT", FILTERS)]}))
    assert import_sources([source], tmp_path / "one", instruments=info).misfits == []
    assert Archive.open(tmp_path / "one").instruments(VENUE)[0].source == "exchange_info"
    info.write_text(json.dumps({"symbols": [_listed("BTCUSDT", []), _listed("ETHUSDT", FILTERS)]}))
    with pytest.raises(DataError, match="usable filters"):
        import_sources([source], tmp_path / "two", instruments=info)


def test_only_what_has_the_status_of_trading_trades() -> None:
    listed = [_listed("A", FILTERS), _listed("B", FILTERS, "SETTLING"), UNUSABLE[0], {"symbol": "C"}]
    assert trading_symbols(json.dumps({"symbols": listed}).encode(), where="x") == {"A", "C"}
