"""Whether the market of a running session still is the one that its model was trained on.

Owns: which live rows are looked at, and when they are compared with those of the training. Never: works in
the engine's thread, or is part of what a journal repeats: it begins anew with the process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final, final

import numpy as np

from gpuscalp.bundle import Bundle
from gpuscalp.drift.adversarial import ROWS_MIN, GroupAuc, compare, training_floors
from gpuscalp.drift.alarm import BLOCKS_BETWEEN_ALARMS, DriftAlarm
from gpuscalp.drift.stability import Drift
from gpuscalp.rolling import RollingSum
from gpuscalp.schema import F32, I64, NS_PER_S

_HOUR_NS: Final = 3_600 * NS_PER_S
# Rows of the last hour that are told from as many of the training: two seconds apart, neighbours are alike.
_ROWS: Final = 1_800
_SPACING_NS: Final = _HOUR_NS // _ROWS
# Before the window is half full, and more often than this, a comparison would say more about chance.
_COMPARED_MIN: Final = _ROWS // 2
_EVERY_NS: Final = 300 * NS_PER_S


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
        self._names, self._reference = names, reference
        if reference is not None and reference.floor is not None:
            self.alarm = DriftAlarm(reference.floor, reference.trained.edges, names)
        self._rows: F32 = np.empty((_ROWS, len(names)), np.float32)
        self._at_ns: I64 = np.zeros(_ROWS, np.int64)
        self._rng = np.random.default_rng(0)
        self._taken, self._newest_ns, self._compared_ns = 0, 0, 0
        self._floors: dict[str, tuple[float, float]] | None = None
        self._aucs: tuple[GroupAuc, ...] = ()
        self._guarded = bundle.ensemble.guard is not None
        self._outliers = RollingSum((2,), bucket_ns=300 * NS_PER_S, buckets=12)

    def take(self, x: F32, at_ns: int) -> None:
        """Take float32[R, F], sound rows up to a time that only goes forward."""
        if self.drift is None:
            return
        self.drift.take(x, at_ns)
        if self.alarm is not None:
            self.alarm.take(x, at_ns)
        if len(x) and at_ns - self._newest_ns >= _SPACING_NS:
            wanted = min((at_ns - self._newest_ns) // _SPACING_NS, len(x)) if self._newest_ns else 1
            self._newest_ns = at_ns
            # By lot: the first of four symbols in turn would always be the same one.
            for row in np.sort(self._rng.integers(0, len(x), wanted)).tolist():
                slot = self._taken % _ROWS
                self._rows[slot], self._at_ns[slot] = x[row], at_ns
                self._taken += 1

    def count(self, rows: int, outliers: int, at_ns: int) -> None:
        """Count sound rows, and those of them that the model's guard marks."""
        self._outliers.add(at_ns, [rows, outliers])

    def comparison(self, now_ns: int) -> Callable[[], None] | None:
        """Return what has to be done elsewhere, if it is due: it takes a tenth of a second.

        The rows are copied here; only the result is written from there, in one step.
        """
        reference = self._reference
        if reference is None or len(reference.x) < ROWS_MIN:
            return None
        if now_ns - self._compared_ns < _EVERY_NS:
            return None
        held = np.arange(max(self._taken - _ROWS, 0), self._taken) % _ROWS
        held = held[self._at_ns[held] > now_ns - _HOUR_NS]
        if len(held) < _COMPARED_MIN:
            return None
        self._compared_ns, live, names = now_ns, self._rows[held], self._names
        edges = reference.trained.edges

        def work() -> None:
            if self._floors is None:
                self._floors = training_floors(reference.x, edges, names)
            self._aucs = compare(reference.x, live, edges, names, self._floors)

        return work

    def status(self, now_ns: int) -> dict[str, Any] | None:
        """Return the key ``drift`` of a status."""
        if self.drift is None:
            return None
        rows, outliers = self._outliers.total(now_ns).tolist()
        aucs = {each.group: each for each in self._aucs}
        return {
            "rows": self.drift.rows(now_ns),
            "groups": {
                each.group: {"mean": each.mean, "largest": each.largest, "column": each.column}
                | _auc(aucs.get(each.group))
                for each in self.drift.figures(now_ns)
            },
            "alarm": _alarm(self.alarm),
            "outliers": outliers / rows if self._guarded and rows else None,
        }


def _auc(found: GroupAuc | None) -> dict[str, Any]:
    if found is None:
        return {"auc": None}
    return {"auc": {name: value for name, value in asdict(found).items() if name != "group"}}


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
