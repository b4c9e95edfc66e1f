"""Oracle of the features: every column straight from its definition, in float64, by its name alone.

Shares no code with the package: windows are cut out whole and reduced by NumPy; spectra come from numpy.fft.
A window that holds a NaN gives NaN; so does a ratio whose denominator is not positive.

``columns(names, channels, end_ns, leader)`` takes the channels of a run as float32 and widens them, so that
what is measured is the error of the arithmetic, not of its input.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

CHANNELS = (
    "microprice_bps", "spread_bps", "return_bps", "trade_count", "buy_kusdt", "sell_kusdt", "vwap_flow",
    "ofi_kusdt", "queue_imbalance", "depth5_imbalance", "depth20_imbalance", "variance_bps2", "range_bps",
    "quote_count", "largest_kusdt", "basis_bps", "age_ms", "lagged_return_bps", "flow_kusdt",
)  # fmt: skip
SPECTRUM = (
    "amplitude", "band1", "band2", "band3", "band4", "centroid", "participation", "dominant",
    "dominant_share", "phase_cos", "phase_sin",
)  # fmt: skip
SPECTRUM_INPUT = {name.split("_")[0]: name for name in CHANNELS}

Values = np.ndarray  # float64[T]
Inputs = dict[str, Values]


def columns(
    names: tuple[str, ...], channels: np.ndarray, end_ns: np.ndarray, leader: int | None
) -> np.ndarray:
    """Return float64[S, F, T].

    Parameters
    ----------
    names : columns, in the order wanted
    channels : float32[T, C, S]   consecutive frames, cold before the first
    end_ns : int64[T]
    leader : index of the leader symbol
    """
    known = [inputs(channels, symbol) for symbol in range(channels.shape[2])]
    cache: dict[tuple[int, str], Values] = {}

    def own(symbol: int, name: str) -> Values:
        if (symbol, name) not in cache:
            cache[symbol, name] = column(name, known[symbol])
        return cache[symbol, name]

    def mean(name: str) -> Values:
        every = np.stack([own(s, name) for s in range(len(known))])
        count = (~np.isnan(every)).sum(axis=0)
        return _ratio(np.nansum(every, axis=0), count.astype(np.float64))

    out = np.empty((len(known), len(names), len(end_ns)))
    for at, name in enumerate(names):
        family, _, rest = name.partition(".")
        for symbol in range(len(known)):
            if family == "leader":
                out[symbol, at] = np.nan if leader is None else own(leader, rest)
            elif family == "market":
                out[symbol, at] = mean(rest)
            elif family == "relative":
                out[symbol, at] = own(symbol, rest) - mean(rest)
            elif family == "time":
                out[symbol, at] = clock(rest, end_ns)
            else:
                out[symbol, at] = own(symbol, name)
    return out


def inputs(channels: np.ndarray, symbol: int) -> Inputs:
    """Return the channels of one symbol by name, widened."""
    wide = channels[:, :, symbol].astype(np.float64)
    return {name: wide[:, index] for index, name in enumerate(CHANNELS)}


def column(name: str, inputs: Inputs) -> Values:
    """Return one column of one symbol, float64[T]."""
    family, stat, *rest = name.split(".")
    window = int(rest[-1]) if rest and rest[-1].isdigit() else 0
    if stat == "spectrum":
        return spectrum(inputs[SPECTRUM_INPUT[family]], window)[rest[0]]
    if family == "price" and stat in PATH:
        return over(PATH[stat], paths(inputs["return_bps"], window))
    if f"{family}.{stat}" in SUMS:
        return SUMS[f"{family}.{stat}"](inputs, window)
    x = inputs[family]
    if stat == "last":
        return x.copy()
    if stat == "ewm":
        return decayed(x, window)
    if stat == "macd":
        fast, slow = map(int, rest[0].split("_"))
        return decayed(x, fast) - decayed(x, slow)
    return over(MOMENTS[stat], windows(x, window))


# Windows --------------------------------------------------------------------------------------------------


def windows(x: Values, size: int) -> np.ndarray:
    """Return float64[T, size], oldest first; NaN before the first value."""
    if len(x) == 0:
        return np.empty((0, size))
    return sliding_window_view(np.concatenate([np.full(size - 1, np.nan), x]), size)


def over(reduce: Callable[[np.ndarray], Values], rows: np.ndarray) -> Values:
    """Reduce the windows that are full of values; the others are NaN. In slices, to bound the memory."""
    out = np.full(len(rows), np.nan)
    for start in range(0, len(rows), 4096):
        part = rows[start : start + 4096]
        full = ~np.isnan(part).any(axis=1)
        out[start : start + 4096][full] = reduce(part[full])
    return out


def _ratio(x: Values, y: Values) -> Values:
    return np.divide(x, y, out=np.full(np.shape(x), np.nan), where=y > 0)


def _std(x: np.ndarray) -> Values:
    return x.std(axis=1, ddof=1)


def blur(x: np.ndarray) -> Values:
    """Return the standard deviation in units of 1/32 of the mean; 0 where nothing varies."""
    level = np.abs(x.mean(axis=1)) / 32.0
    spread = np.where(np.ptp(x, axis=1) > 0, _std(x), 0.0)
    return np.divide(spread, level, out=np.where(spread > 0, np.inf, 0.0), where=level > 0)


MOMENTS: dict[str, Callable[[np.ndarray], Values]] = {
    "mean": lambda x: x.mean(axis=1),
    "std": _std,
    "min": lambda x: x.min(axis=1),
    "max": lambda x: x.max(axis=1),
    # Missing where the deviation is below 1/32 of the mean.
    "zscore": lambda x: _ratio(x[:, -1] - x.mean(axis=1), np.where(blur(x) > 1.0, _std(x), 0.0)),
}


# The price path: bps of every frame of the window relative to the newest, preceded by the total move --------


def paths(returns: Values, size: int) -> np.ndarray:
    """Return float64[T, 1 + size]: the move over the window, then the path relative to its last frame."""
    moves = windows(returns, size)
    later = np.cumsum(moves[:, ::-1], axis=1)[:, ::-1]  # the sum of this return and all that follow
    path = np.concatenate([-later[:, 1:], np.where(np.isnan(moves[:, -1:]), np.nan, 0.0)], axis=1)
    return np.concatenate([later[:, :1], path], axis=1)


def _line(path: np.ndarray) -> tuple[Values, Values]:
    """Fit a line by least squares; return its slope and the residual sum of squares."""
    size = path.shape[1]
    time = np.arange(size) - (size - 1) / 2
    centred = path - path.mean(axis=1, keepdims=True)
    slope = centred @ time / (time @ time)
    return slope, ((centred - slope[:, None] * time) ** 2).sum(axis=1)


PATH: dict[str, Callable[[np.ndarray], Values]] = {
    "move": lambda p: p[:, 0],
    "zscore": lambda p: _ratio(-p[:, 1:].mean(axis=1), _std(p[:, 1:])),
    "range_position": lambda p: _ratio(-p[:, 1:].min(axis=1), np.ptp(p[:, 1:], axis=1)),
    "range_width": lambda p: np.ptp(p[:, 1:], axis=1),
    "slope": lambda p: _line(p[:, 1:])[0],
    "residual_std": lambda p: np.sqrt(_line(p[:, 1:])[1] / (p.shape[1] - 3)),
}


# Sums, impact and bounce ----------------------------------------------------------------------------------


def _sum(x: Values, size: int) -> Values:
    return over(lambda rows: rows.sum(axis=1), windows(x, size))


def _flow_ratio(numerator: Callable[[Inputs], Values]) -> Callable[[Inputs, int], Values]:
    """Return a column: a sum over the window per traded notional."""

    def make(inputs: Inputs, size: int) -> Values:
        traded = _sum(inputs["buy_kusdt"] + inputs["sell_kusdt"], size)
        return _ratio(_sum(numerator(inputs), size), traded)

    return make


def _flow(inputs: Inputs) -> Values:
    return inputs["buy_kusdt"] - inputs["sell_kusdt"]


def _rsi(inputs: Inputs, size: int) -> Values:
    """Cutler's RSI: gains per gains and losses."""
    r = inputs["return_bps"]
    return 100.0 * _ratio(_sum(np.where(r < 0, 0.0, r), size), _sum(np.abs(r), size))


