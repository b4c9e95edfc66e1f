"""Price-time priority and the single use of displayed liquidity."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.exchange.book import ReplayBook
from gpuscalp.exchange.matching import Match, Matcher, Prevented
from gpuscalp.exchange.orders import Event, Order
from tests.thorough import examples


def _order(number: int, side: int, price: int, qty: int, owner: int = 0, prevention: str = "NONE") -> Order:
    order = Order(
        number, f"c{number}", owner, "X", side, "LIMIT", "GTC", price, qty, 0, prevention=prevention
    )
    order.limit_e8 = price
    return order


def _run(outcomes: object) -> list[Match | Prevented]:
    seen = []
    for outcome in outcomes:  # type: ignore[attr-defined]
        if isinstance(outcome, Match):
            outcome.order.execute(outcome.price_e8, outcome.qty_e8, 0)
        else:
            outcome.order.advance(Event.PREVENT, 0)
        seen.append(outcome)
    return seen


def _matcher() -> tuple[ReplayBook, Matcher]:
    book = ReplayBook()
    book.replace([(100, 10), (99, 20)], [(101, 10), (102, 20)], 1)
    return book, Matcher(book)


def test_a_taker_walks_the_levels_best_first_and_stops_at_its_limit() -> None:
    _, matcher = _matcher()
    order = _order(1, 1, 101, 15)
    matches = _run(matcher.take(order))
    assert [(item.price_e8, item.qty_e8) for item in matches] == [(101, 10)]
    assert order.left_e8 == 5


def test_what_one_taker_took_is_not_there_for_the_next() -> None:
    book, matcher = _matcher()
    _run(matcher.take(_order(1, 1, 102, 10)))
    matches = _run(matcher.take(_order(2, 1, 102, 10, owner=1)))
    assert [(item.price_e8, item.qty_e8) for item in matches] == [(102, 10)]
    book.apply([], [(101, 14)], 2)  # four more are offered
    matches = _run(matcher.take(_order(3, 1, 101, 10)))
    assert [(item.price_e8, item.qty_e8) for item in matches] == [(101, 4)]


def test_a_maker_waits_for_the_queue_ahead_of_it() -> None:
    _, matcher = _matcher()
    order = _order(1, 1, 100, 5)
    matcher.rest(order)
    assert _run(matcher.on_trade(100, 8, -1)) == []
    matches = _run(matcher.on_trade(100, 4, -1))
    assert [(item.order, item.qty_e8, item.maker) for item in matches] == [(order, 2, True)]


def test_a_trade_beyond_the_price_fills_without_a_queue_but_no_more_than_its_quantity() -> None:
    _, matcher = _matcher()
    order = _order(1, 1, 100, 5)
    matcher.rest(order)
    matches = _run(matcher.on_trade(99, 3, -1))
    assert [(item.price_e8, item.qty_e8) for item in matches] == [(100, 3)]


def test_two_orders_at_a_price_fill_in_the_order_of_their_arrival() -> None:
    _, matcher = _matcher()
    first, second = _order(1, 1, 100, 5), _order(2, 1, 100, 5, owner=1)
    matcher.rest(first)
    matcher.rest(second)
    matches = _run(matcher.on_trade(100, 18, -1))
    assert [(item.order, item.qty_e8) for item in matches] == [(first, 5), (second, 3)]


def test_cancellations_come_from_behind_so_the_queue_is_at_most_what_is_shown() -> None:
    book, matcher = _matcher()
    order = _order(1, 1, 100, 5)
    matcher.rest(order)
    book.apply([(100, 3)], [], 2)
    assert _run(matcher.on_book()) == []
    matches = _run(matcher.on_trade(100, 4, -1))
    assert [item.qty_e8 for item in matches] == [1]


def test_a_resting_order_fills_when_the_book_moves_onto_it() -> None:
    book, matcher = _matcher()
    order = _order(1, 1, 100, 25)
    matcher.rest(order)
    book.replace([(98, 5)], [(100, 7), (101, 9)], 2)
    matches = _run(matcher.on_book())
    assert [(item.price_e8, item.qty_e8, item.maker) for item in matches] == [(100, 7, True)]


def test_users_trade_with_each_other_at_the_price_of_the_one_who_waited() -> None:
    _, matcher = _matcher()
    maker = _order(1, -1, 101, 4)
    matcher.rest(maker)  # behind the ten that are displayed
    taker = _order(2, 1, 102, 12, owner=1)
    matches = _run(matcher.take(taker))
    assert [(item.order, item.price_e8, item.qty_e8) for item in matches] == [
        (taker, 101, 10),
        (maker, 101, 2),
        (taker, 101, 2),
    ]


def test_self_trade_prevention_ends_the_side_that_its_mode_names() -> None:
    for prevention, maker_ends, taker_ends in (
        ("EXPIRE_MAKER", True, False),
        ("EXPIRE_TAKER", False, True),
        ("EXPIRE_BOTH", True, True),
    ):
        book, matcher = _matcher()
        book.replace([(100, 10)], [(105, 10)], 2)
        maker = _order(1, -1, 102, 4)
        matcher.rest(maker)
        taker = _order(2, 1, 103, 4, prevention=prevention)
        outcomes = _run(matcher.take(taker))
        assert all(isinstance(item, Prevented) for item in outcomes)
        assert (not maker.is_open, not taker.is_open) == (maker_ends, taker_ends)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "rest", "trade", "level"]),
        st.sampled_from([1, -1]),
        st.integers(96, 105),
        st.integers(1, 30),
        st.integers(0, 2),
    ),
    max_size=60,
)


@settings(max_examples=examples(150))
@given(_STEPS)
def test_nothing_is_taken_twice_and_no_taker_is_better_off_than_the_book(
    steps: list[tuple[str, int, int, int, int]],
) -> None:
    book, matcher = _matcher()
    shown = {
        (side, price): qty
        for side, levels in ((1, book.bids), (-1, book.asks))
        for price, qty in levels.qty.items()
    }
    taken = 0
    for number, (what, side, price, qty, owner) in enumerate(steps):
        if what == "level":
            before = (book.bids if side > 0 else book.asks).qty.get(price, 0)
            opposite = book.asks if side > 0 else book.bids
            if opposite.keys and side * (price - opposite.best()[0]) >= 0:
                continue  # the source's book is never crossed
            if side > 0:
                book.apply([(price, qty)], [], number)
            else:
                book.apply([], [(price, qty)], number)
            shown[side, price] = shown.get((side, price), 0) + max(0, qty - before)
            outcomes = _run(matcher.on_book())
        elif what == "trade":
            outcomes = _run(matcher.on_trade(price, qty, side))
            assert sum(item.qty_e8 for item in outcomes if isinstance(item, Match)) <= qty
            continue
        else:
            order = _order(number, side, price, qty, owner)
            best = (book.asks if side > 0 else book.bids).best()[0]
            outcomes = _run(matcher.take(order))
            for item in outcomes:
                assert isinstance(item, Match)
                if not item.maker and best and not any(other.maker for other in outcomes):
                    assert side * (item.price_e8 - best) >= 0
            if what == "rest" and order.is_open:
                matcher.rest(order)
        # Each fill of the book's own liquidity has one user on it, each fill between users has two.
        filled = sum(-item.qty_e8 if item.maker and what != "level" else item.qty_e8 for item in outcomes)
        taken += filled
        assert taken <= sum(shown.values())
        for resting in tuple(matcher):
            if not resting.is_open:
                matcher.remove(resting)
        for side_book in (book.bids, book.asks):
            for level, gone in side_book.taken.items():
                assert 0 <= gone <= side_book.qty[level]
