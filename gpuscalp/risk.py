"""The risk gate: one table of rules that every intent has to pass, and one table of states.

Owns: the rules, the latch on losses, the states ACTIVE, REDUCING and HALTED. Never: places an order, raises
for a refusal, or knows a clock. A refusal is a :class:`~gpuscalp.orders.Verdict` with the code of the first
rule that was not met. Comparisons are written so that NaN does not pass: in doubt the gate refuses.

Two scopes: a rule of scope ``all`` judges every order, a rule of scope ``opening`` only those that add risk.
An order that reduces a position is never stopped by a limit on size, loss or data quality: keeping the risk
because the risk is too large would be the wrong way round.

To add a rule: one line in ``RULES`` and, if it needs something new to look at, one field of
:class:`Question`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Final, Literal, final

from gpuscalp.config import RiskConfig
from gpuscalp.errors import ConfigError
from gpuscalp.orders import Verdict
from gpuscalp.schema import E8, NS_PER_DAY, Quality


class RiskState(StrEnum):
    ACTIVE = "active"  # everything that passes the rules
    REDUCING = "reducing"  # only orders that reduce a position
    HALTED = "halted"  # nothing


class RiskEvent(StrEnum):
    DAILY_LOSS = "daily_loss"
    DRAWDOWN = "drawdown"
    REDUCE = "reduce"  # by hand
    HALT = "halt"  # by hand
    REARM = "rearm"  # by hand


# (state, event) → next state. A pair that is not here is refused and changes nothing. Nothing but REARM leads
# upwards: losses latch, also over midnight.
TRANSITIONS: Final[dict[tuple[RiskState, RiskEvent], RiskState]] = {
    (RiskState.ACTIVE, RiskEvent.DAILY_LOSS): RiskState.REDUCING,
    (RiskState.ACTIVE, RiskEvent.DRAWDOWN): RiskState.REDUCING,
    (RiskState.ACTIVE, RiskEvent.REDUCE): RiskState.REDUCING,
    (RiskState.ACTIVE, RiskEvent.HALT): RiskState.HALTED,
    (RiskState.REDUCING, RiskEvent.DAILY_LOSS): RiskState.REDUCING,
    (RiskState.REDUCING, RiskEvent.DRAWDOWN): RiskState.REDUCING,
    (RiskState.REDUCING, RiskEvent.REDUCE): RiskState.REDUCING,
    (RiskState.REDUCING, RiskEvent.HALT): RiskState.HALTED,
    (RiskState.REDUCING, RiskEvent.REARM): RiskState.ACTIVE,
    (RiskState.HALTED, RiskEvent.DAILY_LOSS): RiskState.HALTED,
    (RiskState.HALTED, RiskEvent.DRAWDOWN): RiskState.HALTED,
    (RiskState.HALTED, RiskEvent.HALT): RiskState.HALTED,
    (RiskState.HALTED, RiskEvent.REARM): RiskState.ACTIVE,
}


@dataclass(frozen=True, slots=True)
class Question:
    """One sized intent and the world around it, as numbers that rules compare.

    Amounts are valued at the price that the order would cross to (ask to buy, bid to sell), NaN where it is
    not known. Open orders count as if they were filled.

    Attributes
    ----------
    reducing : the order is smaller than or equal to the position it closes, on the other side of it
    order_usdt : value of the order
    position_usdt : |value| of the symbol's position after the order
    gross_usdt : Σ |value| over all symbols after the order
    min_notional_usdt : the exchange's smallest order for this symbol
    blocked_quality : the frame's quality bits that the configuration blocks; 0 = sound
    """

    reducing: bool
    order_usdt: float
    position_usdt: float
    gross_usdt: float
    min_notional_usdt: float
    spread_bps: float
    quote_age_ms: float
    blocked_quality: int
    confidence: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table: plain data, so that reports and documents can print it.

    Attributes
    ----------
    code : stands in verdicts, journals and reports; never changes its meaning
    bound : "max": value ≤ limit · "below": value < limit · "min": value ≥ limit
    limit : a number, or where it stands: an attribute of ``config`` or ``question``
    value : what is compared: an attribute of ``gate`` or ``question``
    needs : the state that has to be kept to know the value
    """

    name: str
    code: str
    unit: str
    scope: Literal["all", "opening"]
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