def _pairs(x: Values, y: Values, size: int) -> tuple[Values, Values, Values]:
    """Return M2 of x, M2 of y and their co-moment."""
    both = windows(x, size), windows(y, size)
    full = ~(np.isnan(both[0]).any(axis=1) | np.isnan(both[1]).any(axis=1))
    out = np.full((3, len(x)), np.nan)
    for start in range(0, len(x), 4096):
        at = np.flatnonzero(full[start : start + 4096]) + start
        a, b = (rows[at] - rows[at].mean(axis=1, keepdims=True) for rows in both)
        # A constant window is centred to zero exactly, whatever the rounding of its mean.
        a, b = (
            np.where(np.ptp(rows[at], axis=1)[:, None] > 0, c, 0.0)
            for rows, c in zip(both, (a, b), strict=True)
        )
        out[:, at] = (a * a).sum(axis=1), (b * b).sum(axis=1), (a * b).sum(axis=1)
    return out[0], out[1], out[2]


def _beta(inputs: Inputs, size: int) -> Values:
    _, flow, both = _pairs(inputs["return_bps"], inputs["flow_kusdt"], size)
    return _ratio(both, flow)


def _correlation(other: str) -> Callable[[Inputs, int], Values]:
    def make(inputs: Inputs, size: int) -> Values:
        x, y, both = _pairs(inputs["return_bps"], inputs[other], size)
        return _ratio(both, np.sqrt(x * y))

    return make


