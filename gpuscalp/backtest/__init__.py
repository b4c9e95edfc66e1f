"""Backtests: the trading step of live on recorded data, with fills at the recorded book."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gpuscalp.backtest.band import band_plan
from gpuscalp.backtest.run import BacktestResult, run_backtest
from gpuscalp.backtest.saved import SavedRun
from gpuscalp.config import BacktestConfig, GridConfig, load_given
from gpuscalp.errors import UsageError
from gpuscalp.progress import Progress, silent

__all__ = ["BacktestResult", "SavedRun", "backtest_archive", "backtest_signals", "run_backtest"]


def backtest_archive(
    archive: Path | str,
    bundle: Path | str | None = None,
    *,
    config: Path | str | BacktestConfig | None = None,
    overrides: Mapping[str, object] | None = None,
    out: Path | str | None = None,
    venue: str | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    threads: int = 2,
    band_processes: int | None = None,
    like: Path | str | None = None,
    on_progress: Progress = silent,
) -> BacktestResult:
    """Backtest with what a command line gives: a configuration file and overrides, or a configuration.

    Sources of the configuration, later ones win: defaults, ``config``, environment, ``overrides``; a
    BacktestConfig stands alone, and overrides beside it are refused. With
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
    out = None if out is None else Path(out)
    if like is not None:
        from gpuscalp.live import moments

        like = Path(like)
        likeness = moments.likeness(like, own_model=bundle is None)
        bundle = bundle or like / "bundle"
        if config is None:
            given = moments.config_of(like) | given
    if bundle is None:
        raise UsageError("a backtest needs a model", where="--model", fix="gpuscalp train makes one")
    loaded = load_given(BacktestConfig, config, env=os.environ, overrides=given)
    with nullcontext() if band_processes is None else band_plan(out, band_processes) as band:
        return run_backtest(
            Path(archive),
            Path(bundle),
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


def backtest_signals(
    archive: Path | str,
    signals: Any,
    *,
    horizon_ms: int,
    config: Path | str | BacktestConfig | None = None,
    overrides: Mapping[str, object] | None = None,
    out: Path | str | None = None,
    venue: str | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    grid: GridConfig | None = None,
    on_progress: Progress = silent,
) -> BacktestResult:
    """Backtest signals of your own on an archive, and write a run directory like that of a bundle.

    Strategy, sizing, risk gate, paper broker and account are those of ``backtest_archive``. A signal is acted
    upon when its frame has closed. Whether it could have been known then, nothing here can see.

    Parameters
    ----------
    archive : directory
    signals : an Arrow table, or what can be made one (a data frame, a dict of arrays), with a row for each
        symbol and frame that has a signal: ``symbol``; ``end_ns``, the end of the frame, as a timestamp or
        int64 ns; ``edge_bps``, the expected mid return over ``horizon_ms``, signed, before costs;
        ``confidence``, the probability of the side that it is on, and ``agreement``, both 0 … 1, and 1 where
        there is no such column. A time without a zone is UTC. Those of frames that the archive does not have
        are counted in the summary, and warned of
    horizon_ms : how far the edge looks ahead, in whole frames; the holding time unless ``strategy.hold_ms``
        says otherwise
    config, overrides : see ``backtest_archive``
    out, venue, start_ns, end_ns : see ``run_backtest``; the symbols are those of the signals
    grid : the frames

    Raises
    ------
    ConfigError, UsageError, ArchiveError
        among others: a number or a time is missing, a signal is not dated at the end of a frame, or a frame
        has two of a symbol
    """
    from gpuscalp.archive import Archive
    from gpuscalp.backtest.own_signals import run_signals

    return run_signals(
        Archive.open(archive),
        signals,
        config=load_given(BacktestConfig, config, env=os.environ, overrides=overrides),
        horizon_ms=horizon_ms,
        grid=grid or GridConfig(),
        out=None if out is None else Path(out),
        venue=venue,
        start_ns=start_ns,
        end_ns=end_ns,
        on_progress=on_progress,
    )
