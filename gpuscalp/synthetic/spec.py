"""Parameters of the synthetic market, with the limits inside which it stays a market.

Owns: the meaning, unit and range of every parameter. Never: draws anything.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from gpuscalp.config import Fraction, NonNegative, Positive, PositiveInt, Seed
from gpuscalp.errors import ConfigError

VENUE: Final = "synthetic"

# More than of a configuration: prices and times in the smallest unit.
_Large = Annotated[int, Meta(gt=0, le=2**62)]

# 2024-01-01 07:55 UTC: a market of ten minutes lies around a funding time.
DEFAULT_START_NS: Final = 1_704_095_700 * 1_000_000_000


class FlowSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How orders arrive and what they do; the same for all symbols.

    The order flow of one symbol is a pair of Hawkes processes, buys and sells. Kernel j is
    ``decay_hz[j] · exp(-decay_hz[j]·t)`` times ``same_side[j]`` on the side of the order and
    ``cross_side[j]`` on the other. The sum of all of them is the branching ratio: the mean number of orders
    that an order causes directly. It has to stay below 1, or the flow explodes (Hawkes 1971).

    Attributes
    ----------
    decay_hz, same_side, cross_side : one entry per kernel
    move_probability : probability that a wholly surprising order moves the price; an order that had the
        probability p moves it with this times 1 - p
    jump_exponent : P(k levels swept) falls as k to the minus this
    jump_levels_max : most levels that one order sweeps
    spread_cap_ticks : largest spread that orders leave behind
    close_hz : rate at which a spread loses a tick, for each tick above one
    open_hz : rate at which a spread gains a tick by cancellation
    queue_hz, queue_per_order : queue changes per second, and per order
    size_sigma : standard deviation of the logarithm of sizes
    """

    decay_hz: tuple[Positive, ...] = (20.0, 0.7, 0.05)
    same_side: tuple[NonNegative, ...] = (0.26, 0.14, 0.18)
    cross_side: tuple[NonNegative, ...] = (0.08, 0.04, 0.18)
    move_probability: Fraction = 0.9
    jump_exponent: Positive = 2.8
    jump_levels_max: Annotated[int, Meta(ge=1, le=20)] = 16
    spread_cap_ticks: Annotated[int, Meta(ge=2, le=20)] = 4
    close_hz: Positive = 12.0
    open_hz: NonNegative = 0.3
    queue_hz: NonNegative = 4.0
    queue_per_order: NonNegative = 1.0
    size_sigma: Positive = 1.2

    @property
    def branching_ratio(self) -> float:
        return sum(self.same_side) + sum(self.cross_side)


class SymbolSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One symbol. Sizes in 1e-8, as everywhere; lots are multiples of the step.

    ``orders_hz`` is the mean rate of orders of both sides together, without the copied moves.
    """

    symbol: str
    price_e8: _Large
    tick_size_e8: _Large
    step_size_e8: _Large
    order_lots_median: PositiveInt
    queue_lots_median: PositiveInt
    orders_hz: Positive


# Ticks of about a third of a basis point, so that the spread costs what it costs on liquid contracts.
DEFAULT_SYMBOLS: Final = (
    SymbolSpec("BTCUSDT", 64_000_00000000, 2_00000000, 100_000, 40, 1_500, 14.0),
    SymbolSpec("ETHUSDT", 3_400_00000000, 10_000_000, 100_000, 300, 12_000, 7.0),
    SymbolSpec("SOLUSDT", 160_00000000, 500_000, 1_000_000, 500, 20_000, 5.0),
    SymbolSpec("XRPUSDT", 55_000_000, 2_000, 10_000_000, 1_500, 60_000, 4.0),
)


class MarketSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole market. Equal specs give equal markets, whatever the platform.

    Attributes
    ----------
    seed : of everything random; every symbol draws from streams of its own
    start_ns, duration_s : exchange time covered, end exclusive
    symbols : the first one leads, the others follow
    lag_ms : age at which a move of the leader is copied
    lag_strength : correlation between the sign of the leader's move and that of the copy. 1 copies
        faithfully; 0 leaves copies of the same sizes at the same times whose direction is a coin's, so that
        nothing but the direction is lost
    copy_ratio : size of the copy relative to the move, both in basis points
    book_interval_ms, mark_interval_ms : distance of the book and mark rows
    latency_ms, jitter_ms : receive time is exchange time plus ``latency_ms`` plus an exponential of mean
        ``jitter_ms``, in order within a symbol
    slice_s : length of the pieces in which the market is made; decides memory, not content
    """

    seed: Seed = 7
    start_ns: _Large = DEFAULT_START_NS
    duration_s: PositiveInt = 600
    symbols: tuple[SymbolSpec, ...] = DEFAULT_SYMBOLS
    flow: FlowSpec = FlowSpec()
    lag_ms: PositiveInt = 300
    lag_strength: Fraction = 0.9
    copy_ratio: NonNegative = 1.0
    book_interval_ms: PositiveInt = 100
    mark_interval_ms: PositiveInt = 1_000
    latency_ms: NonNegative = 3.0
    jitter_ms: NonNegative = 1.0
    slice_s: PositiveInt = 60

    def __post_init__(self) -> None:
        """Refuse what the ranges of single fields cannot.

        Raises
        ------
        ConfigError
            no symbols, a symbol twice, a price that is no multiple of its tick or too near to zero, kernels
            of unequal number, or a branching ratio of 1 or more
        """
        names = [item.symbol for item in self.symbols]
        if not names or len(set(names)) != len(names):
            raise ConfigError("a market needs symbols, each once", where="symbols", value=names)
        for item in self.symbols:
            if item.price_e8 % item.tick_size_e8:
                raise ConfigError(
                    "the price is not a multiple of the tick",
                    where=f"{item.symbol}.price_e8",
                    value=item.price_e8,
                    fix=f"use a multiple of {item.tick_size_e8}",
                )
            if item.price_e8 < 1_000 * item.tick_size_e8:
                raise ConfigError(
                    "the tick is so coarse that the price could reach zero",
                    where=f"{item.symbol}.tick_size_e8",
                    value=item.tick_size_e8,
                    fix=f"use {item.price_e8 // 1_000} or less",
                )
        flow = self.flow
        if not len(flow.decay_hz) == len(flow.same_side) == len(flow.cross_side) > 0:
            raise ConfigError("every kernel needs decay, same and cross side", where="flow.decay_hz")
        if flow.branching_ratio >= 1:
            raise ConfigError(
                "the order flow would explode: its branching ratio has to be below 1",
                where="flow.same_side and flow.cross_side",
                value=flow.branching_ratio,
            )


def checked(spec: MarketSpec) -> MarketSpec:
    """Return an equal spec whose fields are inside their ranges, however it was made.

    Raises
    ------
    ConfigError
        a field is of the wrong type or out of range (msgspec checks on decoding only)
    """
    try:
        return msgspec.convert(msgspec.to_builtins(spec), MarketSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error), where="synthetic market") from None
