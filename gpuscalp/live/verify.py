"""The proof of a session: everything that it decided, computed once more from what it was told.

Owns: the answer. The session is only read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpuscalp.journal.blocks import Record
from gpuscalp.journal.reader import JournalReader
from gpuscalp.live.directory import build, open_models, read_about
from gpuscalp.live.engine import Outcome
from gpuscalp.live.repeat import Repeater
from gpuscalp.progress import Progress, silent


def verify(path: Path, *, told: Progress = silent) -> dict[str, Any]:
    """Repeat a session from its first message and compare every feature, prediction, verdict, order and fill.

    Parameters
    ----------
    path : directory of the session, which need not have ended
    told : told how many records have been read

    Returns
    -------
    ``frames``, ``rows`` compared · ``differing`` rows whose features or margins differ ·
    ``unproved_differing`` rows of which a worker had said something else, and on which nothing could follow ·
    ``verdicts_differing`` verdicts, orders, fills and states · ``differing_by_kind`` · ``first`` in words ·
    ``records`` read · ``ended`` cleanly · ``torn_bytes`` at the end that are no whole block

    Raises
    ------
    UsageError      there is no session
    ModelError      one of its models is not there, or is not the one that it ran
    JournalError    a byte of the journal was altered, or a part is missing
    """
    began = time.perf_counter()
    about = read_about(path)
    models, pipeline = open_models(path, about)
    market, engine = build(about, models, pipeline)
    frames = 0

    def count(outcome: Outcome) -> None:
        nonlocal frames
        frames += outcome.frames

    repeater = Repeater(market, engine, on_step=count)
    reader = JournalReader(path / "journal", torn=True)
    records = 0

    def read() -> Iterator[Record]:
        nonlocal records
        for block in reader.blocks():
            yield from block
            records += len(block)
            told(records, None, f"{frames:,} frames")

    repeater.run(read())
    found = repeater.differences
    return {
        "session": str(path),
        "device": about.device,
        "frames": found.frames,
        "rows": found.rows,
        "differing": found.differing,
        "margins_differing": found.margins_differing,
        "unproved_differing": found.unproved_differing,
        "verdicts_differing": sum(found.other_differing.values()),
        "differing_by_kind": found.other_differing,
        "first": found.first or None,
        "records": records,
        "ended": reader.ended,
        "torn_bytes": reader.torn_bytes,
        "seconds": time.perf_counter() - began,
    }
