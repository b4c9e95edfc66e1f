"""What a worker is told when it starts, and how symbols are divided among workers.

Owns: plain data. Never: a process or a device.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from msgspec import Struct

from gpuscalp.errors import UsageError
from gpuscalp.schema import Instrument
from gpuscalp.worker.faults import WorkerFault


class WorkerSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One worker: all symbols' features, and the predictions of some rows.

    Attributes
    ----------
    bundle : path of the model
    instruments : S, in the order of the session
    gpu : as CUDA counts in the session's process; on the CPU it only tells workers apart
    rows : first and past of S, whose margins it answers
    canary_ms : how often it predicts the bundle's canary rows
    faults : to be brought about
    """

    bundle: str
    instruments: tuple[Instrument, ...]
    device: Literal["cpu", "cuda"]
    gpu: int
    rows: tuple[int, int]
    predictor: Literal["forest", "xgboost"]
    canary_ms: int
    faults: tuple[WorkerFault, ...] = ()


def shard(symbol_count: int, workers: int) -> list[range]:
    """Return one contiguous range of rows for each worker; their lengths differ by one at most.

    Raises
    ------
    UsageError
        there are more workers than symbols, or none
    """
    if not 1 <= workers <= symbol_count:
        raise UsageError(
            "every worker needs a symbol",
            value=f"{workers} workers, {symbol_count} symbols",
            fix="set engine.gpus to between 1 and the number of symbols",
        )
    cuts = [symbol_count * index // workers for index in range(workers + 1)]
    return [range(first, past) for first, past in pairwise(cuts)]