def _roll_measure(inputs: Inputs, size: int) -> Values:
    """Roll (1984): minus four times the autocovariance, the square of the spread where it is positive."""
    _, _, both = _pairs(inputs["return_bps"], inputs["lagged_return_bps"], size)
    return -4.0 * both / (size - 1)


SUMS: dict[str, Callable[[Inputs, int], Values]] = {
    "flow.imbalance": _flow_ratio(_flow),
    "flow.toxicity": _flow_ratio(lambda inputs: np.abs(_flow(inputs))),
    "flow.illiquidity": _flow_ratio(lambda inputs: np.abs(inputs["return_bps"])),
    "flow.vwap_deviation": _flow_ratio(lambda inputs: inputs["vwap_flow"]),
    "price.rsi": _rsi,
    "price.volatility": lambda inputs, size: np.sqrt(_sum(inputs["variance_bps2"], size)),
    "flow.impact": _beta,
    "flow.return_correlation": _correlation("flow_kusdt"),
    "price.autocorrelation": _correlation("lagged_return_bps"),
    "price.roll_measure": _roll_measure,
}


# Decay, spectrum, clock -----------------------------------------------------------------------------------


def decayed(x: Values, span: int, size: int = 512) -> Values:
    """Return the exponentially weighted mean over the last ``size`` values."""
    decay = 1.0 - 2.0 / (span + 1.0)
    weight = decay ** np.arange(size - 1, -1, -1)
    return over(lambda rows: rows @ weight / weight.sum(), windows(x, size))


