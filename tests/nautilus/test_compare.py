"""The comparison of two runs' orders, as far as no run is needed for it."""

from __future__ import annotations

from gpuscalp.nautilus.compare import _Filled
from gpuscalp.schema import E8


def test_stop_that_was_filled_elsewhere_differs_by_its_price_and_not_by_its_quantity():
    """Each run measures its stop from the mid at its own fill: nothing of the difference was in the price."""
    # Ours sells 2 at 99 where the mid is 99.5, theirs at 97 where it is 97.5.
    mine = _Filled(-1, qty_e8=2 * E8, gross_e8=199 * E8, price_e8=-E8)
    theirs = _Filled(-1, qty_e8=2 * E8, gross_e8=195 * E8, price_e8=-E8)
    theirs.measure_from(mine)
    assert (theirs.gross_e8 - mine.gross_e8, theirs.price_e8 - mine.price_e8) == (0, -4 * E8)
    # Half of it: what is missing is quantity at the same mid.
    half = _Filled(-1, qty_e8=E8, gross_e8=97 * E8 + E8 // 2, price_e8=-E8 // 2)
    half.measure_from(mine)
    assert (half.gross_e8, half.price_e8) == (99 * E8 + E8 // 2, -2 * E8 - E8 // 2)
