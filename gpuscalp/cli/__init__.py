"""The command ``gpuscalp``: turns what happened into an exit code and one printed answer.

Exit codes: 0 done · 1 failed · 2 wrong usage · 3 not running · 4 configuration · 5 deadline · 6 device ·
7 parity · 8 model · 9 risk halted · 130 interrupted by Ctrl-C or SIGTERM. The first ten belong to the error
classes (:mod:`gpuscalp.errors`); where an answer is itself a failure, the command ends with the code of its
class.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from gpuscalp.errors import GpuscalpError, is_out_of_memory
from gpuscalp.redaction import keep_environment, redact
from gpuscalp.terminal import visible

__all__ = ["command_tree", "main", "run"]

INTERRUPTED = 130
_AGAIN_S = 0.05

# Refusals of the operating system that a user can mend; any other OSError is treated as a defect.
SYSTEM_FIXES = {
    errno.EACCES: "correct the permissions, or choose another place",
    errno.EPERM: "correct the permissions, or choose another place",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOENT: "correct the path, or create the folder first",
    errno.EEXIST: "something of this name is in the way: choose another one, or move it",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "a part of this path is a file: name a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: "free some space, then run the command again",
    errno.EDQUOT: "free some space, then run the command again",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EIO: "check the disk",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EADDRINUSE: "choose another port, or 0 for a free one",
    errno.ELOOP: "a symbolic link points to itself: name the file",
}


def main() -> NoReturn:
    """Run the command line of this process and leave with its exit code."""
    sys.unraisablehook = _interrupt_again
    _open_closed()
    # By itself SIGTERM would end the process and let nothing be cleared away; or do nothing where that is the
    # first one of a container, to which the kernel sends no signal that it has not asked for.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = INTERRUPTED
    with suppress(KeyboardInterrupt):  # once more, while it is told of the first
        code = run(sys.argv[1:])
    if code == INTERRUPTED:
        _hear_no_more()
    _drop_unwritten()
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv : sequence of str
        The words after ``gpuscalp``.

    Returns
    -------
    int
        0 for success. With ``--json`` among the words a failure prints ``{"error": {…}}`` on stdout;
        without it, ``Error: … (code N)`` on stderr.
    """
    as_json = "--json" in argv
    keep_environment(os.environ)
    try:
        from gpuscalp.cli.output import tell_of_compiling

        tell_of_compiling()
        outcome = command_tree().main(args=list(argv), prog_name="gpuscalp", standalone_mode=False)
        code = outcome if isinstance(outcome, int) else 0
    except GpuscalpError as error:
        return _report(error.to_dict(), as_json)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        return _report_foreign(error, argv, as_json)
    if code == INTERRUPTED:
        return _report_interrupt(as_json)
    return code


@cache
def command_tree() -> Any:
    """Return all commands as one; built once, as that takes longer than most of them take to answer."""
    from typer.main import get_command

    from gpuscalp.cli.app import app

    return get_command(app)


