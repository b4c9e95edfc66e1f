"""The long run: a node against the exchange for a while, with everything going wrong that may.

    python -m tests.nautilus.soak --minutes 30 --speed 10

Connections are cut, listen keys expire, replies get lost in both ways, and the process is killed in
mid-position again and again. At the end three sides have to agree on positions and balance to the last unit:
the trader, Nautilus and the exchange; no order may be there twice; and the journal has to come out as it was
written. ``--minutes`` are those of the exchange's clock, which runs ``--speed`` times as fast as the wall's.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpuscalp.config import FeatureConfig, GridConfig, LabelConfig, TrainConfig
from gpuscalp.contract import Interval
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import Fault
from gpuscalp.exchange.source import SourceMessage, WholeBook
from gpuscalp.feeds.messages import MarkPrice, Ticker, Trade
from gpuscalp.live.verify import verify
from gpuscalp.schema import E8, NS_PER_MS
from tests.handmade import one_split, write_handmade
from tests.live.sessions import DAY_NS, LOT_E8, SYMBOLS, TICK_E8, VENUE, instruments
from tests.nautilus.harness import Live, agree, at_exchange, config_of, open_at_exchange, sent_orders, spec_of

# A lost reply is found out by a look, and Nautilus's own checks come every five seconds.
APART_S_MAX = 30.0
STEP_MS = 200
FRAME_MS = 500
HOLD_MS = 20_000
ORDERS = """
[orders]
entry = "post_only"
post_only_ms = 4_000
then = "take"
take_profit_bps = 6.0
stop_loss_bps = 6.0
"""
# The clocks of the exchange and of the machine run apart on purpose.
RISK = """
max_clock_error_ms = "off"
max_prediction_age_ms = "off"
max_jump_bps = "off"
max_volatility_bps = "off"
blocked_quality = ["GAP", "RESYNC", "STALE", "CROSSED", "WARM_UP"]
"""
# Each happens once when its turn comes; the path is the one that orders take.
FAULTS = (
    Fault(kind="cut"),
    Fault(kind="timeout_executed", path="/fapi/v1/order", count=1, delay_ms=300),
    Fault(kind="unknown_executed", path="/fapi/v1/order", count=1),
    Fault(kind="listen_key"),
    Fault(kind="timeout_lost", path="/fapi/v1/order", count=1, delay_ms=300),
    Fault(kind="cut"),
    Fault(kind="unknown_lost", path="/fapi/v1/order", count=1),
    Fault(kind="too_many", path="/fapi/v1/order", count=1),
)


class Walk:
    """Two symbols whose prices walk at random, for so many seconds of the exchange's time."""

    def __init__(self, seconds: int, seed: int) -> None:
        self.instruments = instruments()
        self._steps, self._seed = seconds * 1_000 // STEP_MS, seed

    def messages(self) -> Iterator[SourceMessage]:
        dice = random.Random(self._seed)
        start_ns = 1_700_000_000_000 * NS_PER_MS
        bids = dict.fromkeys(SYMBOLS, 600_000)
        for step in range(1, self._steps):
            at_ns = start_ns + step * STEP_MS * NS_PER_MS
            for name in SYMBOLS:
                bid = bids[name] = bids[name] + dice.choice((-60, -5, 0, 0, 5, 60))
                qty, side = (20 + step % 7) * E8, dice.choice((1, -1))
                sides = [range(bid, bid - 20, -1), range(bid + 1, bid + 21)]
                levels = [[(px * TICK_E8, qty) for px in each] for each in sides]
                yield WholeBook(name, at_ns, 10 * step, *levels)
                yield Ticker(name, at_ns, 10 * step + 1, bid * TICK_E8, qty, (bid + 1) * TICK_E8, qty)
                price = (bid + (side > 0)) * TICK_E8
                yield Trade(name, at_ns, step, price, (1 + step % 50) * LOT_E8, side, False, True)
                if step % 5 == 0:
                    yield MarkPrice(name, at_ns, bid * TICK_E8, bid * TICK_E8, 10_000, 0)


