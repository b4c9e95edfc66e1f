"""Which trials are made, and which of them go on: a function of seed, space and scores, and of nothing else.

    generation g:  values from Optuna, which knows all trials of generations 0 … g − 1
                   rung 0: all of them, few rounds ─► best third ─► rung 1 ─► best third ─► … ─► all rounds

Owns: generations, rungs, and the choice of the best. Never: trains, or knows where trials run.

Nothing here depends on the order in which trials end: Optuna hears of a generation when all of it is done,
in the order of its numbers, and a rung is decided when all who reached it have been scored. So it does not
matter how many work at the same time, or how often the program is killed on the way.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gpuscalp.config import ScoreConfig, SearchConfig, StrategyConfig, TrainConfig
from gpuscalp.errors import ConfigError, DataError, UsageError
from gpuscalp.progress import Progress
from gpuscalp.tuning.score import log_loss_gain, score_of
from gpuscalp.tuning.space import Params, Space
from gpuscalp.tuning.trials import Generation, Rung, TrialLog


@dataclass(frozen=True, slots=True)
class Task:
    """One trial up to one rung.

    Attributes
    ----------
    rounds : boosting rounds, at most
    """

    trial: int
    rung: int
    rounds: int
    train: TrainConfig
    strategy: StrategyConfig


# Does tasks in any order, at the same time or not, and yields what each gave as soon as it has it.
Pool = Callable[[Sequence[Task]], Iterator[Rung]]


@dataclass(slots=True)
class Trial:
    """One trial: its values, and what each rung gave.

    Attributes
    ----------
    yardstick : it has the configuration as it stands, and goes through all rungs whatever its score
    finished : it went through all rungs
    """

    number: int
    params: Params
    yardstick: bool = False
    rungs: list[Rung] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    failure: str | None = None
    finished: bool = False

    @property
    def state(self) -> Literal["finished", "stopped", "failed"]:
        if self.failure is not None:
            return "failed"
        return "finished" if self.finished else "stopped"

    @property
    def score(self) -> float:
        """The score at the last rung it reached; NaN where it failed."""
        return math.nan if self.failure is not None else self.scores[-1]

    @property
    def rank(self) -> tuple[float, float, int]:
        """What trials are ordered by, the best first.

        After few rounds many trials would not act yet, and score 0: then the log loss decides, relative to
        that of the base rate, because labels may differ between trials.
        """
        return -self.score, -log_loss_gain(self.rungs[-1].folds), self.number


def rung_rounds(config: SearchConfig, rounds: int) -> tuple[int, ...]:
    """Return the boosting rounds of each rung, ascending; the last one has all of them."""
    steps = range(config.rungs - 1, -1, -1)
    return tuple(dict.fromkeys(max(1, math.ceil(rounds / config.reduction**step)) for step in steps))


def search(
    log: TrialLog,
    space: Space,
    *,
    search: SearchConfig,
    score: ScoreConfig,
    rounds: int,
    trials: int,
    pool: Pool,
    told: Progress,
) -> list[Trial]:
    """Make what the log does not hold yet, and return all trials in the order of their numbers.

    Parameters
    ----------
    log : of this search; what it holds is not made again
    space : what is tuned
    rounds : boosting rounds of the last rung
    trials : how many there are to be
    pool : makes tasks

    Raises
    ------
    UsageError
        the log holds trials that would not be among so many
    GpuscalpError
        what ``pool`` raises
    """
    levels = rung_rounds(search, rounds)
    _check_count(log, trials, search.generation)
    bar = _Bar(told, log, levels, search, trials)
    configured = space.configured()
    found: list[Trial] = []
    for number in range(math.ceil(trials / search.generation)):
        count = min(search.generation, trials - len(found))
        if number not in log.generations:
            params = propose(space, found, search=search, generation=number, count=count)
            log.add(Generation(number, tuple(params)))
        values = [space.read(each) for each in log.generations[number].params]
        members = [
            Trial(len(found) + at, each, yardstick=len(found) + at == 0 and each == configured)
            for at, each in enumerate(values)
        ]
        _climb(members, levels, log, space, search, score, pool, bar)
        found += members
    return found


def best_of(trials: Sequence[Trial]) -> Trial:
    """Return the first of the finished trials in the order of their ranks.

    Raises
    ------
    DataError
        none was finished
    """
    finished = [trial for trial in trials if trial.finished]
    if not finished:
        why = next((trial.failure for trial in trials if trial.failure), None)
        raise DataError(
            "no trial could be made", where="the first that failed", value=why, fix="see trials.jsonl"
        )
    return min(finished, key=lambda trial: trial.rank)


def propose(
    space: Space, before: Sequence[Trial], *, search: SearchConfig, generation: int, count: int
) -> list[Params]:
    """Return the values of a generation's trials.

    Parameters
    ----------
    before : all trials of the generations before, in the order of their numbers
    generation : from 0; with the seed it decides the randomness
    count : trials

    Notes
    -----
    The tree-structured Parzen estimator (Bergstra et al. 2011) as Optuna has it, over all dimensions
    together. A study is made anew for each generation, so there is no state that a crash could lose.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = int(np.random.SeedSequence([search.seed, generation]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=search.random_trials, multivariate=True, constant_liar=True
        )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {dimension.name: dimension.distribution() for dimension in space.dimensions}
    for trial in before:
        study.add_trial(_frozen(optuna, trial, space, distributions))
    found = []
    configured = space.configured() if generation == 0 else None
    if configured is not None:
        found.append(configured)
    while len(found) < count:
        asked = study.ask(distributions).params
        found.append({each.name: each.from_optuna(asked[each.name]) for each in space.dimensions})
    return found


def _climb(
    members: Sequence[Trial],
    levels: Sequence[int],
    log: TrialLog,
    space: Space,
    search: SearchConfig,
    score: ScoreConfig,
    pool: Pool,
    bar: _Bar,
) -> None:
    """Take the trials of one generation through the rungs."""
    alive = list(members)
    for rung, rounds in enumerate(levels):
        tasks = []
        for trial in alive:
            if (trial.number, rung) not in log.rungs:
                try:
                    train, strategy = space.decode(trial.params)
                except ConfigError as error:
                    log.add(Rung(trial.number, rung, rounds, (), 0.0, failure=str(error)))
                else:
                    tasks.append(Task(trial.number, rung, rounds, train, strategy))
        for line in pool(tasks) if tasks else ():
            log.add(line)
            bar.add(line)
        for trial in alive:
            line = log.rungs[trial.number, rung]
            trial.rungs.append(line)
            trial.failure = line.failure
            if line.failure is None:
                trial.scores.append(score_of(line.folds, score))
        alive = [trial for trial in alive if trial.failure is None]
        if rung + 1 < len(levels):
            alive = _survivors(alive, math.ceil(len(members) / search.reduction ** (rung + 1)))
    for trial in alive:
        trial.finished = True


def _survivors(alive: Sequence[Trial], count: int) -> list[Trial]:
    """Return the best ``count`` in the order of their numbers, and the yardstick, whatever its score."""
    ranked = sorted(alive, key=lambda trial: trial.rank)
    kept = {trial.number for trial in ranked[:count]}
    return [trial for trial in alive if trial.yardstick or trial.number in kept]


def _check_count(log: TrialLog, trials: int, generation: int) -> None:
    """Refuse a number of trials of which those that were made are no beginning."""
    sizes = [len(log.generations[number].params) for number in sorted(log.generations)]
    wanted = [min(generation, trials - generation * number) for number in range(len(sizes))]
    if sizes != wanted:
        raise UsageError(
            "a search for so many trials would not begin with the trials that were made",
            where="--trials",
            value=trials,
            fix=f"{sum(sizes)} were made in generations of {generation}: ask for as many, or, where that is "
            "a multiple of the generation, for more",
        )


def _frozen(optuna: Any, trial: Trial, space: Space, distributions: dict[str, Any]) -> Any:
    states = optuna.trial.TrialState
    state = {"finished": states.COMPLETE, "stopped": states.PRUNED, "failed": states.FAIL}[trial.state]
    return optuna.trial.create_trial(
        state=state,
        value=trial.score if state == states.COMPLETE else None,
        params={each.name: each.to_optuna(trial.params[each.name]) for each in space.dimensions},
        distributions=distributions,
        intermediate_values={
            line.rounds: score for line, score in zip(trial.rungs, trial.scores, strict=False)
        },
    )


class _Bar:
    """How far the search is, in boosting rounds of all trials."""

    def __init__(
        self, told: Progress, log: TrialLog, levels: Sequence[int], search: SearchConfig, trials: int
    ) -> None:
        self._told = told
        whole, rest = divmod(trials, search.generation)
        self._total = float(
            sum(
                rounds * math.ceil(count / search.reduction**rung)
                for count in [search.generation] * whole + ([rest] if rest else [])
                for rung, rounds in enumerate(levels)
            )
        )
        self._done = float(sum(line.rounds for line in log.rungs.values()))
        self._trials = trials
        told(min(self._done, self._total), self._total, "")

    def add(self, line: Rung) -> None:
        self._done += line.rounds
        what = "failed" if line.failure is not None else f"{line.rounds} rounds in {line.seconds:.1f} s"
        note = f"trial {line.trial + 1} of {self._trials}: {what}"
        self._told(min(self._done, self._total), self._total, note)
