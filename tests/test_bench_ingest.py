"""The benchmark of the way from a socket to closed frames measures what it says."""

from __future__ import annotations

from gpuscalp.bench import ingest


def test_every_message_sent_is_received_journalled_and_accounted_for():
    answer = ingest.run(messages=6_000, symbols=5)
    assert answer["lost"] == answer["rejects"] == answer["gaps"] == answer["off_tick"] == 0
    assert answer["messages"] == 6_000
    assert 5_000 < answer["ticks"] <= 6_000 + 5
    assert answer["frames"] > 0
    assert answer["messages_per_s"] > 0


def test_recorded_messages_are_taken_with_their_own_mix(recordings):
    answer = ingest.run(messages=3_000, recording=recordings / "usdm" / "btcusdt_20240718.gz")
    assert answer["messages"] == 3_000
    assert answer["lost"] == answer["rejects"] == answer["gaps"] == answer["off_tick"] == 0
