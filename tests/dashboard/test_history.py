"""What is kept of a session's last minutes, against records made by hand."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np

from gpuscalp.dashboard.history import EVENTS_MAX, SPAN_MS, STEP_MS, History, Series
from gpuscalp.feeds.recorder import ConnectionNote
from gpuscalp.journal import Record, RecordKind
from gpuscalp.live.records import (
    Command,
    ControlRecord,
    FillRecord,
    HealthRecord,
    OrderRecord,
    SignalRecord,
    StateRecord,
    VerdictRecord,
)
from gpuscalp.risk.gate import RiskSnapshot
from tests.live.sessions import instruments

MS = 1_000_000
START = 1_700_000_000_000


def _record(kind: RecordKind, body: Any, at_ms: int = START) -> Record:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Record(0, at_ms * MS, kind, 0, data)


def _signal(at_ms: int, up: float, equity: float = 10_000.0) -> Record:
    rows = np.array([[0.1, up, 1.0, 2.5], [np.nan] * 4], np.float32)
    body = SignalRecord(
        at_ms * MS,
        at_ms * MS,
        (1_000_000, 500_000, 250_000),
        b"",
        b"x",
        rows.tobytes(),
        int(equity * 1e8),
        (),
    )
    return _record(RecordKind.SIGNAL, body, at_ms)


def _verdict(at_ms: int, *, accepted: bool, code: str = "") -> Record:
    body = VerdictRecord(
        at_ms * MS, 0, 1, "enter", "edge", 100.0, 0.5, 1.0, 2.0, 1.0, accepted=accepted, code=code
    )
    return _record(RecordKind.VERDICT, body, at_ms)


def _history() -> History:
    return History(instruments())


def test_a_series_keeps_the_last_value_of_each_half_second_and_forgets_the_oldest():
    series = Series()
    count = SPAN_MS // STEP_MS
    for step in range(5 * (count + 10)):
        series.put((START + 100 * step) * MS, step)
    points = series.since(0)
    assert len(points) == count
    assert points[0] == (START + 10 * STEP_MS, 5 * 10 + 4)
    assert points[-1] == (START + (count + 9) * STEP_MS, 5 * (count + 10) - 1)
    assert series.since(points[-2][0]) == points[-2:]


def test_a_series_does_not_go_back():
    series = Series()
    series.put((START + 1_000) * MS, 1)
    series.put(START * MS, 2)
    assert series.since(0) == [(START + 1_000, 1)]


def test_signals_become_probabilities_equity_and_durations():
    history = _history()
    history.take([_signal(START, 0.25), _signal(START + 100, 0.5, 10_001.5), _signal(START + 600, 0.75)])
    found = history.series("BTCUSDT", {})
    assert [point[0] for point in found["signals"]] == [START, START + 500]
    np.testing.assert_allclose(found["signals"][0][1:], [0.1, 0.5, 1.0, 2.5], rtol=1e-6)
    assert found["frames"][0] == [START, 10_001.5, 1.0, 0.5, 0.25]
    assert history.predictions()[0]["up"] == 0.75
    # NaN is null on the way to a page.
    assert json.loads(msgspec.json.encode(history.predictions()[1]))["up"] is None


def test_a_frame_without_a_prediction_says_nothing():
    history = _history()
    body = SignalRecord(START * MS, START * MS, (1, 1, 1), b"", b"", b"", 10**12, ())
    history.take([_record(RecordKind.SIGNAL, body)])
    assert np.isnan(history.predictions()[0]["up"])


def test_intents_orders_and_fills_stand_at_their_prices():
    history = _history()
    order = OrderRecord(7, "gs-x-7", 0, 1, 10**8, False, START * MS, START * MS, 2 * 60_000 * 10**8, "edge")
    limit = msgspec.structs.replace(order, order_id=8, price_e8=59_000 * 10**8)
    cancel = msgspec.structs.replace(order, order_id=8, cancel=True)
    fill = FillRecord(
        "fill", 7, 0, (START + 5) * MS, (START + 9) * MS, side=1, qty_e8=10**8, price_e8=60_001 * 10**8
    )
    told = msgspec.structs.replace(fill, kind="accepted", qty_e8=0, price_e8=0, side=0)
    history.take(
        [
            _verdict(START, accepted=True),
            *(_record(RecordKind.ORDER, body) for body in (order, limit, cancel)),
            *(_record(RecordKind.FILL, body) for body in (told, fill)),
        ]
    )
    marks = [(each["kind"], each["at_ms"], each["price"]) for each in history.markers("BTCUSDT", 0)]
    assert marks == [
        ("intent", START, None),
        ("order", START, 60_000.0),
        ("order", START, 59_000.0),
        ("fill", START + 5, 60_001.0),
    ]
    assert history.markers("ETHUSDT", 0) == []
    assert history.markers("BTCUSDT", history.newest) == []


def test_refusals_are_counted_all_and_marked_now_and_then():
    history = _history()
    history.take(
        [_verdict(START + 100 * step, accepted=False, code="SPREAD") for step in range(50)]  # five seconds
        + [_verdict(START, accepted=False, code="QUALITY")]
    )
    assert history.refusals == {"SPREAD": 50, "QUALITY": 1}
    assert [each["why"] for each in history.markers("BTCUSDT", 0)].count("SPREAD") == 3


def test_events_say_what_happened_and_are_bounded():
    history = _history()
    risk = RiskSnapshot("halted", "flatten", 0, 0, 0, 0, 0, 0, 0, 0, 0, (), ())
    history.take(
        [
            _record(RecordKind.CONNECTION, ConnectionNote("poll")),
            _record(RecordKind.CONNECTION, ConnectionNote("lost", 3, reason="cut")),
            _record(RecordKind.CONTROL, ControlRecord(Command.FLATTEN, "ann")),
            _record(RecordKind.STATE, StateRecord(0, "flatten", risk)),
            _record(RecordKind.HEALTH, HealthRecord(1.0, drifted=False, silent=(1,), off_tick=(0,))),
            _record(RecordKind.FILL, FillRecord("alarm", 0, -1, 0, 0, reason="mode")),
            _record(RecordKind.END, b""),
        ]
    )
    assert [(each["level"], each["text"]) for each in history.events(0)] == [
        ("warn", "connection 3 is lost: cut"),
        ("warn", "ann asks for: flatten"),
        ("bad", "the gate is HALTED: flatten"),
        ("warn", "health: silent: ETHUSDT; prices off the tick size: BTCUSDT"),
        ("bad", "the account: alarm mode"),
        ("warn", "the process has ended cleanly"),
    ]
    for _ in range(EVENTS_MAX + 5):
        history.take([_record(RecordKind.END, b"")])
    assert len(history.events(0)) == EVENTS_MAX


def test_a_record_of_another_version_is_passed_over():
    history = _history()
    history.take([_record(RecordKind.SIGNAL, b'{"no":"signal"}'), _signal(START, 0.5)])
    assert len(history.series("BTCUSDT", {})["signals"]) == 1


def test_prices_of_the_past_are_sampled_from_messages_and_those_of_the_present_from_the_status():
    history = _history()
    message = (
        b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":%d,"s":"BTCUSDT","b":"%d.5",'
        b'"B":"1","a":"%d.7","A":"1","T":%d,"E":%d}}'
    )
    for step in range(100):  # ten seconds, a message every 100 ms in a block of its own
        at = START + 100 * step
        text = message % (step + 1, 60_000 + step, 60_000 + step, at, at)
        history.take([_record(RecordKind.RAW, text, at)])
    prices = history.series("BTCUSDT", {})["prices"]
    assert len(prices) == 20
    assert prices[4] == [START + 2_000, 60_020.5, 60_020.7]
    quotes = {"end_ns": (START + 20_000) * MS, "bid": [1.5, None], "ask": [2.5, None], "age_ms": [0, None]}
    history.take_status({"quotes": quotes})
    assert history.series("BTCUSDT", {"prices": START + 20_000})["prices"] == [[START + 20_000, 1.5, 2.5]]
