"""The same orders on the same synthetic market through the paper broker and through hftbacktest.

One order is alive at a time, so that what happens to one leaves the other ones alone. Prices are in ticks,
quantities in lots, times in ns of the exchange. Every second brings one order: two that take, then one that
rests and is cancelled after 0.8 s if it is still open.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from gpuscalp.archive import Archive
from gpuscalp.archive.export_hftbacktest import export_hftbacktest
from gpuscalp.config import CostConfig, LegConfig, PaperConfig
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.messages import OrderRequest, Report, TimeInForce
from gpuscalp.schema import E8, I64, Instrument, TickKind, Ticks
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS, MarketSpec
from gpuscalp.synthetic.write import write
from tests.archive.test_hftbacktest import run_alone

DRIVER: Final = Path(__file__).with_name("hftbacktest_fills_driver.py")
ORDER_COUNT: Final = 240
# Off every clock of the market, so that no order arrives at the very instant of an event.
REQUEST_NS: Final = 7_000_123
CANCEL_AFTER_NS: Final = 800_000_000
NS_PER_S: Final = 1_000_000_000
VENUE: Final = "synthetic"

# Of one order: filled lots, price in ticks and time of the last fill, whether it rested; zeros if unfilled.
Result = tuple[int, int, int, bool]


@dataclass(frozen=True)
class Market:
    """An archive, its rows, its export, and int64[n, 7] orders as the driver takes them."""

    instrument: Instrument
    ticks: Ticks
    books: list[tuple[list[int], list[int], list[int], list[int]]]
    files: tuple[str, ...]
    orders: I64

    def around(self, row: int) -> Market:
        """Return one order alone, and the rows from two seconds before it to a second after its end."""
        order = self.orders[row]
        first, last = np.searchsorted(
            self.ticks["exch_ns"], (order[1] - 2 * NS_PER_S, max(order[1], order[6]) + NS_PER_S)
        )
        is_book = self.ticks["kind"] == TickKind.BOOK
        before = int(is_book[:first].sum())
        books = self.books[before : before + int(is_book[first:last].sum())]
        return replace(self, ticks=self.ticks[first:last], books=books, orders=order[None])


def make_market(folder: Path) -> Market:
    write(MarketSpec(duration_s=ORDER_COUNT + 10, symbols=DEFAULT_SYMBOLS[:1]), folder / "archive")
    archive = Archive.open(folder / "archive")
    (symbol,) = archive.symbols(VENUE)
    (instrument,) = archive.instruments(VENUE)
    report = export_hftbacktest(folder / "archive", folder / "events", symbols=(symbol,))
    assert report.offset_ns == 0, "both engines must read the same clock"
    ticks = np.concatenate(list(archive.tick_batches(VENUE, (symbol,))))
    assert (np.diff(ticks["exch_ns"]) >= 0).all(), "rows that overtake each other are another test's matter"
    books = archive.books(VENUE, symbol)
    tick_e8, step_e8 = instrument.tick_size_e8, instrument.step_size_e8
    sides = (
        books.bid_px.astype(np.int64) * tick_e8,
        np.rint(books.bid_qty * E8 / step_e8).astype(np.int64) * step_e8,
        books.ask_px.astype(np.int64) * tick_e8,
        np.rint(books.ask_qty * E8 / step_e8).astype(np.int64) * step_e8,
    )
    levels = list(zip(*(side.tolist() for side in sides), strict=True))
    return Market(
        instrument, ticks, levels, tuple(file.path for file in report.files), make_orders(ticks)
    )  # fmt: skip


def make_orders(ticks: Ticks) -> I64:
    """Draw the orders once; their limits come from the quotes at the time they are sent."""
    rng = np.random.default_rng(11)
    quotes = ticks[ticks["kind"] == TickKind.QUOTE]
    start_ns = int(ticks["exch_ns"][0])
    rows = []
    for number in range(1, ORDER_COUNT + 1):
        at_ns = start_ns + number * NS_PER_S + int(rng.integers(0, NS_PER_S // 20))
        quote = quotes[np.searchsorted(quotes["exch_ns"], at_ns) - 1]
        side, rests = int(rng.choice((-1, 1))), number % 3 == 0
        near, far = (quote["px0"], quote["px1"]) if side > 0 else (quote["px1"], quote["px0"])
        if rests:
            # At the best price, one tick better where there is room, or one behind it.
            price = int(near) + side * int(rng.choice((0, 0, 0, 1, -1)))
            lots, cancel_ns = int(rng.choice((1, 40, 400))), at_ns + CANCEL_AFTER_NS
        else:
            price = int(far) + side * int(rng.choice((0, 0, 3, 10)))
            lots, cancel_ns = int(rng.choice((1, 40, 1_500, 6_000))), 0
        rows.append((number, at_ns, side, price, lots, int(rests), cancel_ns))
    return np.array(rows, np.int64)


def ours(market: Market, **settings: Any) -> list[Result]:
    """Play the orders through the paper broker."""
    paper = PaperConfig(
        request=LegConfig(low_ms=REQUEST_NS / 1e6), reply=LegConfig(low_ms=0.0), leverage=125,
        percent_price_up=10.0, percent_price_down=0.01, **settings,
    )  # fmt: skip
    cost = CostConfig(taker_fee_bps=0.0, maker_fee_bps=0.0)
    broker = PaperBroker([market.instrument], cost=cost, paper=paper, start_e8=10**9 * E8)
    tick_e8, step_e8 = market.instrument.tick_size_e8, market.instrument.step_size_e8
    reports: list[Report] = []
    # (time, cancels, order): a cancellation is sent before the next order.
    sent = [(int(row[1]), False, row) for row in market.orders]
    sent += [(int(row[6]), True, row) for row in market.orders if row[6]]
    waiting = sorted(sent, key=lambda each: each[:2])[::-1]
    book = 0
    for tick in market.ticks:
        at_ns = int(tick["exch_ns"])
        while waiting and waiting[-1][0] < at_ns:
            sent_ns, cancels, row = waiting.pop()
            reports += broker.advance(sent_ns)
            number, _, side, price, lots, rests, _ = row.tolist()
            if cancels:
                broker.cancel(number, sent_ns)
                continue
            tif = TimeInForce.GTX if rests else TimeInForce.IOC
            broker.submit(
                OrderRequest(number, 0, side, lots * step_e8, price * tick_e8, time_in_force=tif), sent_ns
            )
        if tick["kind"] == TickKind.BOOK:
            reports += broker.on_book(0, at_ns, *market.books[book], sound=True)
            book += 1
        elif tick["kind"] == TickKind.QUOTE:
            lots_e8 = (round(float(tick[name]) * E8 / step_e8) * step_e8 for name in ("q0", "q1"))
            bid_qty, ask_qty = lots_e8
            bid, ask = (int(tick[name]) * tick_e8 for name in ("px0", "px1"))
            reports += broker.on_quote(0, at_ns, bid, bid_qty, ask, ask_qty, sound=True)
        elif tick["kind"] == TickKind.TRADE:
            qty = round(float(tick["q0"]) * E8 / step_e8) * step_e8
            reports += broker.on_trade(0, at_ns, int(tick["px0"]) * tick_e8, qty, int(tick["side"]))
    found: dict[int, Result] = {}
    for report in reports:
        if report.fill is not None:
            lots = found.get(report.order_id, (0,))[0] + report.fill.qty_e8 // step_e8
            price = report.fill.price_e8 // tick_e8
            found[report.order_id] = (lots, price, report.fill.exec_ns, report.maker)
    return [found.get(int(number), (0, 0, 0, False)) for number in market.orders[:, 0]]


def theirs(
    market: Market, python: str, folder: Path, models: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], list[Result]]:
    """Play the orders through hftbacktest, once for each exchange and queue; one process compiles it once."""
    given, out = folder / "orders.npz", folder / "seen.npz"
    sizes = [market.instrument.tick_size_e8 / E8, market.instrument.step_size_e8 / E8]
    np.savez(given, sizes=np.array(sizes), request_ns=REQUEST_NS, orders=market.orders)
    words = [f"{exchange}:{queue}" for exchange, queue in models]
    done: subprocess.CompletedProcess[str] = run_alone(
        [python, str(DRIVER), str(out), str(given), ",".join(words), *market.files]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = np.load(out)
    return {
        model: [(int(a), int(b), int(c), bool(d)) for a, b, c, d in seen[word].tolist()]
        for model, word in zip(models, words, strict=True)
    }
