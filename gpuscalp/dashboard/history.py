"""The last minutes of a session, bounded, from what its journal and its status say.

Owns: what is kept and for how long, and the form in which a page gets it. Never: reads a file.

Times are milliseconds of exchange time, as a browser has them. Values of a series are kept for each half
second: the last of it counts. Every marker and event has a number, so that a page is sent what it has not.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, TypeVar, final

import numpy as np

from gpuscalp.dashboard.events import event_of
from gpuscalp.errors import UNREADABLE, DecodeError, JournalError
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.messages import Ticker
from gpuscalp.journal.blocks import Record, RecordKind
from gpuscalp.live.records import FillRecord, OrderRecord, SignalRecord, VerdictRecord, decode
from gpuscalp.schema import E8, F32, F64, NS_PER_MS, Instrument

SPAN_MS: Final = 15 * 60_000
STEP_MS: Final = 500
MARKERS_MAX: Final = 4_000
EVENTS_MAX: Final = 500
# Beside them RAW, of the past only: quotes of the present come with the status.
KINDS: Final = frozenset(
    {
        *(RecordKind.SIGNAL, RecordKind.VERDICT, RecordKind.ORDER, RecordKind.FILL, RecordKind.STATE),
        *(RecordKind.CONTROL, RecordKind.HEALTH, RecordKind.CONNECTION, RecordKind.SESSION),
        *(RecordKind.CHECKPOINT, RecordKind.END, RecordKind.MODEL),
    }
)
_QUOTE: Final = b"bookTicker"

T = TypeVar("T")


@final
class Series:
    """Arrays by time, one for each half second, at most ``SPAN_MS`` of them."""

    def __init__(self) -> None:
        self._points: deque[tuple[int, Any]] = deque(maxlen=SPAN_MS // STEP_MS)

    def put(self, at_ns: int, values: Any) -> None:
        at_ms = at_ns // NS_PER_MS // STEP_MS * STEP_MS
        if self._points and at_ms <= self._points[-1][0]:
            if at_ms == self._points[-1][0]:
                self._points[-1] = (at_ms, values)
            return
        self._points.append((at_ms, values))

    def since(self, at_ms: int) -> list[tuple[int, Any]]:
        """Return the points from a time on, oldest first: the one of that time may have changed."""
        return _newest(self._points, lambda point: point[0] >= at_ms)

    @property
    def last(self) -> Any | None:
        return self._points[-1][1] if self._points else None


@final
class History:
    """What a page can be shown of a session.

    Parameters
    ----------
    instruments : in the order of axis S

    Attributes
    ----------
    refusals : of the gate, by the rule's code, since the history begins
    """

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self.symbols = tuple(each.symbol for each in instruments)
        self.refusals: Counter[str] = Counter()
        self._index = {symbol: index for index, symbol in enumerate(self.symbols)}
        self._prices, self._signals, self._frames = Series(), Series(), Series()
        self._markers: deque[dict[str, Any]] = deque(maxlen=MARKERS_MAX)
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_MAX)
        self._count = 0
        self._refused: dict[tuple[int, str], int] = {}
        self._decoder, self._sampled_ns = Decoder(), 0
        self._takers: dict[int, Callable[[Record], None]] = {
            RecordKind.SIGNAL: self._take_signal,
            RecordKind.VERDICT: self._take_verdict,
            RecordKind.ORDER: self._take_order,
            RecordKind.FILL: self._take_fill,
        }

    def take(self, records: Sequence[Record]) -> None:
        """Take one block's records. One of another version is passed over: the page shows what it can."""
        for record in records:
            try:
                taker = self._takers.get(record.kind)
                if taker is not None:
                    taker(record)
                self._note(record)
            except (JournalError, *UNREADABLE):
                continue
        if records and records[-1].recv_ns - self._sampled_ns >= STEP_MS * NS_PER_MS:
            self._sample(records)

    def take_status(self, status: dict[str, Any]) -> None:
        """Take the quotes of a status."""
        quotes = status.get("quotes")
        if quotes is not None and len(quotes["bid"]) == len(quotes["ask"]) == len(self.symbols):
            self._prices.put(quotes["end_ns"], np.array([quotes["bid"], quotes["ask"]], np.float64))

    @property
    def newest(self) -> int:
        """The number of the newest marker or event."""
        return self._count

    def series(self, symbol: str, since_ms: Mapping[str, int]) -> dict[str, list[list[Any]]]:
        """Return the points of a symbol, of each series from a time on; from its beginning without one.

        Returns
        -------
        dict: ``prices`` of (time, bid, ask), ``signals`` of (time, down, up, agreement, edge in bps),
        ``frames`` of (time, equity in USDT, features, prediction and decision in ms)
        """
        index = self._index[symbol]
        return {
            "prices": [
                [at, *values[:, index].tolist()]
                for at, values in self._prices.since(since_ms.get("prices", 0))
            ],
            "signals": [
                [at, *values[index].tolist()]
                for at, values in self._signals.since(since_ms.get("signals", 0))
            ],
            "frames": [[at, *values] for at, values in self._frames.since(since_ms.get("frames", 0))],
        }

    def markers(self, symbol: str, after: int) -> list[dict[str, Any]]:
        """Return the intents, orders and fills of a symbol with larger numbers."""
        found = _newest(self._markers, lambda each: each["number"] > after)
        return [each for each in found if each["symbol"] == symbol]

    def events(self, after: int) -> list[dict[str, Any]]:
        """Return what happened with larger numbers."""
        return _newest(self._events, lambda each: each["number"] > after)

    def predictions(self) -> list[dict[str, Any]]:
        """Return what the model says last, of all symbols."""
        rows: F32 | None = self._signals.last
        if rows is None:
            return []
        names = ("down", "up", "agreement", "edge_bps")
        return [
            {"symbol": symbol} | dict(zip(names, row, strict=True))
            for symbol, row in zip(self.symbols, rows.tolist(), strict=True)
        ]

    def _take_signal(self, record: Record) -> None:
        body = decode(record, SignalRecord)
        rows = np.full((len(self.symbols), 4), np.nan, np.float32)
        if len(body.signal) == rows.nbytes:
            rows = np.frombuffer(body.signal, np.float32).reshape(rows.shape)
        self._signals.put(body.end_ns, rows)
        stages = [each / NS_PER_MS for each in body.stages_ns]
        self._frames.put(body.end_ns, [body.equity_e8 / E8, *stages])

    def _take_verdict(self, record: Record) -> None:
        body = decode(record, VerdictRecord)
        if not body.accepted:
            self.refusals[body.code] += 1
            # A rule that refuses does so at every frame: once in a while is enough to be seen.
            key, last_ns = (body.symbol, body.code), self._refused.get((body.symbol, body.code), 0)
            if body.end_ns - last_ns < 4 * STEP_MS * NS_PER_MS:
                return
            self._refused[key] = body.end_ns
        why = body.reason if body.accepted else body.code
        self._mark("intent", body.symbol, body.end_ns, body.side, None, why, accepted=body.accepted)

    def _take_order(self, record: Record) -> None:
        body = decode(record, OrderRecord)
        if not body.cancel:
            price_e8 = body.price_e8 or body.mid2_e8 / 2
            self._mark("order", body.symbol, body.sent_ns, body.side, price_e8 / E8, body.reason)

    def _take_fill(self, record: Record) -> None:
        body = decode(record, FillRecord)
        if body.qty_e8:
            self._mark("fill", body.symbol, body.at_ns, body.side, body.price_e8 / E8, body.kind)

    def _mark(
        self,
        kind: str,
        symbol: int,
        at_ns: int,
        side: int,
        price: float | None,
        why: str,
        *,
        accepted: bool = True,
    ) -> None:
        self._count += 1
        self._markers.append(
            {
                "number": self._count,
                "kind": kind,
                "symbol": self.symbols[symbol],
                "at_ms": at_ns // NS_PER_MS,
                "side": side,
                "price": price,
                "why": why,
                "accepted": accepted,
            }
        )

    def _note(self, record: Record) -> None:
        event = event_of(record, self.symbols)
        if event is not None:
            self._count += 1
            level, text = event
            self._events.append(
                {
                    "number": self._count,
                    "at_ms": record.recv_ns // NS_PER_MS,
                    "level": level,
                    "text": text,
                }
            )

    def _sample(self, records: Sequence[Record]) -> None:
        """Take the quotes of one block's messages; the next ones half a second later."""
        last: F64 | None = self._prices.last
        prices = np.full((2, len(self.symbols)), np.nan) if last is None else last.copy()
        found = 0
        for record in records:
            if record.kind != RecordKind.RAW or _QUOTE not in record.body:
                continue
            try:
                ticker = self._decoder.decode(record.body)
            except DecodeError:
                continue
            if isinstance(ticker, Ticker) and (index := self._index.get(ticker.symbol)) is not None:
                prices[:, index] = ticker.bid_price_e8 / E8, ticker.ask_price_e8 / E8
                found = ticker.exch_ns or record.recv_ns
        if found:
            self._sampled_ns = records[-1].recv_ns
            self._prices.put(found, prices)


def _newest(kept: deque[T], wanted: Callable[[T], bool]) -> list[T]:
    """Return the newest of what is kept, as far back as it is wanted, the oldest first."""
    return list(takewhile(wanted, reversed(kept)))[::-1]
