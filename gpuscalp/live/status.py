"""How a session stands, as plain data: what ``status``, the terminal, the status file and a dashboard show.

Owns: the keys, which are part of the public interface (docs/live.md). Never: changes anything.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

import numpy as np

from gpuscalp.feeds.client import FeedClient
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.latency import LatencyHistogram, Stage
from gpuscalp.live.latest_rows import features_of, quotes_of
from gpuscalp.live.monitor import Monitor
from gpuscalp.live.onlookers import Onlookers
from gpuscalp.live.roles import InRole
from gpuscalp.live.session import Session
from gpuscalp.live.snapshots import Snapshots
from gpuscalp.live.workers import engine_status
from gpuscalp.monitoring.resources import read_resources
from gpuscalp.schema import E8, NS_PER_MS, NS_PER_S, Quality
from gpuscalp.trader import Trader

_HOUR_S: Final = 3_600
_QUANTILES: Final = (("p50", 0.5), ("p99", 0.99))


def status_of(
    session: Session,
    latency: LatencyHistogram,
    monitor: Monitor,
    *,
    uptime_s: float,
    exch_ns: int,
    source: dict[str, Any],
    succession: dict[str, Any],
    gpu: dict[str, Any] | None,
    logs: dict[str, Any] | None,
    onlookers: Onlookers,
) -> dict[str, Any]:
    """Return the status of a session that runs. Call it while the engine is at rest.

    Parameters
    ----------
    source : what the source says of itself (``gpuscalp.live.source``)
    succession : how retraining, shadow and promotion stand (``gpuscalp.live.succession``)
    gpu, logs : the same of the GPUs' watch and of the log; None where there is none
    onlookers : measure what can be measured; what cannot is shown as it last was
    """
    about, engine, market = session.about, session.engine, session.market
    trader, gate = engine.trader, engine.trader.gate
    found = {
        "session": str(session.path),
        "session_id": about.session_id,
        "running": True,
        "pid": os.getpid(),
        "written_ns": time.time_ns(),
        "state": str(gate.state),
        "cause": None if gate.cause is None else str(gate.cause),
        "causes": [str(each) for each in gate.causes],
        "since_ns": gate.since_ns or None,
        "flattening": engine.flattening,
        "uptime_s": round(uptime_s, 3),
        "start": {
            "fresh": session.start.fresh,
            "repeated": session.start.repeated,
            "torn_bytes": session.start.torn_bytes,
        },
        "venue": about.config.venue,
        "market": about.market_name,
        "broker": about.config.broker,
        "config": about.config_digest,
        "device": about.device,
        "engine": engine_status(engine, about),
        "model": _model(session, exch_ns),
        "symbols": [each.symbol for each in about.instruments],
        "warming": _warming(session),
        "frames": engine.frame_count,
        "last_frame_age_ms": _frame_age_ms(session, exch_ns, monitor.framed_ns),
        **_money(trader),
        "health": {
            "device": list(market.health.device),
            "venue": list(market.health.venue),
            "rules": [session.about.instruments[index].symbol for index in market.health.rules],
        },
        "positions": positions_of(trader),
        "open_orders": _open_orders(session),
        "signals": _signals(session),
        "quotes": quotes_of(session),
        "features": features_of(session),
        **source,
        "succession": succession,
        "batches": {
            "waiting": len(market.batcher),
            "reports": len(market.inbox),
            "commands": market.commands_waiting,
            "ticks": market.batcher.pushed_count,
            "late": engine.stream.late_count,
            **monitor.late_trades.status(engine.stream.trade_counts, exch_ns),
            "taken": market.batcher.batch_count,
            "conflated": market.batcher.conflated_count,
            "overloads": market.batcher.overload_count,
        },
        "journal": {
            "records": session.journal.next_seq,
            "durable": session.journal.durable_seq,
            "bytes": session.journal.written_bytes,
        },
        "latency_ms": latencies_of(latency),
        "resources": read_resources(session.path),
        "gpu": gpu,
        "logs": logs,
    }
    if monitor.measured:
        onlookers.run("monitor", lambda: monitor.status(found, exch_ns))
    else:
        monitor.status(found, exch_ns)
    return found | monitor.measured | {"onlookers": onlookers.status()}


def _frame_age_ms(session: Session, exch_ns: int, framed_ns: int) -> float | None:
    """Return the age of the last frame, which goes on where the exchange's clock stands still."""
    market = session.engine.market
    if market is None:
        return None
    since_ns = time.monotonic_ns() - framed_ns if framed_ns else 0
    return round(max(exch_ns - market.end_ns, since_ns) / NS_PER_MS, 3)


def _model(session: Session, exch_ns: int) -> dict[str, Any]:
    """Return which model leads, which one did before, and which one is in the shadow."""
    roles, limit_h = session.engine.roles, session.about.config.risk.max_model_age_h

    def shown(each: InRole) -> dict[str, Any]:
        until_ns = session.models.open(each.bundle).contract.training.trained_on.end_ns
        return {
            "bundle": each.bundle,
            "trained_until_ns": until_ns,
            "age_s": (age_s := round((exch_ns - until_ns) / NS_PER_S, 3)),
            # From then on the gate refuses what it predicts.
            "expires_in_s": None if limit_h == "off" else round(limit_h * _HOUR_S - age_s, 3),
            "since_ns": each.since_ns or None,
            "reason": each.reason,
            "by": each.by,
            "own_calibration": each.calibration is None,
            "calibrated_ns": each.calibrated_ns or None,
        }

    return shown(roles.lead) | {
        "begun_with": session.about.bundle,
        "before": roles.earlier[-1].bundle if roles.earlier else None,
        "shadow": None if roles.shadow is None else shown(roles.shadow),
    }


