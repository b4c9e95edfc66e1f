"""What is said of a finished search: its table, its report, and what a reader must not overlook.

Owns: wording and order. Never: computes a score; nothing here says that anything earns money.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gpuscalp.config import ScoreConfig, TuneConfig
from gpuscalp.report import Section, Table
from gpuscalp.report.html import Cell
from gpuscalp.tuning import figures
from gpuscalp.tuning.score import fold_value
from gpuscalp.tuning.search import Trial
from gpuscalp.tuning.space import Space
from gpuscalp.tuning.trials import FoldFigures

_SYNTHETIC: Final = "synthetic"
# Below so many acts in all folds a mean after costs is mostly luck.
FEW_ACTS: Final = 100
_UNITS: Final = {
    "net": "bps per symbol and hour, after costs",
    "log_loss": "share of the base rate's log loss",
}


def trial_rows(trials: Sequence[Trial], config: ScoreConfig, generation: int) -> list[dict[str, Any]]:
    """Return the trials as plain data, in the order of their numbers (from 0)."""
    return [
        {
            "trial": trial.number,
            "generation": trial.number // generation,
            "state": trial.state,
            "score": None if math.isnan(trial.score) else trial.score,
            "rounds": trial.rungs[-1].rounds,
            "params": trial.params,
            "folds": [_fold(fold, config) for fold in trial.rungs[-1].folds],
            "seconds": math.fsum(line.seconds for line in trial.rungs),
            "failure": trial.failure,
        }
        for trial in trials
    ]


def warnings_of(trials: Sequence[Trial], best: Trial, config: TuneConfig, venue: str) -> list[str]:
    """Return what a reader must not overlook."""
    found = [
        f"The score of trial {best.number} is that of the luckiest of {len(trials)} as well as of the best: "
        "it is too high by what luck gave it. Only data that no trial has seen can say what it is worth; "
        "the bundle carries the number of trials, by which a backtest deflates its Sharpe ratio."
    ]
    if config.score.metric == "net":
        acts = sum(fold.acts for fold in best.rungs[-1].folds)
        if acts == 0:
            found.append(
                "The best trial would not have entered once: nothing was found that pays for its costs. "
                "--metric log_loss tunes the model without them."
            )
        elif acts < FEW_ACTS:
            found.append(f"The best trial would have entered only {acts} time(s): its score is mostly luck.")
        if acts and best.score <= 0.0:
            found.append("The best trial does not earn its costs on held-out rows, or not steadily.")
    elif any(name.startswith("label.") for name in config.space):
        found.append(
            "The label was among what log loss tuned. It says how much of a question can be answered, not "
            "whether the answer pays: volatility alone answers much of some questions."
        )
    if trials[0].yardstick and best.number == 0:
        found.append("No trial was better than the configuration as it stands.")
    failed = [trial for trial in trials if trial.state == "failed"]
    if failed:
        found.append(f"{len(failed)} trial(s) could not be made; the first: {failed[0].failure}")
    if venue == _SYNTHETIC:
        found.append("The market is synthetic: what is found here was put there.")
    return found


def sections(
    trials: Sequence[Trial], best: Trial, config: TuneConfig, space: Space, summary: Mapping[str, Any]
) -> list[Section]:
    """Return the report, in the order of the page."""
    return [
        _best(trials, best, config, space, summary),
        _pictures(trials, best, config, space),
        _table(trials, config, space),
        _how(config, summary),
    ]


def _best(
    trials: Sequence[Trial], best: Trial, config: TuneConfig, space: Space, summary: Mapping[str, Any]
) -> Section:
    unit = _UNITS[config.score.metric]
    yardstick = trials[0] if trials[0].yardstick and trials[0].scores else None
    values = [
        (
            each.name,
            _value(best.params[each.name]),
            "–" if yardstick is None else _value(yardstick.params[each.name]),
        )
        for each in space.dimensions
    ]
    values.insert(0, ("score", f"{best.score:+.4g}", "–" if yardstick is None else f"{yardstick.score:+.4g}"))
    folds = [
        (
            index + 1, fold.rows, fold.symbol_hours, fold.acts, fold.net_bps / fold.symbol_hours,
            fold.net_bps / fold.acts if fold.acts else None, fold.log_loss, fold.base_log_loss,
            f"{min(fold.rounds)}–{max(fold.rounds)}",
        )
        for index, fold in enumerate(best.rungs[-1].folds)
    ]  # fmt: skip
    return Section(
        f"Trial {best.number}, the best of {len(trials)}",
        warnings=summary["warnings"],
        tables=[
            Table(
                ("", f"trial {best.number}", "as configured"),
                values,
                caption=f"Score in {unit}: mean over the folds less {config.score.penalty:g} standard "
                "deviations between them.",
            ),
            Table(
                (
                    "fold", "rows", "symbol hours", "acts", "net bps per symbol and hour", "net bps per act",
                    "log loss", "base rate", "rounds",
                ),
                folds,
                caption="Held-out rows of the best trial, purged; costs are two taker fees and the spread.",
            ),
        ],
    )  # fmt: skip


def _pictures(trials: Sequence[Trial], best: Trial, config: TuneConfig, space: Space) -> Section:
    unit = _UNITS[config.score.metric]
    return Section(
        "All trials at once",
        paragraphs=[
            "A line is a trial: where it crosses an axis is its value there, and the last axis is its score. "
            "Lines that went through all rungs are strong, the best one is thick. Where strong lines do not "
            "bundle, the key decided little.",
        ],
        figures=[
            figures.parallel(trials, best, space, unit),
            figures.history(trials, best, config.search.generation, unit),
        ],
    )


def _table(trials: Sequence[Trial], config: TuneConfig, space: Space) -> Section:
    names = [each.name for each in space.dimensions]
    ranked = sorted(
        (trial for trial in trials if trial.failure is None),
        key=lambda trial: (not trial.finished, trial.rank),
    )
    ranked += [trial for trial in trials if trial.failure is not None]
    rows = [
        (
            trial.number,
            trial.state,
            trial.rungs[-1].rounds,
            None if trial.failure else trial.score,
            _spread(trial, config.score),
            None if trial.failure else sum(fold.acts for fold in trial.rungs[-1].folds),
            *(_value(trial.params[name]) for name in names),
        )
        for trial in ranked
    ]
    return Section(
        "The trials",
        tables=[
            Table(
                ("trial", "state", "rounds", "score", "between folds", "acts", *names),
                rows,
                caption="Finished ones first, the best at the top. The scores of those that stopped are of "
                "fewer rounds. “between folds” is the standard deviation of the folds' values.",
            )
        ],
    )


def _how(config: TuneConfig, summary: Mapping[str, Any]) -> Section:
    search = config.search
    rows: list[tuple[Cell, ...]] = [
        ("seed", search.seed),
        ("trials in a generation", search.generation),
        ("trials before the search learns", search.random_trials),
        ("rungs", search.rungs),
        ("reduction from rung to rung", search.reduction),
        ("taker fee, bps", config.cost.taker_fee_bps),
        ("device", str(summary["device"])),
        ("hash of the search", str(summary["config_hash"])[:16]),
    ]
    return Section(
        "How they were made",
        paragraphs=[
            "Values come from Optuna's tree-structured Parzen estimator, generation by generation; within a "
            "generation the better part of the trials goes on to the next rung. Both depend on the seed and "
            "the scores only, not on how many trials ran at the same time.",
        ],
        tables=[Table(("what", "value"), rows)],
    )


def _fold(fold: FoldFigures, config: ScoreConfig) -> dict[str, Any]:
    return {
        "value": fold_value(fold, config),
        "rows": fold.rows,
        "symbol_hours": fold.symbol_hours,
        "acts": fold.acts,
        "net_bps_per_hour": fold.net_bps / fold.symbol_hours,
        "net_bps_per_act": fold.net_bps / fold.acts if fold.acts else None,
        "log_loss": fold.log_loss,
        "base_log_loss": fold.base_log_loss,
        "rounds": list(fold.rounds),
    }


def _spread(trial: Trial, config: ScoreConfig) -> float | None:
    if trial.failure:
        return None
    return statistics.stdev(fold_value(fold, config) for fold in trial.rungs[-1].folds)


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
