"""The page in a real browser, over a real session against the embedded exchange.

One session for the whole file: it has to train a model first. The tests stand in the order in which a session
can bear them; the last ones kill it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.control import Request, ask, read_status, write_status
from gpuscalp.monitoring.nvml import CardSample
from tests.dashboard.browser import Browser, Page, find_chromium
from tests.dashboard.served import Served, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# For a session that trains its model and compiles its kernels on a busy machine.
START_S = 600.0
WIDE, PHONE = (1280, 900), (390, 844)


class Engine:
    """``gpuscalp live --embedded`` as a process of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start()

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "gpuscalp",
            "live",
            "--embedded",
            "--session",
            str(self.path),
            "--json",
        ]
        self.process = subprocess.Popen(
            [*command, "--device", "cpu"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            assert self.process.poll() is None, "the session has ended"
            try:
                status = ask(self.path, Request("status"), timeout_s=30)
            except Exception:  # it is not there yet
                time.sleep(0.2)
                continue
            if status["frames"] and status["pid"] == self.process.pid and status["signals"]:
                return
            time.sleep(0.2)
        raise AssertionError("the session does not begin")

    def status(self) -> dict[str, Any]:
        """Return what ``gpuscalp status --json`` says."""
        command = [sys.executable, "-m", "gpuscalp", "status", str(self.path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return json.loads(done.stdout)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    find_chromium()  # before anything takes its time
    running = Engine(tmp_path_factory.mktemp("page") / "session")
    yield running
    running.end()


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Served]:
    with served(engine.path) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture
def page(server: Served, browser: Browser) -> Iterator[Page]:
    opened = browser.open(server.url)
    _wait_live(opened)
    yield opened
    opened.close()
    assert opened.complaints == []


def _wait_live(page: Page) -> None:
    page.wait(
        lambda: page.value("document.body?.dataset.life") == "running", "a page that shows a live session"
    )
    page.wait(lambda: page.text("#latency td") != "", "panels")


def _figure(page: Page, key: str) -> float:
    text = page.text(f"#headline dd[data-key={key}]").replace(",", "").replace("−", "-").removesuffix(" %")
    return float(text)


def _commands(engine: Engine) -> list[tuple[str, str]]:
    records = read_records(engine.path / "journal", torn=True)
    bodies = (json.loads(each.body) for each in records if each.kind == RecordKind.CONTROL)
    return [(body["command"], body["by"]) for body in bodies]


def _ask_for(page: Page, command: str, token: str = "") -> None:
    """Open the dialog of a stop, give the token if it is wanted, and confirm."""
    page.click(f"#stops button[data-command={command}]")
    page.wait(lambda: page.value("document.querySelector('#confirm').open"), "the dialog")
    if token:
        page.value("document.querySelector('#token').value = ''")
        page.value("document.querySelector('#token').focus()")
        page.type(token)
    page.click("#really")


def test_every_panel_says_something(page):
    # Waited for, each: on a busy machine some come later than the fills.
    for what, least in (
        ("#fills tbody tr", 2),
        ("#symbol option", 4),
        ("#predictions tbody tr", 4),
        ("#groups .group", 10),
        ("#groups li", 50),
        ("#connections tbody tr", 2),
        ("#log li", 5),
    ):
        count = f"document.querySelectorAll('{what}').length"
        page.wait(lambda: page.value(count) >= least, what, seconds=120)  # noqa: B023  # called here
    for what in ("#symbol option", "#predictions tbody tr"):
        assert page.value(f"document.querySelectorAll('{what}').length") == 4
    assert "on the CPU" in page.text("#cards")
    page.wait(lambda: (page.text("#gate"), page.text("#broker")) == ("ACTIVE", "paper"), "an open gate")
    assert (page.text("#name"), page.text("#market")) == ("session", "synthetic market")
    assert page.value("document.title").endswith(" – session – gpuscalp")
    page.wait(lambda: page.text("#quote").count("/") == 1, "a quote")
    page.wait(lambda: "agreement" in page.text("#signal"), "a prediction")
    for name in ("price", "signal", "equity", "drop", "latency"):
        colours = (
            # On a copy: Chromium warns where a canvas that is drawn on is read again and again.
            f"(() => {{ const c = document.querySelector('#c-{name}');"
            " const o = new OffscreenCanvas(c.width, c.height);"
            " const x = o.getContext('2d', {willReadFrequently: true}); x.drawImage(c, 0, 0);"
            " const d = x.getImageData(0, 0, c.width, c.height).data; const s = new Set();"
            " for (let i = 0; i < d.length; i += 4)"
            " if (d[i + 3] > 250) s.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);"
            " return s.size; })()"
        )
        page.wait(lambda: page.value(colours) >= 3, f"something drawn on {name}")  # noqa: B023  # called here
        assert page.value(f"document.querySelector('#c-{name}').getAttribute('aria-label').length") > 8


def test_another_symbol_is_shown_when_it_is_chosen(page):
    first = page.text("#quote")
    page.value(
        "(() => { const s = document.querySelector('#symbol'); s.value = 'XRPUSDT';"
        " s.dispatchEvent(new Event('change')); })()"
    )
    page.wait(lambda: page.text("#quote") != first and page.text("#quote").startswith("0."), "its price")
    page.wait(lambda: page.text("#feature-symbol") == "XRPUSDT", "its features")
    assert "XRPUSDT" in page.value("document.querySelector('#c-price').getAttribute('aria-label')")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_it_fits_its_window_in_both_themes(page, size, dark, tmp_path):
    page.shape(*size, dark=dark)
    time.sleep(0.7)
    assert page.value("document.documentElement.scrollWidth") <= size[0]
    light = page.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, light[4:-1].split(","))) > 384) is not dark, light
    cut = page.value(
        "[...document.querySelectorAll('button, #headline dd, .badge, h2')].filter((e) => e.offsetParent"
        " && e.scrollWidth > e.clientWidth + 1).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert cut == []
    small = page.value(
        "[...document.querySelectorAll('#stops button')]"
        ".filter((e) => e.getBoundingClientRect().height < 32).length"
    )
    assert small == 0, "too small for a thumb"
    folder = Path(os.environ.get("GPUSCALP_PICTURES", tmp_path))
    picture = folder / f"{'phone' if size == PHONE else 'wide'}-{'dark' if dark else 'light'}.png"
    page.picture(picture)
    assert picture.stat().st_size > 20_000


def test_the_switch_of_colours_overrules_the_system_and_is_remembered(page, server):
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.value(colour)
    page.click("#theme")  # light, as the system has it
    assert page.value(colour) == light
    page.click("#theme")
    assert page.value(colour) != light
    page.call("Page.reload")
    _wait_live(page)
    assert page.value(colour) != light
    page.click("#theme")
    assert page.value(colour) == light


def test_a_stop_is_named_and_can_be_reached_and_left_with_the_keyboard(page, engine):
    for _ in range(20):
        page.press("Tab")
        if page.value("document.activeElement.dataset.command") == "flatten":
            break
    assert page.value("document.activeElement.dataset.command") == "flatten"
    page.press("Enter")
    assert page.value("document.querySelector('#confirm').open")
    assert page.value("document.activeElement.id") == "token"
    assert page.text("#confirm-which") == "session · paper · synthetic market"
    page.press("Escape")
    assert not page.value("document.querySelector('#confirm').open")
    names = page.value(
        "[...document.querySelectorAll('#stops button')].map((e) => e.getAttribute('aria-label'))"
    )
    assert [name.split(":")[0] for name in names] == ["Halt", "Reduce", "Flatten", "Stop"]
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    buttons = {each["name"]["value"] for each in tree if each.get("role", {}).get("value") == "button"}
    assert set(names) <= buttons
    assert page.value("document.querySelector('nav').getAttribute('aria-label')") == "Stops"
    assert _commands(engine) == []
    assert engine.status()["state"] == "active"


def test_a_wrong_token_stops_nothing(server, browser, engine):
    page = browser.open(server.url)
    _wait_live(page)
    _ask_for(page, "halt", "not-the-token")
    page.wait(lambda: "wrong token" in page.text("#refused"), "the refusal")
    assert page.value("document.querySelector('#confirm').open")
    assert engine.status()["state"] == "active"
    assert _commands(engine) == []
    # The browser says so itself of every answer of this kind; there is nothing else.
    assert len(page.complaints) == 1
    assert "401" in page.complaints[0]
    assert page.value("sessionStorage.length") == 0


def test_a_halt_from_the_page_reaches_the_engine_and_asks_for_the_token_once(page, server, engine):
    _ask_for(page, "halt", server.token)
    page.wait(lambda: "the gate is reducing" in page.text("#said"), "the answer")
    assert engine.status()["state"] == "reducing"
    page.wait(lambda: page.text("#gate") == "REDUCING", "the state on the page")
    page.wait(lambda: "asks for: halt" in page.text("#log"), "the log")
    page.click("#stops button[data-command=reduce]")
    assert page.value("document.querySelector('#token-row').hidden")
    # A second press where the first one was must not go through.
    assert page.value("document.activeElement.id") == "cancel"
    page.press("Enter")
    assert not page.value("document.querySelector('#confirm').open")
    assert [command for command, _ in _commands(engine)] == ["halt"]
    assert server.token not in page.value("location.href + document.cookie + JSON.stringify(localStorage)")
    assert (
        page.value("performance.getEntriesByType('resource').map((e) => e.name).join(' ')").count(
            server.token
        )
        == 0
    )


def test_a_flatten_from_the_page_is_in_the_journal_and_the_numbers_are_the_engines(page, server, engine):
    _ask_for(page, "flatten", server.token)
    page.wait(lambda: page.text("#gate") == "HALTED", "the state on the page", seconds=60)
    page.wait(lambda: not engine.status()["flattening"], "all is closed", seconds=60)
    status = engine.status()
    assert (status["state"], status["positions"], status["open_orders"]) == ("halted", [], [])
    command, by = _commands(engine)[-1]
    assert command == "flatten"
    assert by.endswith(" on the dashboard")
    # Nothing moves any more: what stands there is what the engine says now.
    page.wait(lambda: page.text("#positions .none") == "no position", "an empty table")
    time.sleep(1.2)
    for key in ("equity_usdt", "pnl_usdt", "drawdown_pct", "fees_usdt"):
        assert _figure(page, key) == pytest.approx(status[key], abs=0.00501), key
    loss_usdt = max(0.0, status["daily_loss_usdt"])  # a gain is none
    assert _figure(page, "daily_loss_usdt") == pytest.approx(loss_usdt, abs=0.00501)
    assert page.text("#gate-why") == status["cause"].replace("_", " ")
    shown = page.value("document.querySelectorAll('#fills tbody tr').length")
    fills = page.value("[...document.querySelectorAll('#fills tbody tr')].map((e) => e.cells[1].textContent)")
    known = [
        json.loads(each.body)
        for each in read_records(engine.path / "journal", torn=True)
        if each.kind == RecordKind.FILL
    ]
    orders = [str(body["order_id"]) for body in known if body.get("qty_e8")]
    assert fills == orders[-shown:][::-1]


def test_a_killed_engine_is_shown_as_dead_in_three_seconds_and_as_alive_when_it_is_back(page, engine):
    took = []
    while not took or (min(took) >= 3.0 and len(took) < 3):  # a busy machine may stand still for a while
        engine.process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        page.wait(lambda: page.value("document.body?.dataset.life") == "dead", "death", seconds=30)
        took.append(time.monotonic() - killed)
        _check_dead(page)
        assert read_status(engine.path)["running"]  # it has left no word
        engine.process.wait(60)
        engine.start()
        page.wait(lambda: page.value("document.body?.dataset.life") == "running", "life", seconds=60)
    assert min(took) < 3.0, took
    assert page.text("#gate") == "HALTED"  # a stop survives


def _check_dead(page: Page) -> None:
    assert "dead" in page.text("#age")
    assert page.text("#banner").startswith("The engine is dead: process")
    grey = "getComputedStyle(document.querySelector('{}')).filter"
    for selector in ("#headline", "#gate", "#p-positions > .scroll", "#p-price > canvas", "#equity"):
        assert page.value(grey.format(selector)) == "grayscale(1)", selector
    assert page.value(grey.format("#log")) == "none"  # that has happened
    ages = page.value("[...document.querySelectorAll('main h2 .old')].map((e) => e.textContent)")
    assert len(ages) >= 10
    assert all(age.endswith("s old") for age in ages)
    if "GPUSCALP_PICTURES" in os.environ:
        page.picture(Path(os.environ["GPUSCALP_PICTURES"]) / "dead.png")


def test_a_dashboard_that_is_gone_is_told_by_the_page_itself(engine, browser):
    with served(engine.path) as short:
        page = browser.open(short.url)
        _wait_live(page)
    page.wait(lambda: page.value("document.body?.dataset.life") == "deaf", "no contact", seconds=20)
    assert "No contact" in page.text("#banner")


def test_a_stop_from_the_page_ends_the_process(page, server, engine):
    _ask_for(page, "stop", server.token)
    page.wait(lambda: engine.process.poll() is not None, "the end", seconds=60)
    page.wait(lambda: page.value("document.body?.dataset.life") == "ended", "its word", seconds=10)
    assert "on the dashboard" in page.text("#banner")


def test_a_card_and_a_real_account_are_shown_with_what_is_wrong_with_them(server, browser, engine):
    """There is neither here: the session's last word is given both."""
    card = CardSample(
        index=0,
        at_ns=time.time_ns(),
        name="NVIDIA H100",
        gpu_percent=63,
        used_bytes=20 << 30,
        total_bytes=80 << 30,
        celsius=71,
        margin_celsius=16,
        power_watts=412.4,
        power_limit_watts=700.0,
        slowed=("hw_thermal",),
    )
    shown = msgspec.to_builtins(card) | {"failed": [], "doubtful": ["slowdown"]}
    old = shown | {"index": 1, "at_ns": card.at_ns - 90 * 10**9, "doubtful": [], "slowed": []}
    status = read_status(engine.path) | {"written_ns": time.time_ns()}
    account = {"where": "testnet", "strangers": "a position in ETHUSDT", "error": ""}
    status |= {"broker": "nautilus", "account": account, "reason": "<img src=x onerror=alert(1)>"}
    write_status(engine.path, status | {"gpu": {"error": None, "reasons": [], "cards": [shown, old]}})
    page = browser.open(server.url, dark=True)
    page.wait(lambda: "NVIDIA H100" in page.text("#cards"), "the card")
    text = page.text("#cards > div:first-child")
    for part in (
        "63 %",
        "20.0 GiB / 80.0 GiB",
        "71 °C, 16 to slowdown",
        "412 / 700 W",
        "throttled: hw thermal",
    ):
        assert part in text
    assert "⚠ slowdown" in text
    assert page.text("#broker") == "real orders, testnet"
    assert "<img src=x" in page.text("#banner")  # as text
    assert page.value("document.images.length") == 0
    assert "nobody here knows: a position in ETHUSDT" in page.text("#limits")
    assert page.value("document.querySelectorAll('#cards > div.stale').length") == 1
    assert "not throttled" in page.text("#cards > div.stale")
    if "GPUSCALP_PICTURES" in os.environ:
        page.picture(Path(os.environ["GPUSCALP_PICTURES"]) / "cards.png")
    assert page.complaints == []
