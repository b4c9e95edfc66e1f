"""Would a session run here, and what has to be mended? Checks of machine, exchange, model and directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuscalp.doctor.check import Check, Diagnosis

if TYPE_CHECKING:
    from gpuscalp.doctor.diagnosis import diagnose, examine

__all__ = ["Check", "Diagnosis", "diagnose", "examine"]


def __getattr__(name: str) -> Any:
    """Import all checks when they are wanted: who looks for a GPU waits for none of their libraries."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gpuscalp.doctor import diagnosis

    return getattr(diagnosis, name)
