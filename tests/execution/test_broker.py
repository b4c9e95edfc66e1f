"""What the paper broker does, case by case."""

from __future__ import annotations

import time

import pytest

from gpuscalp.config import LegConfig
from gpuscalp.errors import ExecutionError
from gpuscalp.execution.filters import Reject
from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import ReportKind
from tests.execution.market import E8, MS, book, broker, fills, quote, request, trade

BIDS = [(100, 5), (99, 5), (90, 50)]
ASKS = [(101, 3), (102, 4), (110, 50)]
K = ReportKind


def _kinds(reports: object) -> list[ReportKind]:
    return [report.kind for report in reports]  # type: ignore[attr-defined]


def test_market_order_walks_the_levels_and_what_is_left_expires() -> None:
    target = broker()
    target.submit(request(1, 1, 9), 0)
    reports = book(target, 1, BIDS, ASKS[:2])
    assert fills(reports) == [(1, 101, 3, False), (1, 102, 4, False)]
    assert _kinds(reports) == [K.ACCEPTED, K.FILL, K.FILL, K.EXPIRED]
    assert (reports[-1].reason, reports[-1].left_e8) == ("immediate", 2 * E8)
    assert target.orders == {}


def test_displayed_units_are_there_once_until_the_book_shows_new_ones() -> None:
    target = broker()
    target.submit(request(1, 1, 3, 101, tif="ioc"), 0)
    target.submit(request(2, 1, 3, 101, tif="ioc"), 0)
    assert fills(book(target, 1, BIDS, ASKS)) == [(1, 101, 3, False)]
    target.submit(request(3, 1, 3, 101, tif="ioc"), 1 * MS + 1)
    assert fills(book(target, 2, BIDS, ASKS)) == []
    target.submit(request(4, 1, 3, 101, tif="ioc"), 2 * MS + 1)
    assert fills(book(target, 3, BIDS, [(101, 5), *ASKS[1:]])) == [(4, 101, 2, False)]
    book(target, 4, BIDS, ASKS[1:])
    target.submit(request(5, 1, 3, 101, tif="ioc"), 4 * MS + 1)
    assert fills(book(target, 5, BIDS, ASKS)) == [(5, 101, 3, False)]


def test_units_that_leave_a_level_are_counted_against_the_taken_ones() -> None:
    target = broker()
    target.submit(request(1, 1, 2, 101, tif="ioc"), 0)
    book(target, 1, BIDS, [(101, 6), (110, 50)])
    target.submit(request(2, 1, 9, 101, tif="ioc"), 1 * MS + 1)
    # Six shown, two taken, one left: one of the taken. Five shown, one taken.
    assert fills(book(target, 2, BIDS, [(101, 5), (110, 50)])) == [(2, 101, 4, False)]


def test_resting_order_waits_for_its_queue_and_fills_at_its_limit() -> None:
    target = broker()
    target.submit(request(1, 1, 4, 100), 0)
    assert _kinds(book(target, 1, BIDS, ASKS)) == [K.ACCEPTED]
    assert trade(target, 2, 100, 4, -1) == ()
    assert trade(target, 3, 100, 1, 1) == ()  # its taker bought: it met the asks
    assert fills(trade(target, 4, 100, 2, -1)) == [(1, 100, 1, True)]
    reports = trade(target, 5, 100, 9, -1)
    assert fills(reports) == [(1, 100, 3, True)]
    assert reports[0].state is OrderState.FILLED


def test_trade_at_a_worse_price_fills_without_the_queue_but_no_more_than_itself() -> None:
    target = broker()
    target.submit(request(1, 1, 4, 100), 0)
    book(target, 1, BIDS, ASKS)
    assert fills(trade(target, 2, 99, 3, -1)) == [(1, 100, 3, True)]


def test_trade_fills_two_orders_of_ours_by_priority_and_only_once() -> None:
    target = broker()
    target.submit(request(1, 1, 4, 99), 0)
    target.submit(request(2, 1, 2, 100), 0)
    target.submit(request(3, 1, 2, 99), 0)
    book(target, 1, [(98, 1)], ASKS)
    assert fills(trade(target, 2, 99, 5, -1)) == [(2, 100, 2, True), (1, 99, 3, True)]
    assert fills(trade(target, 3, 99, 5, -1)) == [(1, 99, 1, True), (3, 99, 2, True)]


