"""Which processors the engine's thread runs on while a model is trained beside it.

Owns: the choice, and that it is taken back. A retraining gives its processor up at once (``SCHED_IDLE``,
gpuscalp.retrain.caps), but Linux places a thread that wakes up by how busy a processor is, not by what with.
On two of them the engine, the loop that decodes and whatever else trades would all crowd the other one, and
wait for each other. So the engine's thread takes the retraining's: there nobody else wants to be.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from gpuscalp.retrain.folder import FOLDER, busy_cores

# The engine and the loop.
_WANTED: Final = 2


@final
class Placement:
    """Places the engine's thread.

    Parameters
    ----------
    session : its directory
    engine : its one thread
    """

    def __init__(self, session: Path, engine: Executor) -> None:
        self._folder, self._busy = session / FOLDER, frozenset[int]()
        self._thread = engine.submit(threading.get_native_id).result()

    def poll(self) -> None:
        """Look whether the session trains a model. Call it now and then."""
        busy = busy_cores(self._folder)
        if busy == self._busy:
            return
        self._busy = busy
        everywhere = os.sched_getaffinity(0)
        crowded = len(everywhere - busy) < _WANTED
        with suppress(OSError):  # a container may forbid it
            os.sched_setaffinity(self._thread, (crowded and everywhere & busy) or everywhere)
