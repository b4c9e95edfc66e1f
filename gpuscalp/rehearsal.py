"""A market to rehearse with: sources for the simulated exchange by name, and serving one until it is told to
stop.

Owns: the choice between archive, recording and synthetic market, the accounts file, signals.
Never: a protocol (``gpuscalp.exchange``).
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from gpuscalp.archive.instruments import read_exchange_info
from gpuscalp.errors import UNREADABLE, ConfigError, UsageError
from gpuscalp.exchange.server import ExchangeServer, ServeSpec
from gpuscalp.exchange.source import ArchiveSource, RecordingSource, Source, SourceMessage, WholeBook
from gpuscalp.exchange.venue import Account
from gpuscalp.feeds.messages import MarkPrice, Ticker, Trade
from gpuscalp.schema import BOOK_LEVELS, E8, Instrument
from gpuscalp.stop_signals import hear_stops
from gpuscalp.synthetic import MarketSpec, SymbolRows, instruments, slices

_DAY_S: Final = 86_400


class SyntheticSource:
    """The synthetic market, made while it is replayed; memory is one slice of it.

    Parameters
    ----------
    spec : the market
    """

    def __init__(self, spec: MarketSpec) -> None:
        self._spec = spec
        self.instruments: tuple[Instrument, ...] = instruments(spec)

    def messages(self) -> Iterator[SourceMessage]:
        """Yield the market in arrival order; the same at every call."""
        for pieces in slices(self._spec):
            streams = [
                _messages(rows, self.instruments[rows.index], kind)
                for rows in pieces
                for kind in ("trades", "quotes", "books", "marks")
            ]
            for _, _, _, message in heapq.merge(*streams, key=lambda item: item[:3]):
                yield message


def _messages(
    rows: SymbolRows, instrument: Instrument, kind: str
) -> Iterator[tuple[int, int, int, SourceMessage]]:
    columns = {name: values.tolist() for name, values in getattr(rows, kind).items()}
    tick, step, symbol = instrument.tick_size_e8, instrument.step_size_e8, instrument.symbol
    for index, (recv, exch, seq) in enumerate(
        zip(columns["recv_ns"], columns["exch_ns"], columns["seq"], strict=True)
    ):
        values = {name: column[index] for name, column in columns.items()}
        message: SourceMessage
        if kind == "trades":
            price, qty = values["px"] * tick, values["lots"] * step
            message = Trade(symbol, exch, seq, price, qty, values["side"], False, True)
        elif kind == "quotes":
            best = (values["bid_px"] * tick, values["bid_lots"] * step)
            other = (values["ask_px"] * tick, values["ask_lots"] * step)
            message = Ticker(symbol, exch, seq + 1, *best, *other)
        elif kind == "books":
            bids, asks = (
                [
                    ((values[f"{side}_px"] + away * level) * tick, lots * step)
                    for level, lots in enumerate(values[f"{side}_lots"][:BOOK_LEVELS])
                ]
                for side, away in (("bid", -1), ("ask", 1))
            )
            message = WholeBook(symbol, exch, seq + 1, bids, asks)
        else:
            names = ("mark_price_e8", "index_price_e8", "funding_rate_e8", "next_funding_ns")
            message = MarkPrice(symbol, exch, *(values[name] for name in names))
        yield recv, seq, rows.index, message


def open_source(
    *,
    archive: Path | None = None,
    venue: str | None = None,
    symbols: Sequence[str] = (),
    recordings: Sequence[Path] = (),
    exchange_info: Path | None = None,
    seed: int = 7,
) -> Source:
    """Open the market that is named: an archive, recordings, or else the synthetic market, one day of it.

    Parameters
    ----------
    archive, venue, symbols : as ``ArchiveSource``
    recordings : raw recordings of USD-M
    exchange_info : exchangeInfo of the venue, for the instruments of recordings
    seed : of the synthetic market

    Raises
    ------
    UsageError
        both an archive and recordings are named, or what is named is not there
    ArchiveError
        the archive is damaged
    """
    if archive is not None and recordings:
        raise UsageError("name an archive or recordings, not both", where="gpuscalp exchange")
    if archive is not None:
        return ArchiveSource(archive, venue=venue, symbols=symbols)
    if recordings:
        known = read_exchange_info(exchange_info, "binance_usdm") if exchange_info is not None else None
        return RecordingSource(recordings, instruments=known)
    return SyntheticSource(MarketSpec(seed=seed, duration_s=_DAY_S))


class _AccountEntry(Struct, forbid_unknown_fields=True):
    api_key: Annotated[str, Meta(min_length=1)]
    secret: Annotated[str, Meta(min_length=1)]
    balance_usdt: Annotated[float, Meta(ge=0)] = 10_000.0
    maker_bps: float = 2.0
    taker_bps: float = 5.0


class _AccountsFile(Struct, forbid_unknown_fields=True):
    account: Annotated[list[_AccountEntry], Meta(min_length=1)]


def read_accounts(path: Path) -> tuple[Account, ...]:
    """Read accounts from TOML: ``[[account]]`` with api_key, secret (or a public key in PEM), balance_usdt,
    maker_bps, taker_bps.

    Raises
    ------
    ConfigError
        the file cannot be read, a field is unknown or out of range, or a key is given twice
    """
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=_AccountsFile).account
    except OSError as error:
        raise ConfigError(
            f"cannot read the accounts: {error.strerror}", where=str(path), fix="name a readable file"
        ) from None
    except UNREADABLE as error:
        raise ConfigError(
            f"not a file of accounts: {error}", where=str(path), fix="docs/exchange.md shows one"
        ) from None
    if len({item.api_key for item in found}) != len(found):
        raise ConfigError("an API key is given twice", where=str(path))
    return tuple(
        Account(
            item.api_key,
            item.secret,
            round(item.balance_usdt * E8),
            round(item.maker_bps * 10_000),
            round(item.taker_bps * 10_000),
        )
        for item in found
    )


def serve(
    source: Source,
    spec: ServeSpec,
    *,
    port: int = 0,
    seconds: float | None = None,
    on_ready: Callable[[ExchangeServer], None],
) -> dict[str, Any]:
    """Serve until told to stop (``hear_stops``), or for some seconds; return the last status.

    Parameters
    ----------
    port : of 127.0.0.1; 0 picks one
    on_ready : called once the port is open

    Raises
    ------
    UsageError
        the port is taken
    DataError
        the source has no messages, or is damaged
    """

    async def run() -> dict[str, Any]:
        server = ExchangeServer(source, spec)
        stopping = asyncio.Event()
        hear_stops(lambda _: stopping.set())
        waiting: list[asyncio.Future[Any]] = []
        try:
            await server.start(port=port)
            on_ready(server)
            waiting = [asyncio.ensure_future(item) for item in (stopping.wait(), server.wait_failed())]
            done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
            return server.status()
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await server.stop()

    try:
        return asyncio.run(run())
    except OSError as error:
        raise UsageError(
            f"the port cannot be opened: {error.strerror}",
            where=f"127.0.0.1:{port}",
            fix="name another with --port; 0 picks a free one",
        ) from None
