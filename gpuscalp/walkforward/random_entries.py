"""What entries at random times would have earned with the same exposure: the run has to beat them.

Owns: the draws and their price. Never: sends an order: a fill is the mid of the frame plus half its spread
plus the fee, at the decision itself. That is cheaper than the paper broker (no delay, no depth, no refusal),
for the random entries and for the run's own, which are priced the same way before they are compared.

Every draw repeats the run trade by trade: symbol, side, value, holding time and clock hour stay. All entries
of an hour are moved by the same random time, round the end of the hour, over the frames at which the entry
finds a fresh quote and the exit one that is not in doubt. Because the side stays, a market that rises is no
merit of a run that was long. Because they move together, ten entries into one move stay ten entries into one
move: moved one by one they would pass for ten successes, and chance for skill
(tests/walkforward/test_random_entries.py shows it).

Quotes come as a stream, and of a walk of any length only the hours that open trades reach over are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import numpy.typing as npt

from gpuscalp.archive import Archive
from gpuscalp.config import GridConfig
from gpuscalp.frames import frame_blocks
from gpuscalp.schema import E8, F64, I64, NS_PER_S, Quality
from gpuscalp.stats import Interval
from gpuscalp.walkforward.recorded import Trades

Flags = npt.NDArray[np.bool_]

_HOUR_NS: Final = 3_600 * NS_PER_S
# They say that the mid is wrong. STALE does not: a quote that stands is what a market without moves looks
# like. It keeps an entry out, but to drop what leaves on one would be to drop that for which nothing moved.
_DOUBT: Final = int(Quality.GAP | Quality.RESYNC | Quality.CROSSED)
_EVER: Final = np.iinfo(np.int64).max


@final
@dataclass(frozen=True, slots=True)
class Quotes:
    """Quotes of some frames of the grid.

    Attributes
    ----------
    end_ns : int64[T]          ascending
    mid : float64[S, T]        quote currency; NaN where there is none
    half : float64[S, T]       half the spread over the mid
    fresh : bool[S, T]         an entry may be made: there is a quote, and it is not STALE
    """

    end_ns: I64
    mid: F64
    half: F64
    fresh: Flags


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
    compared, left_out : trades; left out is what has no fresh quote to enter on, or none to leave on
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
) -> Iterator[Quotes]:
    """Walk over the ticks once and yield the quotes of all frames, block by block."""
    instruments = archive.instruments(venue, symbols)
    tick = np.array([instrument.tick_size_e8 / E8 for instrument in instruments])
    ticks = archive.tick_batches(venue, symbols, start_ns=start_ns, end_ns=end_ns)
    for block in frame_blocks(ticks, grid, instruments):
        bid, ask = block.bid_px.astype(np.float64), block.ask_px.astype(np.float64)
        sound = (bid > 0) & (ask > bid) & ((block.quality & _DOUBT) == 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            half = np.where(sound, (ask - bid) / (ask + bid), np.nan)
        mid = np.where(sound, (ask + bid) / 2 * tick, np.nan)
        fresh = sound & ((block.quality & int(Quality.STALE)) == 0)
        columns = (np.ascontiguousarray(column.T) for column in (mid, half, fresh))
        yield Quotes(block.end_ns.copy(), *columns)


def random_entries(
    trades: Trades,
    blocks: Iterable[Quotes],
    *,
    frame_ns: int,
    fee_bps: float,
    draws: int,
    rng: np.random.Generator,
) -> RandomEntries | None:
    """Compare a run with random entries of the same exposure; None where no trade can be compared.

    Parameters
    ----------
    trades : in the order of their exits
    blocks : quotes of consecutive frames; how they are cut does not change the result
    frame_ns : length of a frame
    fee_bps : per side
    draws, rng : how many, and from what
    """
    # The run comes first: summed as the draws are, it is equal to those of them that repeat it.
    gross, costs = np.zeros(1 + draws), np.zeros(1 + draws)
    compared = 0
    hours = trades.entry_ns // _HOUR_NS
    # From each trade on, the first hour that is still asked for: a trade that is held long ends after others
    # that began later.
    oldest = np.minimum.accumulate(hours[::-1])[::-1].tolist()
    window = _Window(blocks, frame_ns)
    moves: dict[int, F64] = {}  # hour → share of the hour by which each draw moves it
    for index, hour in enumerate(hours.tolist()):
        symbol, side = int(trades.symbol[index]), int(trades.side[index])
        entry_ns, exit_ns = int(trades.entry_ns[index]), int(trades.exit_ns[index])
        held = max(1, round((exit_ns - entry_ns) / frame_ns))
        quotes = window.over(oldest[index], hour, held)
        if quotes is None:
            continue
        if index and oldest[index] > oldest[index - 1]:
            moves = {kept: shares for kept, shares in moves.items() if kept >= oldest[index]}
        allowed = _places(quotes, symbol, hour, held, frame_ns)
        own = int(np.searchsorted(quotes.end_ns, entry_ns))
        found = int(np.searchsorted(allowed, own))
        if found == len(allowed) or allowed[found] != own:
            continue
        compared += 1
        if hour not in moves:
            moves[hour] = rng.random(draws)
        # To any other place: a draw that is the run says nothing of it, and a short market has few places.
        steps = 1 + (moves[hour] * (len(allowed) - 1)).astype(np.int64)
        drawn = allowed[(found + np.append(0, steps)) % len(allowed)]
        moved, paid = _priced(quotes, symbol, drawn, held, float(trades.entry_usdt[index]), fee_bps)
        gross += side * moved
        costs += paid
    if not compared:
        return None
    run, totals = float(gross[0] - costs[0]), gross[1:] - costs[1:]
    low, high = np.quantile(totals, [0.025, 0.975])
    return RandomEntries(
        run=run,
        totals=totals,
        gross=float(gross[1:].mean()),
        costs=float(costs[1:].mean()),
        interval=Interval(float(low), float(high)),
        p_value=(1 + int((totals >= run).sum())) / (1 + draws),
        compared=compared,
        left_out=len(trades) - compared,
    )


@final
class _Window:
    """The part of a stream of quotes that is being looked at."""

    def __init__(self, blocks: Iterable[Quotes], frame_ns: int) -> None:
        self._blocks = iter(blocks)
        self._frame_ns = frame_ns
        self._reached_ns = 0
        self._quotes: Quotes | None = None

    def over(self, oldest: int, hour: int, held: int) -> Quotes | None:
        """Return the quotes from the oldest hour on, at least until ``held`` frames after the end of an hour.

        Earlier ones are forgotten: the oldest hour may not go back from call to call. None: there are none.
        """
        from_ns = oldest * _HOUR_NS
        # In whole hours, so that the window is put together once an hour and not at every trade.
        until_ns = (hour + 1 - (-held * self._frame_ns // _HOUR_NS)) * _HOUR_NS
        if self._reached_ns < until_ns:
            parts = [] if self._quotes is None else [self._quotes]
            for block in self._blocks:
                self._reached_ns = int(block.end_ns[-1])
                if self._reached_ns >= from_ns:
                    parts.append(block)
                if self._reached_ns >= until_ns:
                    break
            else:
                self._reached_ns = _EVER
            self._quotes = _joined(parts, from_ns) if parts else None
        return self._quotes


def _joined(parts: Sequence[Quotes], from_ns: int) -> Quotes:
    firsts = [int(np.searchsorted(part.end_ns, from_ns)) for part in parts]
    kept = list(zip(parts, firsts, strict=True))
    return Quotes(
        np.concatenate([part.end_ns[first:] for part, first in kept]),
        np.concatenate([part.mid[:, first:] for part, first in kept], axis=1),
        np.concatenate([part.half[:, first:] for part, first in kept], axis=1),
        np.concatenate([part.fresh[:, first:] for part, first in kept], axis=1),
    )


def _places(quotes: Quotes, symbol: int, hour: int, held: int, frame_ns: int) -> I64:
    """Return the frames of an hour with a fresh quote and, ``held`` frames later, one to leave on."""
    end_ns, mid = quotes.end_ns, quotes.mid[symbol]
    first, last = np.searchsorted(end_ns, (hour * _HOUR_NS, (hour + 1) * _HOUR_NS)).tolist()
    entry = slice(first, max(first, min(last, len(end_ns) - held)))
    leave = slice(entry.start + held, entry.stop + held)
    joined = end_ns[leave] - end_ns[entry] == held * frame_ns
    sound = quotes.fresh[symbol, entry] & np.isfinite(mid[leave])
    return np.asarray(first + np.flatnonzero(joined & sound), np.int64)


def _priced(quotes: Quotes, symbol: int, at: I64, held: int, value: float, fee_bps: float) -> tuple[F64, F64]:
    """Return float64 twice, USDT: what the mid did with a long position, and spreads and fees both ways."""
    mid, half = quotes.mid[symbol], quotes.half[symbol]
    left = value * mid[at + held] / mid[at]
    fee = fee_bps / 1e4
    return left - value, value * (half[at] + fee) + left * (half[at + held] + fee)
