"""Ctrl-C while pandas is imported by way of pyarrow, and pyarrow where there is no pandas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpuscalp.cli import INTERRUPTED, run
from tests.archive import market

# Ctrl-C cannot be timed to the millisecond: it is raised where half of pandas has been imported.
PRESSED = """
import sys
class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas.core.frame" and self in sys.meta_path:
            sys.meta_path.remove(self)
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed())
"""
# As where it is not installed.
MISSING = "import sys; sys.modules['pandas'] = None\n"
RUN = "from gpuscalp.cli import run; sys.exit(run(sys.argv[1:]))"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    source = market.write(tmp_path / "btcusdt.gz", market.lines(300))
    assert run(["data", "import", str(source), "--out", str(tmp_path / "archive")]) == 0
    return tmp_path / "archive"


def _run(before: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", before + RUN, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_interruption_of_reading_is_heard_while_pandas_is_imported(archive, tmp_path):
    """pyarrow threw it away: the command went on, and ended with a traceback or as if nothing had been."""
    pytest.importorskip("pandas")
    words = ("data", "export", archive, "--out", tmp_path / "out", "--format", "hftbacktest", "--json")
    done = _run(PRESSED, *words)
    assert (done.returncode, done.stderr) == (INTERRUPTED, "")
    assert json.loads(done.stdout)["error"]["what"] == "Interrupted"


def test_archive_is_read_without_pandas(archive, tmp_path):
    done = _run(MISSING, "data", "export", archive, "--out", tmp_path / "out", "--format", "hftbacktest")
    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "out").iterdir())
