"""What somebody has to be told, defined once: for Prometheus' rules and for the notifications of a session.

Owns: names, limits, how long something must last, how grave it is, one sentence each. What to do about each:
docs/alerts.md. Never: looks at anything (gpuscalp.monitoring.expressions says how that is done).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, final

from gpuscalp.monitoring.expressions import (
    Age,
    Beyond,
    Expression,
    Quantile,
    Ranges,
    Ratio,
    Rise,
    Scrapes,
    Series,
    Total,
    Vector,
    merged,
)

Severity = Literal["critical", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "warning", "info")

_QUARTER: Final = 900
_FIVE: Final = 300
_DAY: Final = 86_400
# True where a label of a session had more than one value within a quarter of an hour.
_KINDS: Final = (
    "count by (instance, job) (count by (instance, job, {})"
    " (last_over_time(gpuscalp_session_info[900s]))) > 1"
)


@final
@dataclass(frozen=True)
class Condition:
    """Something that may be true of a session.

    Parameters
    ----------
    name : of the alert
    test : true while it gives any value. PromQL as it stands is for what a session could not say of itself
    what : one sentence, with the labels of the series in braces
    hold_s : how long it must have been true without a break
    given : further tests that must be true too, of the same session
    """

    name: str
    severity: Severity
    test: Beyond | str
    what: str
    hold_s: int = 0
    given: Beyond | None = None

    def promql(self) -> str:
        if isinstance(self.test, str):
            return self.test
        if self.given is None:
            return self.test.promql()
        return f"({self.test.promql()}) and on (instance, job) ({self.given.promql()})"

    def read(self, scrapes: Scrapes) -> Vector:
        """Return the values that are beyond the limit now; none of what only Prometheus can judge."""
        if isinstance(self.test, str) or (self.given is not None and not self.given.read(scrapes)):
            return {}
        return self.test.read(scrapes)

    def ranges(self) -> Ranges:
        """Return what it reads, and how far back."""
        return merged(each.of.ranges() for each in (self.test, self.given) if isinstance(each, Beyond))


def _above(of: Expression, limit: float) -> Beyond:
    return Beyond(of, ">", limit)


def _below(of: Expression, limit: float) -> Beyond:
    return Beyond(of, "<", limit)


def _set(name: str, **labels: str) -> Beyond:
    """Return the test of a metric that is 0 or 1."""
    return _above(Series(name, labels), 0)


CONDITIONS: Final = (
    # Critical: money is at risk, or nobody is in charge of it. Look now.
    Condition(
        "GpuscalpDown",
        "critical",
        'up{job="gpuscalp"} < 1',
        "The session at {instance} does not answer: the process has ended, or hangs.",
        hold_s=15,
    ),
    Condition(
        # The port opens before the journal is repeated, so that no end lasts long enough for the one above.
        "GpuscalpRestarting",
        "critical",
        'changes(up{job="gpuscalp"}[600s]) > 3',
        "The session at {instance} went away more than once within 10 minutes: it starts, and ends again.",
    ),
    Condition(
        "GpuscalpStarting",
        "critical",
        "(gpuscalp_build_info unless on (instance, job) gpuscalp_status_timestamp_seconds) > 0",
        "The process answers, and its session has not begun for two minutes: nobody is in charge of it.",
        hold_s=120,
    ),
    Condition(
        "GpuscalpStuck",
        "critical",
        _above(Age(Series("gpuscalp_status_timestamp_seconds")), 10),
        "The process answers, but its session has said nothing new for more than 10 s.",
    ),
    Condition(
        "GpuscalpHalted",
        "critical",
        _set("gpuscalp_risk_state", state="halted"),
        "The risk gate is halted: no order passes.",
    ),
    Condition(
        "GpuscalpDrawdown",
        "critical",
        _above(Series("gpuscalp_drawdown_ratio"), 0.05),
        "The drawdown is above 5 %.",
    ),
    Condition(
        "GpuscalpNoFrames",
        "critical",
        _above(Series("gpuscalp_last_frame_age_seconds"), 10),
        "No frame has been decided on for more than 10 s.",
        hold_s=10,  # after a restart the last frame is an old one at first
    ),
    Condition(
        "GpuscalpDataSilent",
        "critical",
        _set("gpuscalp_symbol_silent"),
        "{symbol}: a stream delivers nothing, from no connection.",
        hold_s=15,
    ),
    Condition(
        "GpuscalpTickSize",
        "critical",
        _set("gpuscalp_symbol_off_tick"),
        "{symbol}: prices are no multiples of the session's tick size; the session does not see its market.",
    ),
    Condition(
        "GpuscalpDeviceLost",
        "critical",
        _set("gpuscalp_gpu_lost"),
        "GPU {gpu} ({modelName}) does not answer any more.",
    ),
    Condition(
        "GpuscalpDeviceFailed",
        "critical",
        _set("gpuscalp_gpu_reason", verdict="failed"),
        "GPU {gpu} ({modelName}) has failed: {reason}.",
    ),
    Condition(
        "GpuscalpStranger",
        "critical",
        # Not the gate's cause: that of a gate which is closed already stays, and this ends with the stranger.
        _set("gpuscalp_account_blocked"),
        "The exchange has a position or an order that the session does not know.",
    ),
    Condition(
        "GpuscalpMismatch",
        "critical",
        _set("gpuscalp_risk_cause", cause="alarm"),
        "The exchange does what the session has not asked for, or does not count on.",
    ),
    Condition(
        "GpuscalpAccountUnseen",
        "critical",
        _set("gpuscalp_health_reason", source="venue"),
        "The exchange cannot be asked or trusted: {reason}.",
        hold_s=60,
    ),
    Condition(
        "GpuscalpDiskFull",
        "critical",
        _below(Series("gpuscalp_disk_free_ratio"), 0.05),
        "Less than 5 % of the disk (bytes or files) is free; a session whose journal cannot be written ends.",
        hold_s=30,
    ),
    # Warning: it goes on, worse than it should. Look today.
    Condition(
        "GpuscalpReducing",
        "warning",
        _set("gpuscalp_risk_state", state="reducing"),
        "The risk gate opens no positions.",
        hold_s=30,
    ),
    Condition(
        "GpuscalpSymbolRules",
        "warning",
        _set("gpuscalp_symbol_rules"),
        "{symbol}: the exchange does not trade it, or by other rules; nothing is opened on it.",
    ),
    Condition(
        "GpuscalpSlowPredictions",
        "warning",
        _above(Quantile(Series("gpuscalp_stage_duration_seconds", {"stage": "predict"}), 0.99, _FIVE), 0.05),
        "One prediction in a hundred takes more than 50 ms.",
        hold_s=60,
    ),
    Condition(
        "GpuscalpLatePredictions",
        "warning",
        _above(Rise(Series("gpuscalp_engine_late_predictions_total"), _FIVE), 5),
        "More than 5 predictions within 5 minutes came after their deadline and were not used.",
    ),
    Condition(
        # Not the faults themselves: a series that appears with its first fault has not risen for PromQL.
        "GpuscalpDeviceFault",
        "warning",
        _above(Rise(Series("gpuscalp_engine_lost_frames_total"), _FIVE), 0),
        "The device that predicts failed, and frames went without a prediction.",
    ),
    Condition(
        "GpuscalpFallback",
        "warning",
        _below(Series("gpuscalp_engine_gpu_leading"), 1),
        "The session is one for a GPU, and the processor has predicted for two minutes.",
        hold_s=120,
        given=_above(Series("gpuscalp_session_info", {"device": "cuda"}), 0),
    ),
    Condition(
        "GpuscalpDeviceDoubtful",
        "warning",
        _set("gpuscalp_health_reason", source="device"),
        "A device is not trusted, so nothing is opened: {reason}.",
        hold_s=10,
    ),
    Condition(
        "GpuscalpCpuHigh",
        "warning",
        _above(
            Ratio(
                Rise(Series("process_cpu_seconds_total"), _FIVE, per_second=True),
                Series("gpuscalp_machine_cpus"),
            ),
            0.9,
        ),
        "The process uses more than 90 % of its processors.",
        hold_s=120,
    ),
    Condition(
        "GpuscalpMemoryLow",
        "warning",
        _below(
            Ratio(Series("gpuscalp_machine_memory_available_bytes"), Series("gpuscalp_machine_memory_bytes")),
            0.1,
        ),
        "Less than 10 % of the machine's memory is free.",
        hold_s=60,
    ),
    Condition(
        "GpuscalpDiskLow",
        "warning",
        _below(Series("gpuscalp_disk_free_ratio"), 0.15),
        "Less than 15 % of the disk (bytes or files) is free.",
        hold_s=60,
    ),
    Condition(
        "GpuscalpOverload",
        "warning",
        _above(Rise(Series("gpuscalp_overloads_total"), _FIVE), 0),
        "More ticks came than could be worked on; quotes and books gave way to newer ones.",
    ),
    Condition(
        "GpuscalpUnwatched",
        "warning",
        _above(Rise(Series("gpuscalp_onlooker_errors_total"), _FIVE), 0),
        "Something that only looks on has failed: what it shows is old. The session goes on.",
    ),
    Condition(
        "GpuscalpTradesLate",
        "warning",
        _above(Series("gpuscalp_late_trades_ratio"), 0.05),
        "More than 5 % of the market's trades come after their frame has closed, and are left out of it.",
        hold_s=30,
    ),
    Condition(
        "GpuscalpWinRateLow",
        "warning",
        _below(Series("gpuscalp_win_ratio"), 0.35),
        "Fewer than 35 % of the last round trips won.",
        given=_above(Total(Series("gpuscalp_trades_total")), 49),
    ),
    Condition(
        "GpuscalpNoSkill",
        "warning",
        _above(Ratio(Series("gpuscalp_live_log_loss_nats"), Series("gpuscalp_live_base_log_loss_nats")), 1.0),
        "The predictions of the last while are worse than naming the class shares.",
        # The window begins anew with another lead, and the class shares of a short one are known too well.
        hold_s=1_800,
        given=_above(Series("gpuscalp_live_rows"), 999),
    ),
    Condition(
        "GpuscalpDrift",
        "warning",
        _above(Series("gpuscalp_feature_psi"), 0.25),
        "The features of group {group} no longer look as in training.",
        hold_s=300,
        given=_above(Series("gpuscalp_feature_psi_rows"), 999),
    ),
    Condition(
        "GpuscalpModelExpiring",
        "warning",
        _below(Series("gpuscalp_model_expires_seconds"), _DAY),
        "The model expires within a day; nothing is opened on its predictions then.",
    ),
    Condition(
        "GpuscalpModelRolledBack",
        "warning",
        _above(Rise(Series("gpuscalp_model_rollbacks_total"), _QUARTER), 0),
        "A model that had just been promoted left its band; the one before leads again.",
    ),
    Condition(
        "GpuscalpRetrainingFailed",
        "warning",
        _set("gpuscalp_retraining_state", state="failed"),
        "The last retraining failed; the session goes on with the model that it has.",
    ),
    Condition(
        "GpuscalpDriftFlag",
        "warning",
        _set("gpuscalp_drift_flag"),
        "The features differ from those of the training by more than chance.",
    ),
    Condition(
        "GpuscalpClock",
        "warning",
        _set("gpuscalp_clock_drifted"),
        "Our clock is not to be trusted; nothing is opened.",
        hold_s=5,
    ),
    Condition(
        "GpuscalpBookBroken",
        "warning",
        _below(Series("gpuscalp_book_synced"), 1),
        "{symbol}: the book has not been whole for 30 s.",
        hold_s=30,
    ),
    Condition(
        "GpuscalpOrderRejects",
        "warning",
        _above(Rise(Series("gpuscalp_orders_rejected_total"), _FIVE), 5),
        "The exchange refused more than 5 orders within 5 minutes.",
    ),
    Condition(
        "GpuscalpScoreLow",
        "warning",
        _below(Series("gpuscalp_score"), 50),
        "The performance score is below 50 of 100.",
        hold_s=120,
    ),
    Condition(
        "GpuscalpNotifyFailing",
        "warning",
        'increase(gpuscalp_notifications_total{result="failed"}[900s]) > 0',
        "A notification of the session could not be delivered.",
    ),
    # Info: worth knowing, nothing to be done.
    Condition(
        "GpuscalpStarted",
        "info",
        _below(Age(Series("gpuscalp_start_time_seconds")), 60),
        "The process has taken up its session.",
    ),
    Condition(
        "GpuscalpConfigChanged",
        "info",
        _KINDS.format("config"),
        "The configuration is another one than a quarter of an hour ago.",
    ),
    Condition(
        "GpuscalpModelChanged",
        "info",
        _KINDS.format("bundle"),
        "The model is another one than a quarter of an hour ago.",
    ),
)
