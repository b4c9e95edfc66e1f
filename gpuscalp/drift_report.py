"""How far an archive, or what a session heard, is from what a model was trained on: `gpuscalp drift`.

Owns: the walk over the rows, the intervals, the picture. The figures are those of gpuscalp.drift,
gpuscalp.drift.adversarial and gpuscalp.drift.alarm; a running session has all but the second.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec import UNSET

from gpuscalp.archive import Archive
from gpuscalp.bundle import Bundle, load_bundle, read_contract
from gpuscalp.drift.adversarial import ROWS_MIN, GroupAuc, compare, training_floors
from gpuscalp.drift.alarm import BLOCKS_BETWEEN_ALARMS, WINDOWS_PER_BLOCK, Alarm, DriftAlarm
from gpuscalp.drift.reference import ROWS_MAX, Reference
from gpuscalp.drift.stability import BINS, Distribution, bin_counts, group_columns, psi
from gpuscalp.errors import DataError, ModelError, UsageError
from gpuscalp.feature_plot import check_format
from gpuscalp.labels import BLOCKED
from gpuscalp.live.control import SESSION_FILE
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import F32, F64, I64, NS_PER_MS, Quality

_RESAMPLES: Final = 400
_STRETCHES_MIN: Final = 5
_TAKE_FRAMES: Final = 256
_INK: Final = "#1a1a1a"
_SOFT: Final = "#666666"
_LINE: Final = "#d8d8d8"
_BLUE: Final = "#1f6fb2"
_ORANGE: Final = "#c2571a"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the walk over the rows left.

    Attributes
    ----------
    rows, outliers : sound rows; those of them that the model's guard marks
    sample : float32[N, F]     evenly spread, in the order of time
    counts : int64[B, F, BINS] rows of each stretch of time in each bin
    alarms : what each whole block said
    """

    rows: int
    outliers: int
    sample: F32
    counts: I64
    alarms: tuple[Alarm, ...]
    too_few: int


def drift(
    model: Path,
    source: Path,
    *,
    venue: str | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    out: Path | None = None,
    on_progress: Progress = silent,
) -> dict[str, Any]:
    """Compare the rows of an archive, or of a session, with those that a model was trained on.

    Parameters
    ----------
    model : bundle
    source : archive, or the directory of a session
    venue : may be left out where the archive has the model's own, or only one
    start_ns, end_ns : half-open range of exchange time
    out : picture to write (.svg, .png, .pdf)

    Raises
    ------
    UsageError    the source has nothing in the range, or the picture is of another type
    ModelError    the bundle does not say what its training rows were like
    DataError     the source has no row that training could have used
    """
    if out is not None:
        check_format(out)
    contract = read_contract(model)
    if contract.reference is UNSET:
        raise ModelError(
            "the model has no reference of its training rows", where=str(model), fix="train it again"
        )
    with tempfile.TemporaryDirectory(prefix="gpuscalp-drift-") as folder:
        archive = _opened(source, Path(folder))
        venue = venue or _venue_of(archive, contract.training.venue, source)
        archive.span(venue, contract.training.symbols, start_ns, end_ns)
        pipeline = FeaturePipeline(
            grid=contract.training.config.grid,
            features=contract.training.config.features,
            instruments=archive.instruments(venue, contract.training.symbols),
        )
        bundle = load_bundle(model, graph=pipeline.graph)
        ticks = archive.tick_batches(venue, contract.training.symbols, start_ns=start_ns, end_ns=end_ns)
        assert bundle.reference is not None
        seen = _walk(pipeline, ticks, bundle, bundle.reference, on_progress)
    if not seen.rows:
        raise DataError("there is no row that training could have used", where=str(source))
    answer = _answer(seen, bundle, bundle.reference, model, source)
    if out is not None:
        _draw(answer, out)
        answer["picture"] = str(out)
    return answer


