"""What a session needs to be operated: an account, a log, somebody to tell, an answer when asked.

Owns: the checks ``nautilus``, ``log_folder``, ``notify``, ``secrets`` and ``session_running``. Never: shows a
key or a secret URL, tells anybody, or writes anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gpuscalp.config import LiveConfig
from gpuscalp.doctor.check import Check, fail, failed_by, ok, skip, warn
from gpuscalp.errors import ConfigError, GpuscalpError, StartingError, UsageError
from gpuscalp.live.control import Request, ask, is_running
from gpuscalp.live.directory import SESSION_FILE
from gpuscalp.logs import LOG_FOLDER
from gpuscalp.monitoring.channel import FILE_VARIABLE, URLS_VARIABLE, open_channels, read_urls
from gpuscalp.nautilus.installed import LIVE
from gpuscalp.nautilus.keys import VARIABLES, permit
from gpuscalp.redaction import ordinary_names

_ANSWER_S: Final = 3.0
_FRAME_MS_MAX: Final = 5_000.0


def check_nautilus(config: LiveConfig | None, env: Mapping[str, str] = os.environ) -> Check:
    """Judge whether orders could be sent to an account: version, URLs and keys, as ``live`` judges them."""
    if config is None:
        return skip("nautilus", "the configuration cannot be read")
    if config.broker != "nautilus":
        return skip("nautilus", "the broker is paper: no account is needed")
    where = config.nautilus.where
    try:
        permit(config, env, confirmed=True)
    except ConfigError as error:
        return failed_by("nautilus", error, fix="docs/nautilus_live.md says what it takes")
    names = ", ".join(VARIABLES[where])
    value = {"where": where, "least_version": LIVE, "variables": list(VARIABLES[where])}
    return ok("nautilus", f"NautilusTrader {LIVE} or newer; {names} are set, for {where}", value)


def check_log_folder(session: Path | None) -> Check:
    """Judge whether a session's log could be written: in its directory, or where that would be made."""
    if session is None:
        return skip("log_folder", "no session was named")
    folder = session / LOG_FOLDER
    place = next(each for each in (folder, *folder.parents) if each.exists())
    value = {"folder": str(folder), "looked_at": str(place)}
    if not place.is_dir():
        return fail("log_folder", f"{place} is no folder", "name another directory", value)
    if not os.access(place, os.W_OK | os.X_OK):
        fix = "correct its owner or its permissions, or name another directory"
        return fail("log_folder", f"{place} cannot be written to", fix, value)
    return ok("log_folder", f"{folder} can be written", value)


def check_notify(env: Mapping[str, str] = os.environ) -> Check:
    """Judge whether those who want to be told of alerts could be; nobody is told."""
    try:
        services = [channel.service for channel in open_channels(read_urls(env))]
    except ConfigError as error:
        return failed_by("notify", error, fix="docs/alerts.md says what can be named, and where")
    if not services:
        return skip(
            "notify", f"nobody is notified of alerts: {URLS_VARIABLE} and {FILE_VARIABLE} are not set"
        )
    return ok("notify", f"alerts go to {', '.join(services)}", {"services": services})


def check_secrets(env: Mapping[str, str] = os.environ) -> Check:
    """Judge whether the environment's secrets can be told from ordinary words (our own name) and numbers."""
    names = ordinary_names(env)
    if not names:
        return ok("secrets", "no secret of the environment is an ordinary word or number", {"variables": []})
    return warn(
        "secrets",
        f"the value of {', '.join(names)} is an ordinary word or number: it is hidden where it stands alone,"
        " also where it is not the secret",
        "take a longer one, of letters and digits; or give a variable that is no secret another name",
        {"variables": names},
    )


def read_running(session: Path | None) -> dict[str, Any] | GpuscalpError | None:
    """Ask the process that runs a session how it stands; None where none does."""
    if session is None or not (session / SESSION_FILE).is_file() or not is_running(session):
        return None
    try:
        return ask(session, Request("status"), timeout_s=_ANSWER_S)
    except GpuscalpError as error:
        return error


def check_running(status: dict[str, Any] | GpuscalpError | None) -> Check:
    """Judge the status of a session that runs."""
    name = "session_running"
    if status is None:
        return skip(name, "no process runs a session here")
    if isinstance(status, UsageError):  # it does not hang: this user may not ask it
        return failed_by(name, status, fix="run it as the session's user")
    if isinstance(status, StartingError):
        return warn(name, status.what, status.fix or "")
    if isinstance(status, GpuscalpError):
        fix = "look at gpuscalp logs; if it does not come round, end the process: nothing is lost by that"
        return fail(name, f"a process holds the session and does not answer: {status.what}", fix)
    frame_ms, logs = status["last_frame_age_ms"], status["logs"] or {"dropped": 0}
    value = {
        "pid": status["pid"],
        "state": status["state"],
        "last_frame_age_ms": frame_ms,
        "silent": status["feeds"]["silent"],
        "off_tick": status["feeds"].get("off_tick", []),  # an earlier version may run it
        "unsynced": status["feeds"]["unsynced"],
        "journal_waiting": status["journal"]["records"] - status["journal"]["durable"],
        "log_dropped": logs["dropped"],
    }
    troubles = []
    if status["state"] != "active":
        troubles.append(f"its gate is {status['state']} ({status['cause'] or 'by command'})")
    if frame_ms is None or frame_ms > _FRAME_MS_MAX:
        age = "none yet" if frame_ms is None else f"{frame_ms / 1_000:.1f} s ago"
        troubles.append(f"its last frame: {age}")
    for key, words in (
        ("silent", "no data of"),
        ("off_tick", "prices off the tick size of"),
        ("unsynced", "no whole book of"),
    ):
        if value[key]:
            troubles.append(f"{words} {', '.join(value[key])}")
    if logs["dropped"]:
        troubles.append(f"{logs['dropped']} entries of its log were dropped")
    who = f"process {status['pid']} runs it"
    if troubles:
        fix = "gpuscalp status and gpuscalp logs say more; gpuscalp resume opens the gate again"
        return warn(name, f"{who}; {'; '.join(troubles)}", fix, value)
    return ok(name, f"{who}, {frame_ms:.0f} ms after its last frame", value)
