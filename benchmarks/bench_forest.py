"""The forest against XGBoost's ``inplace_predict``: ``python -m benchmarks.bench_forest``.

First the check: margins of 100,000 rows with missing values, every bit. Then the time, one thread each, on
rotating inputs, both sides in turn on the same input; XGBoost is called once per member. Exit code 1 if a bit
differs or a ratio is below its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from gpuscalp.device import core_count
from gpuscalp.device_choice import processor
from gpuscalp.forest_reader import read_booster
from gpuscalp.ops.forest import Forest, ForestScratch, predict_margins

COLUMN_COUNT = 200
CLASS_COUNT = 3
CHECKED_ROWS = 100_000
# Rows of a call, and how many times as fast as XGBoost the forest has to be.
BARS: dict[int, float | None] = {
    1: 4.0, 2: None, 4: None, 8: 2.5, 16: None, 64: 2.0, 256: 2.0, 512: 2.0, 1024: 2.0, 4096: 2.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timing:
    """Both sides for one number of rows; times of a call are medians over the inputs, in µs."""

    rows: int
    inputs: int
    xgboost_us: float
    forest_us: float
    forest_p99_us: float
    ratio: float
    bar: float | None


def random_rows(rng: np.random.Generator, row_count: int, column_count: int) -> np.ndarray:
    """Return float32[R, F]: one value in twenty is missing, and one row in a hundred altogether."""
    x = rng.standard_normal((row_count, column_count), np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    x[rng.random(row_count) < 0.01] = np.nan
    return x


def train_members(
    member_count: int, rounds: int, depth: int, row_count: int, *, x: np.ndarray | None = None
) -> list[xgboost.Booster]:
    """Train boosters whose classes hang on twenty columns and one product; the rest is noise.

    The rows are random, or those of ``x``.
    """
    rng = np.random.default_rng(11)
    x = random_rows(rng, row_count, COLUMN_COUNT) if x is None else x
    deviation = np.nanstd(x, axis=0)
    known = np.nan_to_num((x - np.nanmean(x, axis=0)) / np.where(deviation > 0, deviation, 1))
    signal = known[:, :20] @ rng.standard_normal(20) + 2 * known[:, 20] * known[:, 21]
    signal += 3 * rng.standard_normal(len(x))
    label = np.digitize(signal, np.quantile(signal, [1 / 3, 2 / 3]))

    def train(seed: int) -> xgboost.Booster:
        params = {
            "objective": "multi:softprob",
            "num_class": CLASS_COUNT,
            "max_depth": depth,
            "max_bin": 64,
            "eta": 0.1,
            "subsample": 0.8,
            # Only the shape of the trees matters here, and few columns a tree are trained faster.
            "colsample_bytree": 0.2,
            "seed": seed,
            # More threads wait for each other at every node, which takes far longer on a busy machine.
            "nthread": 1,
        }
        # A matrix of its own: members that share nothing are trained side by side.
        booster = xgboost.train(params, xgboost.QuantileDMatrix(x, label, max_bin=64, nthread=1), rounds)
        print(f"trained member {seed + 1} of {member_count}", file=sys.stderr)
        return booster

    with ThreadPoolExecutor(min(member_count, core_count())) as pool:
        return list(pool.map(train, range(member_count)))


def load_members(paths: list[Path]) -> list[xgboost.Booster]:
    """Load boosters that were saved as JSON."""
    return [xgboost.Booster(model_file=path) for path in paths]


def reference(boosters: list[xgboost.Booster], x: np.ndarray) -> list[np.ndarray]:
    """Return what XGBoost says, one float32[R, K] per member."""
    return [booster.inplace_predict(x, predict_type="margin") for booster in boosters]


def differing_values(boosters: list[xgboost.Booster], forest: Forest, row_count: int) -> int:
    """Return how many of M · R · K margins differ from XGBoost's in any bit."""
    rng = np.random.default_rng(12)
    scratch = ForestScratch.of(forest)
    differing, done = 0, 0
    while done < row_count:
        # Calls of many sizes, so that every path of the code takes part.
        count = min(int(rng.choice([1, 2, 3, 5, 8, 63, 64, 65, 500, 4096, 9000])), row_count - done)
        x = random_rows(rng, count, forest.feature_count)
        out = np.empty((forest.member_count, count, forest.class_count), np.float32)
        predict_margins(forest, x, out=out, scratch=scratch)
        wanted = np.stack(reference(boosters, x)).reshape(out.shape)
        differing += int(np.count_nonzero(out.view(np.uint32) != wanted.view(np.uint32)))
        done += count
    return differing