def _walk(
    pipeline: FeaturePipeline,
    ticks: Iterator[Any],
    bundle: Bundle,
    reference: Reference,
    on_progress: Progress,
) -> _Seen:
    names, edges, floor = bundle.contract.names, reference.trained.edges, reference.floor
    watched = None if floor is None else DriftAlarm(floor, edges, names)
    mask, outlier = np.uint32(BLOCKED), np.uint32(Quality.OUTLIER)
    # Stretches as long as the blocks of the alarm: shorter ones would be alike, and an interval too narrow.
    window = max(column.window for column in bundle.contract.columns)
    stretch_ns = WINDOWS_PER_BLOCK * window * bundle.contract.training.config.grid.frame_ms * NS_PER_MS
    counts: dict[int, I64] = {}
    alarms: list[Alarm] = []
    sample: list[F32] = []
    rows = outliers = 0
    # By lot: every n-th row of four symbols in turn would be rows of one symbol.
    share, rng = 1.0, np.random.default_rng(0)
    for chunk in pipeline.batch(ticks):
        frames = chunk.frames
        good = ((frames.quality & mask) == 0) & (frames.bid_px > 0) & (frames.ask_px > 0)
        for first in range(0, len(frames), _TAKE_FRAMES):
            part = slice(first, first + _TAKE_FRAMES)
            at, symbol = np.nonzero(good[part])
            x = np.ascontiguousarray(chunk.features[symbol, :, first + at])
            end_ns = int(frames.end_ns[part][-1])
            if not len(x):
                continue
            own = bin_counts(edges, x)
            stretch = end_ns // stretch_ns
            counts[stretch] = counts[stretch] + own if stretch in counts else own
            if watched is not None:
                before = watched.blocks
                watched.take(x, end_ns)
                if watched.blocks > before and watched.last is not None:
                    alarms.append(watched.last)
            if reference.guard is not None:
                quality = np.zeros(len(x), np.uint32)
                reference.guard.mark(x, quality)
                outliers += int(np.count_nonzero(quality & outlier))
            sample.append(x[rng.random(len(x)) < share])
            rows += len(x)
            if sum(map(len, sample)) > 4 * ROWS_MAX:
                share /= 2
                whole = np.concatenate(sample)
                sample = [whole[rng.random(len(whole)) < 0.5]]
        if len(frames):
            on_progress(rows, None, f"{rows:,} rows")
    found = np.concatenate(sample) if sample else np.empty((0, len(names)), np.float32)
    at = np.sort(rng.permutation(len(found))[:ROWS_MAX])
    shape = (len(counts), len(names), BINS)
    return _Seen(
        rows, outliers, found[at], np.array(list(counts.values())).reshape(shape), tuple(alarms),
        0 if watched is None else watched.too_few,
    )  # fmt: skip


def _answer(seen: _Seen, bundle: Bundle, reference: Reference, model: Path, source: Path) -> dict[str, Any]:
    names, trained = bundle.contract.names, reference.trained
    aucs = _aucs(seen, reference, names)
    low, high = _psi_interval(seen.counts, trained, names)
    by_column = psi(trained.shares, seen.counts.sum(axis=0) / seen.rows)
    groups: dict[str, Any] = {}
    for at, (group, columns) in enumerate(group_columns(names).items()):
        found, auc = by_column[columns], aucs.get(group)
        groups[group] = {
            "psi": float(found.mean()),
            "psi_low": float(low[at]),
            "psi_high": float(high[at]),
            "psi_largest": float(found.max()),
            "column": names[int(columns[found.argmax()])],
            "auc": None
            if auc is None
            else {key: value for key, value in asdict(auc).items() if key != "group"}
            | {"stands_out": auc.stands_out},
        }
    alarm = None
    if reference.floor is not None:
        alarm = {
            "training_blocks": len(reference.floor.psi),
            "block_s": reference.floor.block_ns / 1e9,
            "blocks": len(seen.alarms),
            "too_few_rows": seen.too_few,
            "threshold": BLOCKS_BETWEEN_ALARMS,
            "flagged_ns": next((each.start_ns for each in seen.alarms if each.flagged), None),
            "evidence": [each.evidence for each in seen.alarms],
            "p": [each.p for each in seen.alarms],
            "group": [each.group for each in seen.alarms],
            "start_ns": [each.start_ns for each in seen.alarms],
        }
    return {
        "model": str(model),
        "bundle": bundle.contract.digest,
        "source": str(source),
        "rows": seen.rows,
        "outliers": None if reference.guard is None else seen.outliers / seen.rows,
        "groups": groups,
        "alarm": alarm,
        "picture": None,
    }


def _aucs(seen: _Seen, reference: Reference, names: Sequence[str]) -> dict[str, GroupAuc]:
    if min(len(seen.sample), len(reference.x)) < ROWS_MIN:
        return {}
    edges = reference.trained.edges
    floors = training_floors(reference.x, edges, names)
    found = compare(reference.x, seen.sample, edges, names, floors)
    return {each.group: each for each in found}


def _psi_interval(counts: I64, trained: Distribution, names: Sequence[str]) -> tuple[F64, F64]:
    """Return float64[G] twice: 95 % of the mean PSI of each group, by a bootstrap over stretches of time.

    Drawing again adds drift of its own; its mean is taken off. NaN where there are few stretches.
    """
    rng = np.random.default_rng(0)

    def groups(weights: I64) -> F64:
        total = np.tensordot(weights, counts, axes=1)
        by_column = psi(trained.shares, total / total[0].sum())
        return np.array([by_column[columns].mean() for columns in group_columns(names).values()])

    count = len(counts)
    if count < _STRETCHES_MIN:
        unknown = np.full(len(group_columns(names)), np.nan)
        return unknown, unknown
    drawn = [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(_RESAMPLES)]
    found = np.array([groups(weights) for weights in drawn])
    found += groups(np.ones(count, np.int64)) - found.mean(axis=0)
    low, high = np.quantile(found, (0.025, 0.975), axis=0)
    return np.maximum(low, 0.0), high


