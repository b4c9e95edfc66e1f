"""What entries at random times would have earned with the same exposure: the run has to beat them.

Owns: the draws and their price. Never: sends an order: a fill is the mid of the frame plus half its spread
plus the fee, at the decision itself. That is cheaper than the paper broker (no delay, no depth, no refusal),
for the random entries and for the run's own, which are priced the same way before they are compared.

Every draw repeats the run trade by trade: symbol, side, value, holding time and clock hour stay. All entries
of an hour are moved by the same random time, round the end of the hour, over the frames at which both entry
and exit find a sound quote. Because the side stays, a market that rises is no merit of a run that was long.
Because they move together, ten entries into one move stay ten entries into one move: moved one by one they
would pass for ten successes, and chance for skill (tests/walkforward/test_random_entries.py shows it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
import numpy.typing as npt

from gpuscalp.archive import Archive
from gpuscalp.config import GridConfig
from gpuscalp.frames import Framer, Grid
from gpuscalp.schema import E8, F64, I64, NS_PER_MS, NS_PER_S, Quality
from gpuscalp.stats import Interval
from gpuscalp.walkforward.recorded import Trades

_HOUR_NS: Final = 3_600 * NS_PER_S
_DOUBT: Final = int(Quality.GAP | Quality.RESYNC | Quality.CROSSED | Quality.STALE)

Flags = npt.NDArray[np.bool_]


@final
@dataclass(frozen=True, slots=True)
class Quotes:
    """Quotes on the frame grid.

    Attributes
    ----------
    end_ns : int64[T]          ascending
    mid : float64[S, T]        quote currency; NaN where there is none
    half : float64[S, T]       half the spread over the mid
    frame_ns : length of a frame
    """

    end_ns: I64
    mid: F64
    half: F64
    frame_ns: int

    def sound(self, symbol: int) -> Flags:
        """bool[T]: the symbol could have been traded."""
        return np.asarray(np.isfinite(self.mid[symbol]))


@dataclass(frozen=True, slots=True)
class RandomEntries:
    """The run among D draws. USDT.

    Attributes
    ----------
    run : P&L of the run's trades, priced like the draws
    totals : float64[D]       P&L of each draw
    gross, costs : means over the draws of what the mid did, and of spreads and fees
    interval : 95 % of the draws
    p_value : share of draws that earn as much as the run or more, counting the run as one (Davison and
        Hinkley 1997, section 4.2)
    compared, left_out : trades; left out is what finds no sound quotes
    """

    run: float
    totals: F64
    gross: float
    costs: float
    interval: Interval
    p_value: float
    compared: int
    left_out: int


def read_quotes(
    archive: Archive,
    venue: str,
    symbols: tuple[str, ...],
    *,
    grid: GridConfig,
    start_ns: int,
    end_ns: int,
) -> Quotes:
    """Walk over the ticks once and keep the quotes of all frames: 16 bytes per frame and symbol."""
    instruments = archive.instruments(venue, symbols)
    frames, framer = Grid(grid, len(symbols)), Framer(grid, instruments, warm_up_frames=1)
    tick = np.array([instrument.tick_size_e8 / E8 for instrument in instruments])
    ends, mids, halves = [np.empty(0, np.int64)], [np.empty((0, len(symbols)))], [np.empty((0, len(symbols)))]
    for ticks in archive.tick_batches(venue, symbols, start_ns=start_ns, end_ns=end_ns):
        for closed in frames.push(ticks):
            if closed.restart:
                framer.restart()
            block = framer.fold(closed)
            bid, ask = block.bid_px.astype(np.float64), block.ask_px.astype(np.float64)
            sound = (bid > 0) & (ask > bid) & ((block.quality & _DOUBT) == 0)
            with np.errstate(invalid="ignore", divide="ignore"):
                halves.append(np.where(sound, (ask - bid) / (ask + bid), np.nan))
            mids.append(np.where(sound, (ask + bid) / 2 * tick, np.nan))
            ends.append(block.end_ns.copy())
    return Quotes(
        np.concatenate(ends),
        np.ascontiguousarray(np.concatenate(mids).T),
        np.ascontiguousarray(np.concatenate(halves).T),
        grid.frame_ms * NS_PER_MS,
    )


def random_entries(
    trades: Trades, quotes: Quotes, *, fee_bps: float, draws: int, rng: np.random.Generator
) -> RandomEntries | None:
    """Compare a run with random entries of the same exposure; None where no trade can be compared."""
    gross, costs = np.zeros(draws), np.zeros(draws)
    run, compared = 0.0, 0
    places: dict[tuple[int, int, int], I64] = {}
    moves: dict[int, F64] = {}  # hour → share of the hour by which each draw moves it
    for index in range(len(trades)):
        symbol, side = int(trades.symbol[index]), int(trades.side[index])
        entry_ns, exit_ns = int(trades.entry_ns[index]), int(trades.exit_ns[index])
        held = max(1, round((exit_ns - entry_ns) / quotes.frame_ns))
        hour = entry_ns // _HOUR_NS
        key = symbol, hour, held
        if key not in places:
            places[key] = _places(quotes, symbol, hour, held)
        allowed = places[key]
        own = int(np.searchsorted(quotes.end_ns, entry_ns))
        found = int(np.searchsorted(allowed, own))
        if found == len(allowed) or allowed[found] != own:
            continue
        value = float(trades.entry_usdt[index])
        moved, paid = _priced(quotes, symbol, np.array([own]), held, value, fee_bps)
        run += side * float(moved[0]) - float(paid[0])
        compared += 1
        if hour not in moves:
            moves[hour] = rng.random(draws)
        drawn = allowed[(found + (moves[hour] * len(allowed)).astype(np.int64)) % len(allowed)]
        moved, paid = _priced(quotes, symbol, drawn, held, value, fee_bps)
        gross += side * moved
        costs += paid
    if not compared:
        return None
    totals = gross - costs
    low, high = np.quantile(totals, [0.025, 0.975])
    return RandomEntries(
        run=run,
        totals=totals,
        gross=float(gross.mean()),
        costs=float(costs.mean()),
        interval=Interval(float(low), float(high)),
        p_value=(1 + int((totals >= run).sum())) / (1 + draws),
        compared=compared,
        left_out=len(trades) - compared,
    )


def _places(quotes: Quotes, symbol: int, hour: int, held: int) -> I64:
    """Return the frames of an hour at which an entry and, ``held`` frames later, its exit find a quote."""
    first, last = np.searchsorted(quotes.end_ns, (hour * _HOUR_NS, (hour + 1) * _HOUR_NS))
    at = np.arange(first, min(last, len(quotes.end_ns) - held))
    sound = quotes.sound(symbol)
    joined = quotes.end_ns[at + held] - quotes.end_ns[at] == held * quotes.frame_ns
    return np.asarray(at[sound[at] & sound[at + held] & joined], np.int64)


def _priced(quotes: Quotes, symbol: int, at: I64, held: int, value: float, fee_bps: float) -> tuple[F64, F64]:
    """Return float64 twice, USDT: what the mid did with a long position, and spreads and fees both ways."""
    mid, half = quotes.mid[symbol], quotes.half[symbol]
    left = value * mid[at + held] / mid[at]
    fee = fee_bps / 1e4
    return left - value, value * (half[at] + fee) + left * (half[at + held] + fee)
