"""A whole session on a made market: money adds up, the future does not matter, chunks leave no trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from gpuscalp.archive import BookSeries
from gpuscalp.backtest.calibration import PredictionCheck
from gpuscalp.backtest.record import Recorder
from gpuscalp.backtest.session import Prediction, Session
from gpuscalp.backtest.summary import Scope, summarise
from gpuscalp.config import (
    AccountConfig,
    BacktestConfig,
    CostConfig,
    GridConfig,
    LabelConfig,
    LegConfig,
    OrdersConfig,
    PaperConfig,
    RiskConfig,
    StrategyConfig,
)
from gpuscalp.execution.booking import BookedFill
from gpuscalp.execution.lifecycle import ENDED, OrderState
from gpuscalp.execution.messages import Report
from gpuscalp.orders import Order, OrderKind
from gpuscalp.risk.gate import RiskState
from gpuscalp.schema import Channel, FrameBlock, Instrument, Ticks
from gpuscalp.trader import Trader
from tests.backtest.market import COIN, E8, MS, NOW, MarkSeries, books, marks, quotes, ticks_of

GRID = GridConfig(frame_ms=100, lateness_ms=20)
FUNDING_MS = 2_500
OTHER = replace(COIN, symbol="OTHERUSDT")
CONFIG = BacktestConfig(
    strategy=StrategyConfig(hold_ms=500, order_usdt=500.0),
    cost=CostConfig(taker_fee_bps=1.0, compute=LegConfig(low_ms=1.0)),
    paper=PaperConfig(request=LegConfig(low_ms=20.0), reply=LegConfig(low_ms=10.0)),
    # Noise loses again and again, and wildly: that is not what these tests are about.
    risk=RiskConfig(
        max_spread_bps=20.0, max_volatility_bps=1e3, max_jump_bps=1e3, max_edge_bps=1e3, max_losses="off"
    ),
)


@dataclass
class MadeMarket:
    """Quotes of two symbols every 7 ms on random walks, and what frames and a model make of them."""

    quotes_of: list[BookSeries]
    marks_of: list[MarkSeries]
    frames: FrameBlock
    prediction: Prediction

    def ticks(self) -> Ticks:
        return ticks_of(self.quotes_of, self.marks_of)

    def books(self, symbol_index: int, start_ns: int, end_ns: int) -> BookSeries:
        return books([])


def made_market(frame_count: int = 300, seed: int = 3) -> MadeMarket:
    rng = np.random.default_rng(seed)
    end_ns = NOW + 100 * MS * np.arange(1, frame_count + 1, dtype=np.int64)
    quotes_of, marks_of = [], []
    bid_px = np.zeros((frame_count, 2), np.int32)
    ask_px = np.zeros((frame_count, 2), np.int32)
    for symbol in range(2):
        count = frame_count * 100 // 7
        bid = 10_000 + np.cumsum(rng.integers(-2, 3, count))
        rows = [
            (float(7 * i + symbol), int(bid[i]), int(bid[i]) + 1 + i % 3, 1 + i % 5, 1 + i % 4)
            for i in range(count)
        ]
        rows[-1] = (*rows[-1][:3], 50.0, 50.0)  # enough to close everything at the end
        series = quotes(rows)
        # Delays between 2 and 12 ms, in order: the fastest message is not among the first.
        delays = 2 * MS + rng.integers(0, 10 * MS, count)
        series = replace(series, recv_ns=np.maximum.accumulate(series.exch_ns + delays))
        last = np.searchsorted(series.exch_ns, end_ns, side="right") - 1
        bid_px[:, symbol], ask_px[:, symbol] = series.bid_px[last], series.ask_px[last]
        quotes_of.append(series)
        marks_of.append(
            marks([(at, 100.0, 0.001, FUNDING_MS * (at // FUNDING_MS + 1)) for at in range(0, 30_000, 500)])
        )
    channels = np.full((frame_count, len(Channel), 2), 0.0, np.float32)
    frames = FrameBlock(
        end_ns,
        channels,
        np.zeros((frame_count, 2), np.uint32),
        bid_px,
        ask_px,
        (bid_px + ask_px) / 200.0,
    )
    edge = rng.normal(scale=30.0, size=(frame_count, 2))
    up = np.where(edge > 0, 0.7, 0.1)
    return MadeMarket(
        quotes_of,
        marks_of,
        frames,
        Prediction(
            np.stack([0.8 - up, np.full_like(up, 0.2), up], axis=2),
            np.ones((frame_count, 2)),
            edge,
            np.zeros_like(edge),
        ),
    )


def part(market: MadeMarket, first: int, last: int) -> tuple[FrameBlock, Prediction]:
    frames, prediction = market.frames, market.prediction
    return (
        FrameBlock(*(getattr(frames, name)[first:last] for name in FrameBlock.__slots__)),
        Prediction(*(getattr(prediction, name)[first:last] for name in Prediction.__slots__)),
    )


def run(
    market: MadeMarket, cuts: Sequence[int] = (), config: BacktestConfig = CONFIG, *, finish: bool = True
) -> Session:
    instruments: tuple[Instrument, ...] = (COIN, OTHER)
    trader = Trader(config, instruments, horizon_ms=1_000, trained_until_ns=NOW)
    session = Session(trader, market, config=config, grid=GRID)
    ticks = market.ticks()
    watched = session.watch(pieces(ticks))
    edges = [0, *cuts, len(market.frames)]
    for first, last in pairwise(edges):
        # As the features do: take ticks until the last frame of the chunk is closed.
        while first < last and session.venue.tape.clock_before(session.venue.tape.end) < (
            market.frames.end_ns[last - 1] + GRID.lateness_ms * MS
        ):
            if next(watched, None) is None:
                break
        session.trade(*part(market, first, last))
    if finish:
        for _ in watched:
            pass
        session.finish()
    return session


def pieces(ticks: Ticks) -> Iterator[Ticks]:
    for first in range(0, len(ticks), 113):
        yield ticks[first : first + 113]


def facts(session: Session) -> list[object]:
    recorder = session.recorder
    return [
        recorder.ledger.closed,
        recorder.intents,
        recorder.refusals,
        recorder.outcomes,
        recorder.time_ns.tolist(),
        recorder.equity_usdt.tolist(),
        recorder.skips.tolist(),
        session.trader.equity_e8(),
    ]


def test_money_adds_up_to_the_unit() -> None:
    session = run(made_market())
    account, trades = session.trader.account, session.recorder.ledger.closed
    assert len(trades) > 30
    assert all(position.qty_e8 == 0 for position in account.positions)
    assert session.trader.equity_e8() - account.start_e8 == sum(trade.pnl_e8 for trade in trades)
    assert account.fees_e8 == sum(trade.fees_e8 for trade in trades) > 0
    assert account.cash_e8 == account.wallet_e8 == session.trader.equity_e8()
    assert session.recorder.equity_usdt[-1] == session.trader.equity_e8() / E8


def test_funding_is_charged_once_and_on_what_was_held() -> None:
    session = run(made_market())
    payments = [trade.funding_e8 for trade in session.recorder.ledger.closed]
    charged = [trade for trade in session.recorder.ledger.closed if trade.funding_e8]
    assert sum(payments) == session.trader.account.funding_e8
    due = [NOW + at * MS for at in range(FUNDING_MS, 30_001, FUNDING_MS)]
    held = [t for t in session.recorder.ledger.closed if any(t.entry_ns <= at < t.exit_ns for at in due)]
    assert charged == held
    assert len(charged) > 3
    for trade in charged:
        assert (trade.funding_e8 > 0) == (trade.side < 0)


def test_a_position_opened_at_the_very_funding_time_pays_it() -> None:
    """At one instant fills come first: the other order would give away the funding of that position."""
    market = replace_frames(made_market(), 30)
    whole = run(market)
    first = whole.recorder.ledger.closed[0]
    assert first.funding_e8 == 0
    index, at_ms = first.symbol_index, (first.entry_ns - NOW) / MS
    for due_ms, paid in ((at_ms, True), (at_ms - 1, False)):
        market.marks_of[index] = marks([(0.0, 100.0, 0.001, due_ms)])
        (trade,) = (t for t in run(market).recorder.ledger.closed if t.entry_ns == first.entry_ns)
        assert (trade.funding_e8 != 0) == paid


def test_symbol_whose_funding_is_not_announced_is_named() -> None:
    market = made_market()
    market.marks_of[1] = marks([])
    session = run(market)
    outcome = summarise(CONFIG, scope(), session, PredictionCheck(LabelConfig(), GRID))
    (warning,) = (text for text in outcome.warnings if "funding" in text)
    assert OTHER.symbol in warning
    assert COIN.symbol not in warning


@pytest.mark.parametrize("cuts", [(1,), (150,), (7, 8, 9, 100, 299), tuple(range(20, 300, 20))])
def test_chunks_leave_no_trace(cuts: tuple[int, ...]) -> None:
    market = made_market()
    assert facts(run(market, cuts)) == facts(run(market))


def test_no_fill_comes_before_its_order_could_have_arrived() -> None:
    session = run(made_market())
    own_ms = GRID.lateness_ms + 31
    closed = [t for t in session.recorder.ledger.closed if t.exit_reason != "end_of_data"]
    assert closed
    for trade in closed:
        assert trade.entry_ns >= trade.entry_decided_ns + own_ms * MS
        assert trade.exit_ns >= trade.exit_decided_ns + own_ms * MS
        # At most 7 ms for the closing message, 10 for its delay and 7 for the next quote: no longer either.
        assert trade.entry_ns <= trade.entry_decided_ns + (own_ms + 25) * MS


def test_takers_never_gain_from_the_spread() -> None:
    for trade in run(made_market()).recorder.ledger.closed:
        assert trade.spread_e8 < 0


def test_the_future_changes_nothing_before_it() -> None:
    market = made_market()
    cut = 200
    boundary = int(market.frames.end_ns[cut - 1])
    other = made_market(seed=99)
    mixed = MadeMarket(
        quotes_of=[
            BookSeries(
                *(
                    np.concatenate(
                        [getattr(a, n)[a.exch_ns <= boundary], getattr(b, n)[b.exch_ns > boundary]]
                    )
                    for n in BookSeries.__slots__
                )
            )
            for a, b in zip(market.quotes_of, other.quotes_of, strict=True)
        ],
        marks_of=market.marks_of,
        frames=market.frames,
        prediction=market.prediction,
    )
    one, two = (run(replace_frames(m, cut), finish=False) for m in (market, mixed))
    assert facts(one) == facts(two)
    assert one.recorder.ledger.closed


def replace_frames(market: MadeMarket, count: int) -> MadeMarket:
    frames, prediction = part(market, 0, count)
    return MadeMarket(market.quotes_of, market.marks_of, frames, prediction)


def test_random_entries_lose_their_costs() -> None:
    # Edges here are noise, so what is left of many trades is their spread and fees.
    session = run(made_market(frame_count=1_500))
    trades = session.recorder.ledger.closed
    costs = sum(t.spread_e8 - t.fees_e8 for t in trades)
    moved = np.array([t.gross_e8 + t.delay_e8 for t in trades], float)
    assert len(trades) > 200
    assert abs(moved.sum()) < 3 * moved.std() * np.sqrt(len(moved))
    assert costs < 0


def test_a_clock_that_is_set_forward_costs_a_minute_and_is_told() -> None:
    """All decisions behind it were late to the end of the data, and the report did not say why."""
    market, set_ns = made_market(frame_count=1_500), NOW + 40_000 * MS
    for index, each in enumerate(market.quotes_of):
        shift = np.where(each.recv_ns >= set_ns, 1_600 * MS, 0)
        market.quotes_of[index] = replace(each, recv_ns=each.recv_ns + shift)
    session = run(market)
    entered = np.array([trade.entry_decided_ns for trade in session.recorder.ledger.closed])
    assert np.count_nonzero(entered < set_ns) > 50
    assert np.count_nonzero(entered > set_ns + 62_000 * MS) > 50
    assert np.count_nonzero((entered > set_ns + 200 * MS) & (entered < set_ns + 49_000 * MS)) == 0
    assert session.recorder.refusals["LATE_PREDICTION"] > 50
    outcome = summarise(CONFIG, scope(), session, PredictionCheck(LabelConfig(), GRID))
    (warning,) = (text for text in outcome.warnings if "set forward" in text)
    assert "1 time(s)" in warning
    assert "1600 ms" in warning
    assert "clock was set" not in " ".join(
        summarise(CONFIG, scope(), run(made_market()), PredictionCheck(LabelConfig(), GRID)).warnings
    )


def test_loss_limit_stops_entries_and_lets_positions_out() -> None:
    config = replace_section(CONFIG, risk=msgspec.structs.replace(CONFIG.risk, max_daily_loss_usdt=0.5))
    session = run(made_market(), config=config)
    assert session.trader.gate.state is RiskState.REDUCING
    (event,) = session.recorder.events
    late = [t for t in session.recorder.ledger.closed if t.entry_decided_ns >= event[0]]
    assert late == []
    assert session.recorder.refusals["REDUCING"] > 0
    assert all(position.qty_e8 == 0 for position in session.trader.account.positions)


def replace_section(config: BacktestConfig, **sections: RiskConfig) -> BacktestConfig:
    return msgspec.structs.replace(config, **sections)


def test_brackets_that_were_not_needed_count_as_nothing_that_was_not_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The size of each of them was "not filled", in the capacity of a walk-forward too, and a miss."""
    left: list[float] = []
    ended = 0
    on_report = Recorder.on_report

    def spy(self: Recorder, report: Report, order: Order | None, booked: BookedFill | None) -> None:
        nonlocal ended
        if report.state in ENDED and order is not None and order.kind is OrderKind.MARKET:
            ended += 1
            if report.state is not OrderState.REJECTED:
                left.append(report.left_e8 / E8 * order.mid2_e8 / 2 / E8)
        on_report(self, report, order, booked)

    monkeypatch.setattr(Recorder, "on_report", spy)
    orders = OrdersConfig(take_profit_bps=6.0, stop_loss_bps=300.0)
    recorder = run(made_market(), config=msgspec.structs.replace(CONFIG, orders=orders)).recorder
    assert recorder.outcomes["protective_filled"] > 3
    assert recorder.outcomes["protective_ended"] > 30
    assert 0 < recorder.cancelled_usdt == pytest.approx(sum(left))
    assert recorder.fill_ratio == recorder.outcomes["filled"] / ended