def test_trade_of_the_instant_of_arrival_does_not_fill() -> None:
    target = broker()
    target.submit(request(1, 1, 2, 100), 0)
    book(target, 1, [(99, 1)], ASKS)
    assert trade(target, 1, 99, 5, -1) == ()
    assert fills(trade(target, 2, 99, 5, -1)) == [(1, 100, 2, True)]


def test_book_that_moves_onto_a_resting_order_fills_it_at_its_limit() -> None:
    target = broker()
    target.submit(request(1, 1, 4, 100), 0)
    book(target, 1, BIDS, ASKS)
    reports = book(target, 2, [(98, 5)], [(99, 3), (101, 9)])
    assert fills(reports) == [(1, 100, 3, True)]


@pytest.mark.parametrize(
    ("queue", "power", "ahead"), [("pessimistic", 3, 4), ("proportional", 3, 2), ("probabilistic", 3, 2)]
)
def test_cancellations_before_us_depend_on_the_queue_model(queue: str, power: int, ahead: int) -> None:
    target = broker(queue=queue, queue_power=power)
    target.submit(request(1, 1, 1, 100), 0)
    book(target, 1, [(100, 4)], ASKS)
    book(target, 2, [(100, 8)], ASKS)  # four before us, four behind
    book(target, 3, [(100, 4)], ASKS)  # four gone: half of them before us, or none
    assert trade(target, 4, 100, ahead, -1) == ()
    assert fills(trade(target, 5, 100, 1, -1)) == [(1, 100, 1, True)]


@pytest.mark.parametrize("trade_first", [True, False])
def test_trade_and_the_drop_that_it_caused_count_once(trade_first: bool) -> None:
    target = broker(queue="proportional")
    target.submit(request(1, 1, 1, 100), 0)
    book(target, 1, [(100, 4)], ASKS)
    if trade_first:
        trade(target, 2, 100, 2, -1)
        book(target, 2, [(100, 2)], ASKS)
    else:
        book(target, 2, [(100, 2)], ASKS)
        trade(target, 2, 100, 2, -1)
    assert trade(target, 3, 100, 2, -1) == ()
    assert fills(trade(target, 4, 100, 1, -1)) == [(1, 100, 1, True)]


def test_order_outside_of_the_visible_levels_is_behind_all_that_comes_into_view() -> None:
    target = broker()
    target.submit(request(1, 1, 1, 80), 0)
    book(target, 1, BIDS, ASKS)
    assert trade(target, 2, 80, 99, -1) == ()
    book(target, 3, [(81, 1), (80, 7)], ASKS)
    assert trade(target, 4, 80, 7, -1) == ()
    assert fills(trade(target, 5, 80, 1, -1)) == [(1, 80, 1, True)]


def test_levels_behind_the_best_are_taken_only_from_a_young_book() -> None:
    target = broker(depth_age_ms=1_000)
    book(target, 1, BIDS, ASKS)
    target.submit(request(1, 1, 5), 900 * MS)
    assert fills(quote(target, 1_001, 100, 5, 101, 3)) == [(1, 101, 3, False), (1, 102, 2, False)]
    target.submit(request(2, 1, 5), 2_000 * MS)
    assert fills(quote(target, 2_001, 100, 5, 101, 7)) == [(2, 101, 4, False)]


def test_older_book_does_not_undo_a_newer_quote() -> None:
    target = broker()
    book(target, 1, BIDS, ASKS)
    quote(target, 5, 99, 2, 102, 1)
    book(target, 4, BIDS, [(101, 3), (102, 9), (103, 2)])
    target.submit(request(1, 1, 5), 5 * MS)
    assert fills(quote(target, 6, 99, 2, 102, 1)) == [(1, 102, 1, False), (1, 103, 2, False)]


