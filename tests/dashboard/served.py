"""The dashboard's command as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Served:
    """Where it is, and what it takes to stop a session."""

    url: str
    port: int
    token: str
    pid: int
    process: subprocess.Popen[str]


@contextmanager
def served(session: Path) -> Iterator[Served]:
    """Run ``gpuscalp dashboard`` on a session; it must end cleanly and say nothing on the side."""
    command = [sys.executable, "-m", "gpuscalp", "dashboard", str(session), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            told = json.loads(line)
            token = Path(told["token_file"]).read_text().strip()
            yield Served(told["url"], told["port"], token, process.pid, process)
        finally:
            process.terminate()
            out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, (process.returncode, errors)
    assert (out, errors) == ("", ""), errors
