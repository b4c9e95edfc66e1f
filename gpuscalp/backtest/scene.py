"""What every session on the same recording and model shares: where its rows lie, and its input on disk.

Owns: making sessions, and the form in which one session's input is kept for others in other processes.
Never: predicts; that is what is kept.

Features and predictions do not depend on how the exchange is played. So a band of assumptions computes them
once, in the session of the run itself; the sessions of its cells read ticks, frames and predictions from
files that are numbered in the order in which the first session was given them. What a tape has seen when a
chunk of frames is traded is then the same as well, and so is every bit of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np

from gpuscalp.archive import Archive, BookSeries
from gpuscalp.backtest.moments import Likeness
from gpuscalp.backtest.session import Keep, Prediction, Session
from gpuscalp.config import BacktestConfig, GridConfig
from gpuscalp.schema import FrameBlock, Instrument, Ticks
from gpuscalp.trader import Trader

_FRAMES: Final = tuple(FrameBlock.__slots__)
_PREDICTION: Final = tuple(Prediction.__slots__)


@final
@dataclass(frozen=True, slots=True)
class Scene:
    """All that a session is made of beside its configuration; can be sent to another process.

    Attributes
    ----------
    archive_path, venue, symbols : the recording
    instruments : S, in the order of ``symbols``
    grid : frame length and lateness of the model
    horizon_ms, trained_until_ns : of the model
    """

    archive_path: Path
    venue: str
    symbols: tuple[str, ...]
    instruments: tuple[Instrument, ...]
    grid: GridConfig
    horizon_ms: int
    trained_until_ns: int

    def session(
        self, config: BacktestConfig, *, keep: Keep | None = None, like: Likeness | None = None
    ) -> Session:
        """Return a session that has not begun."""
        trader = Trader(
            config, self.instruments, horizon_ms=self.horizon_ms, trained_until_ns=self.trained_until_ns
        )
        recording = _ArchiveRecording(Archive.open(self.archive_path), self.venue, self.symbols)
        return Session(trader, recording, config=config, grid=self.grid, keep=keep, like=like)


@final
@dataclass(frozen=True, slots=True)
class _ArchiveRecording:
    """The archive as a session sees it: symbols by index."""

    archive: Archive
    venue: str
    symbols: tuple[str, ...]

    def books(self, symbol_index: int, start_ns: int, end_ns: int) -> BookSeries:
        return self.archive.books(self.venue, self.symbols[symbol_index], start_ns=start_ns, end_ns=end_ns)


@final
class Kept:
    """The input of a session in a folder: about 64 bytes for each tick.

    Parameters
    ----------
    folder : must exist
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def add_ticks(self, ticks: Ticks) -> None:
        np.save(self._next("ticks.npy"), ticks)

    def add_frames(self, frames: FrameBlock, prediction: Prediction) -> None:
        parts = {name: getattr(frames, name) for name in _FRAMES}
        parts |= {name: getattr(prediction, name) for name in _PREDICTION}
        np.savez(self._next("frames.npz"), **parts)

    def _next(self, name: str) -> Path:
        self._count += 1
        return self._folder / f"{self._count:08d}.{name}"


def play_kept(folder: Path, session: Session) -> None:
    """Let a session live through what another one was given."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".npy":
            session.venue.tape.add(np.load(path, mmap_mode="r"))
        else:
            with np.load(path) as parts:
                frames = FrameBlock(*(parts[name] for name in _FRAMES))
                session.trade(frames, Prediction(*(parts[name] for name in _PREDICTION)))
    session.finish()