def test_post_only_order_that_would_take_is_refused() -> None:
    target = broker()
    target.submit(request(1, 1, 1, 101, tif="gtx"), 0)
    target.submit(request(2, 1, 1, 100, tif="gtx"), 0)
    reports = book(target, 1, BIDS, ASKS)
    assert [(r.order_id, r.kind, r.code) for r in reports] == [
        (1, K.REJECTED, Reject.POST_ONLY),
        (2, K.ACCEPTED, 0),
    ]


def test_fill_or_kill_fills_as_a_whole_or_not_at_all() -> None:
    target = broker()
    target.submit(request(1, 1, 8, 102, tif="fok"), 0)
    target.submit(request(2, 1, 7, 102, tif="fok"), 0)
    reports = book(target, 1, BIDS, ASKS)
    assert reports[0].code == Reject.FILL_OR_KILL
    assert fills(reports) == [(2, 101, 3, False), (2, 102, 4, False)]


def test_reduce_only_order_closes_at_most_the_position_and_the_rest_expires() -> None:
    target = broker()
    target.submit(request(1, -1, 1, 105, reduce_only=True), 0)
    assert book(target, 1, BIDS, ASKS)[0].code == Reject.REDUCE_ONLY
    target.submit(request(2, 1, 3), 1 * MS)
    target.submit(request(3, -1, 9, 103, reduce_only=True), 1 * MS)
    target.submit(request(4, -1, 2, 103, reduce_only=True), 1 * MS)
    book(target, 2, BIDS, ASKS)
    reports = trade(target, 3, 104, 50, 1)
    assert fills(reports) == [(3, 103, 3, True)]
    assert [(r.order_id, r.reason) for r in reports if r.kind is K.EXPIRED] == [
        (3, "reduce_only"),
        (4, "reduce_only"),
    ]
    assert target.account.positions[0].qty_e8 == 0


def test_nothing_happens_before_the_request_has_arrived() -> None:
    target = broker(request=LegConfig(low_ms=10.0), reply=LegConfig(low_ms=4.0))
    assert target.submit(request(1, 1, 1), 0) == 10 * MS
    assert book(target, 9, BIDS, ASKS) == ()
    reports = book(target, 12, BIDS, ASKS)
    assert _kinds(reports) == [K.ACCEPTED, K.FILL]
    assert {(report.at_ns, report.known_ns) for report in reports} == {(12 * MS, 16 * MS)}


def test_order_may_meet_the_last_state_instead_of_the_next() -> None:
    target = broker(request=LegConfig(low_ms=10.0), meets="last")
    book(target, 1, BIDS, ASKS)
    target.submit(request(1, 1, 1), 0)
    reports = target.advance(20 * MS)
    assert fills(reports) == [(1, 101, 1, False)]
    assert reports[-1].at_ns == 10 * MS


def test_fill_on_the_way_beats_the_cancel() -> None:
    target = broker(request=LegConfig(low_ms=10.0))
    target.submit(request(1, 1, 2, 100), 0)
    book(target, 10, [(99, 1)], ASKS)
    target.cancel(1, 11 * MS)
    assert fills(trade(target, 15, 99, 1, -1)) == [(1, 100, 1, True)]
    # At one instant the market comes first.
    reports = trade(target, 21, 99, 1, -1)
    assert fills(reports) == [(1, 100, 1, True)]
    assert (reports[-1].kind, reports[-1].code) == (K.CANCEL_REJECTED, Reject.CANCEL_UNKNOWN)


def test_cancelled_order_does_not_fill_afterwards() -> None:
    target = broker(request=LegConfig(low_ms=10.0))
    target.submit(request(1, 1, 2, 100), 0)
    book(target, 10, [(99, 1)], ASKS)
    target.cancel(1, 11 * MS)
    reports = trade(target, 22, 99, 1, -1)
    assert [(r.kind, r.at_ns) for r in reports] == [(K.CANCELED, 21 * MS)]


def test_order_without_a_sound_market_waits_and_then_expires() -> None:
    target = broker(max_wait_ms=5_000)
    target.submit(request(1, 1, 1), 0)
    target.submit(request(2, 1, 1), 4_000 * MS)
    assert book(target, 10, [(101, 1)], [(101, 1)]) == ()  # crossed
    assert book(target, 20, BIDS, ASKS, sound=False) == ()
    reports = target.advance(5_000 * MS)
    assert [(r.order_id, r.kind, r.reason) for r in reports] == [(1, K.EXPIRED, "no_market")]
    assert fills(book(target, 6_000, BIDS, ASKS)) == [(2, 101, 1, False)]


