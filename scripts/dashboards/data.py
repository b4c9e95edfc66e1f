"""Data: streams, connections, books, the clock."""

from __future__ import annotations

from scripts.dashboards.panel import Panel, Row, or_none

_NONE_BAD = ((None, "green"), (1.0, "red"))


def _rate(name: str, legend: str, *, per_minute: bool = False) -> tuple[str, str]:
    rate = f"rate({name}{{@}}[$__rate_interval])"
    return (f"60 * {rate}" if per_minute else rate), legend


ROWS = (
    Row(
        "Now",
        (
            Panel(
                "Silent symbols",
                "A stream of them delivers from no connection.",
                (("sum(gpuscalp_symbol_silent{@})", ""),),
                "none",
                "number",
                4,
                _NONE_BAD,
            ),
            Panel(
                "Broken books",
                "Not whole: nothing is opened on their symbols.",
                (("count(gpuscalp_book_synced{@}) - sum(gpuscalp_book_synced{@})", ""),),
                "none",
                "number",
                4,
                _NONE_BAD,
            ),
            Panel(
                "Messages a second",
                "All that came, copies included.",
                (("sum(rate(gpuscalp_feed_messages_total{@}[$__rate_interval]))", ""),),
                "none",
                "number",
                4,
                decimals=0,
            ),
            Panel(
                "Clock",
                "Whether ours can be trusted.",
                (("gpuscalp_clock_drifted{@}", ""),),
                kind="number",
                width=4,
                words=(("0", "trusted", "green"), ("1", "drifted", "red")),
            ),
            Panel(
                "Age of the last frame",
                "By the exchange's clock.",
                (("gpuscalp_last_frame_age_seconds{@}", ""),),
                "s",
                "number",
                4,
                ((None, "green"), (2.0, "orange"), (10.0, "red")),
            ),
            Panel(
                "Score: data",
                "Of 20 points.",
                (('gpuscalp_score_part{@, part="data"}', ""),),
                "none",
                "number",
                4,
                ((None, "red"), (10.0, "orange"), (16.0, "green")),
                low=0,
                high=20,
                decimals=1,
            ),
        ),
    ),
    Row(
        "Streams",
        (
            Panel(
                "Age of streams",
                "Since the last message of each, over whichever connection.",
                (
                    (
                        'max by (symbol, stream) (gpuscalp_stream_age_seconds{@, symbol=~"$symbol|all"})',
                        "{{symbol}} {{stream}}",
                    ),
                ),
                "s",
                log=True,
                width=24,
            ),
            Panel(
                "Messages a second by fate",
                "What became of them; a duplicate is the other connection's copy.",
                (("sum by (fate) (rate(gpuscalp_feed_messages_total{@}[$__rate_interval]))", "{{fate}}"),),
                low=0,
                stacked=True,
            ),
            Panel(
                "Gaps and rejects a minute",
                "Gaps in the numbers of messages, and messages that could not be read.",
                (
                    _rate("gpuscalp_feed_gaps_total", "gaps", per_minute=True),
                    _rate("gpuscalp_feed_rejects_total", "rejects", per_minute=True),
                ),
                low=0,
            ),
            Panel(
                "Silent symbols",
                "1 while a stream of the symbol delivers nothing.",
                (("gpuscalp_symbol_silent{@s}", "{{symbol}}"),),
                "none",
                low=0,
                high=1,
            ),
            Panel(
                "Ticks that were lost to time",
                "A minute: conflated, because too many waited, and late, because their frame had closed.",
                (
                    _rate("gpuscalp_ticks_conflated_total", "conflated", per_minute=True),
                    _rate("gpuscalp_ticks_late_total", "late", per_minute=True),
                ),
                low=0,
            ),
        ),
    ),
    Row(
        "Connections and books",
        (
            Panel(
                "Connections",
                "By route and state.",
                (("gpuscalp_feed_connections{@}", "{{route}} {{state}}"),),
                low=0,
                stacked=True,
            ),
            Panel(
                "Connections opened and lost",
                "A minute.",
                (
                    (
                        "60 * sum by (route) "
                        "(rate(gpuscalp_feed_connections_opened_total{@}[$__rate_interval]))",
                        "{{route}} opened",
                    ),
                    (
                        or_none(
                            "60 * sum by (route) "
                            "(rate(gpuscalp_feed_connections_lost_total{@}[$__rate_interval]))",
                            "route",
                        ),
                        "{{route}} lost",
                    ),
                ),
                low=0,
            ),
            Panel(
                "Books",
                "1 while the book of a symbol is whole.",
                (("gpuscalp_book_synced{@s}", "{{symbol}}"),),
                "none",
                low=0,
                high=1,
            ),
            Panel(
                "Books built anew",
                "Since the process began.",
                (("gpuscalp_book_resyncs_total{@s}", "{{symbol}}"),),
                low=0,
            ),
            Panel(
                "Book snapshots",
                "A minute, by result.",
                (
                    (
                        "60 * sum by (result) (rate(gpuscalp_book_snapshots_total{@}[$__rate_interval]))",
                        "{{result}}",
                    ),
                ),
                low=0,
            ),
        ),
    ),
    Row(
        "Trust",
        (
            Panel(
                "Clock offset",
                "The exchange's clock less ours, and how wrong that may be.",
                (
                    ("gpuscalp_clock_offset_seconds{@}", "offset"),
                    ("gpuscalp_clock_error_seconds{@}", "error"),
                ),
                "s",
            ),
            Panel(
                "Reasons not to trust",
                "1 for each reason that a device or the exchange is not trusted; none is well.",
                ((or_none("gpuscalp_health_reason{@}", "reason"), "{{source}} {{reason}}"),),
                "none",
                low=0,
                high=1,
            ),
        ),
    ),
)
