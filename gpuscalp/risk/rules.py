"""The rules of the risk gate: one table that every intent has to pass.

Owns: the table, what it compares, and the arithmetic of a rule. Never: keeps state (gate.py, breakers.py), or
cuts a size (sizing.py). Comparisons are written so that NaN does not pass: in doubt the gate refuses.

Three scopes. A rule of scope ``all`` judges every order. ``opening`` judges those that add risk: an order
that reduces a position is never stopped by a limit on size, loss or data quality, because to keep a risk for
being too large would be the wrong way round. ``predicted`` judges those that act upon a prediction: all that
add risk, and exits because of an opposite signal; an exit because time is up needs no model.

To add a rule: one line in ``RULES`` and, if it needs something new to look at, one field of
:class:`Question`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Literal

from gpuscalp.config import OFF, RiskConfig
from gpuscalp.orders import Verdict
from gpuscalp.schema import E8

if TYPE_CHECKING:
    from gpuscalp.risk.gate import RiskGate


@dataclass(frozen=True, slots=True)
class Question:
    """One sized intent and the world around it, as numbers that rules compare; NaN where not known.

    Amounts are valued at the price that the order would cross to (ask to buy, bid to sell). Open orders count
    as if they were filled.

    Attributes
    ----------
    reducing : the order is smaller than or equal to the position it closes, on the other side of it
    predicted : the order acts upon a prediction
    order_usdt : value of the order
    position_usdt : |value| of the symbol's position after the order
    gross_usdt : Σ |value| over all symbols after the order
    leverage : gross after the order over equity
    trade_risk_pct : what the order would lose if it went wrong, in percent of the equity
    min_notional_usdt : the exchange's smallest order for this symbol
    open_orders_total : with this one
    since_trade_ms : since the last execution in this symbol; infinite before the first
    collar_bps : distance of the price that is crossed to from the mark price
    jump_bps : move of the mid since the last frame
    volatility_bps : standard deviation over the short horizon
    pause_ms : left of the symbol's volatility pause
    blocked_quality : the quality bits that the configuration blocks; 0 = sound
    prediction_age_ms : from the end of the frame to the decision
    model_age_h : from the end of the training
    device_faults : 0 = the device is trusted
    edge_bps : size of the expected edge
    probability_error : |Σ − 1| of the class probabilities; infinite where one is outside 0 … 1
    """

    reducing: bool
    predicted: bool
    order_usdt: float
    position_usdt: float
    gross_usdt: float
    leverage: float
    trade_risk_pct: float
    min_notional_usdt: float
    open_orders_total: int
    since_trade_ms: float
    spread_bps: float
    quote_age_ms: float
    collar_bps: float
    jump_bps: float
    volatility_bps: float
    pause_ms: float
    blocked_quality: int
    clock_error_ms: float
    prediction_age_ms: float
    model_age_h: float
    device_faults: int
    edge_bps: float
    probability_error: float
    confidence: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table: plain data, so that reports and documents can print it.

    Attributes
    ----------
    code : stands in verdicts, journals and reports; never changes its meaning
    bound : "max": value ≤ limit · "below": value < limit · "min": value ≥ limit
    limit : a number, or where it stands: an attribute of ``config``, ``gate`` or ``question``
    value : what is compared: an attribute of ``gate`` or ``question``
    needs : the state that has to be kept to know the value
    """

    name: str
    code: str
    unit: str
    scope: Literal["all", "opening", "predicted"]
    value: str
    bound: Literal["max", "below", "min"]
    limit: str | float
    needs: str

    def met(self, limit: float, value: float) -> bool:
        """Return whether the value keeps the limit. NaN on either side does not."""
        if self.bound == "max":
            return value <= limit
        if self.bound == "below":
            return value < limit
        return value >= limit


# The sum of three float64 probabilities is off by a few 1e-16; float32 ones would be off by 1e-7.
PROBABILITY_TOLERANCE: Final = 1e-6

