"""What the risk gate must know, worked out again from what was sent and reported, in plain loops.

It shares no code with gpuscalp.risk or the trader: it is told limits as
plain numbers, market rows, signals and conditions as they were given, orders as they were sent and
reports as they were delivered. Floats are compared with a margin of 1e-9, so that another order of operations
is no mistake; whole numbers exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from gpuscalp.execution.messages import Report
from gpuscalp.orders import Conditions, Intent, MarketRow, Order, SignalRow
from gpuscalp.schema import Instrument

E8 = 10**8
DAY_NS = 86_400 * 10**9
RANK = {"active": 0, "reducing": 1, "halted": 2}
LEADS_TO = {"halt_entries": 1, "reduce": 1, "flatten": 2, "halt": 2}
# Limits that a size can be cut to: nothing is ever refused for them.
CUT = {"ORDER_TOO_LARGE", "POSITION_TOO_LARGE", "GROSS_TOO_LARGE", "LEVERAGE", "TRADE_RISK"}
SIZE = {"NO_SIZE", "MIN_NOTIONAL"}
OF_EXITS = {"HALTED", "ORDER_RATE_S", "ORDER_RATE_M"}
OF_PREDICTIONS = {"DEVICE", "LATE_PREDICTION", "MODEL_EXPIRED", "BAD_PROBABILITY", "EDGE_RANGE"}
# What ends an entry that rests, by docs/orders.md: gate, program, data, market.
OF_RESTING = {
    "REDUCING", "COOL_DOWN", "DEVICE", "CLOCK_ERROR", "MODEL_EXPIRED", "QUALITY", "STALE_QUOTE", "CROSSED",
    "WIDE_SPREAD", "PRICE_JUMP", "PRICE_COLLAR", "VOLATILITY", "VOLATILITY_PAUSE",
}  # fmt: skip
GAP, RESYNC, CROSSED = 1, 2, 8


def money(price_e8: int, qty_e8: int) -> int:
    """Price × quantity in whole units, halves to the even one."""
    return round(Fraction(price_e8 * qty_e8, E8))


@dataclass
class Known:
    """One symbol as it is known here."""

    qty: int = 0
    result: int = 0  # cash that the open trade has brought so far
    traded_ns: int | None = None
    bid: int = 0
    ask: int = 0
    # The last quote that can be believed, the moment it is of, and the mark if that quote is too old.
    sound: tuple[int, int] = (0, 0)
    sound_ns: float = -math.inf
    mark: int | None = None
    mid: float | None = None
    mid_ns: int = 0
    jump: float = math.nan
    short: list[float] = field(default_factory=lambda: [0.0, 0.0])  # Σ bps², Σ s
    long: list[float] = field(default_factory=lambda: [0.0, 0.0])
    pause_ns: float = 0.0
    trips: int = 0

    def worst(self, side: int) -> int:
        """Price at which a position of a side may have to be closed, as far as anybody knows."""
        known = [self.sound[side < 0]] + ([] if self.mark is None else [self.mark])
        return min(known) if side > 0 else max(known)


class Oracle:
    """The books and the rules once more."""

    def __init__(
        self, limits: dict[str, Any], instruments: list[Instrument], start_e8: int, trained_ns: int
    ) -> None:
        self.limits = limits
        self.instruments = instruments
        self.trained_ns = trained_ns
        self.symbols = [Known() for _ in instruments]
        self.start = self.cash = self.last = self.high = self.day_start = start_e8
        self.fees = self.funding = 0
        self.open: dict[int, list[Any]] = {}  # id → [order, quantity left]
        self.asked_ns: dict[int, int] = {}  # id → when its end was last asked for
        self.sent_ns: list[int] = []
        self.ids: list[int] = []
        self.state = "active"
        self.reached = ""  # the limit on losses that has closed the gate, if one has
        self.day = -1
        self.losses = self.loss_trips = 0
        self.cool_ns = 0

    # What comes back

    def on_report(self, report: Report) -> None:
        """Take in one report as it is delivered."""
        if report.kind.value == "funding":
            self.cash += report.money_e8
            self.funding += report.money_e8
            if self.symbols[report.symbol_index].qty:
                self.symbols[report.symbol_index].result += report.money_e8
        if report.fill is not None:
            fill = report.fill
            one = self.symbols[fill.symbol_index]
            flow = -money(fill.price_e8, fill.side * fill.qty_e8) - fill.fee_e8
            self.cash += flow
            self.fees += fill.fee_e8
            after = one.qty + fill.side * fill.qty_e8
            assert one.qty * after >= 0, "nothing ever turns a position around"
            one.qty, one.result, one.traded_ns = after, one.result + flow, fill.exec_ns
            if not after:
                self.losses = self.losses + 1 if one.result < 0 else 0
                one.result = 0
            if fill.order_id in self.open:
                self.open[fill.order_id][1] -= fill.qty_e8
        ended = report.state is not None and report.state.value in {
            "filled",
            "canceled",
            "expired",
            "rejected",
        }
        if ended and report.order_id > 0:
            del self.open[report.order_id]

    # Time and state

    def equity(self) -> int:
        return self.cash + sum(money(one.worst(one.qty), one.qty) for one in self.symbols if one.qty)

    def observe(self, row: MarketRow, now_ns: int) -> None:
        """Follow one frame before anything is decided on it."""
        limits = self.limits
        for index, one in enumerate(self.symbols):
            tick = self.instruments[index].tick_size_e8
            bid, ask = int(row.bid_px[index]), int(row.ask_px[index])
            one.jump = math.nan
            if bid > 0 and ask > 0:
                one.bid, one.ask = bid * tick, ask * tick
                self._move(one, (bid + ask) / 2, row.end_ns)
                at_stake = one.qty or any(order.symbol_index == index for order, _ in self.open.values())
                if not at_stake or not int(row.quality[index]) & (GAP | RESYNC | CROSSED):
                    age = float(row.age_ms[index])
                    one.sound = (one.bid, one.ask)
                    one.sound_ns = -math.inf if math.isnan(age) else row.end_ns - round(age * 10**6)
            old = row.end_ns - one.sound_ns > limits["max_quote_age_ms"] * 10**6
            one.mark = round(float(row.mark[index]) * E8) if old else None
        equity = self.equity()
        if now_ns // DAY_NS > self.day:
            self.day, self.day_start, self.loss_trips = now_ns // DAY_NS, self.last, 0
            for one in self.symbols:
                one.trips = 0
        self.last, self.high = equity, max(self.high, equity)
        for one in self.symbols:
            wild = deviation(one.short, limits["volatility_ms"])
            if wild > limits["max_volatility_bps"]:
                one.trips += one.pause_ns <= now_ns
                latched = one.trips > limits["breaker_trips_max"]
                until = math.inf if latched else now_ns + limits["volatility_pause_ms"] * 10**6
                one.pause_ns = max(one.pause_ns, until)
        lost, down = self._beyond()
        if self.state == "active" and (lost or down):
            self.reached = "lost" if lost else "down"
            self._close(1)
        if self.losses >= limits["max_losses"]:
            self.losses = 0
            self.loss_trips += 1
            self.cool_ns = now_ns + limits["loss_pause_ms"] * 10**6
            if self.loss_trips > limits["breaker_trips_max"]:
                self._close(1)

    def apply(self, event: str) -> bool:
        """Follow an operator; return whether that is possible."""
        if event != "rearm":
            self._close(LEADS_TO[event])
            return True
        if self.state == "active" or self.last <= 0:
            return False
        self.state = "active"
        lost, down = self._beyond()
        if lost or self.reached == "lost":
            self.day_start = self.last
        if down or self.reached == "down":
            self.high = self.last
        self.reached = ""
        self.losses = self.loss_trips = self.cool_ns = 0
        for one in self.symbols:
            one.pause_ns, one.trips = 0.0, 0
        return True

    def _close(self, rank: int) -> None:
        self.state = [*RANK][max(rank, RANK[self.state])]

    def _beyond(self) -> tuple[bool, bool]:
        lost = self._lost() >= self.limits["max_daily_loss_usdt"]
        return lost, self._drawdown() >= self.limits["max_drawdown_pct"]

    def _lost(self) -> Fraction:
        return Fraction(self.day_start - self.last, E8)

    def _drawdown(self) -> Fraction:
        return Fraction(100 * (self.high - self.last), self.high) if self.high > 0 else Fraction(100)

    def _move(self, one: Known, mid: float, end_ns: int) -> None:
        if one.mid is not None and end_ns > one.mid_ns:
            seconds = (end_ns - one.mid_ns) / 1e9
            move = 1e4 * (mid - one.mid) / one.mid
            one.jump = abs(move)
            for sums, memory in ((one.short, "volatility_ms"), (one.long, "long_ms")):
                keep = self.limits[memory] / 1e3 / (self.limits[memory] / 1e3 + seconds)
                sums[0] = sums[0] * keep + move * move
                sums[1] = sums[1] * keep + seconds
        one.mid, one.mid_ns = mid, end_ns

    # Decisions

    def on_sent(self, order: Order, now_ns: int) -> None:
        assert not self.ids or order.order_id > self.ids[-1], "ids grow for ever, also over restarts"
        self.ids.append(order.order_id)
        self.open[order.order_id] = [order, order.qty_e8]
        self.sent_ns.append(now_ns)

    def check_accepted(self, order: Order, row: MarketRow, said: SignalRow, what: Conditions) -> None:
        """Fail if an order may not be sent."""
        one = self.symbols[order.symbol_index]
        instrument = self.instruments[order.symbol_index]
        assert order.qty_e8 >= instrument.min_qty_e8 or order.reduce_only
        assert order.qty_e8 % instrument.step_size_e8 == 0
        intent = order.intent
        reducing = order.side * one.qty < 0 and order.qty_e8 <= abs(one.qty)
        assert reducing == order.reduce_only
        alone = all(other.symbol_index != order.symbol_index for other, _ in self.open.values())
        assert reducing or alone, "no rule counts the open orders of a symbol"
        values = self._values(intent, order.qty_e8, row, said, what, order.price_e8)
        rules = set(values)
        if reducing:
            rules = OF_EXITS | (OF_PREDICTIONS if intent.reason == "opposite_signal" else set())
        for code in sorted(rules):
            assert not surely_broken(*values[code]), (code, values[code])

    def check_resting(
        self, cancels: tuple[int, ...], row: MarketRow, said: SignalRow, what: Conditions, rest_ms: int
    ) -> int:
        """Fail if an entry goes on resting that may not, or ends that might; return how many may not."""
        ended = 0
        for number, (order, _) in self.open.items():
            if order.reduce_only or order.kind.value != "limit":
                assert number not in cancels
                continue
            values = self._values(order.intent, 0, row, said, what, order.price_e8)
            index, side = order.symbol_index, order.side
            edge, chance = float(said.edge_bps[index]), float(said.probability[index][0 if side > 0 else 2])
            over = row.end_ns - order.decided_ns >= rest_ms * 10**6 or (
                edge * side < 0 and chance >= 0.3 and float(said.agreement[index]) >= 0
            )
            refused = any(surely_broken(*values[code]) for code in OF_RESTING)
            again = what.now_ns - self.asked_ns.get(number, 0) >= 2 * 10**9
            ended += refused
            if number in cancels:
                assert again
                assert over or any(not surely_kept(*values[code]) for code in OF_RESTING)
                self.asked_ns[number] = what.now_ns
            else:
                assert not (again and (over or refused)), (number, values)
        return ended

    def check_refused(
        self, intent: Intent, code: str, row: MarketRow, said: SignalRow, what: Conditions, rests: bool
    ) -> None:
        """Fail if a refusal had no reason, or one that a smaller size would have removed."""
        assert code not in CUT
        if code not in SIZE:
            one, resting = self.symbols[intent.symbol_index], rests and intent.reason == "edge"
            price = (one.bid if intent.side > 0 else one.ask) if resting else 0
            values = self._values(intent, 0, row, said, what, price)
            assert not surely_kept(*values[code]), (code, values[code])
            if intent.reason != "edge":
                predicted = OF_PREDICTIONS if intent.reason == "opposite_signal" else set()
                assert code in OF_EXITS | predicted

    def _values(
        self, intent: Intent, qty: int, row: MarketRow, said: SignalRow, what: Conditions, price: int
    ) -> dict[str, tuple[float, float, str]]:
        """By code: value, limit, and the side on which it passes ("below": the limit itself does not).

        ``price`` is that of an order that rests, 0 of one that crosses.
        """
        limits, index, now = self.limits, intent.symbol_index, what.now_ns
        one, instrument = self.symbols[index], self.instruments[index]
        tick = instrument.tick_size_e8
        bid, ask = int(row.bid_px[index]) * tick, int(row.ask_px[index]) * tick
        price = price or (ask if intent.side > 0 else bid)
        value = price * qty / 1e16
        waiting = [0] * len(self.symbols)
        for order, left in self.open.values():
            if not order.reduce_only:
                waiting[order.symbol_index] += left
        position = price * abs(one.qty + intent.side * qty) / 1e16 + one.ask * waiting[index] / 1e16
        gross = position + sum(
            (other.worst(-1) * abs(other.qty) + other.ask * waiting[at]) / 1e16
            for at, other in enumerate(self.symbols)
            if at != index
        )
        equity = self.last / 1e8
        sigma = deviation(one.long, limits["hold_ms"])
        per_s = 1 + sum(now - 10**9 < at for at in self.sent_ns)
        per_minute = 1 + sum(now - 60 * 10**9 < at for at in self.sent_ns)
        share = 1 - limits["exit_reserve"]
        bits = int(row.quality[index])
        if what.extra_quality is not None:
            bits |= int(what.extra_quality[index])
        chances = [float(chance) for chance in said.probability[index]]
        bad = math.inf if min(chances) < 0 or max(chances) > 1 else abs(sum(chances) - 1)
        rank = RANK[self.state]
        return {
            "NO_SIZE": (value, 1e-8, "min"),
            "HALTED": (float(rank == 2), 0, "max"),
            "REDUCING": (float(rank > 0), 0, "max"),
            "ORDER_RATE_S": (per_s, limits["max_orders_per_s"], "max"),
            "ORDER_RATE_M": (per_minute, limits["max_orders_per_minute"], "max"),
            "ENTRY_RATE_S": (per_s, share * limits["max_orders_per_s"], "max"),
            "ENTRY_RATE_M": (per_minute, share * limits["max_orders_per_minute"], "max"),
            "DAILY_LOSS": (float(self._lost()), limits["max_daily_loss_usdt"], "below"),
            "DRAWDOWN": (float(self._drawdown()), limits["max_drawdown_pct"], "below"),
            "COOL_DOWN": (max(0, self.cool_ns - now), 0, "max"),
            "DEVICE": (0.0 if what.device_ok else 1.0, 0, "max"),
            "CLOCK_ERROR": (abs(what.clock_error_ms), limits["max_clock_error_ms"], "max"),
            "QUALITY": (bits & limits["blocked_bits"], 0, "max"),
            "STALE_QUOTE": (float(row.age_ms[index]), limits["max_quote_age_ms"], "max"),
            "LATE_PREDICTION": ((now - row.end_ns) / 1e6, limits["max_prediction_age_ms"], "max"),
            "MODEL_EXPIRED": ((now - self.trained_ns) / 3.6e12, limits["max_model_age_h"], "max"),
            "BAD_PROBABILITY": (bad, 1e-6, "max"),
            "EDGE_RANGE": (abs(float(said.edge_bps[index])), limits["max_edge_bps"], "max"),
            **self._market_values(one, bid, ask, price, float(row.mark[index]), now),
            "LOW_CONFIDENCE": (intent.confidence, limits["min_confidence"], "min"),
            "LOW_AGREEMENT": (float(said.agreement[index]), limits["min_agreement"], "min"),
            "MIN_INTERVAL": (
                math.inf if one.traded_ns is None else (now - one.traded_ns) / 1e6,
                limits["min_interval_ms"],
                "min",
            ),
            "OPEN_ORDERS_TOTAL": (1 + len(self.open), limits["max_open_orders_total"], "max"),
            "MIN_NOTIONAL": (value, instrument.min_notional_e8 / E8, "min"),
            "ORDER_TOO_LARGE": (value, limits["max_order_usdt"], "max"),
            "POSITION_TOO_LARGE": (position, limits["max_position_usdt"], "max"),
            "GROSS_TOO_LARGE": (gross, limits["max_gross_usdt"], "max"),
            "LEVERAGE": (gross / equity if equity > 0 else math.nan, limits["max_leverage"], "max"),
            "TRADE_RISK": (
                value * limits["risk_sigmas"] * sigma / 100 / equity if equity > 0 else math.nan,
                limits["max_trade_risk_pct"],
                "max",
            ),
        }

    def _market_values(
        self, one: Known, bid: int, ask: int, price: int, mark: float, now: int
    ) -> dict[str, tuple[float, float, str]]:
        limits = self.limits
        collar = 1e4 * abs(price / E8 / mark - 1) if mark > 0 else math.nan
        sigma = deviation(one.short, limits["volatility_ms"])
        return {
            "CROSSED": (ask - bid, 0, "min"),
            "WIDE_SPREAD": (1e4 * (ask - bid) / ((ask + bid) / 2), limits["max_spread_bps"], "max"),
            "PRICE_COLLAR": (collar, limits["max_collar_bps"], "max"),
            "PRICE_JUMP": (one.jump, limits["max_jump_bps"], "max"),
            "VOLATILITY": (sigma, limits["max_volatility_bps"], "max"),
            "VOLATILITY_PAUSE": (max(0, one.pause_ns - now), 0, "max"),
        }


def deviation(sums: list[float], horizon_ms: float) -> float:
    return math.sqrt(sums[0] / sums[1] * horizon_ms / 1e3) if sums[1] > 0 else math.nan


def surely_broken(value: float, limit: float, side: str) -> bool:
    """Whether a value is beyond its limit by more than rounding; what is not known is beyond it."""
    margin = 1e-9 * max(1.0, abs(limit)) if limit else 0.0
    if math.isnan(value):
        return True
    if side == "min":
        return value < limit - margin
    return value > limit + margin or (side == "below" and value >= limit + margin)


def surely_kept(value: float, limit: float, side: str) -> bool:
    """Whether a value is within its limit by more than rounding."""
    margin = 1e-9 * max(1.0, abs(limit)) if limit else 0.0
    if math.isnan(value):
        return False
    if side == "min":
        return value >= limit + margin
    return value < limit - margin if side == "below" else value <= limit - margin
