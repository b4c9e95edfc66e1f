"""A graph of our own objects as bytes, and back: what a checkpoint of a live session is made of.

Owns: the walk over attributes. Whatever an object holds is written; what cannot be written is an error at
once, so that no part of a state can be forgotten. Never: runs code that the bytes name. A checkpoint may be
somebody else's, in a backup: only classes are made that the modules of ``MODULES`` define, none of which
knows files, processes or sockets, and no function of theirs is called.

What it takes: numbers, strings, bytes, the containers of the standard library, enums, NumPy arrays and
generators, dataclasses, msgspec structs, objects of our classes and their bound methods. An object that is
reachable on two ways is one object again afterwards.

``external`` names objects that are not written: the reader supplies its own in their place (configuration, a
model, the instruments).
"""

from __future__ import annotations

import functools
import sys
from collections import Counter, deque
from collections.abc import Mapping
from enum import Enum
from types import FunctionType, MethodType
from typing import Any, Final, cast, final

import msgspec
import numpy as np

from gpuscalp.errors import DataError, ShapeError

# What the state of a session is made of, and nothing else. A name that leads through one of them to what it
# has imported (`...:subprocess.Popen`) is none of its own.
_STATE: Final = """
    account batcher open_orders order_policy orders schema strategy trader config.live config.trading
    execution.arrivals execution.booking execution.broker execution.conditional execution.custody
    execution.display execution.filters execution.inbox execution.latency execution.lifecycle
    execution.margin execution.matching execution.messages execution.outbox execution.queueing
    execution.rates execution.remote execution.timetable execution.working feeds.binance feeds.book
    feeds.chain feeds.decimals feeds.ingest feeds.lead feeds.market feeds.merge feeds.messages feeds.ticks
    live.market live.records live.roles risk.breakers risk.exposure risk.gate risk.inquiry risk.rules
    risk.sizing risk.volatility
"""
MODULES: Final = frozenset(f"gpuscalp.{name}" for name in _STATE.split())
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_PLAIN: Final = frozenset({type(None), bool, float, str, bytes})
_INTS: Final = frozenset({int})
_FLOATS: Final = frozenset({float})


def encode(root: object, *, external: Mapping[str, object] | None = None) -> bytes:
    """Return everything that ``root`` reaches.

    Raises
    ------
    ShapeError    something in it cannot be written: a function, a lock, a view of another array
    """
    return msgspec.msgpack.encode(_Writer(external or {}).node(root, type(root).__name__))