def _open_closed() -> None:
    """Let what goes to a closed standard stream go nowhere, and not into the next file that is opened."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode)  # noqa: SIM115  # its number is the lowest that is free
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def _drop_unwritten() -> None:
    """Give up what a full disk has not taken: Python would try once more at its end, and fail with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _hear_no_more() -> None:
    """Let nothing but the exit code end this process, which is on its way out."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Python remembers an interrupt that has passed through the exec of a text, as some libraries do when they
    # are imported, and at its end under ``python -m`` kills itself by SIGINT. The next text makes it forget.
    exec("")  # noqa: S102


def _interrupt_again(swallowed: sys.UnraisableHookArgs) -> None:
    """Let Ctrl-C come once more where it has hit a callback of which Python passes no error on.

    The import system, compilers and collected objects have such callbacks: a start that is interrupted in one
    would go on.
    """
    if swallowed.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(swallowed)
        return
    # Later, and from outside: a signal that is raised here would be taken here.
    main_thread = threading.main_thread().ident
    # What a shell has put into the background hears no Ctrl-C: there it was SIGTERM.
    number = signal.SIGTERM if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else signal.SIGINT
    again = threading.Timer(_AGAIN_S, signal.pthread_kill, (main_thread, number))
    again.daemon = True
    with suppress(RuntimeError):  # no thread starts any more: the process is ending
        again.start()


def _report_interrupt(as_json: bool) -> int:
    fix = (
        "run the same command again: data import and data download go on where they were, tune and "
        "walkforward run do so with --resume, the rest starts afresh"
    )
    error = {"kind": "KeyboardInterrupt", "what": "Interrupted", "where": None, "value": None, "fix": fix}
    return _report({"code": INTERRUPTED, **error}, as_json)


def _report_system(error: OSError, argv: Sequence[str], as_json: bool) -> int:
    assert error.errno is not None
    # A write to a file that is open does not tell which one.
    named = error.filename2 or error.filename or _out_of(argv)
    what = os.strerror(error.errno)
    return _report(
        {
            "code": 1,
            "kind": type(error).__name__,
            "what": f"the system refused: {what}",
            "where": os.fsdecode(named) if isinstance(named, str | bytes | os.PathLike) else None,
            # Libraries put the path into the text only.
            "value": None if error.filename or error.strerror == what else redact(str(error.strerror)),
            "fix": SYSTEM_FIXES[error.errno],
        },
        as_json,
    )


def _out_of(argv: Sequence[str]) -> str | None:
    """Return what follows ``--out``."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--out=") else [word])]
    return next((after for word, after in pairwise(words) if word == "--out"), None)


def _report_foreign(error: Exception, argv: Sequence[str], as_json: bool) -> int:
    """Report an error that is not of our family: wrong usage found by the parser, or a defect of ours."""
    name = type(error).__name__
    if name == "NoArgsIsHelpError" and not as_json:
        error.show()  # type: ignore[attr-defined]  # the help text is the answer
        return 2
    if hasattr(error, "format_message"):
        # Recognised by shape: the class lives in click or in typer, depending on the version of typer.
        foreign: Any = error
        context = getattr(foreign, "ctx", None)
        command = "gpuscalp" if context is None else context.command_path
        return _report(
            {
                "code": foreign.exit_code,
                "kind": "UsageError",
                # Newer versions of typer pass on what pydantic calls an error of its own.
                "what": foreign.format_message().replace(": Value error, ", ": "),
                "where": command,
                "value": None,
                "fix": f"see {command} --help",
            },
            as_json,
        )
    if name == "Abort":
        return _report_interrupt(as_json)
    if isinstance(error, OSError) and error.errno in SYSTEM_FIXES:
        return _report_system(error, argv, as_json)
    if is_out_of_memory(error):
        return _report(
            {
                "code": 1,
                "kind": name,
                "what": "memory ran out",
                "where": None,
                "value": redact(str(error)) or None,
                "fix": "free some, or take less at once: a shorter range, fewer symbols or columns",
            },
            as_json,
        )
    import traceback

    from gpuscalp.crash import report_of

    with suppress(OSError):
        sys.stderr.write(redact(visible("".join(traceback.format_exception(error)), but="\n")))
    fix = "this is a defect of gpuscalp unless the text above names a cause: please report it with "
    report = report_of(error, argv)
    fix += "that text" if report is None else f"the file {report}: it holds no secrets"
    what = redact(f"unexpected {name}: {error}")
    return _report({"code": 1, "kind": name, "what": what, "where": None, "value": None, "fix": fix}, as_json)


def _report(error: dict[str, Any], as_json: bool) -> int:
    from gpuscalp.cli.output import write_error

    with suppress(OSError):  # stderr takes nothing either: the code is all that can be told
        try:
            write_error(error, json=as_json)
        except OSError:  # stdout takes nothing, such as a full disk: say it where people look
            write_error(error, json=False)
    code: int = error["code"]
    return code
