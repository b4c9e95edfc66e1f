"""Rows of the synthetic market joined over its slices, for the tests that look at them."""

from __future__ import annotations

import functools

import msgspec
import numpy as np

from gpuscalp.schema import NS_PER_S
from gpuscalp.synthetic import MarketSpec, slices

REPLACE = msgspec.structs.replace
HOUR = MarketSpec(seed=11, duration_s=3_600)
HOUR_WITHOUT_LAG = REPLACE(HOUR, lag_strength=0.0)


@functools.cache
def joined(spec):
    """Return the rows of the whole market: for each symbol, kind → column → array."""
    pieces = list(slices(spec))
    return [
        {
            kind: {
                name: np.concatenate([getattr(piece[symbol], kind)[name] for piece in pieces])
                for name in first
            }
            for kind in ("trades", "quotes", "books", "marks")
            for first in [getattr(pieces[0][symbol], kind)]
        }
        for symbol in range(len(spec.symbols))
    ]


def mids_on_grid(rows, spec, step_ms):
    """Return bid + ask at every grid point: the last quote at or before it."""
    quotes = rows["quotes"]
    grid = np.arange(spec.start_ns, spec.start_ns + spec.duration_s * NS_PER_S, step_ms * 1_000_000)
    last = np.searchsorted(quotes["exch_ns"], grid, side="right") - 1
    return (quotes["bid_px"] + quotes["ask_px"])[last].astype(float)
