"""The sections of a backtest's report: what each number is, and what it is not.

Owns: wording and order. Never: computes a result; nothing here says that anything earns money.
"""

from __future__ import annotations

import math

import numpy as np

from gpuscalp.backtest import figures
from gpuscalp.backtest.calibration import CalibrationRow
from gpuscalp.backtest.levels import leg_name
from gpuscalp.backtest.metrics import COMPONENTS, TOO_FEW_TRADES, Group, Performance
from gpuscalp.backtest.summary import Outcome, Scope
from gpuscalp.backtest.trade_report import trade_section
from gpuscalp.config import OrdersConfig, RiskConfig
from gpuscalp.report import Section, Table
from gpuscalp.report.html import Cell
from gpuscalp.risk.rules import RULES
from gpuscalp.times import utc

_MEETS = {
    "next": "An order meets the first quote or book recorded at or after its arrival.",
    "last": "An order meets the last quote or book recorded before its arrival.",
}


def sections(outcome: Outcome) -> list[Section]:
    """Return the report of one backtest, in the order of the page."""
    return [
        _summary(outcome),
        _equity(outcome),
        _origin(outcome),
        trade_section(outcome),
        _certainty(outcome),
        _predictions(outcome),
        _decisions(outcome),
        _assumptions(outcome),
    ]


def _summary(outcome: Outcome) -> Section:
    result, unknown = outcome.summary, unknown_word(outcome.performance)
    rows = [
        ("Net P&L, USDT", money(result["pnl_usdt"])),
        ("Trades closed", result["trades"]),
        ("Largest drawdown", f"{result['max_drawdown_pct']:.3f} %"),
        (f"Sharpe ratio per {_span(result['sharpe_interval_s'])}", _with_error(outcome)),
        ("Sharpe ratio per year", _annual(result["sharpe_annual"])),
        (
            f"Deflated Sharpe ratio, {result['trials']} trial(s)",
            number_text(result["deflated_sharpe"], 3, unknown),
        ),
        ("Share of trades with a profit after costs", _hit_rate(outcome)),
        ("Fees paid, USDT", _amount(result["fees_usdt"])),
        ("Funding received, USDT", money(result["funding_usdt"])),
        ("Turnover, USDT", _amount(result["turnover_usdt"])),
        ("Time with a position", f"{result['exposed_share']:.1%}"),
        ("Mean value of positions, USDT", _amount(result["mean_gross_usdt"])),
        ("Risk gate at the end", result["risk_state"]),
    ]
    return Section(
        "Summary",
        warnings=outcome.warnings,
        paragraphs=[
            "This is what the recorded market would have paid for these decisions under the assumptions at "
            "the end of this page. It is one path through one stretch of the past. It is not a forecast, and "
            "no figure here shows that the strategy earns money.",
        ],
        tables=[Table(("figure", "value"), rows)],
    )


def _equity(outcome: Outcome) -> Section:
    recorder = outcome.recorder
    if not outcome.summary["trades"] and not np.any(recorder.gross_usdt):
        return Section(
            "Equity, drawdown and exposure",
            paragraphs=["No position was held, so the equity never moved: there is nothing to draw."],
        )
    return Section(
        "Equity, drawdown and exposure",
        paragraphs=[
            "Sampled once a second. Open positions are valued at the side of the quote at which they could "
            "be closed, so a position starts with the loss of its spread. The drawdown in the summary is "
            "measured at every frame and can be larger than the one drawn."
        ],
        figures=[
            figures.equity(recorder.time_ns, recorder.equity_usdt),
            figures.exposure(recorder.time_ns, recorder.gross_usdt),
        ],
    )


