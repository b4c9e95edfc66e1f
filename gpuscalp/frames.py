"""Ticks of many symbols to closed frames on one grid, in any batching, with the same bits.

Owns: the watermark, the pending ticks, the per-symbol frame state. Never: reads a clock (a CLOCK tick says
the time) or computes a window.

Order of calls: ``Grid.push`` each batch in arrival order, then ``Framer.fold`` each ClosedFrames it returns,
in the order returned; call ``Framer.restart`` before a ClosedFrames whose ``restart`` is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from gpuscalp.config import GridConfig
from gpuscalp.errors import ShapeError
from gpuscalp.ops import grid as grid_ops
from gpuscalp.ops.by_device import Ops, Upload, ops_for
from gpuscalp.ops.packed import Field
from gpuscalp.schema import I64, NS_PER_MS, TICK, Channel, FrameBlock, Instrument, Ticks


@dataclass(frozen=True, slots=True)
class ClosedFrames:
    """T consecutive frames that have closed, with their ticks.

    Attributes
    ----------
    end_ns : int64[T]
    ticks : TICK[N]             ordered by (frame, symbol), arrival order within
    offsets : int64[T * S + 1]  ticks of frame t and symbol s start at offsets[t * S + s]
    restart : bool              the frames before are not adjacent: everything starts cold
    """

    end_ns: I64
    ticks: Ticks
    offsets: I64
    restart: bool


@final
class Grid:
    """Assigns ticks to frames and closes frames by the watermark.

    A frame closes when the largest exchange time seen, less ``lateness_ms``, reaches its end. A tick for a
    closed frame is counted and sets LATE on its symbol in the open frame: a trade is dropped, a quote or a
    book holds from then on. A silence longer than ``max_gap_ms`` ends the run: what is pending is closed and
    the next frame starts cold.

    Parameters
    ----------
    config : GridConfig
    symbol_count : int
    block_frames : int    about how many frames to return at once (more when one tick closes many)
    """

    def __init__(self, config: GridConfig, symbol_count: int, *, block_frames: int = 4096) -> None:
        self._frame_ns = config.frame_ms * NS_PER_MS
        self._lateness_ns = config.lateness_ms * NS_PER_MS
        self._max_gap_ns = config.max_gap_ms * NS_PER_MS
        self._symbol_count = symbol_count
        self._block_frames = block_frames
        # Taking copies: of a long batch that closes many small blocks only a part is taken at a time.
        self._take_count = 1024 * min(block_frames, 64)
        self._state = grid_ops.new_state()
        # One memory, seen as words where ticks are moved and as fields where they are read.
        self._words = np.zeros((1024, 8), np.int64)
        self._ticks: Ticks = self._words.reshape(-1).view(TICK)
        self._frames = np.zeros(1024, np.int64)
        self._pending = 0
        self._restart = False

    @property
    def late_count(self) -> int:
        """Ticks so far whose frame had closed; the trades among them were dropped."""
        return int(self._state[grid_ops.LATE_COUNT])

    @property
    def trade_counts(self) -> tuple[int, int]:
        """Trades so far, and those of them that were dropped."""
        return int(self._state[grid_ops.TRADE_COUNT]), int(self._state[grid_ops.LATE_TRADE_COUNT])

    def push(self, ticks: Ticks) -> list[ClosedFrames]:
        """Take ticks in arrival order and return the frames that they closed.

        Raises
        ------
        ShapeError    the array is not TICK[N], or a symbol index is out of range
        """
        if ticks.dtype != TICK or ticks.ndim != 1:
            raise ShapeError("ticks must be a TICK[N] array", value=f"{ticks.dtype}{ticks.shape}")
        self._check_symbols(ticks)
        closed: list[ClosedFrames] = []
        at = 0
        while at < len(ticks):
            taken, gap = self._take(ticks[at : at + self._take_count])
            at += taken
            if gap:
                self._close_all(closed)
            else:
                self._close(closed)
        return closed

    def checkpoint(self) -> dict[str, np.ndarray]:
        """Return all that ``restore`` needs, as plain arrays."""
        return {
            "state": self._state.copy(),
            "ticks": self._ticks[: self._pending].copy(),
            "frames": self._frames[: self._pending].copy(),
            "restart": np.array([self._restart]),
        }

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Continue from a checkpoint as if there had been no break.

        Raises
        ------
        ShapeError    what is pending cannot be: its symbols or frames would lead out of the arrays
        """
        state, ticks, frames = saved["state"], saved["ticks"], saved["frames"]
        self._check_pending(state, ticks, frames)
        self._state[:] = state
        self._pending = 0  # nothing to carry over while making room
        self._reserve(len(ticks))
        self._pending = len(ticks)
        self._words[: self._pending] = _words(ticks)
        self._frames[: self._pending] = frames
        self._restart = bool(saved["restart"][0])

    def _check_pending(self, state: I64, ticks: Ticks, frames: I64) -> None:
        formed = state.shape == self._state.shape and ticks.dtype == TICK and ticks.shape == frames.shape
        if formed and ticks.ndim == 1:
            open_frame, watermark = int(state[grid_ops.OPEN_FRAME]), int(state[grid_ops.WATERMARK])
            due = frames != grid_ops.UNSET  # a CLOCK tick has neither frame nor symbol
            known = (ticks["symbol"] >= 0) & (ticks["symbol"] < self._symbol_count)
            begun = open_frame == watermark // self._frame_ns
            if (begun or (open_frame == grid_ops.UNSET and not due.any())) and not (
                due & ~(known & (frames >= open_frame))
            ).any():
                return
        raise ShapeError("a checkpoint whose pending ticks cannot be", fix="start cold, or as it was made")

    def _check_symbols(self, ticks: Ticks) -> None:
        symbols = ticks["symbol"]
        index = grid_ops.first_wrong_symbol(ticks, self._symbol_count)
        if index >= 0:
            raise ShapeError(
                "symbol index out of range",
                where=f"tick {index}",
                value=int(symbols[index]),
                fix=f"use 0 to {self._symbol_count - 1}",
            )

    def _reserve(self, size: int) -> None:
        if size > len(self._ticks):
            capacity = 1 << (size - 1).bit_length()
            words, frames = np.zeros((capacity, 8), np.int64), np.zeros(capacity, np.int64)
            words[: self._pending] = self._words[: self._pending]
            frames[: self._pending] = self._frames[: self._pending]
            self._words, self._ticks, self._frames = words, words.reshape(-1).view(TICK), frames

    def _take(self, ticks: Ticks) -> tuple[int, bool]:
        start = self._pending
        self._reserve(start + len(ticks))
        own = self._ticks[start : start + len(ticks)]
        self._words[start : start + len(ticks)] = _words(ticks)
        self._first = int(self._state[grid_ops.OPEN_FRAME])
        taken, gap = grid_ops.assign(
            own,
            self._frame_ns,
            self._lateness_ns,
            self._max_gap_ns,
            self._state,
            self._frames[start : start + len(ticks)],
            self._block_frames,
        )
        if self._first == grid_ops.UNSET and taken:
            # The run starts with the first tick's own frame: nothing can be known of the frames before it.
            self._first = (int(ticks["exch_ns"][0]) - self._lateness_ns) // self._frame_ns
        self._pending = start + taken
        return taken, gap

    def _close(self, closed: list[ClosedFrames]) -> None:
        count = int(self._state[grid_ops.OPEN_FRAME]) - self._first
        if count == 0:
            return
        offsets = np.empty(count * self._symbol_count + 1, np.int64)
        ordered = np.empty((self._pending, 8), np.int64)
        self._pending = grid_ops.order(
            self._ticks[: self._pending],
            self._frames[: self._pending],
            self._first,
            count,
            self._symbol_count,
            offsets,
            self._words,
            ordered,
        )
        end_ns = (self._first + 1 + np.arange(count, dtype=np.int64)) * self._frame_ns
        ticks = ordered.reshape(-1).view(TICK)[: offsets[-1]]
        closed.append(ClosedFrames(end_ns, ticks, offsets, self._restart))
        self._restart = False

    def _close_all(self, closed: list[ClosedFrames]) -> None:
        """Close every frame up to the newest tick, and start a new run."""
        newest_ns = int(self._state[grid_ops.WATERMARK]) + self._lateness_ns
        self._state[grid_ops.OPEN_FRAME] = newest_ns // self._frame_ns + 1
        self._close(closed)
        self._state[grid_ops.OPEN_FRAME] = grid_ops.UNSET
        self._restart = True


