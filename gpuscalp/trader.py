"""One trading step: frame and signals in, orders out; fills come back. The one path of backtest and live.

Owns: the composition strategy → sizing → risk gate → order, the account, open orders, order ids.
Never: knows a clock, a socket, a file, or how an order is executed: whoever calls :meth:`Trader.step` sends
the orders somewhere and answers with :meth:`Trader.on_fill` and :meth:`Trader.on_done`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from gpuscalp.account import Account, notional_e8
from gpuscalp.config import AccountConfig, CostConfig, RiskConfig, SizingConfig, StrategyConfig
from gpuscalp.orders import BUY, Conditions, Fill, Intent, IntentKind, MarketRow, Order, SignalRow, Verdict
from gpuscalp.risk import RiskEvent, RiskGate, RiskState
from gpuscalp.risk_rules import Question, trade_risk_pct
from gpuscalp.schema import E8, F64, I64, NS_PER_MS, NS_PER_S, Instrument
from gpuscalp.sizing import Factors, Sizing, Surroundings
from gpuscalp.strategy import PREDICTED_REASONS, Holdings, Strategy
from gpuscalp.volatility import Volatility

_NS_PER_H = 3_600 * NS_PER_S
_UNKNOWN = float("nan")


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did. Monitoring reads it; nothing below knows who reads.

    Attributes
    ----------
    intents, verdicts : pairwise
    factors : of the sizes, pairwise with intents; None for exits
    orders : of the accepted intents, to be sent in this order
    skips : int64[len(SKIP_REASONS)]  symbols without an intent, by reason
    equity_e8 : wallet + open positions at the price they could be closed at (bid if long, ask if short)
    gross_e8 : Σ |value| of open positions
    event : what has latched in this step, if anything
    """

    end_ns: int
    intents: tuple[Intent, ...]
    verdicts: tuple[Verdict, ...]
    factors: tuple[Factors | None, ...]
    orders: tuple[Order, ...]
    skips: I64
    equity_e8: int
    gross_e8: int
    event: RiskEvent | None


@dataclass(frozen=True, slots=True)
class _Moment:
    """What one step was given, and the equity that it found."""

    market: MarketRow
    signals: SignalRow
    conditions: Conditions
    equity_e8: int