def _origin(outcome: Outcome) -> Section:
    totals = outcome.totals
    paragraphs = [
        "Gross is the move from mid to mid between the two decisions, or until a target, a stop or a "
        "liquidation was filled: all that the signal can be credited with. Slippage has two parts: delay is "
        "what the mid did while orders were on their way, impact what the levels behind the best one cost. "
        "Spread is half a spread for every fill, paid by who takes and earned by who rested. The six columns "
        "add up to the net P&L exactly, trade by trade.",
    ]
    if outcome.recorder.ledger.open:
        paragraphs.append(
            "Positions that could not be closed account for a further "
            f"{money(outcome.summary['unclosed_usdt'])} USDT before their own fees and funding, which the "
            "summary counts as well."
        )
    if not totals.count:
        paragraphs.append("No trade was closed, so there is nothing to draw.")
    return Section(
        "Where the P&L comes from",
        paragraphs=paragraphs,
        tables=[
            _groups("all", [totals], "USDT, all closed trades."),
            _groups("symbol", outcome.by_symbol, "USDT by symbol."),
            _groups("hour", outcome.by_hour, "USDT by hour of the entry's decision, UTC."),
        ],
        figures=[figures.components(totals), figures.groups(outcome.by_hour, outcome.by_symbol)]
        if totals.count
        else [],
    )


def _certainty(outcome: Outcome) -> Section:
    result, estimate, unknown = outcome.summary, outcome.performance.sharpe, unknown_word(outcome.performance)
    rows = [
        ("Returns", f"{estimate.count:,}, one per {_span(outcome.performance.interval_s)}"),
        ("Sharpe ratio of these returns", _with_error(outcome)),
        (
            "Skewness, kurtosis (normal: 0, 3)",
            f"{estimate.skew:.2f}, {estimate.kurtosis:.1f}"
            if np.isfinite([estimate.skew, estimate.kurtosis]).all()
            else "not known",
        ),
        ("Sharpe ratio per year", _annual(result["sharpe_annual"])),
        ("Deflated Sharpe ratio", number_text(result["deflated_sharpe"], 3, unknown)),
        ("Trades, and of them held apart", _trades_apart(outcome)),
        ("Trades with a profit after costs", _hit_rate(outcome)),
        ("Mean P&L per trade, USDT", number_text(result["mean_pnl_usdt"], 4)),
        (
            "… its 95 % interval (block bootstrap)",
            _between(result["mean_pnl_low_usdt"], result["mean_pnl_high_usdt"], unknown),
        ),
    ]
    return Section(
        "How sure these figures are",
        paragraphs=[
            "The Sharpe ratio is mean over standard deviation of the account's returns on the start capital, "
            "benchmark zero, over all recorded time including that without a position. Its standard error "
            "(Mertens 2002) takes skewness and fat tails into account but not dependence between returns.",
            "The deflated Sharpe ratio (Bailey and López de Prado 2014) is the probability that the true "
            f"ratio is above what the luckiest of {result['trials']} skill-less trials would show. Trials "
            "are taken to be independent, each with the variance of a ratio without skill. It knows nothing "
            "about trials that were not counted.",
            "Trades that are held at the same moment, in other symbols, share what the market does then and "
            "say little more than one. So the intervals of figures per trade, and whether there are enough "
            "trades to give any, count those that were held apart.",
        ],
        tables=[Table(("figure", "value"), rows)],
    )


def _predictions(outcome: Outcome) -> Section:
    check = outcome.check
    told = [
        ("edge, bps", check.edge_rows(), 3, "edge", "Expected edge against outcome, bps", "expected, bps"),
    ]
    if outcome.scope.has_model:  # else nobody says from what move on a confidence counts as right
        told.append(
            (
                "probability of DOWN or UP",
                check.probability_rows(),
                4,
                "probability",
                "Probability of DOWN or UP against how often it came",
                "predicted probability",
            )
        )
    if not check.row_count:
        return Section(
            "Predictions against outcomes",
            paragraphs=["No row of the backtest has a known label, so there is nothing to compare."],
        )
    return Section(
        "Predictions against outcomes",
        paragraphs=[
            f"All {check.row_count:,} rows of the backtest with a known label, traded or not. The outcome is "
            "the mid return of the model's own label, or over the horizon of signals that are of no model; "
            "costs play no part here. Labels of neighbouring frames "
            "overlap, and symbols move together: error bars count one independent outcome per "
            f"{check.horizon_frames} frames (one horizon), however many symbols they hold, and show two "
            "standard errors.",
            f"Correlation of expected edge and outcome over all rows: {number_text(check.correlation(), 4)}.",
        ],
        tables=[_bins(name, rows, digits) for name, rows, digits, *_ in told],
        figures=[
            figures.calibration(
                rows, check.horizon_frames, name=f"calibration-{name}", title=title, axis=axis
            )
            for _, rows, _, name, title, axis in told
        ],
    )


