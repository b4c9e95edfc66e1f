"""Largest error of every column against a direct float64 computation: ``python -m benchmarks.accuracy``.

The oracle (tests/naive.py) cuts every window out whole, widens the same float32 channels to float64, and
takes spectra from numpy.fft; it shares no code with the ladder. Three sets of frames: heavy-tailed random
channels, the synthetic market, and with ``--archive`` recordings. Exit code 1 if a column misses the bar.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.features import FeatureGraph
from gpuscalp.ops import context as context_ops
from gpuscalp.ops import ladder as ladder_ops
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import Channel, Instrument, Ticks
from tests import naive

BAR = 1e-5  # of the column's scale


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames, cold at the first and after every pause, and the features that the package makes of them."""

    name: str
    channels: np.ndarray  # float32[T, C, S]
    end_ns: np.ndarray  # int64[T]
    features: np.ndarray  # float32[S, F, T]

    def runs(self) -> list[slice]:
        """Return the stretches of frames without a pause."""
        step_ns = np.diff(self.end_ns)
        edges = [0, *(np.flatnonzero(step_ns > step_ns.min()) + 1).tolist(), len(self.end_ns)]
        return [slice(a, b) for a, b in itertools.pairwise(edges)]


@dataclass(frozen=True, slots=True)
class Error:
    """How far one column is off, over one or more sets.

    rms, largest : root mean square and largest magnitude of the exact values over the set
    error : largest |value - exact| / largest: what the bar is for
    error_rms : the same over the root mean square, which heavy tails make much smaller
    differing_nan : rows where only one of the two is NaN
    tied : rows left out because rounding decides between two definite values
    """

    column: str
    rows: int
    rms: float
    largest: float
    error: float
    error_rms: float
    differing_nan: int
    tied: int


def features_of(graph: FeatureGraph, channels: np.ndarray, end_ns: np.ndarray) -> np.ndarray:
    """Return float32[S, F, T]: the package's columns of given channels, cold before the first frame."""
    frame_count, channel_count, symbol_count = channels.shape
    halo = ladder_ops.halo(graph.program)
    out = np.empty((symbol_count, len(graph), frame_count), np.float32)
    scratch = ladder_ops.batch_scratch(graph.program, 4096)
    padded = np.full((symbol_count, channel_count, halo + frame_count), np.nan, np.float32)
    padded[:, :, halo:] = channels.transpose(2, 1, 0)
    ladder_ops.batch(graph.program, padded, 0, frame_count, 4096, scratch, out)
    context_ops.context(graph.context, end_ns, out)
    return out


def random_frames(graph: FeatureGraph, *, frame_count: int = 6_000, seed: int = 7) -> Frames:
    """Channels without any market in them: heavy tails, many zeros, large offsets, quiet stretches."""
    rng = np.random.default_rng(seed)
    shape = (frame_count, 3)
    channels = np.empty((frame_count, len(Channel), 3), np.float32)
    for channel in Channel:
        tail = rng.standard_t(3, shape) * 10.0 ** rng.uniform(-1, 2)
        if channel.name.endswith(("KUSDT", "COUNT", "BPS2")) and channel not in (
            Channel.OFI_KUSDT,
            Channel.FLOW_KUSDT,
        ):
            tail = np.abs(tail) * (rng.random(shape) < 0.4)
        channels[:, channel] = tail
    returns = rng.standard_t(3, shape) * 0.3 * (rng.random(shape) < 0.3)
    returns[2_000:2_700] = 0.0
    channels[:, Channel.RETURN_BPS] = returns
    channels[1:, Channel.LAGGED_RETURN_BPS] = channels[:-1, Channel.RETURN_BPS]
    channels[0, Channel.LAGGED_RETURN_BPS] = np.nan
    channels[:, Channel.FLOW_KUSDT] = channels[:, Channel.BUY_KUSDT] - channels[:, Channel.SELL_KUSDT]
    for channel in (Channel.QUEUE_IMBALANCE, Channel.DEPTH5_IMBALANCE, Channel.DEPTH20_IMBALANCE):
        channels[:, channel] = rng.uniform(-1, 1, shape)
    channels[:, Channel.BASIS_BPS] = -4.5 + 0.3 * rng.standard_normal(shape)
    end_ns = 1_721_346_000_000_000_000 + np.arange(frame_count, dtype=np.int64) * 100_000_000
    return Frames("random", channels, end_ns, features_of(graph, channels, end_ns))


