"""The bodies of a session's own records in the journal: what it was told, and what it decided.

Owns: the vocabulary. A session is its inputs in order: raw messages, REST replies, notes of connections, and
of the kinds below CLOCK, HEALTH, CONTROL, MODEL and BATCH. Everything else in the journal follows from them
and is written to be compared, except what each frame was told at that moment: times by the clock, and by a
device whether it failed and what it alone had computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Literal, TypeVar

import msgspec
from msgspec import Struct

from gpuscalp.errors import UNREADABLE, JournalError
from gpuscalp.execution.messages import Report
from gpuscalp.journal.blocks import Record
from gpuscalp.orders import Intent, OrderKind, TimeInForce, Verdict
from gpuscalp.risk.gate import RiskSnapshot

_NAMED: Final = 4  # symbols, in words about health


class Command(StrEnum):
    """What an operator can ask for."""

    HALT = "halt"  # nothing is opened; positions run to their exit
    REDUCE = "reduce"  # in addition open orders that would add risk are cancelled
    FLATTEN = "flatten"  # every order is cancelled, every position closed, then nothing passes
    RESUME = "resume"  # back to ACTIVE: the only way up


class SessionRecord(Struct, frozen=True):
    """SESSION, at every start: what runs."""

    version: str
    code: str  # digest of the program's sources
    session_id: str
    bundle: str  # digest of the contract
    graph: str
    symbols: tuple[str, ...]
    market: str = ""  # the name of what it trades on; "" in journals of earlier versions


class ClockRecord(Struct, frozen=True):
    """CLOCK: the exchange's time by our clock, less what messages may take. It moves the watermark."""

    exch_ns: int


class HealthRecord(Struct, frozen=True):
    """HEALTH: what is known beyond the messages, whenever it changes.

    Attributes
    ----------
    clock_error_ms : by how much the estimates of our clock's offset disagree; None before the first estimate
    drifted : the offset is not to be trusted
    silent : indices of symbols of which some stream delivers nothing, from no connection
    device : why the device that predicts, or the disk, is not trusted, such as "gpu0:memory" (docs/gpu.md)
    venue : why an exchange that orders go to is not to be relied on, such as "account:unreachable"
    off_tick : indices of symbols whose prices are off their tick size (``gpuscalp.live.off_tick``)
    rules : indices of symbols that do not trade, or by other rules (``gpuscalp.live.rule_watch``)
    """

    clock_error_ms: float | None
    drifted: bool
    silent: tuple[int, ...] = ()
    device: tuple[str, ...] = ()
    venue: tuple[str, ...] = ()
    off_tick: tuple[int, ...] = ()
    rules: tuple[int, ...] = ()

    @property
    def device_ok(self) -> bool:
        """Whether the device that predicts is trusted, and the exchange that orders go to."""
        return not self.device and not self.venue

    def complaints(self, symbols: Sequence[str]) -> list[str]:
        """Return in words what is doubtful, with the names of the symbols; nothing where all is well."""
        found = [*self.device, *self.venue]
        for what, indices in (
            ("silent", self.silent),
            ("prices off the tick size", self.off_tick),
            ("closed, or other rules at the venue", self.rules),
        ):
            if indices:
                more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
                found.append(f"{what}: {', '.join(symbols[index] for index in indices[:_NAMED])}{more}")
        return [*found, "the clock is not to be trusted"] if self.drifted else found


class ControlRecord(Struct, frozen=True):
    """CONTROL: somebody asked for something."""

    command: Command
    by: str


class Scaling(Struct, frozen=True):
    """A calibration: the probabilities are ``softmax(scale · log p + bias)``, K numbers each."""

    scale: tuple[float, ...]
    bias: tuple[float, ...]


class ModelRecord(Struct, frozen=True, omit_defaults=True):
    """MODEL: what the session predicts with, from the next batch on.

    The next BATCH that is no relief takes it, before the first of its frames. A lead of the same bundle
    changes its calibration alone.

    Attributes
    ----------
    role : the lead decides; the shadow is asked too, and decides nothing
    bundle : digest of a model in the session's directory; "" = no shadow any more
    calibration : in the place of the bundle's own; None: its own
    reason, by : why, and who asked for it, such as "operator", "rule", "retraining"
    evidence : numbers that the decision was based on; written for people, None = not known
    """

    role: Literal["lead", "shadow"]
    bundle: str
    calibration: Scaling | None = None
    reason: str = ""
    by: str = ""
    evidence: dict[str, float | None] = {}


class BatchRecord(Struct, frozen=True):
    """BATCH: all that has come so far goes to the engine now.

    Attributes
    ----------
    now_ns : exchange time; reports of the broker that are known by then go with it
    pushed : ticks that have come since the beginning of the session
    relief : no batch: ticks gave way because too many waited (gpuscalp.batcher)
    """

    now_ns: int
    pushed: int
    relief: bool = False


class SignalRecord(Struct, frozen=True, omit_defaults=True):
    """SIGNAL, for every frame.

    Attributes
    ----------
    end_ns : of the frame
    decided_ns : exchange time at which the gate was asked; told by the clock
    stages_ns : features, prediction, decision; told by the clock
    rows : uint64[S], digests of the features' bits, with quality and quotes
    margins : uint64[S], digests of the margins' bits; nothing where the frame was not predicted
    signal : float32[S, 4], probabilities of DOWN and UP, agreement, edge in bps
    equity_e8 : wallet and open positions at the closing side of the quote
    skips : symbols without an intent, by reason (gpuscalp.strategy.SKIP_REASONS)
    lost : the device that predicted failed at this frame; told by it
    late : the prediction was there after its deadline, and the gate never saw it
    model : first digits of the lead's digest, where it is another than the session was begun with
    unproved : bits of S rows (``numpy.packbits``): margins and signal are a worker's word, which the CPU has
        not looked at, and of which the strategy knew nothing
    """

    end_ns: int
    decided_ns: int
    stages_ns: tuple[int, int, int]
    rows: bytes
    margins: bytes
    signal: bytes
    equity_e8: int
    skips: tuple[int, ...]
    lost: bool = False
    late: bool = False
    unproved: bytes = b""
    model: str = ""


