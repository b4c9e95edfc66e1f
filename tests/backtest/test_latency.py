"""Decisions wait for the row that closes their frame; clocks that are off do not matter."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gpuscalp.backtest.delay import LeastDelay
from gpuscalp.backtest.latency import Latency
from gpuscalp.backtest.tape import Tape
from gpuscalp.backtest.track import Track
from gpuscalp.config import CostConfig, GridConfig, LegConfig, PaperConfig
from gpuscalp.schema import I64, TickKind, Ticks
from tests.backtest.market import COIN, MS, NOW, books, quotes, ticks_of

GRID = GridConfig(frame_ms=100, lateness_ms=20)
COST = CostConfig(compute=LegConfig(low_ms=2.0))
PAPER = PaperConfig(reply=LegConfig(low_ms=10.0))
END = np.array([NOW + 100 * MS, NOW + 200 * MS], np.int64)


def series(*symbols: list[tuple[float, float]], offset_ms: float = 0.0) -> Ticks:
    """Rows of (exchange time, delay) in ms by symbol; ``offset_ms`` is what the recorder's clock is off."""
    found = []
    for rows in symbols:
        part = ticks_of([quotes([(at, 9_999, 10_000, 1, 1) for at, _ in rows])])
        part["recv_ns"] += np.rint(np.array([delay + offset_ms for _, delay in rows]) * MS).astype(np.int64)
        part["symbol"] = len(found)
        found.append(part)
    joined = np.concatenate(found)
    return joined[np.argsort(joined["recv_ns"], kind="stable")]


def tape_of(*pieces: Ticks) -> Tape:
    tape = Tape([Track(COIN, lambda first, last: books([])) for _ in range(2)])
    for piece in pieces:
        tape.add(piece)
    return tape


def decided_ms(ticks: Ticks, paper: PaperConfig = PAPER) -> list[float]:
    latency = Latency(GRID, COST, paper)
    return [(moment.decided_ns - NOW) / MS for _, moment in latency.moments_of(END, tape_of(ticks))]


def test_computing_takes_what_was_measured_one_frame_after_the_other() -> None:
    ends = NOW + np.arange(1, 401, dtype=np.int64) * 100 * MS
    rows = [(at * 100.0 + 20, 5.0) for at in range(402)]
    samples = (1.0, 2.0, 40.0, 350.0)
    cost = CostConfig(compute=LegConfig(kind="empirical", samples_ms=samples))

    def taken(seed: int, cuts: tuple[int, ...] = ()) -> list[float]:
        latency, tape = (
            Latency(GRID, cost, PaperConfig(reply=LegConfig(low_ms=10.0), seed=seed)),
            tape_of(series(rows)),
        )
        parts = np.split(ends, cuts)
        return [
            (moment.decided_ns - NOW) / MS for part in parts for _, moment in latency.moments_of(part, tape)
        ]

    found = taken(1)
    heard = [at * 100.0 + 20 + 10 for at in range(1, 401)]
    free = [d - h for d, h, before in zip(found, heard, [0.0, *found], strict=False) if d > before]
    assert {round(each, 6) for each in free} == set(samples)
    assert all(later >= before for before, later in pairwise(found))
    # Behind a frame that took 350 ms the next three wait for it.
    assert sum(later == before for before, later in pairwise(found)) > 100
    assert taken(1, (7, 200)) == found
    assert taken(2) != found


def test_decision_waits_for_lateness_the_way_here_and_computing() -> None:
    rows = series([(10, 5), (120, 5), (220, 5)])
    assert decided_ms(rows) == [120 + 12, 220 + 12]


@pytest.mark.parametrize(
    ("reply", "least_ms"),
    [
        (LegConfig(low_ms=3.0), 3.0),
        (LegConfig(kind="uniform", low_ms=4.0, high_ms=9.0), 4.0),
        (LegConfig(kind="empirical", samples_ms=(8.0, 6.0, 7.0)), 6.0),
    ],
)
def test_fastest_message_takes_the_shortest_reply(reply: LegConfig, least_ms: float) -> None:
    rows = series([(10, 5), (120, 5), (220, 5)])
    assert decided_ms(rows, PaperConfig(reply=reply)) == [122 + least_ms, 222 + least_ms]


