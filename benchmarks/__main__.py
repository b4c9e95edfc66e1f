"""All benchmarks: ``python -m benchmarks [NAME …] [--json] [--out FILE]``.

Without a name: batch, stream, forest, training and import. ``gpu`` runs what needs a CUDA device and fails
without one. With ``--out`` the result, with commit, machine and versions, is written to a file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT, environment


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


def gpu() -> dict[str, Any]:
    from benchmarks import bench_gpu

    return bench_gpu.run()


BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "batch": batch,
    "stream": stream,
    "forest": forest,
    "training": training,
    "import": import_,
    "gpu": gpu,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which; default all but gpu")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    names = arguments.names or [name for name in BENCHMARKS if name != "gpu"]
    result: dict[str, Any] = {"environment": environment()}
    for name in names:
        print(f"{name} …", file=sys.stderr)
        result[name] = BENCHMARKS[name]()
        if not arguments.json:
            print(f"{name}: {json.dumps(result[name], indent=2)}")
    text = json.dumps(result, indent=2)
    if arguments.json:
        print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
