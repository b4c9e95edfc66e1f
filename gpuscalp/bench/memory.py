"""Resident memory over time, and whether it grows.

Owns: the samples and the line through them.
"""

from __future__ import annotations

from typing import Final, final

import numpy as np

_MIB: Final = 1 << 20


@final
class Slope:
    """Samples of memory, and the least-squares line through their lower edge."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []

    def add(self, at_s: float, resident: int | None) -> None:
        if resident is not None:
            self._samples.append((at_s, resident))

    def of(self, from_s: float, *, window_s: float) -> dict[str, float | int | None]:
        """Return slope and its standard error in MiB an hour, from a time on.

        The line goes through the least sample of each window: a checkpoint takes memory for a moment and
        gives it back to the system or keeps it for the next one, so that the samples stand at two levels;
        what leaks lifts the lower one. None with fewer than three windows.
        """
        kept = [sample for sample in self._samples if sample[0] >= from_s]
        windows: dict[int, tuple[float, int]] = {}
        for at_s, resident in kept:
            number = int((at_s - from_s) // window_s)
            if number not in windows or resident < windows[number][1]:
                windows[number] = (at_s, resident)
        found: dict[str, float | int | None] = {
            "rss_windows": len(windows),
            "rss_least_mb": round(min(each for _, each in kept) / _MIB, 1) if kept else None,
            "rss_most_mb": round(max(each for _, each in kept) / _MIB, 1) if kept else None,
            "rss_slope_mb_per_hour": None,
            "rss_slope_error_mb_per_hour": None,
        }
        if len(windows) < 3:
            return found
        edge = np.array(list(windows.values()), np.float64)
        time, memory = (edge[:, 0] - edge[:, 0].mean()) / 3_600, edge[:, 1] / _MIB
        spread = float((time * time).sum())
        slope = float((time * memory).sum()) / spread
        rest = memory - memory.mean() - slope * time
        error = float(np.sqrt((rest * rest).sum() / (len(edge) - 2) / spread))
        return found | {
            "rss_slope_mb_per_hour": round(slope, 2),
            "rss_slope_error_mb_per_hour": round(error, 2),
        }
