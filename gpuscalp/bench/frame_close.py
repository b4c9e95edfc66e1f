"""From the tick that closes a frame to orders that are written down: a session without sockets.

Owns: a session that is driven by hand, in a market whose time is not ours, and the times of its steps. All of
it is real: messages through books and paper broker, features, forest, trader, journal and database on a disk.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any, Final, cast, final

import numpy as np

from gpuscalp.bench.flow import Flow, instruments
from gpuscalp.bench.model import write_model
from gpuscalp.bench.session import live_config
from gpuscalp.ensemble import Ensemble, Signals
from gpuscalp.execution.booking import BookedFill
from gpuscalp.execution.messages import Report
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.feeds.rest import RestReply
from gpuscalp.latency import LatencyHistogram
from gpuscalp.live.directory import create
from gpuscalp.live.market import Work
from gpuscalp.live.monitor import Monitor
from gpuscalp.live.predictor import HostPredictor
from gpuscalp.live.records import HealthRecord, SignalRecord
from gpuscalp.live.roles import Roles
from gpuscalp.live.session import Session
from gpuscalp.ops.forest import ForestScratch
from gpuscalp.orders import MarketRow, Order, SignalRow
from gpuscalp.schema import F32, NS_PER_MS
from gpuscalp.trader import StepReport

_STEP_MS: Final = 10  # between two chunks of messages, and between batches that close no frame
_START_MS: Final = 1_700_000_000_000
_STATUS_FRAMES: Final = 5  # from status to status
STAGES: Final = ("features", "predict", "gate", "records", "write")


def measure(
    folder: Path, *, symbols: int, rate: int, frames: int, warm_up: int = 50, rounds: int = 300
) -> dict[str, Any]:
    """Time frames one by one.

    Parameters
    ----------
    folder : an empty one, for model and session
    symbols, rate : S, and messages a second of the market's own time
    frames, warm_up : that are timed, and that are not
    rounds : of the model, times 5 members and 3 classes

    Returns
    -------
    dict with p50 and p99 in ms of the whole, of each stage and of everything but the prediction, the last
    also by processor time, which other programs on the machine do not lengthen. Stages:
    ``features`` from ticks to columns, ``predict`` the forest, ``gate`` strategy, sizing and risk,
    ``records`` what else the engine does (fills are booked, decisions become records), ``write`` to the
    journal and, where there are orders or fills, to kernel and database, then out to the broker.
    ``watching`` is what the metrics cost: of each frame in the engine's thread (within ``records``),
    and of each status, by processor time.
    """
    flow = Flow(symbols, rate)
    now_ns = _START_MS * NS_PER_MS
    model = write_model(folder / "model", flow.names, now_ns=now_ns, rounds=rounds)
    path = folder / "session"
    create(path, live_config(), model, instruments(flow.names), now_ns=now_ns)
    session = Session(path, now_ns=now_ns, clock_of=lambda work: lambda: work.now_ns)
    try:
        return _measure(session, flow, rate=rate, frames=frames, warm_up=warm_up)
    finally:
        gc.unfreeze()
        session.close(now_ns=now_ns)


def _measure(session: Session, flow: Flow, *, rate: int, frames: int, warm_up: int) -> dict[str, Any]:
    session.on_health(HealthRecord(1.0, drifted=False), _START_MS * NS_PER_MS)
    forest = _Timed(session.bundle.ensemble)
    session.engine.predictor = HostPredictor(cast(Ensemble, forest))
    watched = _Watched(Monitor(session, LatencyHistogram()))
    session.engine.watcher = watched
    times: list[tuple[int, ...]] = []
    intents = orders = 0
    count, owed, now_ms = rate * _STEP_MS / 1_000, 0.0, _START_MS
    while len(times) < warm_up + frames:
        now_ms += _STEP_MS
        owed += count
        messages = [body for _, body in flow.draw(int(owed), now_ms)]
        owed -= int(owed)
        now_ns = now_ms * NS_PER_MS
        if not now_ms % (2 * _STEP_MS):
            session.flush()  # as often as a session of its own accord does
        session.on_messages(0, now_ns, messages)
        if now_ms == _START_MS + 200:
            _give_snapshots(session, flow, now_ms)
        work = session.take(now_ns, now_ns)
        if work is not None:
            taken, found = _step(session, work, forest)
            if taken:
                times.append(taken)
                if len(times) % _STATUS_FRAMES == 0:
                    watched.settle()
                intents += found[0]
                orders += found[1]
                if len(times) == warm_up:
                    gc.collect()
                    gc.freeze()  # as a session of its own accord does
    watched.settle()  # of a short run the only one
    timed = np.array(times[warm_up:], np.int64) / NS_PER_MS
    return _summary(timed) | {
        "symbols": len(flow.names),
        "frames": len(timed),
        "columns": len(session.bundle.contract.columns),
        "trees": session.bundle.ensemble.forest.tree_count,
        "intents": intents,
        "orders": orders,
        "watching": {
            "step_p50_us": _quantile(np.array(watched.steps_ns[warm_up:]) / 1e3, 50),
            "step_p99_us": _quantile(np.array(watched.steps_ns[warm_up:]) / 1e3, 99),
            "settle_p50_ms": _quantile(np.array(watched.settles_ns) / NS_PER_MS, 50),
            "settle_p99_ms": _quantile(np.array(watched.settles_ns) / NS_PER_MS, 99),
        },
    }


@final
class _Watched:
    """A session's monitor that is timed."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.steps_ns: list[int] = []
        self.settles_ns: list[int] = []

    def on_step(self, market: MarketRow, signals: SignalRow, report: StepReport) -> None:
        began = time.thread_time_ns()
        self._monitor.on_step(market, signals, report)
        self.steps_ns.append(time.thread_time_ns() - began)

    def on_report(self, report: Report, order: Order | None, booked: BookedFill | None) -> None:
        self._monitor.on_report(report, order, booked)

    def on_models(self, roles: Roles) -> None:
        self._monitor.on_models(roles)

    def on_whole(self, end_ns: int, lead: SignalRow, shadow: SignalRow | None) -> None:
        self._monitor.on_whole(end_ns, lead, shadow)

    def settle(self) -> None:
        """Do what a status does twice a second."""
        began = time.thread_time_ns()
        self._monitor.settle()
        self.settles_ns.append(time.thread_time_ns() - began)