@pytest.mark.parametrize("offset_ms", [0.0, -1_520.0, 86_400_000.0])
def test_feed_delay_is_what_exceeds_the_fastest_message_whatever_the_clock(offset_ms: float) -> None:
    rows = series([(10, 5), (130, 12), (220, 5)], offset_ms=offset_ms)
    # The first frame is closed by the message of 130 ms, which took 7 ms more than the fastest.
    assert decided_ms(rows) == pytest.approx([130 + 7 + 12, 220 + 12])


def test_any_symbol_closes_the_frame_of_all() -> None:
    rows = series([(10, 5), (190, 5), (290, 5)], [(121, 6), (221, 6)])
    assert decided_ms(rows) == pytest.approx([122 + 12, 222 + 12])


@pytest.mark.parametrize("kind", [TickKind.TRADE, TickKind.MARK, TickKind.CLOCK])
def test_any_kind_of_row_closes_a_frame(kind: TickKind) -> None:
    """The grid of frames knows no difference: trades and marks were left out here until now."""
    rows = series([(10, 5), (120, 5), (220, 5)])
    rows["kind"][1:] = kind
    rows["symbol"][1:] = -1 if kind is TickKind.CLOCK else 0
    assert decided_ms(rows) == [132.0, 232.0]


def test_silence_after_the_last_frame_costs_lateness_only() -> None:
    assert decided_ms(series([(10, 5)])) == [132.0, 232.0]
    assert decided_ms(series([])) == [132.0, 232.0]


def test_delays_are_reported() -> None:
    latency = Latency(GRID, COST, PAPER)
    assert latency.feed_delay_ms() == {"p50": 0.0, "p99": 0.0, "max": 0.0}
    latency.heard(END, tape_of(series([(10, 5), (130, 5), (220, 5)])))
    assert latency.feed_delay_ms()["max"] == pytest.approx(10.0)


def test_frames_that_end_a_run_are_no_delay_of_the_feed_however_they_are_cut() -> None:
    """The largest delay was that of the hole: 40,693,807,784 ms."""
    # A hole of 61 s behind the row of 220 ms, and a silence of 50 s behind that of 61,420.
    rows = series([(10, 5), (130, 5), (220, 5), (61_225, 5), (61_335, 5), (61_420, 5), (111_430, 5)])
    due = [100, 200, 300, 61_300, 61_400, *range(61_500, 111_500, 100)]
    ends = NOW + MS * np.array(due, np.int64)
    # By hand: the first row at or behind each frame's end and lateness, and the row before it.
    times = [10, 130, 220, 61_225, 61_335, 61_420, 111_430]
    closing = [next(index for index, at in enumerate(times) if at >= end + 20) for end in due[:-1]]
    expected = [
        times[index] - end - 20
        for end, index in zip(due[:-1], closing, strict=True)
        if times[index] - times[index - 1] <= 60_000
    ]
    expected.append(0)  # no row closes the last frame
    assert len(expected) == len(due) - 1
    for cuts in ([], [2], [3], [3, 4], [2, 3, 5, 300]):
        latency, tape = Latency(GRID, COST, PAPER), tape_of()
        for part in np.split(ends, cuts):
            count = int(np.searchsorted(rows["exch_ns"], part[-1] + 20 * MS)) + 1
            tape.add(rows[tape.end : count])
            positions, heard_ns = latency.heard(part, tape)
            tape.drop(int(positions[-1]))
            if part[0] <= ends[2] <= part[-1]:  # decided on when it is known, for all that
                assert heard_ns[np.searchsorted(part, ends[2])] == NOW + (61_225 + 10) * MS
        found = latency.feed_delay_ms()
        assert found["max"] == pytest.approx(max(expected))
        assert found["p50"] == pytest.approx(np.median(expected))
        assert found["p99"] == pytest.approx(np.quantile(expected, 0.99))


