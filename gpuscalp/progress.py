"""How work tells how far it is: the form of ``gpuscalp.cli.output.progress``."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how far something is."""

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say that ``done`` of ``total`` units are done; ``total`` None keeps the last one."""


def silent(done: float, total: float | None = None, note: str = "") -> None:
    """Tell nobody."""


def stretch(told: Progress, name: str, *, begin: float, length: float, of: float) -> Progress:
    """Return what is told how far a part of some work is, and tells it as a stretch of the whole bar.

    Parameters
    ----------
    told : how far all of it is
    name : stands before each note of the part
    begin, length, of : where the stretch begins, and how long it and the bar are
    """
    whole = 0.0

    def advance(done: float, total: float | None = None, note: str = "") -> None:
        nonlocal whole
        whole = whole if total is None else total
        share = min(done / whole, 1.0) if whole else 0.0
        told(begin + share * length, of, f"{name}: {note}" if note else name)

    return advance
