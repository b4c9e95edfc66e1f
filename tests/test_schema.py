"""Frames cut and joined: every array, in order, and whose memory it is."""

import numpy as np
import pytest

from gpuscalp.schema import FrameBlock, joined


def block(first: int, last: int) -> FrameBlock:
    """Two symbols and three channels; the number of the frame stands in every place of it, in thousands."""
    rows = np.arange(first, last)
    shapes = {
        "end_ns": (np.int64, ()), "channels": (np.float32, (3, 2)), "quality": (np.uint32, (2,)),
        "bid_px": (np.int32, (2,)), "ask_px": (np.int32, (2,)), "mark": (np.float64, (2,)),
    }  # fmt: skip
    made = {
        name: np.stack([np.full(shape, 1_000 * row + at, dtype) for row in rows])
        if len(rows)
        else np.empty((0, *shape), dtype)
        for at, (name, (dtype, shape)) in enumerate(shapes.items())
    }
    return FrameBlock(**made)


def same(one: FrameBlock, other: FrameBlock) -> bool:
    return all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("end_ns", "channels", "quality", "bid_px", "ask_px", "mark")
    )


@pytest.mark.parametrize(("first", "last"), [(0, 7), (0, 3), (2, 5), (4, 4), (5, None), (5, 99)])
def test_part_is_of_every_array(first: int, last: int | None) -> None:
    part = block(0, 7).part(first, last)
    assert len(part) == min(7, 7 if last is None else last) - first
    assert same(part, block(first, first + len(part)))


def test_only_a_copy_has_memory_of_its_own() -> None:
    whole = block(0, 7)
    view, copy = whole.part(2, 4), whole.part(2, 4).copied()
    for name in ("end_ns", "channels", "quality", "bid_px", "ask_px", "mark"):
        getattr(whole, name)[:] = 0
    assert same(copy, block(2, 4))
    assert not view.channels.any()
    assert not view.end_ns.any()


def test_joined_parts_are_the_whole() -> None:
    whole = block(0, 7)
    assert same(joined([whole.part(0, 3), whole.part(3, 3), whole.part(3)]), whole)
    assert joined([whole]) is whole