def test_positions_are_those_behind_the_closing_rows() -> None:
    tape = tape_of(series([(10, 5), (119, 5), (120, 5), (121, 5), (190, 5)]))
    positions, _ = Latency(GRID, COST, PAPER).heard(END, tape)
    assert positions.tolist() == [3, 5]


def test_windows_leave_no_trace_and_later_messages_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    at = np.cumsum(rng.integers(1, 30, 400))
    rows = series([(float(t), 20.0 - t / 400 + float(rng.integers(0, 9))) for t in at])
    end_ns = NOW + 100 * MS * np.arange(1, 60, dtype=np.int64)
    whole = Latency(GRID, COST, PAPER).heard(end_ns, tape_of(rows))
    pieces = Latency(GRID, COST, PAPER)
    tape = tape_of()
    positions: list[I64] = []
    heard: list[I64] = []
    for first, last in ((0, 1), (1, 20), (20, 59)):
        window = end_ns[first:last]
        # Just as much as closes the last frame of the window, in the order of arrival.
        count = int(np.argmax(np.maximum.accumulate(rows["exch_ns"]) >= window[-1] + 20 * MS)) + 1
        tape.add(rows[tape.end : count])
        found = pieces.heard(window, tape)
        positions.append(found[0])
        heard.append(found[1])
        tape.drop(int(found[0][-1]))
    assert np.concatenate(positions).tolist() == whole[0].tolist()
    assert np.concatenate(heard).tolist() == whole[1].tolist()


def plain_least(recv_ns: list[int], exch_ns: list[int]) -> list[int]:
    """Return the least delay of the slice of 10 s that a row lies in, up to it, and of the five before."""
    found = []
    for at, recv in enumerate(recv_ns):
        rows = range(at, -1, -1)
        oldest = (recv // 10**10 - 5) * 10**10
        found.append(min(recv_ns[row] - exch_ns[row] for row in rows if recv_ns[row] >= oldest))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_least_delay_is_that_of_the_last_minute_however_the_rows_are_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    recv_ns = NOW + np.cumsum(rng.integers(0, 2_000, 400)) * MS
    # A silence, a clock that is set forward, one that is set back: as an import leaves it, times never fall.
    recv_ns[200:] += 90_000 * MS
    exch_ns = recv_ns - rng.integers(2, 90, 400) * MS - np.where(np.arange(400) > 280, 1_600 * MS, 0)
    exch_ns[380:] += 1_000 * MS
    wanted = plain_least(recv_ns.tolist(), exch_ns.tolist())
    for cuts in ([], [0, 1, 2, 200], np.sort(rng.integers(0, 400, 30)).tolist()):
        delay = LeastDelay()
        parts = zip(np.split(recv_ns, cuts), np.split(exch_ns, cuts), strict=True)
        assert np.concatenate([delay.after_each(*part) for part in parts]).tolist() == wanted
        # Not behind the silence, though the delay of the first row there is another.
        assert [rise / MS for _, rise in delay.steps] == [pytest.approx(1_600, abs=90)]
    one = LeastDelay()
    assert [one.after(*row) for row in zip(recv_ns.tolist(), exch_ns.tolist(), strict=True)] == wanted
    assert one.steps == delay.steps


def test_a_wandering_clock_is_no_delay() -> None:
    """The least delay of all rows so far made 0.5 s of a clock that runs fast by 0.01 % after 80 minutes."""
    rows = [(at * 100.0 + 20, 5.0 + at * 0.01) for at in range(50_000)]
    ends = NOW + np.arange(1, 49_999, dtype=np.int64) * 100 * MS
    latency = Latency(GRID, COST, PAPER)
    latency.heard(ends, tape_of(series(rows)))
    assert latency.feed_delay_ms()["max"] < 6.1
