"""The demo: a market, an archive, a model, a backtest and a report, by one call.

Owns: the choice of configurations for a first look, the directory it works in, and the words that keep the
result from being mistaken for more than it is. Every stage is the one that its own command runs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gpuscalp.config import (
    BacktestConfig,
    CostConfig,
    RiskConfig,
    StrategyConfig,
    TrainConfig,
)
from gpuscalp.device import RequestedDevice, core_count
from gpuscalp.errors import UsageError
from gpuscalp.files import replace_file
from gpuscalp.progress import Progress, silent, stretch
from gpuscalp.schema import NS_PER_S
from gpuscalp.synthetic import MarketSpec, write

if TYPE_CHECKING:
    from gpuscalp.archive import Archive
    from gpuscalp.backtest import BacktestResult
    from gpuscalp.train import TrainResult

SYNTHETIC_FEE_BPS: Final = 0.2
SYNTHETIC_HORIZON_MS: Final = 500
DURATION_S: Final = 900
TRAIN_SHARE: Final = 2 / 3

_MARK: Final = "demo.json"
_OURS: Final = ("archive", "model", "run", _MARK, f".{_MARK}.partial")
# Shares of the bar, near the shares of time on two cores.
_WEIGHTS: Final = {"market": 0.1, "training": 0.75, "backtest": 0.15}
_RECORDED_HORIZON_MS: Final = 1_000
_BOOK_INTERVAL_MS: Final = 100
# 2024-01-01 07:48 UTC: the funding time at eight falls into the part that is traded on.
_START_NS: Final = 1_704_095_280 * NS_PER_S


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo made.

    Attributes
    ----------
    report : the backtest's report
    archive, bundle, run_dir : below the output directory
    synthetic : whether the market was made up
    notes : what the reader has to know before any number
    venue, symbols, rows : of the archive
    train, backtest : results of the stages
    stage_seconds : wall time by stage
    seconds : wall time
    """

    report: Path
    archive: Path
    bundle: Path
    run_dir: Path
    synthetic: bool
    notes: tuple[str, ...]
    venue: str
    symbols: tuple[str, ...]
    rows: int
    train: TrainResult
    backtest: BacktestResult
    stage_seconds: dict[str, float]
    seconds: float

    @property
    def pnl_at_regular_fee_usdt(self) -> float:
        """What the same trades would have made at the regular taker fee of Binance USD-M."""
        traded = self.backtest.summary
        paid_usdt = traded["turnover_usdt"] * CostConfig().taker_fee_bps / 1e4
        return float(traded["pnl_usdt"] + traded["fees_usdt"] - paid_usdt)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``demo --json`` prints."""
        trained = self.train.to_dict()
        return {
            "report": str(self.report),
            "seconds": self.seconds,
            "synthetic": self.synthetic,
            "notes": list(self.notes),
            "stage_seconds": self.stage_seconds,
            "archive": str(self.archive),
            "venue": self.venue,
            "symbols": list(self.symbols),
            "rows": self.rows,
            "bundle": str(self.bundle),
            "train_report": str(self.bundle / "report.html"),
            "run_dir": str(self.run_dir),
            "train": {key: trained[key] for key in ("rows", "folds", "overall", "seconds", "peak_rss_mb")},
            "backtest": self.backtest.summary,
            "pnl_at_regular_fee_usdt": self.pnl_at_regular_fee_usdt,
        }


def synthetic_notes(lag_ms: int) -> tuple[str, ...]:
    """Return what has to be said of a synthetic market before any number."""
    return (
        "The market is synthetic: a program made it from a seed. Nothing here tells of a real market.",
        f"A model finds something in it because we planted it: followers copy the leader's moves {lag_ms} ms "
        "later. Without that lag there is nothing to find, which is tested.",
        f"The synthetic venue takes {SYNTHETIC_FEE_BPS:g} bps of a taker; the regular fee of Binance USD-M "
        f"is {CostConfig().taker_fee_bps:g} bps.",
    )


def recording_notes() -> tuple[str, ...]:
    """Return what has to be said of a short recording before any number."""
    return (
        "A recording of minutes or hours cannot show that a strategy earns money, whatever the figures say.",
        "Orders are filled from the recorded book after a latency; in the market they would have moved it.",
    )


def demo(
    out: Path,
    *,
    recordings: Sequence[Path] = (),
    seed: int = 7,
    duration_s: int = DURATION_S,
    device: RequestedDevice = "auto",
    on_progress: Progress = silent,
) -> DemoResult:
    """Go the whole way, from a market to a report.

    Parameters
    ----------
    out : directory to work in; what an earlier demo left in it is replaced
    recordings : files for the importer; none = a synthetic market
    seed : of the synthetic market and of the ensemble
    duration_s : length of the synthetic market
    device : where XGBoost trains
    on_progress : told how far the demo is

    Raises
    ------
    UsageError
        ``out`` holds something that no demo made, or the recordings have nothing to train on
    GpuscalpError
        whatever else a stage raises
    """
    from gpuscalp.archive import Archive
    from gpuscalp.backtest import run_backtest
    from gpuscalp.train import ArchiveSource, train

    started = time.perf_counter()
    spec = MarketSpec(seed=seed, start_ns=_START_NS, duration_s=duration_s)
    _prepare(out)
    clock = _StageClock(on_progress)
    threads = core_count()
    with clock.stage("market") as told:
        if recordings:
            rows = _import(recordings, out / "archive", told)
        else:
            rows = _make_market(spec, out / "archive", told)
    archive = Archive.open(out / "archive")
    config = _train_config(archive, seed, synthetic=not recordings)
    first_ns, last_ns = archive.time_range(config.venue, config.symbols)
    cut_ns = first_ns + round((last_ns - first_ns) * TRAIN_SHARE)
    with clock.stage("training") as told:
        source = ArchiveSource.open(archive, config, end_ns=cut_ns, threads=threads)
        trained = train(source, config, out / "model", device=device, threads=threads, on_progress=told)
    with clock.stage("backtest") as told:
        traded = run_backtest(
            out / "archive",
            out / "model",
            config=_backtest_config(synthetic=not recordings),
            out=out / "run",
            start_ns=cut_ns,
            threads=threads,
            on_progress=told,
        )
    result = DemoResult(
        report=traded.report,
        archive=out / "archive",
        bundle=out / "model",
        run_dir=traded.run_dir,
        synthetic=not recordings,
        notes=recording_notes() if recordings else synthetic_notes(spec.lag_ms),
        venue=config.venue,
        symbols=config.symbols,
        rows=rows,
        train=trained,
        backtest=traded,
        stage_seconds=clock.seconds,
        seconds=time.perf_counter() - started,
    )
    _write_mark(out, result.to_dict())
    return result


def _prepare(out: Path) -> None:
    """Make the directory, or clear what an earlier demo left in it; never touch anything else.

    Raises
    ------
    UsageError
        there are files that no demo made
    """
    if out.exists() and not out.is_dir():
        raise UsageError("a file is in the way", where="--out", value=str(out), fix="give a directory")
    if out.is_dir():
        found = {item.name for item in out.iterdir()}
        strange = sorted(found - set(_OURS))
        if found and (strange or _MARK not in found):
            raise UsageError(
                "the directory holds something that no demo made",
                where="--out",
                value=str(out / (strange or sorted(found))[0]),
                fix="give a new or empty directory",
            )
        for name in sorted(found - {_MARK}):
            if (out / name).is_dir():
                shutil.rmtree(out / name)
            else:
                (out / name).unlink()
    out.mkdir(parents=True, exist_ok=True)
    # Written before anything else: a demo that was killed may be run again.
    _write_mark(out, {"finished": False})


def _write_mark(out: Path, answer: dict[str, Any]) -> None:
    encoded = msgspec.json.encode(answer, enc_hook=lambda value: value.tolist())
    replace_file(out / _MARK, msgspec.json.format(encoded, indent=2) + b"\n")


def _make_market(spec: MarketSpec, path: Path, told: Progress) -> int:
    return write(spec, path, on_second=lambda done: told(done, spec.duration_s, f"{done} s of market"))


def _import(recordings: Sequence[Path], path: Path, told: Progress) -> int:
    from gpuscalp.archive.ingest import import_sources

    report = import_sources(recordings, path, book_interval_ms=_BOOK_INTERVAL_MS, progress=told)
    return sum(sum(source.rows.values()) for source in report.sources)


def _train_config(archive: Archive, seed: int, *, synthetic: bool) -> TrainConfig:
    """Choose a small training run."""
    venues = archive.venues()
    if not venues:
        raise UsageError(
            "the recordings hold no market data",
            where="--recording",
            fix="see docs/data.md for the forms that can be imported",
        )
    from gpuscalp.train.quick import quick_config

    venue = venues[0]
    return quick_config(
        venue,
        archive.symbols(venue),
        horizon_ms=SYNTHETIC_HORIZON_MS if synthetic else _RECORDED_HORIZON_MS,
        seed=seed,
    )


def _backtest_config(*, synthetic: bool) -> BacktestConfig:
    cost = CostConfig(taker_fee_bps=SYNTHETIC_FEE_BPS) if synthetic else CostConfig()
    # Many recordings have no mark prices to keep a collar around.
    risk = RiskConfig() if synthetic else RiskConfig(max_collar_bps="off")
    return BacktestConfig(
        strategy=StrategyConfig(min_confidence=0.4, min_agreement=0.6), risk=risk, cost=cost
    )


class _StageClock:
    """Times the stages, and turns what each tells into one bar over all of them."""

    def __init__(self, on_progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._on_progress = on_progress

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        began = time.perf_counter()
        before = sum(_WEIGHTS[earlier] for earlier in self.seconds)
        told = stretch(self._on_progress, name, begin=before, length=_WEIGHTS[name], of=1.0)
        told(0.0, 1.0)
        yield told
        told(1.0, 1.0)
        self.seconds[name] = time.perf_counter() - began
