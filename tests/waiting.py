"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(true: Callable[[], T], what: str = "it", *, seconds: float = 60.0) -> T:
    """Return the first value that counts as true; only a machine that is very busy needs all of the time."""
    end_s = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end_s, f"{what} has not come true in {seconds:g} s"
        time.sleep(0.01)
    return found
