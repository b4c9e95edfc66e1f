"""The paper broker on a real recording: random orders, and the books still balance."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.cli import run
from gpuscalp.config import CostConfig, LegConfig, PaperConfig
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.messages import OrderRequest, ReportKind, TimeInForce
from gpuscalp.schema import E8, TickKind

VENUE = "binance_usdm"


@pytest.fixture(scope="module")
def archive(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    path = tmp_path_factory.mktemp("recorded") / "archive"
    source = recordings / "usdm" / "cryptofeed_BINANCE_FUTURES-1125a2.0.gz"
    assert run(["data", "import", str(source), "--out", str(path), "--json"]) == 0
    return Archive.open(path)


def test_random_orders_on_a_recording_leave_books_that_balance(
    archive: Archive, rng: np.random.Generator
) -> None:
    symbols = archive.symbols(VENUE)
    instruments = archive.instruments(VENUE, symbols)
    paper = PaperConfig(request=LegConfig(kind="uniform", low_ms=2.0, high_ms=30.0), max_wait_ms=60_000)
    broker = PaperBroker(instruments, cost=CostConfig(), paper=paper, start_e8=10**6 * E8)
    tick_e8 = [instrument.tick_size_e8 for instrument in instruments]
    best: dict[int, tuple[int, int]] = {}
    kinds: Counter[ReportKind] = Counter()
    cash, order_id, seen = broker.account.start_e8, 0, 0
    held = [0] * len(symbols)
    for ticks in archive.tick_batches(VENUE, symbols):
        for tick in ticks:
            seen += 1
            index, at_ns, unit = int(tick["symbol"]), int(tick["exch_ns"]), tick_e8[int(tick["symbol"])]
            px0, px1 = int(tick["px0"]) * unit, int(tick["px1"]) * unit
            qty0, qty1 = round(float(tick["q0"]) * E8), round(float(tick["q1"]) * E8)
            reports = ()
            if tick["kind"] == TickKind.QUOTE:
                best[index] = (px0, px1)
                reports = broker.on_quote(index, at_ns, px0, qty0, px1, qty1)
            elif tick["kind"] == TickKind.TRADE:
                reports = broker.on_trade(index, at_ns, px0, qty0, int(tick["side"]))
            elif tick["kind"] == TickKind.MARK and np.isfinite(tick["q0"]):
                reports = broker.on_mark(index, at_ns, qty0)
            if seen % 5 == 0 and index in best:
                order_id += 1
                side = int(rng.choice((1, -1)))
                price = best[index][0 if side > 0 else 1]
                size = instruments[index].step_size_e8 * int(rng.integers(1, 400))
                tif = TimeInForce.GTX if order_id % 3 else TimeInForce.IOC
                broker.submit(
                    OrderRequest(order_id, index, side, size, price, time_in_force=tif), broker.now_ns
                )
                if order_id > 50:
                    broker.cancel(order_id - 50, broker.now_ns)
            for report in reports:
                kinds[report.kind] += 1
                if report.fill is not None:
                    fill = report.fill
                    held[fill.symbol_index] += fill.side * fill.qty_e8
                    cash -= round(Fraction(fill.price_e8 * fill.side * fill.qty_e8, E8)) + fill.fee_e8
    assert min(kinds[ReportKind.FILL], kinds[ReportKind.ACCEPTED], kinds[ReportKind.CANCELED]) > 20
    assert held == [position.qty_e8 for position in broker.account.positions]
    account = broker.account
    prices = [max(1, best.get(index, (1, 1))[0]) for index in range(len(symbols))]
    values = sum(position.value_e8(price) for position, price in zip(account.positions, prices, strict=True))
    assert account.cash_e8 == cash
    assert account.equity_e8(prices) == account.cash_e8 + values
