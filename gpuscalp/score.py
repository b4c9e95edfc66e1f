"""One number for how well a session does, and why it is not a hundred.

Owns: the table of what costs points, and the arithmetic. Pure. Never: measures, or acts upon the number: the
risk gate has rules of its own.

Five parts of 20 points. A reason reads one number: at ``good`` or better it costs nothing, at ``bad`` or
worse all of its points, in between in proportion, rounded up to a hundredth. The points of a part's reasons
add up to 20, so a part is 20 less what its reasons cost, and the score is the sum of the parts. What is not
known costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PART_POINTS: Final = 20


@dataclass(frozen=True, slots=True)
class Reason:
    """One line of the table.

    Attributes
    ----------
    part, word : where it counts, and its name; neither ever changes its meaning
    points : the most that it costs
    good, bad : ``bad`` is larger
    what : the number that it reads, with its unit
    """

    part: str
    word: str
    points: int
    good: float
    bad: float
    what: str


# fmt: off
REASONS: Final = (
    Reason("latency", "slow", 10, 0.25, 1.0,
           "p99 from receipt to order of the last minutes over the deadline of a prediction"),
    Reason("latency", "late_predictions", 5, 0.0, 0.02,
           "share of the last hour's frames whose prediction was late or lost"),
    Reason("latency", "old_frame", 5, 2.0, 10.0,
           "age of the last frame, s"),
    Reason("data", "silent", 6, 0.0, 0.25,
           "share of symbols of which a stream is silent"),
    Reason("data", "books", 4, 0.0, 0.25,
           "share of symbols whose book is not whole"),
    Reason("data", "doubtful_rows", 4, 0.05, 0.5,
           "share of the last hour's rows with a quality bit that blocks entries"),
    Reason("data", "gaps", 3, 0.0, 60.0,
           "gaps of the last hour"),
    Reason("data", "clock", 3, 0.0, 1.0,
           "1 while the clock is not to be trusted"),
    Reason("prediction", "no_skill", 8, 0.0, 0.2,
           "live log loss over that of the class shares, less 1"),
    Reason("prediction", "miscalibrated", 6, 0.03, 0.15,
           "expected calibration error"),
    Reason("prediction", "drift", 6, 0.1, 0.5,
           "largest mean PSI of a feature group, once half an hour was seen"),
    Reason("execution", "rejected", 7, 0.0, 0.1,
           "share of the last hour's orders that the exchange refused"),
    Reason("execution", "slippage", 5, 0.5, 5.0,
           "slippage of the last hour over its turnover, bps"),
    Reason("execution", "refused", 4, 0.5, 1.0,
           "share of the last hour's intents that the gate refused"),
    Reason("execution", "drawdown", 4, 0.25, 1.0,
           "drawdown over its limit"),
    Reason("errors", "gate", 8, 0.0, 2.0,
           "0 active, 1 reducing, 2 halted"),
    Reason("errors", "device", 6, 0.0, 3.0,
           "faults of the predicting device in the last hour; at least 3 while it is not trusted"),
    Reason("errors", "connections", 3, 0.0, 10.0,
           "connections lost in the last hour"),
    Reason("errors", "rejects", 3, 0.0, 10.0,
           "messages of the last hour that could not be read"),
)
# fmt: on
PARTS: Final = tuple(dict.fromkeys(reason.part for reason in REASONS))


@dataclass(frozen=True, slots=True)
class Lost:
    """What a reason costs now, and the number that it read."""

    part: str
    word: str
    points: float
    value: float


@dataclass(frozen=True, slots=True)
class Score:
    """The number, its parts, and what each reason costs; the dearest first."""

    value: float
    parts: dict[str, float]
    lost: tuple[Lost, ...]


def score(numbers: Mapping[str, float | None]) -> Score:
    """Return the score.

    Parameters
    ----------
    numbers : by the word of a reason; None, NaN or no entry where it is not known
    """
    # In hundredths, which are whole: sums have no remainder, and any reason shows in the number.
    left = dict.fromkeys(PARTS, 100 * PART_POINTS)
    lost = []
    for reason in REASONS:
        value = numbers.get(reason.word)
        if value is None or math.isnan(value):
            continue
        cost = cost_hundredths(reason, value)
        if cost:
            left[reason.part] -= cost
            lost.append(Lost(reason.part, reason.word, cost / 100, value))
    return Score(
        value=sum(left.values()) / 100,
        parts={part: points / 100 for part, points in left.items()},
        lost=tuple(sorted(lost, key=lambda each: -each.points)),
    )


def cost_hundredths(reason: Reason, value: float) -> int:
    """Return what a number costs, in hundredths of a point."""
    share = (value - reason.good) / (reason.bad - reason.good)
    return math.ceil(100 * reason.points * min(max(share, 0.0), 1.0))
