"""How work tells how far it is: the form of ``gpuscalp.cli.output.progress``."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how far something is."""

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say that ``done`` of ``total`` units are done; ``total`` None keeps the last one."""


def silent(done: float, total: float | None = None, note: str = "") -> None:
    """Tell nobody."""
