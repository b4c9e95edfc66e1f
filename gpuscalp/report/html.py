"""Sections to one HTML file that needs nothing else: no scripts, no fonts, no network.

Owns: the page and how tables look. Never: computes a number, or draws (figures.py does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpuscalp.files import replace_file
from gpuscalp.redaction import redact

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Table:
    """One table. Columns of numbers are aligned to the right; None is printed as a dash, no row as "none".

    Attributes
    ----------
    header : names of the columns, with units
    rows : cells; floats are printed with up to six significant digits, give text to choose another form
    caption : one sentence above the table
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a report, printed in this order: title, warnings, paragraphs, tables, figures.

    Attributes
    ----------
    paragraphs : plain text; escaped
    tables : Table
    figures : SVG text as figures.py makes it; not escaped, so never text from outside
    warnings : plain text in a box that cannot be overlooked
    """

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[str] = ()
    warnings: Sequence[str] = ()


def render(title: str, sections: Sequence[Section], *, subtitle: str = "") -> str:
    """Return one self-contained HTML page, light or dark as the reader's system asks.

    Parameters
    ----------
    title, subtitle : plain text
    sections : in the order of the page
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gpuscalp.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = format_cell
    environment.filters["alignments"] = column_alignments
    template = environment.get_template("report.html.j2")
    page = template.render(
        title=title, subtitle=subtitle, sections=[_anchored(s, i) for i, s in enumerate(sections)]
    )
    return redact(page)


def write_report(path: Path, title: str, sections: Sequence[Section], *, subtitle: str = "") -> Path:
    """Render into a file, whole or not at all, and return its path."""
    replace_file(path, render(title, sections, subtitle=subtitle).encode())
    return path


def format_cell(value: Cell) -> str:
    """Return a cell as text: a dash for None and NaN, thousands in groups, floats to six digits."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return str(value)


def column_alignments(table: Table) -> list[Literal["number", "text"]]:
    """Return how each column is aligned: to the right where every cell that is there is a number."""
    return [
        "number" if all(_is_number(row[index]) for row in table.rows) and table.rows else "text"
        for index in range(len(table.header))
    ]


def _is_number(value: Cell) -> bool:
    if not isinstance(value, str):
        return True
    return value[:1] in tuple("+-−–0123456789") and not any(letter.isalpha() for letter in value)


def _anchored(section: Section, index: int) -> dict[str, Any]:
    return {"anchor": f"section-{index + 1}", "section": section}