# In the order in which they are tried.
# fmt: off
RULES: Final[tuple[Rule, ...]] = (
    Rule("order has a size", "NO_SIZE", "USDT", "all",
         "question.order_usdt", "min", 1 / E8, "quote, instrument"),
    Rule("gate is not halted", "HALTED", "", "all",
         "gate.halted", "max", 0, "risk state"),
    Rule("orders per second", "ORDER_RATE_S", "orders", "all",
         "gate.orders_per_s", "max", "config.max_orders_per_s", "times of orders"),
    Rule("orders per minute", "ORDER_RATE_M", "orders", "all",
         "gate.orders_per_minute", "max", "config.max_orders_per_minute", "times of orders"),
    Rule("gate is active", "REDUCING", "", "opening",
         "gate.closed", "max", 0, "risk state"),
    Rule("daily loss", "DAILY_LOSS", "USDT", "opening",
         "gate.daily_loss_usdt", "below", "config.max_daily_loss_usdt", "equity at 00:00 UTC or re-arming"),
    Rule("drawdown", "DRAWDOWN", "%", "opening",
         "gate.drawdown_pct", "below", "config.max_drawdown_pct", "highest equity so far"),
    Rule("losses in a row", "COOL_DOWN", "ms left", "opening",
         "gate.cool_down_ms", "max", 0, "results of trades, end of the cool-down"),
    Rule("device is healthy", "DEVICE", "faults", "predicted",
         "question.device_faults", "max", 0, "health of the device"),
    Rule("clock error", "CLOCK_ERROR", "ms", "opening",
         "question.clock_error_ms", "max", "config.max_clock_error_ms", "clock offset"),
    Rule("data quality", "QUALITY", "bits", "opening",
         "question.blocked_quality", "max", 0, "quality word of the frame"),
    Rule("quote age", "STALE_QUOTE", "ms", "opening",
         "question.quote_age_ms", "max", "config.max_quote_age_ms", "time of the last quote"),
    Rule("age of the prediction", "LATE_PREDICTION", "ms", "predicted",
         "question.prediction_age_ms", "max", "config.max_prediction_age_ms", "time of the decision"),
    Rule("age of the model", "MODEL_EXPIRED", "h", "predicted",
         "question.model_age_h", "max", "config.max_model_age_h", "end of the training"),
    Rule("probabilities", "BAD_PROBABILITY", "", "predicted",
         "question.probability_error", "max", PROBABILITY_TOLERANCE, "signal"),
    Rule("plausible edge", "EDGE_RANGE", "bps", "predicted",
         "question.edge_bps", "max", "config.max_edge_bps", "signal"),
    Rule("quote is not crossed", "CROSSED", "bps", "opening",
         "question.spread_bps", "min", 0, "quote"),
    Rule("spread", "WIDE_SPREAD", "bps", "opening",
         "question.spread_bps", "max", "config.max_spread_bps", "quote"),
    Rule("distance from the mark price", "PRICE_COLLAR", "bps", "opening",
         "question.collar_bps", "max", "config.max_collar_bps", "mark price"),
    Rule("jump of the mid", "PRICE_JUMP", "bps", "opening",
         "question.jump_bps", "max", "config.max_jump_bps", "mid of the last frame"),
    Rule("volatility", "VOLATILITY", "bps", "opening",
         "question.volatility_bps", "max", "config.max_volatility_bps", "moves of the mid"),
    Rule("pause after volatility", "VOLATILITY_PAUSE", "ms left", "opening",
         "question.pause_ms", "max", 0, "end of the pause by symbol"),
    Rule("confidence", "LOW_CONFIDENCE", "probability", "opening",
         "question.confidence", "min", "config.min_confidence", "signal"),
    Rule("agreement", "LOW_AGREEMENT", "share of members", "opening",
         "question.agreement", "min", "config.min_agreement", "signal"),
    Rule("interval between trades", "MIN_INTERVAL", "ms", "opening",
         "question.since_trade_ms", "min", "config.min_interval_ms", "last execution by symbol"),
    Rule("orders per second, entries", "ENTRY_RATE_S", "orders", "opening",
         "gate.orders_per_s", "max", "gate.entries_per_s_max", "times of orders"),
    Rule("orders per minute, entries", "ENTRY_RATE_M", "orders", "opening",
         "gate.orders_per_minute", "max", "gate.entries_per_minute_max", "times of orders"),
    Rule("open orders", "OPEN_ORDERS_TOTAL", "orders", "opening",
         "question.open_orders_total", "max", "config.max_open_orders_total", "open orders"),
    Rule("exchange minimum", "MIN_NOTIONAL", "USDT", "opening",
         "question.order_usdt", "min", "question.min_notional_usdt", "instrument"),
    Rule("order value", "ORDER_TOO_LARGE", "USDT", "opening",
         "question.order_usdt", "max", "config.max_order_usdt", "quote"),
    Rule("position value", "POSITION_TOO_LARGE", "USDT", "opening",
         "question.position_usdt", "max", "config.max_position_usdt", "positions, open orders"),
    Rule("value of all positions", "GROSS_TOO_LARGE", "USDT", "opening",
         "question.gross_usdt", "max", "config.max_gross_usdt", "positions, open orders"),
    Rule("leverage", "LEVERAGE", "× equity", "opening",
         "question.leverage", "max", "config.max_leverage", "positions, open orders, equity"),
    Rule("risk of the trade", "TRADE_RISK", "% of equity", "opening",
         "question.trade_risk_pct", "max", "config.max_trade_risk_pct", "volatility, equity"),
)
# fmt: on

