"""The detector on probes whose look-ahead is known, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.errors import ShapeError
from gpuscalp.leakage import FUTURES, Rows, examine
from gpuscalp.leakage.futures import arrived
from gpuscalp.schema import NS_PER_MS, TickKind
from tests.random_ticks import random_ticks

LATENESS_NS = 20 * NS_PER_MS
TICKS = random_ticks(1, 2_000, 2, disorder_ms=15.0)


def running(transform, *, delay_ns=0, **options):
    """Return a probe with one row per arrived tick: known at the newest time seen, plus a delay."""

    def probe(ticks):
        known = np.maximum.accumulate(ticks["exch_ns"])
        value = np.asarray(transform(ticks["px0"].astype(np.float64)))
        key = np.arange(len(ticks))[:, None]
        return Rows(key, known + LATENESS_NS + delay_ns, value.reshape(-1, 1), ("value",), **options)

    return probe


def leaks(probe, **options):
    return examine({"probe": probe}, TICKS, cut_count=8, **options)["probe"].leaks


def test_probe_that_looks_back_only_has_no_leak():
    assert leaks(running(np.maximum.accumulate)) == {}


def test_probe_that_looks_ahead_by_one_row_is_caught():
    found = leaks(running(lambda x: np.append(x[1:], np.nan)))
    assert "became" in found["value"]


def test_row_that_is_known_at_the_very_cut_is_examined():
    """Frames and folds are known at round times, and test intervals begin at cuts: `<` would skip them."""
    cut_ns = int(TICKS["exch_ns"][1_000])

    def probe(known_ns):
        return lambda ticks: Rows(
            np.zeros((1, 1), np.int64), np.array([known_ns]), ticks["px0"][-1:, None] * 1.0, ("value",)
        )

    assert "value" in examine({"probe": probe(cut_ns)}, TICKS, cuts_ns=[cut_ns])["probe"].leaks
    assert examine({"probe": probe(cut_ns + 1)}, TICKS, cuts_ns=[cut_ns])["probe"].leaks == {}


def test_probe_that_is_known_later_than_it_looks_is_honest():
    """A label may look ahead if it says from when it is known."""
    probe = running(lambda x: np.append(x[1:], np.nan))

    def delayed(ticks):
        rows = probe(ticks)
        known = np.append(rows.known_ns[1:], np.iinfo(np.int64).max)
        return Rows(rows.key, known, rows.values, rows.names)

    assert leaks(delayed) == {}


def test_row_that_exists_only_because_of_the_future_is_caught():
    def probe(ticks):
        rows = running(np.maximum.accumulate)(ticks)
        kept = np.arange(len(ticks)) % 7 != len(ticks) % 7
        return Rows(rows.key[kept], rows.known_ns[kept], rows.values[kept], rows.names)

    assert "rows missing" in leaks(probe)["rows"]
    assert leaks(lambda ticks: dataclasses.replace(probe(ticks), complete=False)) == {}


def test_rounding_below_the_tolerance_is_no_leak():
    def noisy(x):
        return x * (1.0 + 1e-12 * len(x))

    assert "value" in leaks(running(noisy))
    assert leaks(running(noisy, tolerance=1e-6)) == {}


def test_missing_value_that_appears_is_a_leak_at_any_tolerance():
    def probe(x):
        return np.where(np.arange(len(x)) == 3, np.nan if len(x) == len(TICKS) else 1.0, x)

    assert "value" in leaks(running(probe, tolerance=10.0))


def test_sign_of_zero_counts_without_tolerance():
    assert "value" in leaks(running(lambda x: np.full(len(x), 0.0 if len(x) == len(TICKS) else -0.0)))


def test_ticks_given_to_a_probe_are_read_only():
    def probe(ticks):
        if not ticks.flags.writeable:
            with pytest.raises(ValueError, match="read-only"):
                ticks["px0"] = 0
        return running(np.maximum.accumulate)(ticks)

    assert leaks(probe) == {}


def test_arrays_that_do_not_belong_together_are_refused():
    def probe(ticks):
        return Rows(np.zeros((3, 1), np.int64), np.zeros(3, np.int64), np.zeros((3, 2)), ("only one",))

    with pytest.raises(ShapeError, match="do not belong together"):
        leaks(probe)


def test_same_key_twice_is_refused():
    def probe(ticks):
        rows = running(np.maximum.accumulate)(ticks)
        return Rows(rows.key // 2, rows.known_ns, rows.values, rows.names)

    with pytest.raises(ShapeError, match="same key"):
        leaks(probe)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.0, 1.0), name=st.sampled_from(sorted(FUTURES)))
def test_every_future_keeps_what_has_arrived_and_what_it_says(seed, share, name):
    ticks = random_ticks(seed, 500, 2, disorder_ms=60.0)
    first, last = int(ticks["exch_ns"].min()), int(ticks["exch_ns"].max())
    cut = first + int(share * (last - first))
    past = arrived(ticks, cut, LATENESS_NS)
    before = ticks.copy()
    other = FUTURES[name](ticks, past, cut, np.random.default_rng(seed))

    assert ticks.tobytes() == before.tobytes()
    # The watermark has reached the cut with the last tick that arrived, and not before.
    seen = np.maximum.accumulate(ticks["exch_ns"][:past]) - LATENESS_NS
    assert past == len(ticks) or (seen[-1] >= cut and (seen[:-1] < cut).all())
    kept = other[:past]
    early = ticks["exch_ns"][:past] < cut
    assert kept[early].tobytes() == ticks[:past][early].tobytes()
    assert (kept["exch_ns"] == ticks["exch_ns"][:past]).all()
    if name != "changed":
        assert kept.tobytes() == ticks[:past].tobytes()
    quotes = other[other["kind"] == TickKind.QUOTE]
    assert (quotes["px0"] > 0).all()
    assert (quotes["px1"] - quotes["px0"] >= 0).all()
