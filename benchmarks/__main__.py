"""All benchmarks: ``python -m benchmarks [NAME …] [--json] [--out FILE]``.

Without a name: batch, stream, forest, training, import and worker. ``drift`` and ``adaptation`` take minutes;
``distributed`` wants Ray; ``backtest`` wants recordings and peers; ``gpu``, ``gpu_batch``, ``gpu_worker`` and
``gpu_recordings`` run what needs a CUDA device and fail without one; ``crossover`` measures both devices, or
the CPU alone, and writes no profile. Of ``gpu`` and ``gpu_batch`` parts can be named: ``gpu_batch.training``.
With ``--out`` the result, with commit, machine and versions, is written to a file after each of them, and
after each part; in a folder it gets the name of the GPU (or "cpu") and the date. With ``--add`` what the file
has of others stays, with the commit of each in ``commits``. One that fails is in the result with its error,
the others run all the same, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.bars import PARTS
from benchmarks.environment import ROOT, environment
from benchmarks.parts import attempt, failures


def _from(module: str, function: str = "run", **options: Any) -> Callable[..., dict[str, Any]]:
    """Return a function of a module that is imported when it is called."""
    return lambda **more: getattr(import_module(module), function)(**options, **more)


def stream() -> dict[str, Any]:
    from gpuscalp.bench import stream as bench

    return {
        "by_symbols": [bench.run(symbols=count, ticks_per_frame=4 * count) for count in (1, 10, 100, 500)]
    }


def forest() -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bench_forest", "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    return dict(json.loads(done.stdout))


# What runs where none is named.
USUAL: dict[str, Callable[..., dict[str, Any]]] = {
    "batch": _from("gpuscalp.bench.batch"),
    "stream": stream,
    "forest": forest,
    "training": _from("benchmarks.bench_training"),
    "import": _from("benchmarks.bench_import"),
    "worker": _from("benchmarks.bench_worker"),
}
BENCHMARKS = USUAL | {
    "drift": _from("benchmarks.bench_drift"),
    "adaptation": _from("benchmarks.bench_adaptation"),
    "distributed": _from("benchmarks.bench_distributed"),
    "backtest": _from("benchmarks.bench_backtest"),
    "gpu": _from("benchmarks.bench_gpu"),
    "gpu_batch": _from("benchmarks.bench_gpu_batch"),
    "gpu_recordings": _from("benchmarks.gpu_recordings"),
    "gpu_worker": _from("benchmarks.bench_worker", device="cuda"),
    "crossover": _from("gpuscalp.bench.crossover", "measure"),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, *part_names(), []], help="which")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--out", type=Path, help="also write the result to this file, or into this folder")
    parser.add_argument("--add", action="store_true", help="keep what the file has of others")
    parser.add_argument(
        "--minutes", type=float, default=1.0, help="gpu: how long to step for the slope of its memory"
    )
    arguments = parser.parse_args()
    names = arguments.names or list(USUAL)
    found = environment()
    result: dict[str, Any] = {}
    out: Path | None = arguments.out
    if out is not None:
        out = out / result_name(found) if out.is_dir() else out
        result = json.loads(out.read_text(encoding="utf-8")) if arguments.add and out.exists() else {}
    result |= {"environment": found}
    failed: list[str] = []

    def keep(name: str, older: dict[str, Any], measured: dict[str, Any]) -> None:
        result[name] = older | measured
        if out is not None:
            write(out, result)

    for name, only in _by_benchmark(names).items():
        older = {part: value for part, value in result.get(name, {}).items() if only and part != "failed"}
        kept = partial(keep, name, older)
        options: dict[str, Any] = {"only": only, "keep": kept} if PARTS.get(name) else {}
        if name == "gpu":
            options["minutes"] = arguments.minutes
        if arguments.add:
            run = [f"{name}.{part}" for part in only or PARTS.get(name, ())] or [name]
            commits = dict.fromkeys(run, found["commit"])
            result["commits"] = result.get("commits", {}) | commits
        measured = attempt(name, partial(BENCHMARKS[name], **options))
        failed += failures(measured)
        kept(measured)
        if not arguments.json:
            print(f"{name}: {json.dumps(measured, indent=2)}", flush=True)
    if arguments.json:
        print(json.dumps(result, indent=2))
    return 1 if failed else 0


def part_names() -> list[str]:
    """Return the names of what can run alone."""
    return [f"{name}.{part}" for name, parts in PARTS.items() for part in parts]


def _by_benchmark(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the benchmarks in their order, each with the parts of it that are named; none: all of it."""
    found: dict[str, list[str]] = {}
    for name in names:
        benchmark, _, part = name.partition(".")
        found.setdefault(benchmark, [])
        found[benchmark] += [part] if part and benchmark not in names else []
    return found


def write(out: Path, result: dict[str, Any]) -> None:
    """Write a result, whole or not at all: whoever ends a run may do it now."""
    out.parent.mkdir(parents=True, exist_ok=True)
    replaced = out.with_suffix(".new")
    replaced.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    replaced.replace(out)


def result_name(found: dict[str, Any]) -> str:
    """Return ``<device>-<date>.json`` for an environment."""
    title = found["cuda"]["name"] if found["cuda"]["usable"] else "cpu"
    device = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"{device}-{found['date'][:10]}.json"


if __name__ == "__main__":
    sys.exit(main())
