"""CSV files of trades and quotes: Binance Vision's, and others by the names of their columns.

Owns: which column means what. A time is s, ms, µs or ns by its digits. Where a file does not say when a row
was received, it counts as received when the exchange sent it; where it does not say that either, as trades do
not, when it was made and a delay later. Never: guesses a missing column.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from typing import Final

from gpuscalp.archive.arrival import Record
from gpuscalp.errors import DecodeError, UsageError
from gpuscalp.feeds.decimals import DecimalCache
from gpuscalp.feeds.messages import Ticker, Trade
from gpuscalp.feeds.times import to_ns

# Column names, lower case without separators, by meaning; the first that a file has is used. The event time
# goes before the transaction time, as for messages.
_TRADE_COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "id": ("aggtradeid", "tradeid", "id"),
    "price": ("price",),
    "qty": ("quantity", "qty", "size", "amount"),
    "time": ("eventtime", "transacttime", "transactiontime", "timestamp", "time"),
    "maker": ("isbuyermaker", "isbuyermarketmaker", "buyermaker"),
    "side": ("side", "takerside"),
    "recv": ("timestampofreceiveus", "timestampofreceive", "localtimestamp", "receivetime", "recvns"),
    "symbol": ("symbol",),
    "kind": ("xunknownparameter",),
}
_TICKER_COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "id": ("updateid",),
    "bid": ("bestbidprice", "bidprice"),
    "bid_qty": ("bestbidqty", "bidqty", "bidamount"),
    "ask": ("bestaskprice", "askprice"),
    "ask_qty": ("bestaskqty", "askqty", "askamount"),
    "time": ("eventtime", "transactiontime", "timestamp"),
    "recv": ("timestampofreceive", "localtimestamp", "receivetime"),
    "symbol": ("symbol",),
}

# Files of Binance Vision from before headers were added, by type and number of columns.
_VISION_AGG: Final = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
_VISION_HEADERS: Final = {
    ("aggTrades", 7): _VISION_AGG,
    ("aggTrades", 8): f"{_VISION_AGG},is_best_match",
    ("trades", 6): "id,price,qty,quote_qty,time,is_buyer_maker",
    ("trades", 7): "id,price,qty,quote_qty,time,is_buyer_maker,is_best_match",
    ("bookTicker", 7): "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,"
    "transaction_time,event_time",
}
_VISION_NAME: Final = re.compile(r"(\w+)-(aggTrades|trades|bookTicker)-\d{4}-\d{2}")
# Letters and digits, and the delivery date of a quarterly contract or what COIN-M calls its perpetual ones.
_SYMBOL: Final = re.compile(r"[^\W_]+(?:_(?:\d{6}|PERP))?", re.IGNORECASE)
# Other names must begin with a base and a quote, or any word would be a symbol. With six digits behind them
# they tell none: these may be a delivery date or a day.
_FREE_NAME: Final = re.compile(
    r"([a-z0-9]{1,20}(?:USDT|USDC|BUSD|TUSD|FDUSD|USD1)|[a-z0-9]{2,20}(?:BTC|ETH|BNB|EUR))"
    r"(?=[-_.])(?!_\d{6}(?!\d))",
    re.IGNORECASE,
)

_KLINES: Final = "klines hold no ticks"
_BOOK_DEPTH: Final = "bookDepth holds no ticks"
# Other published files, by columns that tell them: those of Binance Vision, then those of Tardis.
_UNUSABLE: Final = (
    (("open", "high", "low", "close"), _KLINES),
    (("percentage", "depth", "notional"), _BOOK_DEPTH),
    (("sumopeninterest",), "metrics hold no ticks"),
    (("lastfundingrate",), "fundingRate holds no ticks"),
    (("orderstatus", "averageprice"), "liquidationSnapshot holds no ticks"),
    (("openinterest", "markprice"), "derivative_ticker holds no ticks"),
    (("localtimestamp", "bidprice", "askprice"), "quotes without update ids cannot be imported"),
    (("localtimestamp", "bids0price", "asks0price"), "books without update ids cannot be imported"),
    (("localtimestamp", "issnapshot"), "books without update ids cannot be imported"),
)
# The same without a header: the times to open and to close, with ten numbers; a time in words, with three.
_UNUSABLE_ROWS: Final = (
    (re.compile(r"(?:\d{13}|\d{16}),(?:[^,]+,){5}(?:\d{13}|\d{16}),(?:[^,]+,){4}[^,]+"), _KLINES),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:,-?[\d.]+){3}"), _BOOK_DEPTH),
)

_TRUE: Final = frozenset({"true", "1", "t"})
_FALSE: Final = frozenset({"false", "0", "f"})


def header_of(name: str, head: bytes) -> str:
    """Return the header row of a CSV file, from its first row or from what Binance Vision's name tells.

    Raises
    ------
    UsageError
        there is no header and the name and number of columns are none of Binance Vision's
    """
    first = _first_row(head)
    if first and not first[0].isdigit():
        return first.strip()
    found = _VISION_NAME.search(name)
    kind = found.group(2) if found else _kind_of(first.split(","))
    header = _VISION_HEADERS.get((kind, first.count(",") + 1))
    if header is None:
        raise UsageError(
            "the file has no header and is none that Binance Vision publishes",
            where=name,
            value=first[:120],
            fix="add a header row with the columns id, price, quantity, time and side or is_buyer_maker",
        )
    return header


def unusable_kind(head: bytes) -> str | None:
    """Return in words why a published file that no reader takes is none to import; None = not known."""
    first = _first_row(head)
    names = frozenset(_plain(first))
    for columns, why in _UNUSABLE:
        if names.issuperset(columns):
            return why
    return next((why for form, why in _UNUSABLE_ROWS if form.fullmatch(first)), None)


def symbol_of(name: str) -> str | None:
    """Return the symbol of a file name: ``BTCUSDT_240927-aggTrades-2024-07-18``, ``ltcusdt_trades_2025``;
    None where it tells none."""
    vision = _VISION_NAME.search(name)
    if vision:
        return vision.group(1).upper() if _SYMBOL.fullmatch(vision.group(1)) else None
    found = _FREE_NAME.match(name)
    return found.group(1).upper() if found else None


def symbols_of_rows(header: str, head: bytes) -> tuple[str, ...]:
    """Return the symbols in the first rows, sorted; none where there is no column for them."""
    names, found = _plain(header), set()
    if "symbol" not in names:
        return ()
    for line in head.splitlines():
        try:
            fields = _split(line, len(names))
        except DecodeError:
            continue
        if not _is_header(line, header):
            found.add(fields[names.index("symbol")])
    return tuple(sorted(found))


class TradeCsvReader:
    """Turn rows of a trade CSV into records.

    Parameters
    ----------
    header : its columns
    symbol : used where the file has no column for it
    delay_ns : added to the time of a trade

    Attributes
    ----------
    untold : no column tells when a trade was sent or received, only when it was made

    Raises
    ------
    UsageError
        a column is missing
    """

    name = "trades_csv"

    def __init__(self, header: str, symbol: str | None, *, delay_ns: int = 0) -> None:
        columns = _columns(header, _TRADE_COLUMNS, required=("id", "price", "qty", "time"))
        if "maker" not in columns and "side" not in columns:
            raise UsageError(
                "the file does not say which side traded",
                value=header,
                fix="a column is_buyer_maker (true or false) or side (buy or sell of the taker) is needed",
            )
        self._columns, self._width = columns, header.count(",") + 1
        self._header, self._symbol = header, _needed_symbol(symbol, columns)
        names = _plain(header)
        self._aggregate, self._delay_ns = "aggtradeid" in names, delay_ns
        self.untold = "eventtime" not in names and "recv" not in columns
        self._positive, self._numbers = DecimalCache(least_e8=1), DecimalCache(least_e8=0)

    def read(self, line: bytes, number: int) -> Record | None:
        """Return the record of one row; None for a header or comment.

        Raises
        ------
        DecodeError
            a field is missing or cannot be read
        """
        if not line[:1].isdigit() and _is_header(line, self._header):
            return None
        fields, at = _split(line, self._width), self._columns
        exch_ns = _time(fields[at["time"]], "time") + self._delay_ns
        recv_ns = _time(fields[at["recv"]], "receive time") if "recv" in at else exch_ns
        market = "kind" not in at or fields[at["kind"]] == "MARKET"
        numbers = self._positive if market else self._numbers
        trade = Trade(
            fields[at["symbol"]] if "symbol" in at else self._symbol,
            exch_ns,
            _integer(fields[at["id"]], "id"),
            _number(numbers, fields[at["price"]], "price"),
            _number(numbers, fields[at["qty"]], "quantity"),
            self._side(fields),
            self._aggregate,
            market,
        )
        return recv_ns, number, trade

    def finish(self) -> Record | None:
        return None

    def _side(self, fields: list[str]) -> int:
        maker = self._columns.get("maker")
        if maker is not None:
            return -1 if _boolean(fields[maker], "is_buyer_maker") else 1
        side = fields[self._columns["side"]].lower()
        if side not in ("buy", "sell"):
            raise DecodeError("side is neither buy nor sell", where="side", value=side[:40])
        return 1 if side == "buy" else -1


class TickerCsvReader:
    """Turn rows of a bookTicker CSV into records. Parameters and errors as for trades."""

    name = "ticker_csv"

    def __init__(self, header: str, symbol: str | None) -> None:
        required = ("id", "bid", "bid_qty", "ask", "ask_qty", "time")
        self._columns = _columns(header, _TICKER_COLUMNS, required=required)
        self._header, self._width = header, header.count(",") + 1
        self._symbol = _needed_symbol(symbol, self._columns)
        self._numbers = DecimalCache(least_e8=0)

    def read(self, line: bytes, number: int) -> Record | None:
        """Return the record of one row; None for a header or comment.

        Raises
        ------
        DecodeError
            a field is missing or cannot be read
        """
        if not line[:1].isdigit() and _is_header(line, self._header):
            return None
        fields, at, numbers = _split(line, self._width), self._columns, self._numbers
        exch_ns = _time(fields[at["time"]], "time")
        recv_ns = _time(fields[at["recv"]], "receive time") if "recv" in at else exch_ns
        ticker = Ticker(
            fields[at["symbol"]] if "symbol" in at else self._symbol,
            exch_ns,
            _integer(fields[at["id"]], "update id"),
            _number(numbers, fields[at["bid"]], "bid price"),
            _number(numbers, fields[at["bid_qty"]], "bid quantity"),
            _number(numbers, fields[at["ask"]], "ask price"),
            _number(numbers, fields[at["ask_qty"]], "ask quantity"),
        )
        return recv_ns, number, ticker

    def finish(self) -> Record | None:
        return None


def is_ticker_header(header: str) -> bool:
    """Whether the columns are those of best bid and ask."""
    return "updateid" in _plain(header)


def _first_row(head: bytes) -> str:
    rows = (line for line in head.decode("utf-8", "replace").splitlines() if line and line[0] != "#")
    return next(rows, "")


def _kind_of(row: Sequence[str]) -> str:
    """Tell Vision's types apart by the first row: only trades end in true or false."""
    if row[-1].lower() not in _TRUE | _FALSE:
        return "bookTicker"
    # Trades have their time in the fifth column, aggregates the last id they join.
    return "trades" if len(row) >= 5 and len(row[4]) in (13, 16) else "aggTrades"


