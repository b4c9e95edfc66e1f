"""The newest quotes and features of a status, against arrays made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from gpuscalp.live.latest_rows import FEATURE_ROWS_MAX, features_of, quotes_of
from tests.live.sessions import TICK_E8, instruments


def _session(symbols: int, edges: Any = None) -> Any:
    names = [f"S{index}USDT" for index in range(symbols)]
    market = SimpleNamespace(
        end_ns=7,
        bid_px=np.arange(symbols, dtype=np.int32),
        ask_px=np.arange(symbols, dtype=np.int32) * 2,
        age_ms=np.full(symbols, 3.5, np.float32),
    )
    features = np.arange(symbols * 3, dtype=np.float32).reshape(symbols, 3, 1)
    features[0, 1] = np.nan
    signals = None if edges is None else SimpleNamespace(edge_bps=np.array(edges))
    stream = SimpleNamespace(there=SimpleNamespace(features=features))
    engine = SimpleNamespace(market=market, signals=signals, stream=stream)
    return SimpleNamespace(engine=engine, about=SimpleNamespace(instruments=instruments(names)))


def test_quotes_are_prices_and_null_where_there_was_none():
    found = msgspec.json.decode(msgspec.json.encode(quotes_of(_session(3))))
    tick = TICK_E8 / 1e8
    assert found["bid"] == [None, pytest.approx(tick), pytest.approx(2 * tick)]
    assert found["ask"] == [None, pytest.approx(2 * tick), pytest.approx(4 * tick)]
    assert (found["end_ns"], found["age_ms"]) == (7, [3.5, 3.5, 3.5])


def test_features_are_those_of_the_largest_edges_whatever_their_sign():
    edges = [0.0, np.nan, -9.0, 1.0, 8.0, 2.0, 3.0, np.nan, 0.5, 4.0]
    found = features_of(_session(10, edges))
    assert found["symbols"] == [f"S{index}USDT" for index in (2, 3, 4, 5, 6, 9)]
    assert found["values"][0] == [6.0, 7.0, 8.0]


def test_features_are_those_of_the_first_symbols_where_no_edge_is_known():
    found = msgspec.json.decode(msgspec.json.encode(features_of(_session(9))))
    assert found["symbols"] == [f"S{index}USDT" for index in range(FEATURE_ROWS_MAX)]
    assert found["values"][0] == [0.0, None, 2.0]


def test_there_is_nothing_before_the_first_frame():
    session = _session(2)
    session.engine.market = None
    assert quotes_of(session) is None
    assert features_of(session) is None
