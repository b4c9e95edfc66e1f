"""The one place that prints.

stdout carries the answer: text for people or, with ``--json``, exactly one JSON document. stderr carries
progress (only if it is a terminal) and errors in words. NaN and infinities are ``null`` in JSON. Much of what
is printed comes from files and exchanges: none of it is taken for markup, or obeyed by the terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, final

import typer

from gpuscalp.progress import Progress, silent
from gpuscalp.redaction import redact
from gpuscalp.terminal import visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment
    from rich.table import Table

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
        Called without ``--json`` only. Returns a string, or anything that rich can print (a table); strings
        are no markup.
    """
    if json:
        _print(to_json(result) + "\n", encoded=True)
        return
    answer = text()
    if isinstance(answer, str):
        _print(visible(answer.rstrip("\n"), but="\n\t") + "\n")
        return
    from rich.console import Console

    _fold(answer)
    # A table cut to 80 columns because the output goes to a file would lose what was asked for.
    width = None if sys.stdout.isatty() else 200
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(_Visible(answer))
    _print(captured.get())


def _fold(drawn: Any) -> None:
    """Let what does not fit into a table's column go on in the next line: a figure cut short is another."""
    from rich.console import Group
    from rich.table import Table

    if isinstance(drawn, Group):
        for part in drawn.renderables:
            _fold(part)
    elif isinstance(drawn, Table):
        for column in drawn.columns:
            if not column.no_wrap:
                column.overflow = "fold"


@final
class _Visible:
    """What rich draws, without what a terminal would obey in its texts; colours are added behind it."""

    def __init__(self, drawn: Any) -> None:
        self._drawn = drawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._drawn, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text, but="\n"))


def emit_line(line: str) -> None:
    """Print one of many lines, for the few commands that go on until they are stopped."""
    _print(visible(line, but="\n") + "\n", encoded=line.startswith("{"))


def plain_table(first: str, *others: str) -> Table:
    """Return a table whose first column is text and whose others are numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table


def _print(text: str, *, encoded: bool = False) -> None:
    """Write to stdout now: a full disk is reported by us and not by the interpreter's exit.

    Secrets are taken out. Characters that stdout cannot take are escaped, as a terminal in a Latin-1 locale
    cannot show "−".
    """
    encoding = sys.stdout.encoding or "utf-8"
    text = redact(text, encoded=encoded)
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        error.filename = "standard output"
        raise


def write_error(error: Mapping[str, Any], *, json: bool) -> None:
    """Print an error with the keys ``code, what, where, value, fix``."""
    if json:
        _print(to_json({"error": error}) + "\n", encoded=True)
        return
    lines = [f"Error: {error['what']} (code {error['code']})"]
    lines += [f"  {key}: {error[key]}" for key in ("where", "value", "fix") if error.get(key) is not None]
    sys.stderr.write(redact("\n".join(visible(line) for line in lines)) + "\n")


def to_json(value: object) -> str:
    """Return ``value`` as JSON text on several lines."""
    import msgspec

    try:
        encoded = msgspec.json.encode(value, enc_hook=_plain)
    except UnicodeEncodeError:  # the name of a file need not be UTF-8, and JSON has to be
        encoded = msgspec.json.encode(_escaped(msgspec.to_builtins(value, enc_hook=_plain)))
    return msgspec.json.format(encoded, indent=2).decode()


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(inner) for key, inner in value.items()}
    return [_escaped(inner) for inner in value] if isinstance(value, list | tuple) else value


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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, auto_refresh=not timed) as bar:
        task = bar.add_task(title, total=None, note="")

        def advance(done: float, total: float | None = None, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=visible(note), refresh=timed)

        yield advance
