"""What an archive holds, from its manifest alone.

Owns: the answer of ``data info``. Never: opens a Parquet file.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from msgspec import structs

from gpuscalp.archive import manifest as manifests
from gpuscalp.archive.manifest import Manifest
from gpuscalp.archive.tables import TABLES


def describe(path: str | Path) -> dict[str, Any]:
    """Return rows, time ranges, gaps and sources of an archive.

    Returns
    -------
    dict
        ``venues``: by venue and symbol the instrument, the gaps and the tables; ``days``: one entry for each
        venue, symbol, day and table; ``sources``; ``totals``

    Raises
    ------
    UsageError
        there is no archive
    ArchiveError
        its manifest cannot be read
    """
    manifest = manifests.load(Path(path))
    symbols = sorted({(part.venue, part.symbol) for part in manifest.parts})
    return {
        "path": str(path),
        "gpuscalp": manifest.gpuscalp,
        "pyarrow": manifest.pyarrow,
        "totals": {
            "rows": sum(part.rows for part in manifest.parts),
            "bytes": sum(part.bytes for part in manifest.parts),
            "files": len(manifest.parts),
            "gaps": len(manifest.gaps),
            "rejects": sum(sum(source.rejects.values()) for source in manifest.sources),
            "sources": len(manifest.sources),
        },
        "symbols": [_symbol(manifest, venue, symbol) for venue, symbol in symbols],
        "days": _days(manifest),
        "sources": [structs.asdict(source) for source in manifest.sources],
    }


def _symbol(manifest: Manifest, venue: str, symbol: str) -> dict[str, Any]:
    parts = manifest.select(venue, (symbol,))
    gaps = [gap for gap in manifest.gaps if gap.venue == venue and gap.symbol == symbol]
    return {
        "venue": venue,
        "symbol": symbol,
        "rows": {name: sum(part.rows for part in parts if part.table == name) for name in TABLES},
        "first_exch_ns": min(part.first_exch_ns for part in parts),
        "last_exch_ns": max(part.last_exch_ns for part in parts),
        "days": len({part.day for part in parts}),
        "gaps": len(gaps),
        "crossed": sum(part.crossed for part in parts),
        "flagged": sum(part.flagged for part in parts),
        "trade_delays_ms": manifest.trade_delays_ms(venue, (symbol,)),
        "instrument": _instrument(manifest, venue, symbol),
    }


def _days(manifest: Manifest) -> list[dict[str, Any]]:
    days: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for part in manifest.parts:
        key = (part.venue, part.symbol, part.day, part.table)
        entry = days.setdefault(
            key,
            {
                **dict(zip(("venue", "symbol", "day", "table"), key, strict=True)),
                "rows": 0,
                "files": 0,
                "crossed": 0,
                "flagged": 0,
                "first_exch_ns": part.first_exch_ns,
                "last_exch_ns": part.last_exch_ns,
            },
        )
        entry["rows"] += part.rows
        entry["files"] += 1
        entry["crossed"] += part.crossed
        entry["flagged"] += part.flagged
        entry["first_exch_ns"] = min(entry["first_exch_ns"], part.first_exch_ns)
        entry["last_exch_ns"] = max(entry["last_exch_ns"], part.last_exch_ns)
    return [days[key] for key in sorted(days)]


def _instrument(manifest: Manifest, venue: str, symbol: str) -> dict[str, Any] | None:
    """Return the instrument; a symbol of which only marks are known has none."""
    if not any(part.price_gcd_e8 for part in manifest.select(venue, (symbol,))):
        return None
    return asdict(manifest.instrument(venue, symbol))
