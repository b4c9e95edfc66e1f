"""What a backtest remembers on its way, and the files it leaves: trades, fills, equity, entries.

Owns: samples of the equity once a second, counts of decisions, the columns of both files.
Never: judges what it remembers (metrics.py does).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np

from gpuscalp.backtest.entries import Entries
from gpuscalp.backtest.ledger import Ledger, Trade
from gpuscalp.execution.booking import BookedFill
from gpuscalp.execution.filters import Reject
from gpuscalp.execution.lifecycle import ENDED, OrderState
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.open_orders import is_protective
from gpuscalp.orders import IntentKind, Order
from gpuscalp.risk.gate import RiskEvent, RiskGate, RiskState
from gpuscalp.schema import E8, F64, I64, NS_PER_S
from gpuscalp.strategy import SKIP_REASONS
from gpuscalp.trader import StepReport, Trader

SAMPLE_NS: Final = NS_PER_S
_STATES: Final = tuple(RiskState)

# What became of an order. "expired": it has met no sound book; "cancelled": the data ended, or a liquidation.
# Targets and stops stand apart: most of them are there not to be filled.
Outcome = Literal[
    "filled", "partial", "unfilled", "expired", "cancelled", "rejected",
    "protective_filled", "protective_ended", "protective_rejected",
]  # fmt: skip


@final
class Recorder:
    """Collects the course of one backtest. Memory: 25 bytes a second and what the trades need.

    Attributes
    ----------
    cancelled_usdt : what orders that were accepted, targets and stops aside, have not got
    entries : the rows behind the entries; None where whoever runs the backtest does not keep them
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.entries: Entries | None = None
        self.intents: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()  # of the refusals: what had to be known was not
        self.outcomes: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()  # of the outcomes: why the exchange refused
        self.liquidation_count = 0
        self.cancelled_usdt = 0.0
        self.skips = np.zeros(len(SKIP_REASONS), np.int64)
        self.events: list[tuple[int, RiskEvent]] = []
        self.frame_count = 0
        self.held_frame_count = 0
        self.gross_sum_e8 = 0
        self.max_drawdown_pct = 0.0
        self._time, self._equity, self._gross = array("q"), array("q"), array("q")
        self._state = array("b")

    def on_step(self, report: StepReport, gate: RiskGate) -> None:
        """Take in one step; call it for every frame that is traded on."""
        self.frame_count += 1
        self.held_frame_count += report.gross_e8 > 0
        self.gross_sum_e8 += report.gross_e8
        self.skips += report.skips
        self.max_drawdown_pct = max(self.max_drawdown_pct, gate.drawdown_pct)
        for intent, verdict in zip(report.intents, report.verdicts, strict=True):
            self.intents[intent.reason] += 1
            if not verdict.accepted:
                self.refusals[verdict.code] += 1
                self.unknown[verdict.code] += verdict.value != verdict.value
        if self.entries is not None:
            for order in report.orders:
                if order.intent.kind is IntentKind.ENTER:
                    self.entries.want(order)
        if report.event is not None:
            self.events.append((report.end_ns, report.event))
        if not self._time or report.end_ns // SAMPLE_NS > self._time[-1] // SAMPLE_NS:
            self._sample(report.end_ns, report.equity_e8, report.gross_e8, gate.state)

    def on_report(self, report: Report, order: Order | None, booked: BookedFill | None) -> None:
        """Take in one report of the broker, in order.

        Parameters
        ----------
        order : the trader's order that it concerns, as it was before the report
        booked : the fill, if it is one
        """
        if booked is not None:
            self.ledger.on_fill(booked.fill, booked.order, maker=booked.maker)
        elif report.kind is ReportKind.FUNDING:
            self.ledger.on_funding(report.symbol_index, report.money_e8)
        elif report.kind is ReportKind.LIQUIDATION:
            self.liquidation_count += 1
        if order is None or report.state not in ENDED:
            return
        outcome = _outcome(report, order)
        self.outcomes[outcome] += 1
        if outcome in ("partial", "unfilled", "expired", "cancelled"):
            self.cancelled_usdt += report.left_e8 / E8 * order.mid2_e8 / 2 / E8
        if report.code:
            self.rejections[Reject(report.code).name] += 1

    def finish(self, trader: Trader, end_ns: int) -> None:
        """Take in how it all stands at the end, which the gate has not seen yet."""
        equity_e8, gate = trader.equity_e8(), trader.gate
        gate.observe(end_ns, equity_e8)
        self.max_drawdown_pct = max(self.max_drawdown_pct, gate.drawdown_pct)
        self._sample(end_ns, equity_e8, trader.gross_e8(), gate.state)

    def _sample(self, at_ns: int, equity_e8: int, gross_e8: int, state: RiskState) -> None:
        """Keep one point of the equity."""
        self._time.append(at_ns)
        self._equity.append(equity_e8)
        self._gross.append(gross_e8)
        self._state.append(_STATES.index(state))

    @property
    def fill_ratio(self) -> float | None:
        """Share of the orders that were filled as a whole, targets and stops aside; None without any."""
        ended = sum(count for name, count in self.outcomes.items() if not name.startswith("protective"))
        return self.outcomes["filled"] / ended if ended else None

    @property
    def time_ns(self) -> I64:
        return np.array(self._time, np.int64)

    @property
    def equity_usdt(self) -> F64:
        return np.array(self._equity, np.int64) / E8

    @property
    def gross_usdt(self) -> F64:
        return np.array(self._gross, np.int64) / E8

    def write(self, folder: Path, symbols: Sequence[str]) -> None:
        """Write trades.parquet, fills.parquet, equity.parquet and what the entries were decided on."""
        from gpuscalp.arrow import pa, pq

        for name, columns_of in (("trades", trade_columns), ("fills", fill_columns)):
            columns = columns_of(self.ledger.closed, symbols)
            table = pa.table(columns, schema=pa.schema([(column, _type(pa, column)) for column in columns]))
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        if self.entries is not None:
            self.entries.write(folder, self.ledger.closed)
        equity = self.equity_usdt
        high = np.maximum.accumulate(equity) if len(equity) else equity
        points = pa.table(
            {
                "at": pa.array(self.time_ns, pa.timestamp("ns", tz="UTC")),
                "equity_usdt": equity,
                "drawdown_pct": 100 * (high - equity) / high,
                "gross_usdt": self.gross_usdt,
                "risk_state": pa.array([_STATES[index].value for index in self._state], pa.string()),
            }
        )
        pq.write_table(points, folder / "equity.parquet", compression="zstd")


