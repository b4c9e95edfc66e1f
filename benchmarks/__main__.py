"""All benchmarks: ``python -m benchmarks [NAME …] [--json] [--out FILE]``.

Without a name: batch, stream, forest, training, import and worker. ``drift`` and ``adaptation`` take minutes;
``distributed`` wants Ray; ``backtest`` wants recordings and peers; ``gpu``, ``gpu_batch``, ``gpu_worker`` and
``gpu_recordings`` run what needs a CUDA device and fail without one; ``crossover`` measures both devices, or
the CPU alone, and writes no profile. With ``--out`` the result, with commit, machine and versions, is written
to a file after each of them; in a folder it gets the name of the GPU (or "cpu") and the date. One that fails
is in the result with its error, the others run all the same, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT, environment
from benchmarks.parts import attempt, failures


def batch() -> dict[str, Any]:
    from gpuscalp.bench import batch as bench

    return bench.run()


def stream() -> dict[str, Any]:
    from gpuscalp.bench import stream as bench

    return {
        "by_symbols": [bench.run(symbols=count, ticks_per_frame=4 * count) for count in (1, 10, 100, 500)]
    }


def forest() -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bench_forest", "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    return dict(json.loads(done.stdout))


def training() -> dict[str, Any]:
    from benchmarks import bench_training

    return bench_training.run()


def import_() -> dict[str, Any]:
    from benchmarks import bench_import

    return bench_import.run()


def worker() -> dict[str, Any]:
    from benchmarks import bench_worker

    return bench_worker.run()


def gpu_worker() -> dict[str, Any]:
    from benchmarks import bench_worker

    return bench_worker.run(device="cuda")


def drift() -> dict[str, Any]:
    from benchmarks import bench_drift

    return bench_drift.run()


def adaptation() -> dict[str, Any]:
    from benchmarks import bench_adaptation

    return bench_adaptation.run()


def distributed() -> dict[str, Any]:
    from benchmarks import bench_distributed

    return bench_distributed.run()


def backtest() -> dict[str, Any]:
    from benchmarks import bench_backtest

    return bench_backtest.run()


def gpu(minutes: float = 1.0) -> dict[str, Any]:
    from benchmarks import bench_gpu

    return bench_gpu.run(minutes=minutes)


def gpu_batch() -> dict[str, Any]:
    from benchmarks import bench_gpu_batch

    return bench_gpu_batch.run()


def gpu_recordings() -> dict[str, Any]:
    from benchmarks import gpu_recordings as bench

    return bench.run()


def crossover() -> dict[str, Any]:
    from gpuscalp.bench import crossover as bench

    return bench.measure()


BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "batch": batch,
    "stream": stream,
    "forest": forest,
    "training": training,
    "import": import_,
    "worker": worker,
    "drift": drift,
    "adaptation": adaptation,
    "distributed": distributed,
    "backtest": backtest,
    "gpu": gpu,
    "gpu_batch": gpu_batch,
    "gpu_recordings": gpu_recordings,
    "gpu_worker": gpu_worker,
    "crossover": crossover,
}
# What runs only where it is named.
NAMED_ONLY = (
    "drift",
    "adaptation",
    "distributed",
    "backtest",
    "gpu",
    "gpu_batch",
    "gpu_recordings",
    "gpu_worker",
    "crossover",
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--out", type=Path, help="also write the result to this file, or into this folder")
    parser.add_argument(
        "--minutes", type=float, default=1.0, help="gpu: how long to step for the slope of its memory"
    )
    arguments = parser.parse_args()
    names = arguments.names or [name for name in BENCHMARKS if name not in NAMED_ONLY]
    result: dict[str, Any] = {"environment": environment()}
    for name in names:
        measure = partial(gpu, arguments.minutes) if name == "gpu" else BENCHMARKS[name]
        result[name] = attempt(name, measure)
        if not arguments.json:
            print(f"{name}: {json.dumps(result[name], indent=2)}", flush=True)
        if arguments.out:
            write(arguments.out, result)
    if arguments.json:
        print(json.dumps(result, indent=2))
    return 1 if failures(result) else 0


def write(out: Path, result: dict[str, Any]) -> None:
    """Write a result to a file, or into a folder."""
    out = out / result_name(result["environment"]) if out.is_dir() else out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def result_name(found: dict[str, Any]) -> str:
    """Return ``<device>-<date>.json`` for an environment."""
    title = found["cuda"]["name"] if found["cuda"]["usable"] else "cpu"
    device = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"{device}-{found['date'][:10]}.json"


if __name__ == "__main__":
    sys.exit(main())