def _opened(source: Path, folder: Path) -> Archive:
    """Open an archive; the journal of a session becomes one in ``folder`` first."""
    if not (source / SESSION_FILE).is_file():
        return Archive.open(source)
    from gpuscalp.archive.ingest import import_sources

    import_sources([source / "journal"], folder / "archive")
    return Archive.open(folder / "archive")


def _venue_of(archive: Archive, wanted: str, source: Path) -> str:
    venues = archive.venues()
    if wanted in venues:
        return wanted
    if len(venues) != 1:
        raise UsageError(
            "the archive does not have the model's venue",
            where=str(source),
            value=wanted,
            fix=f"--venue with one of: {', '.join(venues)}",
        )
    return str(venues[0])


def _draw(answer: dict[str, Any], out: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    groups, alarm = answer["groups"], answer["alarm"]
    at, names = np.arange(len(groups))[::-1], list(groups)
    has_auc = any(each["auc"] is not None for each in groups.values())
    has_blocks = alarm is not None and bool(alarm["evidence"])
    # Only what there is something to say of: an empty panel looks like a finding.
    mosaic, heights = [["psi", "auc"] if has_auc else ["psi"]], [max(0.24 * len(names), 2.0)]
    if has_blocks:
        mosaic, heights = [*mosaic, ["alarm"] * len(mosaic[0])], [*heights, 1.6]
    known = {"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "svg.fonttype": "none"}
    with matplotlib.rc_context(known | {"svg.hashsalt": "gpuscalp"}):
        figure = Figure(figsize=(11 if has_auc else 6, 0.8 + 1.25 * sum(heights)), layout="constrained")
        panels: dict[str, Any] = figure.subplot_mosaic(mosaic, height_ratios=heights)
        left = panels["psi"]
        left.barh(at, [each["psi"] for each in groups.values()], color=_BLUE, height=0.6)
        low, high = (np.array([each[f"psi_{end}"] for each in groups.values()]) for end in ("low", "high"))
        sure = bool(np.isfinite(low).any())
        if sure:
            left.hlines(at, low, high, color=_INK, linewidth=1.0)
        left.axvline(0.25, color=_ORANGE, linewidth=0.8, linestyle="--")
        left.set_yticks(at, names, fontsize=8)
        _title(left, f"mean stability index{', 95 %' * sure}; dashed: 0.25, a drift by rule of thumb")
        if has_auc:
            _draw_auc(panels["auc"], at, [each["auc"] for each in groups.values()])
            panels["auc"].set_ylim(left.get_ylim())  # a group's row is the same in both
        if has_blocks:
            _draw_alarm(panels["alarm"], alarm)
        metadata = {"Date": None} if out.suffix.lower() == ".svg" else None
        figure.savefig(out, dpi=150, metadata=metadata)


def _draw_auc(panel: Any, at: Sequence[int] | I64, aucs: Sequence[dict[str, Any] | None]) -> None:
    for place, auc in zip(at, aucs, strict=True):
        if auc is not None:
            colour = _ORANGE if auc["stands_out"] else _BLUE
            panel.hlines(place, 0.5, auc["floor_max"], color=_LINE, linewidth=6)
            panel.hlines(place, auc["low"], auc["high"], color=colour, linewidth=1.4)
            panel.plot(auc["auc"], place, "o", color=colour, markersize=4)
    panel.set_yticks(at, ["" for _ in at])
    panel.axvline(0.5, color=_SOFT, linewidth=0.8)
    _title(panel, "AUC of telling from training, 95 %; grey: within the training")


def _draw_alarm(panel: Any, alarm: dict[str, Any]) -> None:
    begins, evidence = alarm["start_ns"], np.maximum(alarm["evidence"], 1e-3)
    edges = np.array([*begins, begins[-1] + round(alarm["block_s"] * 1e9)])
    time = edges.astype("datetime64[ns]").astype("datetime64[ms]")
    panel.step(time, [*evidence, evidence[-1]], color=_BLUE, where="post")
    panel.axhline(alarm["threshold"], color=_ORANGE, linewidth=0.8, linestyle="--")
    panel.set_yscale("log")
    panel.set_xlabel("UTC")
    _title(panel, "evidence of drift, block by block; the flag is up above the line")


def _title(panel: Any, text: str) -> None:
    panel.set_title(text, loc="left", fontsize=10)
