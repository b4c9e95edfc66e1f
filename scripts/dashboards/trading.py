"""Money: equity, positions, what was decided, what came of it."""

from __future__ import annotations

from scripts.dashboards.panel import GOOD, Panel, Row, or_none

_STATE = 'sum(gpuscalp_risk_state{@, state="reducing"}) + 2 * sum(gpuscalp_risk_state{@, state="halted"})'
_USDT = "currencyUSD"
_MINUTES = "gpuscalp_sharpe_returns{@} or floor((time() - gpuscalp_start_time_seconds{@}) / 60)"
_SIGN = ((None, "red"), (0.0, "green"))


def _per_minute(name: str, label: str) -> tuple[str, str]:
    rose = f"60 * sum by ({label}) (rate({name}{{@}}[$__rate_interval]))"
    return or_none(rose, label), f"{{{{{label}}}}}"


ROWS = (
    Row(
        "Now",
        (
            Panel(
                "Risk gate",
                "What the gate lets through: everything, what reduces a position, or nothing.",
                ((_STATE, ""),),
                kind="number",
                width=4,
                words=(("0", "active", "green"), ("1", "reducing", "orange"), ("2", "halted", "red")),
            ),
            Panel(
                "Profit and loss",
                "Of the session, after fees and funding.",
                (("gpuscalp_pnl_usdt{@}", ""),),
                _USDT,
                "number",
                4,
                _SIGN,
                decimals=2,
            ),
            Panel(
                "Equity",
                "Positions valued at the price at which they could be closed.",
                (("gpuscalp_equity_usdt{@}", ""),),
                _USDT,
                "number",
                4,
                decimals=2,
            ),
            Panel(
                "Drawdown",
                "Below the highest equity. An alert comes at 5 %.",
                (("gpuscalp_drawdown_ratio{@}", ""),),
                "percentunit",
                "number",
                4,
                ((None, "green"), (0.03, "orange"), (0.05, "red")),
            ),
            Panel(
                "Win rate",
                "Of the last 100 round trips, after all costs.",
                (("gpuscalp_win_ratio{@}", ""),),
                "percentunit",
                "number",
                4,
                ((None, "red"), (0.35, "orange"), (0.5, "green")),
            ),
            Panel(
                "Performance score",
                "100 less what its reasons cost, which stand below.",
                (("gpuscalp_score{@}", ""),),
                "none",
                "number",
                4,
                ((None, "red"), (50.0, "orange"), (80.0, "green")),
                low=0,
                high=100,
                decimals=0,
            ),
        ),
    ),
    Row(
        "Result",
        (
            Panel("Equity", "Over time.", (("gpuscalp_equity_usdt{@}", "equity"),), _USDT),
            Panel(
                "Profit by component",
                "Since the process began: what the signals earned, and what the rest took. The "
                "sum is the profit.",
                (("gpuscalp_pnl_component_usdt{@}", "{{component}}"),),
                _USDT,
            ),
            Panel(
                "Drawdown",
                "The gate reduces at risk.max_drawdown_pct, 10 % by default.",
                (("gpuscalp_drawdown_ratio{@}", "drawdown"),),
                "percentunit",
                steps=((None, "green"), (0.05, "orange"), (0.1, "red")),
                low=0,
            ),
            Panel(
                "Costs and funding",
                "Paid so far; funding that was received is negative.",
                (
                    ("gpuscalp_fees_usdt{@}", "fees"),
                    ("-gpuscalp_funding_usdt{@}", "funding"),
                    ("gpuscalp_daily_loss_usdt{@}", "loss of the day"),
                ),
                _USDT,
            ),
        ),
    ),
    Row(
        "Positions",
        (
            Panel(
                "Position",
                "Value at the price at which it could be closed; short positions are negative.",
                ((or_none("gpuscalp_position_usdt{@s}", "symbol"), "{{symbol}}"),),
                _USDT,
            ),
            Panel(
                "Unrealised result",
                "Of open positions.",
                ((or_none("gpuscalp_position_unrealised_usdt{@s}", "symbol"), "{{symbol}}"),),
                _USDT,
            ),
        ),
    ),
    Row(
        "Decisions",
        (
            Panel(
                "Intents a minute",
                "What the strategy wanted, by its reason.",
                (_per_minute("gpuscalp_intents_total", "reason"),),
                low=0,
            ),
            Panel(
                "Refusals a minute",
                "Intents that the risk gate refused, by rule (docs/risk.md).",
                (_per_minute("gpuscalp_refusals_total", "rule"),),
                low=0,
            ),
            Panel(
                "Orders sent a minute",
                "By reason.",
                (_per_minute("gpuscalp_orders_sent_total", "reason"),),
                low=0,
            ),
            Panel(
                "Orders ended a minute",
                "By how they ended.",
                (_per_minute("gpuscalp_orders_ended_total", "state"),),
                low=0,
            ),
            Panel(
                "Fills a minute",
                "Makers and takers.",
                (_per_minute("gpuscalp_fills_total", "liquidity"),),
                low=0,
                width=8,
            ),
            Panel(
                "Orders refused by the exchange",
                "A minute, in all and by the code. An alert comes at more than 5 within 5 minutes.",
                (
                    ("60 * rate(gpuscalp_orders_rejected_total{@}[$__rate_interval])", "all"),
                    _per_minute("gpuscalp_order_rejects_total", "code"),
                ),
                low=0,
                width=8,
            ),
            Panel(
                "Open orders", "That have not ended.", (("gpuscalp_open_orders{@}", "open"),), low=0, width=8
            ),
            Panel(
                "Turnover",
                "USDT a minute.",
                (("60 * rate(gpuscalp_turnover_usdt_total{@}[$__rate_interval])", "turnover"),),
                _USDT,
                low=0,
            ),
            Panel(
                "Rows without an intent",
                "A minute, by why.",
                (_per_minute("gpuscalp_skips_total", "reason"),),
                low=0,
            ),
        ),
    ),
    Row(
        "How good it is",
        (
            Panel(
                "Round trips",
                "Opened and closed by this process, after all costs.",
                (("gpuscalp_trades_total{@}", "{{result}}"),),
                low=0,
                width=8,
            ),
            Panel(
                "Sharpe ratio",
                "Of the equity's changes from minute to minute, not annualised, with its "
                "standard error once enough round trips have ended; after 30 minutes. Until "
                "then: the minutes.",
                (
                    ("gpuscalp_sharpe_ratio{@}", "ratio"),
                    ("gpuscalp_sharpe_ratio{@} + gpuscalp_sharpe_error_ratio{@}", "one error above"),
                    ("gpuscalp_sharpe_ratio{@} - gpuscalp_sharpe_error_ratio{@}", "one error below"),
                    (_MINUTES, "minutes so far"),
                ),
                width=8,
            ),
            Panel(
                "What the score has lost",
                "Points, by reason.",
                ((or_none("gpuscalp_score_lost_points{@}", "reason"), "{{part}} {{reason}}"),),
                "none",
                "bars",
                8,
                ((None, "yellow"), (5.0, "orange"), (10.0, "red")),
                low=0,
                high=20,
            ),
            Panel(
                "Parts of the score",
                "20 points each.",
                (("gpuscalp_score_part{@}", "{{part}}"),),
                "none",
                low=0,
                high=20,
                steps=GOOD,
            ),
            Panel(
                "What led the gate to its state",
                "The last event; none while it never left active.",
                ((or_none("gpuscalp_risk_cause{@}", "cause"), "{{cause}}"),),
                "none",
                low=0,
                high=1,
            ),
        ),
    ),
)
