"""Whether what traded could have been known: signals of a step, made again with other futures.

Owns: the probe from ticks to signals; the comparison is the detector's (``gpuscalp.leakage``). Examined are
the columns and what the step's own model makes of them, over the beginning of the stretch that it trades, on
the way a backtest goes; what comes before is read as well, so that the longest windows are warm there. Labels
need no probe here: the training of a step never reads a tick behind its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from gpuscalp.archive import Archive
from gpuscalp.backtest.calibration import chunk_signals
from gpuscalp.backtest.models import cut
from gpuscalp.backtest.run import Predictor, lead_ns, pipeline_of
from gpuscalp.backtest.session import Prediction
from gpuscalp.bundle import load_bundle, read_contract
from gpuscalp.ensemble import Ensemble, Signals
from gpuscalp.errors import DataError
from gpuscalp.leakage import Finding, Rows, examine
from gpuscalp.schema import NS_PER_MS, TICK, FeatureChunk, Ticks
from gpuscalp.walkforward.plan import Plan, Step

CUTS: Final = 2
_SIGNALS: Final = (
    "signal.down",
    "signal.flat",
    "signal.up",
    "signal.agreement",
    "signal.edge",
    "signal.spread",
)

Chunks = Callable[[Iterable[Ticks]], Iterator[FeatureChunk]]
Predict = Callable[[Ensemble, FeatureChunk], list[Signals]]


def examine_step(plan: Plan, step: Step, bundle: Path, threads: int) -> Finding:
    """Examine the first ticks of the stretch that a step trades; a leak is a result, not an exception.

    Raises
    ------
    DataError
        there are no ticks
    """
    archive = Archive.open(plan.archive)
    config = plan.config.train
    pipeline = pipeline_of(
        read_contract(bundle).training, archive.instruments(config.venue, plan.symbols), threads
    )
    batches = archive.tick_batches(
        config.venue,
        plan.symbols,
        start_ns=step.test_start_ns - lead_ns(pipeline),
        end_ns=step.test_end_ns,
        max_ticks=plan.config.judge.look_ahead_ticks,
    )
    ticks = _first(batches, step.test_start_ns, plan.config.judge.look_ahead_ticks)
    if ticks is None:
        raise DataError("a step has no ticks to trade on", where=step.name, fix="fewer steps (steps.folds)")
    ensemble = load_bundle(bundle, graph=pipeline.graph).ensemble
    with Predictor(threads) as predict:
        return examine_signals(
            ticks,
            pipeline.batch,
            predict,
            ensemble,
            pipeline.graph.names,
            start_ns=step.test_start_ns,
            lateness_ns=config.grid.lateness_ms * NS_PER_MS,
            seed=plan.config.judge.seed,
        )


def examine_signals(
    ticks: Ticks,
    chunks: Chunks,
    predict: Predict,
    ensemble: Ensemble,
    names: tuple[str, ...],
    *,
    start_ns: int,
    lateness_ns: int,
    seed: int,
) -> Finding:
    """Change what follows some instants, and compare features and signals of the frames before them.

    Parameters
    ----------
    ticks : TICK[N]   in the order of arrival, some of them from ``start_ns`` on
    chunks : from ticks to features, as what trades has them
    predict : from features to signals, likewise
    ensemble, names : the model, and its columns
    start_ns : frames that end up to here only warm the features: the cuts come after it
    lateness_ns : how long frames wait for late ticks
    seed : of the futures
    """

    def probe(given: Ticks) -> Rows:
        keys, values = [np.empty((0, 2), np.int64)], [np.empty((0, len(names) + len(_SIGNALS)))]
        for made in chunks([given]):
            warm = int(np.searchsorted(made.frames.end_ns, start_ns, side="right"))
            chunk = cut(made, warm, len(made.frames))
            if not len(chunk.frames):
                continue
            prediction = Prediction(*chunk_signals(predict(ensemble, chunk)))
            count, symbols = len(chunk.frames), len(chunk.features)
            keys.append(
                np.stack(
                    [np.repeat(chunk.frames.end_ns, symbols), np.tile(np.arange(symbols), count)], axis=1
                )
            )
            signals = np.concatenate(
                [
                    prediction.probability,
                    np.stack([prediction.agreement, prediction.edge_bps, prediction.spread_bps], axis=-1),
                ],
                axis=-1,
            )
            rows = np.concatenate([chunk.features.transpose(2, 0, 1), signals], axis=-1)
            values.append(rows.reshape(count * symbols, -1))
        key = np.concatenate(keys)
        return Rows(key, key[:, 0].copy(), np.concatenate(values), (*names, *_SIGNALS))

    inside = ticks["exch_ns"][ticks["exch_ns"] >= start_ns]
    first, last = int(inside.min()), int(inside.max())
    cuts = [first + (last - first) * part // (CUTS + 1) for part in range(1, CUTS + 1)]
    return examine({"signals": probe}, ticks, cuts_ns=cuts, lateness_ns=lateness_ns, seed=seed)["signals"]


def _first(batches: Iterable[Ticks], start_ns: int, count: int) -> Ticks | None:
    """Return ticks up to the last of the first ``count`` from ``start_ns`` on; None without such."""
    taken, found = [np.empty(0, TICK)], 0
    for ticks in batches:
        taken.append(ticks)
        found += int((ticks["exch_ns"] >= start_ns).sum())
        if found >= count:
            break
    joined = np.concatenate(taken)
    inside = np.flatnonzero(joined["exch_ns"] >= start_ns)[:count]
    return joined[: inside[-1] + 1] if len(inside) else None
