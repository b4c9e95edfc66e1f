"""Training with one and two workers on Ray, and a model of large ones: ``python -m benchmarks distributed``.

The runs are on this machine, one core for each worker, so two workers want two idle cores. Seconds of the
clock say what the machine gave; CPU seconds of the workers say what the sharing costs, on a busy machine too.
The costs of one row are CPU seconds on one thread, and the model is made of them (docs/distributed.md).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gpuscalp.config import BoosterConfig, EnsembleConfig, LabelConfig, SplitConfig, TrainConfig
from gpuscalp.distributed import train_on_ray
from gpuscalp.distributed.parts import PARTS
from gpuscalp.ray_cluster import connected
from gpuscalp.synthetic import VENUE, MarketSpec, write

BOOSTER = BoosterConfig(rounds=40, early_stopping_rounds=40, eta=0.1)
# Of the largest training in the documentation; XGBoost's defaults here are those of configs/train.toml.
WARM_UP_S, CHUNK_S = 103.0, 102.4
DEPTH, BINS, COLUMNS, CLASSES = 6, 256, 214, 3


def run(minutes: int = 60) -> dict[str, Any]:
    """Train on a synthetic archive with one worker and with two; measure what a row costs."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive"
        write(MarketSpec(duration_s=60 * minutes), archive)
        found = {str(workers): _train(archive, Path(folder) / str(workers), workers) for workers in (1, 2)}
        costs = _costs(archive)
    one, two = found["1"], found["2"]
    start = _start()
    # What two workers spend beyond one, and beyond their start, goes into the exchange of histograms.
    more = max(sum(two["worker_cpu_s"]) - sum(one["worker_cpu_s"]) - start, 0.0)
    costs["exchange_s_per_gb"] = round(more / 2 / (two["rounds"] * sent_bytes(2) / 1e9), 2)
    return {
        "rows": one["rows"],
        "start_cpu_s": start,
        "workers": found,
        "log_loss_difference": abs(one["log_loss"] - two["log_loss"]),
        "efficiency_clock": round(one["seconds"]["fit"] / (2 * two["seconds"]["fit"]), 3),
        "efficiency_cpu": round(sum(one["worker_cpu_s"]) / sum(two["worker_cpu_s"]), 3),
        "costs": costs,
        "model": [model(costs, workers=workers) for workers in (1, 16, 64, 256, 1_024)],
    }


def sent_bytes(workers: int) -> float:
    """Return what each worker sends in a round: histograms, 16 bytes a bin, of full trees, round the ring."""
    # Of the root, and of the smaller one of each two siblings.
    histograms = CLASSES * 2 ** (DEPTH - 1) * COLUMNS * BINS * 16
    return 2 * histograms * (workers - 1) / workers


def model(
    costs: dict[str, float],
    *,
    workers: int,
    symbols: int = 1_000,
    days: int = 365,
    stride: int = 100,
    cores: int = 4,
    folds: int = 4,
    members: int = 5,
    rounds: int = 300,
    gbit_s: float = 25.0,
) -> dict[str, float]:
    """Return the hours of a training, and the memory of a worker, from the costs of a row.

    Parameters
    ----------
    costs : as ``_costs`` measures them
    workers, cores : machines' shares: workers, and cores of each, at full use
    symbols, days, stride : what is trained on; every ``stride``-th frame becomes a row, all are walked
    folds, members, rounds : of the training, no fold stopping early
    gbit_s : what the network gives a worker
    """
    frames = 864_000.0 * days * symbols
    rows = frames / stride
    shares = [0.3 + 0.7 * fold / folds for fold in range(folds)]  # of the rows before each test interval
    # Four walks for a matrix, three for the stopping rows in it (15 %); counting; held-out rows; all rows.
    walks = 1 + sum(share * (4 * 0.85 + 3 * 0.15) for share in shares) + 0.7 + 4
    matrices = sum(shares) + 1
    all_cores = workers * cores
    # A walk begins at a part, half of it in vain, and warms up; it ends a chunk behind its piece.
    piece_s = days * 86_400 / workers * sum(shares) / folds
    ahead = 0.0 if workers == 1 else (days * 86_400 / PARTS / 2 + WARM_UP_S + CHUNK_S) / piece_s
    walk_h = (1.0 + ahead) * walks * frames * costs["walk_us"] / 1e6 / all_cores / 3_600
    bin_h = matrices * rows * costs["bin_us"] / 1e6 / all_cores / 3_600
    boost_h = matrices * members * rounds * rows * costs["round_us"] / 1e6 / all_cores / 3_600
    rounds_all = (folds + 1) * members * rounds
    # What a round costs whatever the rows: every worker evaluates the splits of all bins. On one core here.
    splits_h = rounds_all * costs["round_ms"] / 1e3 / 3_600
    # The way over the network, and the processor's part in it: not at the same time.
    exchange_s = sent_bytes(workers) / 1e9 * (8 / gbit_s + costs["exchange_s_per_gb"])
    network_h = rounds_all * exchange_s / 3_600
    total = walk_h + bin_h + boost_h + splits_h + network_h
    alone = (walk_h / (1.0 + ahead) + bin_h + boost_h) * workers + splits_h
    return {
        "workers": workers,
        "rows": rows,
        "hours": round(total, 2),
        "walk_h": round(walk_h, 2),
        "bin_h": round(bin_h, 2),
        "boost_h": round(boost_h, 2),
        "splits_h": round(splits_h, 2),
        "network_h": round(network_h, 2),
        "efficiency": round(alone / (workers * total), 3),
        # One byte by row and one by column for each value, and 56 of gradients, margins, labels and weights.
        "worker_gb": round(rows * (2 * COLUMNS + 56) / workers / 1e9, 1),
    }


