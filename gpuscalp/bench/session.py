"""The configuration under which the session of a benchmark trades: often, and without an end.

Owns: what differs from the defaults and why. Money is plenty and the breakers that latch are out of force: a
made-up model loses, and a halted session would have nothing to do.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gpuscalp.bench.flow import KINDS
from gpuscalp.config import AccountConfig, FeedConfig, LiveConfig, RiskConfig, StrategyConfig

_ENDLESS: Final = 1e12


def live_config(*, redundancy: int = 1, port: int = 0) -> LiveConfig:
    """Return a session's configuration.

    Parameters
    ----------
    redundancy : connections that bring each message
    port : where ``gpuscalp.bench.sender`` listens; 0 where nothing is connected
    """
    stream = f"ws://127.0.0.1:{port}"
    risk = RiskConfig(
        max_gross_usdt=50_000.0,
        max_daily_loss_usdt=_ENDLESS,
        max_drawdown_pct=100.0,
        max_losses="off",
        # Columns that are not warm yet are missing values to the forest: no reason to wait a minute.
        blocked_quality=tuple(name for name in RiskConfig().blocked_quality if name != "WARM_UP"),
    )
    return LiveConfig(
        feed=msgspec.structs.replace(
            FeedConfig(),
            public_url=f"{stream}/public",
            market_url=f"{stream}/market",
            rest_url=f"http://127.0.0.1:{port}",
            redundancy=redundancy,
            streams=KINDS,
        ),
        strategy=StrategyConfig(min_confidence=0.5, min_agreement=0.6),
        account=AccountConfig(start_usdt=1e6),
        risk=risk,
    )
