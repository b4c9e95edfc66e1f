"""Would a session run here, and what has to be mended? Checks of machine, exchange, model and directory."""

from __future__ import annotations

from gpuscalp.doctor.check import Check, Diagnosis
from gpuscalp.doctor.diagnosis import diagnose, examine

__all__ = ["Check", "Diagnosis", "diagnose", "examine"]
