"""Funding at the paper exchange while no mark price comes."""

from __future__ import annotations

from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.messages import ReportKind
from tests.execution.market import E8, MS, book, broker, request

BIDS = [(100, 5), (99, 5)]
ASKS = [(101, 3), (102, 4)]
HOUR = 3_600_000 * MS


def long_over(hours: tuple[int, ...], interval: int) -> PaperBroker:
    """Return a broker that is long 3 at 100, with a mark price at each of some hours and 1 ms."""
    target = broker()
    target.submit(request(1, 1, 3), 0)
    book(target, 1, BIDS, ASKS)
    for hour in hours:
        target.on_mark(0, hour * HOUR + 2 * MS, 100 * E8, 10_000, (hour // interval + 1) * interval * HOUR)
    return target


def test_funding_goes_on_while_no_mark_price_comes() -> None:
    """One was once charged for any time without marks, however long a stop or a lost feed had been."""
    target = long_over((7,), 8)
    reports = target.on_mark(0, 34 * HOUR, 120 * E8, 20_000, 40 * HOUR)
    assert [(each.at_ns // HOUR, each.money_e8) for each in reports] == [
        (hour, -3_000_000) for hour in (8, 16, 24, 32)
    ]
    assert {each.kind for each in reports} == {ReportKind.FUNDING}
    assumed = "not announced: the last rate, every 8 hours"
    assert [each.reason for each in reports] == ["", assumed, assumed, assumed]
    assert target.advance(40 * HOUR) == ()
    (report,) = target.advance(40 * HOUR + MS)  # as announced: the new rate and mark
    assert (report.at_ns // HOUR, report.money_e8, report.reason) == (40, -7_200_000, "")


def test_funding_that_nobody_tells_of_keeps_the_interval_that_was_seen() -> None:
    target = long_over((3, 4), 4)  # the second shows what lies between two
    reports = target.advance(17 * HOUR)
    assert [(each.at_ns // HOUR, each.reason) for each in reports] == [
        (8, ""), (12, "not announced: the last rate"), (16, "not announced: the last rate"),
    ]  # fmt: skip
    # After hours of silence the next time shows nothing: it is four hours on, and two may have passed.
    target.on_mark(0, 18 * HOUR, 100 * E8, 10_000, 24 * HOUR)
    assert [each.at_ns // HOUR for each in target.advance(29 * HOUR)] == [24, 28]


def test_funding_meanwhile_is_on_what_is_held_at_its_time() -> None:
    target = long_over((7,), 8)
    target.submit(request(2, -1, 2), 9 * HOUR)
    book(target, 9 * 3_600_000 + 1, BIDS, ASKS)
    assert [each.money_e8 for each in target.advance(17 * HOUR)] == [-1_000_000]
    target.submit(request(3, -1, 1), 17 * HOUR)
    book(target, 17 * 3_600_000 + 1, BIDS, ASKS)
    assert target.on_mark(0, 34 * HOUR, 100 * E8, 10_000, 40 * HOUR) == ()


def test_every_symbol_is_charged_at_its_own_times() -> None:
    """One is due every 4 hours and one every 8, and nothing is heard of either any more."""
    target = broker(symbols=2)
    for symbol in (0, 1):
        target.submit(request(symbol + 1, 1, 3, symbol=symbol), 0)
        book(target, 1, BIDS, ASKS, symbol=symbol)
    for hour, symbol, interval in ((3, 0, 4), (4, 0, 4), (7, 1, 8), (8, 1, 8)):
        next_ns = (hour // interval + 1) * interval * HOUR
        target.on_mark(symbol, hour * HOUR + 2 * MS, 100 * E8, 10_000, next_ns)
    reports = target.advance(25 * HOUR)
    assert [(each.at_ns // HOUR, each.symbol_index) for each in reports] == [
        (12, 0), (16, 0), (16, 1), (20, 0), (24, 0), (24, 1),
    ]  # fmt: skip


def test_a_funding_time_that_is_over_when_it_is_first_heard_of_is_not_charged() -> None:
    """What was held then is not known here: a feed that begins late must not pay for it at once."""
    target = long_over((), 8)
    assert target.on_mark(0, 9 * HOUR, 100 * E8, 10_000, 8 * HOUR) == ()
    assert target.advance(15 * HOUR) == ()
    target.on_mark(0, 15 * HOUR, 100 * E8, 20_000, 16 * HOUR)
    (report,) = target.advance(16 * HOUR + MS)
    assert (report.at_ns // HOUR, report.money_e8, report.reason) == (16, -6_000_000, "")
