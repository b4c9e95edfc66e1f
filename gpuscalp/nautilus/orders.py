"""Our orders as NautilusTrader's.

Owns: which kind, time in force and price become what. Never: submits.
"""

from __future__ import annotations

from typing import Any, Final

from nautilus_trader.model.enums import OrderSide, TimeInForce, TriggerType

from gpuscalp.execution.messages import OrderRequest
from gpuscalp.nautilus.instruments import price_of, quantity_of
from gpuscalp.orders import Order, OrderKind
from gpuscalp.orders import TimeInForce as Force

_FORCES: Final = {
    Force.GTC: TimeInForce.GTC,
    Force.GTX: TimeInForce.GTC,  # and post_only
    Force.IOC: TimeInForce.IOC,
    Force.FOK: TimeInForce.FOK,
}


def order_of(
    factory: Any,
    asked: Order | OrderRequest,
    instrument: Any,
    client_order_id: Any,
    *,
    market: TimeInForce = TimeInForce.GTC,
) -> Any:
    """Return an order that can be submitted.

    Parameters
    ----------
    factory : the strategy's OrderFactory
    asked : what is wanted; ``price_e8`` is the trigger of a STOP_MARKET
    instrument : Nautilus's
    client_order_id : the exchange knows the order under it
    market : time in force of market orders. Binance is sent none; in a backtest IOC ends what the book lacks
    """
    common: dict[str, Any] = {
        "instrument_id": instrument.id,
        "order_side": OrderSide.BUY if asked.side > 0 else OrderSide.SELL,
        "quantity": quantity_of(asked.qty_e8, instrument.size_precision),
        "reduce_only": asked.reduce_only,
        "client_order_id": client_order_id,
    }
    if asked.kind is OrderKind.MARKET:
        return factory.market(time_in_force=market, **common)
    common["time_in_force"] = _FORCES[asked.time_in_force]
    price = price_of(asked.price_e8, instrument.price_precision)
    if asked.kind is OrderKind.LIMIT:
        return factory.limit(price=price, post_only=asked.time_in_force is Force.GTX, **common)
    return factory.stop_market(trigger_price=price, trigger_type=TriggerType.LAST_PRICE, **common)
