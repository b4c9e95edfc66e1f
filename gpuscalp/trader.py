"""One trading step: frame and signals in, orders out; fills come back. The one path of backtest and live.

Owns: the composition strategy → sizing → risk gate → order, the account, open orders, order ids.
Never: knows a clock, a socket, a file, or how an order is executed: whoever calls :meth:`Trader.step` sends
the orders somewhere and answers with :meth:`Trader.on_fill` and :meth:`Trader.on_done`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from gpuscalp.account import Account
from gpuscalp.config import TradingConfig
from gpuscalp.open_orders import OpenOrders
from gpuscalp.order_policy import OrderPolicy, Wanted
from gpuscalp.orders import (
    Conditions,
    Fill,
    Intent,
    IntentKind,
    MarketRow,
    Order,
    OrderKind,
    SignalRow,
    Verdict,
)
from gpuscalp.risk.exposure import Exposure
from gpuscalp.risk.gate import RiskEvent, RiskGate, RiskState
from gpuscalp.risk.inquiry import Inquiry
from gpuscalp.risk.rules import Question
from gpuscalp.risk.sizing import Sizing, Surroundings
from gpuscalp.risk.volatility import Volatility
from gpuscalp.schema import E8, I64, Instrument
from gpuscalp.strategy import Holdings, Strategy


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did. Monitoring reads it; nothing below knows who reads.

    Attributes
    ----------
    intents, verdicts : pairwise
    cancels : ids of open orders whose end is to be asked for, before the orders are sent
    orders : of the accepted intents, to be sent in this order
    skips : int64[len(SKIP_REASONS)]  symbols without an intent, by reason
    equity_e8 : wallet + open positions at the price they could be closed at (``Exposure.note_quote``)
    gross_e8 : Σ |value| of open positions
    event : what has latched in this step, if anything
    """

    end_ns: int
    intents: tuple[Intent, ...]
    verdicts: tuple[Verdict, ...]
    cancels: tuple[int, ...]
    orders: tuple[Order, ...]
    skips: I64
    equity_e8: int
    gross_e8: int
    event: RiskEvent | None


@dataclass(slots=True)
class _Step:
    """What one step was given, the equity that it found, and what has come of it so far."""

    market: MarketRow
    signals: SignalRow
    conditions: Conditions
    equity_e8: int
    cancels: list[int] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)


