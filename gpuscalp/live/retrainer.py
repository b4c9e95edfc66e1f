"""The process that trains a session's next model: when it is started, what came of it.

Owns: one process at a time (``gpuscalp retrain``), its files, its end, the room that it leaves. Never:
trains, or judges what was trained. The session's process does nothing but start it and look now and then.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, final

from gpuscalp.config import RetrainingConfig
from gpuscalp.errors import ConfigError
from gpuscalp.redaction import redact, without_secrets
from gpuscalp.retrain.folder import CANDIDATE, FOLDER, HELD, clear, is_held
from gpuscalp.schema import NS_PER_S

_LOG: Final = logging.getLogger("gpuscalp.retraining")
_ANSWER: Final = "answer.json"
_ERRORS: Final = "errors.txt"
_HOUR_NS: Final[int] = 3_600 * NS_PER_S
_REASON_MAX: Final = 300
# Its archive lies on the disk of the journal, without which a session ends: to begin, and to go on.
_FREE_BYTES_MIN: Final = 8 << 30
_LEFT_BYTES_MIN: Final = _FREE_BYTES_MIN // 2
_LOOK_NS: Final = 10 * NS_PER_S
_CLEAR_NS: Final = 60 * NS_PER_S
# At the end of a session; the kernel frees what is left later.
_WAIT_S: Final = 1.0
# NumPy's own threads are of no use to it.
_ONE_THREAD: Final = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@final
class Retrainer:
    """Trains for one session.

    Parameters
    ----------
    path : of the session
    config : when, and with how much of the machine
    begun_ns : of the session, wall clock: the first attempt counts from it

    Attributes
    ----------
    state : "off" where nothing is due ever, "idle", "running", or "failed": the last attempt
    reason : why it failed, what keeps it from being started though it is due, or why the registry
        refused what the last attempt has trained
    since_ns : wall clock, of the state; 0 = since the process began
    result : what the last attempt of this process that succeeded said

    Raises
    ------
    ConfigError    the registry is no absolute path
    """

    def __init__(self, path: Path, config: RetrainingConfig, *, begun_ns: int) -> None:
        self.state = "idle" if config.every_hours else "off"
        self.reason = ""
        self.since_ns = 0
        self.result: dict[str, Any] | None = None
        self._path, self._folder, self._config = path, path / FOLDER, config
        self._registry = registry_of(config)
        self._process: subprocess.Popen[bytes] | None = None
        # One that was killed. To free its memory at idle priority may take it minutes, and nobody waits.
        self._dying: subprocess.Popen[bytes] | None = None
        self._attempted_ns = max(begun_ns, self._last_attempt_ns())
        self._looked_ns = 0
        # Why what a killed process has left is still there; None: nobody has looked yet.
        self._unclean: str | None = None
        self._clearing: threading.Thread | None = None
        self._clear_ns = 0

    def due(self, now_ns: int) -> bool:
        """Whether it is time for the next attempt."""
        next_ns = self.next_ns()
        return next_ns is not None and now_ns >= next_ns

    def obstacle(self) -> str:
        """Return what keeps it from being started; "" = nothing."""
        if self._dying is not None:
            return "the process before has not ended yet"
        if self._unclean != "":
            return self._unclean or "what a process before has left is being removed"
        if is_held(self._folder):
            return HELD
        free = shutil.disk_usage(self._path).free
        if free < _FREE_BYTES_MIN:
            return f"the disk has {free >> 20:,} MiB left, which the journal needs"
        return ""

    def next_ns(self) -> int | None:
        """Return when the next attempt is due, wall clock; None: never, or it is running."""
        every_ns = round(self._config.every_hours * _HOUR_NS)
        return self._attempted_ns + every_ns if every_ns and self.state != "running" else None

    def start(self, lead: Path, now_ns: int) -> None:
        """Start it.

        Parameters
        ----------
        lead : bundle whose configuration is used
        """
        config = self._config
        command = [sys.executable, "-m", "gpuscalp", "retrain", str(self._path), "--like", str(lead)]
        command += ["--train-hours", repr(config.train_hours), "--cores", str(config.cores)]
        command += ["--memory-mb", str(config.memory_mb), "--device", config.device]
        command += ["--gpu-memory-mb", str(config.gpu_memory_mb)]
        command += ["--registry", str(self._registry)] if self._registry else []
        self._attempted_ns = now_ns
        try:
            self._folder.mkdir(exist_ok=True)
            with self._open(_ANSWER) as answer, self._open(_ERRORS) as errors:
                self._process = subprocess.Popen(
                    [*command, "--attended", "--json"],
                    stdin=subprocess.PIPE,  # nothing is written: that it closes says that we are gone
                    stdout=answer,
                    stderr=errors,
                    # Ctrl-C is meant for us. Not a session of its own: between those Linux shares out
                    # processors first, whatever their priorities (sched(7), autogroup).
                    process_group=0,
                    env=without_secrets(os.environ) | dict.fromkeys(_ONE_THREAD, "1"),
                )
        except OSError as error:
            self._become("failed", now_ns, str(error))
            return
        self._become("running", now_ns)

    def poll(self, now_ns: int) -> dict[str, Any] | None:
        """Return the answer of a process that has come to a good end since the last call."""
        if self._dying is not None and self._dying.poll() is not None:
            self._dying = None
        process = self._process
        if process is None:
            self._clear(now_ns)
            return None
        code = process.poll()
        if code is None:
            if reason := self._stops(now_ns):
                self._kill(process)
                self._become("failed", now_ns, reason)
            return None
        self._let_go(process)
        told = self._told()
        answer = _answer(told)
        if code or answer is None:
            self._become("failed", now_ns, self._why(code, told))
            return None
        self._unclean = ""
        self.result = answer
        refusal = answer.get("not_registered")
        reason = f"the registry refused the candidate: {refusal}" if refusal else ""
        self._become("idle", now_ns, reason)
        return answer

    def left(self) -> dict[str, Any] | None:
        """Return the answer that a process before this one has got; it may have been taken up or not."""
        answer = _answer(self._told()) if self._config.every_hours else None
        # A session may have been moved, or restored elsewhere.
        return None if answer is None else answer | {"bundle": str(self._folder / CANDIDATE)}

    def failed(self, now_ns: int, reason: str) -> None:
        """Note that nothing can be made of what was trained."""
        self._become("failed", now_ns, reason)

    def close(self) -> None:
        """End a process that runs."""
        if self._process is not None:
            self._kill(self._process)
        if self._dying is not None:
            with suppress(subprocess.TimeoutExpired):
                self._dying.wait(_WAIT_S)

    def status(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "reason": self.reason,
            "since_ns": self.since_ns,
            "next_ns": self.next_ns(),
            "every_hours": self._config.every_hours,
            "result": self.result,
        }

    def _become(self, state: str, now_ns: int, reason: str = "") -> None:
        self.state, self.since_ns, self.reason = state, now_ns, redact(reason)[:_REASON_MAX]
        level = logging.WARNING if reason else logging.INFO
        _LOG.log(level, "retraining: %s%s", state, f": {self.reason}" if reason else "")

    def _stops(self, now_ns: int) -> str:
        """Return why the process that runs must not go on; "" = it may."""
        if now_ns - self._attempted_ns > self._config.timeout_hours * _HOUR_NS:
            return f"it took more than {self._config.timeout_hours:g} hours"
        if now_ns - self._looked_ns >= _LOOK_NS:
            self._looked_ns = now_ns
            free = shutil.disk_usage(self._path).free
            if free < _LEFT_BYTES_MIN:
                return f"the journal needs the disk, which had {free >> 20:,} MiB left"
        return ""

    def _clear(self, now_ns: int) -> None:
        """Remove what a process has left that was killed, in a thread: an archive is not gone at once."""
        if self._dying is not None or self._unclean == "" or now_ns < self._clear_ns:
            return
        if self._clearing is not None and self._clearing.is_alive():
            return
        self._clear_ns = now_ns + _CLEAR_NS

        def work() -> None:
            self._unclean = clear(self._folder)

        self._clearing = threading.Thread(target=work, name="clearing", daemon=True)
        self._clearing.start()

    def _told(self) -> Any:
        """Return what the last process has said."""
        try:
            return json.loads((self._folder / _ANSWER).read_bytes())
        except (OSError, ValueError):
            return None

    def _why(self, code: int, told: Any) -> str:
        if isinstance(told, dict) and isinstance(error := told.get("error"), dict):
            where = f" ({error['where']})" if error.get("where") else ""
            return ": ".join(str(error[key]) for key in ("what", "value") if error.get(key)) + where
        lines: list[str] = []
        with suppress(OSError):
            lines = (self._folder / _ERRORS).read_text(errors="replace").strip().splitlines()
        # Out of memory a library may end the process before it can say so itself.
        return f"exit code {code}" + (f": {lines[-1]}" if lines else "")

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        self._let_go(process)
        self._dying = process

    def _let_go(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._unclean, self._clear_ns = None, None, 0
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()

    def _open(self, name: str) -> IO[bytes]:
        return (self._folder / name).open("wb")

    def _last_attempt_ns(self) -> int:
        """Return about when a process before this one tried; a time in the future is none."""
        try:
            found = (self._folder / _ANSWER).stat()
        except OSError:
            return 0
        # An empty one was ended with its session: that was no attempt.
        return found.st_mtime_ns if found.st_size and found.st_mtime_ns <= time.time_ns() else 0


def registry_of(config: RetrainingConfig) -> Path | None:
    """Return the folder of the registry. A relative one would be another wherever the session is begun."""
    if not config.registry:
        return None
    with suppress(RuntimeError):  # nobody has that name
        path = Path(config.registry).expanduser()
        if path.is_absolute():
            return path
    raise ConfigError(
        "the registry of a session is no absolute path",
        where="retraining.registry",
        value=config.registry,
        fix="let it begin with / or ~/",
    )


def _answer(told: Any) -> dict[str, Any] | None:
    """Return what a process has said if it is the answer of a good one."""
    if (
        isinstance(told, dict)
        and isinstance(told.get("digest"), str)
        and isinstance(told.get("bundle"), str)
        and isinstance(told.get("rows"), int | float)
        and isinstance(told.get("metrics"), dict)
    ):
        return told
    return None
