"""Other futures for the same past: what a detector of look-ahead replaces the rest of the ticks by.

A cut ``at_ns`` divides the ticks twice. By content: a tick dated at or after the cut is future, and its
prices and quantities must not show in a row known at the cut. By arrival: everything after the tick that
moves the watermark past the cut has not arrived when the last of those rows is made, so anything may come
instead.

Owns: the changes. Never: looks at what is made of the ticks.
"""

# ruff: noqa: ARG001 (every future is called in the same way)

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from gpuscalp.schema import NS_PER_MS, NS_PER_S, TickKind, Ticks

# (ticks, index of the first tick that has not arrived at the cut, cut, generator) -> other ticks
Future = Callable[[Ticks, int, int, np.random.Generator], Ticks]

SILENCE_NS: Final = 3_600 * NS_PER_S
DELAY_NS: Final = 1_700 * NS_PER_MS
LATE_SHARE: Final = 0.02


def arrived(ticks: Ticks, at_ns: int, lateness_ns: int) -> int:
    """Return how many ticks have arrived once the watermark has reached the cut: all, if it never does."""
    reached = ticks["exch_ns"] >= at_ns + lateness_ns
    first = int(np.argmax(reached))
    return first + 1 if reached[first] else len(ticks)


def truncated(ticks: Ticks, past: int, at_ns: int, rng: np.random.Generator) -> Ticks:
    """Nothing more arrives."""
    return ticks[:past].copy()


def changed(ticks: Ticks, past: int, at_ns: int, rng: np.random.Generator) -> Ticks:
    """Prices, quantities and sides from the cut on are others; the times stay."""
    out = ticks.copy()
    after = np.flatnonzero(out["exch_ns"] >= at_ns)
    moved = 50 + np.cumsum(rng.integers(-3, 4, len(after)))
    kind = out["kind"][after]
    priced = (kind == TickKind.TRADE) | (kind == TickKind.QUOTE) | (kind == TickKind.BOOK)
    for name in ("px0", "px1"):
        price = out[name][after]
        out[name][after] = np.where(priced & (price > 0), np.maximum(price + moved, 1), price)
    factor = rng.uniform(0.2, 5.0, len(after))
    for name in ("q0", "q1", "q2", "q3"):
        out[name][after] *= np.where(kind == TickKind.MARK, 1.0 + 0.001 * factor, factor)
    trade = kind == TickKind.TRADE
    out["side"][after] = np.where(trade, rng.choice([-1, 1], len(after)), out["side"][after])
    return out


def thinned(ticks: Ticks, past: int, at_ns: int, rng: np.random.Generator) -> Ticks:
    """Half of what has not arrived never does."""
    kept = np.ones(len(ticks), bool)
    kept[past:] = rng.random(len(ticks) - past) < 0.5
    return ticks[kept]


def delayed(ticks: Ticks, past: int, at_ns: int, rng: np.random.Generator) -> Ticks:
    """All that has not arrived happens somewhat later."""
    out = ticks.copy()
    out["exch_ns"][past:] += DELAY_NS
    out["recv_ns"][past:] += DELAY_NS
    return out


def silent(ticks: Ticks, past: int, at_ns: int, rng: np.random.Generator) -> Ticks:
    """A long silence follows."""
    out = ticks.copy()
    out["exch_ns"][past:] += SILENCE_NS
    out["recv_ns"][past:] += SILENCE_NS
    return out


def late(ticks: Ticks, past: int, at_ns: int, rng: np.random.Generator) -> Ticks:
    """Ticks dated before the cut arrive after it, with other prices."""
    before = np.flatnonzero(ticks["exch_ns"][:past] < at_ns)
    count = min(len(before), int(LATE_SHARE * len(ticks)) + 100)
    if count == 0:
        return ticks.copy()
    # The newest of them: an old one could not be mistaken for a recent one.
    again = ticks[before[-count:]].copy()
    again["px0"] = np.maximum(again["px0"] + 40, 1)
    again["px1"] = np.where(again["kind"] == TickKind.TRADE, again["px1"], np.maximum(again["px1"] + 40, 1))
    again["q0"] *= 3.0
    return np.concatenate([ticks[:past], again, ticks[past:]])


FUTURES: Final[dict[str, Future]] = {
    "truncated": truncated,
    "changed": changed,
    "thinned": thinned,
    "delayed": delayed,
    "silent": silent,
    "late": late,
}
