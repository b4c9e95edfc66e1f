"""Faults of REST calls and of the whole exchange, and what must happen to a paper session under them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import Fault
from gpuscalp.schema import Quality
from tests.live.faulty import end, end_complete, is_live
from tests.live.sessions import watch_calls
from tests.waiting import until

BTC, ETH = 0, 1

Session = Callable[..., Any]


# REST and the whole exchange.


@pytest.mark.parametrize(
    ("kind", "status"), [pytest.param("too_many", 429, marks=pytest.mark.thorough), ("banned", 418)]
)
def test_after_a_refusal_no_call_is_made_before_its_time_and_the_session_lives_on(
    session: Session, exchange: Exchange, kind: Any, status: int
) -> None:
    with session(1) as running:
        calls = watch_calls(exchange)
        exchange.set_fault(Fault(kind, path="/fapi/v1/time", count=1, retry_after_s=3))
        until(lambda: any(call.fault for call in calls), "a refusal")
        # Now a snapshot is needed, too.
        exchange.set_fault(Fault("gap", streams="btcusdt@depth*"))
        running.wait(lambda status: status["feeds"]["unsynced"] == ["BTCUSDT"], "a broken book")
        refused = next(call for call in calls if call.fault)
        between = exchange.status()["messages"]
        until(lambda: any(call.path == "/fapi/v1/depth" for call in calls), "a snapshot")
        assert exchange.status()["messages"] > between
        ended, story = end(running, exchange)
    assert refused.fault == kind
    later = [call.at_s - refused.at_s for call in calls if call.at_s > refused.at_s]
    # A ban names its end in whole milliseconds by the exchange's clock.
    assert min(later) >= 2.9, f"HTTP {status}, and asked again after {min(later):.2f} s"
    assert ended.status["feeds"]["snapshots"]["refused"] >= 1
    assert any(symbol == BTC and last is not None for symbol, _, last in story.unsynced)


@pytest.mark.parametrize("kind", ["timeout_executed", "timeout_lost", "unknown_executed", "unknown_lost"])
def test_a_snapshot_that_does_not_come_is_asked_for_again(
    session: Session, exchange: Exchange, kind: Any
) -> None:
    with session(1) as running:
        calls = watch_calls(exchange)
        exchange.set_fault(Fault(kind, path="/fapi/v1/depth", count=1, delay_ms=100))
        exchange.set_fault(Fault("gap", streams="ethusdt@depth*"))
        until(lambda: any(call.path == "/fapi/v1/depth" for call in calls), "a call without an answer")
        _, story = end(running, exchange)
    assert [call.fault for call in calls if call.path == "/fapi/v1/depth"][:2] == [kind, None]
    assert any(symbol == ETH and last is not None for symbol, _, last in story.unsynced)


def test_timestamps_refused_and_listen_keys_expired_do_not_concern_a_paper_session(
    session: Session, exchange: Exchange
) -> None:
    with session(1) as running:
        exchange.set_fault(Fault("timestamp", path="/fapi/v1/order"))
        exchange.set_fault(Fault("listen_key"))
        story = end_complete(running, exchange)
    assert not story.lost[:-2], "a connection ended"


def test_in_maintenance_nothing_is_opened_and_afterwards_all_of_it_comes_back(
    session: Session, exchange: Exchange
) -> None:
    with session(2) as running:
        exchange.set_fault(Fault("maintenance"))
        running.wait(lambda status: status["feeds"]["silent"] == ["BTCUSDT", "ETHUSDT"], "closed gates")
        closed_ns = time.time_ns()
        time.sleep(1.0)
        during = running.status()
        assert during is not None
        assert not any(each["state"] == "live" for each in during["feeds"]["connections"])
        opened_ns = time.time_ns()  # before the exchange opens: the next entry may come at once
        exchange.clear_faults()
        running.wait(is_live, "connections")
        _, story = end(running, exchange)
    assert not story.entries_between(story.seq_at(closed_ns), story.seq_at(opened_ns))
    assert {trade.symbol for trade in story.trades if trade.gap} == {BTC, ETH}


@pytest.mark.parametrize("skew_ms", [5_000, -1_000])
def test_a_clock_that_is_off_or_contradicts_the_messages_stops_entries_until_it_is_right(
    session: Session, exchange: Exchange, skew_ms: int
) -> None:
    """5 s are beyond the limit; 1 s is not, but messages would come from the future."""
    # Old samples must have their time: 64 are kept.
    with session(1, clock_interval_ms=20) as running:
        exchange.set_fault(Fault("clock_skew", skew_ms=skew_ms))
        refusals = running.wait(lambda status: status["clock"]["drifted"], "a drift")["trading"]["refusals"]
        if skew_ms < 0:
            # Not a number of messages: after a pause of the machine they come in one frame, which may hold.
            before = refusals.get("QUALITY", 0)
            running.wait(
                lambda status: status["trading"]["refusals"].get("QUALITY", 0) >= before + 4,
                "entries refused",
            )
        else:
            running.wait_messages(200)
        exchange.clear_faults()
        running.wait(lambda status: not status["clock"]["drifted"], "a clock that is right")
        _, story = end(running, exchange)
    drifted = [record.seq for record, health in story.health if health.drifted]
    right = [record.seq for record, health in story.health if not health.drifted and record.seq > drifted[-1]]
    assert not story.entries_between(drifted[0], drifted[-1])
    # Of frames that seem to be 5 s old there is not even a prediction.
    assert skew_ms > 0 or story.refused(Quality.CLOCK_DRIFT)
    assert story.entries_between(right[0], story.records[-1].seq)
