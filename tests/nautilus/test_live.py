"""``gpuscalp live --broker nautilus`` against an exchange on loopback, from its start to a kill and after."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gpuscalp.errors import UsageError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import Fault
from gpuscalp.execution.messages import ReportKind
from gpuscalp.execution.remote import Heard
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.control import read_status
from gpuscalp.live.records import decode
from gpuscalp.live.verify import verify
from gpuscalp.live.view import table
from gpuscalp.nautilus.installed import LIVE
from tests.exchange.scripted import talking
from tests.live.sessions import write_eager_bundle
from tests.nautilus.harness import (
    ACCOUNT,
    Live,
    agree,
    at_exchange,
    config_of,
    open_at_exchange,
    sent_orders,
    served,
)
from tests.tools import no_nautilus

pytestmark = pytest.mark.skipif(bool(no_nautilus(LIVE)), reason=no_nautilus(LIVE))


@pytest.fixture(scope="module")
def slow_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that wants to buy at every frame and holds for two seconds."""
    return write_eager_bundle(tmp_path_factory.mktemp("slow") / "bundle", hold_ms=2_000)


def test_cuts_lost_replies_and_a_kill_in_mid_position(tmp_path: Path, slow_bundle: Path) -> None:
    with (
        served() as exchange,
        Live(
            tmp_path / "session", config_of(exchange, tmp_path / "live.toml", look_s=2.0), slow_bundle
        ) as live,
    ):
        live.wait_trading(2)
        # Its stream is back after a second attempt; before that nothing is opened.
        exchange.set_fault(Fault(kind="unknown_lost", path="/fapi/v1/listenKey", count=1))
        exchange.set_fault(Fault(kind="cut"))
        live.wait_trading(6)
        # Carried out without an answer, and neither carried out nor answered: asked about, not sent again.
        for kind in ("unknown_executed", "timeout_lost"):
            exchange.set_fault(Fault(kind=kind, path="/fapi/v1/order", count=1, delay_ms=200))
        live.wait_trading(4)
        live.wait(lambda status: status["account"]["never_arrived"], "an order that never arrived")
        live.wait_entered()
        live.kill()
        before = at_exchange(exchange)[1]
        live.start()
        live.wait_trading(4)
        assert before, "it was to die in a position"
        live.ask("flatten")
        last = agree(live, exchange)
        live.stop()
        counts = sent_orders(exchange)
    assert max(counts.values()) == 1, counts
    lost = [each for each in heard(tmp_path / "session") if each.kind is ReportKind.REJECTED]
    assert 1 <= len(lost) <= 2, "one never arrived, and one more if the kill came between pen and wire"
    assert len(counts) == last["account"]["last_order_id"] - len(lost)
    found = verify(tmp_path / "session")
    assert (found["differing"], found["verdicts_differing"]) == (0, 0), found["first"]
    assert found["frames"] > 100


def test_post_only_entries_with_a_bracket_and_a_kill(tmp_path: Path, slow_bundle: Path) -> None:
    orders = (
        '[orders]\nentry = "post_only"\npost_only_ms = 300\nthen = "take"\n'
        "take_profit_bps = 500.0\nstop_loss_bps = 500.0\n"
    )
    with (
        served() as exchange,
        Live(
            tmp_path / "session",
            config_of(exchange, tmp_path / "live.toml", look_s=2.0, more=orders),
            slow_bundle,
        ) as live,
    ):

        def protected(_: object) -> bool:
            kinds = {(kind, closes) for _, kind, closes in open_at_exchange(exchange)}
            return kinds >= {("LIMIT", True), ("STOP_MARKET", True)}

        live.wait(protected, "a bracket")
        live.wait_entered()
        live.wait(protected, "a bracket")
        live.kill()
        live.start()
        live.wait_trading(6)
        live.ask("flatten")
        live.wait(lambda status: not status["positions"] and not status["open_orders"], "flat")
        last = agree(live, exchange)
        assert open_at_exchange(exchange) == []
        live.stop()
        counts = sent_orders(exchange)
    assert max(counts.values()) == 1, counts
    assert not last["account"]["strangers"]
    found = verify(tmp_path / "session")
    assert (found["differing"], found["verdicts_differing"]) == (0, 0), found["first"]


