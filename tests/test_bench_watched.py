"""The benchmark of being looked at: its arms are what they are called, its figures those of the journal."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.bench import slices as bench
from gpuscalp.bench import watched
from gpuscalp.config import JournalConfig
from gpuscalp.journal import JournalWriter, RecordKind
from gpuscalp.live.records import SignalRecord, encode

SECOND = 1_000_000_000


def test_figures_are_those_of_the_frames_in_the_slices(tmp_path):
    rng = np.random.default_rng(5)
    slices = [(0, 10 * SECOND, True), (10 * SECOND, 20 * SECOND, False)]
    stages = rng.integers(1, 1_000_000, (300, 3))
    stages[100:200] *= 3
    with JournalWriter(tmp_path / "journal", JournalConfig(), now_ns=0) as journal:
        for step, (features, predict, gate) in enumerate(stages.tolist()):
            at_ns = step * SECOND // 10  # ten seconds watched, ten bare, ten that are in neither slice
            body = SignalRecord(at_ns, at_ns + 7 * step, (features, predict, gate), b"", b"", b"", 0, ())
            journal.append(RecordKind.SIGNAL, encode(body), recv_ns=at_ns)
    found = bench.figures(tmp_path, slices, ("watched", "bare"))
    assert (found["watched_frames"], found["bare_frames"]) == (100, 100)
    frame_ms = stages.sum(axis=1) / 1e6
    on, off = np.quantile(frame_ms[:100], 0.99), np.quantile(frame_ms[100:200], 0.99)
    assert found["frame_ms"]["watched"]["p99"] == pytest.approx(on, abs=1e-4)
    assert found["frame_ms"]["bare"]["p99"] == pytest.approx(off, abs=1e-4)
    assert found["frame_ms"]["p99_rise_pct"] == pytest.approx(100 * (on / off - 1), abs=0.01)
    # Of one pair nothing else can be drawn.
    assert found["frame_ms"]["p99_rise_pct_95"] == pytest.approx(
        (found["frame_ms"]["p99_rise_pct"],) * 2, abs=0.1
    )
    assert found["frame_ms"]["p99_rise_pct"] < -50


@pytest.mark.thorough
@pytest.mark.slow
def test_a_session_is_watched_and_left_alone_in_turn(tmp_path):
    found = watched.measure(tmp_path, symbols=3, rate=300, slice_s=2.5, rounds=1, trees=2)
    assert found["slices"] == 4
    assert found["watched_frames"] > 5
    assert found["bare_frames"] > 5
    assert 0 < found["dashboard_cpu_share"] < 1
    assert found["scrape_ms"] > 0
    for arm in ("watched", "bare"):
        assert 0 < found["frame_ms"][arm]["p50"] <= found["frame_ms"][arm]["p99"]
