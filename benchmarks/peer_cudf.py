"""Run by an interpreter that has cuDF: its rolling windows over a table that lies on the device.

    python peer_cudf.py OUT.npz GIVEN.npz

GIVEN.npz is written by ``benchmarks.bench_gpu_batch``: ``channels`` float32[C, T], ``windows``, ``repeats``.
OUT.npz has the least ``seconds`` of a round, and as ``<operation>.<window>`` the last values of the first
channel. Imports nothing of gpuscalp.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import cudf
import cupy
import numpy as np

OPERATIONS = ("mean", "std", "min", "max")
CHECKED = 20_000


def main() -> None:
    given = np.load(sys.argv[2])
    table = cudf.DataFrame({str(index): channel for index, channel in enumerate(given["channels"])})

    def rolling() -> list[Any]:
        found = [
            getattr(table.rolling(window), name)()
            for window in given["windows"].tolist()
            for name in OPERATIONS
        ]
        cupy.cuda.runtime.deviceSynchronize()
        return found

    last = [frame["0"].tail(CHECKED).to_numpy() for frame in rolling()]
    names = [f"{name}.{window}" for window in given["windows"].tolist() for name in OPERATIONS]
    seconds = []
    for _ in range(int(given["repeats"])):
        start = time.perf_counter()
        rolling()
        seconds.append(time.perf_counter() - start)
    np.savez(sys.argv[1], seconds=min(seconds), **dict(zip(names, last, strict=True)))


if __name__ == "__main__":
    main()
