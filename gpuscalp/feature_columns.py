"""Every column, declared once, with its unit, window and source. Reading order is column order.

Owns: the default feature set. Never: computes anything (ops/ladder, ops/context) or knows a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gpuscalp.ops.ladder_codes import Op, Stat
from gpuscalp.schema import Channel

# Windows are powers of two, in frames.
SHORT_TO_LONG: Final = (8, 32, 128, 512)

# Frames after a symbol's first quote before a channel has a value.
CHANNEL_DELAY: Final = {Channel.RETURN_BPS: 1, Channel.LAGGED_RETURN_BPS: 2}


@dataclass(frozen=True, slots=True)
class Output:
    """One column of a group: statistic, window, the elements it reads."""

    name: str
    unit: str
    stat: Stat
    window: int = 1
    a: int = 0
    b: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """One family over its inputs. ``spans`` belong to DECAY; a spectrum has one window, its top."""

    op: Op
    source: str
    outputs: tuple[Output, ...]
    x: Channel
    y: Channel | None = None
    spans: tuple[int, ...] = ()


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


_UNITS: Final = {
    Channel.MICROPRICE_BPS: "bps",
    Channel.SPREAD_BPS: "bps",
    Channel.RETURN_BPS: "bps",
    Channel.TRADE_COUNT: "count",
    Channel.BUY_KUSDT: "kusdt",
    Channel.SELL_KUSDT: "kusdt",
    Channel.VWAP_FLOW: "bps*kusdt",
    Channel.OFI_KUSDT: "kusdt",
    Channel.QUEUE_IMBALANCE: "ratio",
    Channel.DEPTH5_IMBALANCE: "ratio",
    Channel.DEPTH20_IMBALANCE: "ratio",
    Channel.VARIANCE_BPS2: "bps^2",
    Channel.RANGE_BPS: "bps",
    Channel.QUOTE_COUNT: "count",
    Channel.LARGEST_KUSDT: "kusdt",
    Channel.BASIS_BPS: "bps",
    Channel.AGE_MS: "ms",
    Channel.LAGGED_RETURN_BPS: "bps",
    Channel.FLOW_KUSDT: "kusdt",
}

_STEM: Final = {channel: channel.name.lower() for channel in Channel}

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
)  # not BASIS_BPS, SPREAD_BPS: an offset far larger than the variation, which float32 would not resolve
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


def _moments(channel: Channel) -> Group:
    stem, unit = _STEM[channel], _UNITS[channel]
    outputs = [Output(f"{stem}.last", unit, Stat.LAST)]
    for window in SHORT_TO_LONG:
        outputs.append(Output(f"{stem}.mean.{window}", unit, Stat.MEAN, window))
        if channel in _STD and window >= 32:
            outputs.append(Output(f"{stem}.std.{window}", unit, Stat.STD, window))
        if channel in _ZSCORE and window == 128:
            outputs.append(Output(f"{stem}.zscore.{window}", "sigma", Stat.ZSCORE, window))
    return Group(Op.MOMENTS, f"moments({channel.name})", tuple(outputs), channel)


def _last(channel: Channel) -> Group:
    outputs = (Output(f"{_STEM[channel]}.last", _UNITS[channel], Stat.LAST),)
    return Group(Op.MOMENTS, f"last({channel.name})", outputs, channel)


def _path() -> Group:
    outputs = [Output(f"price.move.{window}", "bps", Stat.MOVE, window) for window in (2, 4)]
    for window in SHORT_TO_LONG:
        outputs += [
            Output(f"price.move.{window}", "bps", Stat.MOVE, window),
            Output(f"price.zscore.{window}", "sigma", Stat.PATH_ZSCORE, window),
            Output(f"price.range_position.{window}", "ratio", Stat.RANGE_POSITION, window),
            Output(f"price.range_width.{window}", "bps", Stat.RANGE_WIDTH, window),
            Output(f"price.slope.{window}", "bps/frame", Stat.SLOPE, window),
            Output(f"price.residual_std.{window}", "bps", Stat.RESIDUAL_STD, window),
        ]
    return Group(Op.PATH, "path(RETURN_BPS)", tuple(outputs), Channel.RETURN_BPS)


def _sums() -> Group:
    outputs = []
    for window in SHORT_TO_LONG:
        outputs += [
            Output(f"flow.imbalance.{window}", "ratio", Stat.FLOW_IMBALANCE, window),
            Output(f"price.rsi.{window}", "percent", Stat.RSI, window),
            Output(f"flow.illiquidity.{window}", "bps/kusdt", Stat.ILLIQUIDITY, window),
            Output(f"flow.toxicity.{window}", "ratio", Stat.TOXICITY, window),
            Output(f"flow.vwap_deviation.{window}", "bps", Stat.VWAP_DEVIATION, window),
            Output(f"price.volatility.{window}", "bps", Stat.VOLATILITY, window),
        ]
    source = "sums(RETURN_BPS, BUY_KUSDT, SELL_KUSDT, VWAP_FLOW, VARIANCE_BPS2)"
    return Group(Op.SUMS, source, tuple(outputs), Channel.RETURN_BPS)


def _impact() -> Group:
    outputs = []
    for window in (32, 128, 512):
        outputs += [
            Output(f"flow.impact.{window}", "bps/kusdt", Stat.BETA, window),
            Output(f"flow.return_correlation.{window}", "ratio", Stat.CORRELATION, window),
        ]
    source = "cross(RETURN_BPS, FLOW_KUSDT)"
    return Group(Op.CROSS, source, tuple(outputs), Channel.RETURN_BPS, y=Channel.FLOW_KUSDT)


def _bounce() -> Group:
    outputs = []
    for window in (32, 128, 512):
        outputs += [
            Output(f"price.autocorrelation.{window}", "ratio", Stat.CORRELATION, window),
            Output(f"price.roll_measure.{window}", "bps^2", Stat.ROLL_MEASURE, window),
        ]
    source = "cross(RETURN_BPS, LAGGED_RETURN_BPS)"
    return Group(Op.CROSS, source, tuple(outputs), Channel.RETURN_BPS, y=Channel.LAGGED_RETURN_BPS)


def _decay(channel: Channel) -> Group:
    stem, unit, top = _STEM[channel], _UNITS[channel], SHORT_TO_LONG[-1]
    spans = (8, 32, 128)
    outputs = [
        Output(f"{stem}.ewm.{span}", unit, Stat.DECAYED_MEAN, top, a=index)
        for index, span in enumerate(spans)
    ]
    outputs += [
        Output(f"{stem}.macd.{spans[a]}_{spans[a + 1]}", unit, Stat.DECAYED_DIFFERENCE, top, a=a, b=a + 1)
        for a in range(len(spans) - 1)
    ]
    source = f"decay({channel.name}, spans {', '.join(map(str, spans))})"
    return Group(Op.DECAY, source, tuple(outputs), channel, spans=spans)


def spectrum_group(channel: Channel, window: int) -> Group:
    """Return the columns of one spectrum: Hann-windowed powers of bins 1 to 8 of `window` frames."""
    stem = f"{_STEM[channel].split('_')[0]}.spectrum"
    frequency = "cycles/frame"
    outputs = [Output(f"{stem}.amplitude.{window}", _UNITS[channel], Stat.AMPLITUDE, window)]
    for band, (low, past) in enumerate(((1, 3), (3, 5), (5, 7), (7, 9)), start=1):
        outputs.append(Output(f"{stem}.band{band}.{window}", "ratio", Stat.BAND_SHARE, window, low, past))
    outputs += [
        Output(f"{stem}.centroid.{window}", frequency, Stat.CENTROID, window),
        Output(f"{stem}.participation.{window}", "count", Stat.PARTICIPATION, window),
        Output(f"{stem}.dominant.{window}", frequency, Stat.DOMINANT_FREQUENCY, window),
        Output(f"{stem}.dominant_share.{window}", "ratio", Stat.DOMINANT_SHARE, window),
        Output(f"{stem}.phase_cos.{window}", "ratio", Stat.PHASE_COS, window),
        Output(f"{stem}.phase_sin.{window}", "ratio", Stat.PHASE_SIN, window),
    ]
    return Group(Op.SPECTRUM, f"spectrum({channel.name}, {window})", tuple(outputs), channel)


GROUPS: Final[tuple[Group, ...]] = (
    *(_moments(channel) for channel in _MEAN),
    *(_last(channel) for channel in Channel if channel not in _MEAN),
    _path(),
    _sums(),
    _impact(),
    _bounce(),
    _decay(Channel.RETURN_BPS),
    _decay(Channel.OFI_KUSDT),
    spectrum_group(Channel.RETURN_BPS, 64),
    spectrum_group(Channel.RETURN_BPS, 256),
    spectrum_group(Channel.FLOW_KUSDT, 64),
)

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
