"""What is left behind when something happens that nobody expected: one file that can be sent to somebody.

Owns: its contents and its place. Never: holds a secret, or the values of variables, which might be one; and
never hides the error that it reports, whatever goes wrong with the report.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import platform
import stat
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from gpuscalp import __version__
from gpuscalp.device import core_count
from gpuscalp.errors import ConfigError, GpuscalpError
from gpuscalp.journal import RecordKind, read_records, segments_of
from gpuscalp.journal.blocks import SEGMENT_BYTES, decode_segment
from gpuscalp.live.checkpoints import code_digest
from gpuscalp.live.directory import SESSION_FILE, read_about
from gpuscalp.logs import Entry
from gpuscalp.redaction import redact
from gpuscalp.schema import NS_PER_S
from gpuscalp.user import user_folder

FOLDER_VARIABLE: Final = "GPUSCALP_CRASH_DIR"
CRASH_FOLDER: Final = "crashes"
_PREFIX: Final = "crash-"
_KEPT: Final = 20
_RECORDS: Final = 50
_PACKAGES: Final = (
    *("numpy", "numba", "xgboost", "xgboost-cpu", "msgspec", "websockets", "prometheus_client"),
    *("cupy-cuda13x", "cupy-cuda12x", "nautilus_trader", "typer", "rich"),
)
# Bodies of these are not text, or say nothing about us.
_BODILESS: Final = frozenset({RecordKind.RAW, RecordKind.REST, RecordKind.TICKS})
_MARK: Final = "gpuscalp_report"


@contextlib.contextmanager
def reported(session: Path, newest: Callable[[], Sequence[Entry]]) -> Iterator[None]:
    """Write a report into a session's directory if something unexpected ends the block.

    Errors of our own family, and refusals of the system, say themselves what they are.

    Parameters
    ----------
    newest : returns the newest entries of the log
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, GpuscalpError | OSError):
            write_report(error, session / CRASH_FOLDER, argv=sys.argv[1:], session=session, log=newest())
        raise


def report_of(error: BaseException, argv: Sequence[str]) -> Path | None:
    """Return the report on an error, which is written now if it was not before; None if it cannot be."""
    written: Path | None = getattr(error, _MARK, None)
    return written or write_report(error, _folder(), argv=argv)


def write_report(
    error: BaseException,
    folder: Path,
    *,
    argv: Sequence[str],
    session: Path | None = None,
    log: Sequence[Entry] = (),
) -> Path | None:
    """Write a report and return its path; None where that is not possible.

    Parameters
    ----------
    argv : words of the command line
    session : directory; what it is and the last records of its journal go with it
    log : newest entries
    """
    now_ns = time.time_ns()
    moment = datetime.datetime.fromtimestamp(now_ns / NS_PER_S, datetime.UTC)
    report = {
        "written": moment.isoformat(timespec="seconds"),
        "written_ns": now_ns,
        "error": {
            "kind": type(error).__name__,
            "text": str(error),
            "traceback": "".join(traceback.format_exception(error)),
        },
        "argv": list(argv),
        "versions": _versions(),
        "config": _config_of(argv),
        "session": None if session is None else _attempt(lambda: _session(session)),
        "log": list(log),
        "journal": [] if session is None else _attempt(lambda: _records(session)),
    }
    try:
        text = redact(msgspec.json.format(msgspec.json.encode(report), indent=2).decode(), encoded=True)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{_PREFIX}{moment:%Y%m%dT%H%M%S}-{now_ns % NS_PER_S:09d}-{os.getpid()}.json"
        # Opened once: a name that is opened again may be another file by then, where others may write too.
        with os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text + "\n")
        setattr(error, _MARK, path)
        for old in sorted(folder.glob(f"{_PREFIX}*.json"))[:-_KEPT]:
            old.unlink(missing_ok=True)
    except Exception:  # the error itself counts, and is told whatever happens here
        return None
    return path


def _folder() -> Path:
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    try:
        folder = user_folder("XDG_STATE_HOME", ".local/state") / CRASH_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ConfigError):
        folder = Path(tempfile.gettempdir()) / f"gpuscalp-{CRASH_FOLDER}-{os.getuid()}"
        return folder if _is_ours(folder) else Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))
    return folder


def _is_ours(folder: Path) -> bool:
    """Make a folder where anybody may have made one of this name; say whether nobody else can write to it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _versions() -> dict[str, Any]:
    found = {"gpuscalp": __version__, "code": code_digest(), "python": sys.version}
    packages = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return {**found, "platform": platform.platform(), "cpus": core_count(), "packages": packages}


def _config_of(argv: Sequence[str]) -> dict[str, str] | None:
    """Return the file that a command line names as its configuration, and its digest."""
    if "--config" not in argv[:-1]:
        return None
    path = Path(argv[argv.index("--config") + 1])
    try:
        return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    except OSError as error:
        return {"path": str(path), "error": str(error)}


def _session(path: Path) -> dict[str, Any]:
    about = read_about(path)
    return {
        "path": str(path),
        "session_id": about.session_id,
        "sha256": hashlib.sha256((path / SESSION_FILE).read_bytes()).hexdigest(),
        "config_sha256": hashlib.sha256(msgspec.json.encode(about.config)).hexdigest(),
        "version": about.version,
        "bundle": about.bundle,
        "device": about.device,
        "broker": about.config.broker,
    }


def _records(path: Path) -> list[dict[str, Any]]:
    """Return the last records of a journal, without the messages of others."""
    last = deque(read_records(path / "journal", torn=True, from_seq=_from(path)), maxlen=_RECORDS)
    return [
        {
            "seq": record.seq,
            "recv_ns": record.recv_ns,
            "kind": RecordKind(record.kind).name,
            "body": None if record.kind in _BODILESS else record.body.decode("utf-8", "replace"),
        }
        for record in last
    ]


def _from(path: Path) -> int:
    """Return a record that lies before the last ones, so that not the whole journal is read."""
    segment = segments_of(path / "journal")[-1]
    with segment.open("rb") as file:
        return decode_segment(file.read(SEGMENT_BYTES), str(segment)).first_seq


def _attempt(action: Callable[[], Any]) -> Any:
    """Return what can be found out, or why it cannot: the rest of the report counts all the same."""
    try:
        return action()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
