"""Judges held-out predictions: calibration first, always from rows of other folds, then the metrics.

Owns: which calibration a fold may be judged with: one fitted on the held-out rows of the folds before it. The
first fold is judged as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gpuscalp.ensemble import Calibration
from gpuscalp.labels import CLASSES
from gpuscalp.ops.probability import calibrate
from gpuscalp.schema import F64
from gpuscalp.train.calibration import fit_vector_scaling
from gpuscalp.train.held_out import HeldOut
from gpuscalp.train.iterator import Tally
from gpuscalp.train.metrics import Score, score

# Blocks of time, in horizons. Rows are dependent over one horizon; twice that leaves room.
BLOCK_HORIZONS: Final = 2


@dataclass(frozen=True, slots=True)
class Judgement:
    """Scores of the folds, of all rows together, and the calibration that each fold was judged with."""

    scores: tuple[Score, ...]
    overall: Score
    calibrations: tuple[Calibration, ...]


def calibration_of(held_out: Sequence[HeldOut], kind: str) -> Calibration:
    """Fit the calibration on all the rows given; the identity where ``kind`` is "none" or there are none."""
    if kind == "none" or not held_out:
        return Calibration.identity(len(CLASSES))
    rows = HeldOut.joined(held_out)
    return fit_vector_scaling(rows.raw, rows.direction, rows.weight, rows.end_ns)


def judge(held_out: Sequence[HeldOut], trained: Sequence[Tally], *, kind: str, horizon_ns: int) -> Judgement:
    """Measure every fold and all folds together.

    Parameters
    ----------
    held_out : HeldOut per fold, none empty
    trained : Tally per fold: class shares and class returns come from the rows the members were fitted on
    kind : "vector" or "none"
    horizon_ns : label horizon

    Returns
    -------
    Judgement
    """
    calibrations = tuple(calibration_of(held_out[:index], kind) for index in range(len(held_out)))
    probabilities, edges = [], []
    for rows, tally, calibration in zip(held_out, trained, calibrations, strict=True):
        probability = np.empty_like(rows.raw)
        calibrate(rows.raw, calibration.scale, calibration.bias, probability)
        probabilities.append(probability)
        edges.append(probability @ tally.class_return_bps)
    scores = tuple(
        _score([rows], [probability], [edge], [tally], horizon_ns=horizon_ns)
        for rows, probability, edge, tally in zip(held_out, probabilities, edges, trained, strict=True)
    )
    overall = _score(held_out, probabilities, edges, trained, horizon_ns=horizon_ns)
    return Judgement(scores, overall, calibrations)


def _score(
    held_out: Sequence[HeldOut],
    probabilities: Sequence[F64],
    edges: Sequence[F64],
    trained: Sequence[Tally],
    *,
    horizon_ns: int,
) -> Score:
    together = HeldOut.joined(held_out)
    return score(
        probability=np.concatenate(probabilities),
        raw=together.raw,
        edge_bps=np.concatenate(edges),
        direction=together.direction,
        return_bps=together.return_bps,
        end_ns=together.end_ns,
        base_share=np.concatenate(
            [
                np.tile(tally.expected_share, (len(rows), 1))
                for rows, tally in zip(held_out, trained, strict=True)
            ]
        ),
        group=np.concatenate([np.full(len(rows), index) for index, rows in enumerate(held_out)]),
        block_ns=BLOCK_HORIZONS * horizon_ns,
    )