@final
class _Timed:
    """An ensemble that notes the processor time of its last prediction."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble, self.forest = ensemble, ensemble.forest
        self.cpu_ns = 0

    def predict(self, x: F32, *, scratch: ForestScratch | None = None) -> Signals:
        began = time.thread_time_ns()
        signals = self._ensemble.predict(x, scratch=scratch)
        self.cpu_ns = time.thread_time_ns() - began
        return signals


def _step(session: Session, work: Work, forest: _Timed) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Let the engine work; where a frame has closed, return the times of the stages and the processor time
    of all but the prediction, ns, and the number of intents and orders."""
    began_cpu = time.thread_time_ns()
    began = time.perf_counter_ns()
    outcome = session.engine.step(work, lambda: work.now_ns)
    decided = time.perf_counter_ns()
    session.apply(outcome, work.now_ns)
    written = time.perf_counter_ns()
    cpu = time.thread_time_ns() - began_cpu - forest.cpu_ns
    told = [body for _, body in outcome.records if isinstance(body, SignalRecord)]
    if len(told) != 1:
        return (), (0, 0)
    features, predict, gate = told[0].stages_ns
    rest = decided - began - features - predict - gate
    found = sum(type(body).__name__ == "VerdictRecord" for _, body in outcome.records)
    return (features, predict, gate, rest, written - decided, cpu), (found, len(outcome.orders))


def _summary(times: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> dict[str, Any]:
    """Summarise float64[frames, stages and processor time], ms."""
    times, cpu = times[:, :-1], times[:, -1]
    whole = times.sum(1)
    overhead = whole - times[:, STAGES.index("predict")]
    return {
        "p50_ms": _quantile(whole, 50),
        "p99_ms": _quantile(whole, 99),
        "overhead_p50_ms": _quantile(overhead, 50),
        "overhead_p99_ms": _quantile(overhead, 99),
        "overhead_cpu_p99_ms": _quantile(cpu, 99),
        "stages": {
            name: {
                "p50_ms": _quantile(times[:, index], 50),
                "p99_ms": _quantile(times[:, index], 99),
                "share": round(float(times[:, index].sum() / whole.sum()), 4),
            }
            for index, name in enumerate(STAGES)
        },
    }


def _quantile(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 4)


def _give_snapshots(session: Session, flow: Flow, now_ms: int) -> None:
    decoder = Decoder()
    for index, name in enumerate(flow.names):
        body = flow.snapshot(index, 100, now_ms)
        found = decoder.decode(body)
        assert isinstance(found, DepthSnapshot)
        request = f"GET http://127.0.0.1/fapi/v1/depth?symbol={name}&limit=100"
        reply = RestReply(request, now_ms * NS_PER_MS, now_ms * NS_PER_MS, body)
        named = DepthSnapshot(name, found.exch_ns, found.last_id, found.bids, found.asks)
        session.on_snapshot(reply, named)