# What an entry has to keep for as long as it rests: what asks about gate, program, data and market. The rest
# asks about its decision (signal, size, counts), or about one frame: to be decided on late ends no order.
WHILE_RESTING: Final = frozenset(
    {
        "REDUCING", "DAILY_LOSS", "DRAWDOWN", "COOL_DOWN", "DEVICE", "CLOCK_ERROR", "QUALITY", "STALE_QUOTE",
        "MODEL_EXPIRED", "CROSSED", "WIDE_SPREAD", "PRICE_COLLAR", "PRICE_JUMP", "VOLATILITY",
        "VOLATILITY_PAUSE",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Scene:
    """What the names in the table refer to."""

    config: RiskConfig
    gate: RiskGate
    question: Question


def _getter(name: str | float) -> Callable[[_Scene], float | str]:
    if isinstance(name, str):
        return attrgetter(name)
    constant = float(name)
    return lambda scene: constant  # noqa: ARG005


_COMPILED: Final = tuple((rule, _getter(rule.limit), _getter(rule.value)) for rule in RULES)
_RESTING: Final = tuple(row for row in _COMPILED if row[0].code in WHILE_RESTING)


def judge(gate: RiskGate, question: Question, *, resting: bool = False) -> Verdict:
    """Return the verdict on one sized intent: refused by the first rule in force that is not met.

    Parameters
    ----------
    resting : the order is alive; asked are the rules of ``WHILE_RESTING``
    """
    scene = _Scene(gate.config, gate, question)
    for rule, limit_of, value_of in _RESTING if resting else _COMPILED:
        if question.reducing and (
            rule.scope == "opening" or (rule.scope == "predicted" and not question.predicted)
        ):
            continue
        limit = limit_of(scene)
        if limit == OFF:
            continue
        limit, value = float(limit), float(value_of(scene))
        if not rule.met(limit, value):
            return Verdict(accepted=False, code=rule.code, limit=limit, value=value)
    return Verdict(accepted=True)


def trade_risk_pct(order_usdt: float, distance_bps: float, equity_usdt: float) -> float:
    """Return what an order loses when its price moves against it by a distance, in percent of the equity.

    NaN without equity: there is no share of nothing.
    """
    if not equity_usdt > 0:
        return float("nan")
    return order_usdt * distance_bps / 100.0 / equity_usdt
