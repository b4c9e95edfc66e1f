"""The risk gate: states, what latches, and the memory that its rules look at.

Owns: the states ACTIVE, REDUCING and HALTED, the table of what leads there, loss and drawdown, the breakers.
Never: places an order, raises for a refusal, or knows a clock. The rules are in rules.py; a refusal is a
:class:`~gpuscalp.orders.Verdict` with the code of the first rule that was not met.

Four ways for an operator to stop. Three are events of the gate: HALT_ENTRIES (nothing is opened, positions
run to their exit), REDUCE (in addition the caller cancels ``Trader.risk_increasing_orders``) and FLATTEN (the
caller cancels everything and closes what ``Trader.flatten`` names, until nothing is held). The fourth, to end
the process, changes nothing here: a checkpoint holds the gate as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

from gpuscalp.config import OFF, RiskConfig
from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.orders import Verdict
from gpuscalp.risk.breakers import LossStreak, OrderRate, VolatilityPauses
from gpuscalp.risk.rules import Question, judge
from gpuscalp.schema import E8, F64, NS_PER_DAY, NS_PER_S, Quality


class RiskState(StrEnum):
    ACTIVE = "active"  # everything that passes the rules
    REDUCING = "reducing"  # only orders that reduce a position
    HALTED = "halted"  # nothing


class RiskEvent(StrEnum):
    DAILY_LOSS = "daily_loss"
    DRAWDOWN = "drawdown"
    LOSS_STREAK = "loss_streak"  # too many losses in a row, too often in one day
    HALT_ENTRIES = "halt_entries"  # by hand
    REDUCE = "reduce"  # by hand
    FLATTEN = "flatten"  # by hand
    STRANGER = "stranger"  # the exchange has a position or an order that nobody here knows
    ALARM = "alarm"  # the exchange does what nobody here asked for, or counts on
    HALT = "halt"  # by a start: the database knows more than the journal
    REARM = "rearm"  # by hand


# Where an event leads at least. Nothing but REARM leads upwards, and losses latch, also over midnight.
_LEADS_TO: Final = {
    RiskEvent.DAILY_LOSS: RiskState.REDUCING,
    RiskEvent.DRAWDOWN: RiskState.REDUCING,
    RiskEvent.LOSS_STREAK: RiskState.REDUCING,
    RiskEvent.HALT_ENTRIES: RiskState.REDUCING,
    RiskEvent.REDUCE: RiskState.REDUCING,
    RiskEvent.FLATTEN: RiskState.HALTED,
    RiskEvent.STRANGER: RiskState.REDUCING,
    RiskEvent.ALARM: RiskState.REDUCING,
    RiskEvent.HALT: RiskState.HALTED,
}
_FROM_MILD_TO_HARD: Final = tuple(RiskState)


@dataclass(frozen=True, slots=True)
class RiskSnapshot:
    """All that a gate remembers, as plain numbers and text: what is told of it.

    Attributes
    ----------
    state, cause, since_ns : where the gate stands, the event that brought it there ("" if none), and when
    now_ns : time of the last observation
    day, day_start_e8, high_e8, last_e8 : day since 1970 (UTC), its first equity, the highest, the last
    losses, cool_down_until_ns, loss_trips : of the losses in a row
    pauses : (symbol index, end of the pause, trips today) of every symbol that has any
    order_times_ns : of the last minute
    """

    state: str
    cause: str
    since_ns: int
    now_ns: int
    day: int
    day_start_e8: int
    high_e8: int
    last_e8: int
    losses: int
    cool_down_until_ns: int
    loss_trips: int
    pauses: tuple[tuple[int, int, int], ...]
    order_times_ns: tuple[int, ...]


@final
class RiskGate:
    """Judges intents by ``RULES``, latches on losses, and trips its breakers.

    The caller must give every new equity to :meth:`observe` before it asks :meth:`judge` about intents of the
    same moment, count every order that it sends by :meth:`on_order`, and tell every closed trade.

    Parameters
    ----------
    config : limits
    start_e8 : equity at the start, units: the first reference of daily loss and drawdown
    symbol_count : S

    Attributes
    ----------
    state, cause, since_ns : where the gate stands, the event that brought it there (None while it never left
        ACTIVE), and when
    causes : every event since the gate was last armed, whether it led anywhere or not: an alarm in a gate
        that is closed already is one too. Of this gate alone: no rule reads it, and no snapshot has it
    daily_loss_usdt : equity at 00:00 UTC, or at the last re-arming at its limit if that was later, less
        equity now; negative is a gain
    drawdown_pct : distance from the highest equity since the last re-arming at its limit, in percent of it
    streak, pauses : the breakers that end by themselves

    Raises
    ------
    ConfigError
        ``blocked_quality`` names a bit that does not exist, or ``exit_reserve`` leaves nothing to entries
    """

    def __init__(self, config: RiskConfig, *, start_e8: int, symbol_count: int) -> None:
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
        if min(config.max_orders_per_s, config.max_orders_per_minute) * (1.0 - config.exit_reserve) < 1.0:
            raise ConfigError(
                "the reserve for exits leaves no order to entries",
                where="risk.exit_reserve",
                value=config.exit_reserve,
                fix="raise max_orders_per_s or max_orders_per_minute, or lower the reserve",
            )
        self.state = RiskState.ACTIVE
        self.cause: RiskEvent | None = None
        self.causes: list[RiskEvent] = []
        self.since_ns = 0
        self.daily_loss_usdt = 0.0
        self.drawdown_pct = 0.0
        self.streak = LossStreak()
        self.pauses = VolatilityPauses(symbol_count)
        self._rate = OrderRate()
        self._now_ns = 0
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

    @property
    def cool_down_ms(self) -> float:
        """What is left of the pause after too many losses."""
        return self.streak.left_ms(self._now_ns)

    @property
    def orders_per_s(self) -> int:
        """Orders of the last second, with one that would be sent now."""
        return self._rate.within(self._now_ns, NS_PER_S) + 1

    @property
    def orders_per_minute(self) -> int:
        """Orders of the last minute, with one that would be sent now."""
        return len(self._rate.times_ns) + 1

    @property
    def entries_per_s_max(self) -> float:
        return self.config.max_orders_per_s * (1.0 - self.config.exit_reserve)

    @property
    def entries_per_minute_max(self) -> float:
        return self.config.max_orders_per_minute * (1.0 - self.config.exit_reserve)

    def observe(self, now_ns: int, equity_e8: int, volatility_bps: F64 | None = None) -> RiskEvent | None:
        """Take in time, equity and volatility of now; return the event if something has just latched.

        The reference of a day is the last equity seen before its midnight, so that a loss in the first
        moment of a day belongs to that day. Loss and drawdown latch at the limit itself (≥).

        Parameters
        ----------
        volatility_bps : float64[S] over the short horizon; None pauses nothing
        """
        config = self.config
        self._now_ns = now_ns
        self._rate.forget(now_ns)
        day = now_ns // NS_PER_DAY
        if day > self._day:
            self._day = day
            self._day_start_e8 = self._last_e8
            self.streak.trips = 0
            self.pauses.trips[:] = 0
        self._measure(equity_e8)
        if volatility_bps is not None and config.max_volatility_bps != OFF:
            self.pauses.observe(
                now_ns,
                volatility_bps,
                limit_bps=float(config.max_volatility_bps),
                pause_ms=config.volatility_pause_ms,
                trips_max=config.breaker_trips_max,
            )
        latched = config.max_losses != OFF and self.streak.observe(
            now_ns,
            losses_max=int(config.max_losses),
            pause_ms=config.loss_pause_ms,
            trips_max=config.breaker_trips_max,
        )
        if self.state is not RiskState.ACTIVE:
            return None
        event: RiskEvent | None = None
        if self.daily_loss_usdt >= config.max_daily_loss_usdt:
            event = RiskEvent.DAILY_LOSS
        elif self.drawdown_pct >= config.max_drawdown_pct:
            event = RiskEvent.DRAWDOWN
        elif latched:
            event = RiskEvent.LOSS_STREAK
        if event is not None:
            self.apply(event, now_ns)
        return event

    def on_order(self, now_ns: int) -> None:
        """Count an order that is sent."""
        self._rate.add(now_ns)

    def on_trade(self, pnl_e8: int) -> None:
        """Take in the result of a closed trade after costs; a breaker trips at the next observation."""
        self.streak.on_trade(pnl_e8)

    def apply(self, event: RiskEvent, now_ns: int) -> RiskState:
        """Go where an event leads; return the state, which is a milder one only by REARM.

        Re-arming ends all pauses. Of loss and drawdown, the one whose limit has been reached is measured from
        the equity of now, or the gate would latch again at once; the other counts on, or whoever pauses and
        goes on would be given its limit anew.

        Raises
        ------
        UsageError
            there is nothing to re-arm, or nothing left to re-arm with; the state is unchanged
        """
        if event is RiskEvent.REARM:
            self._rearm()
            following = RiskState.ACTIVE
        else:
            following = max(self.state, _LEADS_TO[event], key=_FROM_MILD_TO_HARD.index)
            if event not in self.causes:
                self.causes.append(event)
        if following is not self.state:
            self.state, self.cause, self.since_ns = following, event, now_ns
        return self.state

    def judge(self, question: Question, *, resting: bool = False) -> Verdict:
        """Return the verdict on one sized intent, or on an entry that rests: see ``rules.judge``."""
        return judge(self, question, resting=resting)

    def pause_ms(self, symbol_index: int) -> float:
        """Return what is left of a symbol's pause; infinite where it latched."""
        return self.pauses.left_ms(symbol_index, self._now_ns)

    def snapshot(self) -> RiskSnapshot:
        """Return all that the gate remembers."""
        paused = (self.pauses.until_ns > 0) | (self.pauses.trips > 0)
        return RiskSnapshot(
            state=self.state.value,
            cause="" if self.cause is None else self.cause.value,
            since_ns=self.since_ns,
            now_ns=self._now_ns,
            day=self._day,
            day_start_e8=self._day_start_e8,
            high_e8=self._high_e8,
            last_e8=self._last_e8,
            losses=self.streak.losses,
            cool_down_until_ns=self.streak.until_ns,
            loss_trips=self.streak.trips,
            pauses=tuple(
                (int(index), int(self.pauses.until_ns[index]), int(self.pauses.trips[index]))
                for index in paused.nonzero()[0]
            ),
            order_times_ns=tuple(self._rate.times_ns),
        )

    def _rearm(self) -> None:
        refused = f"no transition from {self.state} by {RiskEvent.REARM}"
        if self.state is RiskState.ACTIVE:  # it would only wipe out its losses
            fix = "only a gate that is reducing or halted can be re-armed"
            raise UsageError(refused, where="risk gate", fix=fix)
        if self._last_e8 <= 0:
            raise UsageError(f"{refused}: no equity is left", where="risk gate", value=self._last_e8 / E8)
        config, causes = self.config, self.causes
        if RiskEvent.DAILY_LOSS in causes or self.daily_loss_usdt >= config.max_daily_loss_usdt:
            self._day_start_e8 = self._last_e8
        if RiskEvent.DRAWDOWN in causes or self.drawdown_pct >= config.max_drawdown_pct:
            self._high_e8 = self._last_e8
        self._measure(self._last_e8)
        self.streak = LossStreak()
        self.pauses = VolatilityPauses(len(self.pauses.until_ns))
        self.causes = []

    def _measure(self, equity_e8: int) -> None:
        self._last_e8 = equity_e8
        self._high_e8 = max(self._high_e8, equity_e8)
        self.daily_loss_usdt = (self._day_start_e8 - equity_e8) / E8
        self.drawdown_pct = (
            100.0 * (self._high_e8 - equity_e8) / self._high_e8 if self._high_e8 > 0 else 100.0
        )
