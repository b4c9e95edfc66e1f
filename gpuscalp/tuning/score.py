"""What a trial is worth: figures of its held-out rows, and the one number that the search compares.

Owns: the acts that held-out rows would have led to, their costs, and the score. Never: trains, or chooses.

The strategy of the live path decides; here every row is asked as if nothing were held, and what it then holds
keeps its symbol busy for one horizon. Neither latency nor queue nor size is in this: that is the backtest's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuscalp.config import CostConfig, ScoreConfig, StrategyConfig
from gpuscalp.ensemble import Signals
from gpuscalp.orders import MarketRow, SignalRow
from gpuscalp.schema import F64, I64, NS_PER_S
from gpuscalp.strategy import Holdings, Strategy
from gpuscalp.train.iterator import Tally
from gpuscalp.train.metrics import log_loss
from gpuscalp.tuning.trials import FoldFigures


@dataclass(frozen=True, slots=True)
class HeldRows:
    """R held-out rows of one fold, with what the score needs of them.

    Attributes
    ----------
    x : float32[R, F]           where they are predicted
    direction : int8[R] · return_bps, weight : float64[R] · end_ns : int64[R] · symbol : int32[R]
    bid_px, ask_px : int32[R]   quote at the entry, ticks
    step_ns : time from one row of a symbol to its next
    """

    x: Any
    direction: npt.NDArray[np.int8]
    return_bps: F64
    weight: F64
    end_ns: I64
    symbol: npt.NDArray[np.int32]
    bid_px: npt.NDArray[np.int32]
    ask_px: npt.NDArray[np.int32]
    step_ns: int

    def __len__(self) -> int:
        return len(self.direction)


def fold_figures(
    rows: HeldRows,
    signals: Signals,
    trained: Tally,
    *,
    strategy: StrategyConfig,
    cost: CostConfig,
    horizon_ms: int,
    rounds: tuple[int, ...],
) -> FoldFigures:
    """Measure one fold.

    Parameters
    ----------
    rows : R held-out rows, at least one
    signals : what the fold's members say of them, calibrated by the folds before it
    trained : of the rows that the members were fitted on
    strategy, cost : thresholds and fees
    horizon_ms : of the label
    rounds : that the members kept
    """
    net = act_returns(rows, signals, strategy=strategy, cost=cost, horizon_ms=horizon_ms)
    base = np.tile(trained.expected_share, (len(rows), 1))
    return FoldFigures(
        rows=len(rows),
        symbol_hours=len(rows) * rows.step_ns / NS_PER_S / 3600,
        acts=len(net),
        net_bps=math.fsum(net.tolist()),
        log_loss=log_loss(signals.probability, rows.direction),
        base_log_loss=log_loss(base, rows.direction),
        rounds=rounds,
    )


def act_returns(
    rows: HeldRows, signals: Signals, *, strategy: StrategyConfig, cost: CostConfig, horizon_ms: int
) -> F64:
    """Return float64[A], bps: what each act would have left after fees and spread, in the order of time."""
    count = len(rows)
    decider = Strategy(strategy, cost, horizon_ms=horizon_ms)
    decision = decider.decide(
        # Each row stands for a symbol of its own: what it decides does not depend on the others.
        MarketRow(
            end_ns=0,
            bid_px=rows.bid_px,
            ask_px=rows.ask_px,
            mark=np.full(count, np.nan),
            quality=np.zeros(count, np.uint32),
            age_ms=np.zeros(count, np.float32),
        ),
        SignalRow(signals.probability, signals.agreement, signals.edge_bps, signals.spread),
        Holdings(
            side=np.zeros(count, np.int64),
            waiting=np.zeros(count, np.bool_),
            decided_ns=np.zeros(count, np.int64),
        ),
    )
    wanted = sorted(decision.intents, key=lambda intent: int(rows.end_ns[intent.symbol_index]))
    free_ns: dict[int, int] = {}
    net = []
    for intent in wanted:
        at, symbol = intent.symbol_index, int(rows.symbol[intent.symbol_index])
        if rows.end_ns[at] < free_ns.get(symbol, 0):
            continue
        free_ns[symbol] = int(rows.end_ns[at]) + decider.hold_ns
        net.append(intent.side * float(rows.return_bps[at]) - intent.cost_bps)
    return np.array(net)


def score_of(folds: Sequence[FoldFigures], config: ScoreConfig) -> float:
    """Return the mean over the folds less ``penalty`` standard deviations between them; higher is better."""
    values = [fold_value(fold, config) for fold in folds]
    return statistics.fmean(values) - config.penalty * statistics.stdev(values)


def fold_value(fold: FoldFigures, config: ScoreConfig) -> float:
    """Return what a fold counts for: bps per symbol and hour, or the relative gain in log loss."""
    if config.metric == "log_loss":
        return _gain(fold)
    return fold.net_bps / fold.symbol_hours


def log_loss_gain(folds: Sequence[FoldFigures]) -> float:
    """Return the mean over the folds of the relative gain in log loss."""
    return statistics.fmean(_gain(fold) for fold in folds)


def _gain(fold: FoldFigures) -> float:
    """Return the share by which the log loss is below that of the base rate.

    In nats a label of even classes would beat one of rare classes, whatever is known of either: it has more
    nats to lose.
    """
    return 1.0 - fold.log_loss / fold.base_log_loss
