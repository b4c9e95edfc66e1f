"""Raw recordings: lines that carry a receive time and a message of the venue.

Owns: the line forms. ::

    <receive time> <json>                    13, 16 or 19 digits: ms, µs or ns
    <seconds.fraction>: <json>               capture of a websocket by cryptofeed
    <url> -> <seconds.fraction>: <json>      the same for a REST call; replay://… in a replayed session
    wss://… <-> <seconds>, configuration: …  the same for a connection; no data

A depth snapshot does not name its symbol: a REST line has it in the URL, a raw recording must be of one
symbol only, to its last line. Never: decodes a stream message.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from gpuscalp.archive.arrival import Record
from gpuscalp.archive.source import lines_of
from gpuscalp.errors import DecodeError
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.messages import DepthSnapshot, Ignored
from gpuscalp.feeds.times import to_ns

_STREAM: Final = re.compile(rb'\{"stream":\s*"([^"@!]+)@')
_SUBSCRIBED: Final = re.compile(rb"[/=]([^/=@!]+)@(?:aggTrade|trade|bookTicker|depth)")
_URL_SYMBOL: Final = re.compile(rb"(?:https?|replay)://\S*[?&]symbol=(\w+)")
_STATED: Final = re.compile(rb'"s":\s*"(\w+)"')
_OVER_ALL: Final = re.compile(rb'"stream":\s*"!')
_FIRST: Final = re.compile(
    rb"\d{10}\.\d+: ?[{\[]|(?:\d{13}|\d{16}|\d{19}) [{\[]|configuration: |wss?://|(?:https?|replay)://\S+ -> "
)

_USDM_MARKS: Final = (
    *(b'"pu":', b'"X":"', b'"e":"bookTicker"', b'"e":"markPriceUpdate"'),
    *(b"fapi.binance", b"fstream.binance"),
)
_SNAPSHOT_KEY: Final = b'"lastUpdateId"'


def is_recording(head: bytes) -> bool:
    """Whether any of the first lines of a file has one of the forms. One damaged line does not decide."""
    return any(_FIRST.match(line) for line in head.splitlines()[:20])


def symbols_in(head: bytes) -> tuple[str, ...]:
    """Return the symbols that the first lines name, however seldom, sorted. Streams over all symbols count
    only where there are no others."""
    names = {name for line in head.splitlines() for name in _named(line)}
    return tuple(sorted(names or {_text(name) for name in _STATED.findall(head)}))


def is_over_all(head: bytes) -> bool:
    """Whether the first lines show a stream over all symbols, such as ``!bookTicker``."""
    return _OVER_ALL.search(head) is not None


def only_symbol(path: Path, default: str | None = None) -> str | None:
    """Return the symbol of a recording that is of one symbol; None for one of several.

    Reads the file up to the first line that names another symbol: one that is seldom traded may come late,
    and its snapshot long before that.

    Parameters
    ----------
    path : the recording
    default : returned where no line names a symbol
    """
    names: set[str] = set()
    known: bytes | tuple[()] = ()  # how messages of the one symbol begin; nearly all lines end here
    try:
        for line in lines_of(path):
            body = line.partition(b" ")[2]
            if body.startswith(known):
                continue
            found = _named(line)
            names |= found
            if len(names) > 1:
                return None
            stream = _STREAM.match(body) if found else None
            known = stream.group() if stream else known
    except DecodeError:
        pass  # it is read again for the import, which accounts for the damage
    return names.pop() if names else default


def _named(line: bytes) -> set[str]:
    """Return the symbols that a line names: those of a connection's URL, that of a REST call or message."""
    if not line[:1].isdigit():
        urls = _URL_SYMBOL.match(line)
        subscribed = _SUBSCRIBED.findall(line) if line.startswith((b"wss://", b"ws://")) else ()
        return {_text(name).upper() for name in ((urls.group(1),) if urls else subscribed)}
    body = line.partition(b" ")[2]
    stream, stated = _STREAM.match(body), _STATED.search(body)
    if stream is None:
        # Arrays and streams that begin with ``!`` are over all symbols.
        over_all = body.startswith((b"[", b'{"stream"'))
        return set() if stated is None or over_all else {_text(stated.group(1))}
    name = _text(stream.group(1)).upper()
    # Where the message names another symbol than its stream, one of the two is damaged.
    return {name} if stated is None or _text(stated.group(1)) == name else set()


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def venue_of(head: bytes) -> str | None:
    """Return the venue that the first lines show, or None: only USD-M names the previous id of an update
    and the kind of a trade, only spot leaves a bookTicker undated and puts ``M`` into trades."""
    if any(mark in head for mark in _USDM_MARKS):
        return "binance_usdm"
    if re.search(rb'@bookTicker","data":\{"u":', head) or b'"M":true' in head or b'"M":false' in head:
        return "binance_spot"
    if b'"e":"depthUpdate"' in head:
        return "binance_spot"
    return "binance_usdm" if b'"e":"aggTrade"' in head else None


