"""The state of a session beside its journal: when it is written, and what must not wait for it.

Owns: the order «journal first, then checkpoint». Never: ends a session: from its journal alone a start goes
on too, only later; and a disk without room for a checkpoint soon has none for the journal, which does end it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import final

from gpuscalp.live import heap
from gpuscalp.live.background import Background
from gpuscalp.live.onlookers import Onlookers
from gpuscalp.live.session import Session


@final
class Saving:
    """Writes the checkpoints of one session.

    Parameters
    ----------
    onlookers : told of checkpoints that cannot be written
    background : where they are written
    guarded : does something that must succeed for the session to go on

    Attributes
    ----------
    owed : a checkpoint is due; to be set
    """

    def __init__(
        self,
        session: Session,
        onlookers: Onlookers,
        background: Background,
        *,
        guarded: Callable[[Callable[[], None]], None],
    ) -> None:
        self.owed = False
        self._session, self._onlookers = session, onlookers
        self._background, self._guarded = background, guarded
        self._settled = False

    def save(self) -> None:
        """Write the state as it is now; call it while the engine is at rest.

        Not before the last one is on the disk: each that waits is a whole state in memory.
        """
        if self._background.age_ns("checkpoint"):
            return
        self.owed = False
        if not self._settled:
            self._settled = True  # once more: by now the books are there
            heap.settle()
        self._session.flush()
        self._onlookers.run("checkpoint", self._pack)

    def save_last(self) -> None:
        """The same at the end, when everybody waits for it. The journal is on the disk."""
        self._onlookers.run("checkpoint", self._write_last)

    def _pack(self) -> None:
        session, loop = self._session, asyncio.get_running_loop()
        content, seq = session.checkpoint()
        pending = session.journal.pending_sync()

        def keep() -> None:
            name, digest = session.checkpoints.write(content, seq)
            note = partial(session.note_checkpoint, name, digest, time.time_ns())
            loop.call_soon_threadsafe(self._guarded, note)

        def write() -> None:
            # The journal first: a checkpoint that is ahead of it would be worth nothing.
            session.journal.settle(*pending)
            self._onlookers.run("checkpoint", keep)
            self._onlookers.run("database", session.store.tidy)

        self._background.do("checkpoint", write)

    def _write_last(self) -> None:
        session = self._session
        content, seq = session.checkpoint()
        name, digest = session.checkpoints.write(content, seq)
        session.note_checkpoint(name, digest, time.time_ns())
