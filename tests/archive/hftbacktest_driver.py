"""Run by an interpreter that has hftbacktest: validate files, step through them, write down what it sees.

    python hftbacktest_driver.py STEP_NS [OUT.npz TICK_SIZE LOT_SIZE FILE,…]…

Imports nothing of gpuscalp, which needs a newer NumPy than hftbacktest allows.
"""

from __future__ import annotations

import sys

import numpy as np
from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest, ROIVectorMarketDepthBacktest
from hftbacktest.data.validation import validate_event_order
from hftbacktest.types import event_dtype
from numba import njit


@njit
def walk(backtest, step_ns, samples):
    """Fill samples with time, best bid and ask in ticks and their quantities; return their number, that of
    the trades, and how many of them were bought."""
    count = trades = buys = 0
    running = True
    while running:
        running = backtest.elapse(step_ns) == 0
        depth = backtest.depth(0)
        samples[count, 0] = backtest.current_timestamp
        samples[count, 1], samples[count, 2] = depth.best_bid_tick, depth.best_ask_tick
        samples[count, 3] = round(depth.best_bid_qty * 1e8)
        samples[count, 4] = round(depth.best_ask_qty * 1e8)
        for trade in backtest.last_trades(0):
            trades += 1
            buys += (trade.ev & 1 << 29) != 0
        backtest.clear_last_trades(0)
        count += running  # at the end of the data the time stands still while the rest is taken in
    return count, trades, buys


def main(out: str, tick_size: float, lot_size: float, step_ns: int, files: list[str]) -> None:
    found = {}
    prices = []
    for path in files:
        data = np.load(path)["data"]
        assert data.dtype == event_dtype
        validate_event_order(data)
        prices.append(data["px"][data["qty"] > 0])
    low, high = float(np.concatenate(prices).min()), float(np.concatenate(prices).max())
    for name, engine in (("hash", HashMapMarketDepthBacktest), ("roi", ROIVectorMarketDepthBacktest)):
        asset = (
            BacktestAsset()
            .data(files)
            .linear_asset(1.0)
            .constant_order_latency(0, 0)
            .risk_adverse_queue_model()
            .no_partial_fill_exchange()
            .trading_value_fee_model(0.0, 0.0)
            .tick_size(tick_size)
            .lot_size(lot_size)
            .last_trades_capacity(100_000)
        )
        if name == "roi":
            asset.roi_lb(low)
            asset.roi_ub(high)
        backtest = engine([asset])
        samples = np.zeros((100_000, 5), np.int64)
        count, trades, buys = walk(backtest, step_ns, samples)
        backtest.close()
        found[f"{name}_samples"], found[f"{name}_trades"] = samples[:count], np.array([trades, buys])
    np.savez(out, **found)


if __name__ == "__main__":
    # One process for all of them: what is compiled takes longer than what is measured.
    for at in range(2, len(sys.argv), 4):
        out, tick_size, lot_size, files = sys.argv[at : at + 4]
        main(out, float(tick_size), float(lot_size), int(sys.argv[1]), files.split(","))
