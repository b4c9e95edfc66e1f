"""Walk-forward: models trained on the past only, traded on what follows, and judged against luck.

``walk_forward_archive`` does all of it; ``compare_runs`` asks of any recorded runs how much of the best one
is choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpuscalp.walkforward.run import WalkForwardResult, walk_forward_archive

__all__ = ["WalkForwardResult", "compare_runs", "walk_forward_archive"]


def compare_runs(paths: Sequence[Path], *, blocks: int = 16) -> dict[str, Any]:
    """Return the probability of backtest overfitting over recorded runs of the same data, and their ratios.

    The ratios are deflated by as many trials as the run with the most counts, and at least by the runs that
    are given: what was tried to come to one of them was tried, whether it is given or not.

    Raises
    ------
    UsageError
        a path is no run
    DataError
        they are not over the same data, too few or too short, or all did the same
    """
    from gpuscalp.backtest.metrics import number, performance
    from gpuscalp.overfitting import backtest_overfitting
    from gpuscalp.stats import OBSERVATIONS_MIN
    from gpuscalp.walkforward.judge import overfitting_dict
    from gpuscalp.walkforward.recorded import read_run, returns_of

    runs = [read_run(path) for path in paths]
    names = [str(path) for path in paths]
    trials = max(1, len(runs), *(run.summary["trials"] for run in runs))
    judged = [
        performance(
            run.time_ns,
            run.equity_usdt,
            start_usdt=run.summary["start_usdt"],
            trials=trials,
            results=len(run.trades.groups),
        )
        for run in runs
    ]
    interval_s = judged[0].interval_s if judged else 1
    found = backtest_overfitting(returns_of(runs, interval_s), blocks=blocks)
    return {
        "overfitting": overfitting_dict(found, names),
        "interval_s": interval_s,
        "trials": trials,
        "warnings": [
            f"{name} closed {result.results} trade(s) held apart: with fewer than "
            f"{OBSERVATIONS_MIN} its deflated Sharpe ratio is not known (docs/backtest.md, How sure)."
            for name, result in zip(names, judged, strict=True)
            if result.results < OBSERVATIONS_MIN
        ],
        "runs": [
            {
                "run": name,
                "trades": run.summary["trades"],
                "pnl_usdt": run.summary["pnl_usdt"],
                "sharpe": number(result.sharpe.value),
                "deflated_sharpe": number(result.deflated),
            }
            for name, run, result in zip(names, runs, judged, strict=True)
        ],
    }
