"""A finished session as one dictionary, and the warnings that belong on top of it.

Owns: the keys of ``result.json`` and the wording of warnings. Never: draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from msgspec import Struct

from gpuscalp.backtest import metrics
from gpuscalp.backtest.calibration import PredictionCheck
from gpuscalp.backtest.metrics import Group, Performance
from gpuscalp.backtest.record import Recorder
from gpuscalp.config import BacktestConfig
from gpuscalp.risk.gate import RiskState
from gpuscalp.schema import E8, NS_PER_MS, NS_PER_S
from gpuscalp.stats import OBSERVATIONS_MIN
from gpuscalp.strategy import SKIP_REASONS
from gpuscalp.times import utc
from gpuscalp.trader import Trader

# The venue of gpuscalp.synthetic; not imported from there, because that package compiles its kernel.
SYNTHETIC_VENUE: Final = "synthetic"
# That of a session whose exchange replayed an archive or recordings (gpuscalp.live.embedded).
REPLAYED_VENUE: Final = "replayed"


class Scope(Struct, frozen=True):
    """On what a backtest ran.

    Where it traded signals of no bundle, ``bundle_digest`` is theirs and ``trained_venue`` is empty.
    """

    venue: str
    symbols: tuple[str, ...]
    start_ns: int
    end_ns: int
    data_digest: str
    bundle_digest: str
    trained_venue: str
    trained_from_ns: int
    trained_until_ns: int

    @property
    def has_model(self) -> bool:
        return bool(self.trained_venue)

    @property
    def in_sample_share(self) -> float:
        """Share of the backtest's time that lies in the time the model was trained on, 0 … 1.

        Other symbols and venues of the same hours count as well: they move together. Only a synthetic market
        has nothing in common with a recorded one.
        """
        if (self.venue == SYNTHETIC_VENUE) != (self.trained_venue == SYNTHETIC_VENUE):
            return 0.0
        overlap = min(self.end_ns, self.trained_until_ns) - max(self.start_ns, self.trained_from_ns)
        return max(0.0, overlap / (self.end_ns - self.start_ns))


class Course(Protocol):
    """A finished backtest, whoever filled its orders.

    Attributes
    ----------
    trader, recorder : as they are at the end
    announced : symbols whose funding has been announced
    clock_steps : as ``gpuscalp.backtest.delay.LeastDelay`` has them; empty where no decision depends on them
    """

    @property
    def trader(self) -> Trader: ...

    @property
    def recorder(self) -> Recorder: ...

    @property
    def announced(self) -> set[int]: ...

    @property
    def clock_steps(self) -> Sequence[tuple[int, int]]: ...

    def feed_delay_ms(self) -> dict[str, float]:
        """Return median, p99 and largest extra feed delay."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that the report needs."""

    config: BacktestConfig
    scope: Scope
    recorder: Recorder
    check: PredictionCheck
    performance: Performance
    totals: Group
    by_symbol: list[Group]
    by_hour: list[Group]
    feed_delay_ms: dict[str, float]
    warnings: tuple[str, ...]
    summary: dict[str, Any]

    @property
    def subtitle(self) -> str:
        scope = self.scope
        return (
            f"{', '.join(scope.symbols)} on {scope.venue}, {utc(scope.start_ns)} to {utc(scope.end_ns)} UTC"
        )


