"""What follows a market that has changed: going on from a model, training anew, correcting its calibration.

``python -m benchmarks.bench_adaptation`` prints JSON. A model is trained on an hour of the synthetic market.
Then come half an hour of new data, to train on, and two hours to be judged on; once of the same market, once
of one in which orders come 1.6 times as often: prices move more, and the shares of classes are others.
Seconds are those of the processor: the machine may do something else as well.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from gpuscalp.archive import Archive
from gpuscalp.bundle import load_bundle
from gpuscalp.config import AdaptationConfig, BoosterConfig, EnsembleConfig, SplitConfig, TrainConfig
from gpuscalp.labels import horizon_frames
from gpuscalp.schema import NS_PER_S, FeatureChunk
from gpuscalp.succession.recalibration import Correction, Recalibrator, propose
from gpuscalp.synthetic import VENUE, MarketSpec, write
from gpuscalp.train import train
from gpuscalp.train.dataset import labelled_chunks
from gpuscalp.train.source import ArchiveSource

CONFIG = TrainConfig(
    venue=VENUE,
    stride_frames=4,
    split=SplitConfig(folds=2),
    booster=BoosterConfig(rounds=60),
    ensemble=EnsembleConfig(members=2),
)
# What goes on needs fewer rounds: it has those of the model.
WARM = msgspec.structs.replace(CONFIG, booster=BoosterConfig(rounds=20))
ADAPTATION = AdaptationConfig(recalibrate=True)
RATE = 1.6
DAY_S = 86_400


@dataclass(frozen=True)
class Both:
    """Two recordings one after the other."""

    first: ArchiveSource
    second: ArchiveSource

    @property
    def venue(self) -> str:
        return self.first.venue

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.first.symbols

    @property
    def graph(self) -> Any:
        return self.first.graph

    @property
    def trade_delays_ms(self) -> tuple[float, ...]:
        return self.second.trade_delays_ms

    def chunks(self) -> Iterator[FeatureChunk]:
        yield from self.first.chunks()
        yield from self.second.chunks()

    def digest(self) -> str:
        return self.second.digest()


def run(*, minutes: tuple[int, int, int] = (60, 30, 120), processes: int = 2) -> dict[str, Any]:
    """Measure; ``minutes`` of the old, the new and the judged market."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "old", 7, 0, minutes[0], 1.0)
        seconds = _train(folder / "old", folder / "model")
        judged = partial(_scenario, folder, minutes)
        with ProcessPoolExecutor(processes) as pool:
            same, changed = pool.map(judged, (1.0, RATE))
    return {
        "minutes": {"old": minutes[0], "new": minutes[1], "judged": minutes[2]},
        "bounds": msgspec.to_builtins(ADAPTATION),
        "old_model_seconds": seconds,
        "same_market": same,
        f"orders_x_{RATE:g}": changed,
    }


def _scenario(folder: Path, minutes: tuple[int, int, int], rate: float) -> dict[str, Any]:
    here = folder / f"{rate:g}"
    _write(here / "new", 8, 1, minutes[1], rate)
    _write(here / "judged", 9, 2, minutes[2], rate)
    old = folder / "model"
    seconds = {"old": 0.0}
    seconds["warm"] = _train(here / "new", here / "warm", warm_start=old)
    seconds["anew_on_new"] = _train(here / "new", here / "anew_on_new")
    seconds["anew_on_all"] = _train(here / "new", here / "anew_on_all", before=folder / "old")
    found = {}
    x, came, end_ns = _rows(here / "judged")
    for name, took in seconds.items():
        path = old if name == "old" else here / name
        said = load_bundle(path, graph=None).ensemble.predict(x).probability
        found[name] = {
            "seconds": took,
            "log_loss": round(_log_loss(said, came), 5),
            "trees": load_bundle(path, graph=None).contract.tree_count,
        }
    said = load_bundle(old, graph=None).ensemble.predict(x).probability
    return {"models": found, "recalibrated": _recalibrated(said, came, end_ns)}


