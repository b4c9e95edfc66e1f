"""The deciding side for a market and a broker that are somebody else's: rows and reports in, orders out.

Owns: the order in which things reach the engine, and when it is their turn. Pure: time is an argument, and
what comes from outside is handed in.

It stands where ``gpuscalp.live.market.Market`` stands in a session of our own, which decodes messages and
plays the exchange. Here both are done elsewhere: rows come as ticks, orders go out as they are, and what
became of them comes back as reports.

Order of calls: ``push`` and ``tell`` as things happen; ``take`` after each of them; ``engine.step`` with the
Work that it returns, before the next ``take``; what the outcome holds is sent, cancels first. A Work is all
that a step depends on beside the engine's state and the time of its decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, final

import numpy as np

from gpuscalp.batcher import Batcher
from gpuscalp.bundle import Bundle
from gpuscalp.config import BatchConfig, TradingConfig
from gpuscalp.execution.inbox import Inbox
from gpuscalp.execution.messages import Report
from gpuscalp.live.engine import Engine
from gpuscalp.live.market import Work
from gpuscalp.live.records import HealthRecord
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_MS, TICK, Instrument, Ticks
from gpuscalp.trader import Trader

_NO_TICKS: Final = np.zeros(0, TICK)
_HEALTHY: Final = HealthRecord(0.0, drifted=False)
# A backtest has no clock that could make a prediction late.
_NEVER_MS: Final = 1 << 40


@final
class Desk:
    """Decides on S symbols.

    Parameters
    ----------
    engine : fresh
    batch : when a batch closes by size or age, and what gives way in an overload
    frame_ms, lateness_ms : of the model's grid

    Attributes
    ----------
    engine, batcher : the parts, to be read
    unsynced : indices of symbols whose book is not whole; to be set
    """

    def __init__(self, engine: Engine, batch: BatchConfig, *, frame_ms: int, lateness_ms: int) -> None:
        self.engine = engine
        self.batcher = Batcher(batch, frame_ns=frame_ms * NS_PER_MS, lateness_ns=lateness_ms * NS_PER_MS)
        self.unsynced: tuple[int, ...] = ()
        self._inbox = Inbox()
        self._recv_ns = 0

    def push(self, ticks: Ticks, now_ns: int) -> None:
        """Take rows of the market, in the order of arrival.

        Parameters
        ----------
        ticks : TICK[N]
        now_ns : exchange time, as everywhere here
        """
        if len(ticks):
            self.batcher.push(ticks, now_ns)
            self._recv_ns = int(ticks["recv_ns"][-1])

    def tell(self, reports: Iterable[Report]) -> None:
        """Take what has become of orders; in order of ``known_ns``, from when on the engine may know it."""
        self._inbox.put(reports)

    @property
    def closes_ns(self) -> int:
        """The exchange time from which on a row ends the open frame; 0 where there is no need to wait."""
        return self.batcher.closes_ns

    def take(self, now_ns: int, *, force: bool = False) -> Work | None:
        """Return what the engine has to know now; None where nothing is due, unless with ``force``."""
        batch = self.batcher.take(now_ns, force=force)
        reports = self._inbox.due(now_ns)
        if batch is None and not reports and not force:
            return None
        recv_ns, self._recv_ns = self._recv_ns, 0
        return Work(
            now_ns=now_ns,
            ticks=_NO_TICKS if batch is None else batch,
            reports=tuple(reports),
            commands=(),
            health=_HEALTHY,
            unsynced=self.unsynced,
            recv_ns=recv_ns,
        )


def make_desk(
    bundle: Bundle,
    pipeline: FeaturePipeline,
    instruments: Sequence[Instrument],
    config: TradingConfig,
    *,
    session_id: str,
    batch: BatchConfig | None = None,
) -> Desk:
    """Return a desk that has not begun. Without a clock that runs its engine has no deadlines.

    Parameters
    ----------
    bundle : the model, loaded against the graph of ``pipeline``
    instruments : in the order of the bundle's symbols
    config : what the trader goes by
    session_id : goes into the ids under which the exchange knows the orders
    """
    training = bundle.contract.training
    trader = Trader(
        config,
        instruments,
        horizon_ms=training.config.label.horizon_ms,
        trained_until_ns=training.trained_on.end_ns,
    )
    engine = Engine(
        pipeline,
        bundle,
        trader,
        opened=lambda _: bundle,  # a backtest changes no model
        session_id=session_id,
        predict_within_ms=_NEVER_MS,
        deadline_ms=_NEVER_MS,
    )
    grid = training.config.grid
    return Desk(engine, batch or BatchConfig(), frame_ms=grid.frame_ms, lateness_ms=grid.lateness_ms)
