"""UBJSON as XGBoost writes it, read without believing it.

XGBoost believes what it reads: values nested 20,000 deep overflow its stack, and behind the end of a file
that is cut short it goes on until there is no memory. Either ends the process, and bundles come from others.

Owns: markers, lengths and depth. Never: knows what a value means (``booster_form``), nor copies an array.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from gpuscalp.errors import MemberError

# A booster has 7 at most; XGBoost's stack holds some thousands.
DEPTH_MAX: Final = 32

_CONSTANTS: Final = {ord("Z"): None, ord("T"): True, ord("F"): False}
_FORMATS: Final = {"i": ">b", "U": ">B", "I": ">h", "l": ">i", "L": ">q", "d": ">f", "D": ">d"}
_NUMBERS: Final = {ord(mark): struct.Struct(form) for mark, form in _FORMATS.items()}
_DTYPES: Final = {ord(mark): np.dtype(">i8" if form == ">q" else form) for mark, form in _FORMATS.items()}
_OBJECT, _ARRAY, _TEXT, _TYPED, _COUNT, _LENGTH = b"{[S$#L"
_OBJECT_END, _ARRAY_END = b"}]"


def read_ubjson(data: bytes, where: str) -> dict[str, Any]:
    """Return one object of UBJSON, whole and with nothing behind it.

    Parameters
    ----------
    data : bytes
    where : named in an error

    Returns
    -------
    dict    typed arrays in it are views of ``data``, with the bytes of each number in the file's order

    Raises
    ------
    MemberError
    """
    try:
        if data[0] != _OBJECT:
            raise ValueError("it is no UBJSON")
        value, end = _object(data, 1, 1)
        if end != len(data):
            raise ValueError(f"{len(data)} bytes, of which {end} belong to it")
    except (IndexError, struct.error):
        raise MemberError("a member is cut short", where=where, value=f"{len(data)} bytes") from None
    except ValueError as error:
        raise MemberError("a member is no booster of XGBoost's", where=where, value=str(error)) from None
    return value


def _object(data: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while data[at] != _OBJECT_END:
        start = at
        name, at = _text(data, at)
        if name in found:  # of two XGBoost may take the other one
            raise ValueError(f"{name!r} a second time at byte {start}")
        found[name], at = _value(data, at, depth)
    return found, at + 1


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """Return the value at ``at``, in so many containers, and where it ends."""
    mark = data[at]
    at += 1
    if mark in _NUMBERS:
        form = _NUMBERS[mark]
        return form.unpack_from(data, at)[0], at + form.size
    if mark == _TEXT:
        return _text(data, at)
    if mark == _ARRAY and data[at] == _TYPED:
        return _typed(data, at + 1)
    if mark in _CONSTANTS:
        return _CONSTANTS[mark], at
    if mark not in (_OBJECT, _ARRAY):
        raise ValueError(f"an unknown value at byte {at - 1}")
    if depth >= DEPTH_MAX:
        raise ValueError(f"values nested more than {DEPTH_MAX} deep at byte {at}")
    return (_object if mark == _OBJECT else _array)(data, at, depth + 1)


def _array(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    found = []
    if data[at] == _COUNT:
        count, at = _length(data, at + 1)
        for _ in range(count):
            value, at = _value(data, at, depth)
            found.append(value)
        return found, at
    while data[at] != _ARRAY_END:
        value, at = _value(data, at, depth)
        found.append(value)
    return found, at + 1


def _typed(data: bytes, at: int) -> tuple[np.ndarray, int]:
    dtype = _DTYPES.get(data[at])
    if dtype is None or data[at + 1] != _COUNT:
        raise ValueError(f"an array of an unknown type at byte {at - 1}")
    count, at = _length(data, at + 2, dtype.itemsize)
    return np.frombuffer(data, dtype, count, at), at + count * dtype.itemsize


def _text(data: bytes, at: int) -> tuple[str, int]:
    count, at = _length(data, at)
    return data[at : at + count].decode(), at + count


def _length(data: bytes, at: int, size: int = 1) -> tuple[int, int]:
    """Return how many values of ``size`` bytes or more follow, and where they begin."""
    count: int = _NUMBERS[_LENGTH].unpack_from(data, at + 1)[0]
    if data[at] != _LENGTH or count < 0:
        raise ValueError(f"no length at byte {at}")
    if count * size > len(data) - at - 9:
        raise IndexError
    return count, at + 9
