"""Run by an interpreter that has hftbacktest: its compiled loop over repeated data, with a list of orders.

    python peer_hftbacktest.py OUT.npz GIVEN.npz FILE…

GIVEN.npz is written by ``benchmarks.bench_backtest``. Imports nothing of gpuscalp, which needs a newer NumPy
than hftbacktest allows.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest
from hftbacktest.order import GTX, IOC, LIMIT
from numba import njit


@njit
def play(backtest, orders, tick_size, lot_size, after_ns, end_ns, seen):
    """Send orders at their times, then let the rest of the data pass; return the row of one that broke it.

    Fills seen, int64[n, 3]: whether the order was acknowledged, filled lots, price in ticks of the last fill.
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
        if cancel_ns:
            if backtest.elapse(cancel_ns - backtest.current_timestamp) != 0:
                return row
            order = backtest.orders(0).get(number)
            if order is not None and order.cancellable:
                backtest.cancel(0, number, False)
        if backtest.elapse(after_ns) != 0:
            return row
        order = backtest.orders(0).get(number)
        seen[row, 0] = order.status != 0
        seen[row, 1] = lots - round(order.leaves_qty / lot_size)
        seen[row, 2] = order.exec_price_tick if seen[row, 1] else 0
        backtest.clear_inactive_orders(0)
    backtest.elapse(end_ns - backtest.current_timestamp)
    return len(orders)


def main(out: str, given: str, files: list[str]) -> None:
    stored = np.load(given)
    tick_size, lot_size = stored["sizes"].tolist()
    passes, period_ns = int(stored["passes"]), int(stored["period_ns"])
    one = np.concatenate([np.load(path)["data"] for path in files])
    data = np.tile(one, passes)
    shift = np.repeat(np.arange(passes, dtype=np.int64) * period_ns, len(one))
    data["exch_ts"] += shift
    data["local_ts"] += shift
    end_ns = int(data["local_ts"].max())

    def run(events, orders):
        asset = (
            BacktestAsset()
            .data([events])
            .linear_asset(1.0)
            .constant_order_latency(int(stored["request_ns"]), 0)
            .trading_value_fee_model(0.0, 0.0)
            .tick_size(tick_size)
            .lot_size(lot_size)
            .last_trades_capacity(0)
            .partial_fill_exchange()
        )
        queue = str(stored["queue"])
        if queue == "risk_adverse":
            asset = asset.risk_adverse_queue_model()
        else:
            asset = asset.power_prob_queue_model(float(queue.removeprefix("power_prob_")))
        backtest = HashMapMarketDepthBacktest([asset])
        seen = np.zeros((len(orders), 3), np.int64)
        begin_s = time.perf_counter()
        played = play(backtest, orders, tick_size, lot_size, int(stored["after_ns"]), end_ns, seen)
        seconds = time.perf_counter() - begin_s
        backtest.close()
        return played, seen, seconds

    orders, left_out = stored["orders"], []
    run(one, orders[:1])  # compiles
    while True:
        played, seen, seconds = run(data, orders)
        if played == len(orders):
            break
        # An order that it cannot play to the end (InvalidOrderStatus): it goes on without.
        left_out.append(int(orders[played, 0]))
        orders = np.delete(orders, played, axis=0)
    times = [seconds, *(run(data, orders)[2] for _ in range(int(stored["rounds"]) - 1))]
    np.savez(out, seen=seen, seconds=np.array(times), events=len(data), left_out=np.array(left_out, np.int64))


if __name__ == "__main__":
    main(*sys.argv[1:3], sys.argv[3:])
