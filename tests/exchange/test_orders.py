from __future__ import annotations

import pytest

from gpuscalp.exchange.orders import Event, Order, Status


def _order(status: Status) -> Order:
    return Order(1, "c", 0, "BTCUSDT", 1, "LIMIT", "GTC", 100, 10, 0, status=status)


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize(
    ("event", "follows"),
    [
        (Event.PART, Status.PARTIALLY_FILLED),
        (Event.FULL, Status.FILLED),
        (Event.AMEND, None),
        (Event.CANCEL, Status.CANCELED),
        (Event.EXPIRE, Status.EXPIRED),
        (Event.PREVENT, Status.EXPIRED_IN_MATCH),
    ],
)
def test_events_move_open_orders_and_no_others(status: Status, event: Event, follows: Status | None) -> None:
    order = _order(status)
    if status in (Status.NEW, Status.PARTIALLY_FILLED):
        order.advance(event, 7)
        assert (order.status, order.updated_ms) == (follows or status, 7)
    else:
        with pytest.raises(AssertionError):
            order.advance(event, 7)
        assert (order.status, order.updated_ms) == (status, 0)


def test_only_new_and_partly_filled_orders_are_open() -> None:
    assert {status for status in Status if _order(status).is_open} == {Status.NEW, Status.PARTIALLY_FILLED}


def test_an_order_fills_in_parts_and_never_beyond_its_quantity() -> None:
    order = _order(Status.NEW)
    order.execute(100, 4, 1)
    assert order.status is Status.PARTIALLY_FILLED
    order.execute(100, 6, 2)
    assert order.status is Status.FILLED
    with pytest.raises(AssertionError):
        order.execute(100, 1, 3)
