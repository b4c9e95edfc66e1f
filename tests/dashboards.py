"""The dashboards as they are shipped, read as plain JSON: panels, queries, variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent.parent / "configs" / "grafana" / "dashboards"
FILES = sorted(FOLDER.glob("*.json"))

# Words of PromQL that look like names of metrics or labels.
_FUNCTIONS = re.compile(r"\b[a-z_]+\s*(?=\()")
_GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"\b([A-Za-z_:][\w:]*)\{([^}]*)\}")


class Query(NamedTuple):
    board: str
    panel: str
    expression: str
    legend: str

    @property
    def where(self) -> str:
        return f"{self.board}: {self.panel}: {self.expression}"


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels that show something; rows do not."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", ())
        else:
            yield panel


def queries() -> list[Query]:
    return [
        Query(
            path.stem,
            panel["title"],
            target["expr"],
            target.get("legendFormat", ""),
        )
        for path in FILES
        for panel in panels(read(path))
        for target in panel["targets"]
    ]


def selectors(expression: str) -> dict[str, set[str]]:
    """Return the metrics of an expression, and the labels that it chooses them by."""
    found: dict[str, set[str]] = {}
    for name, inside in _SELECTOR.findall(expression):
        found.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside))
    return found


def grouped(expression: str) -> set[str]:
    """Return the labels that an expression groups by."""
    return {word for words in _GROUPING.findall(expression) for word in re.findall(r"\w+", words)}


def legend_labels(legend: str) -> set[str]:
    return set(re.findall(r"\{\{\s*(\w+)\s*\}\}", legend))


def bare_names(expression: str) -> set[str]:
    """Return names of metrics that stand without a selector: each of them would show all sessions at once."""
    rest = _SELECTOR.sub(" ", _GROUPING.sub(" ", re.sub(r'"[^"]*"', " ", expression)))
    rest = _FUNCTIONS.sub(" ", re.sub(r"\[[^\]]*\]", " ", rest))
    return set(re.findall(r"\b[A-Za-z_][\w]*\b", rest)) - {"by", "on", "or", "and", "unless", "e6"}


def filled(expression: str) -> str:
    """Return an expression with the variables that Grafana fills in; all sessions, all symbols."""
    for name, value in (("$__rate_interval", "30s"), ("$instance", ".*"), ("$symbol", ".*")):
        expression = expression.replace(name, value)
    return expression
