"""The page about a training run: what was held out, how well it was predicted, and how sure that is.

Owns: the words and figures of the report. Never computes a metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from gpuscalp.report.figures import LINE, SERIES, SOFT, draw
from gpuscalp.report.html import Section, Table, render
from gpuscalp.schema import F64, NS_PER_S
from gpuscalp.times import utc
from gpuscalp.train.dataset import label_spec
from gpuscalp.train.metrics import CONFIDENCE, Correlation, Score
from gpuscalp.train.result import TrainResult

IMPORTANCE_ROWS: Final = 20


def report_html(result: TrainResult) -> str:
    """Return the report as one self-contained page."""
    training = result.training
    return render(
        "Training report",
        [
            _summary(result),
            _folds(result),
            _classes(result),
            _calibration(result),
            _importance(result),
            _devices(result),
            _rows(result),
        ],
        subtitle=f"{training.venue}: {', '.join(training.symbols)}",
    )


def _summary(result: TrainResult) -> Section:
    overall, training = result.overall, result.training
    return Section(
        "Summary",
        warnings=result.warnings,
        paragraphs=(
            f"{len(result.rounds)} members were trained on {training.rows:,} rows to tell the classes of: "
            f"{label_spec(training.config.label)}. All figures on this page are from rows that the members "
            "of their fold were not trained on; members of the bundle itself saw all rows.",
            "The information coefficient is the rank correlation between the expected mid return (edge) and "
            f"the mid return that came. Its interval covers {CONFIDENCE:.0%} and allows for labels that "
            "overlap and symbols that move together. A correlation with the mid's return is not profit: "
            "spread, fees and latency are the business of a backtest.",
            verdict(overall, [item.score for item in result.folds]),
        ),
        tables=(
            Table(
                ("held-out figure", "model", "base rate"),
                (
                    ("log loss, nats", _fixed(overall.log_loss), _fixed(overall.base_log_loss)),
                    ("log loss before calibration, nats", _fixed(overall.raw_log_loss), None),
                    ("accuracy", _fixed(overall.accuracy), _fixed(overall.base_accuracy)),
                    (
                        "information coefficient",
                        _interval(overall.ic),
                        "0",
                    ),
                    (
                        "Pearson correlation",
                        _interval(overall.pearson),
                        "0",
                    ),
                    ("rows", overall.rows, None),
                ),
                "Base rate: the class shares of the training rows, or their most frequent class, every time.",
            ),
        ),
    )


def verdict(overall: Score, folds: Sequence[Score]) -> str:
    """Say in one sentence what the interval of the information coefficient allows to say."""
    if unknown := sum(not fold.ic.known for fold in folds):
        return (
            f"The information coefficient of {unknown} of {len(folds)} folds is not known: that of all rows "
            "does not show that the predictions carried information."
        )
    if overall.ic.low > 0.0:
        if overall.log_loss >= overall.base_log_loss:
            return (
                "The interval lies above zero, but the log loss is no better than that of the base rate: on "
                "these rows the order of the edges carried information, and the probabilities carried none."
            )
        return "The interval lies above zero: on these rows the predictions carried information."
    if overall.ic.high < 0.0:
        return "The interval lies below zero: on these rows the predictions pointed the wrong way."
    return "The interval contains zero: these rows do not show that the model knows anything."


def _folds(result: TrainResult) -> Section:
    rows = [
        (
            str(item.fold.index + 1),
            utc(item.fold.test_start_ns),
            utc(item.fold.test_end_ns),
            item.trained.rows,
            round(item.trained.weight),
            round(item.trained.labels_in_time),
            item.score.rows,
            f"{min(item.rounds)}–{max(item.rounds)}",
            _fixed(item.score.log_loss),
            _fixed(item.score.base_log_loss),
            _interval(item.score.ic),
        )
        for item in result.folds
    ]
    return Section(
        "Folds",
        paragraphs=(
            "Each fold is trained on what came before its test interval; training stops early on the end of "
            "the train interval. Train labels end at least one embargo before the test interval begins "
            f"({result.folds[0].fold.embargo_ns / NS_PER_S:g} s).",
            "Labels that do not overlap are counted over all symbols, and of the symbol that has the most. "
            "Symbols move together: as many as are independent lie between the two.",
        ),
        tables=(
            Table(
                (
                    "fold",
                    "test from (UTC)",
                    "to",
                    "train rows",
                    "labels that do not overlap",
                    "of one symbol",
                    "held-out rows",
                    "rounds",
                    "log loss",
                    "base",
                    "information coefficient",
                ),
                rows,
            ),
        ),
        figures=(_fold_figure(result),),
    )


def _fold_figure(result: TrainResult) -> str:
    scores = [item.score.ic for item in result.folds] + [result.overall.ic]
    names = [f"fold {item.fold.index + 1}" for item in result.folds] + ["all"]
    names = [name if ic.known else f"{name}\nnot known" for name, ic in zip(names, scores, strict=True)]

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for at, ic in enumerate(scores):
            colour = SERIES[0] if at < len(scores) - 1 else SERIES[1]
            axes.plot([at, at], [ic.low, ic.high], color=colour, linewidth=3)
            axes.plot([at], [ic.value], "o", color=colour)
        axes.axhline(0.0, color=SOFT, linewidth=1)
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("information coefficient")

    return draw(
        paint,
        name="ic",
        alt="Information coefficient of every fold and of all folds, with its interval",
        height_in=2.8,
    )


def _classes(result: TrainResult) -> Section:
    training = result.training
    return Section(
        "Classes",
        tables=(
            Table(
                (
                    "class",
                    "share of training rows",
                    "mean return, bps",
                    "held-out rows",
                    "precision",
                    "recall",
                    "F1",
                ),
                [
                    (
                        score.name,
                        _fixed(share),
                        _fixed(value),
                        score.count,
                        _fixed(score.precision),
                        _fixed(score.recall),
                        _fixed(score.f1),
                    )
                    for score, share, value in zip(
                        result.overall.classes, result.class_share, result.class_return_bps, strict=True
                    )
                ],
                "Mean return: of the rows that the bundle's members were trained on; the expected edge is "
                f"the probability-weighted mean of these. Threshold: {label_spec(training.config.label)}.",
            ),
        ),
    )


def _calibration(result: TrainResult) -> Section:
    calibration = result.calibration
    return Section(
        "Calibration",
        paragraphs=(
            "How often a class came when it was given a certain probability. Each fold is judged with a "
            "calibration fitted on the held-out rows of the folds before it (the first fold with none); the "
            "bundle's own calibration is fitted on the held-out rows of all folds.",
            f"Bundle: {calibration.kind}; scale {_list(calibration.scale)}, bias {_list(calibration.bias)} "
            "(DOWN, FLAT, UP). A scale near 0 means that the members' opinions were not borne out.",
        ),
        figures=(_calibration_figure(result.overall),),
    )


def _calibration_figure(score: Score) -> str:
    names = list(dict.fromkeys(bin_.name for bin_ in score.calibration))

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1)
        for at, name in enumerate(names):
            bins = [bin_ for bin_ in score.calibration if bin_.name == name]
            axes.plot(
                [b.predicted for b in bins], [b.observed for b in bins], "o-", color=SERIES[at], label=name
            )
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("observed share")
        axes.legend()

    return draw(
        paint,
        name="calibration",
        alt="Observed share of each class against its predicted probability",
        height_in=3.6,
    )


def _importance(result: TrainResult) -> Section:
    used = [item for item in result.importance if item.gain > 0.0]
    return Section(
        "Columns",
        paragraphs=(
            f"{len(used)} of {len(result.importance)} columns are split on. Gain: share of what the splits "
            "won in training. Permutation: rise of the held-out log loss of the last fold when the column is "
            "shuffled, measured for the columns with the largest gain; a column whose neighbours say the "
            "same can be shuffled at little cost.",
        ),
        tables=(
            Table(
                ("column", "gain, share", "permutation, nats"),
                [
                    (item.name, _fixed(item.gain), _fixed(item.permutation, 5))
                    for item in used[:IMPORTANCE_ROWS]
                ],
            ),
        ),
    )


def _devices(result: TrainResult) -> Section:
    found = result.devices
    if not found.made:
        return Section("Devices", paragraphs=(f"A comparison of devices was {found.reason}.",))
    return Section(
        "Devices",
        paragraphs=(
            f"Compared before any calibration: {found.reason}. The forest must give the same bits on both, "
            "or the run fails. A row flips where XGBoost finds another class likeliest, or where an entry at "
            "the default thresholds, before costs, would be made on one side only.",
        ),
        tables=(
            Table(
                ("what", "value"),
                [
                    ("rows", found.rows),
                    ("margins of the forest compared, all equal to the bit", found.margins),
                    ("largest difference of a margin, XGBoost on CUDA", f"{found.margin:.3g}"),
                    ("largest difference of a probability", f"{found.probability:.3g}"),
                    ("class flips per million rows", _fixed(found.class_flips_per_million, 1)),
                    ("decision flips per million rows", _fixed(found.decision_flips_per_million, 1)),
                ],
            ),
        ),
    )


def _rows(result: TrainResult) -> Section:
    training = result.training
    return Section(
        "How it was made",
        tables=(
            Table(
                ("what", "value"),
                [
                    (
                        "trained on (UTC)",
                        f"{utc(training.trained_on.start_ns)} to {utc(training.trained_on.end_ns)}",
                    ),
                    ("rows", f"{training.rows:,}; {result.unlabelled}"),
                    ("device", f"{training.device}: {result.device_reason}"),
                    ("rounds of the members", ", ".join(map(str, result.rounds))),
                    ("data digest", training.data_digest),
                    *(
                        ("trades of files dated after they were made by, ms", f"{delay:g}")
                        for delay in result.trade_delays_ms
                    ),
                    ("seconds, without this page", _fixed(result.seconds, 1)),
                    ("peak memory, MB", _fixed(result.peak_rss_mb, 0)),
                    *((name, version) for name, version in training.versions.items()),
                ],
            ),
        ),
    )


def _fixed(value: float | None, digits: int = 4) -> str | None:
    return None if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _interval(found: Correlation) -> str:
    return f"{found.value:+.3f} ({found.low:+.3f} … {found.high:+.3f})" if found.known else "not known"


def _list(values: F64) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
