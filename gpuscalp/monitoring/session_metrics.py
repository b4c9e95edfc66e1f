"""Metrics of a session in Prometheus' format, from its last status.

Owns: what has labels of its own, and histograms. Names and meanings: docs/metrics.md. Nothing is counted
here; a value that is not known is absent, never 0. Labels come from fixed lists, or from the session's own
symbols and streams.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, final

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gpuscalp import __version__
from gpuscalp.latency import OCTAVES_NS
from gpuscalp.monitoring.families import labelled, plain_metrics
from gpuscalp.risk.gate import RiskState

_NS: Final = 1e9
# From 8 µs on; durations below that are of no interest, and each bound is a series for every stage.
_FIRST_OCTAVE: Final = next(index for index, bound in enumerate(OCTAVES_NS) if bound >= 1 << 13)
_HISTOGRAMS: Final = {
    "batch_ticks": ("gpuscalp_batch_ticks", "Ticks in a micro-batch."),
    "confidence": ("gpuscalp_prediction_confidence_ratio", "Probability of the likeliest class."),
    "agreement": ("gpuscalp_prediction_agreement_ratio", "Share of members that agree with the ensemble."),
}
# The others are kinds of messages that make no ticks, by the venue's own words.
_FATES: Final = frozenset(
    {"taken", "late", "before_snapshot", "other_symbol", "other_margin", "other_book_stream", "reply"}
)
_RETRAINING: Final = ("off", "idle", "running", "failed")
_QUEUES: Final = ("ticks", "journal", "commands", "reports")


@final
class SessionCollector(Collector):
    """One session.

    Parameters
    ----------
    status : returns its last status (docs/live.md); {} before the first
    detail : returns what was too long for that status (``gpuscalp.live.monitor``); {} before the first
    """

    def __init__(
        self, status: Callable[[], Mapping[str, Any]], detail: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._status, self._detail = status, detail

    def collect(self) -> Iterable[Metric]:
        yield _info(
            "gpuscalp_build_info", "What runs.", version=__version__, python=platform.python_version()
        )
        status, detail = self._status(), self._detail()
        if not status:
            return
        yield from plain_metrics(status)
        yield from _of_session(status)
        yield from _of_feeds(status["feeds"], detail)
        yield from _of_trading(status)
        yield from _of_model(status)
        if detail:
            yield from _of_streams(detail)
            yield from _histograms(detail)


def _info(name: str, what: str, **labels: str) -> Metric:
    metric = GaugeMetricFamily(name, what, labels=tuple(labels))
    metric.add_metric(list(labels.values()), 1)
    return metric


def _of_session(status: Mapping[str, Any]) -> Iterator[Metric]:
    yield _info(
        "gpuscalp_session_info",
        "What session it is.",
        session=status["session_id"],
        venue=status["venue"],
        broker=status["broker"],
        bundle=status["model"]["bundle"],
        config=status["config"],
        device=status["device"],
    )
    yield GaugeMetricFamily(
        "gpuscalp_start_time_seconds",
        "When this process took the session up, Unix time.",
        value=status["written_ns"] / _NS - status["uptime_s"],
    )
    batches, journal = status["batches"], status["journal"]
    waiting = (
        batches["waiting"],
        journal["records"] - 1 - journal["durable"],
        batches["commands"],
        batches["reports"],
    )
    yield labelled("gpuscalp_queue_items", "What waits.", "queue", dict(zip(_QUEUES, waiting, strict=True)))
    reasons = GaugeMetricFamily(
        "gpuscalp_health_reason", "1 while a device or a venue is not trusted.", labels=("source", "reason")
    )
    for source, words in status["health"].items():
        for word in words:
            reasons.add_metric([source, word], 1)
    yield reasons


def _of_feeds(feeds: Mapping[str, Any], detail: Mapping[str, Any]) -> Iterator[Metric]:
    connections = GaugeMetricFamily(
        "gpuscalp_feed_connections", "Connections in a state.", labels=("route", "state")
    )
    counts = Counter((each["route"], each["state"]) for each in feeds["connections"])
    for labels, count in counts.items():
        connections.add_metric(labels, count)
    yield connections
    if detail:
        messages: Counter[str] = Counter()
        for fate, count in detail["fates"].items():
            messages[fate if fate in _FATES else "other_kind"] += count
        messages["duplicate"] = feeds["messages"]["duplicates"]
        yield labelled(
            "gpuscalp_feed_messages", "Messages by what became of them.", "fate", messages, counts=True
        )


def _of_trading(status: Mapping[str, Any]) -> Iterator[Metric]:
    yield labelled(
        "gpuscalp_risk_state",
        "1 for the state of the risk gate.",
        "state",
        {str(state): state == status["state"] for state in RiskState},
    )
    causes = dict.fromkeys([*([] if status["cause"] is None else [status["cause"]]), *status["causes"]], 1)
    yield labelled(
        "gpuscalp_risk_cause",
        "1 for the event that led to the gate's state, and for each that has come since it was last armed.",
        "cause",
        causes,
    )
    # The sum, always there: the series of a code appears with its first reject, and has not risen for PromQL.
    yield CounterMetricFamily(
        "gpuscalp_orders_rejected",
        "Orders that the exchange refused, over all codes.",
        value=sum(status["trading"]["rejects"].values()),
    )
    yield GaugeMetricFamily(
        "gpuscalp_open_orders", "Orders that have not ended.", value=len(status["open_orders"])
    )
    for name, what, key in (
        ("gpuscalp_position_usdt", "Value of an open position, USDT; negative is short.", "value_usdt"),
        ("gpuscalp_position_unrealised_usdt", "Its result so far before fees, USDT.", "unrealised_usdt"),
    ):
        values = {each["symbol"]: each[key] for each in status["positions"]}
        yield labelled(name, what, "symbol", values)
    ended = CounterMetricFamily(
        "gpuscalp_orders_ended",
        "Orders by how they ended and why they were sent.",
        labels=("state", "reason"),
    )
    for each in status["trading"]["ended"]:
        ended.add_metric([each["state"], each["reason"]], each["count"])
    yield ended
    results = status["results"]
    yield labelled(
        "gpuscalp_trades",
        "Round trips by their result after all costs.",
        "result",
        {"won": results["won"], "lost": results["lost"]},
        counts=True,
    )
    lost = GaugeMetricFamily(
        "gpuscalp_score_lost_points", "Points of the score that a reason costs.", labels=("part", "reason")
    )
    for each in status["score"]["lost"]:
        lost.add_metric([each["part"], each["reason"]], each["points"])
    yield lost


def _of_model(status: Mapping[str, Any]) -> Iterator[Metric]:
    yield labelled(
        "gpuscalp_retraining_state",
        "1 for the state of retraining.",
        "state",
        {state: state == status["succession"]["retraining"]["state"] for state in _RETRAINING},
    )
    yield _info("gpuscalp_model_info", "The model.", bundle=status["model"]["bundle"])
    groups = {} if status["drift"] is None else status["drift"]["groups"]
    for name, key, what in (
        ("gpuscalp_feature_psi", "mean", "Mean population stability index of a group's columns."),
        ("gpuscalp_feature_psi_max", "largest", "Largest population stability index of a group's columns."),
    ):
        yield labelled(name, what, "group", {group: each[key] for group, each in groups.items()})


def _of_streams(detail: Mapping[str, Any]) -> Iterator[Metric]:
    ages = GaugeMetricFamily(
        "gpuscalp_stream_age_seconds",
        "Since the last message of a stream over any connection, seconds.",
        labels=("symbol", "stream"),
    )
    for name, age_s in detail["streams"].items():
        symbol, at, kind = name.partition("@")
        over_all = name.startswith("!") or not at
        ages.add_metric(["all", name] if over_all else [symbol.upper(), kind], age_s)
    yield ages
    books = detail["books"]
    for key, what in (
        ("silent", "1 while a stream of it delivers from no connection."),
        ("off_tick", "1 while prices of it are no multiples of its tick size."),
        ("rules", "1 while it does not trade, or by other rules than the session's."),
    ):
        yield labelled(f"gpuscalp_symbol_{key}", what, "symbol", detail[key])
    yield labelled(
        "gpuscalp_book_synced",
        "1 while its book is whole.",
        "symbol",
        {symbol: state == "synced" for symbol, (state, _) in books.items()},
    )
    yield labelled(
        "gpuscalp_book_resyncs",
        "How often its book had to be built anew.",
        "symbol",
        {symbol: count for symbol, (_, count) in books.items()},
        counts=True,
    )


def _histograms(detail: Mapping[str, Any]) -> Iterator[Metric]:
    stages = HistogramMetricFamily(
        "gpuscalp_stage_duration_seconds", "How long each stage took, seconds.", labels=("stage",)
    )
    bounds = [bound / _NS for bound in OCTAVES_NS[_FIRST_OCTAVE:-1]]
    for stage, (counts, sum_ns) in detail["stages"].items():
        if any(counts):
            below = [sum(counts[: _FIRST_OCTAVE + 1]), *counts[_FIRST_OCTAVE + 1 :]]
            stages.add_metric([stage], _buckets(bounds, below), sum_ns / _NS)
    yield stages
    for key, (bounds_of, counts, total) in detail["histograms"].items():
        name, what = _HISTOGRAMS[key]
        metric = HistogramMetricFamily(name, what)
        metric.add_metric([], _buckets(bounds_of, counts), total)
        yield metric


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return the running counts of buckets; there is one more of them than there are bounds."""
    found, risen = [], 0
    for bound, count in zip((*map(repr, map(float, bounds)), "+Inf"), counts, strict=True):
        risen += count
        found.append((bound, float(risen)))
    return found
