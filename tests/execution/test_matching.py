"""The paper broker against plain loops over single units, on random markets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.execution import naive
from tests.execution.market import BOOK, CANCEL, E8, MS, SUBMIT, TRADE, broker, levels, play
from tests.thorough import examples


def _naive_fills(script: list[tuple]) -> list[list[object]]:  # type: ignore[type-arg]
    oracle = naive.Naive()
    now, number = 0, 0
    for step, kind, *what in script:
        now += step
        if kind == "book":
            bid, gap, bid_qtys, ask_qtys = what
            oracle.on_book(now, levels(bid, -1, bid_qtys), levels(bid + gap, 1, ask_qtys))
        elif kind == "trade":
            oracle.on_trade(now, *what)
        elif kind == "submit":
            number += 1
            side, qty, price, tif, _ = what
            oracle.submit(naive.Order(number, side, qty, price, tif))
        else:
            oracle.cancel(what[0])
    return oracle.fills


@settings(max_examples=examples(400))
@given(st.lists(st.one_of(BOOK, BOOK, TRADE, TRADE, SUBMIT, SUBMIT, CANCEL), min_size=20, max_size=60))
def test_fills_are_those_of_the_plain_loops(script: list[tuple]) -> None:  # type: ignore[type-arg]
    # Requests between two market events, never at the instant of one: the order at one instant is tested
    # elsewhere. Steps are doubled and requests fall on odd milliseconds.
    spread = [(2 * step, *what) for step, *what in script]
    shifted, odd = [], False
    for step, kind, *what in spread:
        wants_odd = kind not in ("book", "trade")
        shifted.append((step + (wants_odd - odd), kind, *what))
        odd = wants_odd
    target = broker(start=10**9)
    plain = [
        (step, kind, *((*what[:-1], False) if kind == "submit" else what)) for step, kind, *what in shifted
    ]
    found = []
    for report in play(target, plain).reports:
        if report.fill is not None:
            fill = report.fill
            key = [fill.exec_ns // MS, fill.order_id, fill.price_e8 // E8]
            if found and found[-1][:3] == key and found[-1][4] == report.maker:
                found[-1][3] += fill.qty_e8 // E8
            else:
                found.append([*key, fill.qty_e8 // E8, report.maker])
    assert found == _naive_fills(plain)
