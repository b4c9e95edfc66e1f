"""One order from the message that brought it about to its end, as the journal tells it.

Owns: which records belong to an order, and the times between them. All times are by this machine's clock, at
which each record was written; what was known by the exchange's clock stands beside it. Never: guesses: an
order that was placed by a command has no frame, and none is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from gpuscalp.errors import UsageError
from gpuscalp.journal import Record, RecordKind, read_records, segments_of
from gpuscalp.journal.blocks import SEGMENT_BYTES, decode_segment
from gpuscalp.live.directory import SessionFile, read_about
from gpuscalp.live.narration import frame_id
from gpuscalp.live.records import (
    BatchRecord,
    FillRecord,
    OrderRecord,
    SignalRecord,
    VerdictRecord,
    client_id,
    decode,
)
from gpuscalp.live.store import sent_ns_of
from gpuscalp.registry.names import SHORT
from gpuscalp.schema import E8, NS_PER_MS, NS_PER_S

_INPUTS: Final = frozenset({RecordKind.RAW, RecordKind.REST, RecordKind.TICKS, RecordKind.CLOCK})
# Name, record, facts.
_Stage = tuple[str, Record, dict[str, Any]]
# An exchange's clock and ours may differ by so much, and a frame lie so far before its order.
_MARGIN_NS: Final = 300 * NS_PER_S


def chain(path: Path, order: str) -> dict[str, Any]:
    """Return what led to an order and what became of it.

    Parameters
    ----------
    path : of a session, running or not
    order : its number, or the id under which the exchange knows it

    Returns
    -------
    ``order``, ``number``, ``symbol``, ``frame`` (None without one), and ``stages`` in order: each with
    ``stage`` (message, batch, signal, verdict, order, cancel, or what a report says), ``seq`` of the record,
    ``at_ns``, ``since_ms`` the stage before (None for the first), and ``facts``

    Raises
    ------
    UsageError    the journal has no such order
    """
    about = read_about(path)
    number = _number(about, order)
    found, frame = _stages(_records(path, _from_seq(path, number)), number, about)
    if not any(stage == "order" for stage, _, _ in found):  # the exchange's time was far from ours
        found, frame = _stages(_records(path, 0), number, about)
    if not found:
        raise UsageError("the journal has no such order", where=str(path), value=order)
    symbol = next((facts["symbol"] for _, _, facts in found if "symbol" in facts), None)
    return {
        "order": client_id(about.session_id, number),
        "number": number,
        "symbol": None if symbol is None else about.instruments[symbol].symbol,
        "frame": frame,
        "stages": _timed(found),
    }


def _stages(records: Iterator[Record], number: int, about: SessionFile) -> tuple[list[_Stage], str | None]:
    """Return the stages of an order in a part of the journal, and its frame."""
    found: list[_Stage] = []
    frame: str | None = None
    for record, before in _with_causes(records):
        if record.kind == RecordKind.ORDER:
            body = decode(record, OrderRecord)
            if body.order_id != number:
                continue
            if body.cancel:
                found.append(("cancel", record, {"sent_ns": body.sent_ns, "reason": body.reason}))
                continue
            causes, frame = _causes(before, body, about)
            found += [*causes, ("order", record, _order_facts(body))]
        elif record.kind == RecordKind.FILL:
            report = decode(record, FillRecord)
            if report.order_id == number:
                found.append((report.kind, record, _report_facts(report)))
    return found, frame


def _number(about: SessionFile, order: str) -> int:
    digits = order.removeprefix(client_id(about.session_id, 0).removesuffix("0"))
    if not (digits.isascii() and digits.isdecimal()):
        raise UsageError(
            "not an order of this session",
            where="--order",
            value=order,
            fix=f"its number, or {client_id(about.session_id, 1)}",
        )
    return int(digits)


def _from_seq(path: Path, number: int) -> int:
    """Return where to begin in order to read no segment that ends long before the order; 0 if not known."""
    sent_ns, from_seq = sent_ns_of(path / "state.sqlite", number), 0
    if sent_ns is not None:
        for segment in segments_of(path / "journal"):
            with segment.open("rb") as file:
                head = file.read(SEGMENT_BYTES)
            if len(head) < SEGMENT_BYTES:
                break
            header = decode_segment(head, str(segment))
            if header.created_ns > sent_ns - _MARGIN_NS:
                break
            from_seq = header.first_seq
    return from_seq


def _records(path: Path, from_seq: int) -> Iterator[Record]:
    # The tail of a session that runs is cut short at any moment.
    return read_records(path / "journal", torn=True, from_seq=from_seq)


class _Before(msgspec.Struct):
    """What was newest when a record was written: an input before the batch, the batch, and its decisions."""

    message: Record | None = None
    taken: Record | None = None  # the input that the batch was closed behind
    batch: Record | None = None
    signal: Record | None = None
    verdicts: tuple[Record, ...] = ()


def _with_causes(records: Iterator[Record]) -> Iterator[tuple[Record, _Before]]:
    before = _Before()
    for record in records:
        if record.kind in _INPUTS:
            before.message = record
        elif record.kind == RecordKind.BATCH:
            if not decode(record, BatchRecord).relief:
                before.taken, before.batch = before.message, record
                before.signal, before.verdicts = None, ()
        elif record.kind == RecordKind.SIGNAL:
            before.signal, before.verdicts = record, ()
        elif record.kind == RecordKind.VERDICT:
            before.verdicts += (record,)
        else:
            yield record, before


def _causes(before: _Before, order: OrderRecord, about: SessionFile) -> tuple[list[_Stage], str | None]:
    """Return what an order follows from, and its frame."""
    found: list[_Stage] = []
    if before.taken is not None:
        kind = RecordKind(before.taken.kind).name.lower()
        found.append(("message", before.taken, {"kind": kind, "connection": before.taken.connection}))
    if before.batch is not None:
        batch = decode(before.batch, BatchRecord)
        found.append(("batch", before.batch, {"exch_ns": batch.now_ns, "ticks": batch.pushed}))
    if before.signal is None:
        return found, None
    signal = decode(before.signal, SignalRecord)
    if signal.end_ns != order.decided_ns:
        return found, None
    names = ("features_ms", "predict_ms", "gate_ms")
    times = dict(zip(names, (each / NS_PER_MS for each in signal.stages_ns), strict=True))
    found.append(
        ("signal", before.signal, {"end_ns": signal.end_ns, "decided_ns": signal.decided_ns, **times})
    )
    found[-1][2]["model"] = signal.model or about.bundle[:SHORT]
    for record in before.verdicts:
        verdict = decode(record, VerdictRecord)
        if verdict.symbol == order.symbol and verdict.side == order.side:
            facts = {
                "accepted": verdict.accepted,
                "kind": verdict.kind,
                "reason": verdict.reason,
                "code": verdict.code,
                "confidence": verdict.confidence,
                "edge_bps": verdict.edge_bps,
            }
            found.append(("verdict", record, facts))
    return found, frame_id(about.instruments[order.symbol].symbol, signal.end_ns)


def _order_facts(body: OrderRecord) -> dict[str, Any]:
    return {
        "symbol": body.symbol,
        "side": "buy" if body.side > 0 else "sell",
        "qty": body.qty_e8 / E8,
        "kind": str(body.kind),
        "price": body.price_e8 / E8 if body.price_e8 else None,
        "reduce_only": body.reduce_only,
        "reason": body.reason,
        "sent_ns": body.sent_ns,
    }


def _report_facts(body: FillRecord) -> dict[str, Any]:
    facts: dict[str, Any] = {"exch_ns": body.at_ns, "known_ns": body.known_ns, "state": body.state}
    if body.qty_e8:
        facts |= {"qty": body.qty_e8 / E8, "price": body.price_e8 / E8, "fee_usdt": body.fee_e8 / E8}
        facts["maker"] = body.maker
    if body.code or body.reason:
        facts |= {"code": body.code, "reason": body.reason}
    return facts


def _timed(found: list[_Stage]) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = []
    for stage, record, facts in found:
        since_ms = (record.recv_ns - stages[-1]["at_ns"]) / NS_PER_MS if stages else None
        shown = {key: value for key, value in facts.items() if key != "symbol"}
        stages.append(
            {
                "stage": stage,
                "seq": record.seq,
                "at_ns": record.recv_ns,
                "since_ms": since_ms,
                "facts": shown,
            }
        )
    return stages
