"""Decimal text to int64 multiples of 1e-8, exactly.

Owns: the one rule for reading a price or quantity. Never: rounds.
"""

from __future__ import annotations

import re
from typing import Final

from gpuscalp.errors import DecodeError

INT64_MAX: Final = 2**63 - 1

_DECIMAL: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?", re.ASCII)


def parse_e8(text: str) -> int:
    """Return a decimal number as a multiple of 1e-8.

    Parameters
    ----------
    text : digits with an optional sign and fraction; no exponent, no blanks

    Raises
    ------
    DecodeError
        it is no such number, has a non-zero digit after the eighth place, or does not fit in int64
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise DecodeError("not a decimal number", value=text[:80])
    sign, whole, fraction = match.group(1), match.group(2), match.group(3) or ""
    if len(fraction) > 8:
        if fraction[8:].strip("0"):
            raise DecodeError("more than eight decimal places", value=text[:80])
        fraction = fraction[:8]
    if len(whole) > 19:
        raise DecodeError("number does not fit in 64 bits", value=text[:80])
    value = int(whole + fraction.ljust(8, "0"))
    if value > INT64_MAX:
        raise DecodeError("number does not fit in 64 bits", value=text[:80])
    return -value if sign else value


def format_e8(value: int) -> str:
    """Return a multiple of 1e-8 as decimal text with eight places: the inverse of ``parse_e8``."""
    sign = "-" if value < 0 else ""
    whole, fraction = divmod(abs(value), 100_000_000)
    return f"{sign}{whole}.{fraction:08d}"


class DecimalCache(dict[str, int]):
    """``cache[text]`` is ``parse_e8(text)``, refusing numbers below a least one, and remembers it.

    Markets repeat the same few thousand strings: on the recordings nine of ten look-ups are hits, and a hit
    costs a tenth of a parse. Bounded: emptied when full.

    Parameters
    ----------
    least_e8 : smallest number let through: 0 for quantities, 1 for prices
    size_max : entries kept
    """

    def __init__(self, *, least_e8: int, size_max: int = 1 << 17) -> None:
        super().__init__()
        self._least_e8, self._size_max = least_e8, size_max

    def __missing__(self, text: str) -> int:
        value = parse_e8(text)
        if value < self._least_e8:
            limit = "must be positive" if self._least_e8 > 0 else "must not be negative"
            raise DecodeError(f"number {limit}", value=text[:80])
        if len(self) >= self._size_max:
            self.clear()
        self[text] = value
        return value
