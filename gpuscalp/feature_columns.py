"""The default columns. Reading order is column order.

Owns: which columns a graph has before its configuration. Never: says what a name means
(gpuscalp.feature_names), computes anything (ops/ladder, ops/context) or knows a device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gpuscalp.feature_names import (
    BOUNCE,
    IMPACT,
    OF_MARKET,
    PATH,
    STEM,
    SUMS,
    Group,
    spectrum_names,
    with_columns,
)
from gpuscalp.schema import Channel

SHORT_TO_LONG: Final = (8, 32, 128, 512)  # windows, in frames

# Frames after a symbol's first quote before a channel has a value.
CHANNEL_DELAY: Final = {Channel.RETURN_BPS: 1, Channel.LAGGED_RETURN_BPS: 2}


@dataclass(frozen=True, slots=True)
class Context:
    """A column made from another column of the leader, of all symbols, or from the clock."""

    kind: str  # "leader" | "mean" | "relative"
    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Cycle:
    """Position in a cycle: sine or cosine of time, or its fraction."""

    name: str
    period_s: int
    step_s: int
    wave: str  # "sin" | "cos" | "left"


_STD: Final = (
    Channel.SPREAD_BPS,
    Channel.RETURN_BPS,
    Channel.OFI_KUSDT,
    Channel.QUEUE_IMBALANCE,
    Channel.FLOW_KUSDT,
    Channel.TRADE_COUNT,
)
_ZSCORE: Final = (
    Channel.MICROPRICE_BPS,
    Channel.TRADE_COUNT,
    Channel.OFI_KUSDT,
    Channel.QUEUE_IMBALANCE,
    Channel.DEPTH5_IMBALANCE,
    Channel.FLOW_KUSDT,
)
_MEAN: Final = (
    Channel.MICROPRICE_BPS,
    Channel.SPREAD_BPS,
    Channel.RETURN_BPS,
    Channel.TRADE_COUNT,
    Channel.OFI_KUSDT,
    Channel.QUEUE_IMBALANCE,
    Channel.DEPTH5_IMBALANCE,
    Channel.DEPTH20_IMBALANCE,
    Channel.QUOTE_COUNT,
    Channel.BASIS_BPS,
    Channel.FLOW_KUSDT,
)


def _default_names() -> Iterator[str]:
    for channel in _MEAN:
        stem = STEM[channel]
        yield f"{stem}.last"
        for window in SHORT_TO_LONG:
            yield f"{stem}.mean.{window}"
            if channel in _STD and window >= 32:
                yield f"{stem}.std.{window}"
            if channel in _ZSCORE and window == 128:
                yield f"{stem}.zscore.{window}"
    yield from (f"{stem}.last" for channel, stem in STEM.items() if channel not in _MEAN)
    yield from ("price.move.2", "price.move.4")
    for window in SHORT_TO_LONG:
        yield from (f"{stem}.{window}" for stem, (group, *_) in OF_MARKET.items() if group is PATH)
    for window in SHORT_TO_LONG:
        yield from (f"{stem}.{window}" for stem, (group, *_) in OF_MARKET.items() if group is SUMS)
    for pair in (IMPACT, BOUNCE):
        for window in SHORT_TO_LONG[1:]:
            yield from (f"{stem}.{window}" for stem, (group, *_) in OF_MARKET.items() if group is pair)
    for stem in ("return_bps", "ofi_kusdt"):
        yield from (f"{stem}.ewm.{span}" for span in (8, 32, 128))
        yield from (f"{stem}.macd.{spans}" for spans in ("8_32", "32_128"))
    for word, window in (("return", 64), ("return", 256), ("flow", 64)):
        yield from spectrum_names(word, window)


GROUPS: Final[tuple[Group, ...]] = with_columns((), _default_names())

CONTEXT: Final[tuple[Context, ...]] = (
    *(
        Context("leader", f"leader.{name}", name)
        for name in (
            "return_bps.last",
            "price.move.2",
            "price.move.4",
            "price.move.8",
            "price.move.32",
            "flow.imbalance.8",
            "flow.imbalance.32",
            "ofi_kusdt.mean.8",
            "queue_imbalance.last",
            "microprice_bps.last",
        )
    ),
    *(Context("mean", f"market.{name}", name) for name in ("price.move.8", "price.move.32")),
    *(
        Context("relative", f"relative.{name}", name)
        for name in ("price.move.8", "price.move.32", "price.move.128")
    ),
)

CYCLES: Final[tuple[Cycle, ...]] = (
    Cycle("time.hour_sin", 3_600, 1, "sin"),
    Cycle("time.hour_cos", 3_600, 1, "cos"),
    Cycle("time.day_sin", 86_400, 60, "sin"),
    Cycle("time.day_cos", 86_400, 60, "cos"),
    Cycle("time.week_sin", 604_800, 3_600, "sin"),
    Cycle("time.week_cos", 604_800, 3_600, "cos"),
    Cycle("time.to_funding", 28_800, 1, "left"),  # fraction of the 8-hour interval that is left
)
