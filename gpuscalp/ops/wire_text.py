"""Objects in plain JSON, from bytes to slots: the lower half of ``gpuscalp.ops.wire``.

Owns: texts without escapes, whole numbers, decimals × 1e8, levels of a book. Refuses what is not plain.
"""

from __future__ import annotations

import numpy as np

from gpuscalp.ops._numba import jit

# Slots of the values of an object, by key: letters by themselves, then the keys of two letters that matter.
PU, ST = 60, 61
SLOTS = 64
INT, TEXT, BOOL, LEVELS = 1, 2, 3, 4
_E8 = 100_000_000
BAD = -(2**62)
_WRONG = -2
_TRUE = np.frombuffer(b"true", np.uint8)
_FALSE = np.frombuffer(b"false", np.uint8)


@jit
def is_text(data, at, word):  # type: ignore[no-untyped-def]
    for index in range(word.size):  # noqa: SIM110  # Numba has no generators
        if data[at + index] != word[index]:
            return False
    return True


@jit
def decimal_e8(data, at, stop):  # type: ignore[no-untyped-def]
    """Return the decimal number between two places × 1e8, or BAD where that is not plainly exact."""
    negative = at < stop and data[at] == 45
    if negative:
        at += 1
    first = at
    value = np.int64(0)
    while at < stop and 48 <= data[at] <= 57:
        value = value * 10 + (np.int64(data[at]) - 48)
        at += 1
    if at == first or at - first > 10:
        return BAD
    scale = np.int64(_E8)
    if at < stop:
        if data[at] != 46 or at + 1 == stop:
            return BAD
        at += 1
        while at < stop:
            digit = np.int64(data[at]) - 48
            if digit < 0 or digit > 9:
                return BAD
            if scale > 1:
                scale //= 10
                value = value * 10 + digit
            elif digit != 0:
                return BAD
            at += 1
    value *= scale
    return -value if negative else value


@jit
def text_end(data, at):  # type: ignore[no-untyped-def]
    """Return where a text that begins at a place ends, or -1 where it is not plain."""
    while data[at] != 34:
        if data[at] < 32 or data[at] > 126 or data[at] == 92:
            return -1
        at += 1
    return at


@jit
def _levels(data, at, levels, count):  # type: ignore[no-untyped-def]
    """Read ``[["price","quantity"],…]`` after its first bracket; return (place behind it, levels so far), the
    place -1 where it is not plain."""
    if data[at] == 93:
        return at + 1, count
    while True:
        if data[at] != 91 or data[at + 1] != 34 or count >= levels.shape[0]:
            return -1, count
        first = at + 2
        stop = text_end(data, first)
        if stop < 0 or data[stop + 1] != 44 or data[stop + 2] != 34:
            return -1, count
        price = decimal_e8(data, first, stop)
        first = stop + 3
        stop = text_end(data, first)
        if stop < 0 or data[stop + 1] != 93:
            return -1, count
        quantity = decimal_e8(data, first, stop)
        if price <= 0 or quantity < 0:
            return -1, count
        levels[count, 0] = price
        levels[count, 1] = quantity
        count += 1
        at = stop + 2
        if data[at] == 93:
            return at + 1, count
        if data[at] != 44:
            return -1, count
        at += 1


@jit
def _long_key(first, second):  # type: ignore[no-untyped-def]
    """Return the slot of a key of two letters, -1 for one of no interest, _WRONG if it is not plain."""
    if first == 112 and second == 117:
        return np.int64(PU)
    if first == 115 and second == 116:
        return np.int64(ST)
    if first < 65 or first > 122 or first == 92 or second < 48 or second > 122 or second == 92:
        return np.int64(_WRONG)
    return np.int64(-1)


@jit
def read_object(data, at, stamp, types, values, sizes, levels, count):  # type: ignore[no-untyped-def]
    """Read the values of an object after its first brace into slots; return (place behind it, levels so far),
    the place -1 where it is not plain."""
    while True:
        if data[at] != 34:
            return -1, count
        letter = np.int64(data[at + 1])
        if data[at + 2] == 34:
            slot = letter - 65
            if slot < 0 or slot >= 58 or letter == 92:
                return -1, count
            at += 3
        elif data[at + 3] == 34:
            slot = _long_key(letter, np.int64(data[at + 2]))
            if slot == _WRONG:
                return -1, count
            at += 4
        else:
            return -1, count
        if data[at] != 58:
            return -1, count
        at += 1
        lead = data[at]
        size = np.int64(0)
        if lead == 34:
            stop = text_end(data, at + 1)
            if stop < 0:
                return -1, count
            kind, value, size, at = TEXT, at + 1, stop - at - 1, stop + 1
        elif 48 <= lead <= 57:
            first = at
            value = np.int64(0)
            while 48 <= data[at] <= 57:
                value = value * 10 + (np.int64(data[at]) - 48)
                at += 1
                if at - first > 18:
                    return -1, count
            if lead == 48 and at - first > 1:
                return -1, count
            kind = INT
        elif lead == 116 and is_text(data, at, _TRUE):
            kind, value, at = BOOL, np.int64(1), at + 4
        elif lead == 102 and is_text(data, at, _FALSE):
            kind, value, at = BOOL, np.int64(0), at + 5
        elif lead == 91:
            value = np.int64(count)
            at, count = _levels(data, at + 1, levels, count)
            if at < 0:
                return -1, count
            kind, size = LEVELS, count - value
        else:
            return -1, count
        if slot >= 0:
            if types[slot] >> 3 == stamp:
                return -1, count  # named twice
            types[slot] = (stamp << 3) | kind
            values[slot] = value
            sizes[slot] = size
        if data[at] == 125:
            return at + 1, count
        if data[at] != 44:
            return -1, count
        at += 1
