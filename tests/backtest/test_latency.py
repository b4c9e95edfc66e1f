"""Decisions wait for the message that closes their frame; clocks that are off do not matter."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.archive import QuoteSeries
from gpuscalp.backtest.latency import Latency
from gpuscalp.config import CostConfig, GridConfig
from tests.backtest.market import MS, NOW, quotes

GRID = GridConfig(frame_ms=100, lateness_ms=20)
COST = CostConfig(order_latency_ms=30.0, compute_latency_ms=2.0)
END = np.array([NOW + 100 * MS, NOW + 200 * MS], np.int64)


def series(rows: list[tuple[float, float]], offset_ms: float = 0.0) -> QuoteSeries:
    """Rows of (exchange time, delay) in ms; ``offset_ms`` is what the recorder's clock is off."""
    found = quotes([(at, 9_999, 10_000, 1, 1) for at, _ in rows])
    delays = np.array([delay + offset_ms for _, delay in rows])
    return QuoteSeries(
        found.exch_ns + np.rint(delays * MS).astype(np.int64), *(getattr(found, name) for name in
        ("exch_ns", "bid_px", "ask_px", "bid_qty", "ask_qty", "quality"))
    )  # fmt: skip


def arrivals_ms(*rows: QuoteSeries) -> list[float]:
    found = Latency(GRID, COST).arrivals(END, rows)
    return ((found - NOW) / MS).tolist()


def test_order_waits_for_lateness_computing_and_its_way() -> None:
    rows = series([(10, 5), (120, 5), (220, 5)])
    assert arrivals_ms(rows) == [120 + 32, 220 + 32]


@pytest.mark.parametrize("offset_ms", [0.0, -1_520.0, 86_400_000.0])
def test_feed_delay_is_what_exceeds_the_fastest_message_whatever_the_clock(offset_ms: float) -> None:
    rows = series([(10, 5), (130, 12), (220, 5)], offset_ms)
    # The first frame is closed by the message of 130 ms, which took 7 ms more than the fastest.
    assert arrivals_ms(rows) == pytest.approx([130 + 7 + 32, 220 + 32])


def test_any_symbol_closes_the_frame_of_all() -> None:
    assert arrivals_ms(series([(10, 5), (190, 5), (290, 5)]), series([(121, 6), (221, 6)])) == pytest.approx(
        [122 + 32, 222 + 32]
    )


def test_silence_after_the_last_frame_costs_lateness_only() -> None:
    assert arrivals_ms(series([(10, 5)])) == [152.0, 252.0]
    assert arrivals_ms() == [152.0, 252.0]


def test_delays_are_reported() -> None:
    latency = Latency(GRID, COST)
    assert latency.feed_delay_ms() == {"p50": 0.0, "p99": 0.0, "max": 0.0}
    latency.arrivals(END, [series([(10, 5), (130, 5), (220, 5)])])
    assert latency.feed_delay_ms()["max"] == pytest.approx(10.0)


def test_windows_leave_no_trace_and_later_messages_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    at = np.cumsum(rng.integers(1, 30, 400))
    rows = series([(float(t), 20.0 - t / 400 + float(rng.integers(0, 9))) for t in at])
    end_ns = NOW + 100 * MS * np.arange(1, 60, dtype=np.int64)
    whole = Latency(GRID, COST).arrivals(end_ns, [rows])
    pieces = Latency(GRID, COST)
    found = []
    for first, last in ((0, 1), (1, 20), (20, 59)):
        window = end_ns[first:last]
        near = (rows.exch_ns > window[0] - 5_100 * MS) & (rows.exch_ns < window[-1] + 2_000 * MS)
        found.append(
            pieces.arrivals(
                window, [QuoteSeries(*(getattr(rows, name)[near] for name in QuoteSeries.__slots__))]
            )
        )
    assert np.concatenate(found).tolist() == whole.tolist()
