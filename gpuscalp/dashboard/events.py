"""A record of the journal as a line that a person reads.

Owns: the words, and which records are worth a line: what happens to orders, the gate, connections, and what
operators ask for; not every frame, and not what the gate refuses (that is counted).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from gpuscalp.feeds.recorder import ConnectionNote
from gpuscalp.journal.blocks import Record, RecordKind
from gpuscalp.live.records import (
    ControlRecord,
    FillRecord,
    HealthRecord,
    ModelRecord,
    OrderRecord,
    SessionRecord,
    StateRecord,
    decode,
    model_text,
)
from gpuscalp.schema import E8

# (level, text); levels are "info", "good", "warn" and "bad"
Event = tuple[str, str]

_SIDES: Final = {1: "buy", -1: "sell"}
_STATES: Final = {"active": "good", "reducing": "warn", "halted": "bad"}
_TOLD: Final = {
    *("rejected", "canceled", "expired", "funding", "liquidation", "stranger", "alarm", "close"),
}
_BAD: Final = {"rejected", "liquidation", "stranger", "alarm"}


def event_of(record: Record, symbols: Sequence[str]) -> Event | None:
    """Return the line of a record; None for one that has none."""
    maker = _MAKERS.get(record.kind)
    return None if maker is None else maker(record, symbols)


def _order(record: Record, symbols: Sequence[str]) -> Event:
    body = decode(record, OrderRecord)
    if body.cancel:
        return "info", f"order {body.order_id} is cancelled ({body.reason or 'no reason'})"
    price = f" at {body.price_e8 / E8:g}" if body.price_e8 else ""
    text = f"order {body.order_id}: {_SIDES[body.side]} {body.qty_e8 / E8:g} {symbols[body.symbol]}{price}"
    return "info", f"{text}, {body.kind}, {body.reason}"


def _report(record: Record, symbols: Sequence[str]) -> Event | None:
    body = decode(record, FillRecord)
    name = "the account" if body.symbol < 0 else symbols[body.symbol]
    if body.qty_e8:
        text = f"{_SIDES[body.side]} {body.qty_e8 / E8:g} {name} at {body.price_e8 / E8:g}"
        return "good", f"fill of order {body.order_id}: {text}, fee {body.fee_e8 / E8:.4f}"
    if body.kind == "funding":
        return "info", f"funding of {name}: {body.money_e8 / E8:+.4f} USDT"
    if body.kind not in _TOLD:
        return None
    code = f", code {body.code}" if body.code else ""
    about = f"order {body.order_id}" if body.order_id > 0 else name
    return "bad" if body.kind in _BAD else "warn", f"{about}: {body.kind}{code} {body.reason}".rstrip()


def _state(record: Record, _: Sequence[str]) -> Event:
    body = decode(record, StateRecord)
    return _STATES.get(body.risk.state, "info"), f"the gate is {body.risk.state.upper()}: {body.event}"


def _control(record: Record, _: Sequence[str]) -> Event:
    body = decode(record, ControlRecord)
    return "warn", f"{body.by} asks for: {body.command}"


def _model(record: Record, _: Sequence[str]) -> Event:
    body = decode(record, ModelRecord)
    return "warn" if body.role == "lead" and body.calibration is None else "info", model_text(body)


def _health(record: Record, symbols: Sequence[str]) -> Event:
    found = decode(record, HealthRecord).complaints(symbols)
    return ("warn", f"health: {'; '.join(found)}") if found else ("info", "health: nothing to complain of")


def _connection(record: Record, _: Sequence[str]) -> Event | None:
    body = decode(record, ConnectionNote)
    if body.event == "open":
        return "info", f"connection {body.number} is open, {len(body.streams)} streams"
    if body.event == "lost":
        return "warn", f"connection {body.number} is lost: {body.reason}"
    return None


def _session(record: Record, _: Sequence[str]) -> Event:
    body = decode(record, SessionRecord)
    return "info", f"session {body.session_id} starts, version {body.version}, model {body.bundle[:12]}"


def _checkpoint(_: Record, __: Sequence[str]) -> Event:
    return "info", "checkpoint"


def _end(_: Record, __: Sequence[str]) -> Event:
    return "warn", "the process has ended cleanly"


_MAKERS: Final[dict[int, Callable[[Record, Sequence[str]], Event | None]]] = {
    RecordKind.ORDER: _order,
    RecordKind.FILL: _report,
    RecordKind.STATE: _state,
    RecordKind.CONTROL: _control,
    RecordKind.MODEL: _model,
    RecordKind.HEALTH: _health,
    RecordKind.CONNECTION: _connection,
    RecordKind.SESSION: _session,
    RecordKind.CHECKPOINT: _checkpoint,
    RecordKind.END: _end,
}
