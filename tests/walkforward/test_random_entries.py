"""Random entries: priced by hand, on a market without direction, and against a run that knows the future."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from gpuscalp.arrow import pa
from gpuscalp.backtest.ledger import Ledger, Trade
from gpuscalp.backtest.record import trade_columns
from gpuscalp.config import GridConfig
from gpuscalp.orders import Fill, OrderKind
from gpuscalp.schema import NS_PER_S, Quality
from gpuscalp.walkforward import recorded
from gpuscalp.walkforward.random_entries import Quotes, RandomEntries, random_entries, read_quotes
from gpuscalp.walkforward.recorded import Trades
from tests.backtest import market

HOUR = 3_600 * NS_PER_S
START = 400_000 * HOUR
FRAME = NS_PER_S


def _quotes(mid: np.ndarray, half: float = 1e-4) -> Quotes:
    """Return quotes of one symbol, a frame a second from the beginning of an hour."""
    end_ns = START + FRAME * np.arange(len(mid), dtype=np.int64)
    return Quotes(end_ns, mid[None, :], np.full((1, len(mid)), half), np.isfinite(mid)[None, :])


def compare(trades: Trades, quotes: Quotes, **rest) -> RandomEntries | None:
    return random_entries(trades, [quotes], frame_ns=FRAME, **rest)


def _trades(at: list[int], held: list[int], side: list[int], value: float = 1_000.0) -> Trades:
    count, nothing = len(at), np.zeros(len(at))
    entry_ns = START + FRAME * np.array(at, np.int64)
    return Trades(
        np.zeros(count, np.int64),
        np.array(side, np.int64),
        entry_ns,
        entry_ns + FRAME * np.array(held, np.int64),
        np.full(count, value),
        np.full(count, value),
        *(nothing,) * 7,
    )


def _walk(count: int, rng: np.random.Generator, step: float = 1e-4) -> np.ndarray:
    return 100.0 * np.exp(np.cumsum(rng.normal(0.0, step, count)))


def test_market_that_stands_still_costs_spread_and_fee_of_both_ways(rng):
    found = compare(
        _trades([10, 20], [5, 7], [1, -1]), _quotes(np.full(100, 50.0)), fee_bps=5.0, draws=100, rng=rng
    )
    assert found is not None
    assert found.run == pytest.approx(-2 * 1_000 * 2 * (1e-4 + 5e-4))
    assert found.totals == pytest.approx(np.full(100, found.run))
    assert found.gross == 0.0
    assert found.p_value == 1.0


def test_archive_without_a_quote_compares_nothing(rng):
    assert random_entries(_trades([10], [5], [1]), [], frame_ns=FRAME, fee_bps=5.0, draws=9, rng=rng) is None


def test_run_is_priced_as_a_person_would(rng):
    mid = _walk(60, rng)
    # What is left within the frame of its entry is left at the next one.
    for held, left in ((9, 21), (0, 13)):
        found = compare(_trades([12], [held], [-1]), _quotes(mid, 2e-4), fee_bps=3.0, draws=100, rng=rng)
        assert found is not None
        qty = 1_000 / mid[12]
        sold, bought = mid[12] * (1 - 2e-4), mid[left] * (1 + 2e-4)
        assert found.run == pytest.approx(qty * (sold - bought) - 3e-4 * qty * (mid[12] + mid[left]))


def test_every_draw_is_priced_as_by_hand():
    """Two symbols, each with spreads of its own, over three hours: trades and draws in plain loops."""
    made, seconds = np.random.default_rng(8), 3 * 3_600
    mid = np.stack([_walk(seconds, made), 7 * _walk(seconds, made, 1e-3)])
    half = made.uniform(1e-5, 1e-3, (2, seconds))
    mid[made.random((2, seconds)) < 0.05] = np.nan
    fresh = np.isfinite(mid) & (made.random((2, seconds)) < 0.9)
    at, held = np.sort(made.integers(0, seconds - 200, 40)), made.integers(1, 90, 40)
    held[:5] += 5_000  # they end among others that began an hour later
    # One of the first hour ends between two of the second, which still move together.
    at[-3:], held[-3:] = (3_590, 3_605, 3_700), (60, 20, 30)
    order = np.argsort(at + held, kind="stable")
    at, held = at[order], held[order]
    symbol, side, value = made.integers(0, 2, 40), made.choice([-1, 1], 40), made.uniform(10, 1_000, 40)
    trades = replace(
        _trades(at.tolist(), held.tolist(), side.tolist()), symbol=symbol.astype(np.int64), entry_usdt=value
    )
    rng, shares, run, totals, compared = np.random.default_rng(2), {}, 0.0, np.zeros(20), 0
    for t, h, s, way, usdt in zip(at, held, symbol, side, value, strict=True):

        def earned(frame, h=h, s=s, way=way, usdt=usdt):
            qty, left = usdt / mid[s, frame], frame + h
            paid = mid[s, frame] * (half[s, frame] + 3e-4) + mid[s, left] * (half[s, left] + 3e-4)
            return qty * (way * (mid[s, left] - mid[s, frame]) - paid)

        hour = range(t // 3_600 * 3_600, min((t // 3_600 + 1) * 3_600, seconds - h))
        places = [frame for frame in hour if fresh[s, frame] and np.isfinite(mid[s, frame + h])]
        if t not in places:
            continue
        share = shares.setdefault(t // 3_600, rng.random(20) if t // 3_600 not in shares else None)
        run, compared = run + earned(t), compared + 1
        others = [frame for frame in places if frame > t] + [frame for frame in places if frame < t]
        totals += [earned(others[int(part * len(others))]) for part in share]
    end_ns = START + FRAME * np.arange(seconds, dtype=np.int64)
    found = compare(
        trades, Quotes(end_ns, mid, half, fresh), fee_bps=3.0, draws=20, rng=np.random.default_rng(2)
    )
    assert found is not None
    assert (found.compared, found.left_out) == (compared, 40 - compared)
    assert 20 < compared < 40
    assert found.run == pytest.approx(run)
    assert found.totals == pytest.approx(totals)
    assert found.gross - found.costs == pytest.approx(totals.mean())
    lowest, highest = np.sort(totals)[:2], np.sort(totals)[-2:]
    # 2.5 % of the way from the first of twenty to the last is 0.475 of a step.
    assert found.interval.low == pytest.approx(lowest[0] * 0.525 + lowest[1] * 0.475)
    assert found.interval.high == pytest.approx(highest[1] * 0.525 + highest[0] * 0.475)


def test_random_entries_lose_about_their_costs(rng):
    """Of 40 markets without direction: what the mid did averages zero, so the loss is the costs."""
    gross, totals, costs = [], [], []
    for _ in range(40):
        at = rng.choice(3_000, 60, replace=False).tolist()
        trades = _trades(at, rng.integers(1, 30, 60).tolist(), rng.choice([-1, 1], 60).tolist())
        found = compare(trades, _quotes(_walk(3_600, rng)), fee_bps=5.0, draws=100, rng=rng)
        assert found is not None
        gross.append(found.gross)
        totals.append(float(found.totals.mean()))
        costs.append(found.costs)
    error = float(np.std(totals, ddof=1)) / math.sqrt(len(totals))
    assert np.mean(costs) == pytest.approx(60 * 1_000 * 2 * (1e-4 + 5e-4), rel=1e-3)
    assert abs(np.mean(totals) + np.mean(costs)) < 3 * error
    assert error < 0.02 * np.mean(costs)  # or the line above says nothing
    assert abs(np.mean(gross)) < 3 * error


def test_p_value_of_random_runs_is_uniform_and_of_foresight_is_the_smallest(rng):
    values = []
    for _ in range(60):
        mid = _walk(3_600, rng)
        at = rng.choice(3_000, 30, replace=False).tolist()
        found = compare(
            _trades(at, [10] * 30, rng.choice([-1, 1], 30).tolist()),
            _quotes(mid), fee_bps=5.0, draws=200, rng=rng,
        )  # fmt: skip
        assert found is not None
        values.append(found.p_value)
    assert abs(np.mean(values) - 0.5) < 3 * math.sqrt(1 / 12 / 60)
    moved = mid[10:] - mid[:-10]
    knows = np.argsort(moved[:3_000])[-30:].tolist()
    found = compare(_trades(knows, [10] * 30, [1] * 30), _quotes(mid), fee_bps=5.0, draws=200, rng=rng)
    assert found is not None
    assert found.p_value == pytest.approx(1 / 201)
    assert found.run > found.interval.high


def test_entries_that_come_together_count_as_one_chance():
    """Twenty entries in twenty seconds, all one way: one by one, many such runs would pass for skill."""
    together, one_by_one = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        quotes = _quotes(_walk(3_600, rng))
        first, side = int(rng.integers(0, 3_000)), int(rng.choice([-1, 1]))
        at = np.arange(first, first + 20)
        found = compare(_trades(at.tolist(), [60] * 20, [side] * 20), quotes, fee_bps=5.0, draws=200, rng=rng)
        assert found is not None
        together.append(found.p_value)
        mid = quotes.mid[0]
        anywhere = rng.integers(0, 3_540, (200, 20))
        moved = side * (mid[anywhere + 60] / mid[anywhere] - 1).sum(axis=1)
        run = side * (mid[at + 60] / mid[at] - 1).sum()
        one_by_one.append((1 + int((moved >= run).sum())) / 201)
    assert np.mean(np.array(together) < 0.05) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)
    assert np.mean(np.array(one_by_one) < 0.05) > 0.2


def _bracketed(
    mid: np.ndarray, at: list[int], sides: list[int], distance: float
) -> tuple[list[Trade], Trades]:
    """Return trades that a target or a stop has ended, as the ledger has them and as a judge reads them."""
    ledger = Ledger()
    for number, (first, side) in enumerate(zip(at, sides, strict=True)):
        reached = np.flatnonzero(np.abs(mid[first:] / mid[first] - 1) >= distance)
        last = first + int(reached[0])
        won = side * (mid[last] - mid[first]) > 0
        for place, frame, kind in (
            (0, first, OrderKind.MARKET),
            (1, last, OrderKind.LIMIT if won else OrderKind.STOP_MARKET),
        ):
            now, turn = START + FRAME * frame, side if place == 0 else -side
            placed = market.order(turn, 1.0, order_id=2 * number + place + 1, reduce_only=bool(place))
            # The bracket is placed at the frame behind the entry.
            decided_ns, mid2_e8 = START + FRAME * (first + place), round(2e8 * mid[first + place])
            placed = replace(placed, decided_ns=decided_ns, mid2_e8=mid2_e8, kind=kind)
            here = round(2e8 * mid[frame])
            fill = Fill(placed.order_id, 0, turn, market.E8, here // 2, 0, now, here, here // 2)
            ledger.on_fill(fill, placed)
    closed = sorted(ledger.closed, key=lambda trade: trade.exit_ns)
    return closed, recorded._trades(pa.table(trade_columns(closed, ["A"])), ["A"])


def test_trades_that_a_bracket_ends_are_held_until_it_does(rng):
    """Run and draws left one frame behind the entry, when the bracket had been placed: luck was never met."""
    mid = _walk(6_000, rng)
    at = sorted(rng.choice(3_000, 40, replace=False).tolist())
    later = [int(np.flatnonzero(np.abs(mid[first:] / mid[first] - 1) >= 1e-3)[0]) for first in at]
    knows = [1 if mid[first + held] > mid[first] else -1 for first, held in zip(at, later, strict=True)]
    for sides, skilled in ((knows, True), (rng.choice([-1, 1], 40).tolist(), False)):
        closed, trades = _bracketed(mid, at, sides, 1e-3)
        held = (trades.exit_ns - trades.entry_ns) // FRAME
        assert sorted(held.tolist()) == sorted(later)
        assert float(np.median(held)) > 20
        found = compare(trades, _quotes(mid, 0.0), fee_bps=0.0, draws=200, rng=rng)
        assert found is not None
        assert found.compared == 40
        assert found.run == pytest.approx(sum(trade.pnl_e8 for trade in closed) / market.E8)
        assert (found.p_value == 1 / 201) is skilled
        # The draws hold as long: they move as far.
        assert np.std(found.totals) > 0.3 * np.sqrt(40) * 1e-3 * 100


def test_draws_that_repeat_the_run_are_no_worse_than_it():
    """Summed in another way, a run beat them all by the last place of a float, and passed for skill."""
    at = [100, 3_700, 7_300]
    fresh = np.zeros(3 * 3_600, np.bool_)
    fresh[at] = True  # nowhere else in its hour can an entry be made
    for seed in range(40):
        rng = np.random.default_rng(seed)
        quotes = replace(_quotes(_walk(len(fresh), rng)), fresh=fresh[None, :])
        trades = _trades(at, [50] * 3, rng.choice([-1, 1], 3).tolist())
        found = compare(trades, quotes, fee_bps=5.0, draws=100, rng=rng)
        assert found is not None
        assert found.totals.tolist() == [found.run] * 100
        assert found.p_value == 1.0


def test_rising_market_is_no_merit_of_who_was_long(rng):
    mid = _walk(3_600, rng) * np.exp(np.arange(3_600) * 5e-5)
    at = rng.choice(3_000, 30, replace=False).tolist()
    found = compare(_trades(at, [20] * 30, [1] * 30), _quotes(mid), fee_bps=0.0, draws=500, rng=rng)
    assert found is not None
    assert found.run > 0
    assert found.p_value > 0.05


def test_draws_stay_in_the_hour_of_the_trade_and_on_sound_quotes(rng):
    mid = np.full(2 * 3_600, 100.0)
    mid[3_600:] = 200.0  # a draw across the border would gain a hundred per cent
    mid[100:3_590] = np.nan
    quotes = _quotes(mid)
    found = compare(_trades([20, 200], [4, 4], [1, 1]), quotes, fee_bps=0.0, draws=500, rng=rng)
    assert found is not None
    assert (found.compared, found.left_out) == (1, 1)
    late = compare(_trades([3_700], [4], [1]), quotes, fee_bps=0.0, draws=500, rng=rng)
    assert late is not None
    assert late.totals.max() < 0


class OneMarket:
    """An archive of one symbol that was quoted at these seconds, and one whose rows only move the time."""

    def __init__(self, seconds: list[int], *, quality: dict[int, Quality]) -> None:
        rows = [(1_000.0 * at + 100, 10_000 + at, 10_002 + at, 1.0, 1.0) for at in seconds]
        quoted = market.quotes(rows)
        for at, bits in quality.items():
            quoted.quality[seconds.index(at)] = int(bits)
        beside = [(1_000.0 * at + 200, 50, 51, 1.0, 1.0) for at in range(60)]
        self.ticks = market.ticks_of([quoted, market.quotes(beside)])

    def instruments(self, venue: str, symbols: tuple[str, ...]):
        return tuple(market.COIN for _ in symbols)

    def tick_batches(self, *_: object, **__: object):
        yield self.ticks


def test_trade_that_leaves_on_a_quote_that_stands_is_compared(rng):
    """Such trades and draws were left out, which is where nothing moved: chance seemed to move more."""
    # Quoted every second up to 9.1 s, then at 30.1 s, crossed; a quote is stale after five seconds.
    source = OneMarket([*range(10), 30, 31], quality={8: Quality.CLOCK_DRIFT, 30: Quality.CROSSED})
    grid = GridConfig(frame_ms=1_000, lateness_ms=0, stale_ms=5_000)
    blocks = list(read_quotes(source, "v", ("A", "B"), grid=grid, start_ns=0, end_ns=0))
    frame = int(blocks[0].end_ns[0])
    assert frame == market.NOW + NS_PER_S

    def at(second: int, held: int) -> Trades:
        trades = _trades([0], [held], [1])
        entry_ns = np.array([market.NOW + second * NS_PER_S])
        moved = {"entry_ns": entry_ns, "exit_ns": entry_ns + held * NS_PER_S}
        return Trades(*(moved.get(name, getattr(trades, name)) for name in Trades.__slots__))

    def priced(second: int, held: int) -> RandomEntries | None:
        return random_entries(at(second, held), blocks, frame_ns=FRAME, fee_bps=0.0, draws=50, rng=rng)

    # In at the close of the second of 8.1 s, whose bit is not of the quote, out at 20 s on that of 9.1 s.
    found = priced(9, 11)
    assert found is not None
    assert (found.compared, found.left_out) == (1, 0)
    entry, left = 10_009.0, 10_010.0
    assert found.run == pytest.approx(1_000 / entry * ((left - 1) - (entry + 1)))
    # Not in on a quote that stands, and not out on one that is wrong.
    assert priced(20, 2) is None
    assert priced(9, 22) is None


def test_hole_in_the_grid_is_not_held_over(rng):
    quotes = _quotes(_walk(200, rng))
    end_ns = quotes.end_ns.copy()
    end_ns[100:] += 50 * FRAME
    holed = Quotes(end_ns, quotes.mid, quotes.half, quotes.fresh)
    assert compare(_trades([98], [4], [1]), holed, fee_bps=0.0, draws=100, rng=rng) is None


def test_nothing_to_compare_is_none(rng):
    quotes = _quotes(np.ones(10))
    assert compare(_trades([], [], []), quotes, fee_bps=0.0, draws=100, rng=rng) is None
    # Held beyond the last quote.
    assert compare(_trades([3], [12], [1]), quotes, fee_bps=0.0, draws=100, rng=rng) is None


def test_cut_of_the_stream_does_not_change_the_result(rng):
    """Trades that are held for hours end after others of later hours, and need their first hour again."""
    mid = _walk(8 * 3_600, rng)
    at, held = rng.integers(0, 3 * 3_600, 60), rng.integers(1, 100, 60)
    held[::7] = rng.integers(5_000, 12_000, len(held[::7]))
    order = np.argsort(at + held)
    trades = _trades(at[order].tolist(), held[order].tolist(), rng.choice([-1, 1], 60).tolist())
    quotes = _quotes(mid)
    cuts = [0, *np.sort(rng.choice(np.arange(1, len(mid)), 40, replace=False)).tolist(), len(mid)]
    blocks = (
        Quotes(
            quotes.end_ns[first:last],
            *(each[:, first:last] for each in (quotes.mid, quotes.half, quotes.fresh)),
        )
        for first, last in itertools.pairwise(cuts)
    )
    whole, cut = (
        random_entries(trades, parts, frame_ns=FRAME, fee_bps=5.0, draws=100, rng=np.random.default_rng(1))
        for parts in ([quotes], blocks)
    )
    assert whole is not None
    assert cut is not None
    assert whole.compared == cut.compared == 60
    assert cut.run == whole.run
    assert cut.totals.tolist() == whole.totals.tolist()


def test_memory_does_not_grow_with_the_walk():
    """All quotes of the walk, and all places of each hour and holding time, were kept until the end."""

    def peak(hours: int) -> int:
        def blocks():
            for hour in range(hours):
                end_ns = START + FRAME * np.arange(hour * 3_600, (hour + 1) * 3_600, dtype=np.int64)
                fresh = np.ones((2, 3_600), np.bool_)
                yield Quotes(end_ns, np.full((2, 3_600), 100.0), np.full((2, 3_600), 1e-4), fresh)

        at = np.arange(0, hours * 3_600 - 1_000, 600).tolist()
        trades = _trades(at, (5 + np.arange(len(at)) % 50).tolist(), [1] * len(at))
        tracemalloc.start()
        try:
            rng = np.random.default_rng(1)
            found = random_entries(trades, blocks(), frame_ns=FRAME, fee_bps=5.0, draws=1_000, rng=rng)
            assert found is not None
            assert found.compared == len(at)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(50) < 1.2 * peak(10)
