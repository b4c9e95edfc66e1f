"""What the page makes of single values, by its own scripts in a real browser: no session runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.dashboard.browser import Browser, Page
from tests.dashboard.conftest import make_still
from tests.dashboard.served import Served, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
DAY_MS = 86_400_000
# 2023-11-14 22:13:20 UTC: another day by then in Auckland.
AT_MS = 1_700_000_000_000
STATUS = {
    "written_ns": AT_MS * 1_000_000,
    "state": "active",
    "cause": None,
    "since_ns": AT_MS * 1_000_000,
    "flattening": False,
    "broker": "paper",
    "market": "synthetic",
    "equity_usdt": 10_006.59,
    "pnl_usdt": 6.59,
    "drawdown_pct": 0.0,
    "daily_loss_usdt": -6.59,
    "fees_usdt": 0.5,
    "positions": [
        {"symbol": "XRPUSDT", "qty": 1816.9, "value_usdt": 999.0, "unrealised_usdt": -0.1},
        {"symbol": "SHIBUSDT", "qty": -123_456_789.0, "value_usdt": -999.0, "unrealised_usdt": -0.1},
    ],
    "open_orders": [{"order_id": 7, "symbol": "XRPUSDT", "side": "sell", "qty": 1816.9}],
}
LIMITS = {
    "max_daily_loss_usdt": 500,
    "max_drawdown_pct": 10,
    "max_gross_usdt": 5_000,
    "max_open_orders_total": 20,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(make_still(tmp_path_factory.mktemp("panels") / "morning")) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Served) -> Iterator[Page]:
    with Browser() as browser:
        opened = browser.open(server.url)
        opened.call("Emulation.setTimezoneOverride", timezoneId="Pacific/Auckland")
        opened.wait(lambda: opened.value("document.body.dataset.life") == "unborn", "word of the server")
        yield opened
        assert opened.complaints == []


def _called(page: Page, script: str, function: str, *arguments: Any) -> Any:
    """Call a function that a script of the page exports."""
    words = ", ".join(json.dumps(each) for each in arguments)
    return page.value(f"import('/page/{script}.js').then((script) => script.{function}({words}))")


def _column(page: Page, table: str, index: int) -> list[str]:
    cells = f"[...document.querySelectorAll('#{table} tr')].map((row) => row.cells[{index}].textContent)"
    found: list[str] = page.value(cells)
    return found


def test_quantities_have_all_their_digits(page: Page) -> None:
    """A position of 1816.9 was shown as 1817, and its order too."""
    _called(page, "panels", "showPositions", STATUS)
    assert _column(page, "positions", 1) == ["quantity", "1,816.9", "−123,456,789"]
    assert _column(page, "open-orders", 3) == ["quantity", "1,816.9"]
    order = {"symbol": "XRPUSDT", "side": 1, "qty": 1816.9, "order_id": 7, "state": "filled", "reason": ""}
    fill = {"price": 0.55012, "fee": 0.1, "realised": 0.0, "at_ms": AT_MS}
    _called(page, "panels", "showOrders", {"orders": [order | {"sent_ms": AT_MS}], "fills": [order | fill]})
    assert _column(page, "orders", 4) == ["quantity", "1,816.9"]
    assert _column(page, "fills", 4) == ["quantity", "1,816.9"]


@pytest.mark.parametrize(("loss_usdt", "shown"), [(-6.59, "0.00"), (6.59, "6.59")])
def test_a_gain_is_no_negative_loss_and_the_day_may_begin_with_a_rearming(
    page: Page, loss_usdt: float, shown: str
) -> None:
    """ "Loss today −6.59" stood beside "Result +6.59"; re-arming had begun the count anew at noon."""
    status = STATUS | {"daily_loss_usdt": loss_usdt}
    _called(page, "panels", "showHeadline", status, "morning")
    assert page.text("#headline dd[data-key=daily_loss_usdt]") == shown
    _called(page, "panels", "showRisk", status, LIMITS, {})
    assert page.text("#limits .bar") == f"day's loss{shown} / 500 USDT"
    assert "since 00:00 UTC or the last re-arming at its limit" in page.text("#limits > p:last-child")


def test_times_are_utc_with_the_date_where_it_is_not_today(page: Page) -> None:
    """They were the browser's, without a word, beside a log and an exchange in UTC."""
    for now_ms, shown in ((AT_MS + 60_000, "22:13:20"), (AT_MS + DAY_MS, "2023-11-14 22:13:20")):
        assert _called(page, "format", "clock", AT_MS, {"nowMs": now_ms}) == shown
    assert _called(page, "format", "clock", AT_MS, {"seconds": False, "date": False}) == "22:13"
    _called(page, "panels", "showHeadline", STATUS, "morning")
    assert page.text("#written") == "2023-11-14 22:13:20 UTC"
    _called(page, "panels", "showRisk", STATUS, LIMITS, {})
    assert "Since 2023-11-14 22:13:20 UTC." in page.text("#limits > p")
    _called(page, "panels", "showOrders", {"orders": [], "fills": []})
    assert page.text("#orders th") == "sent, UTC"
    assert page.text("#fills th") == "filled, UTC"
    assert page.text("#p-log h2") == "Log UTC"


def test_the_head_says_which_session_it_is_and_what_of_it_is_real(page: Page) -> None:
    """Nothing at the top told two sessions apart, or a made-up market from a real one."""
    names = ("#name", "#broker", "#market")
    _called(page, "panels", "showHeadline", STATUS, "morning")
    assert tuple(map(page.text, names)) == ("morning", "paper", "synthetic market")
    real = {"broker": "nautilus", "account": {"where": "testnet"}, "market": "binance_usdm"}
    _called(page, "panels", "showHeadline", STATUS | real, "evening")
    assert tuple(map(page.text, names)) == ("evening", "real orders, testnet", "binance_usdm market")
    # Of a version that did not tell its market.
    old = {name: value for name, value in STATUS.items() if name != "market"}
    _called(page, "panels", "showHeadline", old, "evening")
    assert tuple(map(page.text, names)) == ("evening", "paper", "")


def test_a_stop_asks_with_the_name_of_the_session(page: Page) -> None:
    page.click("#stops button[data-command=flatten]")
    assert page.value("document.querySelector('#confirm').open")
    assert page.text("#confirm-which") == "session"  # the name of its folder
    page.click("#cancel")
    assert not page.value("document.querySelector('#confirm').open")