def _decisions(outcome: Outcome) -> Section:
    result, risk = outcome.summary, outcome.config.risk
    refusals = [
        (
            rule.code,
            rule.name,
            _limit(rule.limit, risk),
            rule.unit,
            rule.scope,
            result["refusals"].get(rule.code, 0),
        )
        for rule in RULES
    ]
    return Section(
        "Decisions",
        paragraphs=[
            f"{result['frames']:,} frames were looked at. At most frames a symbol brings no intent; the "
            "first table counts why (symbols × frames, the first reason that held).",
            "Every intent is judged by the risk gate; the first rule that is not met refuses it. Rules of "
            "scope “opening” do not apply to orders that reduce a position, and those of scope “predicted” "
            "not to exits because time is up.",
        ],
        tables=[
            Table(("no intent because", "count"), sorted(result["no_intent"].items())),
            Table(("intent", "count"), sorted(result["intents"].items())),
            Table(("code", "rule", "limit", "unit", "scope", "refused"), refusals),
            Table(
                ("orders", "count"),
                sorted(result["orders"].items()),
                caption="Accepted, targets and stops aside, and not filled: "
                f"{_amount(result['cancelled_usdt'])} USDT in all.",
            ),
            Table(("rejected by the exchange because of", "count"), sorted(result["rejections"].items())),
        ],
    )


def _assumptions(outcome: Outcome) -> Section:
    cost, paper, scope = outcome.config.cost, outcome.config.paper, outcome.scope
    delay = outcome.feed_delay_ms
    rows = [
        ("Fees", f"{cost.taker_fee_bps:g} bps of what takes, {cost.maker_fee_bps:g} bps of what has rested"),
        ("Entries", _entries(outcome.config.orders)),
        ("Brackets", _brackets(outcome.config.orders)),
        ("Exchange to here, fastest message and reports", leg_name(paper.reply)),
        ("Compute latency", leg_name(cost.compute)),
        ("Here to exchange", leg_name(paper.request)),
        ("Leverage, liquidation fee", f"{paper.leverage}, {paper.liquidation_fee_bps:g} bps"),
        (
            "Extra feed delay, measured",
            f"median {delay['p50']:.1f} ms, p99 {delay['p99']:.1f} ms, largest {delay['max']:.1f} ms",
        ),
        *_model(scope),
        ("Data", scope.data_digest),
        ("Configuration", "config.json in this directory, with its hash"),
    ]
    return Section(
        "Assumptions",
        paragraphs=[
            f"Orders go to the paper broker of live sessions. {_MEETS[paper.meets]} One that takes "
            "walks the displayed levels; those behind the best one count while the last book is at most "
            f"{paper.depth_age_ms} ms old. What exceeds the displayed quantity is cancelled, not filled at a "
            "guess. A unit that one order took is gone for the next one for as long as the book shows it. An "
            f"order that meets no sound state within {paper.max_wait_ms} ms expires. Fills are known here "
            "only after the way back.",
            "Not modelled: other traders' reaction to these orders, outages.",
        ],
        tables=[Table(("assumption", "value"), rows)],
    )


def _model(scope: Scope) -> list[tuple[str, str]]:
    if not scope.has_model:
        return [("Signals", scope.bundle_digest)]
    trained = f"{utc(scope.trained_from_ns)} to {utc(scope.trained_until_ns)}"
    return [("Trained on (UTC)", trained), ("Bundle", scope.bundle_digest)]


