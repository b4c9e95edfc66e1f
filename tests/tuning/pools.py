"""What makes trials in these tests: scores out of a digest instead of boosters, and a driver that dies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from gpuscalp.config import DimensionConfig, ScoreConfig, SearchConfig, TuneConfig
from gpuscalp.tuning.search import Task, Trial, search
from gpuscalp.tuning.space import Space
from gpuscalp.tuning.trials import FoldFigures, Rung, TrialLog

SPACE = {
    "label.horizon_ms": DimensionConfig(choices=(500, 1_000)),
    "booster.eta": DimensionConfig(low=0.01, high=0.5, log=True),
    "booster.max_depth": DimensionConfig(low=2, high=6),
    "strategy.min_edge_bps": DimensionConfig(low=-1.0, high=1.0),
}


class KilledError(Exception):
    """The driver dies here."""


def line_of(task: Task) -> Rung:
    """A made-up answer that depends on the trial's values and rounds only, with ties and failures in it."""
    text = msgspec.json.encode((task.rounds, task.train.booster, task.train.label, task.strategy))
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))
    if rng.random() < 0.1:
        return Rung(task.trial, task.rung, task.rounds, (), 0.0, failure="made up")
    acts = int(rng.integers(0, 3))  # a third has none, and scores 0
    folds = tuple(
        FoldFigures(
            rows=100,
            symbol_hours=0.5,
            acts=acts,
            net_bps=float(rng.normal(100.0 * task.train.booster.eta, 5.0)) if acts else 0.0,
            log_loss=float(rng.uniform(0.9, 1.1)),
            base_log_loss=1.0,
            rounds=(task.rounds,),
        )
        for _ in range(3)
    )
    return Rung(task.trial, task.rung, task.rounds, folds, 0.0)


class Shuffled:
    """Answers in a random order; dies after ``lives`` answers."""

    def __init__(self, rng: np.random.Generator, lives: int | None = None) -> None:
        self._rng, self._lives = rng, lives
        self.made: list[tuple[int, int]] = []

    def __call__(self, tasks: Sequence[Task]) -> Iterator[Rung]:
        for index in self._rng.permutation(len(tasks)):
            if self._lives is not None and len(self.made) >= self._lives:
                raise KilledError
            task = tasks[index]
            self.made.append((task.trial, task.rung))
            yield line_of(task)


def run(folder: Path, pool: Shuffled, *, trials: int = 30, seed: int = 7, **changes: object) -> list[Trial]:
    """Search with made-up scores."""
    config = TuneConfig(space=SPACE)
    with TrialLog(folder) as log:
        return search(
            log,
            Space(config),
            search=SearchConfig(**{"seed": seed, "generation": 9, "random_trials": 9, **changes}),
            score=ScoreConfig(),
            rounds=90,
            trials=trials,
            pool=pool,
            told=lambda done, total=None, note="": None,
        )


def told_of(trials: Sequence[Trial]) -> list[tuple[object, ...]]:
    """What a search found out, to be compared."""
    return [(each.number, each.params, each.state, each.scores, each.failure) for each in trials]
