"""Which URL carries which stream.

Owns: the routes that the venue has had since 2026-03-06, and the split of streams over connections.

A stream on the wrong route is acknowledged and stays silent, so a kind that this table does not know is an
error here rather than silence later. Source: Binance USD-M developer documentation, "WebSocket Market
Streams, Connect", and its change notice of 2026-03.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gpuscalp.config import FeedConfig
from gpuscalp.errors import ConfigError

Route = Literal["public", "market"]

_PUBLIC: Final = frozenset({"bookTicker", "depth", "depth5", "depth10", "depth20", "rpiDepth"})
_MARKET: Final = frozenset(
    (
        *("aggTrade", "markPrice", "kline", "continuousKline", "miniTicker", "ticker", "forceOrder"),
        *("compositeIndex", "contractInfo", "assetIndex", "tradingSession"),
    )
)
# Kinds that may rightly say nothing for hours: they speak when something happens.
_RARE: Final = frozenset(
    {"forceOrder", "contractInfo", "compositeIndex", "assetIndex", "tradingSession", "rpiDepth"}
)
_NAME: Final = re.compile(r"(?:[a-z0-9_]+@|!)([A-Za-z]+[0-9]*)(?:[@_][A-Za-z0-9_@]+)?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One connection to be made: where to, and what to subscribe there."""

    route: Route
    url: str
    streams: tuple[str, ...]


def stream_names(symbols: Iterable[str], kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the streams of symbols, such as ``btcusdt@depth@100ms``, and behind them those of
    the kinds that are streams over all symbols (``!markPrice@arr@1s``), each once."""
    single = [kind for kind in kinds if not kind.startswith("!")]
    names = [f"{symbol.lower()}@{kind}" for symbol in symbols for kind in single]
    return (*names, *(kind for kind in kinds if kind.startswith("!")))


def kind_of(stream: str) -> str:
    """Return ``depth`` of ``btcusdt@depth@100ms``, ``markPrice`` of ``!markPrice@arr``.

    Raises
    ------
    ConfigError    not the name of a stream
    """
    match = _NAME.fullmatch(stream)
    if match is None:
        raise ConfigError(
            "not the name of a stream", where="feed.streams", value=stream, fix="such as btcusdt@aggTrade"
        )
    return match.group(1)


def is_rare(stream: str) -> bool:
    """Whether the silence of a stream says nothing: it speaks only when something happens."""
    return kind_of(stream) in _RARE


def is_steady(stream: str) -> bool:
    """Whether a stream is never quiet, whatever its market does: marks, and what is over all symbols."""
    return kind_of(stream) == "markPrice" or (stream.startswith("!") and not is_rare(stream))


def route_of(stream: str, config: FeedConfig) -> Route:
    """Return the route that carries a stream.

    Raises
    ------
    ConfigError    no route is known to carry it
    """
    kind = kind_of(stream)
    if kind == "trade":
        return config.trade_route
    if kind in _PUBLIC:
        return "public"
    if kind in _MARKET:
        return "market"
    raise ConfigError("no route carries this stream", where="feed.streams", value=stream)


def endpoints(streams: Sequence[str], config: FeedConfig, *, copy: int = 0) -> tuple[Endpoint, ...]:
    """Split streams over as few connections as the limits allow, evenly, route by route.

    Parameters
    ----------
    streams : names, each once
    copy : which of the redundant sets of connections; from 1 on ``redundant_urls`` are used in turn

    Raises
    ------
    ConfigError    a stream is named twice or no route carries it
    """
    if len(set(streams)) != len(streams):
        twice = next(name for name in streams if streams.count(name) > 1)
        raise ConfigError("stream is named twice", where="feed.streams", value=twice)
    grouped: dict[Route, list[str]] = {}
    for stream in streams:
        grouped.setdefault(route_of(stream, config), []).append(stream)
    made = []
    for route, names in sorted(grouped.items()):
        count = -(-len(names) // config.max_streams)
        for index in range(count):
            made.append(
                Endpoint(route, base_url(route, config, copy=copy) + "/stream", tuple(names[index::count]))
            )
    return tuple(made)


def redundant_endpoints(symbols: Iterable[str], config: FeedConfig) -> tuple[Endpoint, ...]:
    """Return every connection that symbols are followed over: ``feed.redundancy`` to each stream.

    Raises
    ------
    ConfigError    see ``endpoints``
    """
    names = stream_names(symbols, config.streams)
    return tuple(each for copy in range(config.redundancy) for each in endpoints(names, config, copy=copy))


def base_url(route: Route, config: FeedConfig, *, copy: int = 0) -> str:
    """Return the base of a route's URLs, without a slash at its end."""
    others = config.redundant_urls
    if copy > 0 and others:
        return others[(copy - 1) % len(others)].format(route=route).rstrip("/")
    return (config.public_url if route == "public" else config.market_url).rstrip("/")
