"""A real recording, damaged on purpose: every damaged line must leave exactly the trace that docs/data.md
promises for its kind."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.archive.ingest import import_sources
from gpuscalp.archive.manifest import load
from gpuscalp.archive.verify import verify
from tests.archive.damage import KINDS, damage
from tests.archive.market import write


@pytest.mark.parametrize("seed", [1, 2])
def test_every_damaged_line_is_accounted_for(recordings: Path, tmp_path: Path, seed: int) -> None:
    lines: list[bytes] = []
    for day in ("18", "19"):
        with gzip.open(recordings / "usdm" / f"ethusdt_202407{day}.gz") as file:
            lines += file.read().splitlines()[: 13_000 if day == "19" else None]
    damaged = damage(lines, share=0.01, seed=seed)
    assert min(len(damaged.done[kind]) for kind in KINDS) > 20

    report = import_sources([write(tmp_path / "eth.gz", damaged.lines)], tmp_path / "archive")
    answer, (source,) = report.to_dict(), report.sources

    assert answer["rejects"] == len(damaged.done["cut"]) + len(damaged.done["garbled"])
    assert answer["duplicates"] == len(damaged.done["repeated"])
    assert answer["out_of_order"] == len(damaged.done["swapped"])
    assert answer["late"] == 0
    assert answer["crossed_books"] == 0
    accounted = sum(source.messages.values()) + answer["rejects"] + sum(source.set_aside.values())
    assert source.lines == len(damaged.lines) == accounted

    lost = {index for kind in ("removed", "cut", "garbled") for index in damaged.done[kind]}
    messages = [json.loads(line.partition(b" ")[2]) for line in lines]
    kept = [message for index, message in enumerate(messages) if index not in lost]
    gaps = {(gap.kind, gap.first_id, gap.last_id) for gap in load(tmp_path / "archive").gaps}
    assert gaps == _expected_gaps(kept)
    assert answer["gaps"] == len(gaps) > 40

    kinds = Counter(message["data"]["e"] for message in kept if "data" in message)
    assert answer["rows_by_table"]["trades"] == kinds["trade"]
    assert answer["rows_by_table"]["quotes"] == kinds["bookTicker"]
    assert source.messages["depth"] - _repeated(damaged.done, messages, "depthUpdate") == (
        kinds["depthUpdate"] - source.set_aside.get("before_snapshot", 0)
    )
    checked = verify(tmp_path / "archive")
    assert (checked.problems, checked.missing_ids_outside_gaps) == ([], 0)
    (rejects,) = (tmp_path / "archive" / "rejects").iterdir()
    numbers = [json.loads(line)["line"] for line in rejects.read_text().splitlines()]
    assert len(set(numbers)) == answer["rejects"]


def _expected_gaps(kept: list[dict[str, Any]]) -> set[tuple[str, int, int]]:
    """Follow the ids of what is left, in the order of the undamaged file."""
    gaps, last_trade, last_update = set(), None, None
    for message in kept:
        data = message.get("data", {})
        if data.get("e") == "trade":
            if last_trade is not None and data["t"] != last_trade + 1:
                gaps.add(("trade_id", last_trade + 1, data["t"] - 1))
            last_trade = data["t"]
        elif data.get("e") == "depthUpdate":
            if last_update is not None and data["pu"] != last_update:
                gaps.add(("depth", last_update + 1, data["pu"]))
            last_update = data["u"]
    return gaps


def _repeated(done: dict[str, list[int]], messages: list[dict[str, Any]], event: str) -> int:
    return sum(messages[index].get("data", {}).get("e") == event for index in done["repeated"])
