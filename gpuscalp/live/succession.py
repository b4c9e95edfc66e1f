"""The models of a running session one after the other: trained, in the shadow, in the lead, and back again.

Owns: what is done when, each step as a record of the journal. Never: trains (gpuscalp.live.retrainer), judges
(gpuscalp.live.rivals), or works while the engine does: ``poll`` is for the loop's thread, a frame's work is
nowhere in it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, final

from gpuscalp.config import LiveConfig
from gpuscalp.errors import ConfigError, GpuscalpError, ModelError, NotRunningError, UsageError
from gpuscalp.live.adaptation import Adaptation
from gpuscalp.live.monitor import Monitor
from gpuscalp.live.records import ModelRecord
from gpuscalp.live.retrainer import Retrainer
from gpuscalp.live.rivals import BY_ROLLBACK
from gpuscalp.live.roles import BY_RETRAINING, BY_RULE, InRole, Roles
from gpuscalp.live.session import Session
from gpuscalp.registry.names import SHORT
from gpuscalp.risk.gate import RiskState
from gpuscalp.schema import NS_PER_MS

_LOG: Final = logging.getLogger("gpuscalp.models")
_HOUR_MS: Final = 3_600_000
_METRICS: Final = ("log_loss", "base_log_loss", "ic", "ic_low", "ic_high")


@final
class Succession:
    """Looks after the models of one session.

    Parameters
    ----------
    session : recovered
    config : of this process; its ``retraining`` and ``promotion`` count
    monitor : its rivals are told of all frames; it is told who wants to know what matures
    use : changes a model, and returns when that is true (``gpuscalp.live.commands.Commands.use``)

    Attributes
    ----------
    promoted, rolled_back : how often, since the process began

    Raises
    ------
    ConfigError    such a session cannot be retrained
    """

    def __init__(
        self,
        session: Session,
        config: LiveConfig,
        monitor: Monitor,
        use: Callable[..., Awaitable[Any]],
    ) -> None:
        if config.retraining.every_hours and config.broker != "paper":
            raise ConfigError(
                "a session over NautilusTrader cannot train from its journal, which has no messages in it",
                where="retraining.every_hours",
                value=config.retraining.every_hours,
                fix="0, and `gpuscalp use` with bundles trained elsewhere",
            )
        self.promoted = self.rolled_back = 0
        self._session, self._config, self._rivals = session, config, monitor.rivals
        self._use = use
        self._adaptation = Adaptation.of(session, config.adaptation)
        if self._adaptation is not None:
            monitor.adapt = self._adaptation.mature
        # What lies before a pause is older than it looks.
        last_ns = session.market.last_recv_ns
        self._frames_before = session.engine.frame_count
        self._down_ns = max(time.time_ns() - last_ns, 0) if last_ns else 0
        self._retrainer = Retrainer(session.path, config.retraining, begun_ns=session.about.created_ns)
        # A change on its way; before it has come true nothing else is decided.
        self._change: asyncio.Task[None] | None = None
        # What was trained and is to be taken up; a process before this one may have done so.
        self._trained = self._retrainer.left()
        self._is_left = self._trained is not None
        # Models that could not be used: they are not asked for again.
        self._unusable: dict[str, str] = {}

    def poll(self, now_ns: int) -> None:
        """Do what is due. Call it now and then while the engine is at rest.

        Parameters
        ----------
        now_ns : wall clock
        """
        if (answer := self._retrainer.poll(now_ns)) is not None:
            self._trained = answer
        if self._adaptation is not None:
            self._adaptation.poll(self._session.market.exch_ns, self._use)
        if self._change is not None:
            if not self._change.done():
                return
            change, self._change = self._change, None
            change.result()
        if self._is_left:
            if self._session.market.models_waiting:
                return  # it may be among them: the next batch tells
            self._is_left = False
            if self._trained is not None and self._trained["digest"] == self._session.engine.roles.tried:
                self._trained = None
        if self._trained is None:  # the next one would take its place on the disk
            self._retrain(now_ns)
        if self._trained is not None:
            trained, self._trained = self._trained, None
            self._change = asyncio.create_task(self._take_up(trained))
        elif self._config.promotion.by == "rule" and (records := self._judge()):
            roles = self._session.engine.roles
            self._change = asyncio.create_task(self._make(records, (roles.lead, roles.shadow)))

    def close(self) -> None:
        """End what is under way."""
        self._retrainer.close()
        if self._change is not None:
            self._change.cancel()
        if self._adaptation is not None:
            self._adaptation.close()

    def status(self) -> dict[str, Any]:
        """Return how it stands; call it while the engine is at rest."""
        return {
            "by": self._config.promotion.by,
            "retraining": self._retrainer.status(),
            **self._rivals.status(),
            "promoted": self.promoted,
            "rolled_back": self.rolled_back,
            "unusable": dict(self._unusable),
        }

    def _retrain(self, now_ns: int) -> None:
        retrainer, engine = self._retrainer, self._session.engine
        if not retrainer.due(now_ns):
            return
        if engine.trader.gate.state is RiskState.HALTED:
            retrainer.reason = "due, but the gate is halted"
            return
        rows = self._row_count()
        if rows < self._config.retraining.rows_min:
            retrainer.reason = f"due, but there are {rows:,} rows of {self._config.retraining.rows_min:,}"
            return
        if obstacle := retrainer.obstacle():
            retrainer.reason = f"due, but {obstacle}"
            return
        lead = self._session.models.path_of(engine.roles.lead.bundle)
        retrainer.start(lead, now_ns)

    def _row_count(self) -> int:
        """Return about how many rows a training would have."""
        grid = self._session.bundle.contract.training.config.grid
        within = round(self._config.retraining.train_hours * _HOUR_MS / grid.frame_ms)
        since = self._session.engine.frame_count - self._frames_before
        down = self._down_ns // (grid.frame_ms * NS_PER_MS)
        earlier = max(min(self._frames_before, within - since - down), 0)
        return min(since + earlier, within) * len(self._session.about.instruments)

    async def _take_up(self, answer: dict[str, Any]) -> None:
        """Make what was trained the shadow."""
        metrics, digest = answer["metrics"], answer["digest"]
        evidence = {"rows": float(answer["rows"])} | {name: metrics.get(name) for name in _METRICS}
        add = partial(self._session.models.add, Path(answer["bundle"]), now_ns=time.time_ns())
        try:
            added = await asyncio.to_thread(add)
        except (GpuscalpError, OSError, MemoryError, ValueError) as error:
            self._retrainer.failed(time.time_ns(), f"the candidate cannot be used: {_words(error)}")
            self._give_up(digest, error)
            return
        if added == digest:
            await self._make([ModelRecord("shadow", digest, None, "retrained", BY_RETRAINING, evidence)])
        else:
            reason = f"the candidate is {added[:SHORT]} by now, in the place of {digest[:SHORT]}"
            self._retrainer.failed(time.time_ns(), reason)

    def _judge(self) -> list[ModelRecord]:
        """Return what the rules ask for: to promote, or to go back."""
        rivals, roles = self._rivals, self._session.engine.roles
        before = roles.earlier[-1] if roles.earlier else None
        if (figure := rivals.leaves) and before is not None and before.bundle not in self._unusable:
            now = before
            reason, by, evidence = f"{figure} has left its band", BY_ROLLBACK, rivals.gaps()
        elif rivals.promotes and roles.shadow is not None:
            now = roles.shadow
            reason, by, evidence = "better by both tests", BY_RULE, rivals.evidence()
        else:
            return []
        if now.bundle in self._unusable:
            return []
        records = [ModelRecord("lead", now.bundle, now.calibration, reason, by, evidence)]
        if roles.shadow is not None and by == BY_ROLLBACK:  # it was compared with another lead
            records.append(ModelRecord("shadow", "", None, reason, by))
        return records

    async def _make(
        self, records: list[ModelRecord], seen: tuple[InRole, InRole | None] | None = None
    ) -> None:
        """Make changes, one after the other.

        Parameters
        ----------
        seen : lead and shadow upon which they were decided: if an operator is faster, nothing is changed
        """
        for number, record in enumerate(records):
            still = None if seen is None else partial(_unchanged, seen, lead_too=number == 0)
            try:
                await self._use(record, still=still)
            except (NotRunningError, UsageError):
                return
            except (ModelError, MemoryError, ValueError) as error:
                self._give_up(record.bundle, error)
                return
            if number == 0:  # it leads, whatever becomes of the second record
                self.promoted += record.by == BY_RULE
                self.rolled_back += record.by == BY_ROLLBACK

    def _give_up(self, bundle: str, error: Exception) -> None:
        self._unusable[bundle] = _words(error)
        _LOG.error("model %s cannot be used: %s", bundle[:12], _words(error))


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__  # a MemoryError says nothing


def _unchanged(seen: tuple[InRole, InRole | None], roles: Roles, *, lead_too: bool) -> bool:
    return roles.shadow is seen[1] and (roles.lead is seen[0] or not lead_too)
