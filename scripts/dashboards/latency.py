"""Time: how long each stage takes, what waits, what the machine has left."""

from __future__ import annotations

from scripts.dashboards.panel import Panel, Row

_RATE = "sum by (le{more}) (rate(gpuscalp_stage_duration_seconds_bucket{{@{chosen}}}[$__rate_interval]))"
_LIMITS = ((None, "green"), (0.05, "orange"), (0.2, "red"))


def _quantile(share: float, stage: str = "") -> str:
    chosen = f', stage="{stage}"' if stage else ""
    return f"histogram_quantile({share}, {_RATE.format(more='' if stage else ', stage', chosen=chosen)})"


ROWS = (
    Row(
        "Now",
        (
            Panel(
                "All of it, p50",
                "From the receipt of the newest message to the order.",
                ((_quantile(0.5, "total"), ""),),
                "s",
                "number",
                4,
                _LIMITS,
            ),
            Panel(
                "All of it, p99",
                "From the receipt of the newest message to the order.",
                ((_quantile(0.99, "total"), ""),),
                "s",
                "number",
                4,
                _LIMITS,
            ),
            Panel(
                "Prediction, p99",
                "An alert comes above 50 ms.",
                ((_quantile(0.99, "predict"), ""),),
                "s",
                "number",
                4,
                _LIMITS,
            ),
            Panel(
                "Frames a second",
                "Decided on.",
                (("rate(gpuscalp_frames_total{@}[$__rate_interval])", ""),),
                "none",
                "number",
                4,
                decimals=1,
            ),
            Panel(
                "Age of the last frame",
                "By the exchange's clock. An alert comes above 10 s.",
                (("gpuscalp_last_frame_age_seconds{@}", ""),),
                "s",
                "number",
                4,
                ((None, "green"), (2.0, "orange"), (10.0, "red")),
            ),
            Panel(
                "Up for",
                "Since the process took the session up.",
                (("time() - gpuscalp_start_time_seconds{@}", ""),),
                "dtdurations",
                "number",
                4,
                decimals=0,
            ),
        ),
    ),
    Row(
        "Stages",
        (
            Panel(
                "p99 by stage",
                "receive is from the event to its receipt, batch what the newest message waits, "
                "total from receipt to order.",
                ((_quantile(0.99), "{{stage}}"),),
                "s",
                log=True,
            ),
            Panel(
                "p50 by stage", "The same, in the middle.", ((_quantile(0.5), "{{stage}}"),), "s", log=True
            ),
            Panel(
                "Distribution of the whole",
                "How often each duration occurs.",
                (
                    (
                        _RATE.format(more="", chosen=', stage="total"'),
                        "{{le}}",
                    ),
                ),
                "s",
                "heat",
            ),
            Panel(
                "Distribution of predictions",
                "How often each duration occurs.",
                (
                    (
                        _RATE.format(more="", chosen=', stage="predict"'),
                        "{{le}}",
                    ),
                ),
                "s",
                "heat",
            ),
            Panel(
                "Late and lost",
                "Predictions after the deadline, and frames without one after a fault; a minute.",
                (
                    (
                        "60 * rate(gpuscalp_engine_late_predictions_total{@}[$__rate_interval])",
                        "late predictions",
                    ),
                    ("60 * rate(gpuscalp_engine_lost_frames_total{@}[$__rate_interval])", "lost frames"),
                ),
                low=0,
            ),
            Panel(
                "Score: latency",
                "Of 20 points.",
                (('gpuscalp_score_part{@, part="latency"}', "latency"),),
                "none",
                low=0,
                high=20,
            ),
        ),
    ),
    Row(
        "Batches and queues",
        (
            Panel(
                "Ticks a second",
                "Taken, given way to newer ones, and too late for their frame.",
                (
                    ("rate(gpuscalp_ticks_total{@}[$__rate_interval])", "taken"),
                    ("rate(gpuscalp_ticks_conflated_total{@}[$__rate_interval])", "conflated"),
                    ("rate(gpuscalp_ticks_late_total{@}[$__rate_interval])", "late"),
                ),
                low=0,
            ),
            Panel(
                "Ticks in a micro-batch",
                "p50 and p99.",
                (
                    (
                        "histogram_quantile(0.5, sum by (le) "
                        "(rate(gpuscalp_batch_ticks_bucket{@}[$__rate_interval])))",
                        "p50",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) "
                        "(rate(gpuscalp_batch_ticks_bucket{@}[$__rate_interval])))",
                        "p99",
                    ),
                ),
                low=0,
            ),
            Panel(
                "What waits",
                "Ticks for the engine, records for the disk, commands, reports.",
                (("gpuscalp_queue_items{@}", "{{queue}}"),),
                low=0,
            ),
            Panel(
                "Micro-batches and overloads",
                "Batches a second; overloads a minute: above batch.conflate_above quotes and books give way.",
                (
                    ("rate(gpuscalp_batches_total{@}[$__rate_interval])", "batches a second"),
                    ("60 * rate(gpuscalp_overloads_total{@}[$__rate_interval])", "overloads a minute"),
                ),
                low=0,
            ),
        ),
    ),
    Row(
        "Machine",
        (
            Panel(
                "Processors",
                "Of those that the process may use. An alert comes above 90 %.",
                (
                    (
                        "rate(process_cpu_seconds_total{@}[$__rate_interval]) / gpuscalp_machine_cpus{@}",
                        "used",
                    ),
                ),
                "percentunit",
                steps=((None, "green"), (0.9, "red")),
                low=0,
                high=1,
                width=8,
            ),
            Panel(
                "Memory",
                "Of the process, and what the machine has left.",
                (
                    ("process_resident_memory_bytes{@}", "process"),
                    ("gpuscalp_machine_memory_available_bytes{@}", "left"),
                    ("gpuscalp_machine_memory_bytes{@}", "machine"),
                ),
                "bytes",
                low=0,
                width=8,
            ),
            Panel(
                "Disk",
                "Of the session. Alerts come at 15 % and 5 % left.",
                (("gpuscalp_disk_free_bytes{@} / gpuscalp_disk_size_bytes{@}", "free"),),
                "percentunit",
                steps=((None, "red"), (0.05, "orange"), (0.15, "green")),
                low=0,
                high=1,
                width=8,
            ),
            Panel(
                "Journal",
                "Bytes a second.",
                (("rate(gpuscalp_journal_bytes_total{@}[$__rate_interval])", "written"),),
                "Bps",
                low=0,
            ),
            Panel(
                "Open files",
                "Of the process, and its limit.",
                (("process_open_fds{@}", "open"), ("process_max_fds{@}", "limit")),
                low=0,
                log=True,
            ),
        ),
    ),
)
