"""SVG figures: themed, reproducible, and free of clashes when two stand in one page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

from gpuscalp.report.figures import SERIES, SOFT, draw


def paint(figure: Any) -> None:
    axes = figure.subplots()
    axes.plot([0, 1, 2], [1.0, 3.0, 2.0], color=SERIES[0], label="a < b")
    axes.bar([0, 1], [1, 2], color=SERIES[5])
    axes.axhline(0, color=SOFT)
    axes.legend()


def picture(name: str) -> str:
    return draw(paint, name=name, alt='shows "a" & b')


def test_figure_is_xml_without_a_fixed_width() -> None:
    root = ET.fromstring(picture("one"))
    assert root.tag.endswith("svg")
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib
    assert root.attrib["aria-label"] == 'shows "a" & b'


def test_figure_takes_its_colours_from_the_page() -> None:
    text = picture("one")
    assert "#0102" not in text
    assert "var(--series-0)" in text
    assert "var(--series-5)" in text
    assert set(re.findall(r"(?:fill|stroke): ?(#[0-9a-f]+)", text)) == set()


def test_figure_text_stays_text() -> None:
    assert "a &lt; b" in picture("one")


def test_equal_figures_are_equal_bytes() -> None:
    assert picture("one") == picture("one")


def test_two_figures_share_no_id() -> None:
    one, two = (set(re.findall(r'\bid="([^"]+)"', picture(name))) for name in ("one", "two"))
    assert one
    assert one.isdisjoint(two)


def test_every_reference_inside_a_figure_resolves() -> None:
    text = picture("one")
    ids = set(re.findall(r'\bid="([^"]+)"', text))
    used = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    assert used <= ids
