"""Trader, gate and paper broker under whatever comes: markets, signals, doubts, latencies, stops, restarts.

After every step an oracle (tests/risk/oracle.py) that only saw what went in and out says whether any limit
was passed, whether any refusal was without reason, and whether money, liquidity and time are as they must be.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from gpuscalp import object_graph
from gpuscalp.account import Account
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
from gpuscalp.errors import UsageError
from gpuscalp.execution.booking import book, request_of
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.inbox import Inbox
from gpuscalp.execution.messages import Report
from gpuscalp.orders import Conditions, MarketRow, Order
from gpuscalp.risk.gate import RiskEvent
from gpuscalp.schema import Instrument
from gpuscalp.trader import Trader
from tests.risk.oracle import E8, Oracle
from tests.risk.scenes import CONDITIONS, FIXED, LIMITS, MOVE, SIDE_LEVELS, VIEW, Shown, signals

MS = 1_000_000
NOON = (19_700 * 86_400 + 43_200) * 10**9
TICK = E8 // 100
# Tick 0.01, step 0.001, at least 5 USDT: a price of 10,000 ticks is 100.
INSTRUMENTS = [
    Instrument(name, "synthetic", TICK, E8 // 1_000, E8 // 1_000, 5 * E8, "synthetic")
    for name in ("ONEUSDT", "TWOUSDT")
]
HOLD_MS, REST_MS = 400, 300


class RiskMachine(RuleBasedStateMachine):
    """One trader at one paper exchange."""

    step_count = 0
    seen: ClassVar[Counter[str]] = Counter()

    @initialize(
        limits=LIMITS,
        start=st.sampled_from([5_000, 600, 100]),
        order_usdt=st.sampled_from([1_000.0, 250.0]),
        sizing=st.sampled_from([True, False]),
        latency=st.sampled_from([(0.0, 0.0), (3.0, 60.0)]),
        seed=st.integers(0, 3),
        meets=st.sampled_from(["next", "last"]),
        entry=st.sampled_from(["taker", "taker", "post_only"]),
    )
    def start(
        self,
        limits: dict[str, Any],
        start: int,
        order_usdt: float,
        sizing: bool,
        latency: tuple[float, float],
        seed: int,
        meets: str,
        entry: str = "taker",
    ) -> None:
        self.orders = OrdersConfig(entry=entry, post_only_ms=REST_MS)  # type: ignore[arg-type]
        self.risk = RiskConfig(**limits, **FIXED)
        off = SizingConfig(target_volatility_bps="off", kelly_fraction="off", drawdown=False)
        self.sizing = SizingConfig(target_volatility_bps=20.0) if sizing else off
        self.order_usdt, self.start_usdt = order_usdt, float(start)
        leg = LegConfig(kind="uniform", low_ms=latency[0], high_ms=latency[1])
        self.broker = PaperBroker(
            INSTRUMENTS,
            cost=self.cost,
            paper=PaperConfig(request=leg, reply=leg, seed=seed, meets=meets, leverage=20),  # type: ignore[arg-type]
            start_e8=start * E8,
        )
        self.inbox = Inbox()
        self.now_ns = NOON
        self.oracle = Oracle(
            {
                **limits, **FIXED, "long_ms": self.sizing.volatility_ms, "hold_ms": HOLD_MS,
                "blocked_bits": 1 | 2 | 4 | 8 | 32 | 64,
            },
            INSTRUMENTS, start * E8, NOON - 3_600 * 10**9,
        )  # fmt: skip
        self.trader = self.made()
        self.told = Account(start * E8, 2)
        self.shown = [{1: Shown(), -1: Shown()} for _ in INSTRUMENTS]
        self.bid = [10_000, 10_000]
        self.mark = [100.0, 100.0]
        self.arrivals: dict[int, int] = {}
        self.sent: set[int] = set()
        self.flattening = False
        for symbol in (0, 1):
            self.display(symbol, 0, 1, [9, 9, 9], [9, 9, 9])
            self.announce(symbol, 0.0, 0, 0)
        self.close_sound_frame(100, (0, 0))

    cost = CostConfig(taker_fee_bps=1.0, maker_fee_bps=0.0)

    def made(self) -> Trader:
        config = BacktestConfig(
            strategy=StrategyConfig(
                min_confidence=0.3, min_agreement=0.0, hold_ms=HOLD_MS, order_usdt=self.order_usdt
            ),
            sizing=self.sizing,
            risk=self.risk,
            cost=self.cost,
            account=AccountConfig(start_usdt=self.start_usdt),
            orders=self.orders,
        )
        return Trader(config, INSTRUMENTS, horizon_ms=HOLD_MS, trained_until_ns=NOON - 3_600 * 10**9)

    def go(self, dt_ms: int, *, steps: int = 1) -> None:
        """Let time pass; count the steps of the machine."""
        type(self).step_count += steps
        self.now_ns += dt_ms * MS

    # The market

    def display(
        self, symbol: int, move: int, gap: int, bid_qtys: list[int], ask_qtys: list[int], far: int = 500
    ) -> None:
        self.bid[symbol] = max(3_000, self.bid[symbol] + move)
        sides = {}
        for sign, best, qtys in ((-1, self.bid[symbol], bid_qtys), (1, self.bid[symbol] + gap, ask_qtys)):
            levels = {(best + sign * at) * TICK: qty * E8 for at, qty in enumerate(qtys)}
            if far:
                levels[(best + sign * 30) * TICK] = far * E8
            sides[sign] = levels
        reports = self.broker.on_book(
            symbol, self.now_ns, [*sides[-1]], [*sides[-1].values()], [*sides[1]], [*sides[1].values()]
        )
        # What was executed before this state met the one before.
        self.take_in(tuple(report for report in reports if report.at_ns < self.now_ns))
        for sign, levels in sides.items():
            self.shown[symbol][sign].show(levels)
        self.take_in(tuple(report for report in reports if report.at_ns >= self.now_ns))

    def announce(self, symbol: int, off: float, rate: int, ahead_ms: int) -> None:
        self.mark[symbol] = self.bid[symbol] / 100 * (1 + off)
        self.take_in(
            self.broker.on_mark(
                symbol, self.now_ns, round(self.mark[symbol] * E8), rate, self.now_ns + ahead_ms * MS
            )
        )

    def take_in(self, reports: tuple[Report, ...]) -> None:
        """Check what happened at the exchange; it is not known here before the inbox gives it out."""
        for report in reports:
            fill = report.fill
            if fill is not None and report.reason != "liquidation":
                assert fill.exec_ns >= self.arrivals[fill.order_id], "no fill before its arrival"
                self.seen["maker"] += report.maker
            if fill is not None and report.reason != "liquidation" and not report.maker:
                self.shown[fill.symbol_index][fill.side].take(fill.side, fill.price_e8, fill.qty_e8)
            if fill is not None:
                self.told.apply_fill(fill.symbol_index, fill.side * fill.qty_e8, fill.price_e8, fill.fee_e8)
            if report.kind.value == "funding":
                self.told.receive_funding(report.money_e8)
            if report.kind.value in ("liquidation", "funding", "rejected"):
                self.seen[report.kind.value] += 1
        self.inbox.put(reports)

    @rule(
        dt=st.sampled_from([1, 20, 100]),
        symbol=st.integers(0, 1),
        move=MOVE,
        gap=st.sampled_from([1, 1, 2, 9]),
        bids=SIDE_LEVELS,
        asks=SIDE_LEVELS,
    )
    def book_moves(self, dt: int, symbol: int, move: int, gap: int, bids: list[int], asks: list[int]) -> None:
        self.go(dt)
        self.display(symbol, move, gap, bids, asks)

    @rule(
        dt=st.sampled_from([0, 5]),
        symbol=st.integers(0, 1),
        off=st.sampled_from([0.0, 0.001, -0.01, 0.03, -0.12, 0.12]),
        rate=st.sampled_from([0, 10_000, -200_000]),
        ahead_ms=st.sampled_from([0, 50, 400]),
    )
    def mark_is_announced(self, dt: int, symbol: int, off: float, rate: int, ahead_ms: int) -> None:
        self.go(dt)
        self.announce(symbol, off, rate, ahead_ms)

    @rule(by=st.sampled_from([300, 1_000, 3_000]))
    def market_turns_against_us(self, by: int) -> None:
        self.go(50)
        for symbol, position in enumerate(self.broker.account.positions):
            if position.qty_e8:
                self.display(symbol, by if position.qty_e8 < 0 else -by, 1, [9, 9, 9], [9, 9, 9])
                self.announce(symbol, 0.0, 0, 0)

    @rule(pause_ms=st.sampled_from([500, 5_000, 61_000, 12 * 3_600_000]))
    def time_passes(self, pause_ms: int) -> None:
        self.go(pause_ms)
        self.take_in(self.broker.advance(self.now_ns))

    # The trader

    @rule(dt=st.sampled_from([20, 60, 100, 300]), views=st.tuples(VIEW, VIEW), conditions=CONDITIONS)
    def frame_closes(self, dt: int, views: tuple[dict[str, Any], ...], conditions: dict[str, Any]) -> None:
        self.go(0)
        self.close_frame(dt, views, conditions)

    @rule(
        signs=st.tuples(*[st.sampled_from([1, -1, 1, -1, 0])] * 2),
        moves=st.lists(st.sampled_from([0, 1, -1, 1, -1, 3, -3, 25]), min_size=2, max_size=8),
    )
    def sound_frames_close(self, signs: tuple[int, ...], moves: list[int]) -> None:
        """One step of the count, some frames of trading: long enough for a round trip."""
        for move in moves:
            self.go(40, steps=0)
            for symbol in (0, 1):
                self.display(symbol, move, 1, [9, 9, 9], [9, 9, 9])
                self.announce(symbol, 0.0, 0, 0)
            self.close_sound_frame(60, signs)
        self.go(0)

    def close_sound_frame(self, dt: int, signs: tuple[int, ...]) -> None:
        good = {"confidence": 0.7, "agreement": 1.0, "spread": 0.0, "sum": 0.0, "quality": 0, "age_ms": 1.0}
        views = tuple({"edge": sign * 30.0, "quote": "as shown", **good} for sign in signs)
        self.close_frame(dt, views, {"late_ms": 5, "clock": 0.0, "device": True, "extra": None})

    def close_frame(self, dt: int, views: tuple[dict[str, Any], ...], conditions: dict[str, Any]) -> None:
        self.go(dt, steps=0)
        row, said = self.row(views), signals(views)
        self.now_ns += conditions["late_ms"] * MS
        self.take_in(self.broker.advance(self.now_ns))
        for report in self.inbox.due(self.now_ns):
            booked = book(self.trader, report)
            assert (booked is not None) == (report.fill is not None)
            self.oracle.on_report(report)
        extra = conditions["extra"]
        what = Conditions(
            now_ns=self.now_ns,
            clock_error_ms=conditions["clock"],
            device_ok=conditions["device"],
            extra_quality=None if extra is None else np.array(extra, np.uint32),
        )
        done = self.trader.step(row, said, what)
        self.oracle.observe(row, self.now_ns)
        self.seen["would not rest"] += self.oracle.check_resting(done.cancels, row, said, what, REST_MS)
        for order_id in done.cancels:
            self.broker.cancel(order_id, self.now_ns)
        orders = list(done.orders)
        for intent, verdict in zip(done.intents, done.verdicts, strict=True):
            if not verdict.accepted:
                self.seen[verdict.code] += 1
                self.oracle.check_refused(
                    intent, verdict.code, row, said, what, self.orders.entry == "post_only"
                )
                continue
            order = orders.pop(0)
            assert order.intent is intent
            self.seen["entry" if intent.reason == "edge" else "exit"] += 1
            self.oracle.check_accepted(order, row, said, what)
            self.send(order)
        assert not orders, "a refused intent never reaches the broker"
        assert done.equity_e8 == self.oracle.equity()
        if self.flattening:
            self.flatten(row)

    def row(self, views: tuple[dict[str, Any], ...]) -> MarketRow:
        bid = np.array(self.bid, np.int32)
        ask = np.array([min(self.shown[symbol][1].levels) // TICK for symbol in (0, 1)], np.int32)
        for symbol, view in enumerate(views):
            if view["quote"] == "none":
                bid[symbol] = 0
            elif view["quote"] == "crossed":
                bid[symbol] = ask[symbol] + 1
        return MarketRow(
            end_ns=self.now_ns,
            bid_px=bid,
            ask_px=ask,
            mark=np.array(self.mark),
            quality=np.array([view["quality"] for view in views], np.uint32),
            age_ms=np.array([view["age_ms"] for view in views], np.float32),
        )

    def send(self, order: Order) -> None:
        self.oracle.on_sent(order, self.now_ns)
        self.sent.add(order.order_id)
        self.arrivals[order.order_id] = self.broker.submit(request_of(order), self.now_ns)
        assert self.arrivals[order.order_id] >= self.now_ns

    def flatten(self, row: MarketRow) -> None:
        held = [one.qty for one in self.oracle.symbols]
        waiting = {order.symbol_index for order, _ in self.oracle.open.values()}
        orders = self.trader.flatten(row, "flatten")
        assert {order.symbol_index for order in orders} == {i for i in (0, 1) if held[i]} - waiting
        for order in orders:
            assert order.reduce_only
            assert order.side * order.qty_e8 == -held[order.symbol_index]
            self.send(order)
        self.flattening = any(held)
        self.seen["flattened"] += len(orders)

    # Operators and accidents

    @rule(event=st.sampled_from(["halt_entries", "reduce", "flatten", "halt"]))
    def operator_stops(self, event: str) -> None:
        self.go(0)
        state = self.trader.apply(RiskEvent(event), self.now_ns)
        assert self.oracle.apply(event)
        assert state.value == self.oracle.state
        adding = [order.order_id for order, _ in self.oracle.open.values() if not order.reduce_only]
        assert [order.order_id for order in self.trader.risk_increasing_orders()] == adding
        cancelled = {"reduce": adding, "flatten": list(self.oracle.open)}.get(event, [])
        for order_id in cancelled:
            self.broker.cancel(order_id, self.now_ns)
        self.flattening |= event == "flatten"

    @rule()
    def operator_rearms(self) -> None:
        self.go(0)
        if self.oracle.apply("rearm"):
            assert self.trader.apply(RiskEvent.REARM, self.now_ns).value == "active"
            self.flattening = False
            return
        try:
            self.trader.apply(RiskEvent.REARM, self.now_ns)
        except UsageError:
            return
        raise AssertionError("re-arming must be refused")

    @rule()
    def process_restarts(self) -> None:
        """The fourth stop: a new process takes over what was kept; the exchange has gone on meanwhile."""
        self.go(0)
        instruments = {"instruments": self.trader.instruments}
        kept = object_graph.encode(self.trader, external=instruments)
        self.trader = object_graph.decode(kept, external=instruments)

    # What always holds

    @invariant()
    def state_is_as_the_events_say(self) -> None:
        gate = self.trader.gate
        assert gate.state.value == self.oracle.state
        self.seen[gate.state.value] += 1

    @invariant()
    def nothing_is_at_the_broker_that_was_not_accepted(self) -> None:
        assert self.broker.orders.keys() <= self.sent
        assert self.trader.open_orders.keys() == self.oracle.open.keys()

    @invariant()
    def money_balances_to_the_last_unit(self) -> None:
        mids = [self.bid[symbol] * TICK + TICK // 2 for symbol in (0, 1)]
        for account in (self.trader.account, self.broker.account):
            value = sum(
                position.value_e8(price) for position, price in zip(account.positions, mids, strict=True)
            )
            equity = account.start_e8 + account.realised_e8 - account.fees_e8 + account.funding_e8
            assert equity + account.unrealised_e8(mids) == account.cash_e8 + value
        mine, oracle = self.trader.account, self.oracle
        assert (mine.cash_e8, mine.fees_e8, mine.funding_e8) == (oracle.cash, oracle.fees, oracle.funding)
        assert [position.qty_e8 for position in mine.positions] == [one.qty for one in oracle.symbols]
        # A client that had heard everything would have the broker's books.
        for name in ("cash_e8", "realised_e8", "fees_e8", "funding_e8", "turnover_e8", "positions"):
            assert getattr(self.told, name) == getattr(self.broker.account, name)
            if not self.inbox:
                assert getattr(mine, name) == getattr(self.broker.account, name)
