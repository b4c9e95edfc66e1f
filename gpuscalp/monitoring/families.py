"""Numbers of a session's status as metrics: the table.

Owns: for each metric that is one number of a status, its name, kind, help and where it stands. Metrics with
labels of their own are in session_metrics.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from gpuscalp.risk.rules import RULES


class Number(NamedTuple):
    """One metric without labels.

    path : keys of the status, one within the other; a missing one and None make the metric absent
    unit : of the metric, in units of the status
    """

    name: str
    path: tuple[str, ...]
    what: str
    unit: float = 1.0
    counts: bool = False


class Labelled(NamedTuple):
    """One metric with one label, of a mapping from the label's values to numbers.

    known : values that are there from the beginning, with 0: what has not happened yet was counted as well
    """

    name: str
    label: str
    path: tuple[str, ...]
    what: str
    counts: bool = False
    known: tuple[str, ...] = ()


_LIVE: Final = ("predictions", "live")
_TEST: Final = ("succession", "test")
NUMBERS: Final = (
    Number(
        "gpuscalp_status_timestamp_seconds",
        ("written_ns",),
        "Unix time of the status that the metrics were read from.",
        1e9,
    ),
    Number("gpuscalp_machine_cpus", ("resources", "cpus"), "Processors that the process may use."),
    Number(
        "gpuscalp_machine_memory_bytes",
        ("resources", "machine_memory_bytes"),
        "Memory of the machine, bytes.",
    ),
    Number(
        "gpuscalp_machine_memory_available_bytes",
        ("resources", "machine_memory_available_bytes"),
        "Memory of the machine that is free to be used, bytes.",
    ),
    Number(
        "gpuscalp_disk_size_bytes",
        ("resources", "disk_bytes"),
        "Size of the disk that the session lies on, bytes.",
    ),
    Number(
        "gpuscalp_disk_free_bytes",
        ("resources", "disk_free_bytes"),
        "Free on the disk that the session lies on, bytes.",
    ),
    Number(
        "gpuscalp_disk_free_ratio",
        ("resources", "disk_free_ratio"),
        "Free share of the disk that the session lies on: of its bytes or files, whichever is the less.",
    ),
    Number(
        "gpuscalp_journal_bytes",
        ("journal", "bytes"),
        "Written to the journal by this process, bytes.",
        counts=True,
    ),
    Number("gpuscalp_journal_records", ("journal", "records"), "Records of the journal.", counts=True),
    Number(
        "gpuscalp_onlooker_errors", ("onlookers", "errors"), "Failures of what only looks on.", counts=True
    ),
    Number("gpuscalp_frames", ("frames",), "Frames decided on.", counts=True),
    Number(
        "gpuscalp_last_frame_age_seconds",
        ("last_frame_age_ms",),
        "Since the end of the last frame by the exchange's clock, or since its decision, seconds.",
        1e3,
    ),
    Number("gpuscalp_batches", ("batches", "taken"), "Micro-batches.", counts=True),
    Number("gpuscalp_ticks", ("batches", "ticks"), "Ticks that have come.", counts=True),
    Number(
        "gpuscalp_ticks_conflated",
        ("batches", "conflated"),
        "Ticks that gave way to newer ones.",
        counts=True,
    ),
    Number(
        "gpuscalp_ticks_late",
        ("batches", "late"),
        "Ticks that came after their frame had closed.",
        counts=True,
    ),
    Number(
        "gpuscalp_late_trades_ratio",
        ("batches", "late_trade_share"),
        "Share of the last minute's trades of the market that came after their frame had closed: dropped.",
    ),
    Number("gpuscalp_overloads", ("batches", "overloads"), "How often too many ticks waited.", counts=True),
    Number(
        "gpuscalp_feed_rejects",
        ("feeds", "messages", "rejects"),
        "Messages that could not be read.",
        counts=True,
    ),
    Number(
        "gpuscalp_feed_gaps", ("feeds", "messages", "gaps"), "Gaps in the numbers of messages.", counts=True
    ),
    Number(
        "gpuscalp_clock_offset_seconds",
        ("clock", "offset_ms"),
        "The exchange's clock less ours, seconds.",
        1e3,
    ),
    Number(
        "gpuscalp_clock_error_seconds",
        ("clock", "error_ms"),
        "By how much the offset may be wrong, seconds.",
        1e3,
    ),
    Number("gpuscalp_clock_drifted", ("clock", "drifted"), "1 while the clock is not to be trusted."),
    Number(
        "gpuscalp_model_trained_until_timestamp_seconds",
        ("model", "trained_until_ns"),
        "End of the model's training data, Unix time.",
        1e9,
    ),
    Number(
        "gpuscalp_model_age_seconds",
        ("model", "age_s"),
        "Since the end of the model's training data, seconds.",
    ),
    Number(
        "gpuscalp_model_expires_seconds",
        ("model", "expires_in_s"),
        "Until nothing is opened any more on what the model predicts, seconds.",
    ),
    Number(
        "gpuscalp_model_promotions",
        ("succession", "promoted"),
        "Shadows that the rule has promoted.",
        counts=True,
    ),
    Number(
        "gpuscalp_model_rollbacks",
        ("succession", "rolled_back"),
        "Leads whose calibration left its band, so that the one before was taken up again.",
        counts=True,
    ),
    Number(
        "gpuscalp_shadow_rows",
        (*_TEST, "rows"),
        "Matured rows that lead and shadow have both predicted.",
    ),
    Number(
        "gpuscalp_shadow_log_loss_log10",
        (*_TEST, "log_loss", "log10"),
        "Evidence that the shadow has the better log loss, power of ten.",
    ),
    Number(
        "gpuscalp_shadow_score_log10",
        (*_TEST, "score_bps", "log10"),
        "Evidence that the shadow has the better score after costs, power of ten.",
    ),
    Number(
        "gpuscalp_live_window_seconds",
        ("predictions", "window_s"),
        "Length of the rolling window of live quality, seconds.",
    ),
    Number("gpuscalp_live_rows", ("predictions", "rows"), "Rows with matured labels in the window."),
    Number("gpuscalp_live_accuracy_ratio", (*_LIVE, "accuracy"), "Share of rows whose likeliest class came."),
    Number(
        "gpuscalp_live_base_accuracy_ratio",
        (*_LIVE, "base_accuracy"),
        "Share of the window's most frequent class.",
    ),
    Number("gpuscalp_live_log_loss_nats", (*_LIVE, "log_loss"), "Mean -log p of the class that came, nats."),
    Number(
        "gpuscalp_live_base_log_loss_nats",
        (*_LIVE, "base_log_loss"),
        "Log loss of always saying the window's class shares, nats.",
    ),
    Number(
        "gpuscalp_live_brier_score",
        (*_LIVE, "brier"),
        "Mean squared error of the probabilities, summed over classes, 0 to 2.",
    ),
    Number(
        "gpuscalp_live_calibration_error_ratio",
        (*_LIVE, "calibration_error"),
        "Expected calibration error of the likeliest class, 10 bins.",
    ),
    Number(
        "gpuscalp_held_out_accuracy_ratio",
        ("predictions", "held_out", "accuracy"),
        "Accuracy that training measured on held-out rows.",
    ),
    Number(
        "gpuscalp_held_out_log_loss_nats",
        ("predictions", "held_out", "log_loss"),
        "Log loss that training measured on held-out rows, nats.",
    ),
    Number("gpuscalp_feature_psi_rows", ("drift", "rows"), "Live rows that the drift was computed from."),
    Number("gpuscalp_drift_flag", ("drift", "alarm", "flagged"), "1 while drift is more than chance."),
    Number(
        "gpuscalp_outlier_ratio",
        ("drift", "outliers"),
        "Share of the last hour's rows that are unlike all of the training.",
    ),
    Number(
        "gpuscalp_risk_since_timestamp_seconds",
        ("since_ns",),
        "Since when the gate is in its state, Unix time of the exchange.",
        1e9,
    ),
    Number(
        "gpuscalp_account_blocked",
        ("account", "blocked"),
        "1 while the exchange has a position or an order that the session does not know.",
    ),
    Number("gpuscalp_turnover_usdt", ("trading", "turnover_usdt"), "Value of all fills, USDT.", counts=True),
    Number(
        "gpuscalp_equity_usdt",
        ("equity_usdt",),
        "Wallet and open positions at the price at which they could be closed, USDT.",
    ),
    Number("gpuscalp_pnl_usdt", ("pnl_usdt",), "Profit of the session, USDT."),
    Number("gpuscalp_fees_usdt", ("fees_usdt",), "Fees paid by the session, USDT."),
    Number("gpuscalp_funding_usdt", ("funding_usdt",), "Funding received by the session, USDT."),
    Number(
        "gpuscalp_drawdown_ratio",
        ("drawdown_pct",),
        "Distance from the highest equity over that equity.",
        1e2,
    ),
    Number(
        "gpuscalp_daily_loss_usdt",
        ("daily_loss_usdt",),
        "Loss since 00:00 UTC or the last re-arming at its limit, USDT; negative is a gain.",
    ),
    Number(
        "gpuscalp_win_ratio",
        ("results", "win_ratio"),
        "Share of the last 100 round trips that earned something.",
    ),
    Number(
        "gpuscalp_sharpe_ratio",
        ("results", "sharpe", "value"),
        "Sharpe ratio of the equity's changes by the minute, of the last day at most; not annualised.",
    ),
    Number(
        "gpuscalp_sharpe_error_ratio",
        ("results", "sharpe", "error"),
        "Standard error of the Sharpe ratio; absent while few round trips ended in that time.",
    ),
    Number(
        "gpuscalp_sharpe_returns",
        ("results", "sharpe", "returns"),
        "Minutes that the Sharpe ratio was computed from.",
    ),
    Number("gpuscalp_score", ("score", "value"), "How well the session does, 0 to 100."),
)
LABELLED: Final = (
    Labelled(
        "gpuscalp_feed_connections_opened",
        "route",
        ("feeds", "connections_opened"),
        "Connections that have come about.",
        counts=True,
    ),
    Labelled(
        "gpuscalp_feed_connections_lost",
        "route",
        ("feeds", "connections_lost"),
        "Connections that have ended.",
        counts=True,
    ),
    Labelled(
        "gpuscalp_book_snapshots", "result", ("feeds", "snapshots"), "Book snapshots asked for.", counts=True
    ),
    Labelled(
        "gpuscalp_predictions",
        "class",
        ("predictions", "predicted"),
        "Rows by their likeliest class.",
        counts=True,
    ),
    Labelled(
        "gpuscalp_labels_matured",
        "class",
        ("predictions", "matured"),
        "Predicted rows by the class that came.",
        counts=True,
    ),
    Labelled(
        "gpuscalp_live_precision_ratio",
        "class",
        (*_LIVE, "precision"),
        "Share of the rows named so that came so.",
    ),
    Labelled(
        "gpuscalp_live_recall_ratio",
        "class",
        (*_LIVE, "recall"),
        "Share of the rows that came so that were named so.",
    ),
    Labelled("gpuscalp_live_f1_ratio", "class", (*_LIVE, "f1"), "Harmonic mean of precision and recall."),
    Labelled(
        "gpuscalp_live_predicted_ratio", "class", (*_LIVE, "predicted"), "Share of a class among predictions."
    ),
    Labelled(
        "gpuscalp_live_matured_ratio", "class", (*_LIVE, "matured"), "Share of a class among matured labels."
    ),
    Labelled("gpuscalp_intents", "reason", ("trading", "intents"), "What the strategy wanted.", counts=True),
    Labelled(
        "gpuscalp_refusals",
        "rule",
        ("trading", "refusals"),
        "Intents that the gate refused.",
        counts=True,
        known=tuple(rule.code for rule in RULES),
    ),
    Labelled("gpuscalp_skips", "reason", ("trading", "skips"), "Rows that brought no intent.", counts=True),
    Labelled("gpuscalp_orders_sent", "reason", ("trading", "sent"), "Orders sent.", counts=True),
    Labelled(
        "gpuscalp_order_rejects",
        "code",
        ("trading", "rejects"),
        "Orders that the exchange refused, by its code.",
        counts=True,
    ),
    Labelled(
        "gpuscalp_fills",
        "liquidity",
        ("trading", "fills"),
        "Executions.",
        counts=True,
        known=("maker", "taker"),
    ),
    Labelled(
        "gpuscalp_pnl_component_usdt",
        "component",
        ("results", "components_usdt"),
        "Profit since the process began by what it is made of, USDT; costs are negative.",
    ),
    Labelled("gpuscalp_score_part", "part", ("score", "parts"), "A part of the score, 0 to 20."),
)


def plain_metrics(status: Mapping[str, Any]) -> Iterator[Metric]:
    """Yield the metrics of the tables, as far as the status knows them."""
    for number in NUMBERS:
        value = _at(status, number.path)
        if value is not None:
            kind = CounterMetricFamily if number.counts else GaugeMetricFamily
            yield kind(number.name, number.what, value=float(value) / number.unit)
    for each in LABELLED:
        values = _at(status, each.path)
        if values is not None:
            values = dict.fromkeys(each.known, 0) | values
            yield labelled(each.name, each.what, each.label, values, counts=each.counts)


def labelled(
    name: str, what: str, label: str, values: Mapping[str, float | None], *, counts: bool = False
) -> Metric:
    """Return a metric with one label; values that are None are left out."""
    kind = CounterMetricFamily if counts else GaugeMetricFamily
    metric = kind(name, what, labels=(label,))
    for key, value in values.items():
        if value is not None:
            metric.add_metric([key], float(value))
    return metric


def _at(status: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if status is None:
            return None
        status = status.get(key)
    return status
