"""Whatever connections do, the merged flow has every message once, in order; what is missing is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.merge import JOIN_MAX_NS, Merge
from gpuscalp.schema import NS_PER_MS

KEY = ("BTCUSDT", "trade")
CONFIG = FeedConfig()


class Source:
    """A stream as the venue has it: ids with or without holes, seen by connections each with its lag."""

    def __init__(self, idents, chained):
        self.idents, self.chained = idents, chained
        self.merge = Merge(CONFIG)
        self.at = {}
        self.now = 0
        self.passed = []
        self.next_number = 0

    def open(self, position):
        self.at[self.next_number] = position
        self.next_number += 1

    def deliver(self, number, count=1):
        for _ in range(count):
            place = self.at[number]
            if place >= len(self.idents):
                return
            self.at[number] += 1
            self.now += 1
            previous = (self.idents[place - 1] if place else self.idents[0] - 1) if self.chained else None
            self.passed += self.merge.on_message(
                number, KEY, self.idents[place], previous, self.idents[place], self.now
            )

    def kill(self, number):
        del self.at[number]
        self.passed += self.merge.on_lost(number, self.now)


def _idents(chained, steps):
    ident, idents = 100, []
    for step in steps:
        ident += 1 if chained else step
        idents.append(ident)
    return idents


@given(data=st.data(), chained=st.booleans(), steps=st.lists(st.integers(1, 5), min_size=5, max_size=60))
def test_two_connections_with_one_always_alive_lose_and_double_nothing(data, chained, steps):
    idents = _idents(chained, steps)
    source = Source(idents, chained)
    source.open(0)
    source.deliver(0)
    for _ in range(data.draw(st.integers(5, 80))):
        choice = data.draw(st.sampled_from(["deliver", "deliver", "deliver", "open", "kill"]))
        numbers = sorted(source.at)
        if choice == "deliver":
            source.deliver(data.draw(st.sampled_from(numbers)), data.draw(st.integers(1, 6)))
        elif choice == "open" and len(numbers) < 3:
            # The venue begins at its present: never before what some connection has been sent already.
            source.open(max(0, max(source.at.values()) - data.draw(st.integers(0, 2))))
        elif choice == "kill" and len(numbers) > 1:
            victim = data.draw(st.sampled_from(numbers))
            rest = [number for number in numbers if number != victim]
            # One may die when another has joined; before, nobody could make up for it.
            if any(source.merge.joined(number, lambda key: True) for number in rest):
                source.kill(victim)
    for number in sorted(source.at):
        source.deliver(number, len(idents))
    assert [item for _, item, _ in source.passed] == idents
    assert not any(gap for _, _, gap in source.passed)


@given(
    chained=st.booleans(),
    before=st.integers(1, 10),
    lost=st.integers(0, 5),
    after=st.integers(1, 10),
)
def test_one_connection_that_dies_shows_what_it_lost(chained, before, lost, after):
    idents = _idents(chained, [2] * (before + lost + after))
    source = Source(idents, chained)
    source.open(0)
    source.deliver(0, before)
    source.kill(0)
    source.open(before + lost)
    source.deliver(1, after)
    assert [item for _, item, _ in source.passed] == idents[:before] + idents[before + lost :]
    flags = [gap for _, _, gap in source.passed]
    # Ids with holes by nature cannot show that nothing is missing: the doubt is told, too.
    assert flags[before] == (lost > 0 or not chained)
    assert sum(flags) == flags[before]


@pytest.mark.parametrize("chained", [False, True])
def test_rotation_with_overlap_needs_no_gap(chained):
    idents = _idents(chained, [3] * 20)
    source = Source(idents, chained)
    source.open(0)
    source.deliver(0, 5)
    source.open(8)
    source.deliver(1, 4)  # the new connection is ahead of the old one
    assert [item for _, item, _ in source.passed] == idents[:5]
    assert not source.merge.joined(1, lambda key: True)
    source.deliver(0, 4)
    assert [item for _, item, _ in source.passed] == idents[:12]
    assert source.merge.joined(1, lambda key: True)
    source.kill(0)
    source.deliver(1, 20)
    assert [item for _, item, _ in source.passed] == idents
    assert source.merge.gap_count == 0


def test_copies_are_counted_by_connection():
    source = Source(_idents(True, [1] * 10), True)
    source.open(0)
    source.deliver(0, 10)
    source.open(2)
    source.deliver(1, 8)
    assert source.merge.duplicates == {1: 8}
    assert len(source.passed) == 10


def test_hole_in_one_connection_is_filled_by_the_other_in_order():
    source = Source(_idents(True, [1] * 10), True)
    source.open(0)
    source.deliver(0, 3)
    source.open(2)
    source.deliver(1, 1)
    source.at[0] += 1  # dropped on the way
    source.deliver(0, 2)
    assert len(source.passed) == 3  # waits for the other connection
    source.deliver(1, 1)
    assert [item for _, item, _ in source.passed] == source.idents[:6]
    assert source.merge.gap_count == 0


def test_hole_that_nobody_fills_is_let_go_with_a_gap_in_time():
    source = Source(_idents(True, [1] * 10), True)
    source.open(0)
    source.deliver(0, 3)
    source.open(2)
    source.deliver(1, 1)
    source.at[0] += 1
    source.deliver(0, 1)
    due_ns = source.merge.due_ns
    assert due_ns == source.now + CONFIG.hold_ms * NS_PER_MS
    assert source.merge.poll(due_ns - 1) == []
    assert [(item, gap) for _, item, gap in source.merge.poll(due_ns)] == [(source.idents[4], True)]
    # The missing one is late, but still the only copy of itself.
    late = source.merge.on_message(1, KEY, source.idents[3], source.idents[2], source.idents[3], due_ns)
    assert [(item, gap) for _, item, gap in late] == [(source.idents[3], False)]


def test_newcomer_is_not_kept_waiting_by_an_incumbent_that_is_dead_and_does_not_know_it():
    source = Source(_idents(False, [1] * 10), False)
    source.open(0)
    source.deliver(0, 3)
    source.open(5)
    source.deliver(1, 2)
    assert source.merge.poll(source.now) == []
    due_ns = source.merge.due_ns
    assert due_ns <= source.now + JOIN_MAX_NS
    passed = source.merge.poll(due_ns)
    assert [(item, gap) for _, item, gap in passed] == [(source.idents[5], True), (source.idents[6], False)]


def test_newcomer_that_dies_while_it_waits_takes_nothing_away():
    # What it had brought was ahead of the incumbent: used after its death it would make the rest late.
    source = Source(_idents(False, [1] * 10), False)
    source.open(0)
    source.deliver(0, 3)
    source.open(6)
    source.deliver(1, 3)
    source.kill(1)
    source.deliver(0, 10)
    assert [item for _, item, _ in source.passed] == source.idents
    assert source.merge.gap_count == 0


def test_same_id_twice_on_one_connection_is_handed_on_for_others_to_judge():
    merge = Merge(CONFIG)
    assert [p.item for p in merge.on_message(0, KEY, 5, None, "first", 1)] == ["first"]
    assert [p.item for p in merge.on_message(0, KEY, 5, None, "second", 2)] == ["second"]
    assert merge.on_message(1, KEY, 5, None, "copy", 3) == []


# Ids that go back: a damaged one was far ahead, or the venue counts anew.


def _feed(merge, number, idents, now_ns, *, chained=False, step_ns=1):
    passed = []
    for place, ident in enumerate(idents):
        previous = ident - 1 if chained else None
        passed += merge.on_message(number, KEY, ident, previous, ident, now_ns + place * step_ns)
    return [each.item for each in passed]


def test_one_id_too_high_does_not_silence_its_stream():
    # One quote with a damaged id, and everything after it was dropped as a copy, over all reconnections.
    merge = Merge(CONFIG)
    first, second = [1, 2, 3, 10**15, 4, 5, 6, 7, 8, 9], list(range(10, 20))
    assert _feed(merge, 0, first, 0) == first
    merge.on_lost(0, 100)
    assert _feed(merge, 0, second, 200) == second
    assert merge.duplicates == {}


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("step_ns", [1, JOIN_MAX_NS // 10])
def test_ids_that_begin_anew_with_the_next_connection_are_passed(chained, step_ns):
    merge = Merge(CONFIG)
    _feed(merge, 0, range(1_000, 1_020), 0, chained=chained)
    merge.on_lost(0, 100)
    assert _feed(merge, 1, range(1, 50), 200, chained=chained, step_ns=step_ns) == list(range(1, 50))


@pytest.mark.parametrize("chained", [False, True])
def test_ids_that_begin_anew_on_both_connections_come_once(chained):
    merge, now_ns, passed = Merge(CONFIG), 0, []
    for ident in (*range(1_000, 1_010), *range(1, 60)):
        now_ns += JOIN_MAX_NS // 10
        for number in (0, 1):
            passed += _feed(merge, number, [ident], now_ns, chained=chained)
    assert passed == [*range(1_000, 1_010), *range(1, 60)]
    assert merge.gap_count == 0
    # The flow has gone back by then: the other one goes on alone.
    merge.on_lost(0, now_ns)
    assert _feed(merge, 1, range(60, 70), now_ns, chained=chained) == list(range(60, 70))


def test_copies_of_a_slower_connection_do_not_take_the_flow_back():
    merge = Merge(CONFIG)
    for number in (0, 1):
        _feed(merge, number, [1], 0)
    _feed(merge, 0, range(2, 50), 10)
    assert _feed(merge, 1, range(2, 50), 100) == []
    assert _feed(merge, 0, [50], 200) == [50]
    assert merge.duplicates[1] == 1 + 48


def test_copies_under_the_number_of_their_source_take_the_flow_back_neither():
    # The journal of two connections, replayed as one: what comes twice is for the market to judge.
    merge = Merge(CONFIG)
    for ident in range(0, 100, 5):
        first = range(ident, ident + 5)
        passed = [merge.on_message(0, KEY, each, each - 1, each, ident * NS_PER_MS) for each in first]
        assert [(each.item, each.gap) for (each,) in passed] == [(each, False) for each in first]
        _feed(merge, 0, first, ident * NS_PER_MS, chained=True)
    assert merge.gap_count == 0


def test_who_is_behind_long_after_the_source_was_lost_goes_on_without_it():
    merge = Merge(CONFIG)
    for number in (0, 1):
        _feed(merge, number, [1, 2, 3], 0)
    _feed(merge, 0, [10**15], 10)
    assert _feed(merge, 1, range(4, 10), 20) == []
    merge.on_lost(0, 30)
    assert _feed(merge, 1, range(10, 15), 40) == [], "they may be copies of what was lost with it"
    assert _feed(merge, 1, range(15, 30), 30 + JOIN_MAX_NS) == list(range(15, 30))


def test_what_waited_for_ids_of_before_is_let_go_when_they_begin_anew():
    merge = Merge(CONFIG)
    for number in (0, 1):
        _feed(merge, number, [100, 101], 0, chained=True)
    assert merge.on_message(1, KEY, 105, 104, 105, 5) == []
    third = JOIN_MAX_NS // 2
    assert _feed(merge, 0, [1, 2, 3, 4], 10, step_ns=third, chained=True) == [1, 2, 105, 3, 4]
    assert _feed(merge, 1, [1, 2, 3, 4, 5], 5 * third, chained=True) == [5]