def spectrum(x: Values, size: int) -> dict[str, Values]:
    """Return the columns of one spectrum.

    All but the amplitude are NaN where the window function leaves less than a hundredth of the power. The
    dominant bin is the first, going up, that is stronger by 1e-4 than the dominant one so far.
    """
    rows = windows(x, size)
    full = ~np.isnan(rows).any(axis=1)
    out = {name: np.full(len(x), np.nan) for name in SPECTRUM}
    bins = hann_bins(rows[full])
    power = np.abs(bins) ** 2
    out["amplitude"][full] = np.sqrt(power.sum(axis=1)) / size
    kept = hann_share(rows[full]) > 1e-2
    at, bins, power = np.flatnonzero(full)[kept], bins[kept], power[kept]
    total = power.sum(axis=1)
    best = dominant(power)
    top = bins[np.arange(len(bins)), best]
    for band in range(4):
        out[f"band{band + 1}"][at] = power[:, 2 * band : 2 * band + 2].sum(axis=1) / total
    out["centroid"][at] = power @ np.arange(1, 9) / total / size
    out["participation"][at] = 1.0 / ((power / total[:, None]) ** 2).sum(axis=1)
    out["dominant"][at] = (best + 1) / size
    out["dominant_share"][at] = np.abs(top) ** 2 / total
    out["phase_cos"][at] = top.real / np.abs(top)
    out["phase_sin"][at] = top.imag / np.abs(top)
    return out


def hann_bins(rows: np.ndarray) -> np.ndarray:
    """Return bins 1 to 8 of the Hann-windowed transform, complex128[n, 8], phases counted from the oldest."""
    size = rows.shape[1]
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)
    return np.fft.rfft(rows * hann, axis=1)[:, 1:9]


def hann_share(rows: np.ndarray) -> Values:
    """Return the power of bins 1 to 8 that the window function leaves, relative to no window function."""
    plain = (np.abs(np.fft.rfft(rows, axis=1)[:, 1:9]) ** 2).sum(axis=1)
    left = (np.abs(hann_bins(rows)) ** 2).sum(axis=1)
    return np.divide(left, plain, out=np.zeros(len(rows)), where=np.abs(rows).max(axis=1) > 0)


def dominant(power: np.ndarray, stronger: float = 1.0001) -> np.ndarray:
    """Return the index of the dominant bin, int64[n]."""
    best = np.zeros(len(power), np.int64)
    for k in range(1, power.shape[1]):
        wins = power[:, k] > power[np.arange(len(power)), best] * stronger
        best[wins] = k
    return best


def undecided(name: str, inputs: Inputs) -> np.ndarray:
    """Return bool[T]: rounding decides which of two definite values a column has.

    Whether a window varies enough for a z-score; which spectral bin is dominant; whether the window function
    leaves enough power.
    """
    family, stat, *rest = name.split(".")
    none = np.zeros(len(inputs["return_bps"]), bool)
    if stat == "zscore" and family in inputs:
        near = over(lambda rows: np.abs(blur(rows) - 1.0), windows(inputs[family], int(rest[0])))
        return np.asarray(near < 1e-3)
    if stat == "spectrum" and rest[0] != "amplitude":
        return _undecided_bins(inputs[SPECTRUM_INPUT[family]], int(rest[-1]))
    return none


def _undecided_bins(x: Values, size: int) -> np.ndarray:
    rows = windows(x, size)
    full = ~np.isnan(rows).any(axis=1)
    power = np.abs(hann_bins(rows[full])) ** 2
    out = np.zeros(len(x), bool)
    near = np.abs(hann_share(rows[full]) / 1e-2 - 1.0) < 1e-3
    out[full] = near | (dominant(power, 1.0001 - 1e-5) != dominant(power, 1.0001 + 1e-5))
    return out


_CLOCKS = {"hour": (3_600, 1), "day": (86_400, 60), "week": (604_800, 3_600)}


def clock(name: str, end_ns: np.ndarray) -> Values:
    """Return the position in a cycle; day and week move in steps of a minute and an hour."""
    seconds = end_ns // 1_000_000_000
    if name == "to_funding":
        return 1.0 - (seconds % 28_800) / 28_800
    cycle, wave = re.fullmatch(r"(\w+)_(sin|cos)", name).groups()
    period, step = _CLOCKS[cycle]
    angle = 2.0 * np.pi * (seconds % period // step * step) / period
    return np.sin(angle) if wave == "sin" else np.cos(angle)