@final
class Trader:
    """A strategy, a risk gate and an account over S symbols.

    The caller must, for every frame in order: first report all fills that happened up to the frame's end
    (:meth:`on_fill` or :meth:`on_foreign_fill`, then :meth:`on_done` once per order), then funding
    (:meth:`on_funding`), then call :meth:`step` and send its orders.

    Holds plain data only (numbers, text, containers, arrays, instances of such): a checkpoint walks it.

    Parameters
    ----------
    config : a session's; only the sections of TradingConfig are read
    instruments : S of them, in the order of all arrays of axis S
    horizon_ms : the model's label horizon
    trained_until_ns : end of the model's training data, None if not known; to be set with every new model

    Attributes
    ----------
    sides : int64[S]  signs of the positions
    last_order_id : the last id that was given out; 0 before the first
    """

    def __init__(
        self,
        config: TradingConfig,
        instruments: Sequence[Instrument],
        *,
        horizon_ms: int,
        trained_until_ns: int | None,
    ) -> None:
        risk, sizing = config.risk, config.sizing
        start_e8 = round(config.account.start_usdt * E8)
        count = len(instruments)
        self.instruments = tuple(instruments)
        self.strategy = Strategy(config.strategy, config.cost, horizon_ms=horizon_ms)
        self.sizing = Sizing(sizing, risk)
        self.account = Account(start_e8, count)
        self.gate = RiskGate(risk, start_e8=start_e8, symbol_count=count)
        self.volatility = Volatility(count, short_ms=risk.volatility_ms, long_ms=sizing.volatility_ms)
        self.orders = OpenOrders(count)
        self.policy = OrderPolicy(
            config.orders,
            instruments,
            self.orders,
            hold_ns=self.strategy.hold_ns,
        )
        self.exposure = Exposure(instruments, self.account, self.orders, old_ms=risk.max_quote_age_ms)
        self.inquiry = Inquiry(
            instruments,
            exposure=self.exposure,
            sizing=self.sizing,
            gate=self.gate,
            volatility=self.volatility,
            hold_ns=self.strategy.hold_ns,
        )
        self.trained_until_ns = trained_until_ns
        self.sides = np.zeros(count, np.int64)
        self._decided_ns = np.zeros(count, np.int64)
        # Result so far of the round trip that is open; time of the last execution, -1 before the first.
        self._pnl_e8 = [0] * count
        self._traded_ns = [-1] * count
        self.last_order_id = 0
        self._now_ns = 0

    def step(self, market: MarketRow, signals: SignalRow, conditions: Conditions) -> StepReport:
        """Decide on one closed frame.

        Parameters
        ----------
        market, signals, conditions : of S symbols; not modified and not kept
        """
        now_ns = self._now_ns = conditions.now_ns
        exposure = self.exposure
        for index in exposure.watched():
            exposure.note_quote(market, index)
        self.volatility.observe(market.end_ns, market.bid_px, market.ask_px)
        values = exposure.closing_values_e8()
        equity = exposure.equity_e8(values)
        event = self.gate.observe(now_ns, equity, self.volatility.short_bps)
        decision = self.strategy.decide(market, signals, self._holdings())
        step = _Step(market, signals, conditions, equity)
        step.cancels += self._overdue(step)
        for intent in decision.intents:
            if intent.kind is IntentKind.ENTER:
                self._enter(step, intent)
            else:
                self._leave(step, intent)
        if self.policy.protects:
            self._protect(step)
        self.policy.forget_rests()
        return StepReport(
            end_ns=market.end_ns,
            intents=tuple(step.intents),
            verdicts=tuple(step.verdicts),
            cancels=tuple(step.cancels),
            orders=tuple(step.orders),
            skips=decision.skips,
            equity_e8=equity,
            gross_e8=sum(abs(value) for value in values.values()),
            event=event,
        )

    def on_fill(self, fill: Fill) -> int:
        """Book one execution of an open order; return the profit that it realised, in units."""
        alive = self.orders.by_id[fill.order_id]
        assert (fill.symbol_index, fill.side) == (alive.order.symbol_index, alive.order.side)
        alive.left_e8 -= fill.qty_e8
        # The holding time runs from the decision: that is where the model's horizon starts.
        return self._book(fill, alive.order.decided_ns)

    def on_foreign_fill(self, fill: Fill) -> int:
        """Book an execution that no order of ours asked for (a liquidation); return the profit realised."""
        self.exposure.forget(fill.symbol_index)
        return self._book(fill, fill.exec_ns)

    def on_done(self, order_id: int, *, refused: bool = False) -> Order:
        """Forget an order that has ended; its symbol is free, or a while later if it was ``refused``."""
        alive = self.orders.remove(order_id)
        held = self.account.positions[alive.order.symbol_index].qty_e8 != 0
        self.policy.on_done(alive, self._now_ns, held=held, refused=refused)
        return alive.order

    def on_funding(self, symbol_index: int, payment_e8: int) -> None:
        """Book funding of one symbol (-1: of the account) as paid out (negative: charged), in units."""
        self.account.receive_funding(payment_e8)
        if symbol_index >= 0 and self.account.positions[symbol_index].qty_e8:
            self._pnl_e8[symbol_index] += payment_e8

    def apply(self, event: RiskEvent, now_ns: int) -> RiskState:
        """Let an operator, or the program, change the state of the gate; return the new one.

        After REDUCE the caller must cancel :meth:`risk_increasing_orders`; after FLATTEN all open orders, and
        then send what :meth:`flatten` returns, again and again until no position is left.

        Raises
        ------
        UsageError
            there is no such transition; nothing has changed
        """
        self._now_ns = now_ns
        return self.gate.apply(event, now_ns)

    def risk_increasing_orders(self) -> tuple[Order, ...]:
        """Return the open orders that would add risk if they were filled, oldest first."""
        return tuple(order for order in self.open_orders.values() if not order.reduce_only)

    def on_cancel(self, order_id: int) -> None:
        """Note that the caller asks for the end of an open order, of which no step has said so."""
        self.orders.ask((self.orders.by_id[order_id],), self._now_ns)

    def flatten(
        self, market: MarketRow, reason: str, only: Collection[int] | None = None
    ) -> tuple[Order, ...]:
        """Return one closing order per open position (of some symbols) that no entry or exit is open for.

        Of a position larger than the largest market order it closes so much.
        It passes by the risk gate on purpose: closing everything must work in every state of the gate.
        """
        orders = []
        for index in sorted(self.exposure.holding):
            if self.orders.waiting[index] or (only is not None and index not in only):
                continue
            position = self.account.positions[index]
            self.exposure.note_quote(market, index)
            intent = Intent(index, -position.side, IntentKind.EXIT, None, reason, 0.0, 0.0, 0.0, 0.0)
            orders.append(self._open(self._order(market, intent, abs(position.qty_e8))))
        return tuple(orders)

    @property
    def open_orders(self) -> Mapping[int, Order]:
        """Orders that have not ended at this moment, oldest first."""
        return {order_id: alive.order for order_id, alive in self.orders.by_id.items()}

    def resume_ids(self, last_order_id: int) -> None:
        """Go on counting orders after an id that was used before a restart."""
        self.last_order_id = max(self.last_order_id, last_order_id)

    def equity_e8(self) -> int:
        """Return the equity at the quotes of the last step, positions at their closing side."""
        return self.exposure.equity_e8(self.exposure.closing_values_e8())

    def gross_e8(self) -> int:
        """Return Σ |value| of open positions at the quotes of the last step."""
        return sum(abs(value) for value in self.exposure.closing_values_e8().values())

    def _book(self, fill: Fill, decided_ns: int) -> int:
        index = fill.symbol_index
        position = self.account.positions[index]
        before = position.qty_e8
        realised = self.account.apply_fill(index, fill.side * fill.qty_e8, fill.price_e8, fill.fee_e8)
        self._traded_ns[index] = fill.exec_ns
        self.sides[index] = position.side
        self._pnl_e8[index] += realised - fill.fee_e8
        if before and before * position.qty_e8 <= 0:
            self.gate.on_trade(self._pnl_e8[index])
            self._pnl_e8[index] = 0
        if position.qty_e8 == 0:
            self._decided_ns[index] = 0
            self.exposure.holding.discard(index)
            self.policy.on_flat(index)
        elif before * position.qty_e8 <= 0:
            self._decided_ns[index] = decided_ns
            self.exposure.holding.add(index)
        return realised

    def _holdings(self) -> Holdings:
        waiting = self.orders.waiting | (self.policy.again_ns > self._now_ns)
        if self.policy.protects:
            # What protected a position that is closed has to end before the next one begins.
            waiting = waiting | (self.orders.guarded & (self.sides == 0))
        return Holdings(self.sides, waiting, self._decided_ns, self.policy.rests_e8)

    def _overdue(self, step: _Step) -> list[int]:
        if not len(self.orders):
            return []
        signals = step.signals

        def unwanted(entry: Order) -> bool:
            index = entry.symbol_index
            if signals.edge_bps[index] * entry.side < 0 and self.strategy.may_act(signals)[index]:
                return True
            around = Surroundings(entry.price_e8, 0, 0, 0, step.equity_e8, 0.0, 0.0, 0.0)  # sizes: not asked
            return not self.gate.judge(self._question(step, entry, around), resting=True).accepted

        return self.policy.to_cancel(self._now_ns, step.market.end_ns, self.sides, unwanted)

    def _enter(self, step: _Step, intent: Intent) -> None:
        """Size an entry, or what is left of one, and ask the gate."""
        index, policy = intent.symbol_index, self.policy
        self.exposure.note_quote(step.market, index)
        rest = policy.rest_of(intent)
        rests = policy.rests_first and not rest
        # A resting order stands at its own side of the quote; any other one crosses.
        price = self.exposure.touch_e8(index, intent.side if rests else -intent.side)
        around = self._surroundings(step, index, price)
        scale = self.sizing.scale(intent, around)
        qty = self.sizing.qty_e8(intent, scale, around, self.instruments[index])
        order = self._order(step.market, intent, min(qty, rest) if rest else qty)
        self._ask(step, policy.shape_entry(order, price) if rests else order, around)

    def _leave(self, step: _Step, intent: Intent, wanted: Wanted | None = None) -> bool:
        """Ask the gate for an exit, or for an order that waits to become one; return whether it is sent."""
        index = intent.symbol_index
        self.exposure.note_quote(step.market, index)
        around = self._surroundings(step, index, self.exposure.touch_e8(index, -intent.side))
        order = self._order(step.market, intent, around.held_e8)
        if not self._ask(step, order if wanted is None else wanted.shape(order), around):
            return False
        if wanted is None or wanted.kind is OrderKind.MARKET:
            step.cancels += self.orders.ask(self.orders.guards(index), self._now_ns)
        return True

    def _protect(self, step: _Step) -> None:
        """Bring the brackets in line with what is held."""
        for index in sorted(self.exposure.holding):
            if self.orders.leaving(index):
                continue
            position = self.account.positions[index]
            closing = self.exposure.sound_e8(step.market, index, position.side)
            for wanted, replaced in self.policy.protection(index, position, closing, self._now_ns):
                if self._leave(step, wanted.intent(), wanted):
                    step.cancels += self.orders.ask(replaced, self._now_ns)

    def _ask(self, step: _Step, order: Order, around: Surroundings) -> bool:
        verdict = self.gate.judge(self._question(step, order, around))
        step.intents.append(order.intent)
        step.verdicts.append(verdict)
        if verdict.accepted:
            step.orders.append(self._open(order))
        return verdict.accepted

    def _question(self, step: _Step, order: Order, around: Surroundings) -> Question:
        # The rest of an entry is no new one: the interval since the last execution is none of its business.
        fresh = not self.policy.rest_of(order.intent)
        return self.inquiry.question(
            order,
            around,
            market=step.market,
            signals=step.signals,
            conditions=step.conditions,
            traded_ns=self._traded_ns[order.symbol_index] if fresh else -1,
            trained_until_ns=self.trained_until_ns,
        )

    def _surroundings(self, step: _Step, index: int, price_e8: int) -> Surroundings:
        spread_bps = float(step.signals.spread_bps[index])
        return self.inquiry.surroundings(index, price_e8, step.equity_e8, edge_spread_bps=spread_bps)

    def _order(self, market: MarketRow, intent: Intent, qty_e8: int) -> Order:
        """Return a market order of a quantity, or of as much as one can have: the next frame goes on.

        An entry that will rest is cut as well: what protects its position, and what closes it, takes.
        """
        index = intent.symbol_index
        return Order(
            order_id=self.last_order_id + 1,
            symbol_index=index,
            side=intent.side,
            qty_e8=self.instruments[index].at_market_e8(qty_e8),
            reduce_only=intent.kind is IntentKind.EXIT,
            decided_ns=market.end_ns,
            mid2_e8=self.exposure.bid_e8[index] + self.exposure.ask_e8[index],
            intent=intent,
        )

    def _open(self, order: Order) -> Order:
        self.last_order_id = order.order_id
        self.orders.add(order)
        self.gate.on_order(self._now_ns)
        return order