@contextmanager
def resting_entries(tmp_path: Path, bundle: Path) -> Iterator[tuple[Exchange, Live]]:
    """A session whose entries rest, and have a stop loss once they are filled."""
    orders = '[orders]\nentry = "post_only"\npost_only_ms = 10000\nstop_loss_bps = 500.0\n'
    with served() as exchange:
        config = config_of(exchange, tmp_path / "live.toml", more=orders)
        with Live(tmp_path / "session", config, bundle) as live:
            yield exchange, live


def test_a_stop_leaves_no_entry_that_rests(tmp_path: Path, slow_bundle: Path) -> None:
    with resting_entries(tmp_path, slow_bundle) as (exchange, live):

        def entries() -> list[Any]:
            return [each for each in open_at_exchange(exchange) if each[1:] == ("LIMIT", False)]

        live.wait(lambda _: bool(entries()), "an entry that rests")
        live.stop()
        assert entries() == []


def test_a_stop_that_waits_sends_no_entry(tmp_path: Path, slow_bundle: Path) -> None:
    """The frames that closed meanwhile sent entries, which were filled when no process was there any more."""
    with resting_entries(tmp_path, slow_bundle) as (exchange, live):
        live.wait(lambda _: bool(open_at_exchange(exchange)), "an entry that rests")
        # No cancellation gets through for a while: the end waits, frames go on closing, and books change.
        exchange.set_fault(Fault(kind="timeout_lost", path="/fapi/v1/order", count=2, delay_ms=1_500))
        live.ask("stop")
        assert live.join() == 0
        assert [each for each in open_at_exchange(exchange) if not each[2]] == []
        decided = read_status(tmp_path / "session")["account"]["last_order_id"]
        assert decided > len(sent_orders(exchange)), "the trader wanted to enter again"
        live.start()
        live.wait(lambda status: status["account"]["never_arrived"], "the end of what was not sent")
        live.wait_trading()
        live.ask("stop", flatten=True)
        assert live.join() == 9, "the flattening has closed the gate"
        assert at_exchange(exchange)[1] == {}
    found = verify(tmp_path / "session")
    assert (found["differing"], found["verdicts_differing"]) == (0, 0), found["first"]


def test_strangers_block_until_they_are_adopted(tmp_path: Path, slow_bundle: Path) -> None:
    with served() as exchange:
        place(exchange, symbol="ETHUSDT", quantity="0.010")
        place(exchange, type="LIMIT", price="50000", quantity="0.020", timeInForce="GTC")
        config = config_of(exchange, tmp_path / "live.toml", look_s=1.0)
        with Live(tmp_path / "session", config, slow_bundle) as live:
            blocked = live.wait(lambda status: status["account"]["blocked"], "a stranger")
            assert (blocked["state"], blocked["cause"]) == ("reducing", "stranger")
            assert "position ETHUSDT +0.01" in blocked["account"]["strangers"]
            assert "order BTCUSDT" in blocked["account"]["strangers"]
            assert "nobody here knows: position ETHUSDT" in shown(blocked)
            live.wait(lambda status: status["frames"] > blocked["frames"] + 60, "more frames")
            assert blocked["account"]["last_order_id"] == 0
            with pytest.raises(UsageError, match="nobody here knows"):
                live.ask("resume")
            assert live.ask("adopt") == {"command": "adopt", "left": "", "state": "reducing"}
            assert open_at_exchange(exchange) == []
            agree(live, exchange)
            found = live.status()
            assert found is not None
            assert found["state"] == "reducing", "the end of their order alarms nobody"
            assert live.ask("resume")["state"] == "active"
            live.wait_trading(2)
            # Somebody trades by hand beside us: nothing is opened until it is looked into. What is held runs
            # to its end; once it was halted with the gate, without exits.
            live.wait_entered()
            place(exchange, quantity="0.005")
            closed = live.wait(lambda status: status["state"] != "active", "a closed gate")
            assert (closed["state"], closed["cause"]) == ("reducing", "alarm")
            live.wait(lambda status: not status["positions"], "the end of ours")
            assert live.ask("adopt")["left"] == ""
            live.wait(lambda status: not status["positions"] and not at_exchange(exchange)[1], "flat")
            assert agree(live, exchange)["state"] == "reducing"
            live.stop()
    found = verify(tmp_path / "session")
    assert (found["differing"], found["verdicts_differing"]) == (0, 0), found["first"]


