"""Instruments of the venue's exchangeInfo: which of them an archive keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.archive import Archive
from gpuscalp.archive.ingest import import_sources
from gpuscalp.errors import DataError
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
    info.write_text("[]")
    with pytest.raises(DataError, match="not an exchangeInfo"):
        import_sources(sources, tmp_path / "archive", instruments=info)
