"""Which models a session predicts with, and since when.

Owns: the lead, the shadow and who led before, and how a record of the journal changes them. Plain data: a
checkpoint holds it. Never: opens a model (gpuscalp.live.models).
"""

from __future__ import annotations

from math import isfinite
from typing import Final, final

from msgspec import Struct, structs

from gpuscalp.live.records import ModelRecord, Scaling
from gpuscalp.redaction import redact

# Who asked for a promotion, and for what was trained to be tried (``ModelRecord.by``).
BY_RULE: Final = "rule"
BY_RETRAINING: Final = "retraining"
# Who wanted a calibration that nobody has signed: it is not the bundle's own either.
_SOMEBODY: Final = "somebody"
# Steps back that are remembered.
_EARLIER_MAX: Final = 16


class InRole(Struct, frozen=True):
    """A model that leads or is in the shadow.

    Attributes
    ----------
    bundle : digest
    calibration : in the place of the bundle's own; None: its own
    since_ns : exchange time at which it was taken; 0 = with the session's beginning
    after_ns : end of the last frame that was decided before that; 0 = there was none
    calibrated_ns : exchange time of the last change of the calibration alone; 0 = there was none
    calibrated_by : who wanted the calibration; "" = it came with the bundle
    reason, by : why, and who asked for it
    """

    bundle: str
    calibration: Scaling | None = None
    since_ns: int = 0
    after_ns: int = 0
    calibrated_ns: int = 0
    calibrated_by: str = ""
    reason: str = ""
    by: str = ""


def as_written(record: ModelRecord) -> ModelRecord:
    """Return a record without secrets in its words, and with numbers as JSON has them: None for NaN."""
    known = {
        name: value if value is not None and isfinite(value) else None
        for name, value in record.evidence.items()
    }
    return structs.replace(record, reason=redact(record.reason), by=redact(record.by), evidence=known)


@final
class Roles:
    """Who leads and who is in the shadow.

    Parameters
    ----------
    bundle : digest of the model that a session was begun with

    Attributes
    ----------
    lead : decides
    shadow : is asked too, and decides nothing; None = there is none
    earlier : who led before, the newest last; to take the newest up again is a step back, and forgets it
    tried : digest of the last model that a retraining has brought, whatever became of it; "" = none
    """

    def __init__(self, bundle: str) -> None:
        self.lead = InRole(bundle)
        self.shadow: InRole | None = None
        self.earlier: list[InRole] = []
        self.tried = ""

    def take(self, record: ModelRecord, now_ns: int, after_ns: int) -> None:
        """Do what a record says.

        Parameters
        ----------
        now_ns : exchange time
        after_ns : end of the last frame that was decided on
        """
        if record.by == BY_RETRAINING and record.bundle:
            self.tried = record.bundle
        before = self.lead if record.role == "lead" else self.shadow
        calibrated_by = record.by or (_SOMEBODY if record.calibration is not None else "")
        if before is not None and before.bundle == record.bundle:
            now = structs.replace(
                before, calibration=record.calibration, calibrated_ns=now_ns, calibrated_by=calibrated_by
            )
        else:
            same = self._known(record)
            if same is None and record.calibration is None:
                calibrated_by = ""
            now = InRole(
                record.bundle,
                record.calibration,
                since_ns=now_ns,
                after_ns=after_ns,
                calibrated_ns=0 if same is None else same.calibrated_ns,
                calibrated_by=calibrated_by if same is None else same.calibrated_by,
                reason=record.reason,
                by=record.by,
            )
        if record.role == "shadow":
            self.shadow = now if record.bundle else None
            return
        if now.bundle != self.lead.bundle:
            # A promotion is a step forward even to a model that has led before: it is watched, can be undone.
            if self.earlier and self.earlier[-1].bundle == now.bundle and record.by != BY_RULE:
                self.earlier.pop()
            else:
                self.earlier = [*self.earlier, self.lead][-_EARLIER_MAX:]
        self.lead = now
        if self.shadow is not None and self.shadow.bundle == now.bundle:
            self.shadow = None  # it leads

    def _known(self, record: ModelRecord) -> InRole | None:
        """Return who bears a model with this very calibration already."""
        for each in (self.shadow, *self.earlier[-1:], self.lead):
            if each is not None and (each.bundle, each.calibration) == (record.bundle, record.calibration):
                return each
        return None
