"""The pictures of a search's report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuscalp.report.figures import INK, LINE, SERIES, SOFT, draw
from gpuscalp.tuning.search import Trial
from gpuscalp.tuning.space import Dimension, Space


def parallel(trials: Sequence[Trial], best: Trial, space: Space, unit: str) -> str:
    """Draw every trial that has a score as a line over one axis per key, and one for the score."""
    scored = [trial for trial in trials if trial.failure is None]
    low = min(trial.score for trial in scored)
    high = max(trial.score for trial in scored)
    dimensions = space.dimensions

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        at = np.arange(len(dimensions) + 1)
        for trial in sorted(scored, key=lambda trial: (trial is best, trial.finished, trial.number)):
            # Equal choices of many trials would lie on each other: a little apart, by their numbers.
            apart = 0.02 * ((trial.number * 7) % 11 - 5) / 5
            places = [
                each.place(trial.params[each.name]) + (apart if each.choices else 0.0) for each in dimensions
            ]
            places.append((trial.score - low) / (high - low) if high > low else 0.5)
            if trial is best:
                style: dict[str, Any] = {"color": SERIES[1], "linewidth": 2.6, "zorder": 4}
            elif trial.finished:
                style = {"color": SERIES[0], "linewidth": 1.3, "alpha": 0.9, "zorder": 3}
            else:
                style = {"color": SOFT, "linewidth": 0.7, "alpha": 0.35, "zorder": 2}
            axes.plot(at, places, **style)
        for index, dimension in enumerate(dimensions):
            axes.axvline(index, color=LINE, linewidth=1.0, zorder=1)
            for place, text in _marks(dimension):
                _mark(axes, index, place, text)
        axes.axvline(at[-1], color=INK, linewidth=1.2, zorder=1)
        for place, text in ((0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")):
            _mark(axes, int(at[-1]), place, text)
        names = [each.name.replace(".", ".\n") for each in dimensions]
        axes.set_xticks(at, [*names, "score"], fontsize=8.5)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.set_xlim(-0.3, len(dimensions) + 0.6)
        axes.set_ylim(-0.08, 1.08)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.set_title(f"Trials over their values; score in {unit}")

    return draw(
        paint,
        name="tune-parallel",
        alt="Parallel coordinates of all trials, the best one marked",
        height_in=4.6,
        width_in=max(9.0, 1.15 * (len(dimensions) + 1)),
    )


def history(trials: Sequence[Trial], best: Trial, generation: int, unit: str) -> str:
    """Draw the scores in the order of the trials."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for border in range(generation, len(trials), generation):
            axes.axvline(border - 0.5, color=LINE, linewidth=0.8)
        for finished, color, label in (
            (False, SOFT, "stopped at a rung"),
            (True, SERIES[0], "all rounds"),
        ):
            chosen = [t for t in trials if t.failure is None and t.finished == finished]
            axes.scatter(
                [t.number for t in chosen], [t.score for t in chosen], s=18, color=color, label=label
            )
        axes.scatter([best.number], [best.score], s=70, color=SERIES[1], label="best", zorder=4)
        axes.set_xlabel("trial; lines part the generations")
        axes.set_title(f"Scores, {unit}")
        axes.legend()

    return draw(paint, name="tune-history", alt="Score of each trial in order", height_in=3.0)


def _marks(dimension: Dimension) -> list[tuple[float, str]]:
    """Return the texts at an axis, and where they stand."""
    if dimension.choices:
        return [(dimension.place(value), _short(value)) for value in dimension.choices]
    return [(0.0, f"{dimension.low:g}"), (1.0, f"{dimension.high:g}")]


def _mark(axes: Any, at: int, place: float, text: str) -> None:
    axes.annotate(
        text, (at, place), xytext=(4, 0), textcoords="offset points", va="center", color=INK, fontsize=8,
        zorder=5,
    )  # fmt: skip


def _short(value: object) -> str:
    text = " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
    return text if len(text) <= 14 else f"{text[:13]}…"
