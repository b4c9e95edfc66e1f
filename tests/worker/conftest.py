"""Fixtures of workers: one truth for all tests, and rigs that are closed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from gpuscalp.frames import ClosedFrames
from gpuscalp.worker import WorkerFault, parse_fault
from tests.worker.rig import Rig, Truth, eager, fleet_of, frames, specs, write_truth


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return write_truth(tmp_path_factory.mktemp("worker") / "bundle")


@pytest.fixture(scope="session")
def closed(truth: Truth) -> Sequence[ClosedFrames]:
    return frames(truth.pipeline)


@pytest.fixture
def rig(truth: Truth, closed: Sequence[ClosedFrames]) -> Iterator[Callable[..., Rig]]:
    """Return a function that starts a fleet: faults in words, then ``specs`` and the configuration."""
    with ExitStack() as stack:

        def started(
            *faults: str | WorkerFault,
            workers: int = 1,
            device: str = "cpu",
            options: Any = None,
            **config: int,
        ) -> Rig:
            parsed = [parse_fault(item) if isinstance(item, str) else item for item in faults]
            listed = specs(truth, workers=workers, faults=parsed, device=device)
            fleet = fleet_of(listed, eager(**config), **(options or {}))
            stack.callback(fleet.close)
            fleet.start()
            return Rig(truth, fleet, closed)

        yield started
