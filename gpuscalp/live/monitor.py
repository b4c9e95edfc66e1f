"""What a running session measures of itself beyond its own state: predictions, drift, trading, its score.

Owns: when what is measured. In the engine's thread a frame is only noted; the work is done when a status is
made. Never: changes a session, or is part of what its journal repeats: it begins anew with the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, final

import numpy as np

from gpuscalp.backtest.metrics import number
from gpuscalp.bundle import Bundle
from gpuscalp.config import LabelConfig, PromotionConfig, TrainConfig
from gpuscalp.errors import ConfigError
from gpuscalp.execution.booking import BookedFill
from gpuscalp.execution.messages import Report
from gpuscalp.labels import BLOCKED, CLASSES, horizon_frames
from gpuscalp.latency import LatencyHistogram, Stage, quantile_ns
from gpuscalp.live.drift_watch import DriftWatch
from gpuscalp.live.engine import Outcome
from gpuscalp.live.late_trades import LateTrades
from gpuscalp.live.market import Work
from gpuscalp.live.records import SignalRecord
from gpuscalp.live.rivals import Rivals
from gpuscalp.live.roles import Roles
from gpuscalp.live.session import Session
from gpuscalp.live.trading_record import TradingRecord
from gpuscalp.orders import MarketRow, Order, SignalRow
from gpuscalp.rolling import RollingSum
from gpuscalp.schema import E8, F32, NS_PER_MS, NS_PER_S, Quality
from gpuscalp.score import score
from gpuscalp.strategy import SKIP_REASONS
from gpuscalp.succession.outcomes import Histogram, LiveQuality, Matured, Outcomes, Predicted
from gpuscalp.trader import StepReport

_HOUR: Final = {"bucket_ns": 300 * NS_PER_S, "buckets": 12}
_MINUTES: Final = {"bucket_ns": 60 * NS_PER_S, "buckets": 5}
# Rows of features that a frame gives to the drift: the symbols take turns.
_ROWS: Final = 4
# Noted frames that nobody has made a status of: in a stall, or while a long one is caught up with.
_WAITING_MAX: Final = 512
# Columns look back over a minute: a drift over less than many of those says more about chance.
_DRIFT_NS: Final = 1_800 * NS_PER_S
# Matured rows below which quality says more about chance.
_QUALITY_ROWS_MIN: Final = 500
_ORDERS_MIN: Final = 10
_BATCH_BOUNDS: Final = tuple(float(1 << bits) for bits in range(0, 17, 2))
_TREND: Final = (
    *("frames", "late", "gaps", "rejects", "lost_connections", "device_faults", "rows", "doubtful"),
    *("intents", "refused", "ended", "rejected", "slippage_e8", "turnover_e8"),
)
# As they lie in ``SignalRecord.stages_ns``.
_STAGES: Final = (Stage.FEATURES, Stage.PREDICT, Stage.GATE)
_OUTLIER: Final = np.uint32(Quality.OUTLIER)
_STATES: Final = {"active": 0.0, "reducing": 1.0, "halted": 2.0}


@final
class Monitor:
    """Watches one session that runs, as the engine's watcher.

    Order of calls: ``on_step`` and ``on_report`` in the engine's thread; everything else while the engine is
    at rest.

    Parameters
    ----------
    session : recovered
    latency : by stage, of this process
    promotion : the rules that lead and shadow are held to; None: those of the session's configuration

    Attributes
    ----------
    outcomes, trading, batches, drift, late_trades, rivals : to be read
    framed_ns : when a frame was last decided on (monotonic clock); 0 = not yet
    adapt : told what has matured, if it is there; may be set
    measured : what ``status`` returned last; {} before the first
    """

    def __init__(
        self, session: Session, latency: LatencyHistogram, promotion: PromotionConfig | None = None
    ) -> None:
        training = session.bundle.contract.training  # label and grid are those of every model of a session
        count = len(session.about.instruments)
        label, grid = _label_of(training.config), training.config.grid
        self.outcomes = Outcomes(count, label, grid)
        self.trading = TradingRecord(session.engine.trader)
        self.batches = Histogram(_BATCH_BOUNDS)
        config = session.about.config
        self.rivals = Rivals(
            session.engine.trader.strategy, config, promotion or config.promotion, label, grid
        )
        self.rivals.follow(session.engine.roles)
        self.adapt: Callable[[Matured], None] | None = None
        self._session, self._latency = session, latency
        self._lead = _lead_of(session).contract
        self.drift = DriftWatch(_lead_of(session))
        self.late_trades = LateTrades(session.engine.stream.trade_counts)
        # Of the stream, which writes every frame into the same memory.
        self._features: F32 = session.engine.stream.there.features[:, :, 0]
        self._waiting: list[tuple[MarketRow, SignalRow, StepReport]] = []
        self._sampled: list[tuple[int, F32]] = []
        self._turn = self._rows = self._doubtful = 0
        self._began_ns = self._end_ns = 0
        self.framed_ns = 0
        self.measured: dict[str, Any] = {}
        self._before: dict[str, float] | None = None
        self._trend = RollingSum((len(_TREND),), **_HOUR)
        self._durations = RollingSum(latency.counts.shape, **_MINUTES)
        self._counted = latency.counts.copy()

    # In the engine's thread

    def on_step(self, market: MarketRow, signals: SignalRow, report: StepReport) -> None:
        waiting = self._waiting
        waiting.append((market, signals, report))
        first = self._turn
        self._sampled.append((first, self._features[first : first + _ROWS].copy()))
        self._turn = first + _ROWS if first + _ROWS < len(self._features) else 0
        if len(waiting) >= _WAITING_MAX:
            self.settle()

    def on_report(self, report: Report, order: Order | None, booked: BookedFill | None) -> None:
        self.trading.on_report(report, order, booked)

    def on_models(self, roles: Roles) -> None:
        """What is measured of the lead alone begins anew with the next status."""
        self.settle()  # what has been noted was said by those before
        if self.rivals.follow(roles):
            self.outcomes.begin(roles.lead.after_ns)

    def on_whole(self, end_ns: int, lead: SignalRow, shadow: SignalRow | None) -> None:
        if self._waiting and self._waiting[-1][0].end_ns == end_ns:  # else it has been counted already
            market, _, report = self._waiting[-1]
            self._waiting[-1] = market, lead, report
        if shadow is not None:
            self.rivals.on_shadow(end_ns, lead, shadow)

    # While the engine is at rest

    def on_work(self, work: Work, outcome: Outcome) -> None:
        """Take in what the engine was given, and what it made of it."""
        if outcome.frames:
            self.framed_ns = time.monotonic_ns()
        if len(work.ticks):
            self.batches.add(np.array([len(work.ticks)], np.float64))
        self.trading.on_records(outcome.records)
        for _, body in outcome.records:
            if isinstance(body, SignalRecord):
                for stage, spent_ns in zip(_STAGES, body.stages_ns, strict=True):
                    self._latency.add(stage, spent_ns)

    def status(self, status: Mapping[str, Any], exch_ns: int) -> dict[str, Any]:
        """Return the keys ``predictions``, ``drift``, ``trading``, ``results`` and ``score`` of a status.

        Parameters
        ----------
        status : what is known beside them (docs/live.md)
        exch_ns : exchange time
        """
        self.settle()
        lead = _lead_of(self._session)
        if lead.contract.digest != self._lead.digest:
            self._lead, self.drift = lead.contract, DriftWatch(lead)
        self._end_ns = max(self._end_ns, exch_ns)
        quality = self.outcomes.quality(self._end_ns)
        drift = self.drift.status(self._end_ns)
        trend = self._observe(status)
        self.measured = {
            "predictions": self._predictions(quality),
            "drift": drift,
            "trading": self._trading(),
            "results": self._results(),
            "score": _shown(score(self._numbers(status, quality, drift, trend))),
        }
        return self.measured

    def detail(self, stream_ages_s: Mapping[str, float]) -> dict[str, Any]:
        """Return what is too long for a status, for ``gpuscalp.monitoring.session_metrics``.

        Parameters
        ----------
        stream_ages_s : time since the last message of each stream
        """
        ingest = self._session.market.ingest
        resyncs = ingest.resync_counts()
        health, instruments = self._session.market.health, self._session.about.instruments
        return {
            "streams": dict(stream_ages_s),
            "fates": dict(ingest.fates),
            **{
                name: {each.symbol: index in getattr(health, name) for index, each in enumerate(instruments)}
                for name in ("silent", "off_tick", "rules")
            },
            # Where somebody else keeps the books, ours say nothing.
            "books": {name: (state, resyncs[name]) for name, state in ingest.book_states().items()}
            if ingest.message_count
            else {},
            "stages": {
                stage.name.lower(): (counts, int(total))
                for stage, counts, total in zip(
                    Stage, self._latency.octaves().tolist(), self._latency.sum_ns, strict=True
                )
            },
            "histograms": {
                name: (each.bounds, each.counts.tolist(), each.sum)
                for name, each in (
                    ("batch_ticks", self.batches),
                    ("confidence", self.outcomes.confidence),
                    ("agreement", self.outcomes.agreement),
                )
            },
        }

    def settle(self) -> None:
        """Do the work that the engine's thread has put off; ``status`` calls it."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        sampled, self._sampled = self._sampled, []
        self._end_ns = waiting[-1][0].end_ns
        self._began_ns = self._began_ns or waiting[0][0].end_ns
        for _, _, report in waiting:
            self.trading.on_step(report)
        self.rivals.note()
        who = (self.rivals.mature if self.rivals.active else None, self.adapt)
        self.outcomes.told = [tell for tell in who if tell is not None]
        self.outcomes.take(
            [
                Predicted(row.end_ns, row.bid_px, row.ask_px, row.quality, said.probability, said.agreement)
                for row, said, _ in waiting
            ]
        )
        sound = [
            ((row.quality & np.uint32(BLOCKED)) == 0) & (row.bid_px > 0) & (row.ask_px > 0)
            for row, _, _ in waiting
        ]
        self._rows += sum(map(len, sound))
        self._doubtful += sum(int(np.count_nonzero(~each)) for each in sound)
        marked = [
            each & ((row.quality & _OUTLIER) != 0) for each, (row, _, _) in zip(sound, waiting, strict=True)
        ]
        self.drift.count(sum(map(np.count_nonzero, sound)), sum(map(np.count_nonzero, marked)), self._end_ns)
        parts = [
            rows[good[first : first + _ROWS]] for (first, rows), good in zip(sampled, sound, strict=True)
        ]
        self.drift.take(np.concatenate(parts), self._end_ns)

    def _observe(self, status: Mapping[str, Any]) -> dict[str, float]:
        """Put what has been counted since the last status into the rolling sums; return the last hour's."""
        trading, engine, feeds = self.trading, status["engine"], status["feeds"]
        now = {
            "frames": status["frames"],
            "late": engine["late_predictions"] + engine["lost_frames"],
            "gaps": feeds["messages"]["gaps"],
            "rejects": feeds["messages"]["rejects"],
            "lost_connections": sum(feeds.get("connections_lost", {}).values()),
            "device_faults": sum(engine["faults"].values()),
            "rows": self._rows,
            "doubtful": self._doubtful,
            "intents": trading.intents.total(),
            "refused": trading.refusals.total(),
            "ended": trading.ended.total(),
            "rejected": trading.rejects.total(),
            "slippage_e8": -trading.slippage_e8,
            "turnover_e8": trading.turnover_e8,
        }
        # What had been counted before this process began is not of the last hour.
        before, self._before = self._before or now, now
        self._trend.add(self._end_ns, [now[name] - before[name] for name in _TREND])
        counts = self._latency.counts.copy()
        self._durations.add(self._end_ns, counts - self._counted)
        self._counted = counts
        return dict(zip(_TREND, self._trend.total(self._end_ns).tolist(), strict=True))

    def _numbers(
        self,
        status: Mapping[str, Any],
        quality: LiveQuality | None,
        drift: Mapping[str, Any] | None,
        trend: Mapping[str, float],
    ) -> dict[str, float | None]:
        """Return what the reasons of the score read (``gpuscalp.score.REASONS``)."""
        config, symbols = self._session.about.config, len(self._session.about.instruments)
        total_ns = quantile_ns(self._durations.total(self._end_ns)[Stage.TOTAL], 0.99)
        age_ms, feeds = status["last_frame_age_ms"], status["feeds"]
        known = quality is not None and quality.rows >= _QUALITY_ROWS_MIN
        settled = self._end_ns - self._began_ns >= _DRIFT_NS
        groups = {} if drift is None or not settled else drift["groups"]
        faults = trend["device_faults"]
        return {
            "slow": None if total_ns is None else total_ns / NS_PER_MS / config.engine.deadline_ms,
            "late_predictions": _share(trend["late"], trend["frames"]),
            "old_frame": None if age_ms is None else age_ms / 1_000,
            "silent": len(feeds["silent"]) / symbols,
            "books": len(feeds["unsynced"]) / symbols,
            "doubtful_rows": _share(trend["doubtful"], trend["rows"]),
            "gaps": trend["gaps"],
            "clock": float(status["clock"]["drifted"]),
            "no_skill": quality.log_loss / quality.base_log_loss - 1
            if known and quality is not None and quality.base_log_loss > 0
            else None,
            "miscalibrated": quality.calibration_error if known and quality is not None else None,
            "drift": max((each["mean"] for each in groups.values()), default=None),
            "rejected": _share(trend["rejected"], trend["ended"], least=_ORDERS_MIN),
            "slippage": None
            if trend["turnover_e8"] <= 0
            else 1e4 * trend["slippage_e8"] / trend["turnover_e8"],
            "refused": _share(trend["refused"], trend["intents"], least=_ORDERS_MIN),
            "drawdown": status["drawdown_pct"] / config.risk.max_drawdown_pct,
            "gate": _STATES[status["state"]],
            "device": faults if status["health"]["device"] == [] else max(faults, 3.0),
            "connections": trend["lost_connections"],
            "rejects": trend["rejects"],
        }

    def _predictions(self, quality: LiveQuality | None) -> dict[str, Any]:
        outcomes, metrics = self.outcomes, self._lead.training.metrics
        found: dict[str, Any] = {
            "window_s": outcomes.window_ns // NS_PER_S,
            "rows": 0 if quality is None else quality.rows,
            "predicted": dict(zip(CLASSES, outcomes.predicted_count.tolist(), strict=True)),
            "matured": dict(zip(CLASSES, outcomes.matured_count.tolist(), strict=True)),
            "held_out": {name: metrics.get(name) for name in ("accuracy", "log_loss")},
            "live": None,
        }
        if quality is not None:
            found["live"] = {
                name: dict(zip(CLASSES, value, strict=True)) if isinstance(value, tuple) else value
                for name, value in asdict(quality).items()
                if name != "rows"
            }
        return found

    def _trading(self) -> dict[str, Any]:
        trading = self.trading
        return {
            "intents": dict(trading.intents),
            "refusals": dict(trading.refusals),
            "skips": dict(zip(SKIP_REASONS, trading.skips.tolist(), strict=True)),
            "sent": dict(trading.sent),
            "ended": [
                {"state": state, "reason": reason, "count": count}
                for (state, reason), count in trading.ended.items()
            ],
            "rejects": dict(trading.rejects),
            "fills": dict(trading.fills),
            "turnover_usdt": trading.turnover_e8 / E8,
        }

    def _results(self) -> dict[str, Any]:
        trading, components = self.trading, self.trading.components()
        ratio, sharpe = trading.sharpe(), None
        if ratio is not None:
            sharpe = {"value": ratio.value, "error": number(ratio.error), "returns": ratio.count}
            sharpe["interval_s"] = 60
        return {
            "components_usdt": {
                name.removesuffix("_e8"): None if value is None else value / E8
                for name, value in asdict(components).items()
            },
            "won": trading.won,
            "lost": trading.lost,
            "win_ratio": trading.win_ratio,
            "sharpe": sharpe,
        }


def _lead_of(session: Session) -> Bundle:
    return session.models.open(session.engine.roles.lead.bundle)


def _label_of(config: TrainConfig) -> LabelConfig | None:
    """Return the model's label; None for a model of which no training could have made it."""
    try:
        horizon_frames(config.label, config.grid)
    except ConfigError:  # a session that can trade must not end because it cannot be measured
        return None
    return config.label


def _share(part: float, whole: float, *, least: float = 1.0) -> float | None:
    return part / whole if whole >= least else None


def _shown(found: Any) -> dict[str, Any]:
    """Return a score as a status shows it."""
    return {
        "value": found.value,
        "parts": found.parts,
        "lost": [
            {"part": each.part, "reason": each.word, "points": each.points, "value": each.value}
            for each in found.lost
        ],
    }
