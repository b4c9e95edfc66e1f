"""Decimal text against the decimal module of the standard library."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.errors import DecodeError
from gpuscalp.feeds.decimals import INT64_MAX, DecimalCache, format_e8, parse_e8

DECIMALS = st.from_regex(r"-?[0-9]{1,10}(\.[0-9]{1,8}0{0,3})?", fullmatch=True)


@given(DECIMALS)
def test_parse_is_exact(text: str) -> None:
    assert parse_e8(text) == int(Decimal(text) * 10**8)


@given(st.integers(-INT64_MAX, INT64_MAX))
def test_format_is_the_inverse_of_parse(value: int) -> None:
    assert parse_e8(format_e8(value)) == value
    assert Decimal(format_e8(value)) == Decimal(value).scaleb(-8)


@pytest.mark.parametrize(
    "text",
    ["", ".", "1.", ".5", "+1", "1e5", "1_000", " 1", "1 ", "NaN", "inf", "0x10", "1,5", "--1", "١", "1.2.3"],
)
def test_parse_refuses_what_is_no_decimal(text: str) -> None:
    with pytest.raises(DecodeError, match="not a decimal number"):
        parse_e8(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0.000000001", "more than eight decimal places"),
        ("92233720368.54775808", "does not fit"),
        ("100000000000000000000", "does not fit"),
    ],
)
def test_parse_refuses_what_is_not_exact(text: str, what: str) -> None:
    with pytest.raises(DecodeError, match=what) as caught:
        parse_e8(text)
    assert caught.value.value == text


def test_largest_number_fits() -> None:
    assert parse_e8("92233720368.54775807") == INT64_MAX


@given(st.lists(DECIMALS, max_size=40))
def test_cache_answers_like_the_parser_however_small_it_is(texts: list[str]) -> None:
    cache = DecimalCache(least_e8=-(10**19), size_max=3)
    assert [cache[text] for text in texts] == [parse_e8(text) for text in texts]
    assert len(cache) <= 3


@pytest.mark.parametrize(
    ("least", "text"), [(0, "-1"), (0, "-0.00000001"), (1, "0"), (1, "0.000"), (1, "-2")]
)
def test_cache_refuses_numbers_below_its_least(least: int, text: str) -> None:
    with pytest.raises(DecodeError, match="must"):
        DecimalCache(least_e8=least)[text]
