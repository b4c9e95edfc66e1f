"""The newest quotes and features of a session, as a status shows them.

Owns: which of the rows are shown. Never: computes one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from gpuscalp.live.session import Session
from gpuscalp.schema import E8

# Symbols whose features a status holds: all columns of all symbols would be most of it.
FEATURE_ROWS_MAX: Final = 6


def quotes_of(session: Session) -> dict[str, Any] | None:
    """Return the last quotes of all symbols, in the order of axis S; null where there was none.

    Returns
    -------
    dict: ``end_ns`` of the frame, ``bid``, ``ask`` and ``age_ms``
    """
    market = session.engine.market
    if market is None:
        return None
    tick = np.array([each.tick_size_e8 for each in session.about.instruments], np.float64)
    prices = np.stack((market.bid_px, market.ask_px)) * tick / E8
    bid, ask = np.where(prices > 0, prices, np.nan).tolist()
    return {"end_ns": market.end_ns, "bid": bid, "ask": ask, "age_ms": market.age_ms.tolist()}


def features_of(session: Session) -> dict[str, Any] | None:
    """Return the features of the symbols with the largest edges, of the first ones where no edge is known.

    Returns
    -------
    dict: ``symbols``, and ``values``, a list for each of them in the order of the model's columns
    """
    engine = session.engine
    if engine.market is None:
        return None
    edges = np.zeros(len(session.about.instruments)) if engine.signals is None else engine.signals.edge_bps
    rows = np.sort(np.argsort(-np.abs(np.nan_to_num(edges)), kind="stable")[:FEATURE_ROWS_MAX])
    return {
        "symbols": [session.about.instruments[index].symbol for index in rows.tolist()],
        "values": engine.stream.there.features[rows, :, 0].tolist(),
    }