class VerdictRecord(Struct, frozen=True, omit_defaults=True):
    """VERDICT, for every intent: what was wanted and what the gate said. None stands for NaN: not known."""

    end_ns: int
    symbol: int
    side: int
    kind: str
    reason: str
    notional_usdt: float | None
    confidence: float | None
    agreement: float | None
    edge_bps: float | None
    cost_bps: float | None
    accepted: bool
    code: str = ""
    limit: float | None = 0.0
    value: float | None = 0.0


class OrderRecord(Struct, frozen=True, omit_defaults=True):
    """ORDER: it leaves now. ``cancel`` asks for the end of an earlier one instead.

    What is not written is that of a market order: before there were others, none of the last three was.
    """

    order_id: int
    client_id: str
    symbol: int
    side: int
    qty_e8: int
    reduce_only: bool
    decided_ns: int
    sent_ns: int
    mid2_e8: int
    reason: str
    cancel: bool = False
    kind: OrderKind = OrderKind.MARKET
    time_in_force: TimeInForce = TimeInForce.IOC
    price_e8: int = 0


class FillRecord(Struct, frozen=True, omit_defaults=True):
    """FILL: a report of the broker, when the trader hears of it; not fills alone."""

    kind: str
    order_id: int
    symbol: int
    at_ns: int
    known_ns: int
    state: str = ""
    code: int = 0
    reason: str = ""
    left_e8: int = 0
    side: int = 0
    qty_e8: int = 0
    price_e8: int = 0
    fee_e8: int = 0
    maker: bool = False
    money_e8: int = 0


# Why a start halts: the database knows more than the journal, or knew the gate as closed.
AHEAD: Final = "database ahead of the journal"
CLOSED_BEFORE: Final = "gate was closed before"


class StateRecord(Struct, frozen=True, omit_defaults=True):
    """STATE: where the gate stands after something moved it.

    One with ``AHEAD`` or ``CLOSED_BEFORE`` is an input: a start has halted, and no id up to
    ``last_order_id`` is given out again.
    """

    at_ns: int
    event: str
    risk: RiskSnapshot
    last_order_id: int = 0


class CheckpointRecord(Struct, frozen=True):
    """CHECKPOINT: a file holds everything that came before this record."""

    file: str
    sha256: str


T = TypeVar("T")


def encode(body: Struct) -> bytes:
    return msgspec.json.encode(body)


def decode(record: Record, kind: type[T]) -> T:
    """Return the body of a record.

    Raises
    ------
    JournalError    it is none of its kind: the journal is of another version
    """
    try:
        return msgspec.json.decode(record.body, type=kind)
    except UNREADABLE as error:
        raise JournalError(
            "a record does not have the form of its kind",
            where=f"record {record.seq}",
            value=str(error),
            fix="use the version of gpuscalp that wrote the journal",
        ) from None


def client_id(session_id: str, order_id: int) -> str:
    """Return the id under which the exchange knows an order: always the same one, never used twice."""
    return f"gs-{session_id}-{order_id}"


def model_text(record: ModelRecord) -> str:
    """Return a change of models in words."""
    if not record.bundle:
        text = "no model is in the shadow any more"
    else:
        does = "leads" if record.role == "lead" else "is in the shadow"
        how = "" if record.calibration is None else ", with a calibration of the session's own"
        text = f"model {record.bundle[:12]} {does} from the next batch on{how}"
    why = f": {record.reason}" if record.reason else ""
    return f"{text}{why}, by {record.by or 'somebody'}"


def plain(value: float) -> float | None:
    """Return a number as JSON has it: there is no NaN in it."""
    return value if value == value else None


def verdict_record(end_ns: int, intent: Intent, verdict: Verdict) -> VerdictRecord:
    """Return what the gate said as it is written."""
    return VerdictRecord(
        end_ns=end_ns,
        symbol=intent.symbol_index,
        side=intent.side,
        kind=str(intent.kind),
        reason=intent.reason,
        notional_usdt=intent.notional_usdt,
        confidence=plain(intent.confidence),
        agreement=plain(intent.agreement),
        edge_bps=plain(intent.edge_bps),
        cost_bps=plain(intent.cost_bps),
        accepted=verdict.accepted,
        code=verdict.code,
        limit=plain(verdict.limit),
        value=plain(verdict.value),
    )


def fill_record(report: Report) -> FillRecord:
    """Return a report of the broker as it is written."""
    fill = report.fill
    return FillRecord(
        kind=str(report.kind),
        order_id=report.order_id,
        symbol=report.symbol_index,
        at_ns=report.at_ns,
        known_ns=report.known_ns,
        state="" if report.state is None else str(report.state),
        code=report.code,
        reason=report.reason,
        left_e8=report.left_e8,
        side=0 if fill is None else fill.side,
        qty_e8=0 if fill is None else fill.qty_e8,
        price_e8=0 if fill is None else fill.price_e8,
        fee_e8=0 if fill is None else fill.fee_e8,
        maker=report.maker,
        money_e8=report.money_e8,
    )
