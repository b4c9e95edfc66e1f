"""What the market side tells of when a frame has ended."""

from __future__ import annotations

from gpuscalp.bench.flow import Flow, instruments
from gpuscalp.config import GridConfig, LiveConfig
from gpuscalp.live.market import Market
from gpuscalp.schema import NS_PER_MS

_START_MS = 1_700_000_000_000


def test_time_to_a_decision_runs_from_the_message_that_ended_the_frame() -> None:
    """While the engine was busy newer messages came; measured from them, its delay would not show."""
    flow = Flow(2, 200)
    market = Market(instruments(flow.names), LiveConfig(), GridConfig())

    def come(ms: int, recv_ns: int) -> None:
        market.ingest.on_messages(0, recv_ns, [body for _, body in flow.draw(5, _START_MS + ms)])
        market.count(recv_ns, 5)
        market.push(recv_ns)

    def taken() -> int:
        batch = market.batcher.take(0, force=True)
        assert batch is not None
        return market.work(batch, (_START_MS + 500) * NS_PER_MS).recv_ns

    come(10, 1_000)
    come(60, 2_000)
    assert taken() == 2_000  # no frame has ended: the newest
    come(125, 3_000)  # behind the end of the frame, and its lateness of 20 ms
    come(140, 4_000)
    come(160, 5_000)
    assert taken() == 3_000
    come(170, 6_000)
    assert taken() == 6_000
    assert market.work(None, 0).recv_ns == 0  # nothing has come
