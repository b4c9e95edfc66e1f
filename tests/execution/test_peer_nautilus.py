"""The same orders on the same market, here and in NautilusTrader: every difference has its cause.

``peer_fills_nautilus.json`` lists what differs, by version; ``GPUSCALP_UPDATE_GOLDEN=1`` writes the part of
the installed one anew. docs/paper_broker.md says what the causes mean. A difference without one is an error.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from gpuscalp.schema import TickKind
from tests.execution.peer_fills import REQUEST_NS, Market, Result, make_market, ours

GOLDEN: Final = Path(__file__).with_name("peer_fills_nautilus.json")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("nautilus_trader") is None, reason="NautilusTrader is not installed (extra nautilus)"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@dataclass(frozen=True)
class Played:
    market: Market
    version: str
    mine: dict[str, list[Result]]
    peer: list[Result]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    from gpuscalp.nautilus.installed import require
    from tests.execution.peer_nautilus import theirs

    folder, version = tmp_path_factory.mktemp("peer"), require()
    market = make_market(folder)
    peer = theirs(market, folder / "archive", version=version)
    mine = {meets: ours(market, meets=meets, queue="pessimistic") for meets in ("last", "next")}
    return Played(market, version, mine, peer)


def taking_cause(played: Played, row: int) -> str:
    """Say which state of the book made the difference: its model, done over by hand, gives its fill."""
    from tests.execution.peer_nautilus import taken

    assert taken(played.market, row) == played.peer[row], played.market.orders[row].tolist()
    return "recorded books, first event"


def resting_cause(played: Played, row: int) -> str:
    """Say why a resting order was filled otherwise, by what was recorded when it was."""
    order, mine, peer = played.market.orders[row], played.mine["last"][row], played.peer[row]
    _, at_ns, side, price, lots, _, cancel_ns = order.tolist()
    if not peer[0]:
        return "its queue"  # it waits for more than we do
    assert peer[:2] == (lots, price), (order.tolist(), mine, peer)
    assert at_ns + REQUEST_NS <= peer[2] <= cancel_ns + REQUEST_NS + 100_000_000
    ticks = played.market.ticks
    now = ticks[ticks["exch_ns"] == peer[2]]
    trades = now[(now["kind"] == TickKind.TRADE) & (now["side"] == -side)]
    if (side * (price - trades["px0"]) >= 0).any():
        return "its queue"
    assert (now["kind"] == TickKind.BOOK).any(), (order.tolist(), mine, peer)
    book = played.market.books[
        int(((ticks["kind"] == TickKind.BOOK) & (ticks["exch_ns"] <= peer[2])).sum()) - 1
    ]
    other = book[2] if side > 0 else book[0]
    price_e8 = price * played.market.instrument.tick_size_e8
    assert side * (price_e8 - other[0]) >= 0, (order.tolist(), mine, peer)
    return "the book came to it"


def found(played: Played) -> dict[str, Any]:
    orders = played.market.orders
    answer: dict[str, Any] = {}
    for name, rests, meets in (
        ("taking, the last state", False, "last"),
        ("taking, the next state", False, "next"),
        ("resting, pessimistic", True, "last"),
    ):
        rows = np.flatnonzero(orders[:, 5] == rests).tolist()
        mine = played.mine[meets]
        # An order that takes is dated by the event that let it in there, and by its arrival here.
        size = 3 if rests else 2
        differing = [row for row in rows if mine[row][:size] != played.peer[row][:size]]
        cause = resting_cause if rests else taking_cause
        answer[name] = {
            "orders": len(rows),
            "filled here": sum(mine[row][0] > 0 for row in rows),
            "filled there": sum(played.peer[row][0] > 0 for row in rows),
            "equal": len(rows) - len(differing),
            "different": [
                [
                    int(orders[row, 0]),
                    cause(played, row),
                    shown(played, row, mine),
                    shown(played, row, played.peer),
                ]
                for row in differing
            ],
        }
    return answer


def shown(played: Played, row: int, results: list[Result]) -> list[int]:
    """Return filled lots, price in ticks of the last fill, and its time in ns after the order's arrival."""
    lots, price, at_ns, _ = results[row]
    return [lots, price, at_ns - int(played.market.orders[row, 1]) - REQUEST_NS if lots else 0]


def test_every_fill_that_differs_is_known_and_has_its_cause(played: Played) -> None:
    answer, minor = found(played), ".".join(played.version.split(".")[:2])
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    if os.environ.get("GPUSCALP_UPDATE_GOLDEN") == "1":
        golden[minor] = answer
        GOLDEN.write_text(_text(golden), encoding="utf-8")
    assert golden.get(minor) == answer, (
        "fills have changed: if that was meant, GPUSCALP_UPDATE_GOLDEN=1 writes the part of this version anew"
    )


def test_its_model_of_taking_orders_is_understood(played: Played) -> None:
    from tests.execution.peer_nautilus import taken

    rows = np.flatnonzero(played.market.orders[:, 5] == 0).tolist()
    assert [played.peer[row] for row in rows] == [taken(played.market, row) for row in rows]
    assert sum(played.peer[row][0] > 0 for row in rows) > 100


def _text(golden: dict[str, Any]) -> str:
    """Return JSON with one line per order, so that a change shows as the lines that it changes."""
    parts = []
    for version, blocks in sorted(golden.items()):
        made = []
        for name, block in blocks.items():
            head = [f"   {json.dumps(key)}: {json.dumps(block[key])}," for key in block if key != "different"]
            rows = ",\n".join(f"    {json.dumps(row)}" for row in block["different"])
            made.append(
                f"  {json.dumps(name)}: {{\n" + "\n".join(head) + f'\n   "different": [\n{rows}\n   ]\n  }}'
            )
        parts.append(f" {json.dumps(version)}: {{\n" + ",\n".join(made) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"
