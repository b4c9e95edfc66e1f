"""Bundles that the tests of the registry share; never changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuscalp.bundle import read_contract
from tests.registry.models import real_bundles, tiny_bundles


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three bundles by digest."""
    made = tiny_bundles(tmp_path_factory.mktemp("tiny"), 3)
    return {read_contract(path).digest: path for path in made}


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles that this version can trade with."""
    return real_bundles(tmp_path_factory.mktemp("real"))
