"""Messages of the venue in bulk: the usual forms of the usual streams, from bytes to integers.

Integer logic on the host only, so it has no CUDA twin. It knows nothing but the plain form: a combined frame
of a known symbol and stream, short keys, each once, no escapes, no blanks. Whatever is not plain gets the
kind OTHER and is left to ``gpuscalp.feeds.binance.Decoder``, whose judgement is the law: what is read here
is read there with the same result, and what is refused there is never read here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpuscalp.ops._numba import jit
from gpuscalp.ops.wire_text import (
    BAD,
    BOOL,
    INT,
    LEVELS,
    PU,
    SLOTS,
    ST,
    TEXT,
    decimal_e8,
    is_text,
    read_object,
    text_end,
)
from gpuscalp.schema import I64

Bytes = npt.NDArray[np.uint8]

OTHER = -1
TRADE = 0
QUOTE = 1
DEPTH = 2
MARK = 3
# Partial books of 5, 10 and 20 levels.
PARTIAL = (4, 5, 6)

# Columns of a head. TRADE: price, quantity, side, 1 for an aggregate. QUOTE: bid, its quantity, ask, its
# quantity. DEPTH, PARTIAL: first id, previous id, place of the first level, number of bids, of asks. MARK:
# mark price, index price, funding rate, next funding in ms.
KIND, SYMBOL, TIME_MS, IDENT, A, B, C, D, E = range(9)
HEAD_SIZE = 9

NAME_MAX = 32
PADDING = 64  # zeros after the last message: a number or text that is cut off ends there at the latest

_MS_MIN = 1_230_768_000_000  # as in gpuscalp.feeds.times
_MS_MAX = 4_102_444_800_000

_STREAM = np.frombuffer(b'{"stream":"', np.uint8)
_DATA = np.frombuffer(b'","data":{', np.uint8)
_NAMES = tuple(
    np.frombuffer(name, np.uint8) for name in (b"trade", b"aggTrade", b"bookTicker", b"depth", b"markPrice")
)
_EVENTS = tuple(
    np.frombuffer(name, np.uint8)
    for name in (b"trade", b"aggTrade", b"bookTicker", b"depthUpdate", b"markPriceUpdate")
)
_MARKET = np.frombuffer(b"MARKET", np.uint8)
_PARTIALS = tuple(np.frombuffer(name, np.uint8) for name in (b"depth5", b"depth10", b"depth20"))
# Forms of messages from here on are partial books, whose events are those of depth updates.
_FORM_DEPTH, _FORM_PARTIAL = 3, 5


def symbol_table(symbols: tuple[str, ...]) -> tuple[Bytes, I64, I64]:
    """Return (names uint8[S, 32], their lengths int64[S], hash table int64[2^k]) of symbols."""
    size = 8
    while size < 4 * len(symbols):
        size *= 2
    names = np.zeros((max(len(symbols), 1), NAME_MAX), np.uint8)
    lengths = np.zeros(max(len(symbols), 1), np.int64)
    table = np.full(size, -1, np.int64)
    for index, symbol in enumerate(symbols):
        raw = symbol.encode()
        if len(raw) > NAME_MAX:
            continue  # never found here: left to the decoder
        names[index, : len(raw)] = np.frombuffer(raw, np.uint8)
        lengths[index] = len(raw)
        place = 5381
        for letter in raw:
            place = (place * 33 + letter) & 0xFFFFFFFF
        place %= size
        while table[place] >= 0:
            place = (place + 1) % size
        table[place] = index
    return names, lengths, table


@jit
def _symbol(data, at, length, names, lengths, table):  # type: ignore[no-untyped-def]
    """Return the index of a symbol, or -1."""
    place = 5381
    for index in range(length):
        place = (place * 33 + np.int64(data[at + index])) & 0xFFFFFFFF  # type: ignore[assignment]
    place %= table.size
    while table[place] >= 0:
        found = table[place]
        if lengths[found] == length:
            same = True
            for index in range(length):
                if names[found, index] != data[at + index]:
                    same = False
                    break
            if same:
                return found
        place = (place + 1) % table.size
    return -1


@jit
def _number(data, slot, stamp, types, values, sizes, least):  # type: ignore[no-untyped-def]
    """Return the decimal number that a slot holds as text, or BAD."""
    if types[slot] != (stamp << 3) | TEXT:
        return BAD
    value = decimal_e8(data, values[slot], values[slot] + sizes[slot])
    return value if value >= least else BAD


@jit
def _form(data, at, stop):  # type: ignore[no-untyped-def]
    """Return what kind of message the name of a stream promises behind its symbol, or -1."""
    form = -1
    for index in range(5):
        word = _NAMES[index]
        behind = at + word.size
        if behind <= stop and (behind == stop or data[behind] == 64) and is_text(data, at, word):
            form = index
    if form >= 0 or at >= stop or data[at] != 100:
        return form
    for index in range(3):
        word = _PARTIALS[index]
        behind = at + word.size
        if behind <= stop and (behind == stop or data[behind] == 64) and is_text(data, at, word):
            form = _FORM_PARTIAL + index
    return form


@jit
def _message(data, at, end, stamp, types, values, sizes, names, lengths, table, head, levels, count):  # type: ignore[no-untyped-def]
    """Read one message into its head; return the levels so far, or -1 where the message is not plain."""
    if end - at < 40 or not is_text(data, at, _STREAM):
        return -1
    name = at + 11
    stop = text_end(data, name)
    if stop < 0 or not is_text(data, stop, _DATA):
        return -1
    mark = name
    while mark < stop and data[mark] != 64:
        mark += 1
    form = _form(data, mark + 1, stop)
    if form < 0:
        return -1
    place, count = read_object(data, stop + 10, stamp, types, values, sizes, levels, count)
    if place != end - 1 or data[place] != 125:
        return -1
    integer, text = (stamp << 3) | INT, (stamp << 3) | TEXT
    slot_e, slot_time, slot_s = 101 - 65, 69 - 65, 115 - 65
    word = _EVENTS[form if form < _FORM_PARTIAL else _FORM_DEPTH]
    if types[slot_e] != text or sizes[slot_e] != word.size or not is_text(data, values[slot_e], word):
        return -1
    if types[slot_time] != integer or types[slot_s] != text or sizes[slot_s] != mark - name:
        return -1
    if values[slot_time] < _MS_MIN or values[slot_time] >= _MS_MAX:
        return -1
    if types[ST] >> 3 == stamp and (types[ST] != integer or values[ST] != 1):
        return -1
    first = values[slot_s]
    for index in range(sizes[slot_s]):
        upper = data[name + index]
        if 97 <= upper <= 122:
            upper -= 32
        if data[first + index] != upper:
            return -1
    symbol = _symbol(data, first, sizes[slot_s], names, lengths, table)
    if symbol < 0:
        return -1
    head[SYMBOL] = symbol
    head[TIME_MS] = values[slot_time]
    if form <= 1:
        plain = _trade(data, form, stamp, types, values, sizes, head)
    elif form == 2:
        plain = _quote(data, stamp, types, values, sizes, head)
    elif form != 4:
        plain = _depth(form, stamp, types, values, sizes, head)
    else:
        plain = _mark(data, stamp, types, values, sizes, head)
    return count if plain else -1


@jit
def _trade(data, form, stamp, types, values, sizes, head):  # type: ignore[no-untyped-def]
    integer, text = (stamp << 3) | INT, (stamp << 3) | TEXT
    slot = 116 - 65 if form == 0 else 97 - 65
    slot_m, slot_x = 109 - 65, 88 - 65
    if types[slot] != integer or types[slot_m] != (stamp << 3) | BOOL:
        return False
    named = form == 0 and types[slot_x] >> 3 == stamp
    if named and (types[slot_x] != text or sizes[slot_x] != 6 or not is_text(data, values[slot_x], _MARKET)):
        return False
    head[KIND] = TRADE
    head[IDENT] = values[slot]
    head[A] = _number(data, 112 - 65, stamp, types, values, sizes, 1)
    head[B] = _number(data, 113 - 65, stamp, types, values, sizes, 1)
    head[C] = -1 if values[slot_m] else 1
    head[D] = form
    return head[A] != BAD and head[B] != BAD


@jit
def _quote(data, stamp, types, values, sizes, head):  # type: ignore[no-untyped-def]
    slot = 117 - 65
    if types[slot] != (stamp << 3) | INT:
        return False
    head[KIND] = QUOTE
    head[IDENT] = values[slot]
    head[A] = _number(data, 98 - 65, stamp, types, values, sizes, 0)
    head[B] = _number(data, 66 - 65, stamp, types, values, sizes, 0)
    head[C] = _number(data, 97 - 65, stamp, types, values, sizes, 0)
    head[D] = _number(data, 65 - 65, stamp, types, values, sizes, 0)
    return head[A] != BAD and head[B] != BAD and head[C] != BAD and head[D] != BAD


@jit
def _depth(form, stamp, types, values, sizes, head):  # type: ignore[no-untyped-def]
    integer, both = (stamp << 3) | INT, (stamp << 3) | LEVELS
    slot, slot_first, slot_b, slot_a = 117 - 65, 85 - 65, 98 - 65, 97 - 65
    if types[slot] != integer or types[slot_first] != integer:
        return False
    # Bids first, as the levels lie then.
    if types[slot_b] != both or types[slot_a] != both or values[slot_b] + sizes[slot_b] != values[slot_a]:
        return False
    previous = values[slot_first] - 1
    if types[PU] >> 3 == stamp:
        if types[PU] != integer:
            return False
        previous = values[PU]
    if values[slot] < values[slot_first] or previous >= values[slot]:
        return False
    head[KIND] = DEPTH if form == _FORM_DEPTH else PARTIAL[0] + form - _FORM_PARTIAL
    head[IDENT] = values[slot]
    head[A] = values[slot_first]
    head[B] = previous
    head[C] = values[slot_b]
    head[D] = sizes[slot_b]
    head[E] = sizes[slot_a]
    return True


@jit
def _mark(data, stamp, types, values, sizes, head):  # type: ignore[no-untyped-def]
    slot_time, slot_next = 69 - 65, 84 - 65
    head[KIND] = MARK
    head[IDENT] = values[slot_time]
    head[A] = _number(data, 112 - 65, stamp, types, values, sizes, 0)
    head[B] = _number(data, 105 - 65, stamp, types, values, sizes, 0)
    head[C] = _number(data, 114 - 65, stamp, types, values, sizes, BAD + 1)
    head[D] = values[slot_next]
    if types[slot_next] != (stamp << 3) | INT:
        return False
    if head[D] != 0 and (head[D] < _MS_MIN or head[D] >= _MS_MAX):
        return False
    return head[A] != BAD and head[B] != BAD and head[C] != BAD


@jit
def scan(data: Bytes, ends: I64, names: Bytes, lengths: I64, table: I64, heads: I64, levels: I64) -> int:
    """Read messages that lie one after another.

    Parameters
    ----------
    data : uint8[B + PADDING]     the messages, then zeros
    ends : int64[N]               where each message ends
    names, lengths, table : see ``symbol_table``
    heads : int64[N, HEAD_SIZE]   written; kind OTHER where a message is not plain
    levels : int64[L, 2]          written: price and quantity × 1e8 of the levels of all DEPTH and PARTIAL
                                  messages; where they do not fit the message is OTHER

    Returns
    -------
    int                           number of levels written
    """
    types = np.zeros(SLOTS, np.int64)
    values = np.zeros(SLOTS, np.int64)
    sizes = np.zeros(SLOTS, np.int64)
    # No literals: Numba would compile what they go into a second time, for them.
    count = start = np.int64(0)
    for index in range(ends.size):
        head = heads[index]
        reached = _message(
            data,
            start,
            ends[index],
            index + 1,
            types,
            values,
            sizes,
            names,
            lengths,
            table,
            head,
            levels,
            count,
        )
        if reached < 0:
            head[KIND] = OTHER
        else:
            count = reached
        start = ends[index]
    return count  # type: ignore[return-value]
