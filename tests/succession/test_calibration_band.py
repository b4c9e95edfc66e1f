"""The band of a new lead's calibration: what stays in it, what leaves it, and whether its error is honest."""

from __future__ import annotations

from math import log, sqrt
from statistics import mean

import numpy as np
import pytest

from gpuscalp.succession.calibration_band import NAMES, PARTS, CalibrationBand
from gpuscalp.succession.outcomes import Matured

FRAME_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000
WINDOW_S = 400.0
FRAMES = 4_000  # one window


def matured(
    rng: np.random.Generator, frames: int = FRAMES, *, bias: float = 0.0, mood: float = 0.0
) -> Matured:
    """Return rows whose classes come with the probabilities said, or with others.

    Parameters
    ----------
    bias : of the probability of UP: so much more is said than is true
    mood : how far the true probabilities wander, alike for all symbols and for ten seconds
    """
    true = rng.dirichlet([4.0, 6.0, 4.0], (frames, 4))
    wander = np.repeat(rng.normal(0.0, mood, -(-frames // 100)), 100)[:frames, None]
    true[..., 2] = np.clip(true[..., 2] + wander, 0.02, 0.9)
    true /= true.sum(axis=2, keepdims=True)
    came = (rng.random((frames, 4, 1)) > true.cumsum(axis=2)).sum(axis=2).clip(max=2)
    said = true.copy()
    said[..., 2] += bias
    said /= said.sum(axis=2, keepdims=True)
    end_ns = START_NS + np.arange(1, frames + 1) * FRAME_NS
    nothing = np.zeros((frames, 4))
    return Matured(end_ns, said, came.astype(np.int8), nothing, nothing)


def band(**changes: float) -> CalibrationBand:
    given = {"window_s": WINDOW_S, "tolerance": 0.02, "errors": 4.0, "after_ns": 0} | changes
    return CalibrationBand(**given)


def outside(found: CalibrationBand) -> list[str]:
    return [gap.name for gap in found.gaps() if gap.outside]


def test_a_calibrated_model_stays_in_its_band():
    rng = np.random.default_rng(2)
    for _ in range(25):
        watched = band(tolerance=0.0)
        watched.mature(matured(rng, mood=0.05))
        # 5 figures, 4 errors of 39 parts: two in a thousand windows by Student's distribution.
        assert outside(watched) == []


def test_a_gap_that_chance_does_not_explain_leaves_it():
    watched = band()
    watched.mature(matured(np.random.default_rng(3), bias=0.25))
    assert "share_up" in outside(watched)


def test_a_gap_within_the_tolerance_does_not():
    watched = band(tolerance=0.2)
    watched.mature(matured(np.random.default_rng(3), bias=0.1))
    gaps = {gap.name: gap for gap in watched.gaps()}
    assert gaps["share_up"].value > 4 * gaps["share_up"].error
    assert not gaps["share_up"].outside


def test_a_model_worse_than_the_class_shares_leaves_it():
    found = matured(np.random.default_rng(5))
    wrong = found.probability[:, :, ::-1]  # UP for DOWN
    watched = band()
    watched.mature(found._replace(probability=wrong))
    # Down and up are as frequent as before; which of them comes is not known.
    assert outside(watched) == ["confidence", "log_loss"]
    loss = watched.gaps()[-1]
    assert loss.limit == pytest.approx(0.02 + 4 * loss.error)


def test_gaps_are_those_of_a_loop_and_their_error_that_of_many_windows():
    rng = np.random.default_rng(7)
    values, errors = [], []
    for _ in range(60):
        found, watched = matured(rng, mood=0.1), band()
        for start in range(0, FRAMES, 700):
            watched.mature(Matured(*(each[start : start + 700] for each in found)))
        gaps = watched.gaps()
        values.append([gap.value for gap in gaps])
        errors.append([gap.error for gap in gaps])
    assert [gap.name for gap in gaps] == list(NAMES)
    part_ns = round(WINDOW_S * 1e9 / PARTS)
    numbers = found.end_ns // part_ns
    inside = (numbers > numbers.max() - PARTS) & (numbers < numbers.max())
    said, came = found.probability[inside], found.direction[inside]
    assert values[-1][0] == pytest.approx(np.mean(said[..., 0] - (came == 0)))
    assert values[-1][3] == pytest.approx(np.mean(said.max(axis=2) - (came == said.argmax(axis=2))))
    share = np.bincount(came.ravel()) / came.size
    loss = -np.log(np.take_along_axis(said, came[..., None].astype(int), axis=2)).mean()
    assert values[-1][4] == pytest.approx(loss + np.sum(share * np.log(share)))
    # What the windows really scatter by: 60 of them know it to 10 %, and parts of ten seconds hold the moods.
    assert np.mean(errors, axis=0) == pytest.approx(np.std(values, axis=0), rel=0.35)


@pytest.mark.parametrize("classes", [3, 2])
def test_gaps_are_exactly_those_of_plain_loops_however_frames_come(classes: int) -> None:
    """Frames come a few at a time: a part is filled by many calls. Some say nothing, some have no label."""
    rng = np.random.default_rng(11)
    found = matured(rng, 3_000)
    found.direction[found.direction >= classes] = 0  # UP may never come at all
    found.probability[rng.random((3_000, 4)) < 0.1] = np.nan
    found.direction[rng.random((3_000, 4)) < 0.1] = -1
    watched = band()
    for start in range(0, 3_000, 37):
        watched.mature(Matured(*(each[start : start + 37] for each in found)))
    parts: dict[int, list[list[float]]] = {}
    for at_ns, said, came in zip(found.end_ns.tolist(), found.probability, found.direction, strict=True):
        for row, one in zip(said.tolist(), came.tolist(), strict=True):
            if one >= 0 and row[0] == row[0]:
                best = row.index(max(row))
                figures = [p - (one == at) for at, p in enumerate(row)] + [max(row) - (best == one)]
                parts.setdefault(at_ns // round(WINDOW_S * 1e9 / PARTS), []).append(
                    [*figures, -log(row[one]), float(one)]
                )
    assert watched.rows == sum(map(len, parts.values()))
    whole = [parts[number] for number in sorted(parts)[:-1]]
    rows = [row for part in whole for row in part]
    shares = [mean(row[5] == at for row in rows) for at in range(classes)]
    gaps = watched.gaps()
    for at, gap in enumerate(gaps):
        base = [-log(shares[int(row[5])]) if at == 4 else 0.0 for row in rows]
        value = mean(row[at] - one for row, one in zip(rows, base, strict=True))
        off = [
            sum(row[at] + (log(shares[int(row[5])]) if at == 4 else 0.0) - value for row in part)
            for part in whole
        ]
        error = sqrt(sum(one * one for one in off) * len(whole) / (len(whole) - 1)) / len(rows)
        assert (gap.value, gap.error) == (pytest.approx(value, abs=1e-12), pytest.approx(error, rel=1e-9))
        assert gap.limit == pytest.approx(0.02 + 4 * error)
    assert [gap.name for gap in gaps] == list(NAMES)


@pytest.mark.parametrize(("parts", "known"), [(20, False), (21, True)])
def test_too_few_parts_say_nothing(parts: int, known: bool) -> None:
    """The part that grows still is none of the twenty."""
    watched = band()
    watched.mature(matured(np.random.default_rng(1), (parts - 1) * 100))
    assert bool(watched.gaps()) == known


def test_what_others_predicted_and_what_is_old_does_not_count():
    found = matured(np.random.default_rng(1))
    watched = band(after_ns=int(found.end_ns[999]))
    watched.mature(found)
    assert watched.rows == 3_000 * 4
    later = found._replace(end_ns=found.end_ns + round(10 * WINDOW_S * 1e9))
    watched.mature(later)
    assert watched.rows <= 4_000 * 4
    assert len(watched.gaps()) == len(NAMES)
