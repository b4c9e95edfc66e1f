"""What a configuration assumes of fees, queues and latencies, in words.

Owns: these words. Never: knows the grid (band.py).
"""

from __future__ import annotations

from gpuscalp.config import BacktestConfig, LegConfig


def configured_levels(config: BacktestConfig) -> tuple[str, ...]:
    """Return what it assumes in each dimension of the band, in the order of ``band.DIMENSIONS``."""
    cost, paper = config.cost, config.paper
    return (
        paper.queue,
        f"{leg_name(paper.request)} + {leg_name(paper.reply)}",
        f"{cost.maker_fee_bps:g} / {cost.taker_fee_bps:g} bps",
        leg_name(cost.compute),
    )


def leg_name(leg: LegConfig) -> str:
    """Return how long a leg takes, as a reader wants it."""
    if leg.kind == "fixed":
        return f"{leg.low_ms:g} ms"
    if leg.kind == "uniform":
        return f"{leg.low_ms:g} to {leg.high_ms:g} ms, uniform"
    return f"drawn from {len(leg.samples_ms)} measured times"