def _words(ticks: Ticks) -> I64:
    """Return ticks as int64[N, 8]: NumPy copies words as memory, but a structure field by field."""
    return np.ascontiguousarray(ticks).view(np.int64).reshape(-1, 8)


def block_layout(frame_count: int, symbol_count: int) -> tuple[Field, ...]:
    """Return shape and type of the arrays of a FrameBlock, in its order."""
    row = (frame_count, symbol_count)
    return (
        Field((frame_count,), np.int64),
        Field((frame_count, len(Channel), symbol_count), np.float32),
        Field(row, np.uint32),
        Field(row, np.int32),
        Field(row, np.int32),
        Field(row, np.float64),
    )


@final
class Framer:
    """Folds closed frames into channels, carrying each symbol's last quote, book and mark.

    Parameters
    ----------
    config : GridConfig
    instruments : one per symbol, in the order of axis S
    warm_up_frames : int   WARM_UP is set until this many frames have closed since a symbol's first quote
    ops : Ops              of the device that the blocks lie on; None: the CPU's
    upload : how ticks get there; None: as ``ops`` does it
    """

    def __init__(
        self,
        config: GridConfig,
        instruments: Sequence[Instrument],
        *,
        warm_up_frames: int,
        ops: Ops | None = None,
        upload: Upload | None = None,
    ) -> None:
        self._ops = ops_for("cpu") if ops is None else ops
        self._upload = self._ops.upload if upload is None else upload
        self._stale_ns = config.stale_ms * NS_PER_MS
        self._warm_up_frames = warm_up_frames
        tick_size = np.array([instrument.tick_size for instrument in instruments], np.float64)
        self._tick_size = self._ops.to_device(tick_size)
        self._state = self._ops.frames.FrameState.empty(len(instruments))
        # Where the state is: a restart copies nothing from the host.
        self._empty = self._ops.frames.FrameState.empty(len(instruments))

    def restart(self) -> None:
        """Forget everything: the next frame is not adjacent to the last."""
        self._state.integers[:] = self._empty.integers
        self._state.reals[:] = self._empty.reals

    def fold(self, closed: ClosedFrames) -> FrameBlock:
        """Return the channels of closed frames, in memory of their own."""
        layout = block_layout(len(closed.end_ns), len(self._tick_size))
        block = FrameBlock(*(self._ops.xp.empty(field.shape, field.dtype) for field in layout))
        ticks, offsets, end_ns = self._upload(closed.ticks, closed.offsets, closed.end_ns)
        block.end_ns[:] = end_ns
        self.fold_there(ticks, offsets, end_ns, block)
        return block

    def fold_there(self, ticks: Any, offsets: Any, end_ns: Any, block: FrameBlock) -> None:
        """Fold frames that lie on the device already into ``block``, all but its ``end_ns``."""
        self._ops.frames.fold(
            ticks,
            offsets,
            end_ns,
            self._tick_size,
            self._stale_ns,
            self._warm_up_frames,
            self._state,
            block.channels,
            block.quality,
            block.bid_px,
            block.ask_px,
            block.mark,
        )

    def checkpoint(self) -> dict[str, np.ndarray]:
        """Return the state as NumPy arrays, the same for every device."""
        state = self._state._asdict()
        return {name: np.array(self._ops.to_host(array)) for name, array in state.items()}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Continue from a checkpoint, whichever device it was made on."""
        self._state.integers[:] = self._ops.to_device(saved["integers"])
        self._state.reals[:] = self._ops.to_device(saved["reals"])


def frame_blocks(
    tick_batches: Iterable[Ticks], config: GridConfig, instruments: Sequence[Instrument]
) -> Iterator[FrameBlock]:
    """Yield the frames of ticks in arrival order, on the CPU; those still open at the end are not emitted.

    No features are computed of them, so WARM_UP is set until a symbol's first quote and no longer.
    """
    grid, framer = Grid(config, len(instruments)), Framer(config, instruments, warm_up_frames=1)
    for ticks in tick_batches:
        for closed in grid.push(ticks):
            if closed.restart:
                framer.restart()
            yield framer.fold(closed)


def blocks_within(blocks: Iterable[FrameBlock], begin_ns: int, finish_ns: int) -> Iterator[FrameBlock]:
    """Cut blocks to the frames that end in (begin, finish]; none is empty."""
    for block in blocks:
        first, last = np.searchsorted(block.end_ns, (begin_ns, finish_ns), side="right").tolist()
        if first < last:
            yield block.part(first, last)