def measure(
    boosters: list[xgboost.Booster], forest: Forest, row_count: int, input_count: int, bar: float | None
) -> Timing:
    """Time both sides in turn on ``input_count`` different pieces of one pool of rows."""
    rng = np.random.default_rng(row_count)
    step = max(1, min(row_count, 100_000 // input_count))
    pool = random_rows(rng, row_count + step * input_count, forest.feature_count)
    out = np.empty((forest.member_count, row_count, forest.class_count), np.float32)
    scratch = ForestScratch.of(forest)
    taken = np.empty((2, input_count))
    for index in range(-2, input_count):  # two to warm up
        start = step * max(index, 0)
        x = pool[start : start + row_count]
        begin = time.perf_counter_ns()
        reference(boosters, x)
        between = time.perf_counter_ns()
        predict_margins(forest, x, out=out, scratch=scratch)
        end = time.perf_counter_ns()
        if index >= 0:
            taken[:, index] = between - begin, end - between
    theirs, ours = np.median(taken, axis=1) / 1e3
    return Timing(
        rows=row_count,
        inputs=input_count,
        xgboost_us=round(float(theirs), 1),
        forest_us=round(float(ours), 1),
        forest_p99_us=round(float(np.percentile(taken[1], 99)) / 1e3, 1),
        ratio=round(float(theirs / ours), 2),
        bar=bar,
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, check and time; return what ``--json`` prints."""
    if arguments.boosters:
        boosters = load_members(arguments.boosters)
    else:
        boosters = train_members(
            arguments.members, arguments.rounds, arguments.depth, arguments.training_rows
        )
    for booster in boosters:
        booster.set_param({"nthread": 1})
    forest = Forest.join([read_booster(bytes(booster.save_raw("json"))) for booster in boosters])
    differing = differing_values(boosters, forest, arguments.checked_rows)
    print(f"checked {arguments.checked_rows} rows: {differing} values differ", file=sys.stderr)
    # A large input has as many different paths in it as many small ones, and takes as long.
    inputs = {rows: max(20, min(arguments.inputs, 50_000 // rows)) for rows in BARS}
    timings = [measure(boosters, forest, rows, inputs[rows], bar) for rows, bar in BARS.items()]
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "xgboost": xgboost.__version__,
        "machine": processor(),
        "load_average": round(os.getloadavg()[0], 2),
        "members": forest.member_count,
        "trees": forest.tree_count,
        "nodes": len(forest.left),
        "columns": forest.feature_count,
        "checked_rows": arguments.checked_rows,
        "differing": differing,
        "timings": [asdict(timing) for timing in timings],
        "ok": differing == 0 and all(timing.bar is None or timing.ratio >= timing.bar for timing in timings),
    }


def print_table(result: dict[str, Any]) -> None:
    """Print what a person wants to see."""
    print(f"XGBoost {result['xgboost']}, Python {result['python']}, {result['machine']}, one thread each")
    print(f"{result['trees']} trees, {result['nodes']} nodes, {result['columns']} columns")
    print(f"{result['checked_rows']} rows checked, {result['differing']} values differ")
    print(f"{'rows':>6}{'XGBoost µs':>14}{'forest µs':>14}{'p99 µs':>12}{'ratio':>9}{'bar':>7}")
    for timing in result["timings"]:
        bar = "" if timing["bar"] is None else f"{timing['bar']:.1f}"
        print(
            f"{timing['rows']:>6}{timing['xgboost_us']:>14,.1f}{timing['forest_us']:>14,.1f}"
            f"{timing['forest_p99_us']:>12,.1f}{timing['ratio']:>9.2f}{bar:>7}"
        )
    print("all bars met" if result["ok"] else "NOT all bars met")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.add_argument(
        "--boosters", type=Path, nargs="+", help="members saved as JSON, to be used instead of training some"
    )
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--training-rows", type=int, default=10_000)
    parser.add_argument("--checked-rows", type=int, default=CHECKED_ROWS)
    parser.add_argument(
        "--inputs",
        type=int,
        default=200,
        help="different inputs for each number of rows, fewer from 512 rows on",
    )
    arguments = parser.parse_args()
    result = run(arguments)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print_table(result)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
