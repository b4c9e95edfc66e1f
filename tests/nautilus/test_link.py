# what is imported below needs what is looked for first
"""What passes between a session and NautilusTrader, without a node: subscriptions, orders, what it counts."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.nautilus.installed import LIVE
from tests.tools import no_nautilus

if reason := no_nautilus(LIVE):
    pytest.skip(reason, allow_module_level=True)

from nautilus_trader.adapters.binance import BINANCE
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.enums import BookType
from nautilus_trader.model.identifiers import ClientId, ClientOrderId
from nautilus_trader.model.objects import Money, Quantity

from gpuscalp.execution.messages import OrderRequest
from gpuscalp.nautilus import link
from gpuscalp.nautilus.link import Link
from gpuscalp.schema import E8


def knowing(**cache: Any) -> Any:
    """Return a link whose cache answers so."""
    return SimpleNamespace(_names=("A", "B"), cache=SimpleNamespace(**cache))


def test_every_symbol_is_subscribed_to_before_the_session_is_told() -> None:
    told: list[Any] = []

    def subscribe(what: str) -> Any:
        return lambda *words, **more: told.append((what, *words, more))

    linked = knowing(instrument=lambda name: f"instrument {name}")
    linked.subscribe_trade_ticks, linked.subscribe_quote_ticks = subscribe("trades"), subscribe("quotes")
    linked.subscribe_order_book_deltas = subscribe("book")
    linked.subscribe_data = lambda kind, **more: told.append(("marks", kind.metadata["instrument_id"], more))
    linked._hearer = SimpleNamespace(on_started=lambda: told.append("started"))
    Link.on_start(linked)
    # The best levels whole: of a difference that is lost Nautilus does not tell.
    book = {"depth": 20, "managed": False, "params": {"update_speed": 100}}
    assert told == [
        each
        for name in ("A", "B")
        for each in (
            ("trades", name, {}),
            ("quotes", name, {}),
            ("book", name, BookType.L2_MBP, book),
            ("marks", name, {"client_id": ClientId(BINANCE)}),
        )
    ] + ["started"]
    assert linked._found == ["instrument A", "instrument B"]


@pytest.mark.parametrize(
    ("found", "complete"), [([], False), (["A", None], False), ([None, "B"], False), (["A", "B"], True)]
)
def test_a_symbol_that_nautilus_has_not_found_is_missed(found: list[Any], complete: bool) -> None:
    assert Link.complete.fget(SimpleNamespace(_found=found)) is complete  # type: ignore[attr-defined]


def test_an_order_leaves_under_its_name_and_for_its_symbol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "order_of", lambda *parts: parts)
    sent: list[Any] = []
    linked = SimpleNamespace(_found=["A", "B"], order_factory="factory", submit_order=sent.append)
    request = OrderRequest(7, 1, 1, E8, 50 * E8)
    Link.send(linked, request, "gs-s-7")
    assert sent == [("factory", request, "B", ClientOrderId("gs-s-7"))]


def test_what_nautilus_counts_of_an_order() -> None:
    orders = {"gs-s-1": SimpleNamespace(filled_qty=Quantity.from_str("0.123"), is_closed=True)}
    linked = knowing(order=orders.get)
    assert [Link.filled_e8(linked, name) for name in ("gs-s-1", "gs-s-2")] == [12_300_000, 0]
    assert [Link.is_closed(linked, name) for name in ("gs-s-1", "gs-s-2")] == [True, False]
    orders["gs-s-1"].is_closed = False
    assert not Link.is_closed(linked, "gs-s-1")


def test_what_nautilus_holds_is_net_and_exact() -> None:
    """Beside the position it may have another one of the same symbol, which corrects it."""
    held = {"A": ["0.00000003", "-0.1"], "B": []}

    def positions_open(*, instrument_id: str) -> list[Any]:
        return [
            SimpleNamespace(signed_decimal_qty=lambda qty=qty: Decimal(qty)) for qty in held[instrument_id]
        ]

    assert Link.held_e8(knowing(positions_open=positions_open)) == [3 - 10_000_000, 0]


@pytest.mark.parametrize(
    ("account", "balance_e8"),
    [
        (None, None),
        (SimpleNamespace(balance_total=lambda _: None), None),
        (SimpleNamespace(balance_total=lambda unit: Money("12.34", unit)), 12 * E8 + 34 * E8 // 100),
    ],
)
def test_a_balance_that_nautilus_does_not_know_is_none(account: Any, balance_e8: int | None) -> None:
    linked = knowing(account_for_venue=lambda venue: account if venue == BINANCE else 1 / 0)
    linked._names = (SimpleNamespace(venue=BINANCE),)
    assert Link.balance_e8(linked, str(USDT)) == balance_e8