def write_bundle(path: Path) -> Path:
    """Write a model that wants to buy at every frame and holds for twenty seconds."""
    config = TrainConfig(
        venue=VENUE,
        symbols=SYMBOLS,
        grid=GridConfig(frame_ms=FRAME_MS, lateness_ms=50),
        features=FeatureConfig(
            leader=SYMBOLS[0], drop=("*.32", "*.128", "*.512", "*.ewm.*", "*.macd.*", "*.spectrum.*")
        ),
        label=LabelConfig(horizon_ms=HOLD_MS, threshold_bps=0.1),
    )
    now_ns = time.time_ns()
    return write_handmade(
        path,
        config,
        lambda names: one_split([0, -2, -2, 0, -1, -1, 0, 2, 2], 0, len(names)),
        trained_on=Interval(now_ns - DAY_NS, now_ns - DAY_NS // 2),
        seed=1,
    )


def soak(
    folder: Path, *, minutes: float, speed: float, kills: int, fault_s: float, seed: int = 7
) -> dict[str, Any]:
    """Run it; return what was seen.

    Parameters
    ----------
    minutes : of the exchange's clock
    speed : how much faster that runs than the wall's
    kills : of the process, spread evenly, each in mid-position
    fault_s : wall time from one fault to the next
    """
    wall_s = 60 * minutes / speed
    bundle = write_bundle(folder / "bundle")
    source = Walk(round(60 * minutes + 300 * speed), seed)
    done: Counter[str] = Counter()
    apart = Apart()
    with Exchange(source, spec_of(speed)) as exchange:
        config = config_of(exchange, folder / "live.toml", look_s=5.0, risk=RISK, more=ORDERS)
        text = config.read_text().replace("max_quote_age_ms = 5_000", "max_quote_age_ms = 600_000")
        config.write_text(text.replace("[session]", "[session]\npredict_within_ms = 600_000"))
        with Live(folder / "session", config, bundle) as live:
            live.wait_trading(2)
            began = time.monotonic()
            fault_due, kill_due, number = fault_s, wall_s / (kills + 1), 0
            while (passed := time.monotonic() - began) < wall_s:
                if passed >= kill_due and done["kill"] < kills:
                    live.wait(lambda status: status["positions"], "a position")
                    live.kill()
                    done["kill"] += 1
                    done["kill in mid-position"] += bool(at_exchange(exchange)[1])
                    live.start()
                    live.wait(lambda status: status["frames"], "an answer")
                    kill_due += wall_s / (kills + 1)
                elif passed >= fault_due:
                    fault = FAULTS[number % len(FAULTS)]
                    exchange.set_fault(fault)
                    done[fault.kind] += 1
                    number, fault_due = number + 1, fault_due + fault_s
                apart.look(live.status())
                time.sleep(0.2)
            ran_s = time.monotonic() - began
            exchange.clear_faults()
            before = agreement(live, exchange)
            live.ask("flatten")
            live.wait(lambda status: not status["positions"] and not status["open_orders"], "flat")
            last = agree(live, exchange)
            left = open_at_exchange(exchange)
            live.stop()
            (folder / "errors.txt").write_text(live.errors)
        orders = sent_orders(exchange)
        wallet, held = at_exchange(exchange)
    found = verify(folder / "session")
    account = last["account"]
    return {
        "wall_s": round(ran_s, 1),
        "exchange_minutes": round(ran_s * speed / 60, 1),
        "speed": speed,
        "happened": dict(done),
        "orders": account["last_order_id"],
        "orders_at_exchange": len(orders),
        "duplicates": sum(count - 1 for count in orders.values()),
        "agreed_in_position": before,
        "longest_apart_s": round(apart.longest_s, 1),
        # The exchange's own ledger; what the session last saw of it is older than its last orders.
        "balance": account["balance_usdt"] | {"exchange": wallet},
        "positions": held,
        "open_orders": left,
        "found_trades": account["found_trades"],
        "repeated_trades": account["repeated_trades"],
        "never_arrived": account["never_arrived"],
        "wallet_differences": account["wallet_differences"],
        "state": last["state"],
        "strangers": account["strangers"],
        "verify": {name: found[name] for name in ("frames", "differing", "verdicts_differing", "first")},
    }


class Apart:
    """For how long at most the trader and Nautilus held different positions, but for restarts."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._since: float | None = None

    def look(self, status: dict[str, Any] | None) -> None:
        now = time.monotonic()
        rows = [] if status is None else status["account"]["positions"]
        if all(each["trader"] == each["nautilus"] for each in rows):
            self._since = None
            return
        self._since = self._since or now
        self.longest_s = max(self.longest_s, now - self._since)


def agreement(live: Live, exchange: Exchange) -> bool:
    """Return whether the three sides agree while positions are held: nothing was tidied up for it."""
    with suppress(AssertionError):
        return bool(agree(live, exchange, seconds=30.0)["positions"] is not None)
    return False


def failures(seen: dict[str, Any]) -> list[str]:
    """Return what should not have been."""
    balance = seen["balance"]
    checks = {
        "an order twice": seen["duplicates"] == 0,
        "balances differ": len(set(balance.values())) == 1,
        "positions left": not seen["positions"],
        "orders left": not seen["open_orders"],
        "the sides did not agree in position": seen["agreed_in_position"],
        "the trader and Nautilus were apart for long": seen["longest_apart_s"] < APART_S_MAX,
        "a stranger": not seen["strangers"],
        "the journal comes out differently": not (
            seen["verify"]["differing"] or seen["verify"]["verdicts_differing"]
        ),
        "no kill in mid-position": seen["happened"].get("kill", 0)
        == seen["happened"].get("kill in mid-position", 0),
    }
    return [what for what, good in checks.items() if not good]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--speed", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--fault-s", type=float, default=10.0)
    parser.add_argument("--keep", type=Path, help="directory for what the session writes")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpuscalp-soak-") as folder:
        path = words.keep or Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        seen = soak(path, minutes=words.minutes, speed=words.speed, kills=words.kills, fault_s=words.fault_s)
    wrong = failures(seen)
    print(json.dumps(seen | {"failures": wrong}, indent=1))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
