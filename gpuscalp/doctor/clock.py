"""The clock: kept by somebody, and close to the exchange's.

Owns: the checks ``clock_sync`` and ``clock_offset``. Never: sets a clock.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gpuscalp.config import FeedConfig
from gpuscalp.doctor.check import Check, fail, ok, skip, warn
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.schema import NS_PER_MS

_FIX: Final = "run a time service (chrony, systemd-timesyncd, ntpd); in a container, on its host"
# adjtimex(2): the state of a clock that nobody keeps, and the bit that says so.
_TIME_ERROR: Final = 5
_STA_UNSYNC: Final = 0x40
# The head of its struct timex: modes, offset, freq, maxerror, esterror, status. The kernel fills 208 bytes.
TIMEX: Final = struct.Struct("@Illlli")
_ROOM_BYTES: Final = 1_024


@dataclass(frozen=True, slots=True)
class KernelClock:
    """What the service that keeps the clock told the kernel; ``max_error_us`` grows while it is silent."""

    synchronised: bool
    max_error_us: int


def read_kernel_clock() -> KernelClock | None:
    """Ask the kernel and change nothing; None where it does not answer: other systems, many containers."""
    if not sys.platform.startswith("linux"):
        return None
    told = ctypes.create_string_buffer(_ROOM_BYTES)  # modes = 0: a question
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(told)
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    _, _, _, max_error_us, _, status = TIMEX.unpack_from(told)
    return kernel_clock(state, status, max_error_us)


def kernel_clock(state: int, status: int, max_error_us: int) -> KernelClock:
    """Read the answer of adjtimex(2): what it returned, and two of its fields."""
    return KernelClock(state != _TIME_ERROR and not status & _STA_UNSYNC, max_error_us)


def check_sync(clock: KernelClock | None, feed: FeedConfig) -> Check:
    """Judge whether somebody keeps the clock. Only a warning: some services do not tell the kernel."""
    if clock is None:
        return skip("clock_sync", "the kernel does not tell, as in many containers")
    value = {"synchronised": clock.synchronised, "max_error_us": clock.max_error_us}
    if not clock.synchronised:
        return warn("clock_sync", "the kernel knows of no time service that keeps this clock", _FIX, value)
    error_ms = clock.max_error_us / 1e3
    if error_ms > feed.clock_limit_ms:
        what = f"the clock is kept, but may be {error_ms:.0f} ms off"
        return warn("clock_sync", what, "look whether the time service reaches its servers", value)
    return ok("clock_sync", f"kept, within {error_ms:.1f} ms", value)


def check_offset(samples: Iterable[tuple[int, int, int]], feed: FeedConfig) -> Check:
    """Judge the distance from the exchange's clock as a session will judge it.

    Parameters
    ----------
    samples : (sent, received, server's time), ns, by the wall clock
    """
    estimate = ClockOffset(feed)
    for sample in samples:
        estimate.on_server_time(*sample)
    offset_ns, doubt_ns = estimate.offset_ns, estimate.uncertainty_ns
    if offset_ns is None or doubt_ns is None:
        return skip("clock_offset", "the exchange has told no time")
    offset_ms, doubt_ms = offset_ns / NS_PER_MS, doubt_ns / NS_PER_MS
    value = {
        "offset_ms": offset_ms,
        "uncertainty_ms": doubt_ms,
        "limit_ms": feed.clock_limit_ms,
        "samples": estimate.sample_count,
    }
    side = "behind" if offset_ns > 0 else "ahead of"
    title = f"this clock is {abs(offset_ms):.1f} ± {doubt_ms:.1f} ms {side} the exchange's"
    if abs(offset_ms) > feed.clock_limit_ms:
        what = f"{title}: more than feed.clock_limit_ms ({feed.clock_limit_ms} ms), a session would not trade"
        return fail("clock_offset", what, f"set the clock: {_FIX}", value)
    if abs(offset_ms) + doubt_ms > feed.clock_limit_ms:
        fix = "look at the connection: replies of the exchange take too long to measure by"
        return warn("clock_offset", f"{title}: it may be beyond the limit", fix, value)
    return ok("clock_offset", title, value)
