"""The tree of commands, and the contract of the files that hold them.

Adding a command
----------------
1. Its file is ``gpuscalp/cli/<name>.py``; the name stands in ``COMMAND_MODULES`` below (order of ``--help``).
2. It decorates a function with one of the apps of this module::

       from gpuscalp.cli.app import data_app
       from gpuscalp.cli.output import JsonFlag, emit, progress

       @data_app.command("info")
       def info(archive: Annotated[Path, typer.Argument(help="Archive.")], json: JsonFlag = False) -> None:
           \"\"\"Say what an archive holds.\"\"\"
           from gpuscalp.archive import describe  # inside: see 3

           with progress("Reading") as advance:           # stderr, only on a terminal
               answer = describe(archive, on_progress=advance)
           emit(answer, json=json, text=lambda: _table(answer))

3. All command files are imported at every start, so they import only typer, the standard library,
   ``gpuscalp.errors`` and ``gpuscalp.cli`` at the top. The rest is imported inside the function.
4. A command parses, calls one function of a lower layer, and prints through ``emit`` once, at the end.
   It computes nothing, catches nothing and chooses no exit code: it lets ``GpuscalpError`` pass.
   Only where the answer itself may be a failure (``doctor``, ``live``, ``status``, ``verify``, ``features
   parity`` and ``leakage``, ``notify test``) it is printed first, and the code follows from it.
5. Every command takes ``--json``. The keys of its answer are part of the public interface.
6. The help names a value after its option, as ``_VALUES`` says otherwise, or as ``metavar`` does.

``gpuscalp/cli/system.py`` is a complete example.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from gpuscalp import __version__

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Type of the option `--device`, the same in every command: device: DeviceOption = "auto".
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option("--device", help="cuda fails where it cannot run; auto falls back and says why."),
]

COMMAND_MODULES = (
    "system",
    "doctor",
    "config",
    "demo",
    "data",
    "features",
    "train",
    "tune",
    "retrain",
    "model",
    "tracking",
    "drift",
    "backtest",
    "walkforward",
    "nautilus",
    "exchange",
    "live",
    "dashboard",
    "logs",
    "backup",
    "notify",
    "kernels",
    "bench",
)


class DefaultCommand(TyperGroup):
    """A group whose first command is meant where the first word names none: ``backtest ARCHIVE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            meant = get_close_matches(args[0], self.commands, 1)
            if meant and not Path(args[0]).exists():
                ctx.fail(f"No such command '{args[0]}', and nothing of that name. Did you mean '{meant[0]}'?")
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


# What the help calls a value where its option's name does not say it already.
_VALUES = {
    "accounts": "FILE",
    "before": "SECONDS",
    "columns": "PATTERN",
    "config": "FILE",
    "duration": "SECONDS",
    "end": "YYYY-MM-DD",
    "experiment": "NAME",
    "fault": "KIND:...",
    "from": "TIME",
    "instruments": "FILE",
    "like": "SESSION",
    "logger": "NAME",
    "out": "PATH",
    "profile": "FILE",
    "reachable-as": "NAME",
    "recording": "FILE",
    "slice": "SECONDS",
    "start": "YYYY-MM-DD",
    "to": "TIME",
    "train-hours": "HOURS",
    "why": "TEXT",
    "worker-fault": "KIND:...",
}


class Command(TyperCommand):
    """A command whose help says what a value is, instead of its type in Python."""

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        for param in self.params:
            _name_value(param)


def _name_value(param: Any) -> None:
    """Name the value of an option or argument, unless it has a name, is a flag, or lists its choices."""
    if param.param_type_name == "argument":
        param.metavar = param.metavar or param.name.upper()
        if hasattr(param, "display_type_rich"):  # newer versions put the type behind it all the same
            param.display_type_rich = lambda **_: None
        return
    # By shape: what a type is kept in differs between the versions of typer.
    kind = getattr(param, "type_descriptor", None) or param.type
    if param.metavar or param.is_flag or getattr(kind, "choices", None):
        return
    name = param.opts[0].removeprefix("--")
    if (taken := getattr(kind, "annotation", None)) is not None:
        number = taken in (int, float)
    else:
        number = str(kind).startswith(("INT", "FLOAT", "<Int", "<Float"))
    param.metavar = _VALUES.get(name) or ("N" if number else name.rpartition("-")[2].upper())


class Commands(typer.Typer):
    """A group whose commands are of the kind above."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[_Function], _Function]:
        return super().command(name, **{"cls": Command, **options})


# Plain help: with the panels of rich `gpuscalp --help` takes 0.18 s instead of 0.09 s (2 cores, Python 3.11).
# Errors are printed by gpuscalp.cli.run.
app = Commands(
    name="gpuscalp",
    help="Train, backtest and trade short-horizon models of crypto futures: one pipeline, the same bits on a"
    " GPU and a CPU; on paper unless told otherwise twice.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
config_app = Commands(no_args_is_help=True, rich_markup_mode=None)
data_app = Commands(no_args_is_help=True, rich_markup_mode=None)
features_app = Commands(no_args_is_help=True, rich_markup_mode=None)
backtest_app = Commands(cls=DefaultCommand, no_args_is_help=True, rich_markup_mode=None)
model_app = Commands(no_args_is_help=True, rich_markup_mode=None)
nautilus_app = Commands(no_args_is_help=True, rich_markup_mode=None)
kernels_app = Commands(no_args_is_help=True, rich_markup_mode=None)
walkforward_app = Commands(no_args_is_help=True, rich_markup_mode=None)
notify_app = Commands(no_args_is_help=True, rich_markup_mode=None)
bench_app = Commands(no_args_is_help=True, rich_markup_mode=None)

_BACKTEST_HELP = """Backtest a model; show and compare finished runs.

The word `run` may be left out: gpuscalp backtest ARCHIVE --model BUNDLE. Its options: gpuscalp backtest run
--help."""

app.add_typer(config_app, name="config", help="Write a commented configuration; show one.")
app.add_typer(data_app, name="data", help="Record, import, download and check market data.")
app.add_typer(features_app, name="features", help="List, compute and check features.")
app.add_typer(backtest_app, name="backtest", help=_BACKTEST_HELP)
app.add_typer(model_app, name="model", help="Keep trained models: show, check, compare, promote.")
app.add_typer(walkforward_app, name="walkforward", help="Retrain and trade step by step; judge the result.")
app.add_typer(nautilus_app, name="nautilus", help="Backtest in NautilusTrader; read and write its catalogs.")
app.add_typer(notify_app, name="notify", help="Try notifications; write the alerts for Prometheus.")
app.add_typer(kernels_app, name="kernels", help="Compile kernels ahead; show what is kept.")
app.add_typer(bench_app, name="bench", help="Measure speed against other libraries.")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpuscalp {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: ARG001  # acted on by its callback, before any command
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    import logging

    from gpuscalp.redaction import redact

    class Plain(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return redact(super().format(record))

    if logging.lastResort is not None:  # warnings where nobody keeps a log: without secrets as well
        logging.lastResort.setFormatter(Plain())


for _name in COMMAND_MODULES:
    import_module(f"gpuscalp.cli.{_name}")
