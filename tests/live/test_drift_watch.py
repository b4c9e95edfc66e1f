"""What a session sees of drift."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpuscalp.drift.alarm import Floor
from gpuscalp.drift.reference import Reference
from gpuscalp.drift.stability import Distribution, bin_counts
from gpuscalp.live.drift_watch import DriftWatch
from gpuscalp.schema import NS_PER_S

NAMES = ("price.a", "flow.b", "time.hour")
NOW_NS = 1_700_000_000 * NS_PER_S


def rows(rng: np.random.Generator, count: int, shift: float = 0.0) -> np.ndarray:
    return rng.normal(shift, 1.0, (count, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle() -> Any:
    rng = np.random.default_rng(1)
    x = rows(rng, 2_000)
    trained = Distribution.of(x)
    counts = np.array([bin_counts(trained.edges, rows(rng, 80)) for _ in range(60)])
    floor = Floor.of(counts, NAMES, block_ns=10 * NS_PER_S)
    reference = Reference(trained, x, np.arange(2_000), floor, None)
    contract = SimpleNamespace(names=NAMES)
    return SimpleNamespace(contract=contract, reference=reference, ensemble=SimpleNamespace(guard=object()))


def fed(bundle: Any, seconds: int, *, shift: float = 0.0) -> DriftWatch:
    watch, rng = DriftWatch(bundle), np.random.default_rng(2)
    for second in range(seconds):
        watch.take(rows(rng, 8, shift), NOW_NS + second * NS_PER_S)
        watch.count(8, int(second % 10 == 0), NOW_NS + second * NS_PER_S)
    return watch


def test_drift_is_flagged_and_told_apart_and_the_same_market_is_not(bundle):
    for shift, drifted in ((0.0, False), (1.5, True)):
        watch, now_ns = fed(bundle, 3_000, shift=shift), NOW_NS + 3_000 * NS_PER_S
        found = watch.status(now_ns)
        assert found["alarm"]["flagged"] == drifted
        assert found["outliers"] == pytest.approx(1 / 80, rel=0.05)


def test_a_training_too_short_for_blocks_has_figures_and_no_flag(bundle):
    short = replace(bundle.reference, floor=None)
    made = SimpleNamespace(contract=bundle.contract, reference=short, ensemble=SimpleNamespace(guard=None))
    watch, now_ns = fed(made, 3_000), NOW_NS + 3_000 * NS_PER_S
    found = watch.status(now_ns)
    assert found["groups"]["price"]["mean"] < 0.05
    assert (found["alarm"], found["outliers"]) == (None, None)


def test_a_bundle_that_no_training_made_says_nothing(bundle):
    made = SimpleNamespace(contract=bundle.contract, reference=None, ensemble=SimpleNamespace(guard=None))
    assert fed(made, 10).status(NOW_NS + 3_000 * NS_PER_S) is None
