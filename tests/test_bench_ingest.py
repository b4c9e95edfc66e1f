"""The benchmark of the way from a socket to closed frames measures what it says."""

from __future__ import annotations

import pytest

from gpuscalp.bench import ingest


def test_every_message_sent_is_received_journalled_and_accounted_for():
    answer = ingest.run(messages=6_000, symbols=5, rounds=2)
    assert answer["lost"] == answer["rejects"] == answer["gaps"] == answer["off_tick"] == 0
    assert answer["messages"] == 6_000
    assert answer["unsynced"] == 0
    assert 5_000 < answer["ticks"] <= 6_000 + 5
    assert answer["frames"] > 0
    assert answer["messages_per_s"] > 0


@pytest.mark.parametrize("name", ["btcusdt_20240718.gz", "btcusdt_20240719.gz"])
def test_recorded_messages_are_taken_with_their_own_mix_and_a_whole_book(recordings, name):
    # The second recording goes on where the first one ends and has no snapshot of its own.
    answer = ingest.run(messages=3_000, recording=recordings / "usdm" / name, rounds=1)
    assert answer["messages"] == 3_000
    assert answer["lost"] == answer["rejects"] == answer["gaps"] == answer["off_tick"] == 0
    assert answer["unsynced"] == 0
    assert answer["ticks"] > 2_500


def test_redundant_connections_bring_every_message_and_make_every_tick_once():
    answer = ingest.run(messages=4_000, symbols=5, connections=2, rounds=1)
    assert answer["messages"] == 8_000
    assert answer["lost"] == answer["rejects"] == answer["gaps"] == 0
    assert 3_500 < answer["ticks"] <= 4_000 + 5
