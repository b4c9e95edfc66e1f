"""Trade ids against sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.feeds.chain import OPEN_MAX, Ascent, Link, Restart, TradeChain
from gpuscalp.schema import NS_PER_S


@given(st.lists(st.integers(100, 140), max_size=80))
def test_every_id_is_judged_as_by_sets(ids: list[int]) -> None:
    chain, seen = TradeChain(), set[int]()
    for recv_ns, trade_id in enumerate(ids):
        link = chain.on_id(trade_id, recv_ns)
        if not seen or trade_id == max(seen) + 1:
            assert link is Link.NEXT
        elif trade_id in seen:
            assert link is Link.DUPLICATE
        elif trade_id < ids[0]:
            assert link is Link.LATE
            continue
        else:
            assert link is (Link.GAP if trade_id > max(seen) else Link.FILLS)
        seen.add(trade_id)
    missing = {i for gap in chain.close_gaps() for i in range(gap.first_id, gap.last_id + 1)}
    assert missing == (set(range(ids[0], max(seen) + 1)) - seen if seen else set())
    assert chain.close_gaps() == []


@given(st.lists(st.integers(0, 50), max_size=60))
def test_ascent_takes_a_rising_stream_whole(ids: list[int]) -> None:
    ascent = Ascent()
    for number in sorted(set(ids)):
        assert ascent.on_id(number) is Link.NEXT
        assert ascent.on_id(number) is Link.DUPLICATE


def test_ascent_outvotes_one_wrong_id() -> None:
    # A damaged digit in one id made every later quote late, to the end of the recording.
    ascent = Ascent()
    links = [ascent.on_id(number) for number in (10, 12, 999, 14, 15, 16, 17)]
    assert links == [Link.NEXT] * 3 + [Link.LATE] * 2 + [Link.NEXT] * 2
    assert (ascent.newest, ascent.before) == (17, 16)


@pytest.mark.parametrize(
    ("after", "taken"),
    [
        ((14, 15, 16), 16),
        ((14, 14, 15, 16, 17), 17),  # one that repeats does not rise: what follows is counted from there
        ((14, 13, 15, 16, 17), 17),
        ((14, 15, 13, 16, 17, 18), 18),
        ((12, 13, 14, 15), 15),  # the last but one that was taken is no part of what comes after it
        ((11, 13, 14, 15), 15),
        ((14, 998, 16, 17, 18, 19), 19),  # a second damaged one
    ],
)
def test_ascent_is_outvoted_by_three_in_a_row_that_rise(after: tuple[int, ...], taken: int) -> None:
    ascent = Ascent()
    for number in (10, 12, 999):
        assert ascent.on_id(number) is Link.NEXT
    links = [ascent.on_id(number) for number in after]
    assert links == [Link.NEXT if number == taken else Link.LATE for number in after]
    assert ascent.newest == taken


def test_ascent_is_not_moved_by_old_messages_sent_again() -> None:
    ascent = Ascent()
    assert [ascent.on_id(number) for number in range(100)] == [Link.NEXT] * 100
    assert {ascent.on_id(number) for number in range(50, 99)} == {Link.LATE}
    assert ascent.on_id(99) is Link.DUPLICATE
    assert ascent.on_id(100) is Link.NEXT


def test_gap_carries_the_times_around_it() -> None:
    chain = TradeChain()
    for trade_id, recv_ns in ((5, 10), (6, 20), (9, 30)):
        chain.on_id(trade_id, recv_ns)
    (gap,) = chain.close_gaps()
    assert (gap.first_id, gap.last_id, gap.from_ns, gap.to_ns) == (7, 8, 20, 30)


def test_open_gaps_are_bounded_and_none_is_lost() -> None:
    chain = TradeChain()
    for step in range(OPEN_MAX + 51):
        chain.on_id(2 * step, step)
    assert chain.on_id(1, 10**6) is Link.LATE, "the oldest gaps are final"
    assert chain.on_id(2 * OPEN_MAX + 1, 10**6) is Link.FILLS
    assert len(chain.close_gaps()) == OPEN_MAX + 49


def test_settling_forgets_only_what_is_no_longer_open() -> None:
    """A session that never closes its gaps would remember each of them for ever."""
    chain = TradeChain()
    for number in range(0, 2 * (OPEN_MAX + 10), 2):
        chain.on_id(number, number)
    assert chain.settle() == 9
    assert chain.settle() == 0
    newest_gap = 2 * (OPEN_MAX + 10) - 3
    assert chain.on_id(newest_gap, 0) is Link.FILLS
    assert len(chain.close_gaps()) == OPEN_MAX - 1


def test_ids_have_begun_anew_when_three_in_a_row_rise_and_are_dated_later() -> None:
    restart = Restart()
    told = [restart.on_refused(number, (10 + number) * NS_PER_S, 8 * NS_PER_S) for number in (1, 2, 3)]
    assert told == [False, False, True]


def test_old_messages_sent_once_more_are_no_new_beginning() -> None:
    restart = Restart()
    # Copies bear their event time; those of another connection may differ by a little.
    assert not any(restart.on_refused(number, 8 * NS_PER_S + number, 8 * NS_PER_S) for number in range(99))
    # Falling ids, or taken messages in between, are no beginning either.
    assert not any(restart.on_refused(-number, 99 * NS_PER_S, 8 * NS_PER_S) for number in range(99))
    assert not any(restart.on_refused(number, 999 * NS_PER_S, number * NS_PER_S) for number in range(99))
    # Nor is one message that comes again and again.
    assert not any(restart.on_refused(5, 999 * NS_PER_S, 8 * NS_PER_S) for _ in range(99))
