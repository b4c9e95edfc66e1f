"""The benchmark of being retrained: with the process in one kind of slices, and without any in the other."""

from __future__ import annotations

import pytest

from gpuscalp.bench import retraining


@pytest.mark.slow
def test_a_session_is_retrained_and_left_alone_in_turn(tmp_path):
    found = retraining.measure(
        tmp_path,
        symbols=3,
        rate=300,
        slice_s=2.5,
        rounds=1,
        before_s=1.0,
        cores=1,
        memory_mb=2_048,
        trees=2,
    )
    assert found["slices"] == 4
    assert found["begun"] >= 2, "one for each slice with it"
    assert found["finished"] + found["failed"] <= found["begun"]
    assert 0 < found["cpu_share"] <= 1.1
    for arm in ("retrained", "bare"):
        assert found[f"{arm}_frames"] > 5
        assert 0 < found["frame_ms"][arm]["p50"] <= found["frame_ms"][arm]["p99"]
