"""How lead and shadow of a running session do against each other, and whether a new lead is what it seemed.

Owns: from which frame on whom is compared with whom, the rules applied to it, and how that stands. Never:
changes a model (gpuscalp.live.succession). It begins anew with the process, and with every change of a model.
"""

from __future__ import annotations

import math
from typing import Any, Final, final

from gpuscalp.config import GridConfig, LabelConfig, LiveConfig, PromotionConfig
from gpuscalp.live.roles import BY_RULE, InRole, Roles
from gpuscalp.orders import SignalRow
from gpuscalp.strategy import Strategy
from gpuscalp.succession.calibration_band import CalibrationBand
from gpuscalp.succession.contest import Contest
from gpuscalp.succession.outcomes import Matured
from gpuscalp.succession.promotion import Evidence, promotes

# Who asked for a step back (``ModelRecord.by``).
BY_ROLLBACK: Final = "rollback"
# Frames that wait to be noted; more mean that nobody makes a status any more.
_WAITING_MAX: Final = 2_048


@final
class Rivals:
    """Follows the models of one session.

    Order of calls: ``follow`` at the beginning and with every change; ``on_shadow`` in the engine's thread;
    ``note`` now and then, and after it ``mature`` with frames whose labels are known.

    Parameters
    ----------
    strategy : of the session's trader
    config : of the session, but for ``promotion``, which is the process's own
    label, grid : of the models, which agree in them; without a label nothing matures, and nothing is compared

    Attributes
    ----------
    contest : of the lead and the shadow; None without a shadow
    band : of a lead that was promoted by the rule; None for any other
    """

    def __init__(
        self,
        strategy: Strategy,
        config: LiveConfig,
        promotion: PromotionConfig,
        label: LabelConfig | None,
        grid: GridConfig,
    ) -> None:
        self.contest: Contest | None = None
        self.band: CalibrationBand | None = None
        self._strategy, self._config, self._promotion = strategy, config, promotion
        self._label, self._grid = label, grid
        self._lead: InRole | None = None
        self._shadow: InRole | None = None
        self._said: list[tuple[int, SignalRow, SignalRow]] = []

    def follow(self, roles: Roles) -> bool:
        """Compare those who predict from now on; return whether another one leads. Another calibration of the
        same model is no other model."""
        if self._label is None:
            return False
        lead, shadow = roles.lead, roles.shadow
        same_lead = self._lead is not None and _who(lead) == _who(self._lead)
        if not same_lead:
            self.band = None
            if lead.by == BY_RULE and roles.earlier:
                promotion = self._promotion
                self.band = CalibrationBand(
                    window_s=promotion.window_s,
                    tolerance=promotion.tolerance,
                    errors=promotion.errors,
                    after_ns=lead.after_ns,
                )
        if not same_lead or _who(shadow) != _who(self._shadow):
            self.contest = None
            self._said.clear()
            if shadow is not None:
                self.contest = Contest(
                    self._strategy,
                    self._config.cost,
                    min_edge_bps=self._config.strategy.min_edge_bps,
                    label=self._label,
                    grid=self._grid,
                    after_ns=max(lead.after_ns, shadow.after_ns),
                )
        self._lead, self._shadow = lead, shadow
        return not same_lead

    @property
    def active(self) -> bool:
        """Whether there is anything to be told."""
        return self.contest is not None or self.band is not None

    def on_shadow(self, end_ns: int, lead: SignalRow, shadow: SignalRow) -> None:
        """Take what both said at a frame."""
        if len(self._said) < _WAITING_MAX:
            self._said.append((end_ns, lead, shadow))

    def note(self) -> None:
        """Let what was said since the last call count."""
        said, self._said = self._said, []
        if self.contest is not None:
            for each in said:
                self.contest.note(*each)

    def mature(self, matured: Matured) -> None:
        """Take what came."""
        if self.contest is not None:
            self.contest.mature(matured)
        if self.band is not None:
            self.band.mature(matured)

    @property
    def promotes(self) -> bool:
        """Whether the rule asks for the shadow."""
        contest = self.contest
        return contest is not None and promotes(
            self._promotion, contest.rows, contest.log_loss, contest.score
        )

    @property
    def leaves(self) -> str:
        """Which figure of the new lead lies outside its band; "" = none."""
        if self.band is None:
            return ""
        return next((gap.name for gap in self.band.gaps() if gap.outside), "")

    def evidence(self) -> dict[str, float | None]:
        """Return the numbers of the contest, as a record of the journal takes them."""
        contest = self.contest
        if contest is None:
            return {}
        return {
            "rows": contest.rows,
            "blocks": contest.log_loss.count,
            **{
                f"{name}_{key}": value
                for name, each in (("log_loss", contest.log_loss), ("score_bps", contest.score))
                for key, value in _standing(each).items()
            },
            "needed_log10": self._needed_log10(),
        }

    def gaps(self) -> dict[str, float | None]:
        """Return the figures of the band, as a record of the journal takes them."""
        if self.band is None:
            return {}
        found: dict[str, float | None] = {"rows": self.band.rows}
        for gap in self.band.gaps():
            found |= {gap.name: gap.value, f"{gap.name}_limit": gap.limit}
        return found

    def status(self) -> dict[str, Any]:
        """Return ``test`` of the shadow and ``watch`` over the lead; None where there is none."""
        contest, test = self.contest, None
        if contest is not None:
            test = {
                "rows": contest.rows,
                "rows_min": self._promotion.rows_min,
                "blocks": contest.log_loss.count,
                "log_loss": _standing(contest.log_loss),
                "score_bps": _standing(contest.score),
                "needed_log10": self._needed_log10(),
                "met": self.promotes,
            }
        watch = None
        if self.band is not None:
            watch = {
                "rows": self.band.rows,
                "window_s": self._promotion.window_s,
                "gaps": {
                    gap.name: {"value": gap.value, "limit": gap.limit, "outside": gap.outside}
                    for gap in self.band.gaps()
                },
            }
        return {"test": test, "watch": watch}

    def _needed_log10(self) -> float:
        return -math.log10(1.0 - self._promotion.confidence)


def _who(role: InRole | None) -> tuple[str, int] | None:
    return None if role is None else (role.bundle, role.since_ns)


def _standing(evidence: Evidence) -> dict[str, float | None]:
    """Return the mean difference (positive: the shadow is better) and the purse, as a power of ten."""
    return {
        "mean": None if math.isnan(evidence.mean) else evidence.mean,
        "log10": evidence.log_purse / math.log(10.0),
    }
