"""Ticks with everything that a feed does to a grid: disorder, lateness, silences, clocks, crossed quotes."""

from __future__ import annotations

import itertools

import numpy as np

from gpuscalp.schema import E8, NS_PER_MS, TICK, Instrument, TickKind, Ticks

START_NS = 1_721_347_000_123_456_789


def instruments(count: int) -> tuple[Instrument, ...]:
    """Return the leader and others, with unequal tick sizes."""
    names = ["BTCUSDT", *(f"S{index}USDT" for index in range(1, count))]
    return tuple(
        Instrument(name, "synthetic", E8 // 10 ** (index % 3), E8 // 1000, E8 // 1000, 5 * E8, "synthetic")
        for index, name in enumerate(names)
    )


def random_ticks(
    seed: int,
    count: int,
    symbols: int,
    *,
    step_ms: float = 40.0,
    disorder_ms: float = 30.0,
    silences: int = 0,
    silence_ms: float = 3_000.0,
    clock_share: float = 0.05,
    quiet_symbol: bool = False,
    one_sided: float = 0.0,
) -> Ticks:
    """Return TICK[count] in arrival order.

    Parameters
    ----------
    seed, count, symbols : the same arguments give the same ticks
    step_ms : mean time between ticks
    disorder_ms : exchange times lie up to this far behind the order of arrival, so that some ticks are late
    silences, silence_ms : this many pauses, each at least this long
    clock_share : share of CLOCK ticks
    quiet_symbol : the last symbol has no tick at all
    one_sided : share of quotes without a bid, and as many without an ask
    """
    rng = np.random.default_rng(seed)
    ticks = np.zeros(count, TICK)
    if count == 0:
        return ticks
    waits = rng.exponential(step_ms, count)
    waits[rng.integers(0, count, silences)] += silence_ms * rng.uniform(1.0, 2.0, silences)
    arrival_ns = START_NS + (np.cumsum(waits) * NS_PER_MS).astype(np.int64)
    behind = np.where(rng.random(count) < 0.3, rng.uniform(0, disorder_ms, count), 0.0)
    ticks["recv_ns"] = arrival_ns + 5 * NS_PER_MS
    ticks["exch_ns"] = arrival_ns - (behind * NS_PER_MS).astype(np.int64)
    ticks["symbol"] = rng.integers(0, max(1, symbols - quiet_symbol), count)
    ticks["kind"] = rng.choice(
        [TickKind.TRADE, TickKind.QUOTE, TickKind.BOOK, TickKind.MARK], count, p=[0.3, 0.5, 0.15, 0.05]
    )
    _fill(rng, ticks, one_sided)
    ticks["quality"] = np.where(rng.random(count) < 0.02, rng.integers(0, 4, count), 0)
    clock = rng.random(count) < clock_share
    ticks["kind"][clock], ticks["symbol"][clock] = TickKind.CLOCK, -1
    ticks["exch_ns"][clock] = arrival_ns[clock]
    return ticks


def _fill(rng: np.random.Generator, ticks: Ticks, one_sided: float) -> None:
    """Write prices and quantities: a walk of quotes, trades around it, books and marks."""
    count = len(ticks)
    bid = 50_000 + np.cumsum(rng.integers(-2, 3, count))
    spread = rng.choice([0, 1, 1, 1, 2, 5], count)  # 0: locked
    quantity = np.round(rng.lognormal(0.0, 1.5, (4, count)), 3) + 0.001
    trade = ticks["kind"] == TickKind.TRADE
    ticks["px0"] = np.where(trade, bid + rng.integers(-1, 3, count), bid)
    ticks["px1"] = np.where(trade, 0, bid + spread)
    if one_sided:
        quote = ticks["kind"] == TickKind.QUOTE
        for name in ("px0", "px1"):
            ticks[name][quote & (rng.random(count) < one_sided)] = 0
    ticks["side"] = np.where(trade, rng.choice([-1, 1], count), 0)
    for name, values in zip(("q0", "q1", "q2", "q3"), quantity, strict=True):
        ticks[name] = values
    book = ticks["kind"] == TickKind.BOOK
    ticks["q2"][book] += ticks["q0"][book]
    ticks["q3"][book] += ticks["q1"][book]
    mark = ticks["kind"] == TickKind.MARK
    ticks["q0"][mark] = (bid[mark] + rng.normal(0, 3, mark.sum())) * 0.1


def cuts(seed: int, count: int) -> list[int]:
    """Return sorted places to cut ``count`` ticks at: runs of single ticks, empty batches, large ones."""
    rng = np.random.default_rng(seed)
    places = list(rng.integers(0, count + 1, rng.integers(0, 12)))
    start = int(rng.integers(0, count + 1))
    places += range(start, min(count, start + 20))
    places += places[:2]  # the same place twice: an empty batch
    return sorted(int(place) for place in places)


def split(ticks: Ticks, places: list[int]) -> list[Ticks]:
    """Return the batches between the places."""
    edges = [0, *places, len(ticks)]
    return [ticks[a:b] for a, b in itertools.pairwise(edges)]
