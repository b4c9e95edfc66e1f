# what is imported below needs what is looked for first
"""The adapter's clients as a session gets them: what the exchange tells them, and what becomes of it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from gpuscalp.nautilus.installed import BACKTEST
from tests.tools import no_nautilus

if reason := no_nautilus(BACKTEST):
    pytest.skip(reason, allow_module_level=True)

from nautilus_trader.adapters.binance import BinanceAccountType, BinanceDataClientConfig
from nautilus_trader.adapters.binance.common.schemas.market import (
    BinanceAggregatedTradeMsg,
    BinanceDepth,
    BinanceOrderBookMsg,
    BinanceQuoteMsg,
)
from nautilus_trader.adapters.binance.futures.data import BinanceFuturesDataClient
from nautilus_trader.adapters.binance.futures.http.market import BinanceFuturesExchangeInfoHttp
from nautilus_trader.adapters.binance.futures.schemas.market import BinanceFuturesExchangeInfo
from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import LiveClock, MessageBus
from nautilus_trader.config import InstrumentProviderConfig
from nautilus_trader.model.identifiers import InstrumentId, TraderId

from gpuscalp.config import FeedConfig, GridConfig
from gpuscalp.errors import ConfigError
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.frames import Grid
from gpuscalp.nautilus.adapter import DataClients
from gpuscalp.nautilus.link import Link
from gpuscalp.schema import TICK, Instrument, TickKind

pytestmark = [pytest.mark.nautilus, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

# What reads a message, by its handler: where it lies, and what it is as the adapter makes it.
READERS: dict[str, tuple[str, Any]] = {
    "_handle_agg_trade": ("_decoder_agg_trade_msg", BinanceAggregatedTradeMsg),
    "_handle_book_ticker": ("_decoder_quote_msg", BinanceQuoteMsg),
    "_handle_book_partial_update": ("_decoder_order_book_msg", BinanceOrderBookMsg),
}
BOOK = (
    b'{"stream":"btcusdt@depth20@100ms","data":{"e":"depthUpdate","E":1617647797599,"T":1617647797571,'
    b'"s":"BTCUSDT","U":1,"u":5,"pu":0,"b":[["1","1"]],"a":[["2","1"]]}}'
)
MARK = (
    b'{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":%d,"s":"BTCUSDT","p":"1","i":"1",'
    b'"P":"1","r":"0","T":1}}'
)
COINS = ("SANDUSDT", "CHRUSDT", "NEOUSDT", "CTKUSDT", "BATUSDT")


def instrument(symbol: str) -> Instrument:
    return Instrument(symbol, "binance_usdm", 1_000, 1, 1, 0, "exchange_info")


def client_of(*symbols: str) -> Any:
    """Return the adapter's client of the market, not connected; it is never."""
    clock = LiveClock()
    ids = frozenset(InstrumentId.from_str(f"{symbol}-PERP.BINANCE") for symbol in symbols)
    config = BinanceDataClientConfig(
        account_type=BinanceAccountType.USDT_FUTURES,
        api_key="k",
        api_secret="s",
        instrument_provider=InstrumentProviderConfig(load_ids=ids),
    )
    bus = MessageBus(TraderId("T-001"), clock)
    loop = asyncio.new_event_loop()
    try:
        return DataClients.create(
            loop=loop, name="BINANCE", config=config, msgbus=bus, cache=Cache(), clock=clock
        )
    finally:
        loop.close()


class Told:
    """A client and a link, and between them what of Nautilus does not matter here."""

    def __init__(self, *symbols: str) -> None:
        self.client = client_of(*symbols)
        self.client._handle_data = self.take
        self.heard: list[TickKind] = []
        ids = [InstrumentId.from_str(f"{symbol}-PERP.BINANCE") for symbol in symbols]
        hearer = SimpleNamespace(on_rows=lambda _, kind: self.heard.append(kind))
        self.link = Link(ids, [instrument(each) for each in symbols], hearer)  # type: ignore[arg-type]
        self.rows = self.link.rows

    def take(self, event: Any) -> None:
        event = getattr(event, "data", event)
        link, name = self.link, type(event).__name__
        take = {
            "TradeTick": link.on_trade_tick,
            "QuoteTick": link.on_quote_tick,
            "OrderBookDeltas": link.on_order_book_deltas,
            "BinanceFuturesMarkPriceUpdate": link.on_data,
        }.get(name)
        if take is not None:  # the mark price comes twice
            take(event)


