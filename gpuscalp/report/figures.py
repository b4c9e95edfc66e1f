"""Figures as SVG text for the report page: one style, colours that follow the page's light or dark theme.

Owns: the style and the way from a matplotlib figure to SVG text. Never: computes what is drawn.

The drawing uses stand-in colours that nobody would choose; in the finished SVG they are replaced by the CSS
variables of the page. So one picture fits both themes, and text in it stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

# Stand-ins: unlikely colours, one for each CSS variable of the page.
INK: Final = "#010203"
SOFT: Final = "#010204"
LINE: Final = "#010205"
SERIES: Final = ("#010210", "#010211", "#010212", "#010213", "#010214", "#010215")

_VARIABLES: Final = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    **{stand_in: f"var(--series-{index})" for index, stand_in in enumerate(SERIES)},
}

_STYLE: Final[dict[str, Any]] = {
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelcolor": SOFT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.labelsize": 10.5,
    "figure.facecolor": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.5,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.4,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.color": LINE,
    "ytick.labelcolor": SOFT,
}


def draw(
    paint: Callable[[Any], None], *, name: str, alt: str, height_in: float = 3.2, width_in: float = 9.0
) -> str:
    """Draw one figure and return it as SVG text that can stand inside an HTML page.

    Parameters
    ----------
    paint : called with an empty matplotlib Figure; colours from ``SERIES``, ``INK``, ``SOFT``, ``LINE``
    name : unique in the page; keeps the ids of two figures apart
    alt : what the picture shows, in one sentence, for readers who do not see it
    """
    import io

    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        # No date and no creator: the same numbers give the same bytes.
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), name=name, alt=alt)


def _inline(svg: str, *, name: str, alt: str) -> str:
    from html import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    # The page decides the width; the view box keeps the proportions.
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    head += f' role="img" aria-label="{escape(alt, quote=True)}"'
    # matplotlib numbers its groups (figure_1, axes_1 …) from 1 in every file.
    body = re.sub(r'\bid="([\w.]+_\d+)"', rf'id="{name}-\1"', body)
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, variable)
    return f"{head}>{body}"
