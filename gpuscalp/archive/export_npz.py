"""A ``.npz`` with one array that is longer than memory.

Owns: the file, written aside and put in place whole, and the account of the events in it. The bytes depend on
the events alone.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from gpuscalp.files import sync_folder
from gpuscalp.ops import fused_book as fused

# Of zlib. On the recordings level 6 saves a further sixth and takes three times as long.
_LEVEL: Final = 1
_COPY_BYTES: Final = 1 << 20
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold

KINDS: Final = (
    "clear",
    "snapshot",
    "depth_set",
    "depth_deleted",
    "depth_left_window",
    "trade_buy",
    "trade_sell",
)
CLOCKS: Final = ("both", "exchange_only", "local_only")


class EventFile:
    """Collect events, then write them as the array ``data`` of a ``.npz``.

    Parameters
    ----------
    path : final name; what is there is replaced

    Attributes
    ----------
    count : events so far
    kinds : the same by clock (``exchange``, ``local``) and kind; an event for both clocks counts in both
    clocks : the same by the clocks that they are for
    first_ns, last_ns : int, by field ``exch_ts`` and ``local_ts``; of the events of that clock
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.kinds: dict[str, Counter[str]] = {"exchange": Counter(), "local": Counter()}
        self.clocks: Counter[str] = Counter()
        self.first_ns: dict[str, int] = {}
        self.last_ns: dict[str, int] = {}
        # The header of the array tells its length, and a compressed stream cannot be gone back in.
        self._plain_path = path.with_name(f"{path.name}.events.tmp")
        self._plain = self._plain_path.open("wb")

    def add(self, events: fused.Events) -> None:
        """Take events, in the order of the file."""
        self._plain.write(events.tobytes())
        self.count += len(events)
        ev = events["ev"]
        here = (ev & np.uint64(fused.AT_LOCAL)) != 0
        there = (ev & np.uint64(fused.AT_EXCHANGE)) != 0
        kinds = _kinds_of(events)
        for clock, which in (("exchange", there), ("local", here)):
            counts = np.bincount(kinds[which], minlength=len(KINDS))
            self.kinds[clock].update(dict(zip(KINDS, counts.tolist(), strict=True)))
        for name, which in zip(CLOCKS, (here & there, there & ~here, here & ~there), strict=True):
            self.clocks[name] += int(np.count_nonzero(which))
        for name, which in (("exch_ts", there), ("local_ts", here)):
            times = events[name][which]
            if len(times):
                self.first_ns.setdefault(name, int(times[0]))
                self.last_ns[name] = int(times[-1])

    def finish(self) -> int:
        """Put the file in place and return its size in bytes."""
        self._plain.close()
        temporary = self.path.with_name(f"{self.path.name}.tmp")
        try:
            with temporary.open("wb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
                    self._write_array(archive)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
            self._plain_path.unlink(missing_ok=True)
        sync_folder(self.path.parent)
        return self.path.stat().st_size

    def discard(self) -> None:
        """Leave no trace."""
        self._plain.close()
        self._plain_path.unlink(missing_ok=True)

    def _write_array(self, archive: zipfile.ZipFile) -> None:
        header = io.BytesIO()
        description = np.lib.format.header_data_from_array_1_0(np.empty(0, fused.EVENT))
        np.lib.format.write_array_header_1_0(header, description | {"shape": (self.count,)})
        entry = zipfile.ZipInfo("data.npy", date_time=_EPOCH)
        entry.compress_type = zipfile.ZIP_DEFLATED
        with (
            self._plain_path.open("rb") as plain,
            archive.open(entry, "w", force_zip64=True) as member,
        ):
            member.write(header.getvalue())
            while block := plain.read(_COPY_BYTES):
                member.write(block)


def _kinds_of(events: fused.Events) -> npt.NDArray[np.intp]:
    """Return the index in ``KINDS`` of every event."""
    ev, gone = events["ev"], events["qty"] == 0
    code = (ev & np.uint64(fused.KIND_MASK)).astype(np.int64)
    buys = (ev & np.uint64(fused.BUY)) != 0
    left = events["ival"] == fused.LEFT_WINDOW
    depth = np.where(gone, np.where(left, 4, 3), 2)
    trade = np.where(buys, 5, 6)
    which = (code == fused.DEPTH_CLEAR, code == fused.DEPTH_SNAPSHOT, code == fused.DEPTH)
    return np.select(which, (0, 1, depth), trade)
