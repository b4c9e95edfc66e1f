"""What the name of a rolling column means: family, channels, window, unit.

Owns: the scheme of the names, and the groups that columns of one family form. Never: says which columns there
are (gpuscalp.feature_columns), computes anything (ops/ladder) or knows a device.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gpuscalp.errors import ConfigError
from gpuscalp.ops.ladder_codes import LEVELS, MAX_SPANS, Op, Stat
from gpuscalp.schema import Channel

# Windows are powers of two, in frames.
_LONGEST: Final = 1 << (LEVELS - 1)
_DECAY_WINDOW: Final = 512
# Its ninth bin lies below half of the sampling rate; the shared memory of an H100's block holds its elements.
_SHORTEST_SPECTRUM, _LONGEST_SPECTRUM = 32, 2048


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

STEM: Final = {channel: channel.name.lower() for channel in Channel}
_CHANNEL: Final = {stem: channel for channel, stem in STEM.items()}
_SPECTRUM_CHANNEL: Final = {stem.split("_")[0]: channel for channel, stem in STEM.items()}
# An offset far larger than the variation, which float32 would not resolve.
_NO_ZSCORE: Final = frozenset({Channel.BASIS_BPS, Channel.SPREAD_BPS})

# Of one channel. None: its unit.
_OF_CHANNEL: Final[dict[str, tuple[Op, Stat, str | None]]] = {
    "mean": (Op.MOMENTS, Stat.MEAN, None),
    "std": (Op.MOMENTS, Stat.STD, None),
    "zscore": (Op.MOMENTS, Stat.ZSCORE, "sigma"),
    "min": (Op.EXTREMES, Stat.MIN, None),
    "max": (Op.EXTREMES, Stat.MAX, None),
}

PATH: Final = Group(Op.PATH, "path(RETURN_BPS)", (), Channel.RETURN_BPS)
SUMS: Final = Group(
    Op.SUMS, "sums(RETURN_BPS, BUY_KUSDT, SELL_KUSDT, VWAP_FLOW, VARIANCE_BPS2)", (), Channel.RETURN_BPS
)
IMPACT: Final = Group(Op.CROSS, "cross(RETURN_BPS, FLOW_KUSDT)", (), Channel.RETURN_BPS, y=Channel.FLOW_KUSDT)
BOUNCE: Final = Group(
    Op.CROSS, "cross(RETURN_BPS, LAGGED_RETURN_BPS)", (), Channel.RETURN_BPS, y=Channel.LAGGED_RETURN_BPS
)
# Of several channels, and of the price.
OF_MARKET: Final[dict[str, tuple[Group, Stat, str]]] = {
    "price.move": (PATH, Stat.MOVE, "bps"),
    "price.zscore": (PATH, Stat.PATH_ZSCORE, "sigma"),
    "price.range_position": (PATH, Stat.RANGE_POSITION, "ratio"),
    "price.range_width": (PATH, Stat.RANGE_WIDTH, "bps"),
    "price.slope": (PATH, Stat.SLOPE, "bps/frame"),
    "price.residual_std": (PATH, Stat.RESIDUAL_STD, "bps"),
    "flow.imbalance": (SUMS, Stat.FLOW_IMBALANCE, "ratio"),
    "price.rsi": (SUMS, Stat.RSI, "percent"),
    "flow.illiquidity": (SUMS, Stat.ILLIQUIDITY, "bps/kusdt"),
    "flow.toxicity": (SUMS, Stat.TOXICITY, "ratio"),
    "flow.vwap_deviation": (SUMS, Stat.VWAP_DEVIATION, "bps"),
    "price.volatility": (SUMS, Stat.VOLATILITY, "bps"),
    "flow.impact": (IMPACT, Stat.BETA, "bps/kusdt"),
    "flow.return_correlation": (IMPACT, Stat.CORRELATION, "ratio"),
    "price.autocorrelation": (BOUNCE, Stat.CORRELATION, "ratio"),
    "price.roll_measure": (BOUNCE, Stat.ROLL_MEASURE, "bps^2"),
}

# Of a spectrum: statistic, unit (None: its channel's), the bins it reads.
_OF_SPECTRUM: Final[dict[str, tuple[Stat, str | None, int, int]]] = {
    "amplitude": (Stat.AMPLITUDE, None, 0, 0),
    "band1": (Stat.BAND_SHARE, "ratio", 1, 3),
    "band2": (Stat.BAND_SHARE, "ratio", 3, 5),
    "band3": (Stat.BAND_SHARE, "ratio", 5, 7),
    "band4": (Stat.BAND_SHARE, "ratio", 7, 9),
    "centroid": (Stat.CENTROID, "cycles/frame", 0, 0),
    "participation": (Stat.PARTICIPATION, "count", 0, 0),
    "dominant": (Stat.DOMINANT_FREQUENCY, "cycles/frame", 0, 0),
    "dominant_share": (Stat.DOMINANT_SHARE, "ratio", 0, 0),
    "phase_cos": (Stat.PHASE_COS, "ratio", 0, 0),
    "phase_sin": (Stat.PHASE_SIN, "ratio", 0, 0),
}

_FRAMES: Final = "[1-9][0-9]{0,3}"
_SCHEME: Final = re.compile(
    rf"(?P<what>[a-z0-9_]+(?:\.[a-z0-9_]+)*?)\.(?P<size>last|{_FRAMES}(?:_{_FRAMES})?)"
)


def group_of(name: str) -> Group | None:
    """Return the group of which a name is a column, with that column alone; None: no such name.

    ``CHANNEL.last``; ``CHANNEL.mean|std|zscore|min|max.WINDOW``; ``CHANNEL.ewm.SPAN``;
    ``CHANNEL.macd.SPAN_SPAN``; ``price.…`` and ``flow.…`` by window; ``WORD.spectrum.….WINDOW``, WORD the
    first of a channel's name.
    """
    found = _SCHEME.fullmatch(name)
    if found is None:
        return None
    what, size = found["what"], found["size"]
    if size == "last":
        return _one(Op.MOMENTS, _CHANNEL[what], name, None, Stat.LAST) if what in _CHANNEL else None
    base, _, part = what.rpartition(".")
    sizes = [int(digits) for digits in size.split("_")]
    if base in _CHANNEL and part in ("ewm", "macd"):
        return _decay(_CHANNEL[base], name, part, sizes)
    window = sizes[0]
    if len(sizes) != 1 or window & (window - 1) or not 2 <= window <= _LONGEST:
        return None
    if what in OF_MARKET:
        group, stat, unit = OF_MARKET[what]
        fits = window >= 4 or stat not in (Stat.SLOPE, Stat.RESIDUAL_STD)
        return replace(group, outputs=(Output(name, unit, stat, window),)) if fits else None
    if base in _CHANNEL and part in _OF_CHANNEL:
        op, stat, own_unit = _OF_CHANNEL[part]
        blurred = stat == Stat.ZSCORE and _CHANNEL[base] in _NO_ZSCORE
        return None if blurred else _one(op, _CHANNEL[base], name, own_unit, stat, window)
    word, _, middle = base.partition(".")
    if middle == "spectrum" and word in _SPECTRUM_CHANNEL and part in _OF_SPECTRUM:
        stat, own_unit, low, past = _OF_SPECTRUM[part]
        if _SHORTEST_SPECTRUM <= window <= _LONGEST_SPECTRUM:
            return _one(Op.SPECTRUM, _SPECTRUM_CHANNEL[word], name, own_unit, stat, window, low, past)
    return None


def _one(
    op: Op, x: Channel, name: str, unit: str | None, stat: Stat, window: int = 1, a: int = 0, b: int = 0
) -> Group:
    """Return a group of one channel with one column; ``unit`` None: the channel's."""
    source = f"spectrum({x.name}, {window})" if op == Op.SPECTRUM else f"{op.name.lower()}({x.name})"
    return Group(op, source, (Output(name, unit or _UNITS[x], stat, window, a, b),), x)


