"""What happens to a session's metrics, and when which alert must come of it: by hand, from the runbook.

A scene gives samples every 5 s. ``None`` is a series that is not there. Both readers of the conditions are
held to the same scenes: Prometheus itself, and the session's own, which leaves out what is Prometheus' alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

STEP_S = 5
Values = list[float | None]


class Scene(NamedTuple):
    """``fires``, ``silent``: seconds at which the alert must and must not be there, with these labels."""

    alert: str
    series: dict[str, Values]
    fires: tuple[int, ...]
    silent: tuple[int, ...]
    labels: Mapping[str, str] = MappingProxyType({})


def _flat(*runs: tuple[float | None, int]) -> Values:
    """Return values that stand still: (value, how often)."""
    return [value for value, count in runs for _ in range(count)]


def _line(start: float, slope: float, count: int) -> Values:
    """Return values that rise evenly; ``slope`` a second."""
    return [start + slope * STEP_S * index for index in range(count)]


def _switch(alert: str, series: str, labels: dict[str, str], *, hold_s: int = 0, on: float = 1) -> Scene:
    """A value that goes from 0 to 1 at 20 s, and back when the alert has been there for 20 s."""
    lasts = hold_s // STEP_S + 4
    values = _flat((1 - on, 4), (on, lasts), (1 - on, 4))
    end_s = 20 + lasts * STEP_S
    silent = (15, *((20, 20 + hold_s - STEP_S) if hold_s else ()), end_s)
    return Scene(alert, {series: values}, (20 + hold_s, end_s - STEP_S), silent, labels)


def _appears(alert: str, series: str, labels: dict[str, str], *, hold_s: int = 0) -> Scene:
    """A series that is not there before 20 s, and goes again."""
    lasts = hold_s // STEP_S + 4
    end_s = 20 + lasts * STEP_S
    values = _flat((None, 4), (1, lasts), (None, 4))
    silent = (15, *((20, 20 + hold_s - STEP_S) if hold_s else ()), end_s)
    return Scene(alert, {series: values}, (20 + hold_s, end_s - STEP_S), silent, labels)


def _short(alert: str, series: str, limit: float, *, of: str = "", hold_s: int) -> Scene:
    """More than enough at first, too little from 20 s on; of 1000, where ``of`` names a series."""
    count = hold_s // STEP_S + 9
    whole = 1_000 if of else 1
    too_little, enough = whole * (limit - 0.001), whole * (limit + 0.001)
    values = {series: _flat((enough, 4), (too_little, count - 4))}
    if of:
        values[of] = _flat((whole, count))
    return Scene(alert, values, (20 + hold_s, 5 * (count - 1)), (15, 20 + hold_s - STEP_S))


def _counter(alert: str, series: str, labels: dict[str, str]) -> Scene:
    """One more at 50 s: the alert stands for five minutes."""
    values = _flat((7, 10), (8, 65))
    return Scene(alert, {series: values}, (50, 200, 340), (45, 360), labels)


_BUILD = 'version="1",python="3.12.1"'
_CARD = 'UUID="GPU-1",gpu="0",modelName="Card",pci_bus_id="1"'
_CARD_LABELS = {"UUID": "GPU-1", "gpu": "0", "modelName": "Card", "pci_bus_id": "1"}
_BUCKET = 'gpuscalp_stage_duration_seconds_bucket{stage="predict",le="%s"}'
_OTHER = 'gpuscalp_stage_duration_seconds_bucket{stage="total",le="%s"}'


def _slow() -> Scene:
    """Fast until 100 s, then two of a hundred above 62.5 ms: p99 is in that bucket after some of them."""
    fast, half = _line(0, 10, 60), 20
    slow = [0.0] * half + [1.0 * STEP_S * index for index in range(1, 41)]
    below = [all_ - late for all_, late in zip(fast, slow, strict=True)]
    return Scene(
        "GpuscalpSlowPredictions",
        {
            _BUCKET % "0.03125": below,
            _BUCKET % "0.0625": below,
            _BUCKET % "0.125": fast,
            _BUCKET % "+Inf": fast,
            _OTHER % "0.03125": [0.0] * 60,
            _OTHER % "0.125": [0.0] * 60,
            _OTHER % "+Inf": fast,
        },
        (200, 295),
        (95, 150),
    )


SCENES = (
    _switch("GpuscalpDown", "up", {}, hold_s=15, on=0),
    Scene(
        "GpuscalpRestarting",  # a start that fails 25 s after it began, again and again; then one that stays
        {"up": _flat((1, 4)) + _flat((0, 2), (1, 3)) * 4 + _flat((1, 122))},
        (55, 80, 625),
        (20, 50, 720),
    ),
    Scene(
        "GpuscalpRestarting",  # somebody has started it again
        {"up": _flat((1, 4), (0, 2), (1, 20))},
        (),
        (20, 30, 125),
    ),
    Scene(
        "GpuscalpStarting",
        {
            f"gpuscalp_build_info{{{_BUILD}}}": _flat((1, 40)),
            "gpuscalp_status_timestamp_seconds": _flat((None, 30), (150, 10)),
        },
        (120, 145),
        (115, 150, 195),
        {"version": "1", "python": "3.12.1"},
    ),
    Scene(
        "GpuscalpStarting",  # a loop that begins anew every minute is the other alert's
        {f"gpuscalp_build_info{{{_BUILD}}}": _flat((1, 11), (None, 1)) * 3},
        (),
        (120, 175),
    ),
    Scene(
        "GpuscalpStuck",
        {"gpuscalp_status_timestamp_seconds": [0, 5, 10, 10, 10, 10, 30, 35]},
        (25,),
        (10, 20, 30),
    ),
    _switch("GpuscalpHalted", 'gpuscalp_risk_state{state="halted"}', {"state": "halted"}),
    Scene("GpuscalpDrawdown", {"gpuscalp_drawdown_ratio": [0.01, 0.05, 0.051, 0.04]}, (10,), (0, 5, 15)),
    Scene(
        "GpuscalpNoFrames",
        {"gpuscalp_last_frame_age_seconds": [0.1, 10, 10.1, 15, 20, 25, 0.2]},
        (20, 25),
        (5, 10, 15, 30),
    ),
    _switch(
        "GpuscalpDataSilent", 'gpuscalp_symbol_silent{symbol="BTCUSDT"}', {"symbol": "BTCUSDT"}, hold_s=15
    ),
    _switch("GpuscalpTickSize", 'gpuscalp_symbol_off_tick{symbol="BTCUSDT"}', {"symbol": "BTCUSDT"}),
    _switch("GpuscalpDeviceLost", f"gpuscalp_gpu_lost{{{_CARD}}}", _CARD_LABELS),
    _appears(
        "GpuscalpDeviceFailed",
        f'gpuscalp_gpu_reason{{{_CARD},reason="xid",verdict="failed"}}',
        _CARD_LABELS | {"reason": "xid", "verdict": "failed"},
    ),
    Scene(
        "GpuscalpDeviceFailed",  # a card that is only doubtful has not failed
        {f'gpuscalp_gpu_reason{{{_CARD},reason="memory",verdict="doubtful"}}': [1, 1, 1]},
        (),
        (0, 10),
    ),
    _switch("GpuscalpStranger", "gpuscalp_account_blocked", {}),
    _appears("GpuscalpMismatch", 'gpuscalp_risk_cause{cause="alarm"}', {"cause": "alarm"}),
    _appears(
        "GpuscalpAccountUnseen",
        'gpuscalp_health_reason{source="venue",reason="account:unseen"}',
        {"source": "venue", "reason": "account:unseen"},
        hold_s=60,
    ),
    _short("GpuscalpDiskFull", "gpuscalp_disk_free_ratio", 0.05, hold_s=30),
    _switch("GpuscalpReducing", 'gpuscalp_risk_state{state="reducing"}', {"state": "reducing"}, hold_s=30),
    _switch("GpuscalpSymbolRules", 'gpuscalp_symbol_rules{symbol="BTCUSDT"}', {"symbol": "BTCUSDT"}),
    _slow(),
    Scene(
        "GpuscalpLatePredictions",
        {"gpuscalp_engine_late_predictions_total": _flat((7, 10), (10, 10), (17, 60))},
        (100, 200, 340),
        (45, 50, 95),
    ),
    _counter("GpuscalpDeviceFault", "gpuscalp_engine_lost_frames_total", {}),
    Scene(
        "GpuscalpFallback",
        {
            "gpuscalp_engine_gpu_leading": _flat((1, 4), (0, 30), (1, 4)),
            'gpuscalp_session_info{device="cuda",config="a",bundle="x"}': _flat((1, 38)),
        },
        (140, 165),
        (15, 135, 170),
    ),
    Scene(
        "GpuscalpFallback",  # a session on the processor misses nothing
        {
            "gpuscalp_engine_gpu_leading": _flat((0, 40)),
            'gpuscalp_session_info{device="cpu",config="a",bundle="x"}': _flat((1, 40)),
        },
        (),
        (0, 120, 195),
    ),
    _appears(
        "GpuscalpDeviceDoubtful",
        'gpuscalp_health_reason{source="device",reason="gpu0:memory"}',
        {"source": "device", "reason": "gpu0:memory"},
        hold_s=10,
    ),
    Scene(
        "GpuscalpCpuHigh",
        {
            # Above 1.8 of 2 in the mean of five minutes from 455 s on, and two minutes more.
            "process_cpu_seconds_total": _line(0, 1.0, 40) + _line(200, 1.95, 85),
            "gpuscalp_machine_cpus": _flat((2, 125)),
        },
        (590, 620),
        (195, 455, 560),
    ),
    _short(
        "GpuscalpMemoryLow",
        "gpuscalp_machine_memory_available_bytes",
        0.1,
        of="gpuscalp_machine_memory_bytes",
        hold_s=60,
    ),
    _short("GpuscalpDiskLow", "gpuscalp_disk_free_ratio", 0.15, hold_s=60),
    Scene(
        "GpuscalpTradesLate",
        {"gpuscalp_late_trades_ratio": _flat((None, 2), (0.05, 4), (0.06, 12), (0.05, 4))},
        (60, 85),
        (5, 25, 30, 55, 90),
    ),
    _counter("GpuscalpOverload", "gpuscalp_overloads_total", {}),
    _counter("GpuscalpUnwatched", "gpuscalp_onlooker_errors_total", {}),
    Scene(
        "GpuscalpWinRateLow",  # not before there are 50 of them
        {
            "gpuscalp_win_ratio": [0.2, 0.2, 0.2, 0.4],
            'gpuscalp_trades_total{result="won"}': [1, 10, 10, 20],
            'gpuscalp_trades_total{result="lost"}': [4, 39, 40, 40],
        },
        (10,),
        (0, 5, 15),
    ),
    Scene(
        "GpuscalpNoSkill",
        {
            "gpuscalp_live_log_loss_nats": _flat((0.9, 10), (1.1, 370)),
            "gpuscalp_live_base_log_loss_nats": _flat((1.0, 380)),
            "gpuscalp_live_rows": _flat((5_000, 380)),
        },
        (1_850, 1_890),
        (45, 1_845),
    ),
    Scene(
        # Another lead at 50 s: for 25 minutes the class shares of the new window are known too well.
        "GpuscalpNoSkill",
        {
            "gpuscalp_live_log_loss_nats": _flat((0.9, 10), (None, 6), (0.9, 350)),
            "gpuscalp_live_base_log_loss_nats": _flat((1.0, 10), (None, 6), (0.88, 300), (0.92, 50)),
            "gpuscalp_live_rows": _flat((5_000, 10), (0, 6), (5_000, 350)),
        },
        (),
        (45, 75, 680, 1_500, 1_800),
    ),
    Scene(
        "GpuscalpDrift",
        {
            'gpuscalp_feature_psi{group="flow"}': _flat((0.1, 10), (0.3, 80)),
            'gpuscalp_feature_psi{group="book"}': _flat((0.1, 90)),
            "gpuscalp_feature_psi_rows": _flat((5_000, 90)),
        },
        (350, 440),
        (45, 345),
        {"group": "flow"},
    ),
    Scene(
        "GpuscalpDrift",  # of too few rows nothing is said
        {
            'gpuscalp_feature_psi{group="flow"}': _flat((0.9, 80)),
            "gpuscalp_feature_psi_rows": _flat((999, 80)),
        },
        (),
        (0, 390),
        {"group": "flow"},
    ),
    Scene(
        "GpuscalpModelExpiring", {"gpuscalp_model_expires_seconds": [86_400, 86_399, 5, -9]}, (5, 15), (0,)
    ),
    Scene(
        "GpuscalpModelRolledBack",
        {"gpuscalp_model_rollbacks_total": _flat((0, 10), (1, 200))},
        (50, 900),
        (45, 1_000),
    ),
    _switch("GpuscalpRetrainingFailed", 'gpuscalp_retraining_state{state="failed"}', {"state": "failed"}),
    _switch("GpuscalpDriftFlag", "gpuscalp_drift_flag", {}),
    _switch("GpuscalpClock", "gpuscalp_clock_drifted", {}, hold_s=5),
    _switch("GpuscalpBookBroken", 'gpuscalp_book_synced{symbol="B"}', {"symbol": "B"}, hold_s=30, on=0),
    Scene(
        "GpuscalpOrderRejects",
        {
            "gpuscalp_orders_rejected_total": [2, 2, 5, 5, 9, 9],
            'gpuscalp_order_rejects_total{code="-2019"}': [0, 0, 3, 3, 3, 3],
            'gpuscalp_order_rejects_total{code="-1111"}': [2, 2, 2, 2, 6, 6],
        },
        (20, 25),
        (5, 15),
    ),
    Scene(
        "GpuscalpOrderRejects",  # the first burst: before it no code has a series
        {
            "gpuscalp_orders_rejected_total": [0, 0, 40, 40],
            'gpuscalp_order_rejects_total{code="-2019"}': [None, None, 40, 40],
        },
        (10, 15),
        (0, 5),
    ),
    Scene("GpuscalpScoreLow", {"gpuscalp_score": _flat((80, 4), (49.9, 30))}, (140, 165), (15, 135)),
    _counter(
        "GpuscalpNotifyFailing",
        'gpuscalp_notifications_total{service="Telegram",result="failed"}',
        {"service": "Telegram", "result": "failed"},
    )._replace(silent=(45,)),
    Scene("GpuscalpStarted", {"gpuscalp_start_time_seconds": _flat((10, 30))}, (10, 65), (75, 100)),
    Scene(
        "GpuscalpConfigChanged",
        {
            'gpuscalp_session_info{session="1",config="a",bundle="x"}': [1, 1, 1, None, None, None],
            'gpuscalp_session_info{session="2",config="b",bundle="x"}': [None, None, None, None, 1, 1],
        },
        (20, 25),
        (0, 10, 15),
    ),
    Scene(
        "GpuscalpModelChanged",
        {
            'gpuscalp_session_info{session="1",config="a",bundle="x"}': [1, 1, None, None],
            'gpuscalp_session_info{session="2",config="a",bundle="y"}': [None, None, 1, 1],
        },
        (10, 15),
        (0, 5),
    ),
)
