"""What ``features list`` answers: every column as it declares itself. Needs no compiler and no archive."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.errors import UsageError
from gpuscalp.features import FeatureGraph


def describe(grid: GridConfig, features: FeatureConfig, patterns: Sequence[str] = ()) -> dict[str, Any]:
    """Return the columns of a graph that match any of the shell patterns (all without one), and its hash.

    Returns
    -------
    dict with ``features`` (name, unit, window, warm_up, source of each, windows in frames), ``hash``,
    ``frame_ms`` and ``warm_up_frames``

    Raises
    ------
    UsageError    a pattern matches no column
    """
    graph = FeatureGraph(grid, features)
    for pattern in patterns:
        if not fnmatch.filter(graph.names, pattern):
            raise UsageError(
                "pattern matches no column",
                where="columns",
                value=pattern,
                fix="quote it for the shell; `gpuscalp features list` without --columns shows all",
            )
    columns = [
        {
            "name": column.name,
            "unit": column.unit,
            "window": column.window,
            "warm_up": column.warm_up,
            "source": column.source,
        }
        for column in graph.columns
        if not patterns or any(fnmatch.fnmatchcase(column.name, pattern) for pattern in patterns)
    ]
    return {
        "features": columns,
        "hash": graph.hash,
        "frame_ms": grid.frame_ms,
        "warm_up_frames": graph.warm_up_frames,
    }
