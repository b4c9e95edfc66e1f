"""How much of a result is assumption: the same decisions of the model, traded under a grid of assumptions.

Owns: the grid, its cells in several processes, and what they say together. Never: words or draws it
(band_report.py), or predicts: every cell reads what the run itself was given (scene.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, final

import msgspec
from msgspec import Struct

from gpuscalp.backtest import metrics
from gpuscalp.backtest.levels import configured_levels
from gpuscalp.backtest.scene import Scene, play_kept
from gpuscalp.backtest.session import Session
from gpuscalp.backtest.summary import measured
from gpuscalp.config import BacktestConfig, LegConfig
from gpuscalp.errors import ConfigError
from gpuscalp.execution.latency import at_quantile
from gpuscalp.files import pretty
from gpuscalp.process_pool import process_pool

BAND_FILE: Final = "band.json"
CELLS_FILE: Final = "band.parquet"
# Of a Sharpe ratio, times its standard error: 95 %.
_Z: Final = 1.959964
# From the kindest to the hardest.
_QUEUES: Final = ("probabilistic", "proportional", "pessimistic")
# What each dimension of the grid is called, and the field of Assumptions that holds its level.
DIMENSIONS: Final = {
    "queue model": "queue",
    "latency quantile": "latency_quantile",
    "fee tier": "taker_fee_bps",
    "compute latency": "compute_ms",
}


class Assumptions(Struct, frozen=True):
    """One combination. ``request_ms`` and ``reply_ms`` are what every message takes at that quantile."""

    queue: str
    latency_quantile: float
    request_ms: float
    reply_ms: float
    maker_fee_bps: float
    taker_fee_bps: float
    compute_ms: float

    @property
    def hardness(self) -> tuple[float, ...]:
        """Larger in every place where the assumption is less kind."""
        return (
            _QUEUES.index(self.queue),
            self.request_ms + self.reply_ms,
            self.latency_quantile,
            self.taker_fee_bps,
            self.maker_fee_bps,
            self.compute_ms,
        )


class Figures(Struct, frozen=True):
    """What a session came to; names and units as in ``result.json``. ``sharpe_low`` to ``sharpe_high``: 95 %,
    None where too few trades were closed.

    ``fill_ratio``: orders that were filled as a whole, of all that came to an end, targets and stops aside;
    None without any.
    """

    trades: int
    pnl_usdt: float
    gross_usdt: float
    delay_usdt: float
    spread_usdt: float
    impact_usdt: float
    fees_usdt: float
    funding_usdt: float
    turnover_usdt: float
    max_drawdown_pct: float
    sharpe: float | None
    sharpe_low: float | None
    sharpe_high: float | None
    fill_ratio: float | None
    liquidations: int
    risk_state: str

    @classmethod
    def of(cls, session: Session, config: BacktestConfig) -> Figures:
        """Measure a finished session."""
        _, result, figures = measured(config, session)
        estimate = result.sharpe
        return cls(
            **figures,
            sharpe_low=metrics.number(estimate.value - _Z * estimate.error),
            sharpe_high=metrics.number(estimate.value + _Z * estimate.error),
            fill_ratio=session.recorder.fill_ratio,
        )


class Cell(Struct, frozen=True):
    assumptions: Assumptions
    figures: Figures

    @property
    def row(self) -> dict[str, Any]:
        """Return both in one, as a table has it."""
        both = (self.assumptions, self.figures)
        return {name: value for part in both for name, value in msgspec.structs.asdict(part).items()}


@final
@dataclass(frozen=True, slots=True)
class Band:
    """A finished grid.

    Attributes
    ----------
    base : the run itself, with the configuration as it is
    base_levels : what it assumes, in the order of ``DIMENSIONS``; as text, since a leg may be a distribution
    cells : one for each combination, in the order of the configuration
    queue_matters : whether an order could rest in any cell; without one all queue models are the same
    """

    base: Figures
    base_levels: tuple[str, ...]
    cells: tuple[Cell, ...]
    queue_matters: bool

    @property
    def worst(self) -> Cell:
        """Of equally bad ones the hardest, by which a result is judged; so with the best."""
        return min(
            self.cells,
            key=lambda cell: (cell.figures.pnl_usdt, [-each for each in cell.assumptions.hardness]),
        )

    @property
    def best(self) -> Cell:
        return max(self.cells, key=lambda cell: (cell.figures.pnl_usdt, cell.assumptions.hardness))

    @property
    def hardest(self) -> Cell:
        """The corner where every assumption is the least kind; not always where the least is earned."""
        return max(self.cells, key=lambda cell: cell.assumptions.hardness)

    @property
    def base_inside(self) -> bool:
        """Whether the run itself came to no more than the best and to no less than the worst."""
        return self.worst.figures.pnl_usdt <= self.base.pnl_usdt <= self.best.figures.pnl_usdt

    @property
    def idle(self) -> bool:
        """Whether no combination has traded anything."""
        return not any(cell.figures.trades or cell.figures.turnover_usdt for cell in self.cells)

    @property
    def earning_count(self) -> int:
        """How many combinations end with a profit."""
        return sum(cell.figures.pnl_usdt > 0 for cell in self.cells)

    def effects(self) -> dict[str, dict[str, float]]:
        """Return the mean P&L at each level of each dimension, over all levels of the others, USDT."""
        found: dict[str, dict[str, float]] = {}
        for title, name in DIMENSIONS.items():
            levels: dict[str, list[float]] = {}
            for cell in self.cells:
                levels.setdefault(level_name(cell.assumptions, name), []).append(cell.figures.pnl_usdt)
            found[title] = {level: sum(values) / len(values) for level, values in levels.items()}
        return found

    def summary(self) -> dict[str, Any]:
        """Return what ``result.json`` says of it."""
        return {
            "cells": len(self.cells),
            "worst": self.worst.row,
            "base": {
                **msgspec.structs.asdict(self.base),
                "levels": dict(zip(DIMENSIONS, self.base_levels, strict=True)),
            },
            "best": self.best.row,
            "hardest": self.hardest.row,
            "earning_cells": self.earning_count,
            "mean_pnl_usdt": self.effects(),
            "queue_matters": self.queue_matters,
        }

    def write(self, folder: Path) -> None:
        """Write band.json and band.parquet."""
        from gpuscalp.arrow import pa, pq

        rows = [cell.row for cell in self.cells]
        (folder / BAND_FILE).write_bytes(pretty({**self.summary(), "cells": rows}))
        kinds = {int: pa.int64(), str: pa.string()}
        fields = [each for part in (Assumptions, Figures) for each in msgspec.structs.fields(part)]
        # With types that are told: a column without any value has the same one as with some.
        schema = pa.schema([(each.name, kinds.get(each.type, pa.float64())) for each in fields])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / CELLS_FILE, compression="zstd")


def level_name(assumptions: Assumptions, field: str) -> str:
    """Return the level of a dimension as a reader wants it."""
    if field == "taker_fee_bps":
        return f"{assumptions.maker_fee_bps:g} / {assumptions.taker_fee_bps:g} bps"
    if field == "latency_quantile":
        there, back = assumptions.request_ms, assumptions.reply_ms
        return f"p{100 * assumptions.latency_quantile:g}: {there:.3g} + {back:.3g} ms"
    return f"{assumptions.compute_ms:g} ms" if field == "compute_ms" else assumptions.queue


def cells_of(config: BacktestConfig) -> list[tuple[Assumptions, BacktestConfig]]:
    """Return every combination, and the configuration that an ordinary run would have to be given for it.

    Raises
    ------
    ConfigError
        there are not as many ``fixed_factors`` as ``latency_quantiles``
    """
    band, paper = config.band, config.paper
    if len(band.fixed_factors) != len(band.latency_quantiles):
        raise ConfigError(
            "each latency quantile needs its factor for fixed legs",
            where="band.fixed_factors",
            value=f"{len(band.fixed_factors)} for {len(band.latency_quantiles)} quantiles",
            fix="give as many of one as of the other",
        )
    latencies = list(zip(band.latency_quantiles, band.fixed_factors, strict=True))
    found = []
    for queue, (quantile, factor), (maker, taker), compute_ms in product(
        band.queue, latencies, band.fees_bps, band.compute_ms
    ):
        request, reply = (
            at_quantile(leg, quantile, fixed_factor=factor) for leg in (paper.request, paper.reply)
        )
        one = msgspec.structs.replace(
            config,
            cost=msgspec.structs.replace(
                config.cost,
                maker_fee_bps=maker,
                taker_fee_bps=taker,
                compute=LegConfig(low_ms=compute_ms, high_ms=compute_ms),
            ),
            paper=msgspec.structs.replace(paper, queue=queue, request=request, reply=reply),
        )
        level = Assumptions(queue, quantile, request.low_ms, reply.low_ms, maker, taker, compute_ms)
        found.append((level, one))
    return found


@final
@dataclass(frozen=True, slots=True)
class BandPlan:
    """That a band is wanted.

    Attributes
    ----------
    folder : for what is shared with the processes; about 64 bytes a tick
    processes : 1 trades all cells in this process; does not change the result
    """

    folder: Path
    processes: int


@contextmanager
def band_plan(out: Path | None, processes: int) -> Iterator[BandPlan]:
    """Make room beside the run directory: /tmp is memory on many machines."""
    parent = Path("runs") if out is None else out.parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".band-", dir=parent) as folder:
        yield BandPlan(Path(folder), processes)


@dataclass(frozen=True, slots=True)
class _Traded:
    figures: Figures
    rested: bool


def run_band(
    scene: Scene,
    plan: BandPlan,
    base: Session,
    config: BacktestConfig,
    *,
    told: Callable[[int, int], None],
) -> Band:
    """Trade every combination.

    Parameters
    ----------
    scene : that of the base
    plan : its folder holds what the base was given
    base : the run itself, finished
    config : that of the base
    told : told how many cells are done, and of how many

    Raises
    ------
    ConfigError         the grid makes no sense
    GpuscalpError       a process died
    """
    grid = cells_of(config)
    first = config.band.queue[0]
    done = {config: _Traded(Figures.of(base, config), base.venue.resting_count > 0)}

    def trade(wanted: Sequence[BacktestConfig]) -> None:
        missing = [each for each in dict.fromkeys(wanted) if each not in done]
        done.update(zip(missing, _trade_all(scene, plan, missing, told), strict=True))

    trade([one for level, one in grid if level.queue == first])
    for _, one in grid:
        sibling = done.get(_with_queue(one, first))
        # Where no order has rested nothing has ever asked the model of the queue.
        if sibling is not None and not sibling.rested:
            done.setdefault(one, sibling)
    trade([one for _, one in grid])
    return Band(
        base=done[config].figures,
        base_levels=configured_levels(config),
        cells=tuple(Cell(level, done[one].figures) for level, one in grid),
        queue_matters=any(done[one].rested for _, one in grid),
    )


def _with_queue(config: BacktestConfig, queue: Any) -> BacktestConfig:
    return msgspec.structs.replace(config, paper=msgspec.structs.replace(config.paper, queue=queue))


def _trade_all(
    scene: Scene, plan: BandPlan, configs: Sequence[BacktestConfig], told: Callable[[int, int], None]
) -> list[_Traded]:
    count = len(configs)
    if plan.processes == 1 or count < 2:
        found = []
        for number, config in enumerate(configs, 1):
            found.append(_trade(scene, plan.folder, config))
            told(number, count)
        return found
    with process_pool(
        min(plan.processes, count), where="backtest --band", fix="if it was memory: fewer --processes"
    ) as submit:
        futures = [submit(_trade, scene, plan.folder, config) for config in configs]
        for number, future in enumerate(as_completed(futures), 1):
            future.result()
            told(number, count)
        return [future.result() for future in futures]


def _trade(scene: Scene, folder: Path, config: BacktestConfig) -> _Traded:
    """Trade one combination; in whatever process."""
    session = scene.session(config)
    play_kept(folder, session)
    return _Traded(Figures.of(session, config), session.venue.resting_count > 0)