@final
class Trader:
    """A strategy, a risk gate and an account over S symbols.

    The caller must, for every frame in order: first report all fills that happened up to the frame's end
    (:meth:`on_fill` or :meth:`on_foreign_fill`, then :meth:`on_done` once per order), then funding
    (:meth:`on_funding`), then call :meth:`step` and send its orders.

    Holds plain data only (numbers, text, containers, arrays, instances of such): a checkpoint walks it.

    Parameters
    ----------
    strategy, sizing, risk, cost, account : their sections of the configuration
    instruments : S of them, in the order of all arrays of axis S
    horizon_ms : the model's label horizon
    trained_until_ns : end of the model's training data, None if not known; to be set with every new model
    """

    def __init__(
        self,
        *,
        strategy: StrategyConfig,
        sizing: SizingConfig,
        risk: RiskConfig,
        cost: CostConfig,
        account: AccountConfig,
        instruments: Sequence[Instrument],
        horizon_ms: int,
        trained_until_ns: int | None,
    ) -> None:
        start_e8 = round(account.start_usdt * E8)
        count = len(instruments)
        self.instruments = tuple(instruments)
        self.strategy = Strategy(strategy, cost, horizon_ms=horizon_ms)
        self.sizing = Sizing(sizing, risk)
        self.account = Account(start_e8, count)
        self.gate = RiskGate(risk, start_e8=start_e8, symbol_count=count)
        self.volatility = Volatility(count, short_ms=risk.volatility_ms, long_ms=sizing.volatility_ms)
        self.open_orders: dict[int, Order] = {}
        self.trained_until_ns = trained_until_ns
        self._tick_e8 = [instrument.tick_size_e8 for instrument in instruments]
        self._side = np.zeros(count, np.int64)
        self._waiting = np.zeros(count, np.bool_)
        self._decided_ns = np.zeros(count, np.int64)
        self._bid_e8 = [0] * count
        self._ask_e8 = [0] * count
        self._holding: set[int] = set()
        # Result so far of the round trip that is open; time of the last execution, -1 before the first.
        self._pnl_e8 = [0] * count
        self._traded_ns = [-1] * count
        self._left_e8: dict[int, int] = {}
        self._last_order_id = 0
        self._now_ns = 0

    def step(self, market: MarketRow, signals: SignalRow, conditions: Conditions) -> StepReport:
        """Decide on one closed frame.

        Parameters
        ----------
        market, signals, conditions : of S symbols; not modified and not kept
        """
        self._now_ns = conditions.now_ns
        for index in self._watched():
            self._note_quote(market, index)
        self.volatility.observe(market.end_ns, market.bid_px, market.ask_px)
        values = self.closing_values_e8()
        equity = self.account.wallet_e8 + sum(
            value - self.account.positions[index].cost_e8 for index, value in values.items()
        )
        event = self.gate.observe(conditions.now_ns, equity, self.volatility.short_bps)
        decision = self.strategy.decide(
            market, signals, Holdings(self._side, self._waiting, self._decided_ns)
        )
        moment = _Moment(market, signals, conditions, equity)
        verdicts: list[Verdict] = []
        factors: list[Factors | None] = []
        orders: list[Order] = []
        for intent in decision.intents:
            self._note_quote(market, intent.symbol_index)
            around = self._surroundings(moment, intent)
            scaled = None if intent.notional_usdt is None else self.sizing.factors(intent, around)
            order = self._order(market, intent, self._qty_e8(intent, scaled, around))
            verdict = self.gate.judge(self._question(moment, order, around))
            verdicts.append(verdict)
            factors.append(scaled)
            if verdict.accepted:
                orders.append(self._open(order))
        return StepReport(
            end_ns=market.end_ns,
            intents=decision.intents,
            verdicts=tuple(verdicts),
            factors=tuple(factors),
            orders=tuple(orders),
            skips=decision.skips,
            equity_e8=equity,
            gross_e8=sum(abs(value) for value in values.values()),
            event=event,
        )

    def on_fill(self, fill: Fill) -> int:
        """Book one execution of an open order; return the profit that it realised, in units."""
        order = self.open_orders[fill.order_id]
        assert fill.symbol_index == order.symbol_index
        assert fill.side == order.side
        self._left_e8[fill.order_id] -= fill.qty_e8
        # The holding time runs from the decision: that is where the model's horizon starts.
        return self._book(fill, order.decided_ns)

    def on_foreign_fill(self, fill: Fill) -> int:
        """Book an execution that no order of ours asked for (a liquidation); return the profit realised."""
        return self._book(fill, fill.exec_ns)

    def on_done(self, order_id: int) -> Order:
        """Forget an order that is filled, cancelled or expired; its symbol is free for the next intent."""
        order = self.open_orders.pop(order_id)
        del self._left_e8[order_id]
        self._waiting[order.symbol_index] = any(
            other.symbol_index == order.symbol_index for other in self.open_orders.values()
        )
        return order

    def on_funding(self, symbol_index: int, payment_e8: int) -> None:
        """Book funding of one symbol as it was paid out (negative: charged), in units."""
        self.account.receive_funding(payment_e8)
        if self.account.positions[symbol_index].qty_e8:
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

    def flatten(self, market: MarketRow, reason: str) -> tuple[Order, ...]:
        """Return one closing order per open position that has no order open.

        It passes by the risk gate on purpose: only closing orders come out of it, and closing everything must
        work in every state of the gate.
        """
        orders = []
        for index in sorted(self._holding):
            if self._waiting[index]:
                continue
            position = self.account.positions[index]
            self._note_quote(market, index)
            intent = Intent(index, -position.side, IntentKind.EXIT, None, reason, 0.0, 0.0, 0.0, 0.0)
            orders.append(self._open(self._order(market, intent, abs(position.qty_e8))))
        return tuple(orders)

    @property
    def last_order_id(self) -> int:
        """The last id that was given out; 0 before the first."""
        return self._last_order_id

    def resume_ids(self, last_order_id: int) -> None:
        """Go on counting orders after an id that was used before a restart."""
        self._last_order_id = max(self._last_order_id, last_order_id)

    @property
    def sides(self) -> I64:
        """int64[S]: signs of the positions."""
        return self._side

    def equity_e8(self) -> int:
        """Return the equity at the quotes of the last step, positions at their closing side."""
        return self.account.wallet_e8 + sum(
            value - self.account.positions[index].cost_e8 for index, value in self.closing_values_e8().items()
        )

    def gross_e8(self) -> int:
        """Return Σ |value| of open positions at the quotes of the last step."""
        return sum(abs(value) for value in self.closing_values_e8().values())

    def _book(self, fill: Fill, decided_ns: int) -> int:
        index = fill.symbol_index
        position = self.account.positions[index]
        before = position.qty_e8
        realised = self.account.apply_fill(index, fill.side * fill.qty_e8, fill.price_e8, fill.fee_e8)
        self._traded_ns[index] = fill.exec_ns
        self._side[index] = position.side
        self._pnl_e8[index] += realised - fill.fee_e8
        if before and before * position.qty_e8 <= 0:
            self.gate.on_trade(self._pnl_e8[index])
            self._pnl_e8[index] = 0
        if position.qty_e8 == 0:
            self._decided_ns[index] = 0
            self._holding.discard(index)
        elif before * position.qty_e8 <= 0:
            self._decided_ns[index] = decided_ns
            self._holding.add(index)
        return realised

    def _watched(self) -> set[int]:
        """Symbols that carry risk: held, or with an order on its way."""
        if not self.open_orders:
            return self._holding
        return self._holding | {order.symbol_index for order in self.open_orders.values()}

    def _note_quote(self, market: MarketRow, index: int) -> None:
        """Remember the last two-sided quote: a symbol that stops quoting keeps its last value."""
        bid, ask = int(market.bid_px[index]), int(market.ask_px[index])
        if bid > 0 and ask > 0:
            self._bid_e8[index] = bid * self._tick_e8[index]
            self._ask_e8[index] = ask * self._tick_e8[index]

    def closing_values_e8(self) -> dict[int, int]:
        """Signed value of each open position at the side of the quote it would be closed at."""
        values = {}
        for index in sorted(self._holding):
            position = self.account.positions[index]
            values[index] = position.value_e8((self._bid_e8 if position.qty_e8 > 0 else self._ask_e8)[index])
        return values

    def _surroundings(self, moment: _Moment, intent: Intent) -> Surroundings:
        index = intent.symbol_index
        # Positions at the ask, the larger side; an order on its way is counted in full on top of the
        # position, whichever side it has.
        opened = self._open_values_e8()
        held = sum(
            notional_e8(self._ask_e8[other], abs(self.account.positions[other].qty_e8))
            for other in self._holding
            if other != index
        )
        open_here = opened.pop(index, 0)
        return Surroundings(
            price_e8=(self._ask_e8 if intent.side == BUY else self._bid_e8)[index],
            held_e8=abs(self.account.positions[index].qty_e8),
            open_e8=open_here,
            others_e8=held + sum(opened.values()),
            equity_e8=moment.equity_e8,
            drawdown_pct=self.gate.drawdown_pct,
            volatility_bps=self.volatility.over_bps(index, self.strategy.hold_ns / NS_PER_MS),
            edge_spread_bps=float(moment.signals.spread_bps[index]),
        )

    def _qty_e8(self, intent: Intent, factors: Factors | None, around: Surroundings) -> int:
        if factors is None:
            return around.held_e8
        return self.sizing.qty_e8(intent, factors, around, self.instruments[intent.symbol_index])

    def _order(self, market: MarketRow, intent: Intent, qty_e8: int) -> Order:
        index = intent.symbol_index
        return Order(
            order_id=self._last_order_id + 1,
            symbol_index=index,
            side=intent.side,
            qty_e8=qty_e8,
            reduce_only=intent.kind is IntentKind.EXIT,
            decided_ns=market.end_ns,
            mid2_e8=self._bid_e8[index] + self._ask_e8[index],
            intent=intent,
        )

    def _question(self, moment: _Moment, order: Order, around: Surroundings) -> Question:
        """Put a sized intent into the gate's terms."""
        market, signals, conditions = moment.market, moment.signals, moment.conditions
        index, intent, price = order.symbol_index, order.intent, around.price_e8
        bid, ask = self._bid_e8[index], self._ask_e8[index]
        held = self.account.positions[index].qty_e8
        reducing = order.reduce_only and held * order.side < 0 and order.qty_e8 <= abs(held)
        order_usdt = notional_e8(price, order.qty_e8) / E8 if price > 0 else _UNKNOWN
        after = abs(notional_e8(price, held + order.side * order.qty_e8)) + around.open_e8
        gross, equity = around.others_e8 + after, moment.equity_e8
        mark, quality = float(market.mark[index]), int(market.quality[index])
        if conditions.extra_quality is not None:
            quality |= int(conditions.extra_quality[index])
        trained, traded = self.trained_until_ns, self._traded_ns[index]
        return Question(
            reducing=reducing,
            predicted=not reducing or intent.reason in PREDICTED_REASONS,
            order_usdt=order_usdt,
            position_usdt=after / E8,
            gross_usdt=gross / E8,
            leverage=gross / equity if equity > 0 else _UNKNOWN,
            trade_risk_pct=trade_risk_pct(
                order_usdt, self.sizing.distance_bps(around.volatility_bps), equity / E8
            ),
            min_notional_usdt=self.instruments[index].min_notional_e8 / E8,
            open_orders=1 + sum(other.symbol_index == index for other in self.open_orders.values()),
            open_orders_total=1 + len(self.open_orders),
            since_trade_ms=float("inf") if traded < 0 else (conditions.now_ns - traded) / NS_PER_MS,
            spread_bps=2e4 * (ask - bid) / (ask + bid) if bid + ask > 0 else _UNKNOWN,
            quote_age_ms=float(market.age_ms[index]),
            collar_bps=1e4 * abs(price / E8 - mark) / mark if mark > 0 else _UNKNOWN,
            jump_bps=float(self.volatility.jump_bps[index]),
            volatility_bps=float(self.volatility.short_bps[index]),
            pause_ms=self.gate.pause_ms(index),
            blocked_quality=quality & self.gate.blocked_bits,
            clock_error_ms=abs(conditions.clock_error_ms),
            prediction_age_ms=(conditions.now_ns - market.end_ns) / NS_PER_MS,
            model_age_h=_UNKNOWN if trained is None else (conditions.now_ns - trained) / _NS_PER_H,
            device_faults=0 if conditions.device_ok else 1,
            edge_bps=abs(float(signals.edge_bps[index])),
            probability_error=_probability_error(signals.probability[index]),
            confidence=intent.confidence,
            agreement=intent.agreement,
        )

    def _open_values_e8(self) -> dict[int, int]:
        """Value of what is left of the orders on their way that add risk, by symbol, at the ask."""
        values: dict[int, int] = {}
        for order_id, order in self.open_orders.items():
            if not order.reduce_only:
                index = order.symbol_index
                value = notional_e8(self._ask_e8[index], self._left_e8[order_id])
                values[index] = values.get(index, 0) + value
        return values

    def _open(self, order: Order) -> Order:
        self._last_order_id = order.order_id
        self.open_orders[order.order_id] = order
        self._left_e8[order.order_id] = order.qty_e8
        self._waiting[order.symbol_index] = True
        self.gate.on_order(self._now_ns)
        return order


def _probability_error(probability: F64) -> float:
    """Return |Σ − 1|; infinite where a class lies outside 0 … 1, NaN where one is NaN."""
    values: list[float] = probability.tolist()
    if any(value < 0.0 or value > 1.0 for value in values):
        return float("inf")
    return abs(sum(values) - 1.0)
