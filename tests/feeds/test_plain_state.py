"""Everything inside an Ingest is plain data, so that a checkpoint can write it down and read it back."""

from __future__ import annotations

import dataclasses
import types
from collections import Counter, deque
from enum import Enum
from typing import Any

import msgspec
import numpy as np
import pytest

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.schema import E8, Instrument
from tests.feeds.test_observers import NAMES, START_MS, _messages

SCALARS = (type(None), bool, int, float, str, bytes)
CONTAINERS = (list, tuple, dict, set, frozenset, deque, Counter)


def _fields(value: Any) -> dict[str, Any]:
    """Return the attributes of an instance, in slots or not."""
    names = list(getattr(value, "__dict__", {}))
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def foreign(value: Any, where: str = "ingest", seen: set[int] | None = None) -> list[str]:
    """Return where something lies that is no plain data."""
    seen = set() if seen is None else seen
    if id(value) in seen or type(value) in SCALARS or isinstance(value, Enum):
        return []
    seen.add(id(value))
    inner: dict[str, Any]
    if type(value) is np.ndarray:
        return [f"{where}: a view"] if value.base is not None else []
    if isinstance(value, types.MethodType):
        inner = {"__self__": value.__self__}
    elif type(value) in CONTAINERS:
        inner = {f"[{key}]": item for key, item in enumerate(value)}
        if isinstance(value, dict):
            inner |= {f"[{key!r}]": item for key, item in value.items()}
    elif isinstance(value, msgspec.Struct):
        inner = {name: getattr(value, name) for name in value.__struct_fields__}
    elif dataclasses.is_dataclass(value) or type(value).__module__.startswith("gpuscalp."):
        inner = _fields(value)
        if isinstance(value, dict):
            inner |= {f"[{key!r}]": item for key, item in value.items()}
    else:
        return [f"{where}: {type(value).__name__}"]
    return [found for name, each in inner.items() for found in foreign(each, f"{where}.{name}", seen)]


def _busy() -> Ingest:
    """Return one in which everything that can wait does."""
    instruments = [Instrument(name, "v", E8 // 10, 1, 1, 1, "exchange_info") for name in NAMES]
    ingest = Ingest(instruments, FeedConfig())
    for number in range(1, 4):
        ingest.on_messages(0, number, _messages(NAMES[0], number))
        ingest.on_messages(1, number, _messages(NAMES[0], number))
    ingest.on_snapshot(5, DepthSnapshot(NAMES[0], 0, 3, [(99 * E8, E8)], [(102 * E8, E8)]))
    ingest.on_messages(0, 6, _messages(NAMES[0], 6))  # held: another connection may bring 4 and 5
    ingest.on_messages(2, 7, _messages(NAMES[0], 9))  # waits until an incumbent has come so far
    ingest.on_messages(0, 8, _messages(NAMES[1], 4))  # no book: the update is buffered
    spaced = _messages(NAMES[1], 5)[0].replace(b'{"stream"', b'{ "stream"')
    kline = b'{"stream":"btcusdt@kline_1m","data":{}}'
    all_marks = f'[{{"e":"markPriceUpdate","E":{START_MS + 9},"s":"ETHUSDT","p":"1.5","T":0}}]'.encode()
    ingest.on_messages(0, 9, [spaced, kline, all_marks, b"{", _messages(NAMES[1], 8)[0]])
    return ingest


def test_nothing_in_an_ingest_is_more_than_plain_data() -> None:
    ingest = _busy()
    assert ingest.merge.due_ns < 2**62, "nothing waits: the test has lost its subject"
    assert ingest.fates["before_snapshot"]
    assert ingest.fates["kline"] == 1
    assert ingest.book_states() == {"BTCUSDT": "synced", "ETHUSDT": "unsynced"}
    assert foreign(ingest) == []


@pytest.mark.parametrize(
    "value",
    [
        lambda: 0,
        iter(()),
        msgspec.json.Decoder(int).decode,
        bytearray(b"x"),
        np.zeros(4)[1:],
        (n for n in ()),
    ],
    ids=["lambda", "iterator", "decoder", "bytearray", "view", "generator"],
)
def test_what_is_no_plain_data_is_found(value: Any) -> None:
    ingest = _busy()
    ingest._markets[0]._mark = value
    assert foreign(ingest) != []


def test_arrays_that_are_only_room_stay_small() -> None:
    ingest = _busy()
    assert ingest._heads.nbytes + ingest._levels.nbytes < 1 << 20
