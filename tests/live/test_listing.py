"""A session that goes on, and what the venue lists now."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.errors import ConfigError, FeedError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.feeds.rest import RestClient
from gpuscalp.live.directory import create, read_about
from gpuscalp.live.listing import compare_listing
from gpuscalp.live.run import run_live
from gpuscalp.logs import Wanted, read
from tests.live.sessions import SYMBOLS, eager_config, feed_of, instruments

Change = Callable[[dict[str, Any]], object]


def _entry(symbol: str, *, tick: str = "0.10", step: str = "0.001", **more: Any) -> dict[str, Any]:
    price = {"filterType": "PRICE_FILTER", "tickSize": tick}
    lot = {"filterType": "LOT_SIZE", "stepSize": step, "minQty": "0.001"}
    return {"symbol": symbol, "status": "TRADING", "filters": [price, lot], **more}


def _rest(*entries: dict[str, Any]) -> Any:
    body = json.dumps({"symbols": entries}).encode()
    return SimpleNamespace(exchange_info=lambda: SimpleNamespace(body=body, request="GET x"))


@pytest.fixture
def about(bundle: Path, tmp_path: Path) -> Any:
    known = [replace(each, max_market_qty_e8=1_000 * 10**8) for each in instruments()]
    create(tmp_path / "session", eager_config(), bundle, known, now_ns=1)
    return read_about(tmp_path / "session")


BTC, ETH = (_entry(symbol) for symbol in SYMBOLS)


def _most(market_qty: str) -> dict[str, Any]:
    return BTC | {"filters": [*BTC["filters"], {"filterType": "MARKET_LOT_SIZE", "maxQty": market_qty}]}


OTHER = _entry("XRPUSDT", tick="0.5")


@pytest.mark.parametrize(
    ("entries", "value"),
    [
        ((BTC, _entry(SYMBOLS[1], tick="0.01")), "ETHUSDT: tick size 0.1, now 0.01"),
        ((BTC, _entry(SYMBOLS[1], tick="1")), "ETHUSDT: tick size 0.1, now 1"),
        ((_entry(SYMBOLS[0], step="0.01"), ETH), "BTCUSDT: step size 0.001, now 0.01"),
        (
            (_entry(SYMBOLS[0], step="1"), _entry(SYMBOLS[1], tick="0.00000001")),
            "BTCUSDT: step size 0.001, now 1; ETHUSDT: tick size 0.1, now 1e-08",
        ),
    ],
)
def test_a_changed_tick_or_step_size_is_refused(about: Any, entries: Any, value: str) -> None:
    with pytest.raises(ConfigError, match="has changed the tick or step size") as refused:
        compare_listing(_rest(OTHER, *entries), about)
    assert (refused.value.where, refused.value.value) == ("GET x", value)
    assert "begin a new session" in str(refused.value.fix)


@pytest.mark.parametrize(
    ("entries", "notes"),
    [
        ((BTC, ETH, OTHER), ()),
        ((BTC, _entry(SYMBOLS[1], status="SETTLING")), ("the venue does not trade now: ETHUSDT",)),
        ((OTHER, ETH), ("the venue does not trade now: BTCUSDT",)),
        (
            (_most("500"), _entry(SYMBOLS[1], status="SETTLING")),
            (
                "the venue does not trade now: ETHUSDT",
                "the venue refuses a market order, so an exit as well, of more than: BTCUSDT: 1000, now 500",
            ),
        ),
        ((_most("2000"), ETH), ()),
        (
            (BTC | {"status": "PENDING_TRADING", "filters": []}, ETH),
            ("the venue does not trade now: BTCUSDT",),
        ),
    ],
)
def test_a_symbol_that_does_not_trade_or_trades_less_is_told(
    about: Any, entries: Any, notes: tuple[str, ...]
) -> None:
    assert compare_listing(_rest(*entries), about) == notes


def test_a_venue_that_cannot_be_asked_keeps_no_session_from_its_positions(about: Any) -> None:
    def refuse() -> None:
        raise FeedError("the venue refuses: HTTP 503")

    (note,) = compare_listing(SimpleNamespace(exchange_info=refuse), about)  # type: ignore[arg-type]
    assert "HTTP 503" in note
    (note,) = compare_listing(_rest(), about)
    assert "names no symbol" in note


def _run(path: Path, exchange: Exchange, bundle: Path) -> dict[str, Any]:
    return run_live(
        path, eager_config(feed_of(exchange, redundancy=1)), model=bundle, device="cpu", seconds=0.2
    )


def test_each_start_asks_the_venue(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session went on for ever with the tick sizes of the day when it was begun."""
    path, honest = tmp_path / "session", RestClient.exchange_info
    _run(path, exchange, bundle)
    before = (path / "session.json").read_bytes()

    def lies(change: Change) -> None:
        def told(client: RestClient) -> Any:
            reply = honest(client)
            body = json.loads(reply.body)
            change(next(each for each in body["symbols"] if each["symbol"] == SYMBOLS[1]))
            return SimpleNamespace(body=json.dumps(body).encode(), request=reply.request)

        monkeypatch.setattr(RestClient, "exchange_info", told)

    def finer(entry: dict[str, Any]) -> None:
        next(each for each in entry["filters"] if "tickSize" in each)["tickSize"] = "0.01"

    lies(finer)
    with pytest.raises(ConfigError, match="ETHUSDT: tick size 0.1, now 0.01"):
        _run(path, exchange, bundle)
    assert (path / "session.json").read_bytes() == before
    lies(lambda entry: entry.update(status="SETTLING"))
    assert _run(path, exchange, bundle)["start"]["fresh"] is False
    assert [
        each.text for each in read(path, Wanted()) if each.level == "WARNING" and "trade now" in each.text
    ] == ["the venue does not trade now: ETHUSDT"]
