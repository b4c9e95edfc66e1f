"""Counts every copy between the host and a device, by direction and size.

Owns: the counts, one ledger for the process. Never: copies (gpuscalp.ops.copies does, and records each).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np

Direction = Literal["host_to_device", "device_to_host"]
DIRECTIONS: Final[tuple[Direction, ...]] = ("host_to_device", "device_to_host")

_CLASSES: Final = 64  # sizes by powers of two: a bounded table, whatever the sizes of frames


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
        self._table = np.zeros((len(DIRECTIONS), _CLASSES, 2), np.int64)

    def record(self, direction: Direction, byte_count: int) -> None:
        """Count one copy."""
        with self._lock:
            row = self._table[DIRECTIONS.index(direction), byte_count.bit_length()]
            row[0] += 1
            row[1] += byte_count

    def total(self, direction: Direction) -> Copies:
        """Return all copies of a direction."""
        with self._lock:
            count, size = self._table[DIRECTIONS.index(direction)].sum(axis=0)
        return Copies(int(count), int(size))

    def by_size(self, direction: Direction) -> dict[int, Copies]:
        """Return the copies whose size is below each power of two, and not below the one before."""
        with self._lock:
            rows = self._table[DIRECTIONS.index(direction)].tolist()
        return {1 << index: Copies(*row) for index, row in enumerate(rows) if row[0]}


LEDGER: Final = Ledger()
