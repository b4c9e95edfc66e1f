"""Trades of one symbol as minute bars, and bars of any interval made of them.

Owns: candles and 24-hour statistics since the replay began. Pure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from gpuscalp.account import divide_half_even, notional_e8
from gpuscalp.exchange.rules import SymbolRules, text
from gpuscalp.schema import E8

_MINUTE_MS: Final = 60_000
_KEPT: Final = 1_500
INTERVALS_MS: Final = {
    **{f"{n}m": n * _MINUTE_MS for n in (1, 3, 5, 15, 30)},
    **{f"{n}h": n * 60 * _MINUTE_MS for n in (1, 2, 4, 6, 8, 12)},
    **{f"{n}d": n * 1_440 * _MINUTE_MS for n in (1, 3)},
}


@dataclass(slots=True)
class Bar:
    """One candle; amounts in 1e-8, quote volumes in units."""

    open_ms: int
    first_id: int
    last_id: int
    open_e8: int
    high_e8: int
    low_e8: int
    close_e8: int
    volume_e8: int = 0
    quote_e8: int = 0
    buy_e8: int = 0
    buy_quote_e8: int = 0
    count: int = 0

    def merge(self, later: Bar) -> None:
        """Add a bar that follows this one."""
        self.last_id, self.close_e8 = later.last_id, later.close_e8
        self.high_e8, self.low_e8 = max(self.high_e8, later.high_e8), min(self.low_e8, later.low_e8)
        self.volume_e8 += later.volume_e8
        self.quote_e8 += later.quote_e8
        self.buy_e8 += later.buy_e8
        self.buy_quote_e8 += later.buy_quote_e8
        self.count += later.count


class Bars:
    """The bars of one symbol; the last day of minutes is kept."""

    def __init__(self, rules: SymbolRules) -> None:
        self._rules = rules
        self._minutes: deque[Bar] = deque(maxlen=_KEPT)

    def on_trade(self, now_ms: int, trade_id: int, price_e8: int, qty_e8: int, side: int) -> None:
        """Add one trade."""
        open_ms = now_ms // _MINUTE_MS * _MINUTE_MS
        quote, bought = notional_e8(price_e8, qty_e8), side > 0
        one = Bar(
            open_ms,
            trade_id,
            trade_id,
            price_e8,
            price_e8,
            price_e8,
            price_e8,
            qty_e8,
            quote,
            qty_e8 if bought else 0,
            quote if bought else 0,
            1,
        )
        if self._minutes and self._minutes[-1].open_ms >= open_ms:
            self._minutes[-1].merge(one)
        else:
            self._minutes.append(one)

    def bars(self, interval: str) -> list[Bar]:
        """Return the bars of an interval, oldest first. An interval without trades has none."""
        length = INTERVALS_MS[interval]
        made: list[Bar] = []
        for minute in self._minutes:
            open_ms = minute.open_ms // length * length
            if made and made[-1].open_ms == open_ms:
                made[-1].merge(minute)
            else:
                copy = Bar(*(getattr(minute, name) for name in Bar.__slots__))
                copy.open_ms = open_ms
                made.append(copy)
        return made

    def rows(self, interval: str, start_ms: int | None, end_ms: int | None, limit: int) -> list[list[Any]]:
        """Return the answer of GET /fapi/v1/klines."""
        length, price, qty = INTERVALS_MS[interval], self._rules.price, self._rules.qty
        found = [
            bar
            for bar in self.bars(interval)
            if (start_ms is None or bar.open_ms >= start_ms) and (end_ms is None or bar.open_ms <= end_ms)
        ]
        found = found[-limit:] if start_ms is None else found[:limit]
        return [
            [
                bar.open_ms,
                *(price(value) for value in (bar.open_e8, bar.high_e8, bar.low_e8, bar.close_e8)),
                qty(bar.volume_e8),
                bar.open_ms + length - 1,
                text(bar.quote_e8, 2),
                bar.count,
                qty(bar.buy_e8),
                text(bar.buy_quote_e8, 2),
                "0",
            ]
            for bar in found
        ]

    def kline(self, interval: str, now_ms: int) -> dict[str, Any] | None:
        """Return the payload of ``<symbol>@kline_<interval>``; None before the first trade."""
        if not self._minutes:
            return None
        rules, bar = self._rules, self.bars(interval)[-1]
        close_ms = bar.open_ms + INTERVALS_MS[interval] - 1
        return {
            "e": "kline",
            "E": now_ms,
            "s": rules.symbol,
            "k": {
                "t": bar.open_ms,
                "T": close_ms,
                "s": rules.symbol,
                "i": interval,
                "f": bar.first_id,
                "L": bar.last_id,
                "o": rules.price(bar.open_e8),
                "c": rules.price(bar.close_e8),
                "h": rules.price(bar.high_e8),
                "l": rules.price(bar.low_e8),
                "v": rules.qty(bar.volume_e8),
                "n": bar.count,
                "x": now_ms > close_ms,
                "q": text(bar.quote_e8, 2),
                "V": rules.qty(bar.buy_e8),
                "Q": text(bar.buy_quote_e8, 2),
                "B": "0",
            },
        }

    def day(self) -> Bar | None:
        """Return everything of the last 24 hours as one bar."""
        if not self._minutes:
            return None
        newest = self._minutes[-1].open_ms
        whole: Bar | None = None
        for minute in self._minutes:
            if minute.open_ms <= newest - 1_440 * _MINUTE_MS:
                continue
            if whole is None:
                whole = Bar(*(getattr(minute, name) for name in Bar.__slots__))
            else:
                whole.merge(minute)
        return whole

    def ticker(self, now_ms: int) -> dict[str, Any] | None:
        """Return the payload of ``<symbol>@ticker``."""
        day = self.day()
        if day is None:
            return None
        rules, change = self._rules, day.close_e8 - day.open_e8
        return {
            "e": "24hrTicker",
            "E": now_ms,
            "s": rules.symbol,
            "p": rules.price(change),
            "P": text(divide_half_even(change * 100 * 1_000, day.open_e8) * E8 // 1_000, 3),
            "w": rules.price(divide_half_even(day.quote_e8 * E8, day.volume_e8)),
            "c": rules.price(day.close_e8),
            "Q": "0",
            **self._common(day),
            "O": day.open_ms,
            "C": now_ms,
            "F": day.first_id,
            "L": day.last_id,
            "n": day.count,
            "ps": rules.symbol,
            "st": 1,
        }

    def mini_ticker(self, now_ms: int) -> dict[str, Any] | None:
        """Return the payload of ``<symbol>@miniTicker``."""
        day = self.day()
        if day is None:
            return None
        head = {"e": "24hrMiniTicker", "E": now_ms, "s": self._rules.symbol}
        close = {"c": self._rules.price(day.close_e8)}
        return {**head, **close, **self._common(day), "ps": self._rules.symbol, "st": 1}

    def _common(self, day: Bar) -> dict[str, Any]:
        rules = self._rules
        return {
            "o": rules.price(day.open_e8),
            "h": rules.price(day.high_e8),
            "l": rules.price(day.low_e8),
            "v": rules.qty(day.volume_e8),
            "q": text(day.quote_e8, 2),
        }