def _entries(orders: OrdersConfig) -> str:
    if orders.entry == "taker":
        return "market orders"
    then = "taken" if orders.then == "take" else "left"
    return f"post-only orders at the own side of the quote for {orders.post_only_ms} ms, the rest {then}"


def _brackets(orders: OrdersConfig) -> str:
    parts = (("take profit", orders.take_profit_bps), ("stop", orders.stop_loss_bps))
    return ", ".join(f"{name} at {bps:g} bps" for name, bps in parts if bps is not None) or "none"


def _limit(limit: str | float, config: RiskConfig) -> str:
    """Return the limit of a rule as configured; some depend on the symbol."""
    if not isinstance(limit, str):
        return f"{limit:g}"
    scope, name = limit.split(".")
    if scope == "gate":
        return f"less {config.exit_reserve:.0%} for exits"
    if scope == "question":
        return "by symbol"
    found = getattr(config, name)
    return found if isinstance(found, str) else f"{found:g}"


def _groups(name: str, groups: list[Group], caption: str) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (g.key, g.count, *(money(getattr(g, part)) for part in COMPONENTS), money(g.pnl)) for g in groups
    ]
    return Table((name, "trades", *COMPONENTS.values(), "net P&L"), rows, caption=caption)


def _bins(name: str, rows: tuple[CalibrationRow, ...], digits: int) -> Table:
    cells = [
        (
            _bin(row.low, row.high),
            row.count,
            f"{row.predicted:.{digits}f}",
            f"{row.observed:.{digits}f}",
        )
        for row in rows
    ]
    return Table((name, "rows", "mean predicted", "mean outcome"), cells)


def _bin(low: float, high: float) -> str:
    if not np.isfinite(low):
        return f"below {high:g}"
    return f"{low:g} … {high:g}" if np.isfinite(high) else f"{low:g} and above"


def money(value: float) -> str:
    """Return an amount with its sign, USDT."""
    return f"{value:+,.4f}" if abs(value) < 100 else f"{value:+,.2f}"


def _amount(value: float) -> str:
    return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.2f}"


def unknown_word(performance: Performance) -> str:
    """Return how an error, an interval or a probability that is left out is worded."""
    return TOO_FEW_TRADES if performance.few else "not known"


def number_text(value: float | None, digits: int, unknown: str = "not known") -> str:
    """Return a figure as text; None and NaN are not known."""
    return unknown if value is None or value != value else f"{value:.{digits}f}"


def _between(low: float | None, high: float | None, unknown: str) -> str:
    return unknown if low is None or high is None else f"{low:.4f} to {high:.4f}"


def _with_error(outcome: Outcome) -> str:
    estimate = outcome.performance.sharpe
    if not math.isfinite(estimate.value):
        return "not known: too few returns, or all alike"
    if not estimate.known:
        return f"{estimate.value:+.4f} (standard error {TOO_FEW_TRADES})"
    return f"{estimate.value:+.4f} ± {estimate.error:.4f} (standard error)"


def _annual(value: float | None) -> str:
    return "not stated: too little time or too few trades" if value is None else f"{value:+.2f}"


def _trades_apart(outcome: Outcome) -> str:
    return f"{outcome.summary['trades']:,}, {outcome.summary['trades_apart']:,}"


def _hit_rate(outcome: Outcome) -> str:
    result = outcome.summary
    if result["hit_rate"] is None:
        return "no trades"
    return (
        f"{result['hit_rate']:.1%} of {result['trades']} "
        f"(95 %: {result['hit_rate_low']:.1%} to {result['hit_rate_high']:.1%}, Wilson)"
    )


def _span(seconds: int) -> str:
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds % size == 0:
            return unit if seconds == size else f"{seconds // size} {unit}s"
    return "second" if seconds == 1 else f"{seconds} seconds"
