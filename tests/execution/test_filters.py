"""Each filter at its edge, with the code that Binance gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpuscalp.config import PaperConfig
from gpuscalp.execution.filters import Reject, SymbolRules, check
from gpuscalp.execution.working import WorkingOrder
from gpuscalp.orders import OrderKind, TimeInForce
from gpuscalp.schema import Instrument

E8 = 10**8
# tick 0.10, step 0.001, at least 0.002 and 100 USDT, at most 1,000 at the market; mark 100, band ±5 %
INSTRUMENT = Instrument(
    "BTCUSDT", "binance_usdm", E8 // 10, E8 // 1_000, E8 // 500, 100 * E8, "exchange_info", 1_000 * E8
)
RULES = SymbolRules.of(INSTRUMENT, PaperConfig())
LIMIT = WorkingOrder(1, 0, 1, E8, 100 * E8, OrderKind.LIMIT, TimeInForce.GTC, reduce_only=False)
MARKET = replace(LIMIT, kind=OrderKind.MARKET, price_e8=0)

CASES = [
    (LIMIT, {}, Reject.NONE),
    (MARKET, {}, Reject.NONE),
    (LIMIT, {"qty_e8": 0}, Reject.QTY_NOT_POSITIVE),
    (LIMIT, {"qty_e8": -E8}, Reject.QTY_NOT_POSITIVE),
    (LIMIT, {"qty_e8": E8 // 1_000}, Reject.MIN_QTY),
    (LIMIT, {"qty_e8": E8 // 500, "reduce_only": True}, Reject.NONE),
    (LIMIT, {"qty_e8": 10_000 * E8}, Reject.NONE),
    (LIMIT, {"qty_e8": 10_000 * E8 + E8 // 1_000}, Reject.MAX_QTY),
    (MARKET, {"qty_e8": 1_000 * E8}, Reject.NONE),
    (MARKET, {"qty_e8": 1_000 * E8 + E8 // 1_000}, Reject.MAX_QTY),
    (LIMIT, {"qty_e8": E8 + 1}, Reject.STEP),
    (LIMIT, {"price_e8": 0}, Reject.PRICE_NOT_POSITIVE),
    (LIMIT, {"price_e8": 100 * E8 + 1}, Reject.TICK),
    (LIMIT, {"price_e8": 105 * E8}, Reject.NONE),
    (LIMIT, {"price_e8": 105 * E8 + E8 // 10}, Reject.PRICE_TOO_HIGH),
    (LIMIT, {"price_e8": 105 * E8 + E8 // 10, "mark_e8": 0}, Reject.NONE),
    (LIMIT, {"price_e8": 200 * E8, "side": -1}, Reject.NONE),
    (LIMIT, {"price_e8": 10 * E8, "qty_e8": 20 * E8}, Reject.NONE),
    (LIMIT, {"price_e8": 95 * E8, "side": -1, "qty_e8": 2 * E8}, Reject.NONE),
    (LIMIT, {"price_e8": 95 * E8 - E8 // 10, "side": -1, "qty_e8": 2 * E8}, Reject.PRICE_TOO_LOW),
    (LIMIT, {"qty_e8": 999 * E8 // 1_000}, Reject.MIN_NOTIONAL),
    (LIMIT, {"qty_e8": 999 * E8 // 1_000, "reduce_only": True}, Reject.NONE),
    (MARKET, {"qty_e8": 999 * E8 // 1_000}, Reject.MIN_NOTIONAL),
    (MARKET, {"qty_e8": 999 * E8 // 1_000, "mark_e8": 0}, Reject.NONE),
]


def _check(rules: SymbolRules, order: WorkingOrder, mark_e8: int = 100 * E8) -> Reject:
    return check(rules, order, price_e8=order.price_e8, mark_e8=mark_e8)


@pytest.mark.parametrize(("order", "change", "code"), CASES)
def test_filter_at_its_edge(order: WorkingOrder, change: dict[str, Any], code: Reject) -> None:
    mark_e8 = change.get("mark_e8", 100 * E8)
    changed = replace(order, **{name: value for name, value in change.items() if name != "mark_e8"})
    assert _check(RULES, changed, mark_e8) is code


def test_largest_market_order_that_is_not_known_refuses_nothing() -> None:
    """It was guessed from the step: whoever was not told it could not keep to it."""
    rules = SymbolRules.of(replace(INSTRUMENT, max_market_qty_e8=0), PaperConfig())
    assert _check(rules, replace(MARKET, qty_e8=10**6 * E8)) is Reject.NONE


def test_band_is_that_of_the_configuration() -> None:
    config = PaperConfig(percent_price_up=1.08, percent_price_down=0.9, market_take_bound=0.03)
    rules = SymbolRules.of(INSTRUMENT, config)
    assert (rules.percent_up_e8, rules.percent_down_e8, rules.take_bound_e8) == (
        108 * E8 // 100,
        90 * E8 // 100,
        3 * E8 // 100,
    )
    # Of limit orders only: a stop waits wherever it is.
    stop = replace(LIMIT, kind=OrderKind.STOP_MARKET, price_e8=500 * E8)
    assert [_check(rules, replace(stop, side=side)) for side in (1, -1)] == [Reject.NONE] * 2
    assert _check(rules, replace(stop, side=-1, price_e8=10 * E8)) is Reject.NONE
