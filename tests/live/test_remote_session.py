"""A session whose ticks and fills come from somewhere else, driven by hand: what is written, and restarts.

The exchange is twenty lines: it fills an order at the next step, by a trade with a number of its own, and
tells every trade twice.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from gpuscalp.config import LiveConfig
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.execution.remote import Heard, RemoteBroker
from gpuscalp.feeds.market import SymbolMarket
from gpuscalp.feeds.messages import DepthSnapshot, MarkPrice, Ticker, Trade
from gpuscalp.feeds.ticks import TickBuffer, TickSink
from gpuscalp.journal import Record, RecordKind, read_records
from gpuscalp.live.directory import create
from gpuscalp.live.records import Command, HealthRecord, OrderRecord, StateRecord, decode
from gpuscalp.live.session import Session
from gpuscalp.live.verify import verify
from gpuscalp.risk.gate import RiskEvent, RiskState
from gpuscalp.schema import E8, NS_PER_MS, Ticks
from tests.live.sessions import LOT_E8, SYMBOLS, TICK_E8, eager_config, instruments, write_eager_bundle

START_NS = time.time_ns() // 10**9 * 10**9  # the model must not be old
STEP_NS = 20 * NS_PER_MS
STEPS = 260


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_eager_bundle(tmp_path_factory.mktemp("eager") / "bundle", hold_ms=300)


@pytest.fixture(scope="module")
def market() -> list[Ticks]:
    """Return the ticks of each step: quotes that move, trades, marks now and then."""
    buffer, steps = TickBuffer(), []
    sides = [SymbolMarket(TickSink(buffer, each, index)) for index, each in enumerate(instruments())]
    for step in range(STEPS):
        at_ns, bid = START_NS + step * STEP_NS, 600_000 + step * 7 % 40
        for name, side in zip(SYMBOLS, sides, strict=True):
            if step == 0:
                levels = [[(px * TICK_E8, E8) for px in (bid - away, bid + 1 + away)] for away in range(20)]
                side.on_snapshot(
                    at_ns, DepthSnapshot(name, at_ns, 1, [a for a, _ in levels], [b for _, b in levels])
                )
            side.on_ticker(at_ns, Ticker(name, at_ns, step + 2, bid * TICK_E8, E8, (bid + 1) * TICK_E8, E8))
            side.on_trade(at_ns, Trade(name, at_ns, step + 1, bid * TICK_E8, LOT_E8, 1, False, True))
            side.on_mark(at_ns, MarkPrice(name, at_ns, bid * TICK_E8, bid * TICK_E8, 0, 0))
        steps.append(buffer.take())
    return steps


class Drive:
    """A session and its exchange, step by step; ``kill`` and go on at any of them."""

    def __init__(self, path: Path, model: Path, market: list[Ticks]) -> None:
        config = LiveConfig(
            **{name: getattr(eager_config(), name) for name in LiveConfig.__struct_fields__}
            | {"broker": "nautilus"}
        )
        create(path, config, model, instruments(), now_ns=START_NS)
        self._path, self._market = path, market
        self._fills: list[Heard] = []
        self._trades = 0
        self.sent: list[int] = []
        self.now_ns = START_NS
        self.open()

    def open(self) -> None:
        self.session = Session(self._path, now_ns=self.now_ns, clock_of=lambda _: lambda: self.now_ns)
        self.broker = self.session.market.broker
        assert isinstance(self.broker, RemoteBroker)
        # What has not left may have left: it is not sent from here.
        self.lost = self.broker.unsent()
        if self.session.start.fresh:
            self.session.on_health(HealthRecord(1.0, drifted=False), self.now_ns)
            for symbol in range(len(SYMBOLS)):
                self.session.on_heard(
                    Heard(ReportKind.SEEN, self.now_ns, self.now_ns, symbol=symbol), self.now_ns
                )

    def step(self, number: int, *, killed: bool = False) -> None:
        session = self.session
        self.now_ns = START_NS + number * STEP_NS
        for heard in self._fills:
            session.on_heard(heard, self.now_ns)
            session.on_heard(heard, self.now_ns)
        self._fills = []
        session.on_ticks(self._market[number], self.now_ns)
        work = session.take(self.now_ns, self.now_ns)
        if work is None:
            return
        outcome = session.engine.step(work, lambda: self.now_ns)
        if killed:
            self.kill()
            self.open()
            self._exchange(self.lost)  # the finished step says it once more: now it leaves
            return
        session.apply(outcome, self.now_ns)
        self._exchange(self.broker.unsent())
        if number % 40 == 39:
            content, seq = session.checkpoint()
            session.journal.sync()
            session.note_checkpoint(*session.checkpoints.write(content, seq), self.now_ns)

    def _exchange(self, sendings: list) -> None:  # type: ignore[type-arg]
        for each in sendings:
            if each.request is None or each.order_id in self.sent:
                continue
            self.sent.append(each.order_id)
            self._trades += 1
            request = each.request
            self._fills.append(
                Heard(
                    ReportKind.FILL,
                    self.now_ns,
                    self.now_ns,
                    each.order_id,
                    request.symbol_index,
                    trade_id=self._trades,
                    side=request.side,
                    qty_e8=request.qty_e8,
                    price_e8=60_000 * E8,
                    fee_e8=7,
                )
            )

    def kill(self) -> None:
        self.session.journal.flush()
        self.session.journal.abandon()
        self.session.store.close()
        os.close(self.session._lock)

    def end(self) -> list[bytes]:
        """Stop; return the orders as they were written."""
        self.session.journal.sync()
        self.session.close(now_ns=self.now_ns)
        return [each.body for each in read_records(self._path / "journal") if each.kind == RecordKind.ORDER]


def run(path: Path, model: Path, market: list[Ticks], kills: frozenset[int] = frozenset()) -> Drive:
    drive = Drive(path, model, market)
    for number in range(STEPS):
        drive.step(number, killed=number in kills)
    return drive


@pytest.mark.parametrize("kills", [(), (90,), (41, 100, 101, 102, 203)])
def test_it_comes_out_as_it_was_written_whatever_kills_it(
    tmp_path: Path, model: Path, market: list[Ticks], kills: tuple[int, ...]
) -> None:
    drive = run(tmp_path / "session", model, market, frozenset(kills))
    trader, broker = drive.session.engine.trader, drive.broker
    drive.end()
    assert len(drive.sent) > 10, "it was to trade"
    assert len(set(drive.sent)) == len(drive.sent)
    assert broker.duplicate_count >= len(drive.sent) - 2
    # Both books, by what was filled: seven units of fee for each, and nothing won at one price.
    held = [each.qty_e8 for each in broker.account.positions]
    assert [each.qty_e8 for each in trader.account.positions] == held
    assert broker.account.fees_e8 == trader.account.fees_e8
    assert trader.account.fees_e8 % 7 == 0
    assert trader.account.realised_e8 == 0
    found = verify(tmp_path / "session")
    assert (found["differing"], found["verdicts_differing"]) == (0, 0), found["first"]
    assert found["frames"] > 90


def test_a_repetition_keeps_nothing_of_what_had_left(
    tmp_path: Path, model: Path, market: list[Ticks]
) -> None:
    """Every order of the session once waited to be sent again until its repetition was over."""
    drive = run(tmp_path / "session", model, market)
    drive.kill()
    shutil.rmtree(tmp_path / "session" / "checkpoints")
    again = Session(tmp_path / "session", now_ns=drive.now_ns, clock_of=lambda _: lambda: drive.now_ns)
    assert again.start.from_seq == 0
    assert isinstance(again.market.broker, RemoteBroker)
    waiting = {each.order_id for each in again.market.broker.unsent()}
    again.close(now_ns=drive.now_ns)
    assert len(drive.sent) > 10
    assert len(waiting & set(drive.sent)) < 5, "those of the last step at most"


def test_what_nothing_explains_is_known_after_a_restart_and_changes_no_decision(
    tmp_path: Path, model: Path, market: list[Ticks]
) -> None:
    drive = Drive(tmp_path / "session", model, market)
    for number in range(150):
        drive.step(number, killed=number == 120)
        if number == 100:
            aside = Heard(ReportKind.UNEXPLAINED, drive.now_ns, drive.now_ns, money_e8=30 * E8)
            drive.session.on_heard(aside, drive.now_ns)
    assert drive.broker.unexplained_e8 == 30 * E8
    assert drive.session.engine.trader.account.funding_e8 == 0
    drive.end()
    assert drive.sent, "it was to trade"
    found = verify(tmp_path / "session")
    assert (found["differing"], found["verdicts_differing"]) == (0, 0), found["first"]


@pytest.mark.parametrize("kind", [ReportKind.STRANGER, ReportKind.ALARM])
def test_what_nobody_here_asked_for_lets_positions_out_and_no_longer_halts(
    kind: ReportKind, tmp_path: Path, model: Path, market: list[Ticks]
) -> None:
    """An order by hand in the exchange's app, or an ADL of one symbol, once halted the gate (a decision that
    was changed): all positions then stood without exits and brackets until a person came."""
    drive = Drive(tmp_path / "session", model, market)

    def held() -> list[int]:
        return [each.qty_e8 for each in drive.session.engine.trader.account.positions]

    told = after = 0
    for number in range(STEPS):
        drive.step(number, killed=number == told + 7)
        if number > 60 and not told and all(held()):
            told, after = number, drive.now_ns
            drive.session.on_heard(Heard(kind, after, after, reason="OrderAccepted: web_1"), after)
    assert told, "it was to hold positions"
    gate = drive.session.engine.trader.gate
    assert (gate.state, gate.causes) == (RiskState.REDUCING, [RiskEvent(kind.value)])
    assert held() == [0] * len(SYMBOLS), "the holding time is over"
    records = read(drive)
    orders = [decode(each, OrderRecord) for each in records if each.kind == RecordKind.ORDER]
    late = [each for each in orders if each.decided_ns > after]
    assert late, "it was to close them"
    assert all(each.reduce_only for each in late if not each.cancel)
    states = [decode(each, StateRecord) for each in records if each.kind == RecordKind.STATE]
    assert [(each.event, each.risk.state) for each in states] == [
        (f"{kind}: OrderAccepted: web_1", "reducing")
    ]
    found = verify(tmp_path / "session")
    assert (found["differing"], found["verdicts_differing"]) == (0, 0), found["first"]


def test_a_closing_order_that_is_refused_is_not_sent_again_at_once(
    tmp_path: Path, model: Path, market: list[Ticks]
) -> None:
    """It once was, thousands of times, at an exchange that had banned us for too many requests."""
    drive = Drive(tmp_path / "session", model, market)
    for number in range(120):
        drive.step(number)
        if any(each.qty_e8 for each in drive.broker.account.positions) and number > 60:
            break
    drive.session.on_command(Command.FLATTEN, "test", drive.now_ns)
    begun = number
    for number in range(begun + 1, begun + 100):  # two seconds
        before = len(drive.sent)
        drive.step(number)
        if len(drive.sent) > before:
            drive._fills = [
                Heard(ReportKind.REJECTED, drive.now_ns, drive.now_ns, each.order_id, each.symbol, code=-1003)
                for each in drive._fills
            ]
    closing = [each for each in drive.session.engine.trader.account.positions if each.qty_e8]
    assert closing, "it was to stay open"
    reasons = [decode(each, OrderRecord) for each in read(drive) if each.kind == RecordKind.ORDER]
    sent = [each for each in reasons if each.reason == "flatten" and not each.cancel]
    assert 2 <= len(sent) <= 3 * len(SYMBOLS)


def read(drive: Drive) -> list[Record]:
    drive.end()
    return list(read_records(drive._path / "journal"))


def test_a_changed_word_of_the_exchange_shows(tmp_path: Path, model: Path, market: list[Ticks]) -> None:
    """The journal decides: a fill that it tells differently makes another session of it."""
    drive = run(tmp_path / "session", model, market)
    drive.end()
    real = RemoteBroker.take

    def dearer(self: RemoteBroker, heard: Heard) -> list[Report]:
        third = heard.trade_id == 3
        return real(self, replace(heard, price_e8=heard.price_e8 + E8) if third else heard)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemoteBroker, "take", dearer)
        found = verify(tmp_path / "session")
    assert found["verdicts_differing"] > 0


@pytest.mark.parametrize("by", [Command.HALT, Command.REDUCE, ReportKind.ALARM, ReportKind.STRANGER])
def test_entries_are_ended_when_the_gate_closes_and_not_at_the_next_frame(
    by: Command | ReportKind, tmp_path: Path, model: Path, market: list[Ticks]
) -> None:
    """With frames of a minute, or in a quiet market, an entry went on resting for as long after a halt."""
    drive = Drive(tmp_path / "session", model, market)
    drive._exchange = lambda _: None  # type: ignore[method-assign]  # nothing is filled
    session, number = drive.session, 0
    while not session.engine.trader.open_orders:
        drive.step(number)
        number += 1
    entries = [each.order_id for each in session.engine.trader.risk_increasing_orders()]
    assert entries
    if isinstance(by, Command):
        session.on_command(by, "test", drive.now_ns)
    else:
        session.on_heard(Heard(by, drive.now_ns, drive.now_ns, reason="web_1"), drive.now_ns)
    work = session.take(drive.now_ns, drive.now_ns, force=True)
    assert work is not None
    outcome = session.engine.step(work, lambda: drive.now_ns)
    assert (outcome.frames, [order_id for order_id, _ in outcome.cancels]) == (0, entries)
    session.apply(outcome, drive.now_ns)
    for further in range(number, number + 20):
        drive.step(further)
    drive.end()
    found = verify(tmp_path / "session")
    assert (found["differing"], found["verdicts_differing"]) == (0, 0), found["first"]
