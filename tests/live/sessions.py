"""A whole session for a test: an exchange on loopback, a model that always buys, and the journal after it.

Nothing is simulated but the exchange: sockets, threads, files and the control socket are those of a real run.
The market says the same for ever, and each of its trades has a quantity of its own, by which it is known
again. The model wants to be long in every symbol at every frame, and a position is held for less than two
frames, so a journal without entries means that the gate was closed.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from gpuscalp.bundle import read_contract
from gpuscalp.config import (
    CostConfig,
    EngineConfig,
    FeatureConfig,
    FeedConfig,
    GridConfig,
    LabelConfig,
    LiveConfig,
    RiskConfig,
    SessionConfig,
    SizingConfig,
    StrategyConfig,
    TrainConfig,
)
from gpuscalp.contract import Interval
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.source import SourceMessage, WholeBook
from gpuscalp.feeds.messages import DepthUpdate, MarkPrice, Ticker, Trade
from gpuscalp.live.control import Request, ask
from gpuscalp.live.run import run_live
from gpuscalp.live.verify import verify
from gpuscalp.schema import E8, NS_PER_MS, Instrument
from tests.handmade import one_split, write_handmade
from tests.live.journals import Story

SYMBOLS = ("BTCUSDT", "ETHUSDT")
VENUE = "binance_usdm"
FRAME_MS = 50
START_MS = 1_700_000_000_000
STEP_MS = 20
TICK_E8, LOT_E8 = E8 // 10, E8 // 1_000
# For what must come true; only a machine that is very busy needs it.
PATIENCE_S = 60.0
DAY_NS = 86_400 * 10**9
# Only windows of eight frames: warm after half a second.
_DROP = ("*.32", "*.128", "*.512", "*.ewm.*", "*.macd.*", "*.spectrum.*")


def instruments(symbols: Sequence[str] = SYMBOLS, venue: str = VENUE) -> tuple[Instrument, ...]:
    return tuple(Instrument(name, venue, TICK_E8, LOT_E8, LOT_E8, 5 * E8, "made by hand") for name in symbols)


class Market:
    """Quotes, book updates, trades and marks of some symbols, one of each every 20 ms; for an hour."""

    def __init__(self, symbols: Sequence[str] = SYMBOLS, *, seconds: int = 3_600) -> None:
        self.instruments = instruments(symbols)
        self._steps = seconds * 1_000 // STEP_MS

    def messages(self) -> Iterator[SourceMessage]:
        start_ns, bid = START_MS * NS_PER_MS, 600_000
        names = [item.symbol for item in self.instruments]
        for name in names:
            sides = [range(bid, bid - 20, -1), range(bid + 1, bid + 21)]
            bids, asks = ([(px * TICK_E8, 5 * E8) for px in side] for side in sides)
            yield WholeBook(name, start_ns, 1, bids, asks)
            yield MarkPrice(name, start_ns, bid * TICK_E8, bid * TICK_E8, 10_000, 0)
        for step in range(1, self._steps):
            at_ns, number, qty = start_ns + step * STEP_MS * NS_PER_MS, 10 * step, (20 + step % 7) * E8
            for name in names:
                yield Ticker(name, at_ns, number, bid * TICK_E8, qty, (bid + 1) * TICK_E8, qty)
                deep = [((bid - 5) * TICK_E8, qty)], [((bid + 6) * TICK_E8, qty)]
                yield DepthUpdate(name, at_ns, number - 9, number, number - 10, *deep)
                side = 1 if step % 2 else -1
                yield Trade(name, at_ns, step, bid * TICK_E8, quantity_e8(step), side, False, True)
                if step % 50 == 0:
                    yield MarkPrice(name, at_ns, bid * TICK_E8, bid * TICK_E8, 10_000, 0)


def quantity_e8(step: int) -> int:
    """Return the quantity of the trade of a step: no other trade has it."""
    return step * LOT_E8


def write_eager_bundle(
    path: Path, symbols: Sequence[str] = SYMBOLS, *, venue: str = VENUE, seed: int = 0, hold_ms: int = 75
) -> Path:
    """Write a bundle whose one member says UP whatever it sees; another seed makes another bundle."""
    config = TrainConfig(
        venue=venue,
        symbols=tuple(symbols),
        grid=GridConfig(frame_ms=FRAME_MS, lateness_ms=5),
        features=FeatureConfig(leader=symbols[0], drop=_DROP),
        label=LabelConfig(horizon_ms=hold_ms, threshold_bps=0.1),
    )
    now_ns = time.time_ns()
    return write_handmade(
        path,
        config,
        lambda names: one_split([0, -2, -2, 0, -1, -1, 0, 2, 2], 0, len(names)),
        trained_on=Interval(now_ns - DAY_NS, now_ns - DAY_NS // 2),
        seed=seed,
    )


def eager_config(feed: FeedConfig | None = None, **parts: Any) -> LiveConfig:
    """Return a configuration under which only doubt stops an entry: no limit of money or mood is near."""
    return LiveConfig(
        **{
            "venue": VENUE,
            "feed": feed or FeedConfig(),
            "strategy": StrategyConfig(order_usdt=600.0, min_confidence=0.4),
            "sizing": SizingConfig(target_volatility_bps="off", kelly_fraction="off", drawdown=False),
            "risk": RiskConfig(
                max_losses="off",
                max_trade_risk_pct="off",
                max_orders_per_s=200,
                max_orders_per_minute=10_000,
                max_quote_age_ms=800,
            ),
            "cost": CostConfig(taker_fee_bps=0.01, maker_fee_bps=0.0),
            "session": SessionConfig(status_ms=100),
            "engine": EngineConfig(deadline_ms=5_000),
        }
        | parts
    )


def feed_of(exchange: Exchange, **changes: Any) -> FeedConfig:
    """Return a feed that listens to an exchange, quick to come back and slow to call a stream silent: a busy
    machine must not look like a broken exchange."""
    stream = exchange.urls["stream"]
    return FeedConfig(
        **{
            "public_url": f"{stream}/public",
            "market_url": f"{stream}/market",
            "rest_url": exchange.urls["rest"],
            "streams": ("trade", "bookTicker", "depth@100ms", "markPrice@1s"),
            "redundancy": 2,
            "backoff_min_ms": 50,
            "backoff_max_ms": 200,
            "reply_timeout_ms": 30_000,
            "clock_interval_ms": 200,
            "clock_limit_ms": 1_500,
        }
        | changes
    )


@dataclass(frozen=True)
class Ended:
    """A session that has ended: its last word, what it wrote, and what repeating it says."""

    path: Path
    status: dict[str, Any]

    @cached_property
    def story(self) -> Story:
        return Story(self.path)

    @cached_property
    def verification(self) -> dict[str, Any]:
        return verify(self.path)

    def check(self, *, whole: bool = True) -> Story:
        """Assert what holds for every session whatever the exchange did; return the story.

        ``whole``: not even what a session can do without has failed.
        """
        found = self.verification
        assert (found["differing"], found["verdicts_differing"]) == (0, 0), found["first"]
        assert found["ended"]
        assert found["frames"] > 0
        assert not whole or self.status["onlookers"] == {"errors": 0, "last": {}}
        self.story.check_no_entry_in_doubt()
        return self.story


class Running:
    """A session in a thread; a context that stops it."""

    def __init__(self, path: Path, config: LiveConfig, bundle: Path) -> None:
        self.path = path
        self.ended: Ended | None = None
        self._error: BaseException | None = None
        self._arguments = (path, config)
        self._bundle = bundle
        self.symbols = read_contract(bundle).training.symbols
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)

    def _run(self) -> None:
        try:
            status = run_live(*self._arguments, model=self._bundle, device="cpu")
            self.ended = Ended(self.path, status)
        except BaseException as error:
            self._error = error

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if not self._thread.is_alive():
            return
        # What went wrong first is what is worth reading.
        with suppress(Exception) if kind else nullcontext():
            self.stop()

    def ask(self, command: str, **more: Any) -> dict[str, Any]:
        return ask(self.path, Request(command, **more), timeout_s=60.0)

    def status(self) -> dict[str, Any] | None:
        """Return the status, None while nobody answers yet."""
        if self._error is not None:
            raise self._error
        try:
            return ask(self.path, Request("status"), timeout_s=30.0)
        except Exception:
            return None

    def wait(
        self, true: Callable[[dict[str, Any]], bool], what: str, *, seconds: float = PATIENCE_S
    ) -> dict[str, Any]:
        """Return the first status of which something is true."""
        until = time.monotonic() + seconds
        status = None
        while time.monotonic() < until:
            status = self.status()
            if status is not None and true(status):
                return status
            time.sleep(0.02)
        raise AssertionError(f"{what} has not come true in {seconds:g} s: {status}")

    def wait_trading(self, *symbols: str) -> None:
        """Return when an order sent from now on has opened a position in each of the symbols, all by default.

        One that was on its way does not count: what a test does now, that order does not know of.
        """
        first = self.wait(lambda status: True, "an answer")
        newest = self._read("SELECT coalesce(max(order_id), 0) FROM orders", ())[0][0]
        filled = "SELECT symbol FROM orders WHERE NOT reduce_only AND state = 'filled' AND order_id > ?"

        def opened(_: dict[str, Any]) -> bool:
            return {*(symbols or self.symbols)} <= {symbol for (symbol,) in self._read(filled, (newest,))}

        self.wait(opened, f"an entry in every symbol ({first['state']})")

    def _read(self, query: str, values: tuple[int, ...]) -> list[Any]:
        """Ask the session's database, which may be read at any time."""
        uri = f"file:{self.path / 'state.sqlite'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as database:
            return database.execute(query, values).fetchall()

    def wait_messages(self, count: int = 200) -> None:
        """Return when so many more messages have become ticks: about half a second of market."""
        before = _taken(self.wait(lambda status: True, "an answer"))
        self.wait(lambda status: _taken(status) >= before + count, f"{count} messages")

    def join(self) -> BaseException | None:
        """Return, when it has ended by itself, of what."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the session does not end"
        return self._error

    def stop(self, **more: Any) -> Ended:
        """Stop it and return what it came to."""
        self.ask("stop", **more)
        self._thread.join(60)
        assert not self._thread.is_alive(), "the session does not end"
        if self._error is not None:
            raise self._error
        assert self.ended is not None
        return self.ended


def _taken(status: dict[str, Any]) -> int:
    return int(status["feeds"]["messages"]["taken"])


def newest_trades(exchange: Exchange) -> list[int]:
    """Return the id of the newest trade of each symbol: the exchange counts them, so it is its step."""
    return exchange.ask(lambda server: [each.trades[-1][0] for each in server.venue.listings.values()])


def check_each_trade_once(story: Story, newest: Sequence[int]) -> None:
    """Assert that every trade of the market from the first one seen to ``newest`` became one tick."""
    assert {each.symbol for each in story.trades} == set(range(len(newest)))
    for symbol, last in enumerate(newest):
        seen = [(each.trade_id, each.qty_e8) for each in story.trades if each.symbol == symbol]
        first, end = seen[0][0], max(last, seen[-1][0])
        told = [(step, quantity_e8(step)) for step in range(first, end + 1)]
        lost, doubled = Counter(told) - Counter(seen), Counter(seen) - Counter(told)
        assert not lost, f"lost: {sorted(lost)[:5]}"
        assert not doubled, f"doubled, or never traded: {sorted(doubled)[:5]}"


class Call(NamedTuple):
    """A REST call that the exchange was asked for, by its monotonic clock, and what it met."""

    at_s: float
    path: str
    fault: str | None


def watch_calls(exchange: Exchange) -> list[Call]:
    """Return a list that grows with every REST call from now on."""
    seen: list[Call] = []

    def install(server: Any) -> None:
        ask_faults = server.faults.for_request

        def asked(path: str) -> Any:
            found = ask_faults(path)
            seen.append(Call(time.monotonic(), path, None if found is None else found.kind))
            return found

        server.faults.for_request = asked

    exchange.ask(install)
    return seen
