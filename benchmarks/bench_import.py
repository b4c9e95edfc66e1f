"""Import of recordings against the least that any importer must do: read the lines, parse their JSON."""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from gpuscalp.archive.ingest import import_sources

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "data" / "binance" / "usdm"
PATTERN = "*usdt_2024071?.gz"


def run() -> dict[str, Any]:
    """Import every recording of one clock once, and parse the same lines with the standard library."""
    sources = sorted(RECORDINGS.glob(PATTERN))
    if not sources:
        return {"skipped": f"no recordings at {RECORDINGS / PATTERN}"}
    start = time.perf_counter()
    lines = 0
    for source in sources:
        with gzip.open(source, "rb") as file:
            for line in file:
                json.loads(line.partition(b" ")[2])
                lines += 1
    parse_s = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        report = import_sources(sources, Path(folder) / "archive").to_dict()
    assert report["lines"] == lines, "every line is read"
    assert report["rejects"] == 0
    return {
        "lines": lines,
        "rows": report["rows"],
        "seconds": {"import": report["seconds"], "json_loads": round(parse_s, 3)},
        "lines_per_s": round(lines / report["seconds"]),
        "ratio_json_loads": round(report["seconds"] / parse_s, 2),
    }
