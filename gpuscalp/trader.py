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
from gpuscalp.config import AccountConfig, CostConfig, RiskConfig, StrategyConfig
from gpuscalp.orders import BUY, Fill, Intent, IntentKind, MarketRow, Order, SignalRow, Verdict
from gpuscalp.risk import Question, RiskEvent, RiskGate
from gpuscalp.schema import E8, I64, Instrument
from gpuscalp.strategy import Holdings, Strategy


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did. Monitoring reads it; nothing below knows who reads.

    Attributes
    ----------
    intents, verdicts : pairwise
    orders : of the accepted intents, to be sent in this order
    skips : int64[len(SKIP_REASONS)]  symbols without an intent, by reason
    equity_e8 : wallet + open positions at the price they could be closed at (bid if long, ask if short)
    gross_e8 : Σ |value| of open positions
    event : the loss limit that was reached in this step, if any
    """

    end_ns: int
    intents: tuple[Intent, ...]
    verdicts: tuple[Verdict, ...]
    orders: tuple[Order, ...]
    skips: I64
    equity_e8: int
    gross_e8: int
    event: RiskEvent | None


@final
class Trader:
    """A strategy, a risk gate and an account over S symbols.

    The caller must, for every frame in order: first report all fills that happened up to the frame's end
    (:meth:`on_fill`, then :meth:`on_done` once per order), then funding (:meth:`on_funding`), then call
    :meth:`step` and send its orders.

    Parameters
    ----------
    strategy, risk, cost, account : their sections of the configuration
    instruments : S of them, in the order of all arrays of axis S
    horizon_ms : the model's label horizon
    """

    def __init__(
        self,
        *,
        strategy: StrategyConfig,
        risk: RiskConfig,
        cost: CostConfig,
        account: AccountConfig,
        instruments: Sequence[Instrument],
        horizon_ms: int,
    ) -> None:
        start_e8 = round(account.start_usdt * E8)
        count = len(instruments)
        self.instruments = tuple(instruments)
        self.strategy = Strategy(strategy, cost, horizon_ms=horizon_ms)
        self.account = Account(start_e8, count)
        self.gate = RiskGate(risk, start_e8=start_e8)
        self.open_orders: dict[int, Order] = {}
        self._tick_e8 = [instrument.tick_size_e8 for instrument in instruments]
        self._side = np.zeros(count, np.int64)
        self._waiting = np.zeros(count, np.bool_)
        self._decided_ns = np.zeros(count, np.int64)
        self._bid_e8 = [0] * count
        self._ask_e8 = [0] * count
        self._holding: set[int] = set()
        self._last_order_id = 0

    def step(self, market: MarketRow, signals: SignalRow) -> StepReport:
        """Decide on one closed frame.

        Parameters
        ----------
        market, signals : rows of S symbols; not modified and not kept
        """
        for index in self._watched():
            self._note_quote(market, index)
        values = self._closing_values()
        equity = self.account.wallet_e8 + sum(
            value - self.account.positions[index].cost_e8 for index, value in values.items()
        )
        event = self.gate.observe(market.end_ns, equity)
        decision = self.strategy.decide(
            market, signals, Holdings(self._side, self._waiting, self._decided_ns)
        )
        verdicts: list[Verdict] = []
        orders: list[Order] = []
        for intent in decision.intents:
            self._note_quote(market, intent.symbol_index)
            order, question = self._prepare(market, intent)
            verdict = self.gate.judge(question)
            verdicts.append(verdict)
            if verdict.accepted:
                orders.append(self._open(order))
        return StepReport(
            end_ns=market.end_ns,
            intents=decision.intents,
            verdicts=tuple(verdicts),
            orders=tuple(orders),
            skips=decision.skips,
            equity_e8=equity,
            gross_e8=sum(abs(value) for value in values.values()),
            event=event,
        )

    def on_fill(self, fill: Fill) -> int:
        """Book one execution; return the profit that it realised, in units."""
        order = self.open_orders[fill.order_id]
        assert fill.symbol_index == order.symbol_index
        assert fill.side == order.side
        index = fill.symbol_index
        position = self.account.positions[index]
        was_flat = position.qty_e8 == 0
        realised = self.account.apply_fill(index, fill.side * fill.qty_e8, fill.price_e8, fill.fee_e8)
        self._side[index] = position.side
        if position.qty_e8 == 0:
            self._decided_ns[index] = 0
            self._holding.discard(index)
        elif was_flat:
            # The holding time runs from the decision: that is where the model's horizon starts.
            self._decided_ns[index] = order.decided_ns
            self._holding.add(index)
        return realised

    def on_done(self, order_id: int) -> Order:
        """Forget an order that is filled, cancelled or expired; its symbol is free for the next intent."""
        order = self.open_orders.pop(order_id)
        self._waiting[order.symbol_index] = any(
            other.symbol_index == order.symbol_index for other in self.open_orders.values()
        )
        return order

    def on_funding(self, symbol_index: int, mark_e8: int, rate_e8: int) -> int:
        """Exchange funding on one symbol's position; return what was received, in units."""
        return self.account.apply_funding(symbol_index, mark_e8, rate_e8)

    def flatten(self, market: MarketRow, reason: str) -> tuple[Order, ...]:
        """Return one closing order per open position that has no order open.

        It passes by the risk gate on purpose: only closing orders come out of it, and closing everything must
        work in every state of the gate.
        """
        orders = []
        for index in sorted(self._holding):
            if self._waiting[index]:
                continue
            side = -self.account.positions[index].side
            self._note_quote(market, index)
            intent = Intent(index, side, IntentKind.EXIT, None, reason, 0.0, 0.0, 0.0, 0.0)
            orders.append(self._open(self._prepare(market, intent)[0]))
        return tuple(orders)

    def equity_e8(self) -> int:
        """Return the equity at the quotes of the last step, positions at their closing side."""
        return self.account.wallet_e8 + sum(
            value - self.account.positions[index].cost_e8 for index, value in self._closing_values().items()
        )

    def gross_e8(self) -> int:
        """Return Σ |value| of open positions at the quotes of the last step."""
        return sum(abs(value) for value in self._closing_values().values())

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

    def _closing_values(self) -> dict[int, int]:
        """Signed value of each open position at the side of the quote it would be closed at."""
        values = {}
        for index in sorted(self._holding):
            position = self.account.positions[index]
            values[index] = position.value_e8((self._bid_e8 if position.qty_e8 > 0 else self._ask_e8)[index])
        return values

    def _prepare(self, market: MarketRow, intent: Intent) -> tuple[Order, Question]:
        """Size an intent to the exchange's filters and put it into the gate's terms."""
        index = intent.symbol_index
        instrument = self.instruments[index]
        bid, ask = self._bid_e8[index], self._ask_e8[index]
        price = ask if intent.side == BUY else bid
        held = self.account.positions[index].qty_e8
        if intent.notional_usdt is None:
            qty = abs(held)
        else:
            qty = _sized_qty_e8(intent.notional_usdt, price, instrument)
        order = Order(
            order_id=self._last_order_id + 1,
            symbol_index=index,
            side=intent.side,
            qty_e8=qty,
            reduce_only=intent.kind is IntentKind.EXIT,
            decided_ns=market.end_ns,
            mid2_e8=bid + ask,
            intent=intent,
        )
        reducing = order.reduce_only and held * intent.side < 0 and qty <= abs(held)
        # An order on its way is counted in full on top of the position, whichever side it has.
        exposed = self._exposures_e8()
        after = abs(notional_e8(price, held + intent.side * qty)) + self._open_e8(index)
        others = sum(value for other, value in exposed.items() if other != index)
        question = Question(
            reducing=reducing,
            order_usdt=notional_e8(price, qty) / E8 if price > 0 else float("nan"),
            position_usdt=after / E8,
            gross_usdt=(others + after) / E8,
            min_notional_usdt=instrument.min_notional_e8 / E8,
            spread_bps=2e4 * (ask - bid) / (ask + bid) if bid + ask > 0 else float("nan"),
            quote_age_ms=float(market.age_ms[index]),
            blocked_quality=int(market.quality[index]) & self.gate.blocked_bits,
            confidence=intent.confidence,
            agreement=intent.agreement,
        )
        return order, question

    def _exposures_e8(self) -> dict[int, int]:
        """|Value| by symbol, open orders added as if they were filled, at the ask (the larger side)."""
        symbols = self._holding | {order.symbol_index for order in self.open_orders.values()}
        return {
            index: abs(self.account.positions[index].qty_e8) * self._ask_e8[index] // E8
            + self._open_e8(index)
            for index in symbols
        }

    def _open_e8(self, index: int) -> int:
        """Value of the orders on their way that add risk to one symbol."""
        return sum(
            notional_e8(self._ask_e8[index], order.qty_e8)
            for order in self.open_orders.values()
            if order.symbol_index == index and not order.reduce_only
        )

    def _open(self, order: Order) -> Order:
        self._last_order_id = order.order_id
        self.open_orders[order.order_id] = order
        self._waiting[order.symbol_index] = True
        return order


def _sized_qty_e8(notional_usdt: float, price_e8: int, instrument: Instrument) -> int:
    """Return the largest quantity on the step grid that is worth at most ``notional_usdt``; 0 if none is."""
    if price_e8 <= 0 or not np.isfinite(notional_usdt):
        return 0
    qty = int(notional_usdt * E8) * E8 // price_e8
    qty -= qty % instrument.step_size_e8
    return qty if qty >= instrument.min_qty_e8 else 0
