"""Is the clock kept, and how far is it from the exchange's?"""

from __future__ import annotations

import struct

import pytest

from gpuscalp.config import FeedConfig
from gpuscalp.doctor.clock import (
    TIMEX,
    KernelClock,
    check_offset,
    check_sync,
    kernel_clock,
    read_kernel_clock,
)

MS = 1_000_000
FEED = FeedConfig(clock_limit_ms=500)
NOW = 1_700_000_000_000 * MS


@pytest.mark.parametrize(
    ("clock", "status"),
    [
        (KernelClock(True, 1_200), "ok"),
        (KernelClock(True, 600_000), "warn"),
        (KernelClock(False, 0), "warn"),
        (None, "skip"),
    ],
)
def test_clock_is_judged_by_what_the_kernel_was_told(clock, status):
    assert check_sync(clock, FEED).status == status


@pytest.mark.parametrize(
    ("state", "status", "kept"),
    [
        (0, 0x2001, True),  # TIME_OK, STA_PLL | STA_NANO: as chrony leaves it
        (1, 0x11, True),  # a leap second is to be inserted
        (5, 0x40, False),  # as a machine starts
        (0, 0x41, False),
        (5, 0x01, False),
    ],
)
def test_answer_of_the_kernel_is_read(state, status, kept):
    assert kernel_clock(state, status, 7) == KernelClock(kept, 7)


@pytest.mark.skipif(struct.calcsize("l") != 8, reason="the layout of 64-bit Linux")
def test_question_has_the_layout_of_the_kernel():
    # From the kernel's own struct __kernel_timex: maxerror at 24, status at 40.
    told = bytearray(208)
    struct.pack_into("=q", told, 24, 1_200)
    struct.pack_into("=i", told, 40, 0x2001)
    assert TIMEX.unpack_from(told) == (0, 0, 0, 1_200, 0, 0x2001)


def test_kernel_is_asked_and_answers_sense_or_nothing():
    found = read_kernel_clock()
    assert found is None or 0 <= found.max_error_us <= 10**9


def _samples(offset_ms, trips_ms):
    """Replies of a server whose clock is ahead by ``offset_ms`` and that answers halfway."""
    made, at = [], NOW
    for trip_ms in trips_ms:
        made.append((at, at + trip_ms * MS, at + trip_ms * MS // 2 + offset_ms * MS))
        at += 1_000 * MS
    return made


@pytest.mark.parametrize(
    ("offset_ms", "trip_ms", "status", "side"),
    [
        (0, 20, "ok", "ahead of"),
        (120, 20, "ok", "behind"),
        (-499, 0, "ok", "ahead of"),
        (501, 20, "fail", "behind"),
        (-2_000, 20, "fail", "ahead of"),
        (400, 300, "warn", "behind"),
    ],
)
def test_offset_is_judged_by_the_limit_of_the_feed(offset_ms, trip_ms, status, side):
    check = check_offset(_samples(offset_ms, [trip_ms] * 7), FEED)
    assert check.status == status
    assert side in check.what
    assert check.value["offset_ms"] == pytest.approx(offset_ms)
    assert check.code == (1 if status == "fail" else 0)


def test_quickest_replies_decide():
    late = [(sent, recv, server + 900 * MS) for sent, recv, server in _samples(0, [2_000, 3_000])]
    check = check_offset([*late, *_samples(30, [10, 12, 14, 16, 18])], FEED)
    assert check.value["offset_ms"] == pytest.approx(30)


def test_without_replies_nothing_is_said():
    assert check_offset([], FEED).status == "skip"