def summarise(
    config: BacktestConfig,
    scope: Scope,
    session: Course,
    check: PredictionCheck,
    *,
    lost_signals: tuple[int, int] = (0, 0),
) -> Outcome:
    """Measure a finished session; of signals of no bundle, so many of so many were of no frame."""
    recorder, trader = session.recorder, session.trader
    trades = recorder.ledger.closed
    totals, result, money = measured(config, session)
    warnings = (*_warnings(config, scope, session, result), *_lost(*lost_signals))
    (won, share), mean = metrics.hits(trades), metrics.mean_pnl_interval(trades)
    frames = max(1, recorder.frame_count)
    summary: dict[str, Any] = {
        "run_dir": "",
        "report": "",
        "venue": scope.venue,
        "symbols": list(scope.symbols),
        "start": utc(scope.start_ns),
        "end": utc(scope.end_ns),
        "in_sample_share": scope.in_sample_share,
        "recorded_s": result.recorded_s,
        "frames": recorder.frame_count,
        **money,
        "unclosed_usdt": _unclosed_e8(session) / E8,
        "start_usdt": trader.account.start_e8 / E8,
        "equity_usdt": trader.equity_e8() / E8,
        "sharpe_error": metrics.number(result.sharpe.error),
        "sharpe_interval_s": result.interval_s,
        "sharpe_returns": result.sharpe.count,
        "sharpe_annual": result.annual,
        "deflated_sharpe": metrics.number(result.deflated),
        "trials": config.trials,
        "trades_apart": result.results,
        "hits": won,
        "hit_rate": won / len(trades) if trades else None,
        "hit_rate_low": share.low,
        "hit_rate_high": share.high,
        "mean_pnl_usdt": totals.pnl / len(trades) if trades else None,
        "mean_pnl_low_usdt": metrics.number(mean.low),
        "mean_pnl_high_usdt": metrics.number(mean.high),
        "exposed_share": recorder.held_frame_count / frames,
        "mean_gross_usdt": recorder.gross_sum_e8 / frames / E8,
        "predictions": check.row_count,
        "edge_correlation": metrics.number(check.correlation()),
        "intents": dict(recorder.intents),
        "refusals": dict(recorder.refusals),
        "orders": dict(recorder.outcomes),
        "rejections": dict(recorder.rejections),
        "no_intent": dict(zip(SKIP_REASONS[:-1], recorder.skips[:-1].tolist(), strict=True)),
        "cancelled_usdt": recorder.cancelled_usdt,
        "risk_events": [{"at": utc(at), "event": event.value} for at, event in recorder.events],
        "feed_delay_ms": session.feed_delay_ms(),
        "data_digest": scope.data_digest,
        "bundle_digest": scope.bundle_digest,
        "warnings": list(warnings),
    }
    return Outcome(
        config=config,
        scope=scope,
        recorder=recorder,
        check=check,
        performance=result,
        totals=totals,
        by_symbol=metrics.grouped(trades, lambda trade: scope.symbols[trade.symbol_index]),
        by_hour=metrics.grouped(trades, lambda trade: _hour(trade.entry_decided_ns)),
        feed_delay_ms=session.feed_delay_ms(),
        warnings=warnings,
        summary=summary,
    )


def measured(config: BacktestConfig, session: Course) -> tuple[Group, Performance, dict[str, Any]]:
    """Return the sums of the closed trades, what the equity says, and the figures that any run has."""
    recorder, trader = session.recorder, session.trader
    account, totals = trader.account, metrics.total(recorder.ledger.closed)
    result = metrics.performance(
        recorder.time_ns,
        recorder.equity_usdt,
        start_usdt=config.account.start_usdt,
        trials=config.trials,
        results=len(metrics.groups_of(recorder.ledger.closed)),
    )
    figures = {
        "trades": totals.count,
        "pnl_usdt": (trader.equity_e8() - account.start_e8) / E8,
        **{f"{part}_usdt": getattr(totals, part) for part in ("gross", "delay", "spread", "impact")},
        "fees_usdt": account.fees_e8 / E8,
        "funding_usdt": account.funding_e8 / E8,
        "turnover_usdt": account.turnover_e8 / E8,
        "max_drawdown_pct": recorder.max_drawdown_pct,
        "sharpe": metrics.number(result.sharpe.value),
        "liquidations": recorder.liquidation_count,
        "risk_state": trader.gate.state.value,
    }
    return totals, result, figures


def _unclosed_e8(session: Course) -> int:
    """Return what open positions have made of the account, before their fees and funding.

    It is what the components of closed trades, all fees and all funding leave unexplained; 0 when flat.
    """
    account, closed = session.trader.account, session.recorder.ledger.closed
    pnl = session.trader.equity_e8() - account.start_e8
    explained = sum(trade.moved_e8 for trade in closed)
    return pnl - explained + account.fees_e8 - account.funding_e8


def _market_warnings(venue: str) -> list[str]:
    """Return what has to be said first of a market that is none of a real venue's."""
    if venue == SYNTHETIC_VENUE:
        return [
            "SYNTHETIC: a program made this market from a seed, with a lag planted for a model to find. The "
            "result shows that the parts work together; it says nothing about a real market."
        ]
    if venue == REPLAYED_VENUE:
        return [
            "REPLAYED: a session recorded this market while an exchange of its own replayed an older one. "
            "Its times are not that market's, so whether the model was trained on it cannot be seen here."
        ]
    return []


