"""Who is compared with whom, from which frame on, and when a lead is watched."""

from __future__ import annotations

import numpy as np

from gpuscalp.config import CostConfig, GridConfig, LabelConfig, LiveConfig, PromotionConfig, StrategyConfig
from gpuscalp.live.records import ModelRecord
from gpuscalp.live.rivals import Rivals
from gpuscalp.live.roles import Roles
from gpuscalp.orders import SignalRow
from gpuscalp.strategy import Strategy
from gpuscalp.succession.outcomes import Matured

FIRST, SECOND = "1" * 64, "2" * 64
FRAME_NS, LABEL = 100_000_000, LabelConfig()


def rivals(label: LabelConfig | None = LABEL) -> Rivals:
    strategy = Strategy(StrategyConfig(), CostConfig(), horizon_ms=1_000)
    return Rivals(strategy, LiveConfig(), PromotionConfig(by="rule"), label, GridConfig())


def row(up: float) -> SignalRow:
    probability = np.array([[0.3, 0.7 - up, up]] * 2)
    return SignalRow(probability, np.ones(2), np.zeros(2), np.zeros(2))


def came(*numbers: int) -> Matured:
    shape = (len(numbers), 2)
    ends = np.array(numbers, np.int64) * FRAME_NS
    up = np.full(shape, 2, np.int8)
    return Matured(ends, np.full((*shape, 3), 1 / 3), up, np.ones(shape), np.zeros(shape))


def test_frames_count_from_the_shadow_on_and_each_once():
    found, roles = rivals(), Roles(FIRST)
    found.follow(roles)
    assert not found.active
    roles.take(ModelRecord("shadow", SECOND), now_ns=1, after_ns=3 * FRAME_NS)
    found.follow(roles)
    assert found.active
    for number in (2, 4, 6):  # 2 was before it, at 5 the shadow was not asked
        found.on_shadow(number * FRAME_NS, row(0.3), row(0.5))
    found.note()
    found.on_shadow(7 * FRAME_NS, row(0.3), row(0.5))
    found.note()
    found.note()
    found.mature(came(*range(1, 9)))
    assert found.contest is not None
    assert found.contest.rows == 3 * 2  # of 4, 6 and 7


def test_another_calibration_is_no_other_model_but_another_shadow_is():
    found, roles = rivals(), Roles(FIRST)
    roles.take(ModelRecord("shadow", SECOND), now_ns=1, after_ns=0)
    found.follow(roles)
    first = found.contest
    roles.take(ModelRecord("lead", FIRST), now_ns=2, after_ns=5)
    found.follow(roles)
    assert found.contest is first is not None
    roles.take(ModelRecord("shadow", "3" * 64), now_ns=3, after_ns=9)
    found.follow(roles)
    assert found.contest is not first
    roles.take(ModelRecord("shadow", ""), now_ns=4, after_ns=9)
    found.follow(roles)
    assert found.contest is None


def test_a_lead_is_watched_if_the_rule_promoted_it_and_not_after_it_was_sent_back():
    found, roles = rivals(), Roles(FIRST)
    found.follow(roles)
    assert found.band is None
    for by, watched in (("rule", True), ("rollback", False), ("operator", False)):
        bundle = FIRST if by == "rollback" else SECOND
        roles.take(ModelRecord("lead", bundle, by=by), now_ns=2, after_ns=1)
        found.follow(roles)
        assert (found.band is not None) is watched, by


def test_a_watch_goes_on_after_a_restart():
    roles = Roles(FIRST)
    roles.take(ModelRecord("lead", SECOND, by="rule"), now_ns=2, after_ns=1)
    found = rivals()
    found.follow(roles)
    assert found.band is not None


def test_without_a_label_nothing_is_compared_and_nothing_breaks():
    found, roles = rivals(label=None), Roles(FIRST)
    roles.take(ModelRecord("shadow", SECOND), now_ns=1, after_ns=0)
    found.follow(roles)
    found.on_shadow(FRAME_NS, row(0.3), row(0.5))
    found.note()
    assert (found.active, found.promotes, found.leaves) == (False, False, "")
    assert found.status() == {"test": None, "watch": None}
