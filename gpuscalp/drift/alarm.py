"""When drift is more than chance: whole blocks of rows, held against blocks of the training itself.

Owns: the figure of a block, the rank that it has among others, and the evidence that such ranks add up to.
Never: says how large a drift is (gpuscalp.drift, gpuscalp.drift.adversarial).

The population stability index of a few minutes is never zero: neighbouring rows resemble each other, and how
much they do nobody knows beforehand. So a block of live rows is not held against a threshold, but against
blocks of the same length of the training, each of them against all others. A block's figure is the largest
excess over the feature groups, so that many groups are not many chances. Its rank among all blocks, of the
training and live ones so far, gives a p-value; while live blocks are exchangeable with those of the training
these are independent and uniform (Vovk, Gammerman and Shafer 2005, ch. 8); after a training of twenty blocks
they are a little too large. Each p-value is turned into an
e-value, and a Shiryaev-Roberts sum of products of them raises the flag at ``BLOCKS_BETWEEN_ALARMS``: without
drift, the mean number of blocks until the first flag is at least that (Shin, Ramdas and Rinaldo 2022,
"E-detectors"). While the flag is up no block is remembered.

Blocks of a real market are not exchangeable: nights and days differ. There the promise is only as good as the
training has seen all that is ordinary.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from gpuscalp.drift.stability import BINS, bin_counts, group_columns, psi
from gpuscalp.errors import ModelError
from gpuscalp.schema import F32, F64, I64

BLOCKS_BETWEEN_ALARMS: Final = 5_000
# A block is so many times as long as the longest window: neighbouring blocks must not be much alike.
WINDOWS_PER_BLOCK: Final = 4
# With fewer blocks even the most extreme rank says nothing.
BLOCKS_MIN: Final = 20
# Live blocks that are remembered beside those of the training; the oldest make room.
LIVE_BLOCKS_MAX: Final = 4_096
# Beyond the threshold by no more than this: when drift has gone, the flag has to go as well.
_EVIDENCE_MAX: Final = 10.0 * BLOCKS_BETWEEN_ALARMS
_LEAST_PSI: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Floor:
    """How much blocks of the training differ from the rest of it.

    Attributes
    ----------
    block_ns : length of a block, on the grid of time
    rows : the fewest that a live block needs to be like one of the training
    shares : float64[F, BINS]   of all blocks together
    psi : float64[B, G]         mean PSI of each group in each block, against the other blocks
    """

    block_ns: int
    rows: int
    shares: F64
    psi: F64

    @classmethod
    def of(cls, counts: I64, names: Sequence[str], *, block_ns: int) -> Floor | None:
        """Return that of some blocks; None if they are too few.

        Parameters
        ----------
        counts : int64[B, F, BINS]   rows of each block in each bin
        names : of the columns
        block_ns : their length
        """
        rows = counts[:, 0].sum(axis=1)
        # What lies at a hole of the recording is no whole block.
        counts = counts[rows >= np.median(rows) / 2] if len(rows) else counts
        if len(counts) < BLOCKS_MIN:
            return None
        rows = counts[:, 0].sum(axis=1)
        shares = counts / rows[:, None, None]
        total = shares.sum(axis=0)
        columns = group_columns(names).values()
        others = [(total - own) / (len(shares) - 1) for own in shares]
        by_column = [psi(rest, own) for rest, own in zip(others, shares, strict=True)]
        found = np.array([[each[own].mean() for own in columns] for each in by_column])
        return cls(block_ns, int(rows.min()), total / len(shares), found)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what ``from_arrays`` makes an equal one of."""
        return {
            "blocks": np.array([self.block_ns, self.rows], np.int64),
            "shares": self.shares,
            "psi": self.psi,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Floor:
        """Make one of the arrays of another.

        Raises
        ------
        ModelError    one is missing, or they are not of these columns
        """
        try:
            blocks, shares, found = (arrays[name] for name in ("blocks", "shares", "psi"))
        except KeyError as error:
            raise ModelError("a part of the floor is missing", where=str(error)) from None
        forms = [f"{each.dtype}{list(each.shape)}" for each in (blocks, shares, found)]
        groups = [*found.shape[:1], len(group_columns(names))]
        wanted = ["int64[2]", f"float64{[len(names), BINS]}", f"float64{groups}"]
        if forms != wanted or blocks[0] <= 0:
            raise ModelError(
                "the blocks of the training are not of these columns", where="floor", value=", ".join(forms)
            )
        return cls(int(blocks[0]), int(blocks[1]), shares, found)


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a live block said.

    Attributes
    ----------
    start_ns, rows : of the block
    psi : of the group that stands out most, mean over its columns
    group : which one that is
    p : share of blocks that stand out as much
    evidence : the sum of products; the flag is up from ``BLOCKS_BETWEEN_ALARMS`` on
    """

    start_ns: int
    rows: int
    psi: float
    group: str
    p: float
    evidence: float

    @property
    def flagged(self) -> bool:
        return self.evidence >= BLOCKS_BETWEEN_ALARMS


@final
class DriftAlarm:
    """Watches live rows block by block.

    Parameters
    ----------
    floor : of the training
    edges : float32[F, TENTHS - 1]   of the training (``gpuscalp.drift.stability.Distribution``)
    names : of the columns

    Attributes
    ----------
    last : what the newest whole block said; None before the first
    blocks, alarms, too_few : blocks that were judged, flags that went up, and blocks with too few rows
    """

    def __init__(self, floor: Floor, edges: F32, names: Sequence[str]) -> None:
        self._floor, self._edges = floor, edges
        self._columns = group_columns(names)
        logs = _logs(floor.psi)
        self._usual = _usual(logs)
        # Each by the others alone, as a live block is: none stands out as far from a mean that it is part of.
        others = (np.delete(logs, index, axis=0) for index in range(len(logs)))
        self._known = sorted(
            float(_excess(own, _usual(rest)).max()) for own, rest in zip(logs, others, strict=True)
        )
        self._live: list[float] = []
        self._counts: I64 = np.zeros((len(names), BINS), np.int64)
        self._block = -1
        self._evidence = 0.0
        self._suspect = 0  # blocks since there was no evidence
        self.last: Alarm | None = None
        self.blocks = self.alarms = self.too_few = 0

    @property
    def flagged(self) -> bool:
        return self.last is not None and self.last.flagged

    def take(self, x: F32, at_ns: int) -> None:
        """Take float32[R, F], rows that training could have used, of a time that only goes forward."""
        block = at_ns // self._floor.block_ns
        if block > self._block:
            self._close()
            self._block = block
        if len(x):
            self._counts += bin_counts(self._edges, x)

    def _close(self) -> None:
        rows = int(self._counts[0].sum())
        if rows >= self._floor.rows:
            self._judge(self._counts / rows, rows)
        else:
            self.too_few += self._block >= 0
        self._counts[:] = 0

    def _judge(self, shares: F64, rows: int) -> None:
        by_column = psi(self._floor.shares, shares)
        found = np.array([by_column[own].mean() for own in self._columns.values()])
        excess = _excess(_logs(found), self._usual)
        at = int(excess.argmax())
        value = float(excess[at])
        # The block itself is one of those that stand out as much.
        known = self._known
        p = (len(known) - bisect_left(known, value) + 1) / (len(known) + 1)
        before = self.flagged
        self._evidence = min((1.0 + self._evidence) * e_value(p), _EVIDENCE_MAX)
        group = list(self._columns)[at]
        start_ns = self._block * self._floor.block_ns
        self.last = Alarm(start_ns, rows, float(found[at]), group, p, self._evidence)
        self.blocks += 1
        self._suspect = 0 if self._evidence <= 1.0 else self._suspect + 1
        if not self.flagged:
            self._remember(value)
        elif not before:
            self.alarms += 1
            self._forget(self._suspect - 1)

    def _remember(self, value: float) -> None:
        insort(self._known, value)
        self._live.append(value)
        if len(self._live) > LIVE_BLOCKS_MAX:
            self._known.remove(self._live.pop(0))

    def _forget(self, count: int) -> None:
        """Take back the blocks that led to the flag: drift that lasts must not become what is usual."""
        for _ in range(min(count, len(self._live))):
            self._known.remove(self._live.pop())


def e_value(p: float) -> float:
    """Return ∫ ε·p^(ε−1) dε over (0, 1): evidence whose mean is 1 where ``p`` is uniform on (0, 1).

    Vovk, Gammerman and Shafer (2005), §7.1: the mixture of the power martingales.
    """
    if p >= 1.0:
        return 0.5
    log = math.log(p)
    return (1.0 - p + p * log) / (p * log * log)


def _usual(logs: F64) -> tuple[F64, F64]:
    """Return mean and standard deviation, float64[G] each, of float64[B, G]."""
    return logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-3)


def _excess(logs: F64, usual: tuple[F64, F64]) -> F64:
    """Return float64[G]: how far each group lies above what is usual, in standard deviations."""
    mean, sd = usual
    return np.asarray((logs - mean) / sd)


def _logs(found: F64) -> F64:
    return np.asarray(np.log(np.maximum(found, _LEAST_PSI)))
