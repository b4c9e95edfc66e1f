"""Skimmed rows of real recordings: the reports are those of a broker that was told of each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.archive.ingest import import_sources
from gpuscalp.backtest.venue import Venue
from gpuscalp.config import CostConfig, LegConfig, PaperConfig
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.messages import OrderKind, OrderRequest, Report, ReportKind, TimeInForce
from gpuscalp.schema import E8, TickKind, Ticks

VENUE = "binance_usdm"
NAMES = ("btcusdt_20240718.gz", "ethusdt_20240718.gz")


class Recorded:
    def __init__(self, path: Path) -> None:
        self.archive = Archive.open(path)
        self.symbols = self.archive.symbols(VENUE)
        self.instruments = self.archive.instruments(VENUE, self.symbols)
        self.ticks: Ticks = np.concatenate(list(self.archive.tick_batches(VENUE, self.symbols)))
        # By symbol, the levels of its books in the order of arrival.
        self.levels = [self._levels(index) for index in range(len(self.symbols))]

    def _levels(self, index: int) -> list[list[list[int]]]:
        books, unit = self.books(index, None, None), self.instruments[index].tick_size_e8
        sides = [
            [[price * unit for price in row] for row in books.bid_px.tolist()],
            [[round(qty * E8) for qty in row] for row in books.bid_qty.tolist()],
            [[price * unit for price in row] for row in books.ask_px.tolist()],
            [[round(qty * E8) for qty in row] for row in books.ask_qty.tolist()],
        ]
        return [list(row) for row in zip(*sides, strict=True)]

    def books(self, index: int, start_ns: int | None, end_ns: int | None) -> Any:
        return self.archive.books(VENUE, self.symbols[index], start_ns=start_ns, end_ns=end_ns)

    def tell(self, broker: PaperBroker, row: int, places: Counter[int]) -> tuple[Report, ...]:
        tick = self.ticks[row]
        index, at_ns = int(tick["symbol"]), int(tick["exch_ns"])
        unit = self.instruments[index].tick_size_e8
        px0, px1 = int(tick["px0"]) * unit, int(tick["px1"]) * unit
        qty0, qty1 = round(float(tick["q0"]) * E8), round(float(tick["q1"]) * E8)
        if tick["kind"] == TickKind.TRADE:
            return broker.on_trade(index, at_ns, px0, qty0, int(tick["side"]))
        if tick["kind"] == TickKind.QUOTE:
            return broker.on_quote(index, at_ns, px0, qty0, px1, qty1, sound=not tick["quality"])
        assert tick["kind"] == TickKind.BOOK
        places[index] += 1
        levels = self.levels[index][places[index] - 1]
        return broker.on_book(index, at_ns, *levels, sound=not tick["quality"])


@pytest.fixture(scope="module")
def recorded(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    path = tmp_path_factory.mktemp("recorded") / "archive"
    import_sources([recordings / "usdm" / name for name in NAMES], path)
    return Recorded(path)


def script(recorded: Recorded, count: int) -> list[tuple[int, OrderRequest | int]]:
    """Return (row before which it is sent, order or the id of one to be cancelled)."""
    rng, ticks = np.random.default_rng(3), recorded.ticks
    found: list[tuple[int, OrderRequest | int]] = []
    quotes = np.flatnonzero(ticks["kind"] == TickKind.QUOTE)
    for order_id, row in enumerate(np.sort(rng.choice(quotes[100:], count)).tolist(), 1):
        tick, side = ticks[row], int(rng.choice((-1, 1)))
        index = int(tick["symbol"])
        unit, step = recorded.instruments[index].tick_size_e8, recorded.instruments[index].step_size_e8
        near = int(tick["px0"] if side > 0 else tick["px1"]) - side * int(rng.choice((0, 0, 1, 4)))
        how = str(rng.choice(("gtx", "gtx", "gtc", "ioc", "stop")))
        kind = OrderKind.STOP_MARKET if how == "stop" else OrderKind.LIMIT
        price = (near + side * (20 if how == "stop" else 2 if how == "ioc" else 0)) * unit
        tif = TimeInForce.GTC if how == "stop" else TimeInForce(how)
        size = int(rng.choice((1, 50, 2_000))) * step
        found.append((row, OrderRequest(order_id, index, side, size, price, kind, tif)))
        if order_id > 12:
            found.append((row, order_id - 12))
    return found


@pytest.mark.parametrize("queue", ["pessimistic", "proportional", "probabilistic"])
def test_reports_over_a_recording_are_those_of_a_broker_that_is_told_every_row(
    recorded: Recorded, queue: str
) -> None:
    paper = PaperConfig(
        request=LegConfig(kind="uniform", low_ms=2.0, high_ms=30.0), queue=queue, leverage=125,
        percent_price_up=10.0, percent_price_down=0.01, max_orders_per_10s="off", max_orders_per_minute="off",
    )  # fmt: skip
    cost = CostConfig()
    sent = script(recorded, 600)
    broker = PaperBroker(recorded.instruments, cost=cost, paper=paper, start_e8=10**9 * E8)
    expected: list[Report] = []
    at, places = 0, Counter[int]()
    for row in range(len(recorded.ticks)):
        while at < len(sent) and sent[at][0] <= row:
            what = sent[at][1]
            now_ns = broker.now_ns
            broker.cancel(what, now_ns) if isinstance(what, int) else broker.submit(what, now_ns)
            at += 1
        expected += recorded.tell(broker, row, places)
    venue = Venue(
        recorded.instruments, cost=cost, paper=paper, start_e8=10**9 * E8, read_books=recorded.books
    )
    added = 0
    for number, (row, what) in enumerate(sent):
        if added < row:
            venue.tape.add(recorded.ticks[added : row + 500])
            added = min(row + 500, len(recorded.ticks))
        venue.play(row)
        now_ns = venue.broker.now_ns
        venue.broker.cancel(what, now_ns) if isinstance(what, int) else venue.submit(what, now_ns)
        if number % 40 == 0:
            venue.drop()
    venue.tape.add(recorded.ticks[added:])
    venue.play(venue.tape.end)
    assert venue.inbox.due(1 << 62) == expected
    kinds = Counter((report.kind, report.maker) for report in expected)
    assert kinds[ReportKind.FILL, True] > 60, "hardly an order was filled where it rested"
    assert kinds[ReportKind.FILL, False] > 60
    assert kinds[ReportKind.CANCELED, False] > 60
