"""The form of a booster's file, looked at before XGBoost sees it.

XGBoost believes what it reads: values nested 20,000 deep overflow its stack, and behind the end of a file
that is cut short it goes on until there is no memory. Either ends the process, and bundles come from others.

Owns: the walk over markers and lengths of UBJSON as XGBoost writes it. Never: knows what a value means: a
node whose parent is none of the tree's still ends the process in XGBoost.
"""

from __future__ import annotations

import struct
from typing import Final

from gpuscalp.errors import MemberError

# A booster has 7 at most; XGBoost's stack holds some thousands.
DEPTH_MAX: Final = 32

_SIZES: Final = {"Z": 0, "T": 0, "F": 0, "i": 1, "U": 1, "I": 2, "l": 4, "L": 8, "d": 4, "D": 8}
_BYTES: Final = {ord(mark): size for mark, size in _SIZES.items()}
_OBJECT, _ARRAY, _TEXT, _TYPED, _COUNT, _LENGTH = b"{[S$#L"
# In place of how many values are still to come: the mark that ends them.
_IN_OBJECT, _IN_ARRAY = -ord("}"), -ord("]")


def check_ubjson(data: bytes, where: str) -> None:
    """Refuse what is not one object of UBJSON, whole, with nothing behind it.

    Raises
    ------
    MemberError
    """
    try:
        _walk(data)
    except (IndexError, struct.error):
        raise MemberError("a member is cut short", where=where, value=f"{len(data)} bytes") from None
    except ValueError as error:
        raise MemberError("a member is no booster of XGBoost's", where=where, value=str(error)) from None


def _walk(data: bytes) -> None:
    if data[0] != _OBJECT:
        raise ValueError("it is no UBJSON")
    at, around = 1, [_IN_OBJECT]
    while around:
        to_come = around[-1]
        if to_come == 0 or data[at] == -to_come:
            around.pop()
            at += to_come < 0
            continue
        if to_come > 0:
            around[-1] -= 1
        elif to_come == _IN_OBJECT:
            at = _behind(data, at)  # the name
        mark = data[at]
        at += 1
        if mark in _BYTES:
            at += _BYTES[mark]
        elif mark == _TEXT:
            at = _behind(data, at)
        elif mark == _OBJECT:
            around.append(_IN_OBJECT)
        elif mark == _ARRAY and data[at] == _TYPED:
            size = _BYTES.get(data[at + 1], 0)
            if not size or data[at + 2] != _COUNT:
                raise ValueError(f"an array of an unknown type at byte {at}")
            at = _behind(data, at + 3, size)
        elif mark == _ARRAY and data[at] == _COUNT:
            around.append(_length(data, at + 1))
            at += 10
        elif mark == _ARRAY:
            around.append(_IN_ARRAY)
        else:
            raise ValueError(f"an unknown value at byte {at - 1}")
        if len(around) > DEPTH_MAX:
            raise ValueError(f"values nested more than {DEPTH_MAX} deep at byte {at}")
    if at != len(data):
        raise ValueError(f"{len(data)} bytes, of which {at} belong to it")


def _length(data: bytes, at: int) -> int:
    length: int = struct.unpack_from(">q", data, at + 1)[0]
    if data[at] != _LENGTH or length < 0:
        raise ValueError(f"no length at byte {at}")
    if length > len(data) - at - 9:  # each value takes a byte
        raise IndexError
    return length


def _behind(data: bytes, at: int, size: int = 1) -> int:
    """Return where so many values of ``size`` bytes end whose number is at ``at``."""
    return at + 9 + size * _length(data, at)
