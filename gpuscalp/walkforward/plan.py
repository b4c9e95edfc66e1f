"""What a walk-forward is going to do: steps in time, seeds to train with, runs to trade.

Owns: the cut of the archive's time, the names of everything in the directory, and the hash over all that
decides the result. Never: trains or trades.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import structs

from gpuscalp.archive import Archive
from gpuscalp.backtest.models import Scheduled
from gpuscalp.config import (
    BacktestConfig,
    StrategyConfig,
    TrainConfig,
    TriedConfig,
    WalkForwardConfig,
    to_dict,
)
from gpuscalp.distributed.job import versions
from gpuscalp.errors import ConfigError
from gpuscalp.labels import label_horizon_ns
from gpuscalp.splits import walk_forward
from gpuscalp.train.dataset import count_rows, labelled_chunks
from gpuscalp.train.source import ArchiveSource

BASE: Final = "base"
CONFIGURATIONS_MAX: Final = 500


class Step(msgspec.Struct, frozen=True):
    """One step: train on [train_start, train_end), trade the frames that end in (test_start, test_end]."""

    index: int
    train_start_ns: int
    train_end_ns: int
    test_start_ns: int
    test_end_ns: int

    @property
    def name(self) -> str:
        return f"step-{self.index + 1:02d}"


@dataclass(frozen=True, slots=True)
class Run:
    """One account over all steps.

    Attributes
    ----------
    name : of its directory
    kind : "base" is what the report is about; "tried" are other configurations; "size" is the base with more
        money
    seed : of the ensembles that predict
    config : what trades
    size : multiple of all amounts of money
    """

    name: str
    kind: Literal["base", "tried", "size"]
    seed: int
    config: BacktestConfig
    size: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it.

    Attributes
    ----------
    archive : its directory
    symbols : of the models
    device : where models are trained
    data_digest : of the archive
    """

    archive: Path
    config: WalkForwardConfig
    symbols: tuple[str, ...]
    device: str
    steps: tuple[Step, ...]
    runs: tuple[Run, ...]
    data_digest: str

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(run.seed for run in self.runs))

    @property
    def trials(self) -> int:
        """Configurations tried, also before and elsewhere."""
        return self.runs[0].config.trials

    @property
    def start_ns(self) -> int:
        return self.steps[0].test_start_ns

    @property
    def end_ns(self) -> int:
        return self.steps[-1].test_end_ns

    def train_config(self, seed: int) -> TrainConfig:
        """Return the configuration that the models of a seed are trained with."""
        config = self.config.train
        return structs.replace(
            config, symbols=self.symbols, ensemble=structs.replace(config.ensemble, seed=seed)
        )

    def bundle(self, folder: Path, seed: int, step: Step) -> Path:
        """Return where the model of a step lies."""
        return folder / "models" / f"seed-{seed}" / step.name

    def schedule(self, folder: Path, seed: int) -> tuple[Scheduled, ...]:
        """Return which model predicts from when on."""
        return tuple(Scheduled(step.test_start_ns, self.bundle(folder, seed, step)) for step in self.steps)

    def frozen(self, *, threads: int) -> dict[str, Any]:
        """Return everything that decides the result, with its sha256; ``threads``: of each training."""
        body: dict[str, Any] = {
            "walkforward": to_dict(self.config),
            "symbols": list(self.symbols),
            "device": self.device,
            "threads": threads,
            "steps": msgspec.to_builtins(self.steps),
            "data_digest": self.data_digest,
            "versions": dict(versions()),
        }
        return {**body, "hash": hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()}


def make_plan(archive_path: Path, config: WalkForwardConfig, *, device: str, threads: int) -> Plan:
    """Cut the archive's time into steps, by one walk over its rows.

    Raises
    ------
    UsageError, ConfigError, DataError
        the archive lacks what is asked for, or is too short for so many steps
    """
    archive = Archive.open(archive_path)
    source = ArchiveSource.open(archive, config.train, threads=threads)
    counts = count_rows(labelled_chunks(source.chunks(), config.train))
    horizon_ns = label_horizon_ns(config.train.label, config.train.grid)
    folds = walk_forward(counts, config.steps, horizon_ns=horizon_ns)
    return Plan(
        archive=archive_path,
        config=config,
        symbols=source.symbols,
        device=device,
        steps=tuple(
            Step(fold.index, fold.train_start_ns, fold.train_end_ns, fold.test_start_ns, fold.test_end_ns)
            for fold in folds
        ),
        runs=runs_of(config),
        data_digest=source.digest(),
    )


def runs_of(config: WalkForwardConfig) -> tuple[Run, ...]:
    """Return the runs: the base, what else is tried, the base with more money. Each counts all trials.

    Raises
    ------
    ConfigError
        there are too many combinations, or two runs of one name
    """
    seed = config.train.ensemble.seed
    tried: dict[tuple[StrategyConfig, int], str] = {(config.backtest.strategy, seed): BASE}
    for values in _combinations(config.tried, config.backtest, seed):
        chosen = dict(values)
        tried_seed = int(chosen.pop("seed"))
        name = ",".join(f"{key}={_word(value)}" for key, value in values if value is not None)
        tried.setdefault((structs.replace(config.backtest.strategy, **chosen), tried_seed), name)
    base = structs.replace(config.backtest, trials=config.backtest.trials + len(tried) - 1)
    runs = [
        Run(name, "base" if name == BASE else "tried", of, structs.replace(base, strategy=strategy))
        for (strategy, of), name in tried.items()
    ]
    for size in config.judge.sizes:
        runs.append(Run(f"size-x{_word(size)}", "size", seed, _larger(base, size), size))
    name, count = Counter(run.name for run in runs).most_common(1)[0]
    if count > 1:
        raise ConfigError(
            "a value is given twice, and the runs would share a directory",
            where="judge.sizes, tried",
            value=name,
            fix="give every value once",
        )
    return tuple(runs)


def _word(value: float) -> str:
    """Return a value as names of directories have it: in six digits where these are all, else in full."""
    short = f"{value:g}"
    return short if float(short) == value else str(value)


def _combinations(
    tried: TriedConfig, base: BacktestConfig, seed: int
) -> Iterator[tuple[tuple[str, Any], ...]]:
    axes = []
    for name in TriedConfig.__struct_fields__:
        configured = seed if name == "seed" else getattr(base.strategy, name)
        axes.append([(name, value) for value in dict.fromkeys((configured, *getattr(tried, name)))])
    count = math.prod(map(len, axes))
    if count > CONFIGURATIONS_MAX:
        raise ConfigError(
            "too many combinations are to be tried",
            where="tried",
            value=count,
            fix=f"at most {CONFIGURATIONS_MAX}: what wins among so many wins by luck",
        )
    return itertools.product(*axes)


def _larger(config: BacktestConfig, size: float) -> BacktestConfig:
    """Multiply every amount of money: the same decisions, larger orders; only the depth of the book stays."""
    strategy, risk, account = config.strategy, config.risk, config.account
    return structs.replace(
        config,
        strategy=structs.replace(strategy, order_usdt=strategy.order_usdt * size),
        account=structs.replace(account, start_usdt=account.start_usdt * size),
        risk=structs.replace(
            risk,
            max_position_usdt=risk.max_position_usdt * size,
            max_gross_usdt=risk.max_gross_usdt * size,
            max_order_usdt=risk.max_order_usdt * size,
            max_daily_loss_usdt=risk.max_daily_loss_usdt * size,
        ),
    )