def recorded(path: Path) -> Iterator[tuple[int, bytes]]:
    """Return receive times and messages; changes of the book as if they were its best levels.

    No recording has partial books. They have the form of changes, ids and times too, under another name.
    """
    for line in gzip.decompress(path.read_bytes()).splitlines():
        start = line.find(b'{"stream"')
        if start < 0:
            continue
        message = line[start:].strip()
        if b"@depth" in message[:40]:
            frame = json.loads(message)
            frame["stream"] = frame["stream"].partition("@")[0] + "@depth20@100ms"
            sides = [frame["data"][side] for side in "ba"]
            if not any(sides):
                continue
            for level in sides[0] + sides[1]:
                level[1] = level[1] if float(level[1]) else "1.5"
            message = json.dumps(frame, separators=(",", ":")).encode()
        yield int(float(line[:start].partition(b":")[0]) * 1e9), message


def check_equal(feed: np.ndarray, nautilus: np.ndarray) -> None:
    """Receive times aside: Nautilus has a clock of its own."""
    assert len(feed) == len(nautilus) > 0
    for name in set(TICK.names or ()) - {"recv_ns"}:
        np.testing.assert_array_equal(feed[name], nautilus[name], err_msg=name)


def test_ticks_and_frames_are_those_of_a_feed(recordings: Path) -> None:
    """Dated by the transaction time, 229 of 394 trades once came after their frame had closed: dropped."""
    ingest = Ingest([instrument(each) for each in COINS], FeedConfig())
    told = Told(*COINS)
    grids = Grid(GridConfig(), len(COINS)), Grid(GridConfig(), len(COINS))
    ticks: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    folded: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    path = recordings / "usdm" / "cryptofeed_BINANCE_FUTURES-1125a2.0.gz"
    for recv_ns, message in islice(recorded(path), 3_000):
        ingest.on_messages(1, recv_ns, [message])
        told.client._handle_ws_message(message)
        for side, came in enumerate((ingest.take(), told.rows.take())):
            ticks[side].append(came)
            for closed in grids[side].push(came):
                folded[side].append(closed.ticks)
    feed, nautilus = (np.concatenate(each) for each in ticks)
    check_equal(feed, nautilus)
    kinds = [int((feed["kind"] == kind).sum()) for kind in (TickKind.TRADE, TickKind.QUOTE, TickKind.BOOK)]
    assert min(kinds) > 100, kinds
    check_equal(*(np.concatenate(each) for each in folded))
    assert [grid.late_count for grid in grids] == [0, 0]


def test_mark_prices_are_those_of_a_feed(recordings: Path) -> None:
    ingest, told = Ingest([instrument("BTCUSDT")], FeedConfig()), Told("BTCUSDT")
    with gzip.open(recordings / "usdm" / "btcusdt_20230405.dat.gz") as file:
        lines = list(islice(file, 12_000))
    marks = (line[line.find(b"{") :].strip() for line in lines if b"@markPrice" in line[:60])
    for number, message in enumerate(islice(marks, 100)):
        ingest.on_messages(1, number, [message])
        told.client._handle_ws_message(message)
    check_equal(ingest.take(), told.rows.take())


