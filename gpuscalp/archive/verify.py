"""Checking an archive against its manifest, from the bytes up.

Owns: what "intact" means. Never: repairs.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np

from gpuscalp.archive import manifest as manifests
from gpuscalp.archive.manifest import Part
from gpuscalp.archive.overlap import Overlaps
from gpuscalp.archive.streams import PartReader
from gpuscalp.archive.tables import crossed_count, day_of
from gpuscalp.archive.trade_ids import TradeIds
from gpuscalp.errors import ArchiveError
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import I64

_END: Final = np.iinfo(np.int64).max


@dataclass(slots=True)
class VerifyReport:
    """What was checked and what is wrong.

    Attributes
    ----------
    files, rows, bytes : checked
    problems : one sentence each, with the file; empty = intact
    gaps : gaps that the manifest lists (a gap is a fact about the source, not damage)
    missing_ids_in_gaps : trade ids between first and last that have no row and lie in a listed gap: lost, or
        rejected lines
    missing_ids_between_imports : those that lie in none, behind one import and before another: lost, as one
        import does not see where the other has ended
    missing_ids_outside_gaps : the others: fills of the insurance fund
    unlisted : Parquet files that the manifest does not name (left by a killed import; never read)
    trade_delays_ms : by venue and symbol, see ``Manifest.trade_delays_ms``; without those that have none
    """

    files: int = 0
    rows: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    gaps: int = 0
    missing_ids_in_gaps: int = 0
    missing_ids_between_imports: int = 0
    missing_ids_outside_gaps: int = 0
    unlisted: list[str] = field(default_factory=list)
    trade_delays_ms: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"ok": not self.problems, **asdict(self)}

    def raise_if_damaged(self, archive: Path) -> None:
        """Raise when there are problems.

        Raises
        ------
        ArchiveError
            names the first problems
        """
        if self.problems:
            raise ArchiveError(
                f"the archive is damaged: {len(self.problems)} problems",
                where=str(archive),
                value="; ".join(self.problems[:10]),
                fix="import the sources into a new archive",
            )


def verify(path: str | Path, *, progress: Progress = silent) -> VerifyReport:
    """Read every file of an archive and compare it with the manifest.

    Checked for each part: presence, size, sha256, schema, row count, the facts that the manifest keeps (first
    and last times, crossed and flagged rows), order by (recv_ns, seq), the UTC day of every row. Across the
    parts of a symbol: no trade twice, and no row that two imports brought (overlap.py).

    Raises
    ------
    UsageError
        there is no archive
    ArchiveError
        its manifest cannot be read
    """
    root = Path(path)
    manifest = manifests.load(root)
    report = VerifyReport(gaps=len(manifest.gaps))
    total, done = sum(part.bytes for part in manifest.parts), 0
    gaps: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for gap in manifest.gaps:
        if gap.kind in ("trade_id", "agg_trade_id"):
            gaps.setdefault((gap.venue, gap.symbol), []).append((gap.first_id, gap.last_id))
    overlaps = Overlaps(manifest.parts)
    ordered = sorted(manifest.parts, key=lambda part: (part.venue, part.symbol, part.day, part.path))
    for (venue, symbol), parts in groupby(ordered, key=lambda part: (part.venue, part.symbol)):
        trade_ids = TradeIds(gaps.get((venue, symbol), ()))
        for part in parts:
            try:
                _verify_part(root, part, report, trade_ids, overlaps)
            except (ArchiveError, OSError) as error:
                what = error.what if isinstance(error, ArchiveError) else error
                report.problems.append(f"{part.path}: {what}")
            done += part.bytes
            progress(done, total, part.path)
        if trade_ids.twice:
            report.problems.append(
                f"{venue} {symbol}: {trade_ids.twice} trades are there twice "
                "(overlapping sources imported separately)"
            )
        in_gaps, between_imports, others = trade_ids.missing()
        report.missing_ids_in_gaps += in_gaps
        report.missing_ids_between_imports += between_imports
        report.missing_ids_outside_gaps += others
        if delays_ms := manifest.trade_delays_ms(venue, (symbol,)):
            report.trade_delays_ms[f"{venue} {symbol}"] = delays_ms
    report.problems.extend(overlaps.problems())
    listed = {part.path for part in manifest.parts}
    found = {str(file.relative_to(root)) for file in root.glob("venue=*/symbol=*/date=*/*.parquet")}
    report.unlisted = sorted(found - listed)
    return report


def _verify_part(
    root: Path,
    part: Part,
    report: VerifyReport,
    trade_ids: TradeIds,
    overlaps: Overlaps,
) -> None:
    file = root / part.path
    if not file.exists():
        raise ArchiveError("the file is missing")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if file.stat().st_size != part.bytes or digest != part.sha256:
        raise ArchiveError("the file was changed: size or sha256 differ")
    reader = PartReader(root, part, None, None)
    reader.open()
    facts = _Facts()
    ids: list[I64] = []
    for rows in reader.groups():
        facts.add(rows, part, report)
        overlaps.add(part, rows)
        if part.table == "trades":
            ids.append(rows["trade_id"])
    if ids:
        trade_ids.add(part, np.concatenate(ids))
    for name in (
        "rows",
        "first_recv_ns",
        "last_recv_ns",
        "first_exch_ns",
        "last_exch_ns",
        "crossed",
        "flagged",
    ):
        if getattr(facts, name) != getattr(part, name):
            report.problems.append(
                f"{part.path}: {name} is {getattr(facts, name)}, the manifest says {getattr(part, name)}"
            )
    report.files += 1
    report.rows += facts.rows
    report.bytes += part.bytes


class _Facts:
    """What the manifest keeps of a part, counted again."""

    def __init__(self) -> None:
        self.rows = self.crossed = self.flagged = 0
        self.first_recv_ns = self.first_exch_ns = _END
        self.last_recv_ns = self.last_exch_ns = -_END
        self._last = (-_END, -_END)

    def add(self, rows: dict[str, Any], part: Part, report: VerifyReport) -> None:
        recv, exch, seq = rows["recv_ns"], rows["exch_ns"], rows["seq"]
        if len(recv) == 0:
            return
        step = np.diff(recv)
        behind = (step < 0) | ((step == 0) & (np.diff(seq) <= 0))
        if behind.any() or (int(recv[0]), int(seq[0])) <= self._last:
            report.problems.append(f"{part.path}: rows are not sorted by (recv_ns, seq)")
        self._last = (int(recv[-1]), int(seq[-1]))
        self.rows += len(recv)
        self.first_recv_ns = min(self.first_recv_ns, int(recv[0]))
        self.last_recv_ns = max(self.last_recv_ns, int(recv[-1]))
        self.first_exch_ns = min(self.first_exch_ns, int(exch.min()))
        self.last_exch_ns = max(self.last_exch_ns, int(exch.max()))
        if day_of(int(exch.min())) != part.day or day_of(int(exch.max())) != part.day:
            report.problems.append(f"{part.path}: rows of another day")
        self.flagged += int(np.count_nonzero(rows["quality"]))
        if "bid_price_e8" in rows:
            self.crossed += crossed_count(rows)
