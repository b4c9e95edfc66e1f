# what is imported below needs what is looked for first
"""What a status says of an account: three sides, each as it is, and nothing of a side that is not known."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.nautilus.installed import LIVE
from tests.tools import no_nautilus

if reason := no_nautilus(LIVE):
    pytest.skip(reason, allow_module_level=True)

from gpuscalp.account import Account
from gpuscalp.execution.messages import OrderRequest
from gpuscalp.execution.reconcile import Found
from gpuscalp.execution.remote import RemoteBroker
from gpuscalp.nautilus.status import source_status
from gpuscalp.schema import E8

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


def status(found: Found | None, *, started: bool = True) -> dict[str, Any]:
    broker, ours = RemoteBroker(1_000 * E8, 3), Account(1_000 * E8, 3)
    broker.submit(OrderRequest(1, 0, 1, E8, 50 * E8), 0)
    ours.apply_fill(0, 2 * E8, 50 * E8, E8)
    link: Any = SimpleNamespace(
        rows=SimpleNamespace(unsynced=lambda: (2,)),
        rejects=SimpleNamespace(total=lambda: 4),
        held_e8=lambda: [E8, 0, 0],
        balance_e8=lambda quote: 999 * E8 if quote == "USDT" else None,
    )
    market: Any = SimpleNamespace(
        broker=broker,
        ingest=SimpleNamespace(account=lambda: {"messages": 0, "rejects": 0, "late": 0}),
        input_count=77,
        health=SimpleNamespace(off_tick=(1,)),
    )
    session: Any = SimpleNamespace(
        market=market,
        engine=SimpleNamespace(trader=SimpleNamespace(account=ours, last_order_id=9)),
        about=SimpleNamespace(instruments=[SimpleNamespace(symbol=each) for each in SYMBOLS]),
    )
    account: Any = SimpleNamespace(quote="USDT", other_fees={"BNB": Decimal("0.10")}, others=("XRPUSDT +1",))
    looks: Any = SimpleNamespace(found=found, status=lambda: {"looks": 3})
    words = {"where": "local", "silent": ("ETHUSDT",), "clock": {"drifted": False}}
    return source_status(session, account, looks, link, started=started, **words)


def test_three_sides_are_shown_as_they_are() -> None:
    told = status(Found(998 * E8, [(0, 0), (-3 * E8, 9), (0, 0)]))
    assert told["account"] == {
        "looks": 3,
        "where": "local",
        "positions": [
            {"symbol": "BTCUSDT", "trader": 2.0, "nautilus": 1.0, "exchange": 0.0},
            {"symbol": "ETHUSDT", "trader": 0.0, "nautilus": 0.0, "exchange": -3.0},
        ],
        "balance_usdt": {"trader": 999.0, "nautilus": 999.0, "exchange": 998.0},
        "orders": 1,
        "last_order_id": 9,
        "other_fees": {"BNB": "0.10"},
        "left": None,
        "others": ["XRPUSDT +1"],
    }


def test_what_is_not_known_yet_is_not_shown_as_nothing() -> None:
    told = status(None, started=False)["account"]
    assert told["balance_usdt"] == {"trader": 999.0, "nautilus": None, "exchange": None}
    assert told["positions"] == [{"symbol": "BTCUSDT", "trader": 2.0, "nautilus": 0.0, "exchange": 0.0}]


def test_the_market_is_told_by_name() -> None:
    told = status(None)
    assert told["clock"] == {"drifted": False}
    assert told["feeds"] == {
        "connections": [],
        "messages": {"messages": 77, "rejects": 4, "late": 0},
        "gaps_settled": 0,
        "unsynced": ["SOLUSDT"],
        "silent": ["ETHUSDT"],
        "off_tick": ["ETHUSDT"],
        "snapshots": {"fetched": 0, "refused": 0},
    }
