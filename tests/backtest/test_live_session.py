"""A backtest of what a session heard does what the session did.

The session is a replay of a recording: the whole live path, with messages from a file. Its journal is
imported like any recording, and backtested with the session's model and configuration.

Equal, always: the frames, and what the model says of them; the broker's code and the rows it is shown.

Equal, where ``paper.reply`` is nothing: every order (number, frame, symbol, side, quantity, mid at the
decision) and every report (kind, order, time at the exchange, price, quantity, fee, what is left, profit).

Not equal even then:

* the time of a decision, by what the closing message took longer than the fastest one. The backtest adds this
  measured delay; a replay's clock is the exchange time of the newest message, so it has none. Here it is a
  millisecond (the fastest row is the book's snapshot, which has no time but that of its receipt), and no
  state of the book lies between.
* the first frame: it ends before the first row, so it is none of the backtest's time. It is empty;
* the end: a backtest closes what is held at the last recorded state; a session leaves it open.

Not equal with a way back: a backtest's clock is at the exchange, and even the fastest message reaches us only
after the shortest reply; so it decides later by that, and its orders arrive later. Reports are known at the
same time in both. From then on both trade the same market at other moments, and nothing but the first order
need agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.backtest import run_backtest
from gpuscalp.backtest.record import Recorder
from gpuscalp.cli import run
from gpuscalp.config import BacktestConfig
from gpuscalp.execution.messages import Report
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.records import FillRecord, OrderRecord, SignalRecord, decode
from gpuscalp.orders import Order
from gpuscalp.trader import StepReport, Trader
from tests.live import script

# What messages of the recording take longer than its snapshots: see script.write_recording.
LATE_NS = range(1_000_000, 1_020_000)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> script.Material:
    return script.write_material(tmp_path_factory.mktemp("material"), seconds=60)


@dataclass
class Heard:
    """What one side decided and was told, as plain values."""

    frames: list[tuple[int, bytes]] = field(default_factory=list)
    orders: list[tuple[Any, ...]] = field(default_factory=list)
    sent_ns: list[int] = field(default_factory=list)
    reports: list[tuple[Any, ...]] = field(default_factory=list)


def of_session(path: Path) -> Heard:
    heard = Heard()
    for record in read_records(path / "journal"):
        if record.kind == RecordKind.SIGNAL:
            signal = decode(record, SignalRecord)
            heard.frames.append((signal.end_ns, signal.skips))
        elif record.kind == RecordKind.ORDER:
            order = decode(record, OrderRecord)
            assert not order.cancel
            heard.sent_ns.append(order.sent_ns)
            heard.orders.append(
                (order.order_id, order.decided_ns, order.symbol, order.side, order.qty_e8, order.mid2_e8,
                 order.reduce_only, order.reason)
            )  # fmt: skip
        elif record.kind == RecordKind.FILL:
            told = decode(record, FillRecord)
            heard.reports.append(
                (told.kind, told.order_id, told.symbol, told.at_ns, told.code, told.reason, told.left_e8,
                 told.side, told.qty_e8, told.price_e8, told.fee_e8, told.money_e8)
            )  # fmt: skip
    return heard


def of_report(report: Report) -> tuple[Any, ...]:
    fill = report.fill
    filled = (0, 0, 0, 0) if fill is None else (fill.side, fill.qty_e8, fill.price_e8, fill.fee_e8)
    return (
        str(report.kind), report.order_id, report.symbol_index, report.at_ns, report.code, report.reason,
        report.left_e8, *filled, report.money_e8,
    )  # fmt: skip


@pytest.fixture
def backtested(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """Listen to whatever is backtested."""
    heard = Heard()
    step, on_report = Trader.step, Recorder.on_report

    def spy_step(self: Trader, market: Any, signals: Any, conditions: Any) -> StepReport:
        report = step(self, market, signals, conditions)
        heard.frames.append((report.end_ns, tuple(report.skips.tolist())))
        for order in report.orders:
            heard.sent_ns.append(conditions.now_ns)
            heard.orders.append(
                (order.order_id, order.decided_ns, order.symbol_index, order.side, order.qty_e8,
                 order.mid2_e8, order.reduce_only, order.intent.reason)
            )  # fmt: skip
        return report

    def spy_report(self: Recorder, report: Report, order: Order | None, booked: Any) -> None:
        heard.reports.append(of_report(report))
        on_report(self, report, order, booked)

    with monkeypatch.context() as patch:
        patch.setattr(Trader, "step", spy_step)
        patch.setattr(Recorder, "on_report", spy_report)
        yield heard


def both(material: script.Material, folder: Path, reply_ms: float, backtested: Heard) -> tuple[Heard, Heard]:
    """Replay the recording into a session, import its journal, backtest that; return what both did."""
    changes = {"paper.reply.low_ms": reply_ms, "strategy.min_edge_bps": -1_000.0, "strategy.hold_ms": 2_000}
    session = folder / "session"
    material.replay(session, changes)
    config = script.trading_config(**changes)
    heard = of_session(session)
    backtested.__init__()  # type: ignore[misc]
    archive = folder / "archive"
    source = str(session / "journal")
    words = ["data", "import", source, "--out", str(archive), "--instruments", str(material.info)]
    assert run([*words, "--json"]) == 0
    sections = ("strategy", "sizing", "risk", "cost", "account", "orders", "paper")
    run_backtest(
        archive,
        material.model,
        config=BacktestConfig(**{name: getattr(config, name) for name in sections}),
        out=folder / "run",
    )
    return heard, backtested


def test_backtest_of_a_session_sends_its_orders_and_gets_its_fills(
    material: script.Material, tmp_path: Path, backtested: Heard
) -> None:
    live, test = both(material, tmp_path, 0.0, backtested)
    assert len(live.orders) > 40
    assert test.frames == live.frames[1:]
    assert test.orders[: len(live.orders)] == live.orders
    late = [there - here for there, here in zip(test.sent_ns, live.sent_ns, strict=False)]
    assert {min(late), max(late)} <= set(LATE_NS)
    # All but the closing at the end, which no session does.
    assert test.reports[: len(live.reports)] == live.reports
    assert sum(report[0] == "fill" for report in live.reports) > 40
    assert any(report[0] == "funding" for report in live.reports)


def test_way_back_moves_decisions_by_itself_and_the_first_order_still_agrees(
    material: script.Material, tmp_path: Path, backtested: Heard
) -> None:
    live, test = both(material, tmp_path, 10.0, backtested)
    assert [end_ns for end_ns, _ in test.frames] == [end_ns for end_ns, _ in live.frames[1:]]
    assert test.orders[0] == live.orders[0]
    assert test.sent_ns[0] - live.sent_ns[0] - 10_000_000 in LATE_NS
    first = next(report for report in live.reports if report[0] == "accepted")
    assert next(report for report in test.reports if report[0] == "accepted")[3] >= first[3]
    assert abs(len(test.orders) - len(live.orders)) < 0.1 * len(live.orders)