def _outcome(report: Report, order: Order) -> Outcome:
    protects = is_protective(order)
    if report.state is OrderState.FILLED:
        return "protective_filled" if protects else "filled"
    if report.state is OrderState.REJECTED:
        return "protective_rejected" if protects else "rejected"
    if protects:
        return "protective_ended"
    if report.state is OrderState.CANCELED or report.reason == "liquidation":
        return "cancelled"
    if report.reason == "no_market":
        return "expired"
    return "partial" if report.left_e8 < order.qty_e8 else "unfilled"


def trade_columns(trades: Sequence[Trade], symbols: Sequence[str]) -> dict[str, list[Any]]:
    """Return the columns of trades.parquet; money in USDT, exact to 1e-8 up to 90 million."""
    return {
        "trade_index": list(range(len(trades))),
        "symbol": [symbols[trade.symbol_index] for trade in trades],
        "side": ["long" if trade.side > 0 else "short" for trade in trades],
        "entry_decided": [trade.entry_decided_ns for trade in trades],
        "entry_filled": [trade.entry_ns for trade in trades],
        "exit_decided": [trade.exit_decided_ns for trade in trades],
        "exit_filled": [trade.exit_ns for trade in trades],
        "exit_reason": [trade.exit_reason for trade in trades],
        "qty": [trade.qty_e8 / E8 for trade in trades],
        "entry_price": [trade.entry_price for trade in trades],
        "exit_price": [trade.exit_price for trade in trades],
        "edge_bps": [trade.entry.edge_bps for trade in trades],
        "cost_bps": [trade.entry.cost_bps for trade in trades],
        "confidence": [trade.entry.confidence for trade in trades],
        "agreement": [trade.entry.agreement for trade in trades],
        "fill_count": [trade.fill_count for trade in trades],
        "gross_usdt": [trade.gross_e8 / E8 for trade in trades],
        "delay_usdt": [trade.delay_e8 / E8 for trade in trades],
        "spread_usdt": [trade.spread_e8 / E8 for trade in trades],
        "impact_usdt": [trade.impact_e8 / E8 for trade in trades],
        "fees_usdt": [trade.fees_e8 / E8 for trade in trades],
        "funding_usdt": [trade.funding_e8 / E8 for trade in trades],
        "pnl_usdt": [trade.pnl_e8 / E8 for trade in trades],
        "pnl_bps": [trade.pnl_bps for trade in trades],
    }


def fill_columns(trades: Sequence[Trade], symbols: Sequence[str]) -> dict[str, list[Any]]:
    """Return the columns of fills.parquet: every execution of the trades, in their order."""
    rows = [(index, trade, done) for index, trade in enumerate(trades) for done in trade.executions]
    return {
        "trade_index": [index for index, _, _ in rows],
        "symbol": [symbols[trade.symbol_index] for _, trade, _ in rows],
        "leg": ["entry" if done.is_entry else "exit" for _, _, done in rows],
        "side": ["buy" if done.fill.side > 0 else "sell" for _, _, done in rows],
        "order_id": [done.fill.order_id for _, _, done in rows],
        "maker": [done.maker for _, _, done in rows],
        "decided": [done.decided_ns for _, _, done in rows],
        "filled": [done.fill.exec_ns for _, _, done in rows],
        "qty": [done.fill.qty_e8 / E8 for _, _, done in rows],
        "price": [done.fill.price_e8 / E8 for _, _, done in rows],
        "decision_mid": [done.decision_mid2_e8 / 2 / E8 for _, _, done in rows],
        "arrival_mid": [done.fill.mid2_e8 / 2 / E8 for _, _, done in rows],
        "touch": [(done.fill.touch_e8 or done.fill.price_e8) / E8 for _, _, done in rows],
        "gross_usdt": [done.gross_e8 / E8 for _, _, done in rows],
        "delay_usdt": [done.delay_e8 / E8 for _, _, done in rows],
        "spread_usdt": [done.spread_e8 / E8 for _, _, done in rows],
        "impact_usdt": [done.impact_e8 / E8 for _, _, done in rows],
        "fees_usdt": [done.fill.fee_e8 / E8 for _, _, done in rows],
    }


def _type(pa: Any, name: str) -> Any:
    """Return the type of a column, so that a file without rows has the same columns as one with them."""
    if name in TEXTS:
        return pa.string()
    if name in TIMES:
        return pa.timestamp("ns", tz="UTC")
    if name in {"trade_index", "fill_count", "order_id"}:
        return pa.int64()
    return pa.bool_() if name == "maker" else pa.float64()


TEXTS: Final = frozenset({"symbol", "side", "exit_reason", "leg"})
TIMES: Final = frozenset(
    {"entry_decided", "entry_filled", "exit_decided", "exit_filled", "decided", "filled"}
)
