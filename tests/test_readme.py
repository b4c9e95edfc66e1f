"""The commands of README.md: all are understood, and those that only read the demo's archive are run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.cli import command_tree
from gpuscalp.demo import _START_NS
from gpuscalp.synthetic import MarketSpec, write

ROOT = Path(__file__).resolve().parent.parent
# What the tour goes over; it is made once, for all lines.
ARCHIVE = "gpuscalp-demo/archive"


def _commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = (line for block in blocks for line in block.splitlines())
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("gpuscalp ")]


COMMANDS = _commands()
READING = [
    line for line in COMMANDS if line.startswith(("gpuscalp data ", "gpuscalp features ")) and ARCHIVE in line
]


@pytest.mark.parametrize("line", COMMANDS)
def test_command_is_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for model in ("bundle", "model"):  # one that is not there is refused with the other words
        Path(model).mkdir()
    name, command, context = "gpuscalp", command_tree(), None
    words = shlex.split(line)[1:]
    while True:
        context = command.make_context(name, words, parent=context)  # raises what the command line would
        if not hasattr(command, "resolve_command"):
            return
        rest: list[Any] = [*context._protected_args, *context.args]
        name, command, words = command.resolve_command(context, rest)


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first minutes of the demo's market."""
    folder = tmp_path_factory.mktemp("tour")
    (folder / ARCHIVE).parent.mkdir()
    write(MarketSpec(start_ns=_START_NS, duration_s=150), folder / ARCHIVE)
    return folder


def test_tour_has_commands_that_read_the_archive() -> None:
    assert len(READING) == 5


@pytest.mark.parametrize("line", READING)
def test_command_that_reads_the_archive_ends_well(
    line: str, tour: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 20,000 ticks the check for look-ahead could not make its folds."""
    monkeypatch.chdir(tour)
    done = cli(*shlex.split(line)[1:])
    assert done.code == 0, done.stdout + done.stderr