def test_what_is_fetched_beside_the_stream_is_no_book() -> None:
    """The adapter dates it by our clock: one that is ahead would close frames of which ticks are to come."""
    told = Told("BTCUSDT")
    fetched = BinanceDepth(lastUpdateId=7, bids=[("1", "1")], asks=[("2", "1")])
    name = InstrumentId.from_str("BTCUSDT-PERP.BINANCE")
    told.take(fetched.parse_to_order_book_snapshot(name, ts_init=5))
    assert (len(told.rows.take()), told.rows.unsynced()) == (0, (0,))
    assert told.heard == [], "nor does it say that the stream brings anything"
    told.client._handle_ws_message(BOOK)
    assert told.rows.unsynced() == ()
    told.take(fetched.parse_to_order_book_snapshot(name, ts_init=5))
    assert told.rows.unsynced() == (), "nor does it take the stream's away"
    times = told.rows.take()["exch_ns"].tolist()
    assert times == [1_617_647_797_599_000_000] * 2, "the book and, before any other, its quote"


def test_a_message_dated_far_ahead_makes_no_row() -> None:
    """It would close the frames of all symbols, and until then none: no exit, however the market moves."""
    told = Told("BTCUSDT")

    def rows(at_ms: int) -> int:
        told.client._handle_ws_message(MARK % at_ms)
        return len(told.rows.take())

    now_ms = 1_617_647_797_599
    assert rows(now_ms) == 1
    told.heard.clear()
    assert rows(now_ms + 3_600_000) == 0
    assert (told.link.rejects.total(), told.heard) == (1, [])
    assert rows(now_ms + 1_000) == 1
    found = [rows(now_ms + 3_600_000 + 1_000 * each) for each in range(9)]
    assert found == [0] * 8 + [1], "a clock that was changed is believed"


@pytest.mark.parametrize("name", sorted(READERS))
def test_an_adapter_that_dates_in_another_way_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that no longer reads by what is replaced would go on by the transaction time, unseen."""
    decoder, wire = READERS[name]
    usual = getattr(BinanceFuturesDataClient, name)

    def other(client: Any, raw: bytes) -> None:
        setattr(client, decoder, msgspec.json.Decoder(wire))
        usual(client, raw)

    monkeypatch.setattr(BinanceFuturesDataClient, name, other)
    with pytest.raises(ConfigError, match=r"constraints\.txt"):
        client_of("BTCUSDT")


def exchange_info(recordings: Path, status: str) -> bytes:
    """Return the exchange's list with one more symbol in that state."""
    info = json.loads((recordings / "rest" / "fapi_exchangeInfo_2025.json").read_bytes())
    info["symbols"].append(info["symbols"][-1] | {"symbol": "XAUTUSDT", "status": status})
    return json.dumps(info).encode()


def test_a_symbol_that_is_not_traded_may_be_in_any_state(recordings: Path) -> None:
    """Nautilus 1.231 does not know BREAK: one symbol of hundreds kept every session from starting."""
    market = client_of("BTCUSDT", "ETHUSDT")._instrument_provider._http_market
    raw = exchange_info(recordings, "BREAK")
    with pytest.raises(msgspec.ValidationError, match="BREAK"):
        msgspec.json.decode(raw, type=BinanceFuturesExchangeInfo)

    async def answer(*_: Any, **__: Any) -> bytes:
        return raw

    market._endpoint_futures_exchange_info._method = answer
    found = asyncio.run(market.query_futures_exchange_info())
    assert [each.symbol for each in found.symbols] == ["BTCUSDT", "ETHUSDT"]
    expected = msgspec.json.decode(exchange_info(recordings, "TRADING"), type=BinanceFuturesExchangeInfo)
    kept = [each for each in expected.symbols if each.symbol in ("BTCUSDT", "ETHUSDT")]
    assert (found.rateLimits, found.serverTime) == (expected.rateLimits, expected.serverTime)
    assert found.symbols == kept


def test_an_adapter_that_reads_the_list_in_another_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    init = BinanceFuturesExchangeInfoHttp.__init__

    def other(self: Any, *args: Any) -> None:
        init(self, *args)
        self._get_resp_decoder = msgspec.json.Decoder(dict)

    monkeypatch.setattr(BinanceFuturesExchangeInfoHttp, "__init__", other)
    with pytest.raises(ConfigError, match="exchangeInfo"):
        client_of("BTCUSDT")