def _columns(
    header: str, meanings: Mapping[str, Sequence[str]], *, required: Sequence[str]
) -> dict[str, int]:
    names = _plain(header)
    found: dict[str, int] = {}
    for meaning, synonyms in meanings.items():
        for synonym in synonyms:
            if synonym in names:
                found[meaning] = names.index(synonym)
                break
    if not found:
        raise UsageError(
            "it has no column of trades or quotes",
            value=header[:200],
            fix="take it out of the folder, or name the files",
        )
    missing = [meaning for meaning in required if meaning not in found]
    if missing:
        raise UsageError(
            f"the file has no column for {missing[0]}",
            value=header[:200],
            fix=f"one of these names is understood: {', '.join(meanings[missing[0]])}",
        )
    return found


def _plain(header: str) -> list[str]:
    return [re.sub(r"[^a-z0-9]", "", name.lower()) for name in header.split(",")]


def _needed_symbol(symbol: str | None, columns: Mapping[str, int]) -> str:
    if symbol is None and "symbol" not in columns:
        raise UsageError(
            "neither the file name nor a column tells the symbol",
            fix="name the file like BTCUSDT-trades-2024-07-18.csv, add a column symbol, or give --symbol",
        )
    return symbol or ""


def _is_header(line: bytes, header: str) -> bool:
    return line[:1] == b"#" or line.decode("utf-8", "replace").strip() == header


def _split(line: bytes, width: int) -> list[str]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise DecodeError("row is not text", value=repr(line[:80])) from None
    try:
        fields = next(csv.reader([text])) if '"' in text else text.split(",")
    except csv.Error as error:
        raise DecodeError("row is not CSV", value=str(error)) from None
    if len(fields) != width:
        raise DecodeError("wrong number of columns", value=f"{len(fields)} of {width}")
    return fields


def _time(text: str, where: str) -> int:
    if len(text) > 19 or not (text.isascii() and text.isdigit()):
        raise DecodeError("not a time", where=where, value=text[:40])
    return to_ns(int(text))


def _integer(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise DecodeError("not a whole number", where=where, value=text[:40])
    return int(text)


def _number(numbers: DecimalCache, text: str, where: str) -> int:
    try:
        return numbers[text]
    except DecodeError as error:
        raise DecodeError(error.what, where=where, value=error.value) from None


def _boolean(text: str, where: str) -> bool:
    lower = text.lower()
    if lower in _TRUE or lower in _FALSE:
        return lower in _TRUE
    raise DecodeError("neither true nor false", where=where, value=text[:40])
