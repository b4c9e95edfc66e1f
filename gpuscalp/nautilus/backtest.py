"""A backtest of the live engine in NautilusTrader's BacktestEngine, from archive to run directory.

Owns: the wiring, and the end of the recording. The files are those of ``gpuscalp backtest``, and the signals.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gpuscalp.archive import Archive
from gpuscalp.backtest.calibration import PredictionCheck
from gpuscalp.backtest.models import counted
from gpuscalp.backtest.run import (
    BacktestResult,
    check_free,
    frozen_of,
    lead_ns,
    pipeline_of,
    require_frames,
    scope_of,
    write_run,
)
from gpuscalp.backtest.summary import summarise
from gpuscalp.bundle import load_bundle, read_contract
from gpuscalp.config import BacktestConfig, load
from gpuscalp.errors import UsageError
from gpuscalp.execution.latency import least_ns, median_ns
from gpuscalp.nautilus.arrivals import Row, arrivals
from gpuscalp.nautilus.catalog import beside, open_catalog
from gpuscalp.nautilus.catalog_rows import catalog_rows
from gpuscalp.nautilus.course import Course
from gpuscalp.nautilus.custom import Bell, wrapped
from gpuscalp.nautilus.desk import make_desk
from gpuscalp.nautilus.events import EventMaker, FastestWay
from gpuscalp.nautilus.funding import Funding
from gpuscalp.nautilus.installed import require
from gpuscalp.nautilus.instruments import to_nautilus
from gpuscalp.nautilus.names import instrument_name, venue_name
from gpuscalp.nautilus.strategy import GpuScalpStrategy, GpuScalpStrategyConfig
from gpuscalp.nautilus.venue import BookKind, latency_ns, make_engine, not_modelled
from gpuscalp.progress import Progress, silent
from gpuscalp.run_folder import alone_on_out
from gpuscalp.schema import Instrument
from gpuscalp.times import utc

_SESSION: Final = "backtest"


@alone_on_out
def run_nautilus(
    archive_path: Path,
    model: Path,
    *,
    config: BacktestConfig,
    out: Path | None = None,
    venue: str | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    book: BookKind = "books",
    rows: Iterable[list[Row]] | None = None,
    on_progress: Progress = silent,
) -> tuple[BacktestResult, Course]:
    """Backtest a bundle on an archive.

    Parameters
    ----------
    archive_path, model, config, out, venue, start_ns, end_ns : as ``gpuscalp.backtest.run_backtest`` has them
    book : whose levels fill orders
    rows : all rows of the archive from another place that has them, in the same order

    Raises
    ------
    ConfigError    NautilusTrader is not installed, or too old
    UsageError     the archive lacks a symbol of the bundle, what orders are filled from, or a frame in the
        range; ``out`` is taken, or another process works on it
    """
    began_s, version = time.perf_counter(), require()
    archive = Archive.open(archive_path)
    training = read_contract(model).training
    config = counted(config, training)
    venue = venue if venue is not None else training.venue
    symbols, grid = training.symbols, training.config.grid
    instruments = archive.instruments(venue, symbols)
    pipeline = pipeline_of(training, instruments, 1)
    bundle = load_bundle(model, graph=pipeline.graph)
    begin_ns, finish_ns = archive.span(venue, symbols, start_ns, end_ns)
    check_free(out)
    read_from_ns = None if start_ns is None else begin_ns - lead_ns(pipeline)
    _check_books(archive, venue, symbols, book)
    desk = make_desk(bundle, pipeline, instruments, config, session_id=_SESSION)
    perpetuals = _perpetuals(archive, instruments, config)
    engine, account = make_engine(config, venue_name(venue), perpetuals, book=book, version=version)
    funding = Funding(len(symbols), account.pay)
    check = PredictionCheck(training.config.label, grid)
    clock = FastestWay()
    course = Course(desk.engine, check, funding.announced, clock.delay.steps, grid=grid)
    # Without a start as well: what closes with the first row is a frame with nothing in it.
    desk.engine.begins_ns = begin_ns
    feed_ns = least_ns(config.paper.reply)
    strategy = GpuScalpStrategy(_settings(config, feed_ns), desk, course)
    strategy.funding = funding
    engine.add_strategy(strategy)
    maker = EventMaker(instruments, perpetuals, clock)
    feed = _Feed(maker, begin_ns, finish_ns, latency_ns(config), on_progress)
    if rows is None:
        source: Iterable[list[Row]] = arrivals(archive, venue, symbols, start_ns=read_from_ns, end_ns=end_ns)
    else:
        source = _within(rows, read_from_ns, end_ns)
    engine.add_data_iterator("archive", feed.chunks(source))
    try:
        engine.run(
            start=(begin_ns if read_from_ns is None else read_from_ns) - feed_ns, end=finish_ns + 10**15
        )
    finally:
        engine.dispose()
    require_frames(course.recorder.frame_count, archive_path, begin_ns, finish_ns)
    course.finish(feed.last_ns)
    data_digest = archive.digest(venue, symbols, read_from_ns, finish_ns)
    scope = scope_of(training, venue, (begin_ns, finish_ns), data_digest, bundle.contract.digest)
    executor: dict[str, Any] = {"name": "nautilus", "version": version, "book": book}
    if read_from_ns is not None:
        executor["read_from_ns"] = read_from_ns
    frozen = frozen_of(config, scope, executor=executor)
    outcome = summarise(config, scope, course, check)
    notes = [f"NautilusTrader {version}: {each}" for each in not_modelled(config, book=book, version=version)]
    outcome = replace(outcome, warnings=(*outcome.warnings, *notes))
    outcome.summary.update(warnings=list(outcome.warnings), executor=executor)
    result = write_run(out, frozen, outcome, began_s=began_s)
    course.write_signals(result.run_dir, symbols)
    return result, course


def _settings(config: BacktestConfig, feed_ns: int) -> GpuScalpStrategyConfig:
    return GpuScalpStrategyConfig(
        strategy_id="GPUSCALP-001",
        session_id=_SESSION,
        told=True,
        feed_ns=feed_ns,
        compute_ns=median_ns(config.cost.compute),
    )


def nautilus_archive(
    archive: Path,
    model: Path,
    *,
    config: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    out: Path | None = None,
    venue: str | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    catalog: Path | None = None,
    book: BookKind = "books",
    on_progress: Progress = silent,
) -> BacktestResult:
    """Backtest with what a command line gives; sources of the configuration as ``backtest_archive`` has them.

    Raises
    ------
    ConfigError, UsageError
        and what ``run_nautilus`` raises
    """
    loaded = load(BacktestConfig, config, env=os.environ, overrides=overrides)
    rows: Iterable[list[Row]] | None = None
    if catalog is not None:
        training = read_contract(model).training
        rows = _rows_of_export(catalog, Archive.open(archive), venue or training.venue, training.symbols)
    result, _ = run_nautilus(
        archive,
        model,
        config=loaded,
        out=out,
        venue=venue,
        start_ns=start_ns,
        end_ns=end_ns,
        book=book,
        rows=rows,
        on_progress=on_progress,
    )
    return result


def _rows_of_export(
    catalog: Path, archive: Archive, venue: str, symbols: Sequence[str]
) -> Iterator[list[Row]]:
    """Yield the rows of a catalog that is an export of an archive.

    Raises
    ------
    UsageError    it is none, or of another archive
    """
    names = [instrument_name(venue, symbol) for symbol in symbols]
    opened, other = open_catalog(catalog), "the catalog is not an export of this archive"
    fix = "`gpuscalp nautilus export` makes one; `import` makes an archive of any other catalog"
    if not all(beside(catalog, name).is_file() for name in names):
        raise UsageError(other, where=str(catalog), fix=fix)
    missing = sum(part.rows for part in archive.manifest.select(venue, symbols))
    for rows in catalog_rows(opened, catalog, names, left_out=Counter()):
        missing -= len(rows)
        yield rows
    if missing:
        raise UsageError(other, where=str(catalog), value=f"{missing:+,} rows are missing", fix=fix)


def _within(rows: Iterable[list[Row]], start_ns: int | None, end_ns: int | None) -> Iterator[list[Row]]:
    """Yield the rows whose exchange time lies in [start, end); None is open."""
    for chunk in rows:
        kept = [
            row
            for row in chunk
            if (start_ns is None or row[2][1] >= start_ns) and (end_ns is None or row[2][1] < end_ns)
        ]
        if kept:
            yield kept


class _Feed:
    """The events of an archive, and those that end it.

    Attributes
    ----------
    last_ns : time of the newest event so far
    """

    def __init__(
        self, maker: EventMaker, begin_ns: int, finish_ns: int, latency_ns: int, told: Progress
    ) -> None:
        self._maker, self._latency_ns, self._told = maker, latency_ns, told
        self._begin_ns, self._finish_ns = begin_ns, finish_ns
        self.last_ns = 0

    def chunks(self, source: Iterable[list[Row]]) -> Iterator[list[Any]]:
        """Yield events in the order of their times.

        Behind the end bells ring: what is on its way meets the last state of the market, and so do the orders
        that close what is held.
        """
        for rows in source:
            events: list[Any] = []
            for row in rows:
                self._maker.make(row, events)
            self.last_ns = events[-1].ts_init
            yield events
            done_ns = min(rows[-1][2][1], self._finish_ns) - self._begin_ns
            self._told(done_ns / 1e9, (self._finish_ns - self._begin_ns) / 1e9, utc(rows[-1][2][1]))
        for ring in (1, 2, 3):
            # The exchange looks at its orders behind each event: first they arrive, then it rings.
            self.last_ns += self._latency_ns + 1
            yield [wrapped(Bell(0, self.last_ns)), wrapped(Bell(ring, self.last_ns))]


def _check_books(archive: Archive, venue: str, symbols: Sequence[str], book: BookKind) -> None:
    table = "books" if book == "books" else "quotes"
    for symbol in symbols:
        if not archive.manifest.select(venue, (symbol,), (table,)):
            raise UsageError(
                f"the archive has no {table} to fill orders from",
                where=f"venue {venue} of {archive.path}",
                value=symbol,
                fix="--book quotes" if book == "books" else "import quotes as well",
            )


def _perpetuals(archive: Archive, instruments: Sequence[Instrument], config: BacktestConfig) -> list[Any]:
    """Return Nautilus's instruments, with digits for all that was recorded, and our fees."""
    return [
        to_nautilus(
            each,
            archive.manifest.select(each.venue, (each.symbol,)),
            maker_fee_bps=config.cost.maker_fee_bps,
            taker_fee_bps=config.cost.taker_fee_bps,
        )
        for each in instruments
    ]
