"""What the trading of a session came to since its process began: counts, costs, results.

Owns: sums of bounded size, fed by the engine as it goes. Never: decides anything, or is part of the state
that a journal repeats: it begins anew with the process.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from msgspec import Struct

from gpuscalp.backtest.ledger import Execution, is_chosen
from gpuscalp.execution.booking import BookedFill
from gpuscalp.execution.filters import Reject
from gpuscalp.execution.lifecycle import ENDED
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.journal.blocks import RecordKind
from gpuscalp.live.records import OrderRecord
from gpuscalp.orders import Order
from gpuscalp.schema import E8, NS_PER_S
from gpuscalp.stats import OBSERVATIONS_MIN, Sharpe, sharpe
from gpuscalp.strategy import SKIP_REASONS
from gpuscalp.trader import StepReport, Trader

SAMPLE_NS: Final = 60 * NS_PER_S
RETURNS_MIN: Final = 30
_RETURNS_MAX: Final = 1_440
_TRADES_MAX: Final = 100
# More than there are codes in use: one that floods us with new ones must not fill the memory.
_CODES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Components:
    """The profit since the process began, in 1e-8 USDT; costs are negative, and the sum is the profit.

    ``spread_e8`` is None where an exchange does not tell the book that an order met: it is then part of the
    slippage.
    """

    signal_e8: int
    spread_e8: int | None
    slippage_e8: int
    fees_e8: int
    funding_e8: int


@final
class TradingRecord:
    """Counts what a trader does.

    Parameters
    ----------
    trader : is read from, never changed

    Attributes
    ----------
    intents, refusals, sent : by reason, by code of the rule, by reason
    ended : orders by (state, reason)
    rejects : refusals of the exchange by its code, without post-only orders that would have taken
    fills : by "maker" and "taker"
    skips : int64[len(SKIP_REASONS)]
    turnover_e8, won, lost : value of all fills; closed round trips by what they earned after all costs
    """

    def __init__(self, trader: Trader) -> None:
        self._trader = trader
        account = trader.account
        self._start = trader.equity_e8(), account.fees_e8, account.funding_e8
        self.intents: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.ended: Counter[tuple[str, str]] = Counter()
        self.rejects: Counter[str] = Counter()
        self.fills: Counter[str] = Counter()
        self.skips = np.zeros(len(SKIP_REASONS), np.int64)
        self.turnover_e8 = self.won = self.lost = 0
        self.slippage_e8 = 0
        self._spread_e8: int | None = 0
        self._last: deque[bool] = deque(maxlen=_TRADES_MAX)
        self._result_e8 = [0] * len(account.positions)
        # What had been opened before has a beginning that is not known here.
        self._older = {index for index, held in enumerate(account.positions) if held.qty_e8}
        # The last minutes in which round trips ended, with the one that is not over: those that end together
        # say little more than one.
        self._ended_at: deque[int] = deque(maxlen=OBSERVATIONS_MIN + 1)
        self._sampled = -1
        self._equity_e8: deque[int] = deque(maxlen=_RETURNS_MAX + 1)

    def on_step(self, report: StepReport) -> None:
        """Take in what the engine has decided on one frame."""
        self.skips += report.skips
        for intent, verdict in zip(report.intents, report.verdicts, strict=True):
            self.intents[intent.reason] += 1
            if not verdict.accepted:
                self.refusals[verdict.code] += 1
        minute = report.end_ns // SAMPLE_NS
        if minute > self._sampled:
            # Minutes without frames count too: nothing has moved in them.
            missed = 0 if self._sampled < 0 else min(minute - self._sampled - 1, _RETURNS_MAX)
            self._equity_e8.extend([self._equity_e8[-1]] * missed if missed else ())
            self._equity_e8.append(report.equity_e8)
            self._sampled = minute

    def on_records(self, records: Iterable[tuple[RecordKind, Struct]]) -> None:
        """Take in what the engine wrote: only there do all orders stand, a flattening's too."""
        for _, body in records:
            if isinstance(body, OrderRecord) and not body.cancel:
                self.sent[body.reason] += 1

    def on_report(self, report: Report, order: Order | None, booked: BookedFill | None) -> None:
        """Take in one report of the broker; see ``gpuscalp.live.engine.Watcher``."""
        if booked is not None:
            self._on_fill(booked)
        elif report.kind is ReportKind.FUNDING and (index := report.symbol_index) >= 0:
            # That of a real account may be heard when its position is closed: it is none of the next one's.
            held = self._trader.account.positions[index].qty_e8 != 0
            self._result_e8[index] += report.money_e8 * held
        if order is not None and report.state in ENDED:
            self.ended[str(report.state), order.intent.reason] += 1
        if report.code not in (Reject.NONE, Reject.POST_ONLY) and report.kind is ReportKind.REJECTED:
            code = str(report.code)
            if code not in self.rejects and len(self.rejects) >= _CODES_MAX:
                code = "other"
            self.rejects[code] += 1

    def components(self) -> Components:
        """Return what the profit is made of; call it while the engine is at rest."""
        equity_e8, fees_e8, funding_e8 = self._start
        account = self._trader.account
        fees_e8, funding_e8 = fees_e8 - account.fees_e8, account.funding_e8 - funding_e8
        profit_e8 = self._trader.equity_e8() - equity_e8
        known_e8 = (self._spread_e8 or 0) + self.slippage_e8 + fees_e8 + funding_e8
        return Components(profit_e8 - known_e8, self._spread_e8, self.slippage_e8, fees_e8, funding_e8)

    @property
    def win_ratio(self) -> float | None:
        """Share of the last 100 round trips that earned something; None before the first."""
        return sum(self._last) / len(self._last) if self._last else None

    def sharpe(self) -> Sharpe | None:
        """Return the Sharpe ratio of the equity's changes from minute to minute; None while they are few.

        Its error is not known while round trips ended in few of these minutes.
        """
        if len(self._equity_e8) <= RETURNS_MIN:
            return None
        equity = np.array(self._equity_e8, np.float64)
        first = self._sampled - len(equity) + 1
        results = sum(first <= minute < self._sampled for minute in self._ended_at)
        found = sharpe(np.diff(equity) / self._trader.account.start_e8, results=results)
        return found if math.isfinite(found.value) else None

    def _on_fill(self, booked: BookedFill) -> None:
        fill, index = booked.fill, booked.fill.symbol_index
        self.fills["maker" if booked.maker else "taker"] += 1
        self.turnover_e8 += fill.price_e8 * fill.qty_e8 // E8
        self._split(booked)
        after = self._trader.account.positions[index].qty_e8
        before = after - fill.side * fill.qty_e8
        self._result_e8[index] += booked.realised_e8 - fill.fee_e8
        if not before or before * after > 0:
            return
        if index in self._older:
            self._older.discard(index)
        else:
            won = self._result_e8[index] > 0
            self.won, self.lost = self.won + won, self.lost + (not won)
            self._last.append(won)
            if not self._ended_at or self._ended_at[-1] < self._sampled:
                self._ended_at.append(self._sampled)
        self._result_e8[index] = 0

    def _split(self, booked: BookedFill) -> None:
        """Book what getting the price of the decision has cost."""
        fill, order = booked.fill, booked.order
        done = Execution.of(fill, order, is_entry=True, maker=booked.maker)
        if fill.mid2_e8 and self._spread_e8 is not None:
            self._spread_e8 += done.spread_e8
            self.slippage_e8 += done.delay_e8 + done.impact_e8
        elif is_chosen(order):
            self.slippage_e8 += self._spread_e8 or 0
            self._spread_e8 = None
            self.slippage_e8 += done.delay_e8 + done.spread_e8 + done.impact_e8
