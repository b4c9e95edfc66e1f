"""A live session through NautilusTrader's node, in a process of its own, against a served exchange.

The session's process is the real one (``gpuscalp live --broker nautilus``): Nautilus has one logger and one
loop in a process, and a kill has to be a kill. What the exchange knows is read from inside it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.orders import Order
from gpuscalp.exchange.server import ServeSpec
from gpuscalp.exchange.venue import Account
from gpuscalp.journal import read_records
from gpuscalp.live.control import Request, ask
from gpuscalp.schema import E8
from tests.live.sessions import Market

PATIENCE_S = 60.0
# They are looked for afterwards in everything that a session has written.
KEY, SECRET = "PLANTED-key-6f1c0a", "PLANTED-secret-b37e52"
ACCOUNT = Account(KEY, SECRET, 10_000 * E8)

CONFIG = """
broker = "nautilus"

[nautilus]
where = "local"
rest_url = "{rest}"
stream_url = "{stream}"
ws_api_url = "{ws_api}"
look_s = {look_s}
recv_window_ms = 1_000
unknown = "{unknown}"
silent_ms = 3_000
log_level = "INFO"

[feed]
clock_limit_ms = 60_000

[strategy]
order_usdt = 500.0
min_confidence = 0.4
{strategy}

[cost]
taker_fee_bps = 0.01
maker_fee_bps = 0.0

[sizing]
target_volatility_bps = "off"
kelly_fraction = "off"
drawdown = false

[risk]
max_losses = "off"
max_trade_risk_pct = "off"
max_orders_per_s = 200
max_orders_per_minute = 10_000
max_daily_loss_usdt = 5_000.0
max_drawdown_pct = 90.0
max_quote_age_ms = 5_000
{risk}

[session]
checkpoint_s = 3.0
status_ms = 100

[engine]
deadline_ms = 60_000
{more}
"""


def config_of(
    exchange: Exchange,
    path: Path,
    *,
    look_s: float = 5.0,
    unknown: str = "block",
    strategy: str = "",
    risk: str = "",
    more: str = "",
) -> Path:
    """Write a configuration that wants to be long at every frame."""
    urls = {name: exchange.urls[name] for name in ("rest", "stream", "ws_api")}
    parts = {"look_s": look_s, "unknown": unknown, "strategy": strategy, "risk": risk, "more": more}
    path.write_text(CONFIG.format(**urls, **parts))
    return path


def spec_of(speed: float = 1.0) -> ServeSpec:
    return ServeSpec(lenient=True, speed=speed, accounts=(ACCOUNT,))


@contextmanager
def served(speed: float = 1.0, *, rounds: int = 0) -> Iterator[Exchange]:
    """Serve a market as Nautilus's adapter wants it: it opens the old paths on strange hosts."""
    with Exchange(Market(), spec_of(speed)) as exchange:
        if rounds:
            fill_history(exchange, rounds)
        yield exchange


def fill_history(exchange: Exchange, rounds: int) -> None:
    """Turn a position around again and again past the session, from inside: limits of calls do not count."""

    def turn(server: Any) -> None:
        user, desk = user_of(server), server.venue.desk
        now_ms = server.venue.now_ms
        sides = [(1, 1), *((-1, 2) if number % 2 else (1, 2) for number in range(1, rounds)), (1, 1)]
        for number, (side, lots) in enumerate(sides):
            order = Order(
                order_id=desk.next_order_id(),
                client_id=f"by-hand-{number}",
                owner=user.number,
                symbol="BTCUSDT",
                side=side,
                type="MARKET",
                time_in_force="GTC",
                price_e8=0,
                qty_e8=lots * 10_000 * 10,
                created_ms=now_ms,
            )
            desk.place(user, order, now_ms)

    exchange.ask(turn)


