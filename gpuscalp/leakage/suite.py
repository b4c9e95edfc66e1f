"""Everything shipped must pass the detector, and every planted leak must be caught by it.

A detector that raises no alarm proves nothing unless it is known to raise one; therefore both are run on the
same ticks, with the same cuts and futures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

import numpy as np

from gpuscalp.config import TrainConfig
from gpuscalp.excerpt import Excerpt
from gpuscalp.leakage.detector import Finding, Probe, Rows, examine
from gpuscalp.leakage.futures import FUTURES
from gpuscalp.leakage.planted import PLANTS, Transform
from gpuscalp.leakage.series import SeriesMaker
from gpuscalp.leakage.shipped import Shipped
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import NS_PER_MS, Ticks
from gpuscalp.splits import Fold
from gpuscalp.train.dataset import RowFilter

# Sums over whole arrays round by their length, which differs between futures.
ROUNDING: Final = 1e-9


@dataclass(slots=True)
class LeakageReport:
    """What was planted and caught, what shipped was checked, and what alarmed.

    Attributes
    ----------
    planted : name of the leak → first evidence, or None where the detector missed it
    shipped, twins : findings on what is shipped and on the honest twins of the leaks
    cuts, futures : how many times the future was changed, and in how many ways each time
    folds, folds_configured : how many the training rows were chosen for, and how many there should be
    """

    data: dict[str, Any]
    hash: str
    cuts: int
    futures: int
    folds: int
    folds_configured: int
    seed: int
    planted: dict[str, str | None] = field(default_factory=dict)
    shipped: list[Finding] = field(default_factory=list)
    twins: list[Finding] = field(default_factory=list)

    @property
    def missed(self) -> list[str]:
        return [name for name, evidence in self.planted.items() if evidence is None]

    @property
    def alarms(self) -> list[dict[str, str]]:
        return [
            {"probe": finding.name, "column": column, "evidence": evidence}
            for finding in self.shipped + self.twins
            for column, evidence in finding.leaks.items()
        ]

    @property
    def clean(self) -> bool:
        """Every planted leak was caught and nothing else alarmed."""
        return not self.missed and not self.alarms

    def to_dict(self) -> dict[str, Any]:
        checked = self.shipped + self.twins
        return {
            "planted": len(self.planted),
            "caught": len(self.planted) - len(self.missed),
            "checked": sum(len(finding.columns) for finding in checked),
            "false_alarms": len(self.alarms),
            "missed": self.missed,
            "alarms": self.alarms,
            "values": sum(finding.values for finding in checked),
            "cuts": self.cuts,
            "futures": self.futures,
            "folds": self.folds,
            "folds_configured": self.folds_configured,
            "probes": [
                {
                    "name": finding.name,
                    "shipped": finding in self.shipped,
                    "columns": len(finding.columns),
                    "values": finding.values,
                    "leaks": finding.leaks,
                }
                for finding in checked
            ],
            "leaks": self.planted,
            "hash": self.hash,
            "seed": self.seed,
            **self.data,
        }


def check_leakage(
    excerpt: Excerpt,
    *,
    config: TrainConfig | None = None,
    cuts: int = 20,
    seed: int = 7,
    on_progress: Progress = silent,
) -> LeakageReport:
    """Run the detector over the shipped features, labels and folds and over the planted leaks.

    Parameters
    ----------
    excerpt : the ticks
    config : grid, features, label and split; both kinds of label are checked with its horizon
    cuts : random times after which the future is changed; the beginnings of test intervals come on top
    seed : of cuts and futures

    Returns
    -------
    LeakageReport    a leak is a result, not an exception

    Raises
    ------
    DataError        the recording is too short for two folds of the configured labels
    """
    chosen = config or TrainConfig()
    ticks, maker = excerpt.ticks, SeriesMaker(chosen.grid, excerpt.instruments)
    made = Shipped(chosen, excerpt.instruments)
    folds = made.folds(ticks)
    shipped = _shipped_probes(made, folds)
    leaks = {plant.name: _plant(maker, plant.leaky, plant.delay) for plant in PLANTS}
    leaks |= _careless_training(made, folds)
    twins = {f"honest: {plant.name}": _plant(maker, plant.honest, plant.delay) for plant in PLANTS}
    cuts_ns = _cuts(ticks, cuts, folds, seed)
    found = examine(
        {**shipped, **twins, **leaks},
        ticks,
        cuts_ns=cuts_ns,
        lateness_ns=chosen.grid.lateness_ms * NS_PER_MS,
        seed=seed,
        on_progress=on_progress,
    )
    return LeakageReport(
        data=excerpt.to_dict(),
        hash=made.graph_hash,
        cuts=len(cuts_ns),
        futures=len(FUTURES),
        folds=len({fold.index for fold in folds}),
        folds_configured=chosen.split.folds,
        seed=seed,
        planted={name: next(iter(found[name].leaks.values()), None) for name in leaks},
        shipped=[found[name] for name in shipped],
        twins=[found[name] for name in twins],
    )


def _cuts(ticks: Ticks, count: int, folds: Sequence[Fold], seed: int) -> list[int]:
    """Return random times, and the beginning of every test interval: there training rows must be settled."""
    first_ns, last_ns = int(ticks["exch_ns"].min()), int(ticks["exch_ns"].max())
    # Not in the first tenth: hardly anything is known there that could change.
    times = np.random.default_rng(seed).integers(first_ns + (last_ns - first_ns) // 10, last_ns + 1, count)
    return sorted({*times.tolist(), *(fold.test_start_ns for fold in folds)})


def _shipped_probes(shipped: Shipped, folds: Sequence[Fold]) -> dict[str, Probe]:
    probes: dict[str, Probe] = {}
    probes["features"] = shipped.features
    probes["frames"] = shipped.frames
    kinds: tuple[Literal["forward", "barrier"], ...] = ("forward", "barrier")
    for kind in kinds:
        labelled = shipped.with_labels(kind)
        probes[f"{kind} labels, content"] = labelled.label_content
        probes[f"{kind} labels, existence"] = labelled.label_existence
        probes[f"training rows, {kind} labels"] = partial(labelled.training_rows, folds=folds)
    return probes


def _plant(maker: SeriesMaker, transform: Transform, delay: int) -> Probe:
    """Return the probe of a transform: one row per frame, known ``delay`` frames after its end."""

    def probe(ticks: Ticks) -> Rows:
        series = maker(ticks)
        known = np.full(len(series.end_ns), np.iinfo(np.int64).max)
        known[: len(known) - delay] = series.end_ns[delay:]
        values = np.asarray(transform(series), np.float64).reshape(-1, 1)
        return Rows(series.end_ns[:, None], known, values, ("value",), tolerance=ROUNDING)

    return probe


def _careless_training(shipped: Shipped, folds: Sequence[Fold]) -> dict[str, Probe]:
    """Return leaks of the split: the shipped labels and weights, but the wrong rows to train on."""

    def unpurged(fold: Fold) -> RowFilter:
        return lambda end_ns, _: end_ns < fold.test_start_ns

    def without_embargo(fold: Fold) -> RowFilter:
        return lambda _, horizon_end_ns: horizon_end_ns <= fold.test_start_ns

    return {
        "overlapping labels": partial(shipped.training_rows, folds=folds, choose=unpurged),
        "weights without an embargo": partial(shipped.training_rows, folds=folds, choose=without_embargo),
    }
