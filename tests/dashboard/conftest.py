"""A session's directory for tests of the dashboard that need no process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gpuscalp.live.directory import create
from tests.live.sessions import eager_config, instruments, write_eager_bundle


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """Return a session that has never run."""
    bundle = write_eager_bundle(tmp_path / "bundle")
    path = tmp_path / "session"
    create(path, eager_config(), bundle, instruments(), now_ns=time.time_ns(), device="cpu")
    return path
