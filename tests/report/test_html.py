"""The page: self-contained, escaped, and every cell printed as documented."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpuscalp.report.html import Section, Table, column_alignments, format_cell, render, write_report

VOID = {"meta", "br", "link", "img"}


class Outline(HTMLParser):
    """Checks that every element is closed in order, and collects what refers to somewhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href"} and value is not None:
                self.references.append(value)
            if name == "id" and value is not None:
                self.ids.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def page() -> str:
    table = Table(["name", "amount, USDT"], [["a <b>", 1.5], ["c", None]], caption="What <it> is.")
    return render(
        "Title & <more>",
        [
            Section("One", ["text <i>"], [table], ["<svg><g></g></svg>"], ["mind <this>"]),
            Section("Two"),
            Section("Three"),
        ],
        subtitle="sub <title>",
    )


def test_page_is_well_formed_and_needs_nothing_from_outside() -> None:
    found = outline(page())
    assert all(reference.startswith("#") for reference in found.references)
    assert {"script", "link", "img", "iframe"}.isdisjoint(found.tags)
    assert "@import" not in page()
    assert "url(" not in page()


def test_page_escapes_text_but_not_figures() -> None:
    text = page()
    for piece in (
        "Title &amp; &lt;more&gt;",
        "text &lt;i&gt;",
        "a &lt;b&gt;",
        "mind &lt;this&gt;",
        "sub &lt;title&gt;",
    ):
        assert piece in text
    assert "<svg><g></g></svg>" in text


def test_page_links_lead_to_sections_that_exist() -> None:
    found = outline(page())
    assert [reference.removeprefix("#") for reference in found.references] == found.ids
    assert len(set(found.ids)) == 3


def test_page_follows_the_theme_and_the_width_of_the_reader() -> None:
    text = page()
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    light, dark = (
        set(re.findall(r"(--[a-z0-9-]+):", block))
        for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    )
    assert light == dark


def test_equal_sections_give_equal_bytes() -> None:
    assert page() == page()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (True, "yes"),
        (1_234_567, "1,234,567"),
        (0.000123456789, "0.000123457"),
        (12345.678, "12,345.7"),
        (-2_500_000.4, "-2,500,000"),
        ("x", "x"),
    ],
)
def test_cell_is_printed_as_documented(value: str | int | float | None, text: str) -> None:
    assert format_cell(value) == text


def test_columns_of_numbers_are_aligned_to_the_right() -> None:
    table = Table(["a", "b", "c"], [["-1 … 2", "+3.5 %", 1.0], ["x", "–", None]])
    assert column_alignments(table) == ["text", "number", "number"]
    assert column_alignments(Table(["a"], [])) == ["text"]


def test_report_is_written_whole(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", "T", [Section("S")])
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_caption_stands_above_its_table() -> None:
    """Below one of a hundred rows nobody learns what it lists."""
    text = page()
    assert text.index("What &lt;it&gt; is.") < text.index("<table>")


def test_table_without_rows_says_none() -> None:
    """A header alone looks like a page that broke off."""
    text = render("T", [Section("S", tables=[Table(["a", "b"], [])])])
    assert '<td class="text" colspan="2">none</td>' in text
