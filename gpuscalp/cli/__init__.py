"""The command ``gpuscalp``: turns what happened into an exit code and one printed answer.

Exit codes: 0 done · 1 failed · 2 wrong usage · 3 not running · 4 configuration · 5 deadline · 6 device ·
7 parity · 8 model · 9 risk halted · 130 interrupted. The first ten belong to the error classes
(:mod:`gpuscalp.errors`); no command chooses one by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from gpuscalp.errors import GpuscalpError

__all__ = ["main", "run"]

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line of this process and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


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
    try:
        from typer.main import get_command

        from gpuscalp.cli.app import app

        outcome = get_command(app).main(args=list(argv), prog_name="gpuscalp", standalone_mode=False)
        code = outcome if isinstance(outcome, int) else 0
    except GpuscalpError as error:
        return _report(error.to_dict(), as_json)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        return _report_foreign(error, as_json)
    if code == INTERRUPTED:
        _report({"code": code, "kind": "KeyboardInterrupt", "what": "Interrupted"}, as_json)
    return code


def _report_foreign(error: Exception, as_json: bool) -> int:
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
                "what": foreign.format_message(),
                "where": command,
                "value": None,
                "fix": f"see {command} --help",
            },
            as_json,
        )
    if name == "Abort":
        return _report({"code": INTERRUPTED, "kind": "KeyboardInterrupt", "what": "Interrupted"}, as_json)
    import traceback

    traceback.print_exception(error)
    fix = "this is a defect of gpuscalp unless the text above names a cause: please report it with that text"
    what = f"unexpected {name}: {error}"
    return _report({"code": 1, "kind": name, "what": what, "where": None, "value": None, "fix": fix}, as_json)


def _report(error: dict[str, Any], as_json: bool) -> int:
    from gpuscalp.cli.output import write_error

    write_error(error, json=as_json)
    code: int = error["code"]
    return code
