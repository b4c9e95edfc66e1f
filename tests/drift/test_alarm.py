"""The drift flag: blocks against blocks of the training, on rows whose drift is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad

from gpuscalp.drift.alarm import BLOCKS_BETWEEN_ALARMS, BLOCKS_MIN, DriftAlarm, Floor, e_value
from gpuscalp.drift.stability import BINS, Distribution, bin_counts, psi
from gpuscalp.errors import ModelError

NAMES = ("price.a", "price.b", "flow.c", "time.hour")
BLOCK_NS = 1_000
ROWS = 60


def block(rng: np.random.Generator, *, shift: float = 0.0, rows: int = ROWS) -> np.ndarray:
    """Return rows of one block: they share a mood, as neighbours in a market do."""
    mood = rng.normal(size=len(NAMES)) * 0.7
    return (rng.normal(size=(rows, len(NAMES))) + mood + shift).astype(np.float32)


@pytest.fixture(scope="module")
def trained() -> tuple[Distribution, Floor]:
    rng = np.random.default_rng(1)
    blocks = [block(rng) for _ in range(300)]
    distribution = Distribution.of(np.concatenate(blocks))
    counts = np.array([bin_counts(distribution.edges, each) for each in blocks])
    floor = Floor.of(counts, NAMES, block_ns=BLOCK_NS)
    assert floor is not None
    return distribution, floor


def alarm(trained: tuple[Distribution, Floor]) -> DriftAlarm:
    return DriftAlarm(trained[1], trained[0].edges, NAMES)


def feed(watched: DriftAlarm, at: int, x: np.ndarray) -> None:
    for part in np.array_split(x, 3):
        watched.take(part, at * BLOCK_NS + 500)


def test_the_same_market_does_not_raise_the_flag(trained):
    # 6,000 blocks of twenty sessions: at the stated rate one flag is more than is to be expected.
    flags = blocks = 0
    for seed in range(20):
        watched, rng = alarm(trained), np.random.default_rng(100 + seed)
        for at in range(300):
            feed(watched, at, block(rng))
        flags, blocks = flags + watched.alarms, blocks + watched.blocks
    assert blocks == 20 * 299, "the last one is not whole"
    assert flags <= 2, "Poisson with mean 1.2: more than 4 would be one in a hundred"


@pytest.mark.parametrize(("shift", "most"), [(3.0, 7), (1.5, 12)])
def test_planted_drift_raises_it_and_its_end_takes_it_down(trained, shift, most):
    watched, rng = alarm(trained), np.random.default_rng(5)
    for at in range(50):
        feed(watched, at, block(rng))
    assert not watched.flagged
    after = next(at for at in range(100) if _flagged(watched, 50 + at, block(rng, shift=shift)))
    assert after <= most
    for at in range(200, 260):
        feed(watched, at, block(rng))
    assert not watched.flagged
    assert watched.alarms == 1


def _flagged(watched: DriftAlarm, at: int, x: np.ndarray) -> bool:
    feed(watched, at, x)
    return watched.flagged


def test_drift_that_lasts_stays_flagged(trained):
    watched, rng = alarm(trained), np.random.default_rng(8)
    for at in range(1_500):
        feed(watched, at, block(rng, shift=3.0))
        assert watched.flagged or at < 10
    assert watched.alarms == 1


def test_a_block_says_which_group_stands_out_and_how_seldom_that_is(trained):
    watched, rng = alarm(trained), np.random.default_rng(6)
    x = block(rng)
    x[:, 2] = np.nan  # flow.c
    feed(watched, 0, x)
    feed(watched, 1, x)
    found = watched.last
    assert (found.group, found.rows, found.start_ns) == ("flow", ROWS, 0)
    assert found.p == 1 / (len(trained[1].psi) + 1), "nothing in the training stood out as much"
    assert found.evidence == pytest.approx(e_value(found.p))
    feed(watched, 2, x)
    assert watched.last.p == pytest.approx(2 / (len(trained[1].psi) + 2)), "the block before did"


def test_p_values_are_uniform_after_a_training_of_few_blocks(monkeypatch):
    """Blocks of the training were held against a mean that they were part of: one in five stood out most."""
    rng = np.random.default_rng(9)
    names = [f"g{index}.a" for index in range(25)]
    found = []
    for _ in range(400):
        blocks, live = np.exp(rng.normal(size=(BLOCKS_MIN, 25))), np.exp(rng.normal(size=25))
        floor = Floor(BLOCK_NS, 1, np.full((25, BINS), 1 / BINS), blocks)
        watched = DriftAlarm(floor, np.zeros((25, BINS - 2), np.float32), names)
        monkeypatch.setattr("gpuscalp.drift.alarm.psi", lambda *_, live=live: live)
        for at in range(2):
            watched.take(np.zeros((1, 25), np.float32), at * BLOCK_NS)
        found.append(watched.last.p)
    ranks = np.rint(np.array(found) * (BLOCKS_MIN + 1))
    assert (ranks == 1).mean() == pytest.approx(1 / (BLOCKS_MIN + 1), abs=0.03)
    assert np.mean(found) == pytest.approx((BLOCKS_MIN + 2) / (BLOCKS_MIN + 1) / 2, abs=0.05)


def test_a_block_with_too_few_rows_says_nothing(trained):
    watched = alarm(trained)
    feed(watched, 0, block(np.random.default_rng(7), rows=ROWS - 1))
    feed(watched, 2, block(np.random.default_rng(7)))
    feed(watched, 3, block(np.random.default_rng(7)))
    assert (watched.blocks, watched.too_few) == (1, 1)


def test_evidence_has_mean_one_where_there_is_no_drift():
    # Over p = exp(-u): what lies beyond u = 600 is 1 / 600.
    mean, _ = quad(lambda u: e_value(math.exp(-u)) * math.exp(-u), 1e-6, 600.0, limit=500)
    assert mean == pytest.approx(1.0, abs=0.003)
    assert e_value(1.0) == pytest.approx(e_value(1.0 - 1e-6), rel=1e-3)
    values = [e_value(p) for p in np.linspace(0.001, 1.0, 500)]
    assert values == sorted(values, reverse=True)
    assert BLOCKS_BETWEEN_ALARMS > 1


def test_floor_holds_each_block_against_the_others_and_leaves_torn_ones_out(trained):
    rng = np.random.default_rng(3)
    blocks = [block(rng) for _ in range(30)] + [block(rng, rows=5)]
    counts = np.array([bin_counts(trained[0].edges, each) for each in blocks])
    floor = Floor.of(counts, NAMES, block_ns=BLOCK_NS)
    assert (len(floor.psi), floor.rows) == (30, ROWS)
    shares = counts[:30] / ROWS
    wanted = psi(np.delete(shares, 4, axis=0).mean(axis=0), shares[4])
    assert floor.psi[4] == pytest.approx([wanted[:2].mean(), wanted[2]])
    assert Floor.of(counts[: BLOCKS_MIN - 1], NAMES, block_ns=BLOCK_NS) is None
    assert Floor.of(np.zeros((0, len(NAMES), BINS), np.int64), NAMES, block_ns=BLOCK_NS) is None


def test_floor_comes_back_and_that_of_other_columns_is_refused(trained):
    floor = trained[1]
    back = Floor.from_arrays(floor.arrays(), NAMES)
    assert (back.block_ns, back.rows) == (floor.block_ns, floor.rows)
    assert back.psi.tobytes() == floor.psi.tobytes()
    for wrong in (replace(floor, shares=floor.shares[1:]), replace(floor, psi=floor.psi[:, :1])):
        with pytest.raises(ModelError, match="columns"):
            Floor.from_arrays(wrong.arrays(), NAMES)
    with pytest.raises(ModelError, match="columns"):
        Floor.from_arrays(floor.arrays() | {"blocks": np.int64(1)}, NAMES)
    with pytest.raises(ModelError, match="missing"):
        Floor.from_arrays({"psi": floor.psi}, NAMES)
