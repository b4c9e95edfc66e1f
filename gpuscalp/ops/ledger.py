"""Counts every copy between the host and a device, by direction.

Owns: the counts, one ledger for the process. Never: copies (gpuscalp.ops.copies does, and records each).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np

Direction = Literal["host_to_device", "device_to_host"]
DIRECTIONS: Final[tuple[Direction, ...]] = ("host_to_device", "device_to_host")


@dataclass(frozen=True, slots=True)
class Copies:
    """How many copies, and how many bytes in all."""

    count: int
    bytes: int


@final
class Ledger:
    """Copies so far; they only grow. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table = np.zeros((len(DIRECTIONS), 2), np.int64)

    def record(self, direction: Direction, byte_count: int) -> None:
        """Count one copy."""
        with self._lock:
            self._table[DIRECTIONS.index(direction)] += (1, byte_count)

    def total(self, direction: Direction) -> Copies:
        """Return all copies of a direction."""
        with self._lock:
            return Copies(*self._table[DIRECTIONS.index(direction)].tolist())


LEDGER: Final = Ledger()
