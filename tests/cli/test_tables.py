"""Tables in a terminal that is too narrow for them: figures go on in the next line, and none is cut."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Group
from rich.table import Table

from gpuscalp.cli import output
from gpuscalp.cli.backtest import plain_table


@pytest.mark.parametrize("width", [60, 80])
def test_no_figure_of_a_table_is_cut_by_a_narrow_terminal(width, monkeypatch, capsys):
    """Money was shown as "+12,34…": a column that was too narrow lost the digits behind."""
    figures = [f"{-12_345.67 * step:+,.2f}" for step in range(1, 10)]
    boxed = Table(*(f"figure {step}" for step in range(1, 10)))
    plain = plain_table("first", *(f"figure {step}" for step in range(2, 10)))
    for table in (boxed, plain):
        table.add_row(*figures)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    def shown(drawn):
        output.emit({}, json=False, text=lambda: drawn)
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)

    text = shown(Group("above", Group(boxed)))
    assert max(map(len, text.splitlines())) <= width
    rows = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    assert ["".join(part.strip() for part in column) for column in zip(*rows, strict=True)] == figures
    text = shown(plain)
    assert "…" not in text
    head = "".join(map(str, range(2, 10)))
    assert Counter(re.findall(r"\d", text)) == Counter(re.findall(r"\d", head + "".join(figures)))


def test_every_table_is_printed_in_the_one_place():
    """What folds the columns, and keeps a terminal from obeying their texts, is there."""
    package = Path(output.__file__).parent
    printing = [path.name for path in package.glob("*.py") if "Console(" in path.read_text()]
    assert printing == ["output.py"]
