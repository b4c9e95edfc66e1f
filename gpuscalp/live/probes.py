"""Is the process alive, and is the session ready to trade? What /healthz and /readyz answer.

Owns: the judgement, from plain facts. Never: asks the engine for anything: a thread of the server reads what
the loop last wrote down.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gpuscalp.schema import NS_PER_S

# The loop comes round every 2 ms; a machine that is very busy may stop it for a second.
LOOP_S: Final = 5.0
# One batch: after a restart it may hold whole minutes of market.
ENGINE_S: Final = 60.0
# Repeating the journal says something every 65,536 records.
START_S: Final = 300.0
STATUS_S: Final = 10.0
WAIT_S: Final = 0.5
FRAME_MS: Final = 5_000.0


@dataclass(slots=True)
class Pulse:
    """What the loop says of itself. Every field is written by one thread.

    Attributes
    ----------
    phase : starting, running or stopping
    beat_ns : the loop came round, or the start came on (monotonic clock)
    working_ns : the engine has worked since then on one batch; 0 = it waits
    frame_done : set whenever a frame has been decided on and its orders have left
    """

    beat_ns: int
    phase: str = "starting"
    working_ns: int = 0
    frame_done: threading.Event = field(default_factory=threading.Event)

    def wait_frame(self) -> None:
        """Return just after a frame, when the next one is farthest away; after ``WAIT_S`` in any case.

        For threads whose work must not get between the engine and the interpreter.
        """
        self.frame_done.clear()
        self.frame_done.wait(WAIT_S)


def alive(pulse: Pulse, now_ns: int) -> dict[str, Any]:
    """Return whether the process does what it should; only a restart would mend it otherwise.

    Parameters
    ----------
    now_ns : monotonic clock

    Returns
    -------
    ``ok``, ``phase``, and ``reasons``: each with ``what`` and ``why``
    """
    reasons = []
    age_s = (now_ns - pulse.beat_ns) / NS_PER_S
    limit_s = START_S if pulse.phase == "starting" else LOOP_S
    if age_s > limit_s:
        reasons.append(_reason("loop", f"has not come round for {age_s:.1f} s"))
    working_ns = pulse.working_ns
    if working_ns and now_ns - working_ns > ENGINE_S * NS_PER_S:
        reasons.append(
            _reason("engine", f"has worked on one batch for {(now_ns - working_ns) / NS_PER_S:.0f} s")
        )
    return {"ok": not reasons, "phase": pulse.phase, "reasons": reasons}


def ready(pulse: Pulse, status: Mapping[str, Any], now_ns: int, wall_ns: int) -> dict[str, Any]:
    """Return whether the session would trade if its model said so.

    Parameters
    ----------
    status : the session's newest (docs/live.md); empty before the first
    now_ns, wall_ns : monotonic clock, and wall clock

    Returns
    -------
    as ``alive``, and ``partly``: reasons that concern some symbols only, which leave the session ready
    """
    lively = alive(pulse, now_ns)
    if not status or pulse.phase != "running":
        why = {"starting": "loads its model, repeats its journal", "stopping": "comes to its end"}
        reasons = [*lively["reasons"], _reason("session", why.get(pulse.phase, "has not said anything yet"))]
        return {"ok": False, "phase": pulse.phase, "reasons": reasons, "partly": []}
    reasons, partly = list(lively["reasons"]), []
    age_s = (wall_ns - status["written_ns"]) / NS_PER_S
    if age_s > STATUS_S:
        reasons.append(_reason("status", f"is {age_s:.0f} s old"))
    if status["state"] == "halted":
        reasons.append(_reason("gate", f"is halted: {status['cause'] or 'by command'}"))
    elif status["state"] != "active":
        partly.append(_reason("gate", f"is {status['state']}: {status['cause'] or 'by command'}"))
    model, health = status["model"], status["health"]
    if not model["bundle"]:
        reasons.append(_reason("model", "is not loaded"))
    elif model["expires_in_s"] is not None and model["expires_in_s"] <= 0:
        reasons.append(_reason("model", f"is older than it may be by {-model['expires_in_s'] / 3_600:.1f} h"))
    # Each of their words alone makes the gate refuse every entry (risk/rules.py, DEVICE).
    reasons += [
        _reason(what, f"is not trusted: {word}") for what in ("device", "venue") for word in health[what]
    ]
    _judge_feed(status, reasons, partly)
    return {"ok": not reasons, "phase": pulse.phase, "reasons": reasons, "partly": partly}


def _judge_feed(
    status: Mapping[str, Any], reasons: list[dict[str, str]], partly: list[dict[str, str]]
) -> None:
    """Say what is missing between the exchange and the features."""
    frame_ms = status["last_frame_age_ms"]
    if frame_ms is None:
        reasons.append(_reason("frames", "none has closed yet"))
    elif frame_ms > FRAME_MS:
        reasons.append(_reason("frames", f"the last one closed {frame_ms / 1_000:.1f} s ago"))
    symbols = status["symbols"]
    for what, missing, words in (
        ("warm_up", status["warming"], "windows are not full yet"),
        ("feed", status["feeds"]["silent"], "no data"),
        ("tick_size", status["feeds"]["off_tick"], "prices are no multiples of the tick size"),
        (
            "rules",
            status["health"].get("rules", []),
            "it does not trade, or by other rules than the session's",
        ),
        ("books", status["feeds"]["unsynced"], "the book is not whole"),
    ):
        if missing:
            target = reasons if len(missing) == len(symbols) else partly
            target.append(_reason(what, f"{words}: {', '.join(missing)}"))
    if status["clock"]["drifted"]:
        partly.append(_reason("clock", "our offset from the exchange is not to be trusted"))


def _reason(what: str, why: str) -> dict[str, str]:
    return {"what": what, "why": why}
