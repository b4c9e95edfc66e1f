"""A trader and a paper broker on one small market, frame by frame: what laws about orders are tried on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gpuscalp import object_graph
from gpuscalp.config import (
    AccountConfig,
    BacktestConfig,
    CostConfig,
    LegConfig,
    OrdersConfig,
    PaperConfig,
    RiskConfig,
    SizingConfig,
    StrategyConfig,
)
from gpuscalp.execution.booking import BookedFill, book, request_of
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.inbox import Inbox
from gpuscalp.orders import Conditions, Fill, IntentKind, MarketRow, Order, SignalRow
from gpuscalp.risk.gate import RiskEvent
from gpuscalp.schema import Instrument
from gpuscalp.trader import StepReport, Trader

E8 = 10**8
MS = 1_000_000
NOON = (19_700 * 86_400 + 43_200) * 10**9
TICK = E8 // 100
FRAME_MS, HOLD_MS = 100, 1_500
INSTRUMENTS = [
    Instrument(name, "synthetic", TICK, E8 // 1_000, E8 // 1_000, 5 * E8, "synthetic")
    for name in ("ONEUSDT", "TWOUSDT")
]
# Thousandths of a coin at 100 USDT: 0.5 to 20 coins, where an order asks for up to 2.5.
_QTYS = st.lists(st.sampled_from([500, 1_000, 20_000]), min_size=3, max_size=3)
_TRADE = st.tuples(
    st.integers(0, 1), st.integers(-3, 4), st.sampled_from([200, 1_500]), st.sampled_from([1, -1])
)
FRAME = st.fixed_dictionaries(
    {
        "moves": st.tuples(*[st.sampled_from([0, 0, 1, -1, 2, -2, 6, -6])] * 2),
        "gap": st.sampled_from([1, 1, 2]),
        "qtys": st.tuples(_QTYS, _QTYS),
        "trades": st.lists(_TRADE, max_size=3),
        "edges": st.tuples(*[st.sampled_from([30.0, 30.0, -30.0, 0.0, 1.0])] * 2),
    }
)
# With something for which nothing is opened.
DOUBTFUL_FRAME = st.tuples(FRAME, st.sampled_from([""] * 12 + ["device", "clock", "age"])).map(
    lambda drawn: {**drawn[0], "doubt": drawn[1]}
)
ORDERS = st.fixed_dictionaries(
    {
        "entry": st.sampled_from(["taker", "post_only"]),
        "then": st.sampled_from(["take", "leave"]),
        "post_only_ms": st.sampled_from([100, 300, 700]),
        "take_profit_bps": st.sampled_from([None, 3.0, 8.0]),
        "stop_loss_bps": st.sampled_from([None, 3.0, 8.0]),
    }
)
LATENCY = st.sampled_from([(0.0, 0.0), (5.0, 40.0), (50.0, 260.0)])


@dataclass
class Street:
    """One run. ``frame`` lets a frame pass; the lists tell what was done."""

    orders: dict[str, Any]
    latency: tuple[float, float] = (0.0, 0.0)
    meets: str = "last"
    seed: int = 0
    risk: dict[str, Any] = field(default_factory=dict)
    # In bps, of who takes and of who rested.
    fees: tuple[float, float] = (1.0, 0.0)
    # Quantity of one market order; 0 = any.
    largest_e8: int = 0
    sent: list[Order] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    fills: list[tuple[int, int, int, int, bool]] = field(default_factory=list)
    booked: list[BookedFill] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        leg = LegConfig(kind="uniform", low_ms=self.latency[0], high_ms=self.latency[1])
        config = BacktestConfig(
            strategy=StrategyConfig(min_confidence=0.3, min_agreement=0.0, hold_ms=HOLD_MS, order_usdt=250.0),
            sizing=SizingConfig(target_volatility_bps="off", kelly_fraction="off", drawdown=False),
            risk=RiskConfig(
                **{
                    "max_model_age_h": "off", "max_trade_risk_pct": "off", "max_volatility_bps": "off",
                    "max_losses": "off", "max_spread_bps": 50.0, "max_orders_per_s": 100,
                    "max_orders_per_minute": 5_000, "max_daily_loss_usdt": 1e6, "blocked_quality": (),
                    **self.risk,
                }
            ),
            cost=CostConfig(taker_fee_bps=self.fees[0], maker_fee_bps=self.fees[1]),
            account=AccountConfig(start_usdt=10_000.0),
            orders=OrdersConfig(**self.orders),
        )  # fmt: skip
        instruments = [replace(each, max_market_qty_e8=self.largest_e8) for each in INSTRUMENTS]
        self.trader = Trader(config, instruments, horizon_ms=HOLD_MS, trained_until_ns=None)
        self.broker = PaperBroker(
            instruments,
            cost=config.cost,
            paper=PaperConfig(request=leg, reply=leg, seed=self.seed, meets=self.meets),  # type: ignore[arg-type]
            start_e8=10_000 * E8,
        )
        self.inbox = Inbox()
        self.now_ns = NOON
        self.bid, self.ask = [10_000, 10_000], [10_001, 10_001]
        self.intended = [0, 0]
        self.flattening = False
        self.frame(quiet())

    @property
    def held(self) -> list[int]:
        """What is held at the exchange, whatever is known of it here."""
        return [position.qty_e8 for position in self.broker.account.positions]

    def frame(self, what: dict[str, Any]) -> StepReport:
        """Let the market do something for a frame, then hear, step and send."""
        for index in (0, 1):
            self.bid[index] += what["moves"][index]
            self.ask[index] = self.bid[index] + what["gap"]
            self._show(index, what["qtys"][index])
        for at, (index, off, qty, side) in enumerate(what["trades"], 1):
            price = (self.bid[index] + off) * TICK
            self._take(
                self.broker.on_trade(index, self.now_ns + at * 10 * MS, price, qty * E8 // 1_000, side)
            )
        for index in (0, 1):
            self._take(self.broker.on_mark(index, self.now_ns + 60 * MS, self.bid[index] * TICK))
        self.now_ns += FRAME_MS * MS
        self._take(self.broker.advance(self.now_ns))
        for report in self.inbox.due(self.now_ns):
            if (booked := book(self.trader, report)) is not None:
                self.booked.append(booked)
        edge, doubt = np.array(what["edges"]), what.get("doubt", "")
        up, down = np.where(edge > 0, 0.8, 0.1), np.where(edge < 0, 0.8, 0.1)
        row = MarketRow(
            end_ns=self.now_ns,
            bid_px=np.array(self.bid, np.int32),
            ask_px=np.array(self.ask, np.int32),
            mark=np.array(self.bid) / 100,
            quality=np.zeros(2, np.uint32),
            age_ms=np.full(2, 1e6 if doubt == "age" else 0.0, np.float32),
        )
        signals = SignalRow(np.stack([down, 1 - up - down, up], axis=1), np.ones(2), edge, np.zeros(2))
        clock_error_ms = 1e6 if doubt == "clock" else 0.0
        conditions = Conditions(self.now_ns, clock_error_ms, doubt != "device", None)
        done = self.trader.step(row, signals, conditions)
        self._send(done.cancels, done.orders)
        if self.flattening:
            self._send((), self.trader.flatten(row, "flatten"))
        return done

    def order(self, event: RiskEvent) -> None:
        """Let an operator stop something, and obey as the engine does."""
        self.trader.apply(event, self.now_ns)
        due: tuple[Order, ...] = ()
        if event is RiskEvent.FLATTEN:
            due, self.flattening = tuple(self.trader.open_orders.values()), True
        elif event is RiskEvent.REDUCE:
            due = self.trader.risk_increasing_orders()
        for each in due:
            self.trader.on_cancel(each.order_id)
        self._send([each.order_id for each in due], ())

    def inherit(self, index: int, qty_e8: int) -> None:
        """Let a position be there, here and at the exchange, that was opened elsewhere."""
        price = self.bid[index] * TICK
        self.broker.account.apply_fill(index, qty_e8, price, 0)
        side = 1 if qty_e8 > 0 else -1
        self.trader.on_foreign_fill(Fill(-1, index, side, abs(qty_e8), price, 0, self.now_ns, 2 * price))

    def restart(self) -> None:
        """Go on with everything as a checkpoint keeps it."""
        kept = object_graph.encode((self.trader, self.broker, self.inbox))
        self.trader, self.broker, self.inbox = object_graph.decode(kept)

    def open_of(self, index: int) -> list[Order]:
        return [order for order in self.trader.open_orders.values() if order.symbol_index == index]

    def _show(self, index: int, qtys: list[int]) -> None:
        unit = E8 // 1_000
        bids = [(self.bid[index] - at) * TICK for at in range(3)]
        asks = [(self.ask[index] + at) * TICK for at in range(3)]
        sizes = [qty * unit for qty in qtys]
        self._take(self.broker.on_book(index, self.now_ns, bids, sizes, asks, sizes))

    def _send(self, cancels: Any, orders: Any) -> None:
        for order_id in cancels:
            assert order_id in self.trader.open_orders, "only what is open can be cancelled"
            self.cancelled.append(order_id)
            self.broker.cancel(order_id, self.now_ns)
        for order in orders:
            if order.intent.kind is IntentKind.ENTER and not self.trader.sides[order.symbol_index]:
                assert not self.held[order.symbol_index], "an entry anew begins from nothing"
                self.intended[order.symbol_index] = order.qty_e8
            self.sent.append(order)
            self.broker.submit(request_of(order), self.now_ns)

    def _take(self, reports: Any) -> None:
        for report in reports:
            self.seen[f"{report.kind}{report.code or ''}"] += 1
            if report.fill is not None:
                fill = report.fill
                self.fills.append(
                    (fill.exec_ns, fill.order_id, fill.side * fill.qty_e8, fill.price_e8, report.maker)
                )
        self.inbox.put(reports)


def quiet(**changes: Any) -> dict[str, Any]:
    """Return a frame at which nothing happens."""
    still = [20_000, 20_000, 20_000]
    base = {"moves": (0, 0), "gap": 1, "qtys": (still, still), "trades": [], "edges": (0.0, 0.0)}
    return {**base, **changes}