def _money(trader: Trader) -> dict[str, float]:
    equity_e8 = trader.equity_e8()
    return {
        "equity_usdt": equity_e8 / E8,
        "pnl_usdt": (equity_e8 - trader.account.start_e8) / E8,
        "fees_usdt": trader.account.fees_e8 / E8,
        "funding_usdt": trader.account.funding_e8 / E8,
        "drawdown_pct": trader.gate.drawdown_pct,
        "daily_loss_usdt": trader.gate.daily_loss_usdt,
    }


def _open_orders(session: Session) -> list[dict[str, Any]]:
    instruments = session.about.instruments
    return [
        {
            "order_id": order.order_id,
            "symbol": instruments[order.symbol_index].symbol,
            "side": "buy" if order.side > 0 else "sell",
            "qty": order.qty_e8 / E8,
            "kind": str(order.kind),
            "price": order.price_e8 / E8 if order.price_e8 else None,
            "reason": order.intent.reason,
        }
        for order in session.engine.trader.open_orders.values()
    ]


def clock_status(session: Session, clock: ClockOffset) -> dict[str, Any]:
    """Return how far our clock is from the exchange's, and whether that can be believed."""
    health = session.market.health
    return {
        "offset_ms": None if clock.offset_ns is None else clock.offset_ns / NS_PER_MS,
        "error_ms": health.clock_error_ms,
        "drifted": health.drifted,
    }


def feed_status(session: Session, client: FeedClient, snapshots: Snapshots) -> dict[str, Any]:
    """Return connections, messages by what became of them, and what is missing."""
    about, market = session.about, session.market
    return {
        "connections": [
            {
                "number": each.number,
                "route": each.route,
                "state": each.state,
                "age_s": round(each.age_s, 1),
                "streams": each.streams,
                "silent": list(each.silent),
                "cuts": each.cuts,
                "reason": each.reason,
            }
            for each in client.status()
        ],
        "connections_opened": dict(client.opened),
        "connections_lost": dict(client.lost),
        "messages": market.ingest.account(),
        "resyncs": sum(market.ingest.resync_counts().values()),
        "gaps_settled": market.gap_count,
        "unsynced": list(market.ingest.unsynced()),
        "silent": [about.instruments[index].symbol for index in market.health.silent],
        "off_tick": [about.instruments[index].symbol for index in market.health.off_tick],
        "snapshots": {"fetched": snapshots.fetched, "refused": snapshots.refused},
    }


def account_of(session: Session) -> dict[str, Any]:
    """Return what a session has come to, for those that have no venue."""
    engine, trader = session.engine, session.engine.trader
    equity_e8 = trader.equity_e8()
    return {
        "session": str(session.path),
        "state": str(trader.gate.state),
        "frames": engine.frame_count,
        "pnl_usdt": (equity_e8 - trader.account.start_e8) / E8,
        "fees_usdt": trader.account.fees_e8 / E8,
        "funding_usdt": trader.account.funding_e8 / E8,
        "last_order_id": trader.last_order_id,
        "positions": positions_of(trader),
        "last_frame_ns": None if engine.market is None else engine.market.end_ns,
        "feed": session.market.ingest.account(),
    }


def positions_of(trader: Trader) -> list[dict[str, Any]]:
    """Return what is held, valued at the price at which it could be closed."""
    values = trader.exposure.closing_values_e8()
    return [
        {
            "symbol": trader.instruments[index].symbol,
            "qty": trader.account.positions[index].qty_e8 / E8,
            "value_usdt": value / E8,
            "unrealised_usdt": (value - trader.account.positions[index].cost_e8) / E8,
        }
        for index, value in values.items()
    ]


def latencies_of(latency: LatencyHistogram) -> dict[str, dict[str, float | None]]:
    """Return quantiles by stage, in milliseconds."""
    found: dict[str, dict[str, float | None]] = {}
    for stage in Stage:
        values = {name: latency.quantile_ns(stage, share) for name, share in _QUANTILES}
        found[stage.name.lower()] = {
            name: None if value is None else value / NS_PER_MS for name, value in values.items()
        }
    return found


def _warming(session: Session) -> list[str]:
    """Return the symbols whose longest windows are not full yet: no feature of theirs may be traded on."""
    market, instruments = session.engine.market, session.about.instruments
    if market is None:
        return [each.symbol for each in instruments]
    cold = market.quality & np.uint32(Quality.WARM_UP)
    return [each.symbol for each, bit in zip(instruments, cold.tolist(), strict=True) if bit]


def _signals(session: Session) -> list[dict[str, Any]]:
    """Return the last frame's signals of the symbols with the largest edges, the strongest first."""
    signals = session.engine.signals
    if signals is None:
        return []
    edges = [(abs(edge), index) for index, edge in enumerate(signals.edge_bps.tolist()) if edge == edge]
    return [
        {
            "symbol": session.about.instruments[index].symbol,
            "edge_bps": float(signals.edge_bps[index]),
            "down": float(signals.probability[index, 0]),
            "up": float(signals.probability[index, 2]),
            "agreement": float(signals.agreement[index]),
        }
        for _, index in sorted(edges, reverse=True)[:20]
    ]