class Live:
    """One session; ``start`` as often as wanted."""

    def __init__(self, path: Path, config: Path, bundle: Path) -> None:
        self.path, self._config, self._bundle = path, config, bundle
        self._process: subprocess.Popen[str] | None = None
        self.output = self.errors = ""

    def start(self, *words: str, secret: str = SECRET) -> None:
        env = {**os.environ, "GPUSCALP_LOCAL_API_KEY": KEY, "GPUSCALP_LOCAL_API_SECRET": secret}
        known = (self.path / "session.json").exists()
        begin = [] if known else ["--config", str(self._config), "--model", str(self._bundle)]
        command = ["live", "--session", str(self.path), *begin, "--device", "cpu", "--json"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gpuscalp", *command, "--broker", "nautilus", "--confirm-live", *words],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Live:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._end()
        assert self.written_secrets() == []

    def written_secrets(self) -> list[str]:
        """Return where a key or its secret can be read: files, the journal unpacked, what was printed."""
        texts = {str(each): each.read_bytes() for each in self.path.rglob("*") if each.is_file()}
        if (self.path / "journal").exists():
            texts["journal"] = b"".join(each.body for each in read_records(self.path / "journal"))
        texts["printed"] = (self.output + self.errors).encode()
        return [name for name, text in texts.items() if KEY.encode() in text or SECRET.encode() in text]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def join(self) -> int:
        """Return the exit code when it has ended by itself."""
        assert self._process is not None
        self._end()
        return self._process.returncode

    def kill(self) -> None:
        """End the process as nothing can be prepared for."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._end()

    def stop(self, *, flatten: bool = False) -> dict[str, Any]:
        """Stop it; return its last status."""
        self.ask("stop", flatten=flatten)
        self._end()
        assert self._process is not None
        assert self._process.returncode in (0, 9), self.errors[-3_000:]
        last: dict[str, Any] = json.loads(self.output)
        return last

    def ask(self, command: str, **more: Any) -> dict[str, Any]:
        return ask(self.path, Request(command, **more), timeout_s=60.0)

    def status(self) -> dict[str, Any] | None:
        """Return the status; None while nobody answers yet."""
        assert self._process is not None
        if self._process.poll() is not None:
            self._end()
            raise AssertionError(f"the session has ended: {self.output[-2_000:]} {self.errors[-3_000:]}")
        try:
            return ask(self.path, Request("status"), timeout_s=30.0)
        except Exception:
            return None

    def wait(
        self, true: Callable[[dict[str, Any]], Any], what: str, *, seconds: float = PATIENCE_S
    ) -> dict[str, Any]:
        """Return the first status of which something is true."""
        until, status = time.monotonic() + seconds, None
        while time.monotonic() < until:
            status = self.status()
            if status is not None and true(status):
                return status
            time.sleep(0.02)
        raise AssertionError(f"{what} has not come true in {seconds:g} s: {status}")

    def wait_trading(self, orders: int = 1) -> dict[str, Any]:
        """Return when so many more orders have been sent."""
        before = self.wait(lambda status: True, "an answer")["account"]["last_order_id"]
        return self.wait(
            lambda status: status["account"]["last_order_id"] >= before + orders, f"{orders} orders"
        )

    def wait_entered(self) -> dict[str, Any]:
        """Return when a position has just been opened: its exit is a holding time away."""
        held = {each["symbol"] for each in self.wait(lambda status: True, "an answer")["positions"]}

        def entered(status: dict[str, Any]) -> bool:
            nonlocal held
            before, held = held, {each["symbol"] for each in status["positions"]}
            return bool(held - before)

        return self.wait(entered, "a new position")

    def _end(self) -> None:
        assert self._process is not None
        if not self._process.stdout or self._process.stdout.closed:
            return
        output, errors = self._process.communicate(timeout=60)
        self.output, self.errors = self.output + output, self.errors + errors


def agree(live: Live, exchange: Exchange, *, seconds: float = PATIENCE_S) -> dict[str, Any]:
    """Return a status in which the trader, Nautilus and the exchange agree on positions and balance."""

    def equal(status: dict[str, Any]) -> bool:
        wallet, held = at_exchange(exchange)
        account = status["account"]
        sides = [account["balance_usdt"][name] for name in ("trader", "nautilus")]
        positions = {
            name: {each["symbol"]: each[name] for each in account["positions"] if each[name]}
            for name in ("trader", "nautilus")
        }
        return sides == [wallet, wallet] and positions == {"trader": held, "nautilus": held}

    return live.wait(equal, f"one account on three sides, {at_exchange(exchange)}", seconds=seconds)


def at_exchange(exchange: Exchange) -> tuple[float, dict[str, float]]:
    """Return balance and positions as the exchange's own ledger has them."""

    def look(server: Any) -> tuple[float, dict[str, float]]:
        ledger = user_of(server).ledger
        held = {rules.symbol: position.qty_e8 / 1e8 for rules, _, position in ledger.held()}
        return ledger.account.wallet_e8 / 1e8, held

    return exchange.ask(look)


def user_of(server: Any) -> Any:
    return next(user for user in server.venue.users if user.api_key == KEY)


def sent_orders(exchange: Exchange) -> Counter[str]:
    """Return how often each client id of a session was taken as a new order."""

    def look(server: Any) -> Counter[str]:
        user = user_of(server)
        orders = (*user.open_orders.values(), *user.closed_orders.values())
        return Counter(each.client_id for each in orders if each.client_id.startswith("gs-"))

    return exchange.ask(look)


def open_at_exchange(exchange: Exchange) -> list[tuple[str, str, bool]]:
    """Return client id, type and reduce-only of open orders, conditional ones too."""

    def look(server: Any) -> list[tuple[str, str, bool]]:
        user = user_of(server)
        algos = server.venue.algo.open_orders(user)
        return [
            (each.client_id, each.type, each.reduce_only) for each in (*user.open_orders.values(), *algos)
        ]

    return exchange.ask(look)
