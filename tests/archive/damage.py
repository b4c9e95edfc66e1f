"""Damage done to recordings on purpose: seeded, and written down line by line.

Lines are removed, cut short, repeated, swapped with the next one, or garbled. Damaged lines keep a distance
from each other, so that each one's trace can be told apart.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

KINDS = ("removed", "cut", "repeated", "swapped", "garbled")


@dataclass
class Damage:
    """What was done. Indices are of the undamaged lines."""

    lines: list[bytes]
    done: dict[str, list[int]] = field(default_factory=lambda: {kind: [] for kind in KINDS})


def damage(lines: list[bytes], *, share: float, seed: int, spared: int = 50) -> Damage:
    """Return a damaged copy; the first ``spared`` and last lines are left alone."""
    chance = random.Random(seed)
    places = sorted(chance.sample(range(spared, len(lines) - 20, 4), round(share * len(lines))))
    plan = {place: chance.choice(KINDS) for place in places}
    result = Damage([])
    index = 0
    while index < len(lines):
        line, kind = lines[index], plan.get(index)
        if kind is not None:
            result.done[kind].append(index)
        if kind == "cut":
            result.lines.append(line[: chance.randint(len(line) // 3, len(line) - 2)])
        elif kind == "garbled":
            # A byte that occurs nowhere in JSON: a digit for another digit could not be seen by anyone.
            where = chance.randrange(len(line))
            result.lines.append(line[:where] + b"\x07" + line[where + 1 :])
        elif kind == "repeated":
            result.lines += [line, line]
        elif kind == "swapped":
            result.lines += [lines[index + 1], line]
            index += 1
        elif kind != "removed":
            result.lines.append(line)
        index += 1
    return result
