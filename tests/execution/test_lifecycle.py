"""The table of the order's life, pair by pair."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.errors import ExecutionError
from gpuscalp.execution.lifecycle import ENDED, OPEN, TRANSITIONS, OrderEvent, OrderState, next_state

# Written out a second time and in another form (rows: events; columns: states), so that a slip in the table
# shows. A dot is an error.
#           new      accepted partial
EXPECTED = """
accept      accepted .        .
reject      rejected .        .
fill_part   .        partial  partial
fill_rest   .        filled   filled
cancel      canceled canceled canceled
expire      expired  expired  expired
"""
LIVING = (OrderState.NEW, OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED)


def _expected() -> dict[tuple[OrderState, OrderEvent], OrderState]:
    found = {}
    for line in EXPECTED.strip().splitlines():
        event, *targets = line.split()
        for state, target in zip(LIVING, targets, strict=True):
            if target != ".":
                name = "partially_filled" if target == "partial" else target
                found[state, OrderEvent(event)] = OrderState(name)
    return found


@pytest.mark.parametrize(("state", "event"), list(itertools.product(OrderState, OrderEvent)))
def test_each_pair_of_state_and_event_does_what_the_second_table_says(
    state: OrderState, event: OrderEvent
) -> None:
    target = _expected().get((state, event))
    if target is None:
        with pytest.raises(ExecutionError, match="order 7"):
            next_state(state, event, order_id=7)
    else:
        assert next_state(state, event, order_id=7) is target


def test_table_names_every_state_and_cannot_be_changed() -> None:
    assert set(TRANSITIONS) == set(OrderState)
    assert set(OrderState) - set(LIVING) == ENDED
    assert set(LIVING) > OPEN
    with pytest.raises(TypeError):
        TRANSITIONS[OrderState.FILLED][OrderEvent.CANCEL] = OrderState.CANCELED  # type: ignore[index]


@given(st.lists(st.sampled_from(OrderEvent), max_size=30))
def test_ended_order_stays_ended_whatever_comes(events: list[OrderEvent]) -> None:
    state = OrderState.NEW
    for event in events:
        before = state
        try:
            state = next_state(state, event, order_id=1)
        except ExecutionError:
            assert state is before
        assert before not in ENDED or state is before
