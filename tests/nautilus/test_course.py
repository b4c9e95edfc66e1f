"""What a course remembers, without NautilusTrader: works are made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpuscalp.config import GridConfig
from gpuscalp.journal.blocks import RecordKind
from gpuscalp.live.records import SignalRecord
from gpuscalp.nautilus.course import Course
from gpuscalp.schema import TICK

MS = 1_000_000
NOW = 1_700_000_000 * 10**9


def signal(end_ms: int) -> Any:
    fields = dict.fromkeys(SignalRecord.__struct_fields__)
    return SignalRecord(**{**fields, "end_ns": NOW + end_ms * MS})


@pytest.mark.parametrize("together", [False, True], ids=["row by row", "two at once"])
def test_frames_that_end_a_run_are_no_delay_of_the_feed(together: bool) -> None:
    """The largest delay was that of the hole in the recording."""
    grid = GridConfig(frame_ms=100, lateness_ms=20)
    engine: Any = SimpleNamespace(watcher=None)
    course = Course(engine, None, set(), [], grid=grid)  # type: ignore[arg-type]
    assert course.feed_delay_ms() == {"p50": 0.0, "p99": 0.0, "max": 0.0}
    # Exchange times of rows, when they are here, the frames that they close. A hole of an hour, a silence.
    hour = 3_600_000
    works = [
        ([10], 15, []),
        ([130, 125], 135, [100]),
        ([220], 228, [200]),
        ([hour + 225], hour + 230, [300]),
        ([hour + 330], hour + 335, [hour + 300]),
        ([hour + 50_330], hour + 50_335, [hour + 400]),
        ([], hour + 50_400, []),
    ]
    if together:
        works[3:5] = [([hour + 225, hour + 330], hour + 335, [300, hour + 300])]
    for rows, now_ms, ends in works:
        ticks = np.zeros(len(rows), TICK)
        ticks["exch_ns"] = NOW + np.array(rows, np.int64) * MS
        work: Any = SimpleNamespace(ticks=ticks, now_ns=NOW + now_ms * MS)
        course.given(work)
        outcome: Any = SimpleNamespace(records=[(RecordKind.SIGNAL, signal(end)) for end in ends])
        course.decided(work, outcome)
    late = [135 - 120, 228 - 220, 335 - 320, 50_335 - 420]
    assert course.feed_delay_ms()["p50"] == pytest.approx(np.median(late) - min(late))
    assert course.feed_delay_ms()["max"] == pytest.approx(max(late) - min(late))