def _decay(x: Channel, name: str, part: str, spans: list[int]) -> Group | None:
    count = 1 if part == "ewm" else 2
    if not len(spans) == len(set(spans)) == count or min(spans) < 2 or max(spans) > _DECAY_WINDOW:
        return None
    stat = Stat.DECAYED_MEAN if part == "ewm" else Stat.DECAYED_DIFFERENCE
    output = Output(name, _UNITS[x], stat, _DECAY_WINDOW, a=0, b=len(spans) - 1)
    return Group(Op.DECAY, "", (output,), x, spans=tuple(spans))


def with_columns(groups: Sequence[Group], names: Iterable[str]) -> tuple[Group, ...]:
    """Return the groups with further columns, each in the group of its family and channels.

    Raises
    ------
    ConfigError    a name that is no column's, or more spans of one channel than a group may have
    """
    made = list(groups)
    for name in names:
        new = group_of(name)
        if new is None:
            raise ConfigError("no such column", value=name)
        at = next((at for at, old in enumerate(made) if _same(old, new)), None)
        if at is None:
            made.append(_named(new))
        else:
            made[at] = _named(_joined(made[at], new))
    return tuple(made)


def _same(old: Group, new: Group) -> bool:
    """Whether columns of both are made from the same elements."""
    alike = (old.op, old.x, old.y) == (new.op, new.x, new.y)
    return alike and (old.op != Op.SPECTRUM or old.source == new.source)


def _joined(old: Group, new: Group) -> Group:
    (output,) = new.outputs
    if new.op != Op.DECAY:
        return replace(old, outputs=(*old.outputs, output))
    spans = tuple(dict.fromkeys((*old.spans, *new.spans)))
    if len(spans) > MAX_SPANS:
        raise ConfigError(
            f"more than {MAX_SPANS} spans of one channel",
            where="features.add",
            value=output.name,
            fix=f"{new.x.name.lower()} has {', '.join(map(str, old.spans))}",
        )
    a, b = (spans.index(span) for span in (new.spans[0], new.spans[-1]))
    moved = replace(output, a=a, b=b if output.stat == Stat.DECAYED_DIFFERENCE else 0)
    return replace(old, outputs=(*old.outputs, moved), spans=spans)


def _named(group: Group) -> Group:
    """Return a group whose source tells what it holds now."""
    if group.op == Op.DECAY:
        return replace(group, source=f"decay({group.x.name}, spans {', '.join(map(str, group.spans))})")
    if group.op == Op.MOMENTS:
        values = all(output.stat == Stat.LAST for output in group.outputs)
        return replace(group, source=f"{'last' if values else 'moments'}({group.x.name})")
    return group


def spectrum_names(word: str, window: int) -> tuple[str, ...]:
    """Return the columns of one spectrum: Hann-windowed powers of bins 1 to 8 of ``window`` frames."""
    return tuple(f"{word}.spectrum.{part}.{window}" for part in _OF_SPECTRUM)