def test_order_that_the_margin_does_not_cover_is_refused() -> None:
    target = broker(start=50, leverage=10)
    target.submit(request(1, 1, 3, 100), 0)
    target.submit(request(2, 1, 2, 100), 0)
    target.submit(request(3, -1, 5, 105), 0)
    reports = book(target, 1, [(90, 9)], ASKS)
    codes = {report.order_id: report.code for report in reports}
    # The mid is 95.5: five long hold 47.75, and five short do not add to that.
    assert codes == {1: 0, 2: 0, 3: 0}
    target.submit(request(4, 1, 1, 100), 1 * MS)
    assert book(target, 2, [(90, 9)], ASKS)[0].code == Reject.MARGIN


def test_market_order_stops_at_the_bound_around_the_mark() -> None:
    target = broker(market_take_bound=0.05)
    target.on_mark(0, 0, 100 * E8)
    target.submit(request(1, 1, 20), 0)
    assert fills(book(target, 1, BIDS, ASKS)) == [(1, 101, 3, False), (1, 102, 4, False)]
    target.submit(request(2, 1, 20), 1 * MS + 1)
    (report,) = book(target, 2, BIDS, [(106, 5)])
    assert report.code == Reject.TAKE_BOUND


def test_too_many_open_orders_are_refused() -> None:
    target = broker(max_open_orders=2)
    for number in (1, 2, 3):
        target.submit(request(number, 1, 1, 95), 0)
    assert [report.code for report in book(target, 1, BIDS, ASKS)] == [0, 0, Reject.MAX_ORDERS]


def test_funding_is_exchanged_once_at_its_time_with_what_was_announced_before() -> None:
    target = broker()
    target.submit(request(1, 1, 3), 0)
    book(target, 1, BIDS, ASKS)
    target.on_mark(0, 2 * MS, 100 * E8, 10_000, 50 * MS)
    target.on_mark(0, 3 * MS, 200 * E8, 20_000, 50 * MS)
    assert target.advance(50 * MS) == ()  # what happens at that instant comes before it
    (report,) = target.on_mark(0, 50 * MS, 999 * E8, 90_000, 99 * MS)
    assert (report.kind, report.at_ns, report.money_e8) == (K.FUNDING, 50 * MS, -12_000_000)
    target.on_mark(0, 51 * MS, 100 * E8, 90_000, 50 * MS)  # late news of what is settled
    assert target.advance(98 * MS) == ()
    assert target.account.funding_e8 == -12_000_000


