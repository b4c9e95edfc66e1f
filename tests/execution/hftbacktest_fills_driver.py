"""Run by an interpreter that has hftbacktest: send a list of orders, write down what became of each.

    python hftbacktest_fills_driver.py OUT.npz ORDERS.npz EXCHANGE:QUEUE,… FILE…

ORDERS.npz holds ``sizes`` (tick size, lot size), ``request_ns`` and ``orders``, int64[n, 7]: id, time, side,
price in ticks, quantity in lots, whether it rests, time of the cancellation (0 = none). One order is alive at
a time. Imports nothing of gpuscalp, which needs a newer NumPy than hftbacktest allows.
"""

from __future__ import annotations

import sys

import numpy as np
from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest
from hftbacktest.order import GTX, IOC, LIMIT
from numba import njit

STEP_NS = 1_000_000


@njit
def play(backtest, orders, tick_size, lot_size, end_after_ns, seen):
    """Fill seen, int64[n, 4], with filled lots, price in ticks and time of the last fill, whether it rested.

    The state of an order tells its last execution only: of several in one instant the others are not seen.
    """
    backtest.elapse(1)  # the clock is only set by the first call
    for row in range(len(orders)):
        number, at_ns, side, ticks, lots, rests, cancel_ns = orders[row]
        if backtest.elapse(at_ns - backtest.current_timestamp) != 0:
            return row
        price, qty, tif = ticks * tick_size, lots * lot_size, GTX if rests else IOC
        if side > 0:
            backtest.submit_buy_order(0, number, price, qty, tif, LIMIT, False)
        else:
            backtest.submit_sell_order(0, number, price, qty, tif, LIMIT, False)
        cancelled = cancel_ns == 0
        until_ns = max(at_ns, cancel_ns) + end_after_ns
        left = lots
        while backtest.current_timestamp < until_ns:
            if not cancelled and backtest.current_timestamp >= cancel_ns:
                order = backtest.orders(0).get(number)
                if order is not None and order.cancellable:
                    backtest.cancel(0, number, False)
                cancelled = True
            step_ns = STEP_NS
            if not cancelled:
                step_ns = min(step_ns, cancel_ns - backtest.current_timestamp)
            if backtest.elapse(step_ns) != 0:
                return row
            order = backtest.orders(0).get(number)
            now_left = round(order.leaves_qty / lot_size)
            if now_left < left:
                left = now_left
                seen[row, 1] = order.arr[0].exec_price_tick
                seen[row, 2], seen[row, 3] = order.exch_timestamp, order.arr[0].maker
        seen[row, 0] = lots - left
        backtest.clear_inactive_orders(0)
    return len(orders)


def main(out: str, given: str, models: str, files: list[str]) -> None:
    stored = np.load(given)
    found = {model: play_with(*model.split(":"), stored, files) for model in models.split(",")}
    np.savez(out, **found)


def play_with(exchange: str, queue: str, stored, files: list[str]) -> np.ndarray:
    tick_size, lot_size = stored["sizes"].tolist()
    asset = (
        BacktestAsset()
        .data(files)
        .linear_asset(1.0)
        .constant_order_latency(int(stored["request_ns"]), 0)
        .trading_value_fee_model(0.0, 0.0)
        .tick_size(tick_size)
        .lot_size(lot_size)
        .last_trades_capacity(0)
    )
    asset = asset.partial_fill_exchange() if exchange == "partial" else asset.no_partial_fill_exchange()
    if queue == "risk_adverse":
        asset = asset.risk_adverse_queue_model()
    else:
        asset = asset.power_prob_queue_model(float(queue.removeprefix("power_prob_")))
    backtest = HashMapMarketDepthBacktest([asset])
    orders = stored["orders"]
    seen = np.zeros((len(orders), 4), np.int64)
    played = play(backtest, orders, tick_size, lot_size, 100_000_000, seen)
    backtest.close()
    assert played == len(orders), f"the data ended at order {played}"
    return seen


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:])
