"""The market piece by piece: every symbol's rows of the next slice of time, in ticks and lots.

Owns: seeding, the planted lag, receive times, mark prices and funding. The events themselves come from
``gpuscalp.ops.order_flow``. Never: writes a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from gpuscalp.errors import DataError
from gpuscalp.ops import order_flow
from gpuscalp.schema import BOOK_LEVELS, E8, F64, I64, NS_PER_MS, NS_PER_S, Instrument
from gpuscalp.synthetic.spec import VENUE, FlowSpec, MarketSpec, SymbolSpec, checked

_TABLE_SIZE: Final = 4_096
_TAPE_ROWS: Final = 16_384
_FUNDING_NS: Final = 8 * 3_600 * NS_PER_S
_MIN_NOTIONAL_USDT: Final = 5
# Binance's largest market orders lie around this multiple of the step.
_MAX_MARKET_STEPS: Final = 1_000_000
# Mark and index price: how much of the distance to the mid the index makes good at each mark row, and the
# weight of the mid in the mark price. They only smooth the past, so they say nothing new.
_INDEX_STEP: Final = 0.2
_MARK_WEIGHT: Final = 1.0 / 3.0

Columns = dict[str, I64]


@dataclass(frozen=True, slots=True)
class SymbolRows:
    """Rows of one symbol, sorted by (recv_ns, seq); prices in ticks, quantities in lots, all int64.

    Attributes
    ----------
    index : position of the symbol in the spec
    trades : recv_ns, exch_ns, seq, px, lots, side
    quotes : recv_ns, exch_ns, seq, bid_px, bid_lots, ask_px, ask_lots
    books : recv_ns, exch_ns, seq, bid_px, ask_px; bid_lots, ask_lots [N, 20] at consecutive ticks
    marks : recv_ns, exch_ns, seq, mark_price_e8, index_price_e8, funding_rate_e8, next_funding_ns
    """

    index: int
    trades: Columns
    quotes: Columns
    books: Columns
    marks: Columns


def instruments(spec: MarketSpec) -> tuple[Instrument, ...]:
    """Return what the synthetic venue says about its symbols, in the order of the spec."""
    return tuple(
        Instrument(
            symbol=item.symbol,
            venue=VENUE,
            tick_size_e8=item.tick_size_e8,
            step_size_e8=item.step_size_e8,
            min_qty_e8=item.step_size_e8,
            min_notional_e8=_MIN_NOTIONAL_USDT * E8,
            source="synthetic",
            max_market_qty_e8=_MAX_MARKET_STEPS * item.step_size_e8,
        )
        for item in spec.symbols
    )


def slices(spec: MarketSpec) -> Iterator[tuple[SymbolRows, ...]]:
    """Make the market, ``slice_s`` seconds of exchange time at once; memory is one slice.

    Yields
    ------
    tuple of SymbolRows
        one for each symbol, in the order of the spec; concatenated they do not depend on ``slice_s``

    Raises
    ------
    ConfigError
        the spec is out of range
    DataError
        a price came near zero, which the model does not cover
    """
    spec = checked(spec)
    streams = np.random.SeedSequence(spec.seed).spawn(len(spec.symbols))
    symbols = [_Symbol(spec, index, seeds) for index, seeds in enumerate(streams)]
    duration_ns = spec.duration_s * NS_PER_S
    for start_ns in range(0, duration_ns, spec.slice_s * NS_PER_S):
        end_ns = min(start_ns + spec.slice_s * NS_PER_S, duration_ns)
        leader_rows, moves = symbols[0].advance(end_ns, None)
        yield (leader_rows, *(follower.advance(end_ns, moves)[0] for follower in symbols[1:]))


class _Symbol:
    """One symbol between two slices: its kernel state, its random streams, its pending copies."""

    def __init__(self, spec: MarketSpec, index: int, seeds: np.random.SeedSequence) -> None:
        self._spec, self._index = spec, index
        item = spec.symbols[index]
        self._item = item
        flow, copies, latency, funding = (
            np.random.Generator(np.random.PCG64(seed)) for seed in seeds.spawn(4)
        )
        self._flow_rng, self._copy_rng, self._latency_rng, self._funding_rng = flow, copies, latency, funding
        self._rules = _rules(spec, item)
        self._state = _initial(self._rules, item, flow)
        self._tape = order_flow.make_tape(_TAPE_ROWS)
        self._echo_ns = np.empty(0, np.int64)
        self._echo_ticks = np.empty(0, np.int64)
        leader = spec.symbols[0]
        # Ticks of this symbol for half a tick of the leader; both relative to the first prices.
        self._copy_ticks = spec.copy_ratio * (
            (leader.tick_size_e8 / leader.price_e8) / (2.0 * item.tick_size_e8 / item.price_e8)
        )
        self._jitter_ns = _exponential_table(spec.jitter_ms * NS_PER_MS)
        self._recv_ns = 0
        self._index_price = float(item.price_e8)
        self._funding_ns = self._funding_rate_e8 = 0

    def advance(self, end_ns: int, leader_moves: I64 | None) -> tuple[SymbolRows, I64]:
        """Return the rows up to ``end_ns`` (since the market's start) and the symbol's own moves [N, 2]."""
        if leader_moves is not None:
            self._schedule(leader_moves)
        parts: list[list[I64]] = []
        finished = False
        while not finished:
            finished = bool(
                order_flow.simulate(
                    self._flow_rng,
                    self._rules,
                    self._state,
                    self._echo_ns,
                    self._echo_ticks,
                    end_ns,
                    self._tape,
                )
            )
            parts.append(
                [rows[:count].copy() for rows, count in zip(self._tape, self._tape.rows, strict=False)]
            )
        trades, quotes, books, marks, moves = (np.concatenate(kind) for kind in zip(*parts, strict=True))
        if len(quotes) and quotes[:, 2].min() <= BOOK_LEVELS:
            raise DataError(
                "the price came near zero, which the synthetic market does not cover",
                where=self._item.symbol,
                fix="take a shorter duration or a finer tick",
            )
        self._drop_done()
        return self._rows(trades, quotes, books, marks), moves

    def _schedule(self, moves: I64) -> None:
        """Turn moves of the leader into copies: later, scaled, and with a sign that may be flipped.

        The size is rounded at random to whole ticks with its mean kept, so that rounding leaves nothing to
        foresee. Two uniforms for each move whatever happens: the copies then have the same times and sizes
        for every ``lag_strength``.
        """
        uniforms = self._copy_rng.random((len(moves), 2))
        size = np.floor(np.abs(moves[:, 1]) * self._copy_ticks + uniforms[:, 0]).astype(np.int64)
        flipped = uniforms[:, 1] < (1.0 - self._spec.lag_strength) / 2.0
        ticks = np.sign(moves[:, 1]) * np.where(flipped, -size, size)
        kept = ticks != 0
        self._echo_ns = np.concatenate([self._echo_ns, moves[kept, 0] + self._spec.lag_ms * NS_PER_MS])
        self._echo_ticks = np.concatenate([self._echo_ticks, ticks[kept]])

    def _drop_done(self) -> None:
        done = int(self._state.counts[order_flow.NEXT_ECHO])
        self._echo_ns, self._echo_ticks = self._echo_ns[done:], self._echo_ticks[done:]
        self._state.counts[order_flow.NEXT_ECHO] = 0

    def _rows(self, trades: I64, quotes: I64, books: I64, marks: I64) -> SymbolRows:
        recv_of = self._receive([trades, quotes, books, marks])
        stamps = [
            {"recv_ns": recv, "exch_ns": rows[:, 0] + self._spec.start_ns, "seq": rows[:, 1]}
            for recv, rows in zip(recv_of, (trades, quotes, books, marks), strict=True)
        ]
        names = ("bid_px", "bid_lots", "ask_px", "ask_lots")
        return SymbolRows(
            index=self._index,
            trades=stamps[0] | {"px": trades[:, 2], "lots": trades[:, 3], "side": trades[:, 4]},
            quotes=stamps[1] | {name: quotes[:, 2 + column] for column, name in enumerate(names)},
            books=stamps[2]
            | {"bid_px": books[:, 2], "ask_px": books[:, 3]}
            | {"bid_lots": books[:, 4 : 4 + BOOK_LEVELS], "ask_lots": books[:, 4 + BOOK_LEVELS :]},
            marks=stamps[3] | self._mark_columns(stamps[3]["exch_ns"], marks[:, 2]),
        )

    def _receive(self, kinds: list[I64]) -> list[I64]:
        """Return receive times for every kind: in order within the symbol, as one connection delivers."""
        exch_ns = np.concatenate([rows[:, 0] for rows in kinds])
        order = np.argsort(np.concatenate([rows[:, 1] for rows in kinds]))
        delay_ns = self._jitter_ns[(self._latency_rng.random(len(order)) * _TABLE_SIZE).astype(np.int64)]
        arrival_ns = (
            exch_ns[order] + (self._spec.start_ns + round(self._spec.latency_ms * NS_PER_MS)) + delay_ns
        )
        if len(arrival_ns):
            arrival_ns[0] = max(arrival_ns[0], self._recv_ns)
            arrival_ns = np.maximum.accumulate(arrival_ns)
            self._recv_ns = int(arrival_ns[-1])
        recv_ns = np.empty_like(arrival_ns)
        recv_ns[order] = arrival_ns
        return np.split(recv_ns, np.cumsum([len(rows) for rows in kinds])[:-1])

    def _mark_columns(self, exch_ns: I64, mid_half_ticks: I64) -> Columns:
        half_tick_e8 = self._item.tick_size_e8 / 2.0
        columns: Columns = {
            name: np.empty(len(exch_ns), np.int64)
            for name in ("mark_price_e8", "index_price_e8", "funding_rate_e8", "next_funding_ns")
        }
        for row in range(len(exch_ns)):
            mid = float(mid_half_ticks[row]) * half_tick_e8
            self._index_price += _INDEX_STEP * (mid - self._index_price)
            next_ns = (int(exch_ns[row]) // _FUNDING_NS + 1) * _FUNDING_NS
            if next_ns != self._funding_ns:
                self._funding_ns = next_ns
                # Between 0 and 0.02 % for eight hours, around the usual 0.01 %.
                self._funding_rate_e8 = int(self._funding_rng.random() * 20_000)
            columns["mark_price_e8"][row] = round(
                self._index_price + _MARK_WEIGHT * (mid - self._index_price)
            )
            columns["index_price_e8"][row] = round(self._index_price)
            columns["funding_rate_e8"][row] = self._funding_rate_e8
            columns["next_funding_ns"][row] = next_ns
        return columns


def _rules(spec: MarketSpec, item: SymbolSpec) -> order_flow.Rules:
    flow = spec.flow
    return order_flow.Rules(
        base_hz=0.5 * item.orders_hz * (1.0 - flow.branching_ratio),
        decay_hz=np.array(flow.decay_hz),
        same_side=np.array(flow.same_side),
        cross_side=np.array(flow.cross_side),
        move_probability=flow.move_probability,
        jump_cdf=_jump_cdf(flow),
        queue_hz=flow.queue_hz,
        queue_per_trade=flow.queue_per_order,
        close_hz=flow.close_hz,
        open_hz=flow.open_hz,
        spread_cap=flow.spread_cap_ticks,
        order_lots=_size_table(item.order_lots_median, flow.size_sigma, least=1),
        queue_lots=_size_table(item.queue_lots_median, flow.size_sigma / 2.0, least=2),
        book_ns=spec.book_interval_ms * NS_PER_MS,
        mark_ns=spec.mark_interval_ms * NS_PER_MS,
    )


def _initial(rules: order_flow.Rules, item: SymbolSpec, rng: np.random.Generator) -> order_flow.Progress:
    """Start at the first price with a spread of one tick and the excitation at its stationary mean."""
    side_hz = 0.5 * item.orders_hz
    mean_hz = side_hz * (rules.same_side + rules.cross_side)
    bid_px = item.price_e8 // item.tick_size_e8
    draws = (rng.random((2, BOOK_LEVELS)) * _TABLE_SIZE).astype(np.int64)
    return order_flow.Progress(
        times_ns=np.array([0.0, -1.0]),
        excitation_hz=np.stack([mean_hz, mean_hz]),
        counts=np.array([bid_px, bid_px + 1, 0, 0, 0, 0], np.int64),
        queues=rules.queue_lots[draws],
    )


def _jump_cdf(flow: FlowSpec) -> F64:
    weights = np.array([float(k) ** -flow.jump_exponent for k in range(1, flow.jump_levels_max + 1)])
    # Rounded, because a power may differ in its last place between platforms.
    cdf: F64 = np.round(np.cumsum(weights) / weights.sum(), 12)
    cdf[-1] = 1.0
    return cdf


def _size_table(median_lots: int, sigma: float, *, least: int) -> I64:
    """Return equally likely sizes of a log-normal law: its quantiles, in whole lots."""
    normal = NormalDist(0.0, sigma)
    quantiles = [normal.inv_cdf((i + 0.5) / _TABLE_SIZE) for i in range(_TABLE_SIZE)]
    return np.array([max(least, round(median_lots * math.exp(q))) for q in quantiles], np.int64)


def _exponential_table(mean_ns: float) -> I64:
    """Return equally likely delays of an exponential law, in whole microseconds."""
    quantiles = [-math.log1p(-(i + 0.5) / _TABLE_SIZE) for i in range(_TABLE_SIZE)]
    return np.array([round(mean_ns * q / 1_000.0) * 1_000 for q in quantiles], np.int64)
