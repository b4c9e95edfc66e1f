"""Times as venues and recorders write them, to ns UTC.

Owns: telling s, ms, µs and ns apart by size. Never: reads a clock.
"""

from __future__ import annotations

from typing import Final

from gpuscalp.errors import DecodeError

# 2009-01-01 and 2100-01-01, UTC. The ranges of the four units do not touch, and all fit in int64.
SECONDS_MIN: Final = 1_230_768_000
SECONDS_MAX: Final = 4_102_444_800

_MS_MIN: Final = SECONDS_MIN * 1_000
_MS_MAX: Final = SECONDS_MAX * 1_000


def to_ns(time: int) -> int:
    """Return a time in ns, given in s, ms, µs or ns.

    Raises
    ------
    DecodeError
        in none of the units it lies between 2009 and 2100
    """
    if _MS_MIN <= time < _MS_MAX:  # what venues send
        return time * 1_000_000
    for scale in (1, 1_000, 1_000_000_000):
        if SECONDS_MIN * 1_000_000_000 <= time * scale < SECONDS_MAX * 1_000_000_000:
            return time * scale
    raise DecodeError("time does not lie between 2009 and 2100", value=time)