def _recalibrated(said: np.ndarray, came: np.ndarray, end_ns: np.ndarray) -> dict[str, Any]:
    """Correct a model step by step, as a session does, and judge each row before it is learned from."""
    made = Recalibrator(
        ADAPTATION,
        class_count=3,
        labels_per_row=CONFIG.stride_frames / horizon_frames(CONFIG.label, CONFIG.grid),
    )
    every_ns = round(ADAPTATION.every_s * NS_PER_S)
    due_ns, steps, largest = int(end_ns[0]) + every_ns, 0, 0.0
    corrected = np.empty_like(said)
    for rows in np.split(np.arange(len(said)), np.flatnonzero(np.diff(end_ns // NS_PER_S)) + 1):
        now_ns = int(end_ns[rows[-1]])
        corrected[rows] = made.correction.probability(np.log(said[rows]))
        made.take(corrected[rows], came[rows], end_ns[rows], now_ns)
        if now_ns >= due_ns:
            due_ns = now_ns + every_ns
            window = made.window(now_ns)
            found = None if window is None else propose(window, made.correction, ADAPTATION)
            if found is not None:
                made.restart(found.correction, forget=False)
                steps += 1
                largest = max(largest, *map(abs, found.correction.bias))
    share = np.bincount(came, minlength=3) / len(came)
    hours = [
        {
            "hour": hour,
            "own": round(_log_loss(said[part], came[part]), 5),
            "corrected": round(_log_loss(corrected[part], came[part]), 5),
        }
        for hour in range(int((end_ns[-1] - end_ns[0]) // (3_600 * NS_PER_S)) + 1)
        for part in [(end_ns - end_ns[0]) // (3_600 * NS_PER_S) == hour]
        if part.sum() > 1_000
    ]
    last: Correction = made.correction
    return {
        "rows": len(said),
        "own_log_loss": round(_log_loss(said, came), 5),
        "corrected_log_loss": round(_log_loss(corrected, came), 5),
        "by_hour": hours,
        "steps": steps,
        "largest_bias": round(largest, 4),
        "scale": round(float(np.exp(last.log_scale)), 4),
        "class_shares": [round(each, 4) for each in share.tolist()],
        "mean_said": [round(each, 4) for each in said.mean(axis=0).tolist()],
    }


def _rows(archive: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labelled rows of an archive, what came, and when, in the order of time."""
    source = ArchiveSource.open(Archive.open(archive), CONFIG, threads=1)
    rows, came, at = [], [], []
    for chunk in labelled_chunks(source.chunks(), CONFIG):
        for symbol in range(chunk.taken.shape[1]):
            taken = np.flatnonzero(chunk.taken[:, symbol])
            rows.append(chunk.chunk.features[symbol].T[taken])
            came.append(chunk.labels.direction[taken, symbol].astype(np.int64))
            at.append(chunk.end_ns[taken])
    end_ns = np.concatenate(at)
    order = np.argsort(end_ns, kind="stable")
    return np.concatenate(rows)[order], np.concatenate(came)[order], end_ns[order]


def _train(archive: Path, out: Path, *, before: Path | None = None, warm_start: Path | None = None) -> float:
    """Train, and return the processor time that it took: the machine may do something else as well."""
    config = CONFIG if warm_start is None else WARM
    source: Any = ArchiveSource.open(Archive.open(archive), config, threads=1)
    if before is not None:
        source = Both(ArchiveSource.open(Archive.open(before), config, threads=1), source)
    began = time.process_time()
    train(source, config, out, device="cpu", threads=1, warm_start=warm_start)
    return round(time.process_time() - began, 1)


def _write(path: Path, seed: int, day: int, minutes: int, rate: float) -> None:
    spec = MarketSpec(
        seed=seed, start_ns=MarketSpec().start_ns + day * DAY_S * NS_PER_S, duration_s=60 * minutes
    )
    replace = msgspec.structs.replace
    symbols = tuple(replace(each, orders_hz=each.orders_hz * rate) for each in spec.symbols)
    write(replace(spec, symbols=symbols), path)


def _log_loss(said: np.ndarray, came: np.ndarray) -> float:
    return float(-np.log(np.maximum(said[np.arange(len(came)), came], 1e-300)).mean())


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
