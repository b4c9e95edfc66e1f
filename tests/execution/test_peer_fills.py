"""The same orders on the same market, here and in hftbacktest: every difference is listed and has its cause.

``peer_fills.json`` holds what differs. A change of the paper broker that changes a fill changes that file,
and is made knowingly: with ``GPUSCALP_UPDATE_GOLDEN=1`` this test writes it anew. docs/paper_broker.md says
what the causes mean. A difference without one of them is an error, not a line in the file.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from gpuscalp.schema import TickKind
from tests.archive.test_hftbacktest import interpreter
from tests.execution.peer_fills import REQUEST_NS, Market, Result, make_market, ours, theirs

GOLDEN: Final = Path(__file__).with_name("peer_fills.json")


@dataclass(frozen=True)
class Pair:
    """One way to play the same orders on both sides."""

    rests: bool
    meets: str
    queue: str
    exchange: str
    peer_queue: str


# Name in the file → what is compared. The queue models of both sides pair off.
PAIRS: Final = {
    "taking, the last state against partial fills": Pair(
        False, "last", "pessimistic", "partial", "risk_adverse"
    ),
    "taking, the next state against partial fills": Pair(
        False, "next", "pessimistic", "partial", "risk_adverse"
    ),
    "taking, the last state against whole fills": Pair(False, "last", "pessimistic", "whole", "risk_adverse"),
    "resting, pessimistic": Pair(True, "last", "pessimistic", "partial", "risk_adverse"),
    "resting, proportional": Pair(True, "last", "proportional", "partial", "power_prob_1"),
    "resting, probabilistic": Pair(True, "last", "probabilistic", "partial", "power_prob_3"),
    "resting, pessimistic, the next state": Pair(True, "next", "pessimistic", "partial", "risk_adverse"),
    "resting, pessimistic against whole fills": Pair(True, "last", "pessimistic", "whole", "risk_adverse"),
}


@dataclass(frozen=True)
class Played:
    market: Market
    python: str
    folder: Path
    mine: dict[tuple[str, str], list[Result]]
    peer: dict[tuple[str, str], list[Result]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    python, folder = interpreter(), tmp_path_factory.mktemp("peer")
    market = make_market(folder)
    ways = sorted({(pair.meets, pair.queue) for pair in PAIRS.values()})
    mine = {(meets, queue): ours(market, meets=meets, queue=queue) for meets, queue in ways}
    models = sorted({(pair.exchange, pair.peer_queue) for pair in PAIRS.values()})
    peer = theirs(market, python, folder, models)
    return Played(market, python, folder, mine, peer)


def cause(played: Played, pair: Pair, row: int) -> str:
    """Say why an order was filled otherwise, by taking our assumptions away one by one."""
    order = played.market.orders[row]
    mine = played.mine[pair.meets, pair.queue][row]
    peer = played.peer[pair.exchange, pair.peer_queue][row]
    if pair.meets == "next" and played.mine["last", pair.queue][row] == peer:
        return "next state"
    alone = played.market.around(row)
    if ours(alone, meets=pair.meets, queue=pair.queue) == [peer]:
        return "taken once"
    if pair.rests and beyond_lots(played.market, order, peer) is not None:
        return "trade beyond"
    lots = int(order[4])
    if pair.exchange == "whole" and peer[0] == lots:
        partial = played.peer["partial", pair.peer_queue][row]
        # What their other exchange fills as we do, this one fills at once and at the first price.
        if partial in (mine, *ours(alone, meets=pair.meets, queue=pair.queue)):
            return "whole at once"
    if pair.meets == "next":
        last = replace(pair, meets="last")
        return f"next state, {cause(played, last, row)}"
    raise AssertionError(f"no known cause: order {order.tolist()}, here {mine}, there {peer}")


def beyond_lots(market: Market, order: np.ndarray, peer: Result) -> int | None:
    """Return the size of a trade at the time of the peer's fill that was at a worse price for its taker.

    It is smaller than the order: nobody traded enough at its time to fill it.
    """
    _, _, side, price, lots, _, _ = order.tolist()
    ticks = market.ticks
    now = ticks[(ticks["exch_ns"] == peer[2]) & (ticks["kind"] == TickKind.TRADE)]
    past = now[(now["side"] == -side) & (side * (price - now["px0"]) > 0)]
    size = round(float(past["q0"].sum()) * 1e8 / market.instrument.step_size_e8)
    return size if 0 < size < lots and peer[0] == lots else None


def found(played: Played) -> dict[str, dict[str, object]]:
    answer: dict[str, dict[str, object]] = {}
    for name, pair in PAIRS.items():
        rows = np.flatnonzero(played.market.orders[:, 5] == pair.rests).tolist()
        mine, peer = played.mine[pair.meets, pair.queue], played.peer[pair.exchange, pair.peer_queue]
        differing = [row for row in rows if mine[row] != peer[row]]
        listed = [
            [int(played.market.orders[row, 0]), cause(played, pair, row), shown(played, row, mine),
             shown(played, row, peer)]
            for row in differing
        ]  # fmt: skip
        answer[name] = {
            "orders": len(rows),
            "filled here": sum(mine[row][0] > 0 for row in rows),
            "filled there": sum(peer[row][0] > 0 for row in rows),
            "equal": len(rows) - len(differing),
            "different": listed,
        }
    return answer


def shown(played: Played, row: int, results: list[Result]) -> list[int]:
    """Return filled lots, price in ticks of the last fill, and its time in ns after the order's arrival."""
    lots, price, at_ns, _ = results[row]
    return [lots, price, at_ns - int(played.market.orders[row, 1]) - REQUEST_NS if lots else 0]


@pytest.mark.slow
def test_every_fill_that_differs_is_known_and_has_its_cause(played: Played) -> None:
    answer = found(played)
    if os.environ.get("GPUSCALP_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(_text(answer), encoding="utf-8")
    assert json.loads(GOLDEN.read_text(encoding="utf-8")) == answer, (
        "fills have changed: if that was meant, GPUSCALP_UPDATE_GOLDEN=1 writes the file anew"
    )


@pytest.mark.slow
def test_the_orders_reach_what_the_engines_could_disagree_on(played: Played) -> None:
    mine, orders = played.mine["last", "pessimistic"], played.market.orders
    taken = [(result, order) for result, order in zip(mine, orders, strict=True) if not order[5]]
    assert any(0 < result[0] < order[4] for result, order in taken), "no order is larger than what it meets"
    assert any(result[0] == order[4] == 6_000 for result, order in taken), "no order walks the book"
    rested = [result for result, order in zip(mine, orders, strict=True) if order[5] and result[0]]
    assert len(rested) > 20
    assert all(result[3] for result in rested)
    # Nearly every queue of this market is emptied by one trade, so the models hardly differ; but they do.
    assert played.mine["last", "probabilistic"] != played.mine["last", "proportional"] != mine


def _text(answer: dict[str, dict[str, object]]) -> str:
    """Return JSON with one line per order, so that a change shows as the lines that it changes."""
    blocks = []
    for name, block in answer.items():
        head = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in block.items()][:-1]
        rows = ",\n".join(f"   {json.dumps(row)}" for row in block["different"])  # type: ignore[attr-defined]
        different = f'  "different": [\n{rows}\n  ]' if rows else '  "different": []'
        blocks.append(f" {json.dumps(name)}: {{\n" + "\n".join([*head, different]) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"