def test_strangers_are_closed_by_rule(tmp_path: Path, slow_bundle: Path) -> None:
    with served() as exchange:
        place(exchange, symbol="ETHUSDT", side="SELL", quantity="0.010")
        config = config_of(exchange, tmp_path / "live.toml", look_s=1.0, unknown="close")
        with Live(tmp_path / "session", config, slow_bundle) as live:
            live.wait(lambda status: "ETHUSDT" in str(status["positions"]), "the position")
            status = live.wait_trading(2)
            assert status["state"] == "active"
            agree(live, exchange)
            live.stop()


def test_a_position_closed_by_hand_and_unheard_is_found_by_its_refused_exit(
    tmp_path: Path, slow_bundle: Path
) -> None:
    """The exit was refused and sent again at every frame, and no look ever compared the symbol."""
    with served() as exchange:
        config = config_of(
            exchange, tmp_path / "live.toml", look_s=60.0, unknown="adopt", strategy="hold_ms = 4_000"
        )
        with Live(tmp_path / "session", config, slow_bundle) as live:

            def equal(status: dict[str, Any]) -> bool:
                held = {each["symbol"]: each["trader"] for each in status["account"]["positions"]}
                return {symbol: qty for symbol, qty in held.items() if qty} == at_exchange(exchange)[1]

            live.wait_entered()
            symbol, qty = next(iter(at_exchange(exchange)[1].items()))
            exchange.set_fault(Fault(kind="drop"))
            place(exchange, "SELL", symbol=symbol, quantity=str(qty), reduceOnly="true")
            exchange.clear_faults()
            before = live.wait(lambda status: not equal(status), "a difference")
            after = live.wait(equal, "the same on both sides")
            sent = [each["account"]["last_order_id"] for each in (before, after)]
            assert sent[0] < sent[1] < sent[0] + 20, "20 frames a second were 20 exits a second"
            live.stop()


def test_a_long_history_of_the_account_leaves_nothing_in_nautilus(tmp_path: Path, slow_bundle: Path) -> None:
    """After a cut Nautilus once kept a position that had been open a thousand orders before."""
    with served(rounds=1_102) as exchange:
        config = config_of(exchange, tmp_path / "live.toml", look_s=2.0)
        with Live(tmp_path / "session", config, slow_bundle) as live:
            live.wait_entered()
            exchange.set_fault(Fault(kind="cut"))
            live.wait_trading(4)
            live.ask("flatten")
            live.wait(lambda status: not status["positions"], "flat")
            agree(live, exchange, seconds=10.0)
            live.stop()


def test_a_wrong_secret_is_said_and_not_shown(tmp_path: Path, slow_bundle: Path) -> None:
    with served() as exchange:
        live = Live(tmp_path / "session", config_of(exchange, tmp_path / "live.toml"), slow_bundle)
        live.start(secret="PLANTED-secret-b37e52-and-more")
        assert live.join() == 1
    assert "the account cannot be looked at" in live.errors + live.output
    assert live.written_secrets() == []


def heard(session: Path) -> list[Heard]:
    """Return what the session has written of the exchange's words."""
    records = read_records(session / "journal")
    return [decode(each, Heard) for each in records if each.kind == RecordKind.HEARD]


def shown(status: dict[str, Any]) -> str:
    """Return what `gpuscalp status` prints."""
    console = Console(width=400, file=io.StringIO())
    console.print(table(status))
    return console.file.getvalue()  # type: ignore[attr-defined]


def place(exchange: Exchange, side: str = "BUY", **params: Any) -> None:
    """Place an order past the session, as the account's owner may."""

    async def work() -> None:
        async with talking(exchange, account=ACCOUNT) as client:
            status, reply = await client.order(side, **params)
            assert status == 200, reply

    asyncio.run(work())
