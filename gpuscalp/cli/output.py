"""The one place that prints.

stdout carries the answer: text for people or, with ``--json``, exactly one JSON document. stderr carries
progress (only if it is a terminal) and errors in words. NaN and infinities are ``null`` in JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from gpuscalp.progress import Progress, silent
from gpuscalp.redaction import redact

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def emit(result: Mapping[str, Any] | Sequence[Any], *, json: bool, text: Callable[[], object]) -> None:
    """Print the answer of a command. Call it once, as the command's last act.

    Parameters
    ----------
    result : mapping or sequence
        What ``--json`` prints; NumPy scalars and arrays, paths and msgspec structs are fine in it.
    json : bool
        The command's ``--json`` flag.
    text : callable
        Called without ``--json`` only. Returns a string, or anything that rich can print (a table).
    """
    if json:
        _print(to_json(result) + "\n", encoded=True)
        return
    answer = text()
    if isinstance(answer, str):
        _print(answer.rstrip("\n") + "\n")
        return
    from rich.console import Console

    # A table cut to 80 columns because the output goes to a file would lose what was asked for.
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    with console.capture() as captured:
        console.print(answer)
    _print(captured.get())


def emit_line(line: str) -> None:
    """Print one of many lines, for the few commands that go on until they are stopped."""
    _print(visible(line, but="\n") + "\n", encoded=line.startswith("{"))


def _print(text: str, *, encoded: bool = False) -> None:
    """Write to stdout now: a full disk is reported by us and not by the interpreter's exit.

    Secrets are taken out. Characters that stdout cannot take are escaped, as a terminal in a Latin-1 locale
    cannot show "−".
    """
    encoding = sys.stdout.encoding or "utf-8"
    text = redact(text, encoded=encoded)
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def write_error(error: Mapping[str, Any], *, json: bool) -> None:
    """Print an error with the keys ``code, what, where, value, fix``."""
    if json:
        _print(to_json({"error": error}) + "\n", encoded=True)
        return
    lines = [f"Error: {error['what']} (code {error['code']})"]
    lines += [f"  {key}: {error[key]}" for key in ("where", "value", "fix") if error.get(key) is not None]
    sys.stderr.write(redact("\n".join(visible(line) for line in lines)) + "\n")


def visible(text: str, *, but: str = "") -> str:
    """Escape what a terminal would obey: the value of an error may come out of any file.

    Characters of ``but`` stay.
    """
    return "".join(char if char.isprintable() or char in but else ascii(char)[1:-1] for char in text)


def to_json(value: object) -> str:
    """Return ``value`` as JSON text on several lines."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2).decode()


def _plain(value: Any) -> object:
    if hasattr(value, "tolist"):  # a NumPy array or scalar
        return value.tolist()
    if hasattr(value, "__fspath__"):
        return value.__fspath__()
    raise TypeError(f"a command's answer holds a {type(value).__name__}, which has no JSON form")


def tell_of_compiling() -> None:
    """Show on a terminal that kernels are compiled: a command would seem to stand still."""
    if not sys.stderr.isatty():
        return
    import logging

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            sys.stderr.write(f"{record.getMessage()}\n")  # a bar that is shown moves out of the way

    logger = logging.getLogger("gpuscalp.ops._numba")
    logger.handlers = [Teller(logging.INFO)]
    logger.setLevel(logging.INFO)


@contextmanager
def progress(title: str, *, timed: bool = False) -> Iterator[Progress]:
    """Show a progress bar on stderr while the block runs; yields the function to call.

    Where stderr is no terminal nothing is shown and rich is not imported. With ``timed``, for what takes
    times, it is drawn when that function is called and never in between, by a thread of its own.
    """
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, auto_refresh=not timed) as bar:
        task = bar.add_task(title, total=None, note="")

        def advance(done: float, total: float | None = None, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note, refresh=timed)

        yield advance
