"""Sessions whose orders rest: post-only entries, brackets, rests that are taken; their proof and restart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.records import OrderRecord, decode, encode
from gpuscalp.live.session import Session
from gpuscalp.live.verify import verify
from gpuscalp.orders import OrderKind, TimeInForce
from tests.live import script

ORDERS: dict[str, object] = {
    "orders.entry": "post_only", "orders.post_only_ms": 200, "orders.then": "take",
    "orders.take_profit_bps": 0.4, "orders.stop_loss_bps": 0.3,
    "strategy.min_edge_bps": -1_000.0, "strategy.hold_ms": 2_000, "paper.queue": "probabilistic",
    "paper.request.low_ms": 20.0, "paper.reply.low_ms": 30.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> script.Material:
    return script.write_material(tmp_path_factory.mktemp("material"), seconds=40)


def written(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return what a session decided and heard, without its own id."""
    found = []
    for record in read_records(path / "journal"):
        if record.kind in (RecordKind.VERDICT, RecordKind.ORDER, RecordKind.FILL, RecordKind.STATE):
            body = msgspec.json.decode(record.body)
            body.pop("client_id", None)
            found.append((record.kind, body))
    return found


def test_session_is_proved_and_a_killed_one_goes_on_with_its_orders(
    material: script.Material, tmp_path: Path
) -> None:
    material.replay(tmp_path / "whole", ORDERS)
    sent = Counter(
        (body.get("kind", "market"), body.get("cancel", False))
        for kind, body in written(tmp_path / "whole")
        if kind == RecordKind.ORDER
    )
    for kind in OrderKind:
        assert sent[kind, False] > 10
    assert sent[OrderKind.LIMIT, True] > 10
    assert sent[OrderKind.STOP_MARKET, True] > 10
    proof = verify(tmp_path / "whole")
    assert (proof["differing"], proof["verdicts_differing"], proof["first"]) == (0, 0, None)

    often = {**ORDERS, "session.checkpoint_s": 0.2}
    seen: Counter[str] = Counter()

    def die(session: Session) -> None:
        """Fall over when a bracket is alive, four times."""
        alive = {order.kind for order in session.engine.trader.open_orders.values()}
        seen["bracket"] += OrderKind.STOP_MARKET in alive
        if seen["deaths"] < 4 and OrderKind.STOP_MARKET in alive and seen["bracket"] > 50 * seen["deaths"]:
            seen["deaths"] += 1
            raise script.KilledError

    for _ in range(4):
        with pytest.raises(script.KilledError):
            material.replay(tmp_path / "killed", often, on_step=die)
    material.replay(tmp_path / "killed", often, on_step=die)
    assert written(tmp_path / "killed") == written(tmp_path / "whole")
    assert verify(tmp_path / "killed")["verdicts_differing"] == 0


def test_orders_of_older_journals_are_market_orders(material: script.Material, tmp_path: Path) -> None:
    plain = {"orders.entry": "taker", "orders.then": "leave"}
    bare = {"orders.take_profit_bps": None, "orders.stop_loss_bps": None}
    material.replay(tmp_path / "session", {**ORDERS, **plain, **bare})
    fields = {"order_id", "client_id", "symbol", "side", "qty_e8", "reduce_only", "decided_ns", "sent_ns",
              "mid2_e8", "reason"}  # fmt: skip
    count = 0
    for record in read_records(tmp_path / "session" / "journal"):
        if record.kind == RecordKind.ORDER:
            count += 1
            assert msgspec.json.decode(record.body).keys() == fields, "written as it always was"
            order = decode(record, OrderRecord)
            assert (order.kind, order.time_in_force, order.price_e8) == (OrderKind.MARKET, TimeInForce.IOC, 0)
            assert encode(order) == record.body
    assert count > 10
