"""What `--help` says: of every command something, and in words of its user."""

from __future__ import annotations

import re

from gpuscalp.cli.app import app


def test_every_command_has_a_json_flag_and_a_help_text():
    def walk(group, path):
        for sub in group.registered_groups:
            walk(sub.typer_instance, [*path, sub.name])
        for command in group.registered_commands:
            name = " ".join([*path, command.name])
            assert "json" in command.callback.__annotations__, f"{name} has no --json"
            assert (command.callback.__doc__ or "").strip(), f"{name} has no help text"

    walk(app, [])


def test_every_command_tells_what_it_is_in_one_line_of_the_list(cli):
    for group in ("", *(group.name for group in app.registered_groups)):
        listing = cli(*group.split(), "--help").stdout
        assert "..." not in listing.split("Commands:")[1], f"{group}: a first sentence is cut off"


def test_help_says_what_a_value_is_and_not_its_type_in_python(cli):
    """It showed `--recording <list[Path]>`, `--fault <list[str]>`, `--seed <int range>`."""

    def walk(group, path):
        for sub in group.registered_groups:
            yield from walk(sub.typer_instance, [*path, sub.name])
        for command in group.registered_commands:
            yield [*path, command.name]

    for words in walk(app, []):
        text = cli(*words, "--help").stdout
        found = re.findall(r"<(?:list|str|path|int|float|text)\b.*|%Y.*|\{[a-z_]+\}", text)
        assert not found, f"{words}: {found}"
    text = cli("live", "--help").stdout
    for shown in ("--recording FILE", "--fault KIND:...", "--seed N", "--session SESSION"):
        assert shown in text
    assert "--device <auto|cpu|cuda>" in text or "--device [auto|cpu|cuda]" in text
    assert "ARCHIVE" in cli("train", "--help").stdout
    # They were a PATTERN and a FILE, as options of these names are of other commands.
    assert "--columns N" in cli("model", "compare", "--help").stdout
    assert "--instruments IDS" in cli("nautilus", "import", "--help").stdout


def test_choice_that_there_is_not_is_refused_with_those_that_there_are(cli):
    """It began with `Value error, 'tpu' is not one of`: the words of a library."""
    refused = cli("device", "--device", "tpu")
    assert refused.code == 2
    first = refused.stderr.splitlines()[0]
    assert "Value error" not in first
    assert all(word in first for word in ("--device", "tpu", "auto", "cpu", "cuda"))
