"""Which recorded rows are never read: those before a book that says all there is to know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuscalp.backtest.track import Track
from gpuscalp.execution.display import Display
from gpuscalp.schema import TICK, Quality, TickKind
from tests.backtest.market import NOW
from tests.trading import INSTRUMENTS


def row(what: TickKind, at: int, px: tuple[int, int] = (100, 101), **changes: Any) -> np.ndarray:
    made = np.zeros(1, TICK)
    made["exch_ns"], made["recv_ns"], made["kind"] = NOW + at, NOW + at, what
    made["px0"], made["px1"] = px
    made["q0"] = made["q1"] = 5.0
    for name, value in changes.items():
        made[name] = value
    return made


def kept(last: np.ndarray, *more: np.ndarray) -> tuple[int, int]:
    """Return how many rows are kept of a sound book, a trade and the last ones; and the last price."""
    rows = [row(TickKind.BOOK, 1), row(TickKind.TRADE, 2, (77, 0)), last, *more]
    track = Track(INSTRUMENTS[0], lambda first, last: pytest.fail("no levels are needed"))
    track.add(np.concatenate(rows), np.arange(len(rows), dtype=np.int64))
    display = Display()
    track.drop(len(rows), lambda rows, first, stop: pytest.fail("nothing is taken"), idle=display)
    assert track.next_row == 0
    return len(track.ticks), display.last_e8


def test_what_came_before_a_whole_book_is_not_read_but_for_the_last_price() -> None:
    assert kept(row(TickKind.BOOK, 3)) == (1, 77 * INSTRUMENTS[0].tick_size_e8)
    assert kept(row(TickKind.BOOK, 3, exch_ns=NOW + 2), row(TickKind.QUOTE, 4))[0] == 2


@pytest.mark.parametrize(
    "flaw",
    [
        {"quality": Quality.GAP}, {"quality": Quality.RESYNC}, {"quality": Quality.CROSSED}, {"px0": 0},
        {"px1": 100}, {"px1": 99}, {"q0": 0.0}, {"q1": 0.0}, {"exch_ns": NOW + 1}, {"kind": TickKind.QUOTE},
    ],
)  # fmt: skip
def test_book_in_doubt_one_sided_crossed_or_late_does_not_stand_for_what_came_before(flaw: Any) -> None:
    assert kept(row(TickKind.BOOK, 3, **flaw)) == (3, 0)
