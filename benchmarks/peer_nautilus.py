"""Run by an interpreter that has NautilusTrader: its BacktestEngine over repeated data, with orders.

    python peer_nautilus.py OUT.npz GIVEN.npz

GIVEN.npz is written by ``benchmarks.bench_backtest``. The engine gets quotes and trades, and keeps the best
level only: it is spared the deeper books. Data are made pass by pass and not timed. Imports nothing of
gpuscalp.
"""

from __future__ import annotations

import sys
import time
from decimal import Decimal
from typing import Any

import numpy as np
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.config import LoggingConfig, RiskEngineConfig
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import QuoteTick, TradeTick
from nautilus_trader.model.enums import (
    AccountType,
    AggressorSide,
    OmsType,
    OrderSide,
    TimeInForce,
)
from nautilus_trader.model.identifiers import TradeId, Venue
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.trading.strategy import Strategy


class Sender(Strategy):
    """Sends each order at its time, and cancels it at the time given for that."""

    def __init__(self, instrument: Any, orders: np.ndarray) -> None:
        super().__init__()
        self.instrument, self.rows = instrument, orders.tolist()
        self.sent: dict[str, int] = {}
        self.open: dict[int, Any] = {}
        self.seen = np.zeros((len(orders), 3), np.int64)

    def on_start(self) -> None:
        self._next(0)

    def _next(self, row: int) -> None:
        if row < len(self.rows):
            self.clock.set_time_alert_ns(f"send-{row}", self.rows[row][1], self._send)

    def _send(self, event: Any) -> None:
        row = int(event.name.removeprefix("send-"))
        _, _, side, ticks, lots, rests, cancel_ns = self.rows[row]
        order = self.order_factory.limit(
            self.instrument.id,
            OrderSide.BUY if side > 0 else OrderSide.SELL,
            Quantity(lots / 1e3, 3),
            Price(ticks / 10, 1),
            time_in_force=TimeInForce.GTC if rests else TimeInForce.IOC,
            post_only=bool(rests),
        )
        self.sent[order.client_order_id.value] = row
        self.open[row] = order
        self.submit_order(order)
        if cancel_ns:
            self.clock.set_time_alert_ns(f"cancel-{row}", cancel_ns, self._cancel)
        self._next(row + 1)

    def _cancel(self, event: Any) -> None:
        order = self.open.pop(int(event.name.removeprefix("cancel-")))
        if not order.is_closed:
            self.cancel_order(order)

    def on_order_accepted(self, event: Any) -> None:
        self.seen[self.sent[event.client_order_id.value], 0] = 1

    def on_order_rejected(self, event: Any) -> None:
        self.seen[self.sent[event.client_order_id.value], 0] = 1

    def on_order_filled(self, event: Any) -> None:
        row = self.sent[event.client_order_id.value]
        self.seen[row, 0] = 1
        self.seen[row, 1] += round(float(event.last_qty) * 1e3)
        self.seen[row, 2] = round(float(event.last_px) * 10)


def ticks_of(rows: dict[str, np.ndarray], instrument: Any, shift_ns: int) -> list[Any]:
    made: list[Any] = []
    columns = zip(*(rows[name].tolist() for name in ("kind", "ts", "a", "qa", "b", "qb")), strict=True)
    for number, (kind, ts, a, qty_a, b, qty_b) in enumerate(columns):
        at_ns = ts + shift_ns
        if kind == 1:
            made.append(
                QuoteTick(
                    instrument.id, Price(a / 10, 1), Price(b / 10, 1),
                    Quantity(qty_a / 1e3, 3), Quantity(qty_b / 1e3, 3), at_ns, at_ns,
                )
            )  # fmt: skip
        else:
            side = AggressorSide.BUYER if b > 0 else AggressorSide.SELLER
            trade_id = TradeId(str(number))
            made.append(
                TradeTick(
                    instrument.id, Price(a / 10, 1), Quantity(qty_a / 1e3, 3), side, trade_id, at_ns, at_ns
                )
            )
    return made


def main(out: str, given: str) -> None:
    stored = np.load(given)
    rows = {name: stored[f"row_{name}"] for name in ("kind", "ts", "a", "qa", "b", "qb")}
    passes, period_ns = int(stored["passes"]), int(stored["period_ns"])
    instrument = TestInstrumentProvider.btcusdt_perp_binance()
    engine = BacktestEngine(
        BacktestEngineConfig(
            logging=LoggingConfig(bypass_logging=True),
            risk_engine=RiskEngineConfig(bypass=True),
            run_analysis=False,
        )
    )
    engine.add_venue(
        Venue("BINANCE"),
        OmsType.NETTING,
        AccountType.MARGIN,
        [Money(1_000_000_000, USDT)],
        default_leverage=Decimal(125),
        latency_model=LatencyModel(base_latency_nanos=int(stored["request_ns"])),
        use_reduce_only=True,
        queue_position=True,
        liquidity_consumption=True,
    )
    engine.add_instrument(instrument)
    strategy = Sender(instrument, stored["orders"])
    engine.add_strategy(strategy)
    seconds, events = 0.0, 0
    for number in range(passes):
        ticks = ticks_of(rows, instrument, number * period_ns)
        engine.add_data(ticks, validate=False)
        events += len(ticks)
        begin_s = time.perf_counter()
        engine.run(streaming=True)
        seconds += time.perf_counter() - begin_s
        engine.clear_data()
    engine.end()
    np.savez(out, seen=strategy.seen, seconds=np.array([seconds]), events=events, left_out=[])


if __name__ == "__main__":
    main(*sys.argv[1:3])