def test_no_frames_is_no_error() -> None:
    market = replace_frames(made_market(), 0)
    session = run(market)
    assert session.recorder.frame_count == 0


def test_liquidation_and_refusals_are_counted_and_the_money_still_adds_up() -> None:
    """Neither was there before: an account went on with less than nothing, and no order was refused."""
    market = made_market()
    # From ten seconds on the mark jumps about by a tenth: the account does not stand that, and market orders
    # are beyond their bound around it. At the end it is sound again: what is held is closed then.
    marked = [
        (float(at), (90.0, 110.0)[at // 500 % 2] if 10_000 <= at < 29_500 else 100.0)
        for at in range(0, 30_000, 500)
    ]
    market.marks_of = [marks([(at, price, 0.0001, 60_000.0) for at, price in marked]) for _ in range(2)]
    config = msgspec.structs.replace(
        CONFIG,
        account=AccountConfig(start_usdt=50.0),
        paper=msgspec.structs.replace(CONFIG.paper, leverage=125),
        risk=msgspec.structs.replace(
            CONFIG.risk, max_leverage="off", max_trade_risk_pct="off", max_collar_bps="off",
            max_drawdown_pct=100.0,
        ),
    )  # fmt: skip
    session = run(market, config=config)
    recorder, account = session.recorder, session.trader.account
    assert recorder.liquidation_count > 0
    assert recorder.rejections["TAKE_BOUND"] > 0
    assert recorder.outcomes["rejected"] == sum(recorder.rejections.values())
    closed = [trade for trade in recorder.ledger.closed if trade.exit_reason == "liquidation"]
    assert closed
    assert all(trade.exit_decided_ns == trade.exit_ns for trade in closed)
    assert sum(recorder.outcomes.values()) == session.trader.last_order_id
    assert not recorder.ledger.open
    assert account.cash_e8 - account.start_e8 == sum(trade.pnl_e8 for trade in recorder.ledger.closed)
    theirs = session.venue.broker.account
    assert (account.cash_e8, account.fees_e8) == (theirs.cash_e8, theirs.fees_e8)
    outcome = summarise(config, scope(), session, PredictionCheck(LabelConfig(), GRID))
    assert outcome.summary["liquidations"] == recorder.liquidation_count
    assert any("liquidated" in text for text in outcome.warnings)


@pytest.mark.parametrize(
    ("venue", "warning"), [("synthetic", "SYNTHETIC"), ("replayed", "REPLAYED"), ("binance_usdm", None)]
)
def test_a_market_that_was_served_here_is_told_first(venue: str, warning: str | None) -> None:
    """The journal of an embedded session is one; its report read like one of the real market."""
    of_it = msgspec.structs.replace(scope(), venue=venue)
    found = summarise(CONFIG, of_it, run(made_market()), PredictionCheck(LabelConfig(), GRID)).warnings
    kinds = {"SYNTHETIC", "REPLAYED"}
    assert [text for text in found if text.split(":")[0] in kinds] == ([] if warning is None else [found[0]])
    assert warning is None or found[0].startswith(f"{warning}: ")


def scope() -> Scope:
    return Scope(
        venue="binance_usdm", symbols=(COIN.symbol, OTHER.symbol), start_ns=NOW, end_ns=NOW + 30_000 * MS,
        data_digest="", bundle_digest="", trained_venue="binance_usdm", trained_from_ns=0, trained_until_ns=1,
    )  # fmt: skip