def _warnings(config: BacktestConfig, scope: Scope, session: Course, result: Performance) -> Sequence[str]:
    recorder, trader = session.recorder, session.trader
    count = len(recorder.ledger.closed)
    found = _market_warnings(scope.venue)
    if not scope.has_model:
        found.append(
            "SIGNALS OF YOUR OWN: nothing here sees whether they knew what came after the frames that they "
            "are dated at."
        )
    share = scope.in_sample_share
    if share > 0:
        found.append(
            f"IN-SAMPLE: {share:.0%} of this backtest lies in the time that the model was trained on "
            f"({utc(scope.trained_from_ns)} to {utc(scope.trained_until_ns)} UTC). "
            "The model has seen these answers; the result says nothing about new data."
        )
    if count == 0:
        found.append(
            "No trade was closed: there is no performance to judge. Decisions in report.html says why."
        )
    elif result.few:
        found.append(
            f"Only {_apart(result, count)} in {result.sharpe.count} returns: with fewer "
            f"than {OBSERVATIONS_MIN} of either nothing says how sure the result is. The standard error of "
            "the Sharpe ratio, its deflation and bootstrap intervals are not known (docs/backtest.md, How "
            "sure)."
        )
    elif result.results < metrics.FEW_TRADES:
        found.append(
            f"Only {_apart(result, count)}: every figure per trade has an interval too wide to decide "
            "anything."
        )
    if config.trials == 1 and count:
        found.append(
            "trials = 1: the deflated Sharpe ratio below assumes that this was the only configuration ever "
            "tried. Count the others (--trials)."
        )
    found += _time_warnings(scope, result)
    traded = {trade.symbol_index for trade in (*recorder.ledger.closed, *recorder.ledger.open.values())}
    silent = [scope.symbols[index] for index in sorted(traded - session.announced)]
    if silent:
        found.append(
            f"The archive announces no funding (mark price, rate and time) for {', '.join(silent)}: "
            "it was not charged there."
        )
    if steps := session.clock_steps:
        found.append(
            f"The recorder's clock was set forward {len(steps)} time(s), or its whole feed was late for a "
            f"minute, by up to {max(rise for _, rise in steps) / NS_PER_MS:.0f} ms; first in the minute "
            f"before {utc(steps[0][0])} UTC by that clock. No recording tells which of the two it was: "
            "decisions of such a minute count as late by as much (docs/backtest.md, Time)."
        )
    collared = recorder.unknown["PRICE_COLLAR"]
    if collared:
        found.append(
            f"{collared} entries were refused (PRICE_COLLAR) because the archive had no mark price then. "
            'For a recording without mark prices set risk.max_collar_bps = "off".'
        )
    if trader.gate.state is not RiskState.ACTIVE:
        cause = trader.gate.cause.value if trader.gate.cause is not None else ""
        at = f" at {utc(recorder.events[0][0])} UTC" if recorder.events else ""
        found.append(
            f"The risk gate closed{at} ({cause}) and stayed closed: nothing was opened after that, and the "
            "result is that of the time before."
        )
    if recorder.liquidation_count:
        found.append(
            f"The account was liquidated {recorder.liquidation_count} time(s): its balance at the mark, or "
            "at the mid where none was known, no longer covered the maintenance margin "
            "(docs/paper_broker.md, Money)."
        )
    if recorder.ledger.open:
        found.append(
            f"{len(recorder.ledger.open)} position(s) could not be closed in full at the last recorded book; "
            "they are valued at its closing side."
        )
    return found


def _lost(count: int, of: int) -> list[str]:
    if not count:
        return []
    return [
        f"{count:,} of {of:,} signals were not acted upon: the archive has no frame that ends when they are "
        "dated, or the range ends before it has closed."
    ]


def _time_warnings(scope: Scope, result: Performance) -> list[str]:
    found = []
    hours = result.recorded_s / 3600
    span_hours = (scope.end_ns - scope.start_ns) / NS_PER_S / 3600
    if span_hours - hours > max(metrics.HOLE_NS / NS_PER_S / 3600, span_hours / 100):
        found.append(
            f"Only {hours:,.1f} of the {span_hours:,.1f} hours from start to end were recorded "
            f"({hours / span_hours:.1%}). Returns and ratios are those of the recorded time: nobody knows "
            "what the strategy would have done in the rest."
        )
    if result.annual is None and result.sharpe.known:
        found.append(
            f"The data hold {hours:,.1f} hours. The Sharpe ratio is given per {result.interval_s} s and "
            "is not annualised: that would extrapolate one day's weather to a year."
        )
    return found


def _apart(result: Performance, count: int) -> str:
    """Word how many trades are behind a result; those that were held together say little more than one."""
    trades = f"{result.results} trade{'' if result.results == 1 else 's'}"
    return trades if result.results == count else f"{trades} held apart (of {count})"


def _hour(at_ns: int) -> str:
    return f"{at_ns // NS_PER_S // 3600 % 24:02d}:00"
