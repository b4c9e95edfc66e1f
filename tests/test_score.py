"""The score: its formula by hand, monotone in everything it reads, and never lower without a reason."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.score import PART_POINTS, PARTS, REASONS, score

WORDS = [reason.word for reason in REASONS]
NUMBERS = st.dictionaries(
    st.sampled_from(WORDS), st.one_of(st.none(), st.just(math.nan), st.floats(-1e6, 1e6)), max_size=len(WORDS)
)


def test_points_of_each_part_add_up():
    assert PARTS == ("latency", "data", "prediction", "execution", "errors")
    for part in PARTS:
        assert sum(reason.points for reason in REASONS if reason.part == part) == PART_POINTS
    assert len(set(WORDS)) == len(WORDS)
    assert all(reason.bad > reason.good for reason in REASONS)


@given(numbers=NUMBERS)
def test_score_is_the_stated_formula(numbers):
    found = score(numbers)
    parts = dict.fromkeys(PARTS, Fraction(20))
    for reason in REASONS:
        value = numbers.get(reason.word)
        if value is None or math.isnan(value):
            continue
        share = (value - reason.good) / (reason.bad - reason.good)
        share = min(1.0, max(0.0, share))
        parts[reason.part] -= Fraction(math.ceil(100 * reason.points * share), 100)
    assert found.value == float(sum(parts.values()))
    assert found.parts == {part: float(points) for part, points in parts.items()}
    assert 0.0 <= found.value <= 100.0


@given(numbers=NUMBERS)
def test_reasons_are_given_exactly_when_it_is_below_a_hundred(numbers):
    found = score(numbers)
    assert bool(found.lost) == (found.value < 100.0)
    assert 100 - found.value == pytest.approx(sum(each.points for each in found.lost))
    for part in PARTS:
        lost = [each for each in found.lost if each.part == part]
        assert bool(lost) == (found.parts[part] < PART_POINTS)
    assert [each.points for each in found.lost] == sorted((each.points for each in found.lost), reverse=True)


@given(numbers=NUMBERS, word=st.sampled_from(WORDS), worse=st.floats(0.0, 1e6))
def test_each_part_falls_with_each_of_its_numbers_and_with_no_other(numbers, word, worse):
    before = numbers.get(word)
    start = 0.0 if before is None or math.isnan(before) else before
    better, lower = score(numbers | {word: start}), score(numbers | {word: start + worse})
    reason = next(reason for reason in REASONS if reason.word == word)
    assert lower.value <= better.value
    for part in PARTS:
        if part == reason.part:
            assert lower.parts[part] <= better.parts[part]
        else:
            assert lower.parts[part] == better.parts[part]


@pytest.mark.parametrize("reason", REASONS, ids=WORDS)
def test_each_reason_costs_nothing_when_good_and_all_of_its_points_when_bad(reason):
    assert score({reason.word: reason.good}).value == 100.0
    assert score({reason.word: reason.bad}).value == 100.0 - reason.points
    assert score({reason.word: math.inf}).value == 100.0 - reason.points


def test_nothing_known_costs_nothing_and_everything_bad_costs_everything():
    assert score({}).value == 100.0
    assert score({reason.word: reason.bad for reason in REASONS}).value == 0.0
