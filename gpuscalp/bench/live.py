"""A live session's speed: from the close of a frame to its orders, and all of it under load.

Owns: what is asked for, and the answer's keys. The two measurements: ``frame_close`` (no sockets, one step at
a time) and ``whole`` (sockets, a sender in a second process, as long as is asked for).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

from gpuscalp.bench import frame_close, whole
from gpuscalp.bench.timing import step_by_step
from gpuscalp.errors import UsageError
from gpuscalp.progress import Progress, silent

# Fewer messages of a symbol, and its streams pause for longer than a live stream may.
_LEAST_RATE: Final = 10
_FRAMES: Final = 1_000


def run(
    symbols: int = 200,
    rate: int = 20_000,
    duration_s: float = 10.0,
    redundancy: int = 1,
    *,
    frames: int = _FRAMES,
    rounds: int = 300,
    told: Progress = silent,
) -> dict[str, Any]:
    """Measure both.

    Parameters
    ----------
    symbols, rate : S, and messages a second over all of them
    duration_s : of the run under load
    redundancy : connections that bring each message, under load
    frames : timed one by one
    rounds : of the made-up model, times 5 members and 3 classes
    told : which of the two it is at

    Returns
    -------
    dict: ``p50_ms``, ``p99_ms``, ``overhead_p99_ms`` and ``stages`` of the close of a frame, one step at a
    time (see ``frame_close.measure``); everything else under load (see ``whole.measure``)

    Raises
    ------
    UsageError    the rate is too small for so many symbols
    """
    if rate < _LEAST_RATE * symbols:
        raise UsageError(
            "streams that pause for seconds count as silent",
            where="--rate",
            value=rate,
            fix=f"at least {_LEAST_RATE * symbols} messages a second for {symbols} symbols",
        )
    begin = step_by_step(told, 2)
    begin(f"{frames:,} frames, one by one")
    with tempfile.TemporaryDirectory() as folder:
        closed = frame_close.measure(Path(folder), symbols=symbols, rate=rate, frames=frames, rounds=rounds)
    begin(f"under load, {duration_s:g} s")
    with tempfile.TemporaryDirectory() as folder:
        loaded = whole.measure(
            Path(folder),
            symbols=symbols,
            rate=rate,
            duration_s=duration_s,
            redundancy=redundancy,
            rounds=rounds,
        )
    renamed = {f"timed_{name}": closed.pop(name) for name in ("frames", "intents", "orders")}
    return closed | renamed | loaded