# In the order in which they are tried.
# fmt: off
RULES: Final[tuple[Rule, ...]] = (
    Rule("order has a size", "NO_SIZE", "USDT", "all",
         "question.order_usdt", "min", 1 / E8, "quote, instrument"),
    Rule("gate is not halted", "HALTED", "", "all",
         "gate.halted", "max", 0, "risk state"),
    Rule("gate is active", "REDUCING", "", "opening",
         "gate.closed", "max", 0, "risk state"),
    Rule("daily loss", "DAILY_LOSS", "USDT", "opening",
         "gate.daily_loss_usdt", "below", "config.max_daily_loss_usdt", "equity at 00:00 UTC"),
    Rule("drawdown", "DRAWDOWN", "%", "opening",
         "gate.drawdown_pct", "below", "config.max_drawdown_pct", "highest equity so far"),
    Rule("data quality", "QUALITY", "bits", "opening",
         "question.blocked_quality", "max", 0, "quality word of the frame"),
    Rule("quote age", "STALE_QUOTE", "ms", "opening",
         "question.quote_age_ms", "max", "config.max_quote_age_ms", "time of the last quote"),
    Rule("quote is not crossed", "CROSSED", "bps", "opening",
         "question.spread_bps", "min", 0, "quote"),
    Rule("spread", "WIDE_SPREAD", "bps", "opening",
         "question.spread_bps", "max", "config.max_spread_bps", "quote"),
    Rule("confidence", "LOW_CONFIDENCE", "probability", "opening",
         "question.confidence", "min", "config.min_confidence", "signal"),
    Rule("agreement", "LOW_AGREEMENT", "share of members", "opening",
         "question.agreement", "min", "config.min_agreement", "signal"),
    Rule("exchange minimum", "MIN_NOTIONAL", "USDT", "opening",
         "question.order_usdt", "min", "question.min_notional_usdt", "instrument"),
    Rule("order value", "ORDER_TOO_LARGE", "USDT", "opening",
         "question.order_usdt", "max", "config.max_order_usdt", "quote"),
    Rule("position value", "POSITION_TOO_LARGE", "USDT", "opening",
         "question.position_usdt", "max", "config.max_position_usdt", "positions, open orders"),
    Rule("value of all positions", "GROSS_TOO_LARGE", "USDT", "opening",
         "question.gross_usdt", "max", "config.max_gross_usdt", "positions, open orders"),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class _Scene:
    """What the names in the table refer to."""

    config: RiskConfig
    gate: RiskGate
    question: Question


def _getter(name: str | float) -> Callable[[_Scene], float]:
    if isinstance(name, str):
        return attrgetter(name)
    constant = float(name)
    return lambda scene: constant  # noqa: ARG005


_COMPILED: Final = tuple((rule, _getter(rule.limit), _getter(rule.value)) for rule in RULES)


@final
class RiskGate:
    """Judges intents by ``RULES`` and latches on losses.

    The caller must give every new equity to :meth:`observe` before it asks :meth:`judge` about intents of the
    same moment.

    Parameters
    ----------
    config : limits
    start_e8 : equity at the start, units: the first reference of daily loss and drawdown

    Attributes
    ----------
    state, cause : where the gate stands, and the event that brought it there (None while never left ACTIVE)
    daily_loss_usdt : equity at the day's start (UTC) less equity now; negative is a gain
    drawdown_pct : distance from the highest equity seen, in percent of it

    Raises
    ------
    ConfigError
        ``blocked_quality`` names a bit that does not exist
    """

    def __init__(self, config: RiskConfig, *, start_e8: int) -> None:
        self.config = config
        self.blocked_bits = 0
        for name in config.blocked_quality:
            if name not in Quality.__members__:
                raise ConfigError(
                    "unknown quality bit",
                    where="risk.blocked_quality",
                    value=name,
                    fix=f"known: {', '.join(Quality.__members__)}",
                )
            self.blocked_bits |= Quality[name].value
        self.state = RiskState.ACTIVE
        self.cause: RiskEvent | None = None
        self.daily_loss_usdt = 0.0
        self.drawdown_pct = 0.0
        self._day = -1
        self._day_start_e8 = start_e8
        self._high_e8 = start_e8
        self._last_e8 = start_e8

    @property
    def halted(self) -> bool:
        return self.state is RiskState.HALTED

    @property
    def closed(self) -> bool:
        """Whether nothing may be opened."""
        return self.state is not RiskState.ACTIVE

    def observe(self, now_ns: int, equity_e8: int) -> RiskEvent | None:
        """Take in the equity of now; return the event if a loss limit has just been reached.

        The reference of a day is the last equity seen before its midnight, so that a loss in the first
        moment of a day belongs to that day. Loss and drawdown latch at the limit itself (≥).
        """
        day = now_ns // NS_PER_DAY
        if day != self._day:
            self._day = day
            self._day_start_e8 = self._last_e8
        self._last_e8 = equity_e8
        self._high_e8 = max(self._high_e8, equity_e8)
        self.daily_loss_usdt = (self._day_start_e8 - equity_e8) / E8
        self.drawdown_pct = (
            100.0 * (self._high_e8 - equity_e8) / self._high_e8 if self._high_e8 > 0 else 100.0
        )
        if self.state is not RiskState.ACTIVE:
            return None
        if self.daily_loss_usdt >= self.config.max_daily_loss_usdt:
            return self.apply(RiskEvent.DAILY_LOSS)
        if self.drawdown_pct >= self.config.max_drawdown_pct:
            return self.apply(RiskEvent.DRAWDOWN)
        return None

    def apply(self, event: RiskEvent) -> RiskEvent:
        """Follow the transition table.

        Re-arming takes the equity of now as the new reference of loss and drawdown: else the gate would
        latch again at once.

        Raises
        ------
        ValueError
            the table has no such transition, or nothing is left to re-arm with; the state is unchanged
        """
        following = TRANSITIONS.get((self.state, event))
        if following is None or (event is RiskEvent.REARM and self._last_e8 <= 0):
            raise ValueError(f"no transition from {self.state} by {event}")
        self.state = following
        self.cause = event
        if event is RiskEvent.REARM:
            self._day_start_e8 = self._high_e8 = self._last_e8
            self.daily_loss_usdt = self.drawdown_pct = 0.0
        return event

    def judge(self, question: Question) -> Verdict:
        """Return the verdict on one sized intent: refused by the first rule that is not met."""
        scene = _Scene(self.config, self, question)
        for rule, limit_of, value_of in _COMPILED:
            if rule.scope == "opening" and question.reducing:
                continue
            limit, value = limit_of(scene), value_of(scene)
            if not rule.met(limit, value):
                return Verdict(accepted=False, code=rule.code, limit=float(limit), value=float(value))
        return Verdict(accepted=True)
