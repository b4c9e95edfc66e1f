"""The links of the pages, and of what refers to a page, lead to a file and to a heading of it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_project import ROOT, _name, _text_files


def test_links_between_documents_lead_somewhere():
    broken = []
    for path in (path for path in _text_files() if path.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{_name(path)}: {target}")
    assert not broken, "\n".join(broken)


def _anchors(path: Path) -> set[str]:
    """Return what a link can name in a page: its headings, as GitHub writes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_into_documents_lead_to_a_heading():
    """A comment sent its reader to a section that had moved to another page."""
    broken = []
    for path in _text_files():
        if path.suffix not in (".md", ".py", ".toml", ".yaml", ".yml", ".service"):
            continue
        text = path.read_text(encoding="utf-8")
        found = [(ROOT / page, name) for page, name in re.findall(r"(docs/\w+\.md)#([a-z][\w-]*)", text)]
        if path.suffix == ".md":
            links = re.findall(r"\]\(([\w./]*)#([\w-]+)\)", text)
            found = [(path.parent / page if page else path, name) for page, name in links]
        broken += [f"{_name(path)}: {page.name}#{name}" for page, name in found if name not in _anchors(page)]
    assert not broken, "\n".join(broken)