def test_account_is_liquidated_at_the_book_and_then_at_the_worse_price() -> None:
    target = broker(start=100, leverage=20, liquidation_fee_bps=100.0)
    target.submit(request(1, 1, 7), 0)
    target.submit(request(2, 1, 1, 95), 0)
    book(target, 1, BIDS, ASKS)
    assert target.on_mark(0, 2 * MS, 95 * E8) == ()
    book(target, 3, [(87, 2), (86, 1)], [(101, 3)])
    reports = target.on_mark(0, 4 * MS, 87 * E8 + E8 // 2)
    assert _kinds(reports) == [K.LIQUIDATION, K.EXPIRED, K.FILL, K.FILL, K.FILL]
    assert fills(reports) == [(-1, 87, 2, False), (-1, 86, 1, False), (-1, 86, 4, False)]
    assert target.account.positions[0].qty_e8 == 0
    # 5 bps of 711 and 1 % of 604.
    assert target.account.fees_e8 == 35_550_000 + 604_000_000
    assert target.on_mark(0, 5 * MS, 80 * E8) == ()


def test_account_without_mark_prices_is_liquidated_at_the_mid() -> None:
    """It went on with a balance far below zero: only a mark price asked whether it still stood."""
    target = broker(start=100, leverage=20)
    target.submit(request(1, 1, 7), 0)
    book(target, 1, BIDS, ASKS)
    for second, bid in ((1, 95), (2, 92)):
        assert quote(target, second * 1_000 - 1, bid, 50, bid + 1, 50) == ()
    assert quote(target, 2_500, 86, 50, 87, 50) == ()  # valued at whole seconds
    reports = quote(target, 3_001, 86, 50, 87, 50)
    assert _kinds(reports) == [K.LIQUIDATION, K.FILL]
    assert reports[0].at_ns == 3_000 * MS
    assert target.account.positions[0].qty_e8 == 0


def test_mark_price_says_what_the_account_stands_until_it_is_a_minute_old() -> None:
    """A stream of mark prices that had fallen silent decided for hours over orders and liquidations."""
    target = broker(start=100, leverage=20, market_take_bound=0.05)
    target.on_mark(0, 0, 100 * E8)
    target.submit(request(1, 1, 7), 0)
    book(target, 1, BIDS, ASKS)
    quote(target, 500, 80, 50, 81, 50)
    # The mid alone would have ended it; the mark is still known, and what is far from it is refused.
    assert quote(target, 59_999, 80, 50, 81, 50) == ()
    target.submit(request(2, -1, 1, reduce_only=True), 59_999 * MS)
    assert [report.code for report in quote(target, 60_000, 80, 50, 81, 50)] == [Reject.TAKE_BOUND]
    assert quote(target, 61_000, 80, 50, 81, 50) == ()
    assert _kinds(quote(target, 61_001, 80, 50, 81, 50)) == [K.LIQUIDATION, K.FILL]
    target.submit(request(3, 1, 1), 62_000 * MS)
    assert Reject.TAKE_BOUND not in [report.code for report in quote(target, 62_001, 80, 50, 81, 50)]


def test_silence_of_days_is_valued_once() -> None:
    """Second by second a hole of a year between two files would take minutes."""
    target = broker(start=10_000)
    target.submit(request(1, 1, 3), 0)
    book(target, 1, BIDS, ASKS)
    year_ms = 365 * 86_400_000
    began = time.process_time()
    assert quote(target, year_ms, 99, 5, 100, 5) == ()
    assert time.process_time() - began < 1
    assert target.account.positions[0].qty_e8 == 3 * E8


def test_maker_and_taker_pay_their_own_fee() -> None:
    target = broker()
    target.submit(request(1, 1, 1), 0)
    target.submit(request(2, 1, 1, 100), 0)
    book(target, 1, [(90, 9)], ASKS)
    assert target.account.fees_e8 == 101 * E8 * 5 // 10_000
    trade(target, 2, 100, 1, -1)
    assert target.account.fees_e8 == 101 * E8 * 5 // 10_000 + 100 * E8 * 2 // 10_000


def test_order_id_is_never_used_twice() -> None:
    target = broker()
    target.submit(request(2, 1, 1, 95), 0)
    for order_id in (2, 1):
        with pytest.raises(ExecutionError, match="never used twice"):
            target.submit(request(order_id, 1, 1, 95), 0)
    with pytest.raises(ExecutionError, match="no such symbol"):
        target.submit(request(3, 1, 1, 95, symbol=1), 0)
    assert list(target.orders) == [2]


def test_cancel_all_ends_what_is_open_and_what_waits() -> None:
    target = broker()
    target.submit(request(1, 1, 1, 95), 0)
    book(target, 1, BIDS, ASKS)
    target.submit(request(2, 1, 1, 95), 2 * MS)
    target.cancel_all(2 * MS)
    reports = target.advance(3 * MS)
    assert [(r.order_id, r.kind) for r in reports] == [(1, K.CANCELED), (2, K.CANCELED)]
    assert target.orders == {}


def test_request_that_was_sent_before_its_order_is_refused() -> None:
    # Both are on one connection, so the exchange cannot know the order yet.
    target = broker()
    target.cancel(1, 0)
    target.submit(request(1, 1, 1, 95), 0)
    reports = book(target, 1, BIDS, ASKS)
    assert [(r.kind, r.code) for r in reports] == [
        (K.CANCEL_REJECTED, Reject.CANCEL_UNKNOWN),
        (K.ACCEPTED, 0),
    ]
