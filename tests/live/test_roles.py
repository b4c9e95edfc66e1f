"""Who leads and who is in the shadow, record by record."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.errors import UsageError
from gpuscalp.live.commands import Commands
from gpuscalp.live.records import ModelRecord, Scaling
from gpuscalp.live.roles import BY_RULE, Roles

A, B, C = (letter * 64 for letter in "abc")
SHARP = Scaling((1.5, 1.5, 1.5), (0.0, 0.0, 0.0))


def test_a_step_back_is_to_the_model_that_led_before_with_its_calibration() -> None:
    roles = Roles(A)
    for number, (digest, calibration) in enumerate([(B, None), (B, SHARP), (C, None)], 1):
        roles.take(ModelRecord("lead", digest, calibration), number, 10 * number)
    assert [(each.bundle[0], each.calibration) for each in roles.earlier] == [("a", None), ("b", SHARP)]
    assert (roles.lead.since_ns, roles.lead.after_ns) == (3, 30)
    roles.take(ModelRecord("lead", roles.earlier[-1].bundle, roles.earlier[-1].calibration), 4, 40)
    assert (roles.lead.bundle[0], roles.lead.calibration) == ("b", SHARP)
    assert [each.bundle[0] for each in roles.earlier] == ["a"], "a second step leads further back"
    roles.take(ModelRecord("lead", roles.lead.bundle, None), 5, 50)
    assert (roles.lead.since_ns, roles.lead.calibrated_ns) == (4, 5)


def test_a_promotion_is_a_step_forward_even_to_a_model_that_has_led_before() -> None:
    """It once was taken for a step back: nobody watched the new lead, and there was nothing to go back to."""
    roles = Roles(A)
    roles.take(ModelRecord("lead", B, by=BY_RULE), 1, 10)
    roles.take(ModelRecord("shadow", A), 2, 20)
    roles.take(ModelRecord("lead", A, by=BY_RULE), 3, 30)
    assert (roles.lead.by, [each.bundle for each in roles.earlier]) == (BY_RULE, [A, B])
    roles.take(ModelRecord("lead", B, by="rollback"), 4, 40)
    assert (roles.lead.bundle, [each.bundle for each in roles.earlier]) == (B, [A])


def test_who_takes_the_lead_is_no_shadow_any_more() -> None:
    """A kill between two records once left a model as its own shadow for ever."""
    roles = Roles(A)
    roles.take(ModelRecord("shadow", B), 1, 10)
    roles.take(ModelRecord("lead", C), 2, 20)
    assert roles.shadow is not None
    roles.take(ModelRecord("lead", B), 3, 30)
    assert roles.shadow is None


def test_who_has_set_a_calibration_is_remembered() -> None:
    roles = Roles(A)
    assert roles.lead.calibrated_by == ""
    roles.take(ModelRecord("lead", A, SHARP, by="operator"), 1, 10)
    assert (roles.lead.by, roles.lead.calibrated_by) == ("", "operator")
    roles.take(ModelRecord("lead", B, by=BY_RULE), 2, 20)
    assert roles.lead.calibrated_by == ""
    roles.take(ModelRecord("lead", B, SHARP), 3, 30)
    assert roles.lead.calibrated_by == "somebody"


@pytest.mark.parametrize("by", ["operator", "adaptation"])
def test_who_has_set_a_calibration_is_remembered_on_the_way_back_and_into_the_lead(by: str) -> None:
    """A rollback, or a calibration that came with its model, once looked like the model's own: adaptation
    changed what an operator had set."""
    roles = Roles(A)
    roles.take(ModelRecord("lead", A, SHARP, by=by), 1, 10)
    roles.take(ModelRecord("lead", B, by=BY_RULE), 2, 20)
    roles.take(ModelRecord("lead", A, SHARP, by="rollback"), 3, 30)
    assert (roles.lead.bundle, roles.lead.calibrated_by, roles.lead.calibrated_ns) == (A, by, 1)
    roles.take(ModelRecord("lead", C, SHARP, by=by), 4, 40)
    assert (roles.lead.calibrated_by, roles.lead.calibrated_ns) == (by, 0)
    roles.take(ModelRecord("shadow", B, SHARP, by=by), 5, 50)
    roles.take(ModelRecord("lead", B, SHARP, by=BY_RULE), 6, 60)
    assert roles.lead.calibrated_by == by
    roles.take(ModelRecord("lead", A, None, by=BY_RULE), 7, 70)
    assert roles.lead.calibrated_by == "", "its own again"


def test_what_was_decided_about_other_models_is_not_done() -> None:
    """A recalibration that took its time once brought a model back that an operator had just replaced."""
    taken: list[ModelRecord] = []
    session: Any = SimpleNamespace(
        path=Path("session"),
        models=SimpleNamespace(open=lambda digest: None),
        engine=SimpleNamespace(roles=Roles(A)),
        on_model=lambda record, now_ns: taken.append(record),
    )
    driver: Any = SimpleNamespace(stopping=False, kick=lambda force: None)
    commands = Commands(session, driver, driver, None)  # type: ignore[arg-type]
    lead = session.engine.roles.lead
    session.engine.roles.take(ModelRecord("lead", B), 1, 10)
    late = commands.use(ModelRecord("lead", A, SHARP), still=lambda roles: roles.lead is lead)
    with pytest.raises(UsageError, match="others by now"):
        asyncio.run(late)
    assert not taken
