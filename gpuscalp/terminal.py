"""What a terminal is shown of the text of others: every character to be read, none to be obeyed.

Text that comes out of a file, an exchange or an operator's hand may hold escape sequences, which move the
cursor, hide lines or write into the clipboard.
"""

from __future__ import annotations


def visible(text: str, *, but: str = "") -> str:
    """Escape what a terminal would obey; characters of ``but`` stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in but else ascii(char)[1:-1] for char in text)
