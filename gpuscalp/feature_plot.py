"""Chosen features drawn under the price of one symbol.

Owns: the picture. Never: computes a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from gpuscalp.archive import Archive, choose_venue
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.errors import DataError, UsageError
from gpuscalp.feature_table import mid_price
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import F32, F64, I64, NS_PER_MS, NS_PER_S, U32, Quality

PANELS_MAX: Final = 12
_FORMATS: Final = (".png", ".svg", ".pdf")
# Warm-up has its own look (the line begins later); the other doubts are shaded.
_DOUBT: Final = int(~Quality.WARM_UP & Quality((1 << len(Quality)) - 1))

_INK, _SOFT, _GRID, _PRICE, _FEATURE, _SHADE = (
    "#1d2433",
    "#5b6472",
    "#e3e6eb",
    "#1d2433",
    "#2563a8",
    "#f2b8a0",
)


def plot_features(
    archive_path: Path,
    out: Path,
    *,
    columns: Sequence[str],
    venue: str | None = None,
    symbol: str | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    grid: GridConfig | None = None,
    features: FeatureConfig | None = None,
) -> dict[str, Any]:
    """Draw the mid price of one symbol and, below it on the same time axis, one panel for each column.

    Parameters
    ----------
    archive_path : Path
    out : .png, .svg or .pdf
    columns : shell patterns; at most 12 columns
    venue, symbol : by default the only venue, and the leader or else the first symbol
    start_ns, end_ns : what is drawn; features are computed from far enough before it to be warm
    grid, features : the graph

    Returns
    -------
    dict with out, symbol, columns, frames

    Raises
    ------
    UsageError    too many columns, an unknown symbol or column, nothing in the range, or another file type
    DataError     no frame could be closed in the range
    """
    check_format(out)
    archive = Archive.open(archive_path)
    name = choose_venue(archive, venue)
    config = features or FeatureConfig()
    known = archive.symbols(name)
    chosen = symbol or (config.leader if config.leader in known else known[0])
    # The leader's columns and those across symbols need all of them, not only the one that is drawn.
    instruments = archive.instruments(name)
    if chosen not in known:
        raise UsageError("the archive has no such symbol", value=chosen, fix=f"it has: {', '.join(known)}")
    archive.span(name, (), start_ns, end_ns)
    pipeline = FeaturePipeline(grid=grid or GridConfig(), features=config, instruments=instruments)
    drawn = pipeline.graph.matching(columns)
    if len(drawn) > PANELS_MAX:
        raise UsageError(
            "too many columns for one picture",
            value=len(drawn),
            fix=f"choose at most {PANELS_MAX} with --columns",
        )
    names = [column.name for column in drawn]
    series = _series(pipeline, archive, name, known.index(chosen), names, start_ns, end_ns)
    # Of a contract that is delivered the day stands behind the currency.
    quote = "USDT" if chosen.partition("_")[0].endswith("USDT") else "quote currency"
    _draw(out, f"{chosen}, {name}", quote, series, [(column.name, column.unit) for column in drawn])
    return {"out": out, "symbol": chosen, "columns": names, "frames": len(series[0])}


def check_format(out: Path) -> None:
    """Refuse a picture of another type than matplotlib is asked for here, before anything is computed.

    Raises
    ------
    UsageError
    """
    if out.suffix.lower() not in _FORMATS:
        raise UsageError("unknown type of picture", value=out.name, fix=f"one of {', '.join(_FORMATS)}")


Series = tuple[I64, F64, U32, F32]  # end_ns[T], mid[T], quality[T], features[F, T]


def _series(
    pipeline: FeaturePipeline,
    archive: Archive,
    venue: str,
    symbol: int,
    names: Sequence[str],
    start_ns: int | None,
    end_ns: int | None,
) -> Series:
    frame_ns = pipeline.grid.frame_ms * NS_PER_MS
    warm_ns = (pipeline.graph.warm_up_frames + 1) * frame_ns + 60 * NS_PER_S
    batches = archive.tick_batches(
        venue, start_ns=None if start_ns is None else start_ns - warm_ns, end_ns=end_ns
    )
    at = [pipeline.graph.index(name) for name in names]
    parts: list[Series] = []
    for chunk in pipeline.batch(batches):
        kept = chunk.frames.end_ns > (start_ns if start_ns is not None else -1)
        if kept.any():
            parts.append(
                (
                    chunk.frames.end_ns[kept],
                    mid_price(pipeline, chunk)[kept, symbol],
                    chunk.frames.quality[kept, symbol],
                    chunk.features[symbol][at][:, kept],
                )
            )
    if not parts:
        raise DataError("no frame lies in the range", where=str(archive.path))
    ends, mids, qualities, values = zip(*parts, strict=True)
    return (
        np.concatenate(ends),
        np.concatenate(mids),
        np.concatenate(qualities),
        np.concatenate(values, axis=1),
    )


def _draw(out: Path, title: str, unit: str, series: Series, columns: Sequence[tuple[str, str]]) -> None:
    import matplotlib
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    end_ns, mid, quality, values = series
    time = end_ns.astype("datetime64[ns]").astype("datetime64[us]")
    # A silence is a hole in the picture, not a line across it.
    holes = (
        np.flatnonzero(np.diff(end_ns) > np.diff(end_ns).min()) + 1 if len(end_ns) > 1 else np.empty(0, int)
    )
    style = {
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.5,
        "axes.edgecolor": _GRID, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "axes.axisbelow": True, "grid.color": _GRID, "grid.linewidth": 0.7, "text.color": _INK,
        "xtick.color": _GRID, "ytick.color": _GRID, "xtick.labelcolor": _SOFT, "ytick.labelcolor": _SOFT,
        "svg.fonttype": "none", "svg.hashsalt": "gpuscalp",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        count = len(columns)
        figure = Figure(figsize=(11, 2.6 + 1.35 * count), layout="constrained")
        axes = figure.subplots(1 + count, 1, sharex=True, height_ratios=[2.0, *[1.0] * count], squeeze=False)[
            :, 0
        ]
        axes[0].set_title(f"{title}: mid price", loc="left", fontsize=12)
        axes[0].set_ylabel(unit, color=_SOFT, fontsize=8.5)
        _line(axes[0], time, mid, holes, _PRICE, 1.1)
        for axis, (name, unit), row in zip(axes[1:], columns, values, strict=True):
            axis.set_title(name, loc="left", fontsize=10, pad=3)
            axis.set_ylabel(unit, color=_SOFT, fontsize=8.5)
            _line(axis, time, row.astype(np.float64), holes, _FEATURE, 0.9)
            if np.nanmin(row, initial=0.0) < 0 < np.nanmax(row, initial=0.0):
                axis.axhline(0.0, color=_SOFT, linewidth=0.6)
        doubtful = _stretches((quality & np.uint32(_DOUBT)) != 0)
        for axis in axes:
            for first, past in doubtful:
                axis.axvspan(time[first], time[past - 1], color=_SHADE, alpha=0.5, linewidth=0)
            axis.margins(x=0.005)
            axis.tick_params(length=3)
        locator = AutoDateLocator()
        axes[-1].xaxis.set_major_locator(locator)
        axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))
        note = "UTC; shaded: stale, crossed, late or missing data" if doubtful else "UTC"
        axes[-1].set_xlabel(note, color=_SOFT, fontsize=9)
        figure.align_ylabels(list(axes))
        metadata = {"Date": None} if out.suffix.lower() == ".svg" else None
        figure.savefig(out, dpi=150, metadata=metadata)


def _line(axis: Any, time: Any, values: F64, holes: Any, colour: str, width: float) -> None:
    for part_time, part in zip(np.split(time, holes), np.split(values, holes), strict=True):
        axis.plot(part_time, part, color=colour, linewidth=width, drawstyle="steps-post")


def _stretches(flags: Any) -> list[tuple[int, int]]:
    """Return the half-open ranges in which flags are set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
