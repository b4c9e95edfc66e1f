"""Whether the market of a running session still is the one that its model was trained on.

Owns: what its rows are held against. Never: works in the engine's thread, or is part of what a journal
repeats: it begins anew with the process.
"""

from __future__ import annotations

from typing import Any, final

from gpuscalp.bundle import Bundle
from gpuscalp.drift.alarm import BLOCKS_BETWEEN_ALARMS, DriftAlarm
from gpuscalp.drift.stability import Drift
from gpuscalp.rolling import RollingSum
from gpuscalp.schema import F32, NS_PER_S


@final
class DriftWatch:
    """Takes the sound rows of a session.

    Parameters
    ----------
    bundle : of the session

    Attributes
    ----------
    drift, alarm : None where the bundle does not say what its training rows, or blocks of them, were like
    """

    def __init__(self, bundle: Bundle) -> None:
        names, reference = bundle.contract.names, bundle.reference
        self.drift = None if reference is None else Drift(reference.trained, names)
        self.alarm: DriftAlarm | None = None
        if reference is not None and reference.floor is not None:
            self.alarm = DriftAlarm(reference.floor, reference.trained.edges, names)
        self._guarded = bundle.ensemble.guard is not None
        self._outliers = RollingSum((2,), bucket_ns=300 * NS_PER_S, buckets=12)

    def take(self, x: F32, at_ns: int) -> None:
        """Take float32[R, F], sound rows up to a time that only goes forward."""
        if self.drift is None:
            return
        self.drift.take(x, at_ns)
        if self.alarm is not None:
            self.alarm.take(x, at_ns)

    def count(self, rows: int, outliers: int, at_ns: int) -> None:
        """Count sound rows, and those of them that the model's guard marks."""
        self._outliers.add(at_ns, [rows, outliers])

    def status(self, now_ns: int) -> dict[str, Any] | None:
        """Return the key ``drift`` of a status."""
        if self.drift is None:
            return None
        rows, outliers = self._outliers.total(now_ns).tolist()
        return {
            "rows": self.drift.rows(now_ns),
            "groups": {
                each.group: {"mean": each.mean, "largest": each.largest, "column": each.column}
                for each in self.drift.figures(now_ns)
            },
            "alarm": _alarm(self.alarm),
            "outliers": outliers / rows if self._guarded and rows else None,
        }


def _alarm(alarm: DriftAlarm | None) -> dict[str, Any] | None:
    if alarm is None:
        return None
    return {
        "flagged": alarm.flagged,
        "alarms": alarm.alarms,
        "blocks": alarm.blocks,
        "evidence": 0.0 if alarm.last is None else alarm.last.evidence,
        "threshold": BLOCKS_BETWEEN_ALARMS,
        "group": None if alarm.last is None else alarm.last.group,
    }
