"""Text of others is shown as it is, and no character of it is obeyed."""

from __future__ import annotations

import pytest

from gpuscalp.terminal import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("a − b, 漢字", "a − b, 漢字"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J", r"\x9b2J"),  # the same in one character
        ("a\rb\nc\td", r"a\rb\nc\td"),
        ("\u202eevil", r"\u202eevil"),  # from right to left
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_characters_that_are_named_stay() -> None:
    assert visible("a\nb\tc\x1b", but="\n\t") == "a\nb\tc\\x1b"
