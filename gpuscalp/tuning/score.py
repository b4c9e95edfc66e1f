"""What a trial is worth: figures of its held-out rows, and the one number that the search compares.

Owns: the acts that held-out rows would have led to, their costs, and the score. Never: trains, or chooses.

The strategy of the live path decides; here every row is asked as if nothing were held, and what it then holds
keeps its symbol busy for one horizon. The rows are all frames of stretches of time, because a session decides
at every frame: on a thinner grid a symbol would be free again at the next row, and who acts often or holds
long would not be charged for it. Neither latency nor queue nor size is in this: that is the backtest's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    """R held-out rows of one fold, with what the score needs of them: all frames of some stretches of time.

    Attributes
    ----------
    x : float32[R, F]           where they are predicted
    direction : int8[R] · return_bps, weight : float64[R] · end_ns : int64[R] · symbol : int32[R]
    bid_px, ask_px : int32[R]   quote at the entry, ticks
    frame_ns : time from one row of a symbol to its next
    """

    x: Any
    direction: npt.NDArray[np.int8]
    return_bps: F64
    weight: F64
    end_ns: I64
    symbol: npt.NDArray[np.int32]
    bid_px: npt.NDArray[np.int32]
    ask_px: npt.NDArray[np.int32]
    frame_ns: int

    def __len__(self) -> int:
        return len(self.direction)

    @property
    def judged(self) -> npt.NDArray[np.bool_]:
        """bool[R]: those on the stride, by which training judges a fold; the others have no weight."""
        return np.asarray(self.weight > 0.0)


class Acts(NamedTuple):
    """What R rows would have led to.

    net_bps : float64[A]   what each act would have left after fees and spread, in the order of time
    symbol_ns : of all symbols together: the acts' holds to their ends, and the rows at which nothing was held
    """

    net_bps: F64
    symbol_ns: int


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
    acts = acts_of(rows, signals, strategy=strategy, cost=cost, horizon_ms=horizon_ms)
    judged = rows.judged
    direction = rows.direction[judged]
    base = np.tile(trained.expected_share, (len(direction), 1))
    return FoldFigures(
        rows=len(direction),
        symbol_hours=acts.symbol_ns / NS_PER_S / 3600,
        acts=len(acts.net_bps),
        net_bps=math.fsum(acts.net_bps.tolist()),
        log_loss=log_loss(signals.probability[judged], direction),
        base_log_loss=log_loss(base, direction),
        rounds=rounds,
    )


def acts_of(
    rows: HeldRows, signals: Signals, *, strategy: StrategyConfig, cost: CostConfig, horizon_ms: int
) -> Acts:
    """Let the strategy decide at every row; a symbol is left alone while an act holds it.

    A hold that outlasts its stretch of rows is charged to its end. Else an act late in a stretch would cost
    less than one early in it, and short stretches would favour who acts often or holds long.
    """
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
    begun_ns: dict[int, list[int]] = {}
    net = []
    for intent in wanted:
        at = intent.symbol_index
        begun = begun_ns.setdefault(int(rows.symbol[at]), [])
        if begun and rows.end_ns[at] < begun[-1] + decider.hold_ns:
            continue
        begun.append(int(rows.end_ns[at]))
        net.append(intent.side * float(rows.return_bps[at]) - intent.cost_bps)
    held = 0
    for symbol, begun in begun_ns.items():
        own, start_ns = np.sort(rows.end_ns[rows.symbol == symbol]), np.array(begun)
        held += int((own.searchsorted(start_ns + decider.hold_ns) - own.searchsorted(start_ns)).sum())
    return Acts(np.array(net), len(net) * decider.hold_ns + (count - held) * rows.frame_ns)


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
