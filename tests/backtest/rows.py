"""Random markets as rows in the order of arrival, with all that recordings have: rows that overtake each
other, doubtful and crossed states, books of a few levels, several rows received at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpuscalp.archive import BookSeries
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.messages import Report
from gpuscalp.schema import BOOK_LEVELS, TICK, Instrument, Quality, TickKind, Ticks

E8 = 10**8
MS = 1_000_000
NOW = 1_700_000_000 * 10**9
# A price tick of 1 and lots of 1, so that levels meet the same prices again and again.
INSTRUMENT = Instrument("TESTUSDT", "synthetic", E8, E8, E8, 0, "synthetic")
DEPTH = 4


@dataclass
class Rows:
    """Ticks of S symbols and the levels of those that are books, by position."""

    ticks: Ticks
    levels: dict[int, tuple[list[int], list[int], list[int], list[int]]]  # in ticks and lots, 20 each

    def books(self, symbol: int, start_ns: int, end_ns: int) -> BookSeries:
        """Return what an archive would."""
        ticks = self.ticks
        found = [
            row for row in self.levels
            if ticks["symbol"][row] == symbol and start_ns <= ticks["exch_ns"][row] < end_ns
        ]  # fmt: skip
        columns = [[self.levels[row][part] for row in found] for part in range(4)]
        shape = (len(found), BOOK_LEVELS)
        return BookSeries(
            recv_ns=ticks["recv_ns"][found],
            exch_ns=ticks["exch_ns"][found],
            bid_px=np.array(columns[0], np.int32).reshape(shape),
            ask_px=np.array(columns[2], np.int32).reshape(shape),
            bid_qty=np.array(columns[1], np.float64).reshape(shape),
            ask_qty=np.array(columns[3], np.float64).reshape(shape),
            quality=ticks["quality"][found],
        )

    def tell(self, broker: PaperBroker, row: int) -> tuple[Report, ...]:
        """Tell a broker of one row, as a live session would of the message that it came from."""
        tick = self.ticks[row]
        symbol, at_ns = int(tick["symbol"]), int(tick["exch_ns"])
        sound = not int(tick["quality"])
        if tick["kind"] == TickKind.MARK:
            mark, rate = round(float(tick["q0"]) * E8), round(float(tick["q2"]) * E8)
            return broker.on_mark(symbol, at_ns, mark, rate, int(tick["q3"]) * MS)
        bid, bid_qty, ask, ask_qty = (int(tick[name]) * E8 for name in ("px0", "q0", "px1", "q1"))
        if tick["kind"] == TickKind.TRADE:
            return broker.on_trade(symbol, at_ns, bid, bid_qty, int(tick["side"]))
        if tick["kind"] == TickKind.QUOTE:
            return broker.on_quote(symbol, at_ns, bid, bid_qty, ask, ask_qty, sound=sound)
        top = [[value * E8 for value in part] for part in self.levels[row]]
        return broker.on_book(symbol, at_ns, *top, sound=sound)


def random_rows(
    seed: int,
    *,
    count: int,
    symbols: int,
    late_ms: int,
    wander: int,
    book_share: float,
    mark_share: float = 0.08,
    pause_ms: int = 900,
) -> Rows:
    """Make a market.

    Parameters
    ----------
    late_ms : rows are dated up to so long before they arrive, so they overtake each other
    wander : how far the mid moves at most from one row to the next, in ticks
    book_share : of the states that are books
    mark_share : of all rows that are mark prices, at most 0.2
    pause_ms : the longest time between two rows
    """
    rng = np.random.default_rng(seed)
    ticks = np.zeros(count, TICK)
    levels = {}
    mid = np.full(symbols, 1_000)
    qty = {}
    at = 0
    for row in range(count):
        at += int(rng.choice((0, 0, 1, 2, 5, 40, pause_ms), p=(0.2, 0.1, 0.3, 0.2, 0.15, 0.04, 0.01)))
        symbol = int(rng.integers(symbols))
        mid[symbol] += int(rng.integers(-wander, wander + 1))
        tick = ticks[row]
        tick["recv_ns"] = NOW + at * MS
        tick["exch_ns"] = NOW + (at - int(rng.integers(0, late_ms + 1))) * MS
        tick["symbol"] = symbol
        kind = rng.random()
        if kind < mark_share:
            tick["kind"], tick["q0"] = TickKind.MARK, mid[symbol] + int(rng.integers(-3, 4))
            tick["q1"], tick["q2"] = np.nan, int(rng.integers(-300, 300)) / 1e5
            tick["q3"] = NOW // MS + (at // 200 + 1) * 200
            continue
        if kind < 0.2:
            tick["kind"], tick["side"] = TickKind.TRADE, int(rng.choice((-1, 1)))
            tick["px0"], tick["q0"] = mid[symbol] + int(rng.integers(-3, 4)), int(rng.integers(1, 8))
            continue
        bid, ask = int(mid[symbol] - rng.integers(0, 2)), int(mid[symbol] + 1 + rng.integers(0, 2))
        if rng.random() < 0.03:
            bid, ask = (ask, bid) if rng.random() < 0.5 else (0, ask)
        if rng.random() < 0.04:
            tick["quality"] = int(rng.choice((Quality.GAP, Quality.RESYNC, Quality.CROSSED)))

        def shown(price: int, symbol: int = symbol) -> int:
            # Mostly the quantity that was there before, so that what was taken stays in sight.
            if (symbol, price) not in qty or rng.random() < 0.3:
                qty[symbol, price] = int(rng.integers(1, 9))
            return qty[symbol, price]

        if rng.random() < book_share:
            tick["kind"] = TickKind.BOOK
            sides = []
            for best, sign in ((bid, -1), (ask, 1)):
                prices = [best + sign * step for step in range(DEPTH) if step == 0 or rng.random() < 0.8]
                prices = prices if best else []
                sides += [prices + [0] * (BOOK_LEVELS - len(prices))]
                sides += [[shown(price) for price in prices] + [0] * (BOOK_LEVELS - len(prices))]
            levels[row] = tuple(sides)
            tick["q0"], tick["q1"] = sum(sides[1][:5]), sum(sides[3][:5])
            tick["q2"], tick["q3"] = sum(sides[1]), sum(sides[3])
        else:
            tick["kind"] = TickKind.QUOTE
            tick["q0"], tick["q1"] = shown(bid), shown(ask)
        tick["px0"], tick["px1"] = bid, ask
    return Rows(ticks, levels)