class RecordingReader:
    """Turn lines into records.

    Parameters
    ----------
    symbol : of the snapshots that do not name theirs; None = they are refused
    """

    name = "recording"

    def __init__(self, symbol: str | None) -> None:
        self._symbol = symbol
        self._decoder = Decoder()

    def read(self, line: bytes, number: int) -> Record | None:
        """Return the record of one line; None for a line without data.

        Raises
        ------
        DecodeError
            the line has none of the forms, its receive time is none, or a snapshot has no symbol
        """
        if line[:1].isdigit():
            stamp, _, body = line.partition(b" ")
            recv_ns = _seconds(stamp[:-1]) if stamp.endswith(b":") else _digits(stamp)
            if _SNAPSHOT_KEY in body[:64] or (_SNAPSHOT_KEY in body and b'"stream"' not in body[:32]):
                return recv_ns, number, self._snapshot(body, self._symbol)
            return recv_ns, number, body
        if line.startswith((b"https://", b"http://", b"replay://")):
            return self._rest(line, number)
        if line.startswith((b"wss://", b"ws://", b"configuration: ")):
            return None
        raise DecodeError("line of an unknown form", value=line[:80].decode("utf-8", "replace"))

    def finish(self) -> Record | None:
        return None

    def _rest(self, line: bytes, number: int) -> Record:
        url, arrow, rest = line.partition(b" -> ")
        stamp, colon, body = rest.partition(b": ")
        if not arrow or not colon:
            raise DecodeError("line of an unknown form", value=line[:80].decode("utf-8", "replace"))
        recv_ns = _seconds(stamp)
        try:
            parts = urlsplit(url.decode("utf-8", "replace"))
        except ValueError as error:
            raise DecodeError(f"not a URL: {error}", value=url[:80].decode("utf-8", "replace")) from None
        if not parts.path.endswith("/depth"):
            return recv_ns, number, Ignored(kind=f"rest_{parts.path.rpartition('/')[2]}"[:40])
        symbol = parse_qs(parts.query).get("symbol", [""])[0].upper()
        return recv_ns, number, self._snapshot(body, symbol or None)

    def _snapshot(self, body: bytes, symbol: str | None) -> DepthSnapshot:
        message = self._decoder.decode(body)
        if not isinstance(message, DepthSnapshot):
            raise DecodeError("message of an unknown shape", value=body[:80].decode("utf-8", "replace"))
        if symbol is None:
            raise DecodeError("snapshot without a symbol in a recording that is not of one symbol")
        return DepthSnapshot(symbol, message.exch_ns, message.last_id, message.bids, message.asks)


def _digits(stamp: bytes) -> int:
    if stamp.isdigit() and len(stamp) in (13, 16, 19):
        return to_ns(int(stamp))
    raise DecodeError("receive time is neither ms, µs nor ns", value=stamp[:40].decode("utf-8", "replace"))


def _seconds(stamp: bytes) -> int:
    """Return ``1617647797.5963788`` in ns without passing through a float."""
    whole, _, fraction = stamp.partition(b".")
    if len(whole) == 10 and whole.isdigit() and len(fraction) <= 9 and (not fraction or fraction.isdigit()):
        return to_ns(int(whole)) + int(fraction.ljust(9, b"0"))
    raise DecodeError("receive time is not in seconds", value=stamp[:40].decode("utf-8", "replace"))
