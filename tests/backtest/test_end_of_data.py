"""Where the recording ends: what is on its way is cancelled, what is held is closed at the last state."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from rich.console import Console

from gpuscalp.archive import BookSeries
from gpuscalp.backtest.calibration import PredictionCheck
from gpuscalp.backtest.record import Recorder
from gpuscalp.backtest.report import sections
from gpuscalp.backtest.session import Session
from gpuscalp.backtest.summary import summarise
from gpuscalp.cli.backtest import result_text
from gpuscalp.config import LabelConfig
from gpuscalp.execution.messages import Report
from gpuscalp.orders import BUY, SELL, Fill, Order
from tests.backtest.market import COIN, E8, NOW, MarkSeries
from tests.backtest.test_session import CONFIG, GRID, MadeMarket, made_market, replace_frames, run, scope

Series = TypeVar("Series", BookSeries, MarkSeries)


def ended(market: MadeMarket, frame_count: int, *, last_qty: float = 50.0) -> MadeMarket:
    """Let the recording end with a frame, and show so much in the last quotes."""
    end_ns = int(market.frames.end_ns[frame_count - 1])
    quotes_of = [until(rows, end_ns) for rows in market.quotes_of]
    for rows in quotes_of:
        rows.bid_qty[-1] = rows.ask_qty[-1] = last_qty
    marks_of = [until(rows, end_ns) for rows in market.marks_of]
    return replace(replace_frames(market, frame_count), quotes_of=quotes_of, marks_of=marks_of)


def until(rows: Series, end_ns: int) -> Series:
    kept = rows.exch_ns <= end_ns
    return type(rows)(*(getattr(rows, name)[kept].copy() for name in rows.__slots__))


def held(session: Session) -> list[int]:
    return [position.qty_e8 for position in session.trader.account.positions]


@pytest.fixture
def closing(monkeypatch: pytest.MonkeyPatch) -> list[Fill]:
    """Collect the fills of the orders that close what is held at the end."""
    fills: list[Fill] = []
    on_report = Recorder.on_report

    def spy(self: Recorder, report: Report, order: Order | None, booked: Any) -> None:
        if report.fill is not None and order is not None and order.intent.reason == "end_of_data":
            fills.append(report.fill)
        on_report(self, report, order, booked)

    monkeypatch.setattr(Recorder, "on_report", spy)
    return fills


def test_positions_are_closed_at_the_side_of_the_last_state_and_later_than_it(closing: list[Fill]) -> None:
    sides = set()
    for frame_count in range(90, 110):
        market = ended(made_market(), frame_count)
        closing.clear()
        session = run(market)
        for fill in closing:
            rows = market.quotes_of[fill.symbol_index]
            px = (rows.bid_px if fill.side == SELL else rows.ask_px)[-1]
            assert fill.price_e8 == int(px) * COIN.tick_size_e8
            assert fill.exec_ns >= rows.exch_ns[-1] + 20 * 10**6
            sides.add(fill.side)
        assert held(session) == [0, 0]
        assert not session.trader.open_orders
        assert not session.venue.broker.orders
    assert sides == {BUY, SELL}


def test_orders_that_meet_no_state_any_more_are_cancelled() -> None:
    cancelled = [run(ended(made_market(), count)).recorder.outcomes["cancelled"] for count in range(90, 110)]
    assert sum(cancelled) > 3


def test_what_the_last_state_does_not_show_stays_open(closing: list[Fill]) -> None:
    session = run(ended(made_market(), 100, last_qty=0.001))
    assert closing
    assert all(fill.qty_e8 == E8 // 1_000 for fill in closing)
    assert any(held(session))
    assert session.recorder.outcomes["partial"] > 0


def test_printed_parts_add_up_with_what_stays_open() -> None:
    """Their sum was another number than the net P&L above them, and nothing said why."""
    session = run(ended(made_market(), 100, last_qty=0.001))
    outcome = summarise(CONFIG, scope(), session, PredictionCheck(LabelConfig(), GRID))
    console = Console(width=80, file=io.StringIO())
    console.print(result_text(outcome.summary))
    printed = [line.rsplit(maxsplit=1) for line in console.file.getvalue().splitlines()]
    rows = {words[0].strip(): words[1] for words in printed if len(words) == 2}
    names = (
        "gross (mid to mid)", "delay", "spread", "impact (levels walked)", "fees", "funding received",
        "positions left open",
    )  # fmt: skip
    parts = [float(rows[name].replace(",", "")) for name in names]
    assert parts[-1] != 0
    assert sum(parts) == pytest.approx(float(rows["net P&L, USDT"].replace(",", "")), abs=4e-4)
    # The page says the same of them.
    (origin,) = (each for each in sections(outcome) if each.title == "Where the P&L comes from")
    assert f"a further {parts[-1]:+,.4f} USDT before" in " ".join(origin.paragraphs)


def test_books_of_trader_and_exchange_agree_at_the_end() -> None:
    """The trader has heard of everything: late reports are waited for."""
    session = run(made_market())
    ours, theirs = session.trader.account, session.venue.broker.account
    assert len(session.venue.inbox) == 0
    assert [p.qty_e8 for p in ours.positions] == [p.qty_e8 for p in theirs.positions]
    assert (ours.cash_e8, ours.fees_e8, ours.funding_e8) == (
        theirs.cash_e8, theirs.fees_e8, theirs.funding_e8,
    )  # fmt: skip


def test_every_order_is_answered_once() -> None:
    session = run(made_market())
    recorder = session.recorder
    assert sum(recorder.outcomes.values()) == session.trader.last_order_id > 60
    filled = sum(trade.fill_count for trade in recorder.ledger.closed)
    assert filled >= recorder.outcomes["filled"] + recorder.outcomes["partial"]


def test_recording_without_rows_ends_quietly() -> None:
    market = made_market()
    nothing = (
        [until(rows, NOW - 1) for rows in market.quotes_of],
        [until(r, NOW - 1) for r in market.marks_of],
    )
    session = run(replace(replace_frames(market, 5), quotes_of=nothing[0], marks_of=nothing[1]))
    assert session.recorder.frame_count == 5
    assert session.recorder.outcomes == {"cancelled": session.trader.last_order_id}
