"""Corrects the calibration of the model that leads a session, as far as its configuration allows.

Owns: when a correction is due, and the record that makes it (the arithmetic is that of
``gpuscalp.succession.recalibration``). Never: changes a calibration that somebody else has set, or anything
but by a record of the journal: a verification and a restart repeat it from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final, final

import numpy as np

from gpuscalp.config import AdaptationConfig
from gpuscalp.ensemble import Calibration
from gpuscalp.errors import ConfigError, GpuscalpError
from gpuscalp.labels import CLASSES, NO_CLASS, horizon_frames
from gpuscalp.live.records import ModelRecord, Scaling
from gpuscalp.live.roles import InRole
from gpuscalp.live.session import Session
from gpuscalp.schema import NS_PER_S
from gpuscalp.succession.outcomes import Matured
from gpuscalp.succession.recalibration import Correction, Proposal, Recalibrator, correction_in, propose

_LOG: Final = logging.getLogger("gpuscalp.session")
BY: Final = "adaptation"


@final
class Adaptation:
    """Watches what comes of the predictions of one session.

    Order of calls: all while the engine is at rest, but for what ``due`` returns.

    Parameters
    ----------
    session : recovered
    config : its bounds
    """

    def __init__(self, session: Session, config: AdaptationConfig) -> None:
        training = session.bundle.contract.training.config
        self._session, self._config = session, config
        self._made = Recalibrator(
            config,
            class_count=len(CLASSES),
            labels_per_row=1.0 / horizon_frames(training.label, training.grid),
        )
        self._lead: InRole | None = None
        self._ours = False  # the calibration in force is the model's own, or a correction of it
        self._began_ns = 0
        self._running: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, session: Session, config: AdaptationConfig) -> Adaptation | None:
        """Return one; None where the configuration does not want it, or nothing can mature."""
        if not config.recalibrate:
            return None
        try:
            return cls(session, config)
        except ConfigError as error:  # a label of no whole number of frames
            _LOG.warning("the calibration is not corrected: %s", error)
            return None

    def poll(self, now_ns: int, use: Callable[..., Awaitable[object]]) -> None:
        """Do what is due, in a task of its own.

        Parameters
        ----------
        now_ns : exchange time
        use : makes a change of the calibration come true
        """
        if self._running is not None and not self._running.done():
            return
        work = self.due(now_ns)
        if work is not None:
            lead = self._lead  # upon whom it was decided; if another one is faster, nothing is changed
            still = partial(use, still=lambda roles: roles.lead is lead)
            self._running = asyncio.create_task(self._step(work, still))

    def close(self) -> None:
        """End what is under way."""
        if self._running is not None:
            self._running.cancel()

    async def _step(
        self, work: Callable[[], ModelRecord | None], use: Callable[[ModelRecord], Awaitable[object]]
    ) -> None:
        try:
            record = await asyncio.to_thread(work)
            if record is not None:
                await use(record)
        except GpuscalpError as error:  # a session that can trade does not end because of this
            _LOG.warning("the calibration stays as it is: %s", error)
        except (ArithmeticError, ValueError, MemoryError):  # a LinAlgError is a ValueError
            _LOG.exception("the calibration stays as it is")

    def mature(self, matured: Matured) -> None:
        """Take what came."""
        lead = self._follow()
        # What was said before the calibration changed was said under another one.
        later = matured.end_ns > max(lead.calibrated_ns, lead.since_ns)
        said = np.isfinite(matured.probability).all(axis=2)
        kept = (matured.direction != NO_CLASS) & said & later[:, None]
        if self._ours and kept.any():
            came = matured.direction[kept].astype(np.int64)
            end_ns = np.repeat(matured.end_ns, kept.sum(axis=1))
            self._made.take(matured.probability[kept], came, end_ns, int(matured.end_ns[-1]))

    def due(self, now_ns: int) -> Callable[[], ModelRecord | None] | None:
        """Return what has to be computed elsewhere, if it is due; it may give a record to be taken."""
        self._began_ns = self._began_ns or now_ns
        if now_ns - self._began_ns < self._config.every_s * NS_PER_S:
            return None
        lead = self._follow()
        self._began_ns = now_ns
        window = self._made.window(now_ns) if self._ours else None
        if window is None:
            return None
        own, correction, config = self._own(lead), self._made.correction, self._config

        def work() -> ModelRecord | None:
            found = propose(window, correction, config)
            return None if found is None else _record(lead.bundle, own, correction, found)

        return work

    def _follow(self) -> InRole:
        """Take note of who leads, and under which calibration."""
        lead = self._session.engine.roles.lead
        before, self._lead = self._lead, lead
        if before is lead:
            return lead
        own, given = self._own(lead), lead.calibration
        now = own if given is None else replace(own, scale=np.array(given.scale), bias=np.array(given.bias))
        correction = correction_in(own, now)
        self._ours = correction is not None and lead.calibrated_by in ("", BY)
        other = before is None or before.bundle != lead.bundle
        self._made.restart(correction or Correction.none(len(CLASSES)), forget=other)
        return lead

    def _own(self, lead: InRole) -> Calibration:
        return self._session.models.open(lead.bundle).ensemble.calibration


def _record(bundle: str, own: Calibration, before: Correction, found: Proposal) -> ModelRecord:
    after = found.correction
    made = after.applied(own)
    evidence: dict[str, float | None] = {
        "rows": float(found.rows),
        "independent_labels": found.independent,
        "log_loss": found.log_loss,
        "corrected_log_loss": found.corrected_log_loss,
        "log_scale": after.log_scale,
        "log_scale_before": before.log_scale,
    }
    evidence |= {f"bias_{name.lower()}": value for name, value in zip(CLASSES, after.bias, strict=True)}
    return ModelRecord(
        "lead",
        bundle,
        Scaling(tuple(made.scale.tolist()), tuple(made.bias.tolist())),
        reason=f"recalibrated on {found.rows} matured rows",
        by=BY,
        evidence=evidence,
    )