def decode(data: bytes, *, external: Mapping[str, object] | None = None) -> Any:
    """Return the object of :func:`encode`, made anew.

    Raises
    ------
    DataError    the bytes are none of :func:`encode`, or of another version of our classes
    """
    try:
        return _Reader(external or {}).node(msgspec.msgpack.decode(data))
    except (
        msgspec.DecodeError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise DataError("not a graph of this version's objects", value=str(error)) from None


@final
class _Writer:
    def __init__(self, external: Mapping[str, object]) -> None:
        self._external = {id(value): name for name, value in external.items()}
        self._names: dict[type, str] = {}
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []  # an id is only worth something while its object lives

    def node(self, value: Any, where: str) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return value if _INT_MIN <= value <= _INT_MAX else ["i", str(value)]
        if id(value) in self._external:
            return ["x", self._external[id(value)]]
        if kind is tuple:
            return ["t", [self.node(item, where) for item in value]]
        if isinstance(value, Enum):
            return ["e", _name_of(kind, where), value.name]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return ["n", _name_of(kind, where), [self.node(item, where) for item in value]]
        if isinstance(value, frozenset):
            return ["z", [self.node(item, where) for item in sorted(value, key=repr)]]
        if isinstance(value, np.generic):
            return ["v", value.dtype.str, value.tobytes()]
        if isinstance(value, MethodType):
            return ["m", self.node(value.__self__, where), value.__name__]
        number = self._seen.get(id(value))
        if number is not None:
            return ["@", number]
        number = self._seen[id(value)] = len(self._kept)
        self._kept.append(value)
        return self._object(value, number, where)

    def _object(self, value: Any, number: int, where: str) -> Any:
        kind = type(value)
        if kind is list:
            return ["l", number, _numbers(value) or [self.node(item, where) for item in value]]
        if kind in (dict, Counter):
            tag = "d" if kind is dict else "c"
            return [tag, number, [self.node(part, where) for item in value.items() for part in item]]
        if kind is set:
            return ["s", number, [self.node(item, where) for item in sorted(value, key=repr)]]
        if kind is deque:
            return ["q", number, value.maxlen, [self.node(item, where) for item in value]]
        if kind is bytearray:
            return ["b", number, bytes(value)]
        if kind is np.ndarray:
            return ["a", number, *_array(value, where)]
        if kind is np.random.Generator:
            return ["g", number, self.node(value.bit_generator.state, where)]
        name = self._names.get(kind) or self._names.setdefault(kind, _name_of(kind, where))
        if isinstance(value, msgspec.Struct):
            held = [(key, getattr(value, key)) for key in value.__struct_fields__]
            return ["u", number, name, [[key, self.node(part, f"{where}.{key}")] for key, part in held]]
        fields: list[Any] = []
        for key, held in attributes(value):
            # Most of what is held is a small number: told apart here, it costs a third.
            small = type(held) in _PLAIN or (type(held) is int and _INT_MIN <= held <= _INT_MAX)
            fields += (key, held if small else self.node(held, f"{where}.{key}"))
        items = (
            [self.node(part, where) for item in value.items() for part in item]
            if isinstance(value, dict)
            else []
        )
        return ["o", number, name, fields, items]


@final
class _Reader:
    def __init__(self, external: Mapping[str, object]) -> None:
        self._external = external
        self._made: dict[int, Any] = {}

    def node(self, node: Any) -> Any:
        if type(node) is not list:
            return node
        tag = node[0]
        if tag == "i":
            return int(node[1])
        if tag == "x":
            return self._external[node[1]]
        if tag == "@":
            return self._made[node[1]]
        if tag == "t":
            return tuple(self.node(item) for item in node[1])
        if tag == "e":
            return cast(Any, _class_of(node[1], Enum))[node[2]]
        if tag == "n":
            return cast(Any, _class_of(node[1], tuple))._make([self.node(item) for item in node[2]])
        if tag == "z":
            return frozenset(self.node(item) for item in node[1])
        if tag == "v":
            return np.frombuffer(_bytes(node[2]), np.dtype(node[1]))[0]
        if tag == "m":
            return _method(self.node(node[1]), node[2])
        return self._object(tag, node[1], node[2:])

    def _object(self, tag: str, number: int, rest: list[Any]) -> Any:
        made: Any
        if tag == "l":
            made = self._made[number] = []
            made.extend(self.node(item) for item in rest[0])
        elif tag in ("d", "c"):
            made = self._made[number] = {} if tag == "d" else Counter()
            parts = [self.node(item) for item in rest[0]]
            for key, value in zip(parts[::2], parts[1::2], strict=True):
                made[key] = value
        elif tag == "s":
            made = self._made[number] = set()
            made.update(self.node(item) for item in rest[0])
        elif tag == "q":
            made = self._made[number] = deque(maxlen=rest[0])
            made.extend(self.node(item) for item in rest[1])
        elif tag == "b":
            made = self._made[number] = bytearray(_bytes(rest[0]))
        elif tag == "a":
            dtype, shape, data = rest
            descr = np.lib.format.descr_to_dtype(as_descr(dtype))
            made = self._made[number] = np.frombuffer(bytearray(_bytes(data)), descr).reshape(shape)
        elif tag == "g":
            state = self.node(rest[0])
            bits = {"PCG64": np.random.PCG64}[state["bit_generator"]]()
            bits.state = state
            made = self._made[number] = np.random.Generator(bits)
        elif tag == "u":
            # A struct is its fields, and nothing in one of ours leads back to it.
            fields = {key: self.node(value) for key, value in rest[1]}
            made = self._made[number] = _class_of(rest[0], msgspec.Struct)(**fields)
        elif tag == "o":
            kind: Any = _class_of(rest[0])
            made = self._made[number] = kind.__new__(kind)
            for key, value in zip(rest[1][::2], rest[1][1::2], strict=True):
                if not _is_held(kind, key):
                    raise LookupError(f"not an attribute: {key}")
                # Frozen ones as well: this is their making.
                object.__setattr__(made, key, self.node(value))
            parts = [self.node(item) for item in rest[2]]
            for key, value in zip(parts[::2], parts[1::2], strict=True):
                dict.__setitem__(made, key, value)
        else:
            raise ValueError(f"no such tag: {tag}")
        return made


def _numbers(items: list[Any]) -> list[Any] | None:
    """Return a copy of a list of nothing but numbers that stand for themselves; None for any other.

    A market of many symbols is mostly such lists.
    """
    kinds = set(map(type, items))
    if kinds == _FLOATS or (kinds == _INTS and min(items) >= _INT_MIN and max(items) <= _INT_MAX):
        return items.copy()
    return None


def attributes(value: Any) -> list[tuple[str, Any]]:
    """Return what an object holds, in a fixed order."""
    kind: type = type(value)
    found = [(name, getattr(value, name)) for name in _slots_of(kind) if hasattr(value, name)]
    return found + sorted(getattr(value, "__dict__", {}).items())


@functools.cache
def _slots_of(kind: type) -> tuple[str, ...]:
    """Return the slots of a class and of those that it is made of."""
    found: list[str] = []
    for each in kind.__mro__:
        slots = each.__dict__.get("__slots__", ())
        found += (slots,) if isinstance(slots, str) else slots
    return tuple(slot for slot in found if slot not in ("__dict__", "__weakref__"))


def _array(value: np.ndarray, where: str) -> list[Any]:
    if isinstance(value.base, np.ndarray) and value.base.nbytes != value.nbytes:
        raise ShapeError(
            "a part of another array cannot be written: the two would no longer be the same memory",
            where=where,
            fix="hold a copy",
        )
    if value.dtype.hasobject:
        raise ShapeError("an array of objects cannot be written", where=where)
    return [np.lib.format.dtype_to_descr(value.dtype), list(value.shape), value.tobytes()]


def as_descr(descr: Any) -> Any:
    """Return a dtype's description as NumPy wants it: msgpack has no tuples."""
    if isinstance(descr, str):
        return descr
    return [tuple(as_descr(part) if isinstance(part, list) else part for part in field) for field in descr]


def _is_held(kind: type, key: str) -> bool:
    """Return whether to set it is to hold it: what is set through a property calls a function."""
    return key in _slots_of(kind) or not (
        key.startswith("__") or isinstance(getattr(kind, key, None), property)
    )


def _method(owner: Any, name: str) -> MethodType:
    function = getattr(type(owner), name)
    if not isinstance(function, FunctionType):
        raise LookupError(f"not a method of ours: {name}")
    return MethodType(function, owner)


def _bytes(data: Any) -> bytes:
    """Return what is bytes. A number in their place would be so many zeros."""
    if not isinstance(data, bytes):
        raise TypeError("not bytes")
    return data


def _name_of(kind: type, where: str) -> str:
    name = f"{kind.__module__}:{kind.__qualname__}"
    try:
        if _class_of(name) is kind:
            return name
    except (LookupError, AttributeError):
        pass
    raise ShapeError("cannot be written into a checkpoint", where=where, value=name.replace(":", "."))


def _class_of(name: str, base: type = object) -> type:
    module, _, qualified = name.partition(":")
    if module not in MODULES:
        raise LookupError(f"not a class of a session's state: {name}")
    found: Any = sys.modules[module]
    for part in qualified.split("."):
        found = getattr(found, part)
    if not isinstance(found, type) or f"{found.__module__}:{found.__qualname__}" != name:
        raise LookupError(f"not a class: {name}")
    if not issubclass(found, base):
        raise LookupError(f"another kind of class: {name}")
    return found
