"""Batch features against Polars, pandas and a strided Fourier transform.

The shared set is what Polars can express: rolling mean, standard deviation, minimum and maximum over windows
of 8 … 512 frames for eight channels, float32 in and out. Everybody may use both cores in whatever way they
do; everybody allocates their own output.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gpuscalp.bench.timing import interleaved, step_by_step
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.errors import ParityError, UsageError
from gpuscalp.feature_names import Group, Output, spectrum_names, with_columns
from gpuscalp.features import FeatureGraph
from gpuscalp.ops import ladder
from gpuscalp.ops.ladder_codes import Op, Program, Stat
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import F32, F64, Channel

WINDOWS = (8, 16, 32, 64, 128, 256, 512)
CHANNELS = tuple(Channel)[:8]
TILE_FRAMES = 4096
# The peers and we round differently; an error above this, relative to the column's scale, is a wrong answer.
TOLERANCE = 1e-5
_THREADS = 2
_COMPARED = 20_000  # of the newest frames


def run(frames: int = 1_000_000, repeats: int = 5, *, told: Progress = silent) -> dict[str, Any]:
    """Measure and return the figures; see the keys below.

    ``told`` how far it is before each run of a task: nothing is told while one is timed.

    Raises
    ------
    UsageError     Polars or pandas is not installed
    ParityError    a column differs from its float64 oracle by more than TOLERANCE
    """
    polars, pandas = _peers()
    spectrum_repeats = max(1, repeats // 2)
    # Three to make and check what is timed, four tasks, two spectra; each has a round that does not count.
    begin = step_by_step(told, 3 + 4 * (repeats + 1) + 2 * (spectrum_repeats + 1))
    begin("making the series")
    channels = _channels(frames)
    shared = shared_graph()
    full = FeatureGraph(GridConfig(), FeatureConfig())
    tasks: dict[str, Callable[[], object]] = {
        "gpuscalp": lambda: compute(shared.program, len(shared), channels, _THREADS),
        "gpuscalp_all_columns": lambda: compute(full.program, len(full), channels, _THREADS),
    }
    begin("checking gpuscalp")
    errors = {"gpuscalp": largest_error(compute(shared.program, len(shared), channels, _THREADS), channels)}
    if errors["gpuscalp"] > TOLERANCE:
        raise ParityError("a rolling column is wrong", value=errors["gpuscalp"])
    kept = channels[:, ladder.halo(shared.program) :]
    frame = polars.DataFrame({channel.name: kept[channel] for channel in CHANNELS})
    expressions = [
        getattr(polars.col(channel.name), f"rolling_{name}")(window).alias(f"{channel.name}.{name}.{window}")
        for channel in CHANNELS
        for window in WINDOWS
        for name in ("mean", "std", "min", "max")
    ]
    tasks["polars"] = lambda: frame.lazy().select(expressions).collect()
    table = pandas.DataFrame({channel.name: kept[channel] for channel in CHANNELS})
    tasks["pandas"] = lambda: [
        getattr(table.rolling(window), name)() for window in WINDOWS for name in ("mean", "std", "min", "max")
    ]
    begin("checking polars")
    errors["polars"] = _peer_error(tasks["polars"](), channels)
    seconds = interleaved(tasks, repeats=repeats, begin=begin)
    returns = channels[Channel.RETURN_BPS, ladder.halo(shared.program) :][: frames // 4]
    spectrum = _spectrum(returns, spectrum_repeats, begin=lambda name: begin(f"spectrum, {name}"))
    ours = seconds["gpuscalp"]
    return {
        "frames": frames,
        "shared_columns": len(shared),
        "all_columns": len(full),
        "threads": _THREADS,
        "ratio_polars": seconds["polars"] / ours,
        "ratio_pandas": seconds["pandas"] / ours,
        "ratio_all_columns": seconds["gpuscalp_all_columns"] / ours,
        "ratio_strided_rfft": spectrum["strided_rfft"] / spectrum["gpuscalp"],
        "rows_per_s": frames / seconds["gpuscalp_all_columns"],
        "seconds": seconds | {f"spectrum_{name}": value for name, value in spectrum.items()},
        "largest_relative_error": errors,
    }


def shared_graph() -> FeatureGraph:
    """Return the graph of the columns that the peers can express."""
    groups = []
    for channel in CHANNELS:
        for op, stats in ((Op.MOMENTS, (Stat.MEAN, Stat.STD)), (Op.EXTREMES, (Stat.MIN, Stat.MAX))):
            outputs = tuple(
                Output(f"{channel.name}.{stat.name.lower()}.{window}", "", stat, window)
                for window in WINDOWS
                for stat in stats
            )
            groups.append(Group(op, channel.name, outputs, channel))
    return FeatureGraph(GridConfig(), FeatureConfig(), groups=groups, context=(), cycles=())


def compute(program: Program, column_count: int, channels: F32, threads: int) -> F32:
    """Return float32[F, T] of one symbol, the frames cut into one piece per thread."""
    frames = channels.shape[1] - ladder.halo(program)
    out = np.empty((column_count, frames), np.float32)
    cuts = np.linspace(0, frames, threads + 1).astype(int)

    def piece(index: int) -> None:
        scratch = ladder.batch_scratch(program, TILE_FRAMES)
        first, last = int(cuts[index]), int(cuts[index + 1])
        ladder.batch(program, channels[None], first, last, TILE_FRAMES, scratch, out[None])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(piece, range(threads)))
    return out


def _channels(frames: int) -> F32:
    """Return float32[C, halo + frames]: a heavy-tailed series per channel, positive where quantities are."""
    halo = ladder.halo(FeatureGraph(GridConfig(), FeatureConfig()).program)
    rng = np.random.default_rng(1)
    channels = np.full((len(Channel), halo + frames), np.nan, np.float32)
    channels[:, halo:] = rng.standard_t(5, (len(Channel), frames))
    for positive in (Channel.BUY_KUSDT, Channel.SELL_KUSDT, Channel.VARIANCE_BPS2):
        channels[positive] = np.abs(channels[positive])
    return channels


def _oracle(x: F64, window: int, name: str) -> F64:
    view = np.lib.stride_tricks.sliding_window_view(x, window)
    if name == "std":
        return np.asarray(view.std(axis=1, ddof=1))
    return np.asarray(getattr(view, name)(axis=1))


def largest_error(out: F32, channels: F32) -> float:
    """Compare the newest frames of two channels with float64 over every window."""
    graph = shared_graph()
    return _error(lambda name: out[graph.index(name)], channels, 2)


def _peer_error(frame: Any, channels: F32) -> float:
    return _error(lambda name: frame[name].to_numpy(), channels, 1)


def _error(column: Callable[[str], F32], channels: F32, count: int) -> float:
    worst = 0.0
    for channel in CHANNELS[:count]:
        x = channels[channel].astype(np.float64)
        for window in WINDOWS:
            for name in ("mean", "std", "min", "max"):
                wanted = _oracle(x[-_COMPARED - window + 1 :], window, name)
                found = column(f"{channel.name}.{name}.{window}")[-_COMPARED:]
                worst = max(worst, float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted))))
    return worst


def _spectrum(x: F32, repeats: int, *, begin: Callable[[str], None]) -> dict[str, float]:
    """Time the Hann-windowed powers of eight bins by the ladder and by a strided rfft."""
    window = 64
    groups = with_columns((), spectrum_names("return", window))
    graph = FeatureGraph(GridConfig(), FeatureConfig(), groups=groups, context=(), cycles=())
    channels = np.full((len(Channel), ladder.halo(graph.program) + x.size), np.nan, np.float32)
    channels[Channel.RETURN_BPS, ladder.halo(graph.program) :] = x
    hann = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(window) / window)).astype(np.float32)

    def strided() -> F32:
        view = np.lib.stride_tricks.sliding_window_view(x, window)
        return np.asarray(np.abs(np.fft.rfft(view * hann)[:, 1:9]) ** 2, np.float32)

    amplitude = np.sqrt(strided().sum(axis=1)) / window
    found = compute(graph.program, len(graph), channels, 1)[0, window - 1 :]
    error = float(np.max(np.abs(found - amplitude)) / np.max(amplitude))
    if error > TOLERANCE:
        raise ParityError("the spectrum is wrong", value=error)
    tasks: dict[str, Callable[[], object]] = {
        "gpuscalp": lambda: compute(graph.program, len(graph), channels, 1),
        "strided_rfft": strided,
    }
    return interleaved(tasks, repeats=repeats, begin=begin)


def _peers() -> tuple[Any, Any]:
    try:
        import pandas
        import polars
    except ImportError as error:
        raise UsageError(
            f"{error.name} is not installed",
            where="bench batch",
            fix="make setup in the checkout (docs/install.md)",
        ) from None
    return polars, pandas
