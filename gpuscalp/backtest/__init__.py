"""Backtests: the trading step of live on recorded data, with fills at the recorded book."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from gpuscalp.backtest.band import band_plan
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
    band_processes: int | None = None,
    on_progress: Progress | None = None,
) -> BacktestResult:
    """Backtest with what a command line gives: a configuration file, overrides, times as text.

    Sources of the configuration, later ones win: defaults, ``config``, environment, ``overrides``. With
    ``band_processes`` the grid of assumptions is traded as well, in so many processes; a script that wants
    more than one needs the usual ``if __name__ == "__main__":``.

    Raises
    ------
    ConfigError, UsageError
        and what ``run_backtest`` raises
    """
    from gpuscalp.train import parse_time

    loaded = load(BacktestConfig, config, env=os.environ, overrides=overrides)
    with nullcontext() if band_processes is None else band_plan(out, band_processes) as band:
        return run_backtest(
            archive,
            bundle,
            config=loaded,
            out=out,
            venue=venue,
            start_ns=parse_time(start, "--from"),
            end_ns=parse_time(end, "--to"),
            threads=threads,
            band=band,
            on_progress=on_progress,
        )
