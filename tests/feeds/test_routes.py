"""Every stream on the route that carries it."""

from __future__ import annotations

import pytest

from gpuscalp.config import FeedConfig
from gpuscalp.errors import ConfigError
from gpuscalp.feeds.routes import endpoints, is_rare, kind_of, route_of, stream_names

CONFIG = FeedConfig()


@pytest.mark.parametrize(
    ("stream", "route"),
    [
        ("btcusdt@bookTicker", "public"),
        ("!bookTicker", "public"),
        ("btcusdt@depth", "public"),
        ("btcusdt@depth@100ms", "public"),
        ("btcusdt@depth20@100ms", "public"),
        ("1000shibusdt@rpiDepth@500ms", "public"),
        ("btcusdt@trade", "public"),
        ("btcusdt@aggTrade", "market"),
        ("btcusdt@markPrice@1s", "market"),
        ("!markPrice@arr@1s", "market"),
        ("btcusdt@forceOrder", "market"),
        ("!forceOrder@arr", "market"),
        ("btcusdt_260925@kline_1m", "market"),
    ],
)
def test_stream_has_the_route_of_2026(stream, route):
    assert route_of(stream, CONFIG) == route


def test_route_of_the_undocumented_trade_stream_is_configured():
    assert route_of("btcusdt@trade", FeedConfig(trade_route="market")) == "market"


@pytest.mark.parametrize("stream", ["btcusdt@nothing", "BTCUSDT@trade", "", "btcusdt", "!userData"])
def test_unknown_stream_is_an_error_not_silence(stream):
    with pytest.raises(ConfigError):
        route_of(stream, CONFIG)


def test_kind_is_told_without_its_options():
    assert kind_of("btcusdt@depth@100ms") == "depth"
    assert kind_of("!markPrice@arr@1s") == "markPrice"


def test_stream_over_all_symbols_is_named_once():
    kinds = ("!markPrice@arr@1s", "aggTrade", "!forceOrder@arr", "depth20@100ms")
    streams = stream_names(["BTCUSDT", "ETHUSDT"], kinds)
    assert streams == (
        *("btcusdt@aggTrade", "btcusdt@depth20@100ms", "ethusdt@aggTrade", "ethusdt@depth20@100ms"),
        *("!markPrice@arr@1s", "!forceOrder@arr"),
    )
    routes = {name: each.route for each in endpoints(streams, CONFIG) for name in each.streams}
    assert routes["!markPrice@arr@1s"] == routes["!forceOrder@arr"] == "market"
    assert routes["ethusdt@depth20@100ms"] == "public"
    with pytest.raises(ConfigError, match="twice"):
        endpoints(stream_names(["BTCUSDT"], ("!bookTicker", "!bookTicker")), CONFIG)


@pytest.mark.parametrize(
    ("stream", "rare"),
    [
        ("!forceOrder@arr", True),
        ("btcusdt@forceOrder", True),
        ("!contractInfo", True),
        ("!markPrice@arr@1s", False),
        ("!bookTicker", False),
        ("btcusdt@depth20@100ms", False),
    ],
)
def test_streams_that_wait_for_something_to_happen_are_known(stream, rare):
    assert is_rare(stream) is rare


def test_streams_are_split_over_routes_and_limits():
    symbols = [f"S{index}USDT" for index in range(150)]
    streams = stream_names(symbols, ("aggTrade", "bookTicker", "depth@100ms"))
    made = endpoints(streams, CONFIG)
    assert sorted(name for endpoint in made for name in endpoint.streams) == sorted(streams)
    assert all(len(endpoint.streams) <= 200 for endpoint in made)
    assert [endpoint.route for endpoint in made] == ["market", "public", "public"]
    assert {endpoint.url for endpoint in made} == {
        "wss://fstream.binance.com/market/stream",
        "wss://fstream.binance.com/public/stream",
    }


def test_redundant_connections_may_use_other_servers():
    config = FeedConfig(redundant_urls=("wss://other.example/{route}",))
    first, second = (endpoints(["btcusdt@aggTrade"], config, copy=copy)[0].url for copy in (0, 1))
    assert first == "wss://fstream.binance.com/market/stream"
    assert second == "wss://other.example/market/stream"


def test_stream_named_twice_is_an_error():
    with pytest.raises(ConfigError, match="twice"):
        endpoints(["btcusdt@aggTrade", "btcusdt@aggTrade"], CONFIG)
