"""hftbacktest itself reads what is exported for it, and sees the archive's quotes, books and trades.

It wants an older NumPy than this environment has, so it runs in an interpreter of its own:
``GPUSCALP_HFTBACKTEST`` names one, by default ``.venv-hft/bin/python``; docs/data.md says how to make it.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gpuscalp.archive.export_hftbacktest import ExportReport, export_hftbacktest
from gpuscalp.archive.ingest import import_sources
from tests.archive.plain_book import PlainBook, archive_rows
from tests.archive.test_recordings import BTC_2023, SAND, USDM_2024

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("hftbacktest_driver.py")
STEP_NS = 50_000_000
E8 = 10**8
CASES = {
    "btc-2024": (USDM_2024, "BTCUSDT"),
    "eth-2024": (USDM_2024, "ETHUSDT"),
    "btc-2023": (BTC_2023, "BTCUSDT"),
    "sand-2021": (SAND, "SANDUSDT"),
}


@functools.cache
def interpreter() -> str:
    """Return a Python that can import hftbacktest, or skip."""
    named = os.environ.get("GPUSCALP_HFTBACKTEST")
    candidates = [named] if named else [sys.executable, str(ROOT / ".venv-hft" / "bin" / "python")]
    for candidate in candidates:
        if Path(candidate).exists() and run_alone([candidate, "-c", "import hftbacktest"]).returncode == 0:
            return candidate
    return pytest.skip(f"hftbacktest is not installed in {' or '.join(candidates)} (docs/data.md)")


def run_alone(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program that must not see this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


class Seen(NamedTuple):
    archive: Path
    report: ExportReport
    samples: Path


@pytest.fixture(scope="module")
def seen_by_peer(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """What hftbacktest has seen of each case. One process for all: compiling takes longer than running."""
    python, folder = interpreter(), tmp_path_factory.mktemp("peer")
    archives = {names: folder / f"archive-{number}" for number, (names, _) in enumerate(CASES.values())}
    for names, archive in archives.items():
        import_sources([recordings / name for name in names], archive)
    found, words = {}, [str(STEP_NS)]
    for case, (names, symbol) in CASES.items():
        archive, out = archives[names], folder / f"{case}.npz"
        report = export_hftbacktest(archive, folder / case, symbols=(symbol,))
        sizes = report.instruments[symbol]
        files = ",".join(file.path for file in report.files)
        words += [str(out), repr(sizes["tick_size"]), repr(sizes["lot_size"]), files]
        found[case] = Seen(archive, report, out)
    done = run_alone([python, str(DRIVER), *words])
    assert done.returncode == 0, done.stdout + done.stderr
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_backtest_sees_what_the_archive_holds(seen_by_peer: dict[str, Seen], case: str) -> None:
    _, symbol = CASES[case]
    archive, report, out = seen_by_peer[case]
    sizes = report.instruments[symbol]
    seen = np.load(out)
    tick_e8 = round(sizes["tick_size"] * E8)
    rows = [archive_rows(day) for day in sorted(archive.glob(f"venue=*/symbol={symbol}/date=*"))]
    expected = _best(rows, seen["hash_samples"][:, 0] - report.offset_ns, tick_e8)
    assert np.count_nonzero(expected[:, 0]) > 0.9 * len(expected)
    known = expected[:, 0] > 0
    np.testing.assert_array_equal(seen["hash_samples"][known, 1:], expected[known])
    # The quantities of the other engine come out of the Python binding as prices (2.4.4).
    np.testing.assert_array_equal(seen["roi_samples"][known, :3], seen["hash_samples"][known, :3])
    for engine in ("hash", "roi"):
        trades, buys = seen[f"{engine}_trades"].tolist()
        assert (trades, buys) == (report.rows["trades"], report.kinds["local"]["trade_buy"])


def _best(days: list[list], times_ns: np.ndarray, tick_e8: int) -> np.ndarray:
    """Return best bid and ask in ticks and their quantities × 1e8 as known at receive times; 0 = unknown."""
    rows = []
    for day in days:
        rows += [("new file", None)] if rows else []
        rows += [("row", row) for row in sorted(day, key=lambda row: (row.recv_ns, row.seq))]
    book, at, found = PlainBook(), 0, []
    for time_ns in times_ns.tolist():
        while at < len(rows) and (rows[at][1] is None or rows[at][1].recv_ns <= time_ns):
            if rows[at][1] is None:
                # The first day's book stays until the next file knows better.
                following = next(row for _, row in rows[at + 1 :] if row.kind != "trades")
                if following.recv_ns > time_ns:
                    break
                book = PlainBook()
            else:
                book.apply(rows[at][1])
            at += 1
        if book.bids and book.asks:
            bid, ask = max(book.bids), min(book.asks)
            found.append((bid // tick_e8, ask // tick_e8, book.bids[bid], book.asks[ask]))
        else:
            found.append((0, 0, 0, 0))
    return np.array(found)
