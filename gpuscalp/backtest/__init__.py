"""Backtests: the trading step of live on recorded data, with fills at the recorded book."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from gpuscalp.backtest.band import band_plan
from gpuscalp.backtest.run import BacktestResult, run_backtest
from gpuscalp.config import BacktestConfig, load
from gpuscalp.errors import UsageError
from gpuscalp.progress import Progress

__all__ = ["BacktestResult", "backtest_archive", "run_backtest"]


def backtest_archive(
    archive: Path,
    bundle: Path | None = None,
    *,
    config: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    out: Path | None = None,
    venue: str | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    threads: int = 2,
    band_processes: int | None = None,
    like: Path | None = None,
    on_progress: Progress | None = None,
) -> BacktestResult:
    """Backtest with what a command line gives: a configuration file and overrides.

    Sources of the configuration, later ones win: defaults, ``config``, environment, ``overrides``. With
    ``band_processes`` the grid of assumptions is traded as well, in so many processes; a script that wants
    more than one needs the usual ``if __name__ == "__main__":``.

    With ``like``, the directory of a session whose journal the archive was imported from, decisions are made
    when the session made them. Its bundle, and its configuration where ``config`` is None, are the defaults.

    Raises
    ------
    ConfigError, UsageError
        and what ``run_backtest`` raises
    """
    given = dict(overrides or {})
    likeness = None
    if like is not None:
        from gpuscalp.live import moments

        likeness = moments.likeness(like, own_model=bundle is None)
        bundle = bundle or like / "bundle"
        if config is None:
            given = moments.config_of(like) | given
    if bundle is None:
        raise UsageError("a backtest needs a model", where="--model", fix="gpuscalp train makes one")
    loaded = load(BacktestConfig, config, env=os.environ, overrides=given)
    with nullcontext() if band_processes is None else band_plan(out, band_processes) as band:
        return run_backtest(
            archive,
            bundle,
            config=loaded,
            out=out,
            venue=venue,
            start_ns=start_ns,
            end_ns=end_ns,
            threads=threads,
            band=band,
            like=likeness,
            on_progress=on_progress,
        )
