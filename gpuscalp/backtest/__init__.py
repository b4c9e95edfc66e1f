"""Backtests: the trading step of live on recorded data, with fills at the recorded book."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gpuscalp.backtest.run import BacktestResult, Progress, run_backtest
from gpuscalp.config import BacktestConfig, load

__all__ = ["BacktestResult", "backtest_archive", "run_backtest"]


def backtest_archive(
    archive: Path,
    bundle: Path,
    *,
    config: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    out: Path | None = None,
    venue: str | None = None,
    start: str | None = None,
    end: str | None = None,
    threads: int = 2,
    on_progress: Progress | None = None,
) -> BacktestResult:
    """Backtest with what a command line gives: a configuration file, overrides, times as text.

    Sources of the configuration, later ones win: defaults, ``config``, environment, ``overrides``.

    Raises
    ------
    ConfigError, UsageError
        and what ``run_backtest`` raises
    """
    from gpuscalp.train import parse_time

    return run_backtest(
        archive,
        bundle,
        config=load(BacktestConfig, config, env=os.environ, overrides=overrides),
        out=out,
        venue=venue,
        start_ns=parse_time(start, "--from"),
        end_ns=parse_time(end, "--to"),
        threads=threads,
        on_progress=on_progress,
    )
