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
    return make_still(tmp_path)


def make_still(folder: Path) -> Path:
    bundle = write_eager_bundle(folder / "bundle")
    path = folder / "session"
    create(path, eager_config(), bundle, instruments(), now_ns=time.time_ns(), device="cpu")
    return path
