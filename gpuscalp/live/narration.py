"""What a session says of its decisions, with the ids by which one follows a frame to its fills.

Owns: the words, the levels, the correlation ids. Never: in the way: it is told after orders have been sent.

A frame is SYMBOL@END_NS, which no other frame of the session is; an order bears the id under which the
exchange knows it. An entry on an order or a fill has both.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, final

from gpuscalp.execution.lifecycle import ENDED
from gpuscalp.live.engine import Outcome
from gpuscalp.live.records import (
    FillRecord,
    OrderRecord,
    SignalRecord,
    StateRecord,
    VerdictRecord,
    client_id,
    model_text,
)
from gpuscalp.risk.gate import RiskState
from gpuscalp.schema import E8, NS_PER_MS

_FRAMES: Final = logging.getLogger("gpuscalp.frames")
_ORDERS: Final = logging.getLogger("gpuscalp.orders")
_MODELS: Final = logging.getLogger("gpuscalp.models")
_RISK: Final = logging.getLogger("gpuscalp.risk")
# Orders whose frame is remembered; one that is older than so many others has none in the log.
_ORDERS_MAX: Final = 10_000


def frame_id(symbol: str, end_ns: int) -> str:
    """Return the id of a frame; of all symbols where none is named."""
    return f"{symbol}@{end_ns}"


@final
class Narrator:
    """Tells the log what became of each batch.

    Parameters
    ----------
    session_id, symbols : of the session; symbols in the order of axis S
    """

    def __init__(self, session_id: str, symbols: Sequence[str]) -> None:
        self._session_id, self._symbols = session_id, tuple(symbols)
        self._frames: dict[int, str] = {}
        # By symbol, if the newest verdict is a refusal: of what, and by which rule.
        self._refused: dict[int, tuple[str, str]] = {}

    def tell(self, outcome: Outcome) -> None:
        """Tell of one outcome; call it when it is written and sent."""
        frame: SignalRecord | None = None
        for record in outcome.models:
            frames = f"frames after {outcome.after_ns}" if outcome.after_ns else "all frames"
            _MODELS.info("%s: taken, for %s", model_text(record), frames)
        for _, body in outcome.records:
            if isinstance(body, SignalRecord):
                frame = body
                if _FRAMES.isEnabledFor(logging.DEBUG) or body.lost or body.late:
                    self._frame(body)
            elif isinstance(body, VerdictRecord):
                self._verdict(body)
            elif isinstance(body, OrderRecord):
                self._order(body, frame)
            elif isinstance(body, FillRecord):
                self._report(body)
            elif isinstance(body, StateRecord):
                closed = body.risk.state != RiskState.ACTIVE
                level = logging.WARNING if closed else logging.INFO
                _RISK.log(level, "the gate is %s: %s", body.risk.state, body.event)

    def _frame(self, body: SignalRecord) -> None:
        features, predict, gate = (each / NS_PER_MS for each in body.stages_ns)
        how = "lost" if body.lost else "late" if body.late else "predicted" if body.margins else "unpredicted"
        _FRAMES.log(
            logging.WARNING if body.lost or body.late else logging.DEBUG,
            "%s: features %.3f ms, prediction %.3f ms, decision %.3f ms",
            how, features, predict, gate,
            extra={"frame": frame_id("", body.end_ns)},
        )  # fmt: skip

    def _verdict(self, body: VerdictRecord) -> None:
        extra = {"frame": frame_id(self._symbols[body.symbol], body.end_ns)}
        side = _side(body.side)
        if body.accepted:
            self._refused.pop(body.symbol, None)
            _RISK.info("%s %s: accepted (%s)", body.kind, side, body.reason, extra=extra)
            return
        # A closed gate refuses at every frame: said each time, that would drive all else out of the files.
        refused = (body.kind, body.code)
        level = logging.DEBUG if self._refused.get(body.symbol) == refused else logging.INFO
        self._refused[body.symbol] = refused
        words = "%s %s: refused by %s: %s, limit %s"
        _RISK.log(level, words, body.kind, side, body.code, body.value, body.limit, extra=extra)

    def _order(self, body: OrderRecord, frame: SignalRecord | None) -> None:
        symbol = self._symbols[body.symbol]
        if not body.cancel and frame is not None and frame.end_ns == body.decided_ns:
            self._frames[body.order_id] = frame_id(symbol, frame.end_ns)
            if len(self._frames) > _ORDERS_MAX:
                del self._frames[next(iter(self._frames))]
        _ORDERS.info(
            "%s %s %s %.8g, %s%s: %s",
            "cancel" if body.cancel else "send", _side(body.side), symbol, body.qty_e8 / E8, body.kind,
            f" at {body.price_e8 / E8:.8g}" if body.price_e8 else "", body.reason,
            extra=self._ids(body.order_id),
        )  # fmt: skip

    def _report(self, body: FillRecord) -> None:
        extra = self._ids(body.order_id) if body.order_id else {}
        if body.qty_e8:
            _ORDERS.info(
                "filled: %s %.8g at %.8g, fee %.8g",
                _side(body.side), body.qty_e8 / E8, body.price_e8 / E8, body.fee_e8 / E8,
                extra=extra,
            )  # fmt: skip
        elif body.reason or body.code:
            _ORDERS.warning("%s: %s %s", body.kind, body.code or "", body.reason, extra=extra)
        else:
            _ORDERS.info("%s", body.kind, extra=extra)
        if body.state in ENDED:
            self._frames.pop(body.order_id, None)

    def _ids(self, order_id: int) -> dict[str, str]:
        return {"order": client_id(self._session_id, order_id), "frame": self._frames.get(order_id, "")}


def _side(side: int) -> str:
    return "buy" if side > 0 else "sell"