def _config() -> TrainConfig:
    return TrainConfig(
        venue=VENUE,
        label=LabelConfig(horizon_ms=1_000, threshold_bps=1.0),
        split=SplitConfig(folds=2),
        booster=BOOSTER,
        ensemble=EnsembleConfig(members=2),
    )


def _train(archive: Path, out: Path, workers: int) -> dict[str, Any]:
    """Train once; return seconds by phase, and the CPU seconds of every worker."""
    cpu: dict[int, float] = {}
    began: dict[str, float] = {}

    def told(_: float, __: float | None = None, note: str = "") -> None:
        phase = note.split(",")[0].split(" of ")[0]
        began.setdefault("fit" if phase.startswith(("fold", "final")) else phase, time.perf_counter())
        cpu.update({process.pid: sum(process.cpu_times()[:2]) for process in _workers()})

    with connected(cpus=workers):
        result = train_on_ray(
            archive, out, workers=workers, config=_config(), device="cpu", threads=1, on_progress=told
        )
    end = time.perf_counter()
    held_out = began["predicting held-out rows"]
    fitted = [*(BOOSTER.rounds for fold in result.folds for _ in fold.rounds), *result.rounds]
    return {
        "rows": result.training.rows,
        "rounds": sum(fitted),
        "log_loss": result.overall.log_loss,
        "seconds": {
            "count": round(began["starting workers"] - began["counting rows"], 1),
            # From the call to the first round: the processes, and the first matrix.
            "start": round(began["fit"] - began["starting workers"], 1),
            "fit": round(held_out - began["fit"], 1),
            "rest": round(end - held_out, 1),
        },
        "worker_cpu_s": [round(seconds, 1) for seconds in cpu.values()],
    }


def _workers() -> Iterator[Any]:
    import psutil

    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                yield process
        except psutil.NoSuchProcess:
            continue


def _start() -> float:
    """Return the CPU seconds of a process that imports what a worker does."""
    code = (
        "import time, ray, gpuscalp.distributed.work, xgboost; from ray.train.xgboost import XGBoostTrainer; "
        "print(time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return round(float(done.stdout), 1)


def _costs(archive: Path) -> dict[str, float]:
    """Return CPU time on one thread: of a symbol's frame walked, a row binned, a row in a round, a round.

    Binning is without the walks that it makes.
    """
    from gpuscalp.archive import Archive
    from gpuscalp.train.dataset import labelled_chunks
    from gpuscalp.train.device import training_device
    from gpuscalp.train.fit import fit_members
    from gpuscalp.train.iterator import binned_matrix
    from gpuscalp.train.source import ArchiveSource

    config, device = _config(), training_device("cpu")
    source = ArchiveSource.open(Archive.open(archive), config, threads=1)
    frames = 0
    walks: list[float] = []
    for _ in range(2):  # the first one loads compiled code
        began, frames = time.process_time(), 0
        kept = []
        for chunk in labelled_chunks(source.chunks(), config):
            frames += chunk.taken.size
            kept.extend(chunk.rows(chunk.taken, device))
        walks.append(time.process_time() - began)
    sizes, round_s, binned = [], [], 0.0
    for some in (kept[: len(kept) // 4], kept):
        began = time.process_time()
        matrix, _ = binned_matrix(partial(iter, some), device=device, max_bin=BINS, threads=1, what="rows")
        binned = time.process_time() - began
        spent = []
        for count in (5, 20):
            began = time.process_time()
            fit_members(matrix, config=BOOSTER, seeds=(1,), rounds=(count,), device="cpu", threads=1)
            spent.append(time.process_time() - began)
        sizes.append(matrix.num_row())
        round_s.append((spent[1] - spent[0]) / 15)
    per_row = (round_s[1] - round_s[0]) / (sizes[1] - sizes[0])
    return {
        "walk_us": round(walks[-1] / frames * 1e6, 2),
        "bin_us": round(binned / sizes[1] * 1e6, 2),
        "round_us": round(per_row * 1e6, 3),
        "round_ms": round(max(round_s[1] - per_row * sizes[1], 0.0) * 1e3, 1),
    }
