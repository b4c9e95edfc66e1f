"""How many orders the paper exchange takes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.config import PaperConfig
from gpuscalp.execution.rates import OrderRates
from tests.execution.market import MS, book, broker, request


def test_orders_beyond_the_limit_are_refused_until_the_window_ends() -> None:
    target = broker(max_orders_per_10s=3, max_orders_per_minute=5)
    book(target, 1, [(99, 9)], [(101, 9)])
    codes = []
    for number, at_ms in enumerate([10, 20, 30, 40, 9_999, 10_000, 10_001, 10_002, 20_000, 60_000], 1):
        target.submit(request(number, 1, 1, 90), at_ms * MS)
        codes += [report.code for report in target.advance(at_ms * MS)]
        codes += [report.code for report in book(target, at_ms, [(99, 9)], [(101, 9)])]
    # The minute has seen seven by 10.001 s: refused orders count too, as at the exchange.
    assert codes == [0, 0, 0, -1015, -1015, -1015, -1015, -1015, -1015, 0]
    assert len(target.orders) == 4


def test_cancellations_do_not_count() -> None:
    target = broker(max_orders_per_10s=2)
    book(target, 1, [(99, 9)], [(101, 9)])
    target.submit(request(1, 1, 1, 90), 2 * MS)
    target.cancel(7, 2 * MS)
    target.cancel(1, 2 * MS)
    target.submit(request(2, 1, 1, 90), 2 * MS)
    target.submit(request(3, 1, 1, 90), 2 * MS)
    seen = [*target.advance(2 * MS), *book(target, 3, [(99, 9)], [(101, 9)])]
    assert [(report.order_id, str(report.kind), report.code) for report in seen] == [
        (7, "cancel_rejected", -2011), (1, "canceled", 0), (3, "rejected", -1015), (2, "accepted", 0),
    ]  # fmt: skip


@given(st.lists(st.integers(0, 7_000), min_size=1, max_size=60), st.integers(1, 5), st.integers(1, 9))
def test_no_window_admits_more_than_its_limit(steps: list[int], ten: int, minute: int) -> None:
    rates = OrderRates(PaperConfig(max_orders_per_10s=ten, max_orders_per_minute=minute))
    now, seen, minutes = 0, Counter(), Counter()
    for step in steps:
        now += step
        seen[now // 10_000] += 1
        minutes[now // 60_000] += 1
        expected = seen[now // 10_000] <= ten and minutes[now // 60_000] <= minute
        assert rates.admit(now * MS) is expected