def frames_of_ticks(
    name: str, ticks: Ticks, instruments: tuple[Instrument, ...]
) -> tuple[FeatureGraph, Frames]:
    """Run the whole pipeline over ticks."""
    pipeline = FeaturePipeline(grid=GridConfig(), features=FeatureConfig(), instruments=instruments)
    chunks = list(pipeline.batch([ticks]))
    end_ns = np.concatenate([chunk.frames.end_ns for chunk in chunks])
    return pipeline.graph, Frames(
        name,
        np.concatenate([chunk.frames.channels for chunk in chunks]),
        end_ns,
        np.concatenate([chunk.features for chunk in chunks], axis=2),
    )


def errors(graph: FeatureGraph, frames: Frames) -> list[Error]:
    """Return the error of every column over one set of frames."""
    leader = int(graph.context.leader[0])
    exact = np.concatenate(
        [
            naive.columns(
                graph.names, frames.channels[run], frames.end_ns[run], leader if leader >= 0 else None
            )
            for run in frames.runs()
        ],
        axis=2,
    )
    return [
        _error(name, frames.features[:, at].astype(np.float64), exact[:, at], _ties(name, frames))
        for at, name in enumerate(graph.names)
    ]


def _ties(name: str, frames: Frames) -> np.ndarray:
    """Return bool[S, T]: rows where a column is decided by rounding (naive.undecided)."""
    return np.stack(
        [
            np.concatenate(
                [naive.undecided(name, naive.inputs(frames.channels[run], symbol)) for run in frames.runs()]
            )
            for symbol in range(frames.channels.shape[2])
        ]
    )


def _error(name: str, value: np.ndarray, exact: np.ndarray, tied: np.ndarray) -> Error:
    known = ~np.isnan(exact) & ~np.isnan(value)
    used = known & ~tied
    worst = float(np.abs(value - exact)[used].max()) if used.any() else 0.0
    reference = _cycle(name) if name.startswith("time.") else exact[known]
    rms = float(np.sqrt(np.mean(reference**2))) if reference.size else 0.0
    largest = float(np.abs(reference).max()) if reference.size else 0.0
    return Error(
        column=name,
        rows=int(used.sum()),
        rms=rms,
        largest=largest,
        error=_relative(worst, largest),
        error_rms=_relative(worst, rms),
        differing_nan=int(((np.isnan(exact) != np.isnan(value)) & ~tied).sum()),
        tied=int(tied.sum()),
    )


def _relative(worst: float, scale: float) -> float:
    return worst / scale if scale > 0 else (0.0 if worst == 0 else float("inf"))


def _cycle(name: str) -> np.ndarray:
    """Return a clock column over a whole week: a few minutes of it are nearly constant."""
    week_ns = np.arange(604_800, dtype=np.int64) * 1_000_000_000
    return naive.clock(name.removeprefix("time."), week_ns)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, action="append", default=[])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sets = []
    from gpuscalp.synthetic import MarketSpec, instruments, ticks

    spec = MarketSpec(duration_s=300)
    sets.append(frames_of_ticks("synthetic", ticks(spec), instruments(spec)))
    sets.insert(0, (sets[0][0], random_frames(sets[0][0])))
    for path in options.archive:
        from gpuscalp.archive import Archive

        archive = Archive.open(path)
        for venue in archive.venues():
            read = np.concatenate(list(archive.tick_batches(venue)))
            sets.append(frames_of_ticks(f"{path.name}/{venue}", read, archive.instruments(venue)))
    found = {frames.name: errors(graph, frames) for graph, frames in sets}
    missed = [
        (name, error)
        for name, rows in found.items()
        for error in rows
        if error.error > BAR or error.differing_nan
    ]
    if options.json:
        print(json.dumps({name: [asdict(error) for error in rows] for name, rows in found.items()}, indent=1))
    else:
        _print(found)
        print(f"\n{len(missed)} of {sum(map(len, found.values()))} miss the bar of {BAR:g}")
        for name, error in missed:
            print(f"  {name}: {error}")
    return 1 if missed else 0


def _print(found: dict[str, list[Error]]) -> None:
    names = list(found)
    print(f"{'error: of largest, of rms':<32}" + "".join(f"{name:>32}" for name in names))
    for rows in zip(*found.values(), strict=True):
        cells = (
            f"{error.error:.1e} {error.error_rms:.1e}" + (f" ({error.tied} ties)" if error.tied else "")
            for error in rows
        )
        print(f"{rows[0].column:<32}" + "".join(f"{cell:>32}" for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
