"""Trains the members of one ensemble on one binned matrix.

Owns: XGBoost's parameters, early stopping, and the check that XGBoost ran on the device it was told to.
Never: chooses rows, or predicts: predictions go through the forest.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from gpuscalp.config import BoosterConfig
from gpuscalp.errors import DeviceError
from gpuscalp.forest_reader import read_booster
from gpuscalp.labels import Direction
from gpuscalp.ops.forest import Forest
from gpuscalp.xgb import import_xgboost

# Called after every boosting round with (member, round, log loss of the stopping rows or None).
OnRound = Callable[[int, int, float | None], None]

T = TypeVar("T")


class Once(Protocol):
    """Does a piece of work, or recalls its result where it was done before a worker was lost."""

    def __call__(self, what: str, make: Callable[[], T]) -> T: ...


def directly(what: str, make: Callable[[], T]) -> T:  # noqa: ARG001
    """Do it: nothing is recalled."""
    return make()


@dataclass(frozen=True, slots=True)
class Member:
    """One trained booster; ``rounds`` is what it kept after early stopping."""

    booster: Any
    seed: int
    rounds: int


def member_seeds(seed: int, members: int) -> tuple[int, ...]:
    """Return one seed per member; neighbouring ensemble seeds share none."""
    return tuple(seed * 1_000 + member for member in range(members))


def fit_members(
    matrix: Any,
    *,
    config: BoosterConfig,
    seeds: Sequence[int],
    rounds: Sequence[int],
    device: str,
    threads: int,
    stopping: Any = None,
    on_round: OnRound | None = None,
    begun: Sequence[Any] = (),
    once: Once = directly,
    what: str = "",
) -> tuple[Member, ...]:
    """Train one booster per seed.

    Parameters
    ----------
    matrix : QuantileDMatrix    shared by all members; rows and columns are subsampled by seed
    config : BoosterConfig
    seeds, rounds : per member; ``rounds`` is the largest number of boosting rounds, beside those begun with
    device : "cpu" or "cuda"
    threads : OpenMP threads
    stopping : QuantileDMatrix of rows that stop the training, binned like ``matrix``; None trains all rounds
    on_round : told after each round
    begun : boosters to go on from, per member; not changed. None: every member begins anew
    once, what : recalls members of ``what`` that are there already

    Returns
    -------
    tuple of Member, with the rounds that they began with

    Raises
    ------
    DeviceError
        XGBoost did not run on ``device``
    """
    xgboost = import_xgboost()

    def fit(index: int, seed: int, limit: int) -> Member:
        callbacks = [] if on_round is None else [_round_callback(on_round, index)]
        evals = []
        if stopping is not None:
            evals = [(stopping, "stopping")]
            callbacks.append(
                xgboost.callback.EarlyStopping(rounds=config.early_stopping_rounds, save_best=True)
            )
        booster = xgboost.train(
            parameters(config, seed=seed, device=device, threads=threads),
            matrix,
            num_boost_round=limit,
            evals=evals,
            callbacks=callbacks,
            verbose_eval=False,
            xgb_model=begun[index] if begun else None,
        )
        check_device(booster, device)
        return Member(booster, seed, booster.num_boosted_rounds())

    return tuple(
        once(f"{what}, member {index + 1}", partial(fit, index, seed, limit))
        for index, (seed, limit) in enumerate(zip(seeds, rounds, strict=True))
    )


def final_rounds(rounds: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return for each member the median of the rounds that its folds kept, at least 1.

    Parameters
    ----------
    rounds : fold by fold, member by member
    """
    return tuple(max(round(statistics.median(kept)), 1) for kept in zip(*rounds, strict=True))


def parameters(config: BoosterConfig, *, seed: int, device: str, threads: int) -> dict[str, Any]:
    """Return XGBoost's parameters. ``min_child_weight`` counts hessian of uniqueness-weighted rows."""
    return {
        "objective": "multi:softprob",
        "num_class": len(Direction),
        "eval_metric": "mlogloss",
        "tree_method": "hist",
        "device": device,
        "nthread": threads,
        "seed": seed,
        "eta": config.eta,
        "max_depth": config.max_depth,
        "max_bin": config.max_bin,
        "min_child_weight": config.min_child_weight,
        "lambda": config.reg_lambda,
        "gamma": config.gamma,
        "subsample": config.subsample,
        "colsample_bytree": config.colsample_bytree,
    }


def check_device(booster: Any, wanted: str) -> None:
    """Refuse a booster that was trained elsewhere than asked.

    XGBoost falls back to the CPU with no more than a warning; its configuration tells the device it used.

    Raises
    ------
    DeviceError
    """
    used = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    if used.split(":")[0] != wanted:
        raise DeviceError(
            f"XGBoost was told to train on {wanted} and did so on {used}",
            where="xgboost",
            value=used,
            fix="install the CUDA build of XGBoost (docs/install.md), or use --device cpu",
        )


def forest_of(members: Sequence[Member]) -> Forest:
    """Join the members' trees into one forest."""
    return Forest.join([read_booster(bytes(member.booster.save_raw("json"))) for member in members])


def _round_callback(on_round: OnRound, member: int) -> Any:
    xgboost = import_xgboost()

    class Told(xgboost.callback.TrainingCallback):  # type: ignore[misc, name-defined]
        """Passes the round and the latest loss on; never stops the training."""

        def after_iteration(self, model: Any, epoch: int, evals_log: dict[str, Any]) -> bool:  # noqa: ARG002
            losses = evals_log.get("stopping", {}).get("mlogloss")
            on_round(member, epoch + 1, losses[-1] if losses else None)
            return False

    return Told()
