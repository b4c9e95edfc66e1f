"""Everything inside an Ingest can be written into a checkpoint, and goes on as if nothing had been."""

from __future__ import annotations

from gpuscalp import object_graph
from gpuscalp.config import FeedConfig
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.schema import E8, Instrument
from tests.feeds.test_observers import NAMES, START_MS, _messages


def _busy() -> Ingest:
    """Return one in which everything that can wait does."""
    instruments = [Instrument(name, "v", E8 // 10, 1, 1, 1, "exchange_info") for name in NAMES]
    ingest = Ingest(instruments, FeedConfig())
    for number in range(1, 4):
        ingest.on_messages(0, number, _messages(NAMES[0], number))
        ingest.on_messages(1, number, _messages(NAMES[0], number))
    ingest.on_snapshot(5, DepthSnapshot(NAMES[0], 0, 3, [(99 * E8, E8)], [(102 * E8, E8)]))
    ingest.on_messages(0, 6, _messages(NAMES[0], 6))  # held: another connection may bring 4 and 5
    ingest.on_messages(2, 7, _messages(NAMES[0], 9))  # waits until an incumbent has come so far
    ingest.on_messages(0, 8, _messages(NAMES[1], 4))  # no book: the update is buffered
    spaced = _messages(NAMES[1], 5)[0].replace(b'{"stream"', b'{ "stream"')
    kline = b'{"stream":"btcusdt@kline_1m","data":{}}'
    all_marks = f'[{{"e":"markPriceUpdate","E":{START_MS + 9},"s":"ETHUSDT","p":"1.5","T":0}}]'.encode()
    ingest.on_messages(0, 9, [spaced, kline, all_marks, b"{", _messages(NAMES[1], 8)[0]])
    return ingest


def test_ingest_of_a_checkpoint_goes_on_as_the_one_that_was_kept() -> None:
    ingest = _busy()
    assert ingest.merge.due_ns < 2**62, "nothing waits: the test has lost its subject"
    assert ingest.fates["before_snapshot"]
    assert ingest.fates["kline"] == 1
    assert ingest.book_states() == {"BTCUSDT": "synced", "ETHUSDT": "unsynced"}
    again = object_graph.decode(object_graph.encode(ingest))
    for each in (ingest, again):
        each.on_messages(1, 10, _messages(NAMES[0], 4))
        each.on_snapshot(11, DepthSnapshot(NAMES[1], 0, 4, [(99 * E8, E8)], [(102 * E8, E8)]))
        each.poll(10**12)
    assert ingest.tick_count > 20
    assert again.take().tobytes() == ingest.take().tobytes()
    assert again.account() == ingest.account()


def test_arrays_that_are_only_room_stay_small() -> None:
    ingest = _busy()
    assert ingest._heads.nbytes + ingest._levels.nbytes < 1 << 20
