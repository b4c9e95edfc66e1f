"""Funding in a backtest of NautilusTrader against that of the paper broker, by the same mark prices."""

from __future__ import annotations

import pytest

from gpuscalp.account import Account
from gpuscalp.execution.messages import ReportKind
from gpuscalp.nautilus.funding import Funding
from tests.execution.market import E8, book, broker, request

HOUR = 3_600 * 10**9


@pytest.mark.parametrize("interval", [1, 4, 8])
@pytest.mark.parametrize("hours", [(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (7, 34), (3, 4, 29), (8, 9, 10, 100)])
def test_both_charge_the_same_at_the_same_times(interval: int, hours: tuple[int, ...]) -> None:
    """After hours without mark prices both once charged one funding for all that had passed."""
    target, paid, moved = broker(), [], list[int]()
    funding = Funding(1, moved.append)
    target.submit(request(1, 1, 3), 0)
    book(target, 1, [(100, 5)], [(101, 5)])
    told = []
    for hour in hours:
        next_ns = (hour // interval + 1) * interval * HOUR
        mark = (hour * HOUR + HOUR // 2, (90 + hour) * E8, 10_000 + hour, next_ns)
        paid += funding.on_mark(0, *mark, target.account)
        told += target.on_mark(0, *mark)
    assert paid == [(each.at_ns, each.money_e8) for each in told if each.kind is ReportKind.FUNDING]
    assert moved == [money_e8 for _, money_e8 in paid], "the account moves by what is told"
    assert len(paid) >= (hours[-1] - hours[0]) // 8


def test_mark_without_a_rate_is_a_price_and_nothing_else() -> None:
    account, moved = Account(0, 2), list[int]()
    account.apply_fill(1, 3 * E8, 100 * E8, 0)
    funding = Funding(2, moved.append)
    assert funding.on_mark(1, HOUR, 100 * E8, None, 2 * HOUR, account) == []
    assert funding.on_mark(1, 3 * HOUR, 100 * E8, 10_000, 3 * HOUR, account) == []  # a time that is over
    assert (funding.announced, moved) == (set(), [])
    funding.on_mark(1, 4 * HOUR, 100 * E8, 10_000, 8 * HOUR, account)
    funding.on_mark(1, 7 * HOUR, 200 * E8, None, 12 * HOUR, account)
    assert funding.on_mark(1, 8 * HOUR, 0, 90_000, 16 * HOUR, account) == [(8 * HOUR, -6_000_000)]
    assert funding.announced == {1}
