"""What the model saw and said when a trade was entered: the row of features, and the answer of every member.

Owns: the rows behind the entries, what is usual for a column, entries.parquet and columns.parquet.
Never: decides, or explains a model. A column far from its median need not have moved the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import msgspec
import numpy as np

from gpuscalp.backtest.ledger import Trade
from gpuscalp.contract import ColumnSpec
from gpuscalp.ensemble import Ensemble, Signals
from gpuscalp.errors import UNREADABLE
from gpuscalp.labels import CLASSES
from gpuscalp.orders import Order
from gpuscalp.schema import F32, F64, FeatureChunk

ENTRIES_FILE: Final = "entries.parquet"
COLUMNS_FILE: Final = "columns.parquet"
# Medians and quartiles of a column come from at most so many rows, spread evenly over the whole time.
_SAMPLE_ROWS_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One row at the decision to enter.

    Attributes
    ----------
    features : float32[F]
    members : float64[M, K]   calibrated like the ensemble, each member alone
    probability : float64[K]  of the ensemble
    """

    features: F32
    members: F64
    probability: F64


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual for the columns among all rows of the backtest.

    Attributes
    ----------
    median : float64[F]
    spread : float64[F]  between the quartiles; the standard deviation where these are equal; NaN where both
        say nothing
    row_count : of the sample
    """

    median: F64
    spread: F64
    row_count: int

    def distance(self, features: F32) -> F64:
        """Return float64[F]: how far values are from the median, in spreads; NaN where it is not known."""
        return np.asarray((features.astype(np.float64) - self.median) / self.spread)


@final
class Entries:
    """Collects the rows of the entries, chunk by chunk.

    The caller must name an entry order (:meth:`want`) no later than it adds the chunk with its frame.

    Parameters
    ----------
    columns : F of them, in the order of the rows
    ranks : importance of columns by name, 1 for the largest; empty where it is not known
    """

    def __init__(self, columns: Sequence[ColumnSpec], ranks: Mapping[str, int]) -> None:
        self.columns = tuple(columns)
        self.ranks = dict(ranks)
        self._rows: dict[tuple[int, int], EntryRow] = {}
        self._wanted: list[tuple[int, int]] = []
        # Every stride-th frame, counted from the first: chunks leave no trace in the sample.
        self._sample: list[F32] = []
        self._stride, self._frame_count = 1, 0
        self._usual: Usual | None = None

    def want(self, order: Order) -> None:
        """Ask for the row that an order was decided on."""
        self._wanted.append((order.symbol_index, order.decided_ns))

    def add(self, ensemble: Ensemble, chunk: FeatureChunk, signals: Sequence[Signals]) -> None:
        """Take what is wanted out of a chunk.

        Parameters
        ----------
        ensemble : has made the signals
        chunk : T frames; nothing of it is kept
        signals : of the S symbols, one row per frame
        """
        for index, decided_ns in self._wanted:
            row = int(np.searchsorted(chunk.frames.end_ns, decided_ns))
            assert chunk.frames.end_ns[row] == decided_ns, "an order is decided at the end of a frame"
            margins = signals[index].margins[:, row : row + 1]
            alone = [ensemble.combine(margins[m : m + 1]).probability[0] for m in range(len(margins))]
            self._rows[index, decided_ns] = EntryRow(
                features=chunk.features[index, :, row].copy(),
                members=np.stack(alone),
                probability=signals[index].probability[row].copy(),
            )
        self._wanted.clear()
        self._add_sample(chunk.features)

    def row(self, trade: Trade) -> EntryRow:
        """Return the row behind a trade."""
        return self._rows[trade.symbol_index, trade.entry_decided_ns]

    def usual(self) -> Usual:
        """Return what is usual so far."""
        if self._usual is None:
            rows = np.concatenate(self._sample) if self._sample else np.empty((0, len(self.columns)))
            self._usual = _usual(rows.astype(np.float64))
        return self._usual

    def strongest(self, row: EntryRow, count: int) -> list[int]:
        """Return the columns to show first: the most important ones, or else the most unusual ones."""
        names = [column.name for column in self.columns]
        return strongest([self.ranks.get(name) for name in names], self.usual().distance(row.features))[
            :count
        ]

    def write(self, folder: Path, trades: Sequence[Trade]) -> None:
        """Write entries.parquet (one row per trade) and columns.parquet (one row per column)."""
        from gpuscalp.arrow import pa, pq

        rows = [self.row(trade) for trade in trades]
        features = np.array([row.features for row in rows], np.float32).reshape(-1, len(self.columns))
        # Models of a schedule may have different numbers of members: what is not there is NaN.
        width = 1 + max((len(row.members) for row in rows), default=0)
        answers = np.full((len(rows), width, len(CLASSES)), np.nan)
        for place, row in enumerate(rows):
            answers[place, 0], answers[place, 1 : 1 + len(row.members)] = row.probability, row.members
        columns: dict[str, Any] = {"trade_index": pa.array(range(len(rows)), pa.int64())}
        for member in range(answers.shape[1]):
            for k, name in enumerate(CLASSES):
                columns[answer_name(member - 1, name)] = pa.array(answers[:, member, k])
        for index, column in enumerate(self.columns):
            columns[column.name] = pa.array(features[:, index])
        pq.write_table(pa.table(columns), folder / ENTRIES_FILE, compression="zstd")
        usual = self.usual()
        about = {
            "name": pa.array([column.name for column in self.columns], pa.string()),
            "unit": pa.array([column.unit for column in self.columns], pa.string()),
            "importance_rank": pa.array([self.ranks.get(c.name) for c in self.columns], pa.int64()),
            "median": pa.array(usual.median, pa.float64()),
            "spread": pa.array(usual.spread, pa.float64()),
            "sample_rows": pa.array([usual.row_count] * len(self.columns), pa.int64()),
        }
        pq.write_table(pa.table(about), folder / COLUMNS_FILE, compression="zstd")

    def _add_sample(self, features: F32) -> None:
        symbols, _, count = features.shape
        first = -self._frame_count % self._stride
        for frame in range(first, count, self._stride):
            self._sample.append(features[:, :, frame].copy())
        self._frame_count += count
        while len(self._sample) > max(2, _SAMPLE_ROWS_MAX // symbols):
            self._sample = self._sample[::2]
            self._stride *= 2
        self._usual = None


def answer_name(member: int, label: str) -> str:
    """Return the column of a class probability in entries.parquet; member −1 is the ensemble."""
    return f"{'ensemble' if member < 0 else f'member_{member:02d}'}:{label.lower()}"


def strongest(ranks: Sequence[int | None], distance: F64) -> list[int]:
    """Order columns by importance; those without a rank by how unusual they are, unknown ones last."""
    unusual = np.nan_to_num(np.abs(distance), nan=-1.0)
    behind = len(ranks) + 1
    return sorted(range(len(ranks)), key=lambda i: (ranks[i] or behind, -unusual[i], i))


def importance_ranks(bundle: Path) -> dict[str, int]:
    """Return the ranks of the columns that training has measured; empty where the bundle does not tell.

    They come from a file of the bundle that is there for people, and people are who reads them here.
    """
    try:
        listed = msgspec.json.decode((bundle / "result.json").read_bytes())["importance"]
        return {str(item["name"]): rank for rank, item in enumerate(listed, start=1)}
    except (OSError, *UNREADABLE, KeyError, TypeError):
        return {}


def _usual(rows: F64) -> Usual:
    """Measure rows float64[R, F]; NaN is left out, column by column."""
    width = rows.shape[1]
    median, spread = np.full(width, np.nan), np.full(width, np.nan)
    for index in range(width):
        known = rows[:, index][np.isfinite(rows[:, index])]
        if len(known):
            low, median[index], high = np.quantile(known, (0.25, 0.5, 0.75))
            wide = high - low if high > low else float(np.std(known))
            spread[index] = wide if wide > 0 else np.nan
    return Usual(median, spread, len(rows))
