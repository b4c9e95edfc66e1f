"""The commands of README.md and the pages are understood; those that only read the demo's archive are run."""

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


def _commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = (line for block in blocks for line in block.replace("\\\n", " ").splitlines())
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("gpuscalp ")]


COMMANDS = _commands(ROOT / "README.md")
PAGES = sorted((ROOT / "docs").glob("*.md"))
READING = [
    line for line in COMMANDS if line.startswith(("gpuscalp data ", "gpuscalp features ")) and ARCHIVE in line
]


def _parse(line: str) -> None:
    """Raise what the command line would say of wrong words."""
    name, command, context = "gpuscalp", command_tree(), None
    words = shlex.split(line)[1:]
    while True:
        context = command.make_context(name, words, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest: list[Any] = [*context._protected_args, *context.args]
        name, command, words = command.resolve_command(context, rest)


@pytest.mark.parametrize("line", COMMANDS)
def test_command_is_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for model in ("bundle", "model"):  # one that is not there is refused with the other words
        Path(model).mkdir()
    _parse(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_are_understood(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for those with a word that stands for others: [--option], a|b, SRC…."""
    monkeypatch.chdir(tmp_path)
    for model in ("BUNDLE", "MODEL", "DIR/bundle", "embedded/bundle"):
        Path(model).mkdir(parents=True)
    for line in _commands(page):
        if not re.search(r"[\[|…]", line):
            _parse(line)


def test_pages_have_commands_that_can_be_parsed() -> None:
    found = [line for page in PAGES for line in _commands(page) if not re.search(r"[\[|…]", line)]
    assert len(found) > 50


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
