"""A session's predictions and decisions, read back from its journal as tables.

Owns: the form of the tables. Never: writes, decides, or computes anything once more (that is verify.py's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, final, get_type_hints

import numpy as np
from msgspec import Struct

from gpuscalp.execution.messages import ReportKind
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.directory import SessionFile, read_about
from gpuscalp.live.predictor import unpack_rows
from gpuscalp.live.records import FillRecord, OrderRecord, SignalRecord, VerdictRecord, decode
from gpuscalp.schema import E8

_KINDS: Final[dict[int, type[Struct]]] = {
    RecordKind.SIGNAL: SignalRecord,
    RecordKind.VERDICT: VerdictRecord,
    RecordKind.ORDER: OrderRecord,
    RecordKind.FILL: FillRecord,
}
_SIGNAL: Final = ("p_down", "p_up", "agreement", "edge_bps")


@final
@dataclass(frozen=True)
class SavedSession:
    """One session's directory. The journal is read once, when the first table is asked for.

    In the Arrow tables below times are timestamps (ns, UTC, by the exchange's clock), prices and amounts are
    float64, and ``symbol`` is a name.

    Attributes
    ----------
    about : session.json
    """

    path: Path
    about: SessionFile

    @classmethod
    def open(cls, path: Path | str) -> SavedSession:
        """Open a session that has ended, or one that runs, up to what it has written by the first table.

        Raises
        ------
        UsageError     there is no session at ``path``
        ConfigError    its file is damaged, or of another version
        """
        return cls(Path(path), read_about(Path(path)))

    @property
    def symbols(self) -> list[str]:
        return [instrument.symbol for instrument in self.about.instruments]

    @cached_property
    def signals(self) -> Any:
        """What was predicted, one row for each frame and symbol: ``symbol, end_ns, decided_ns, p_down, p_up,
        agreement, edge_bps, late, lost, proved, model``.

        Numbers are NaN where nothing was predicted. ``late`` rows never reached the strategy, nor did those
        that are not ``proved``; ``model`` is "" for the one that the session was begun with.

        Raises
        ------
        JournalError    the journal is damaged, or of another version; so do the other tables
        """
        from gpuscalp.arrow import pa, timed

        records = self._records[SignalRecord]
        width = len(self.symbols)
        said = np.full((len(records), width, len(_SIGNAL)), np.nan, np.float32)
        proved = np.ones((len(records), width), np.bool_)
        for index, record in enumerate(records):
            if record.signal:
                said[index] = np.frombuffer(record.signal, np.float32).reshape(width, -1)
            if record.unproved:
                proved[index] = ~unpack_rows(record.unproved, width)
        columns = {
            "symbol": pa.array(self.symbols * len(records), pa.string()),
            **{
                name: np.repeat(np.array([getattr(record, name) for record in records], kind), width)
                for name, kind in (
                    ("end_ns", np.int64), ("decided_ns", np.int64), ("late", bool), ("lost", bool)
                )
            },
            **{name: said[..., index].flatten() for index, name in enumerate(_SIGNAL)},
            "proved": proved.ravel(),
            "model": pa.array([record.model for record in records for _ in self.symbols], pa.string()),
        }  # fmt: skip
        order = ("symbol", "end_ns", "decided_ns", *_SIGNAL, "late", "lost", "proved", "model")
        return timed(pa.table({name: columns[name] for name in order}))

    @cached_property
    def equity(self) -> Any:
        """``end_ns, equity_usdt`` of every frame: wallet and open positions."""
        table = self._table(SignalRecord, ("end_ns", "equity_e8"))
        return table.rename_columns(["end_ns", "equity_usdt"])

    @cached_property
    def verdicts(self) -> Any:
        """What the strategy wanted, and what the risk gate said: the fields of ``VerdictRecord``."""
        return self._table(VerdictRecord)

    @cached_property
    def orders(self) -> Any:
        """What was sent: the fields of ``OrderRecord``."""
        return self._table(OrderRecord)

    @cached_property
    def reports(self) -> Any:
        """What the broker told, of orders and of money: the fields of ``FillRecord``."""
        return self._table(FillRecord)

    @property
    def fills(self) -> Any:
        """Those reports that are fills."""
        kinds = self.reports["kind"].to_pylist()
        return self.reports.filter(np.array([kind == ReportKind.FILL for kind in kinds], np.bool_))

    def _table(self, kind: type[Struct], names: Sequence[str] = ()) -> Any:
        return _table(kind, self._records[kind], self.symbols, names)

    @cached_property
    def _records(self) -> dict[type[Struct], list[Any]]:
        found: dict[type[Struct], list[Any]] = {kind: [] for kind in _KINDS.values()}
        for record in read_records(self.path / "journal", torn=True):
            kind = _KINDS.get(record.kind)
            if kind is not None:
                found[kind].append(decode(record, kind))
        return found


def _table(kind: type[Struct], records: list[Any], symbols: list[str], names: Sequence[str] = ()) -> Any:
    """Return fields of records as columns, in the form for people."""
    from gpuscalp.arrow import pa, timed

    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), float | None: pa.float64()}
    hints = get_type_hints(kind)
    columns = {}
    for name in names or kind.__struct_fields__:
        values = [getattr(record, name) for record in records]
        if name == "symbol":
            # An alarm may be about none.
            known = [symbols[index] if 0 <= index < len(symbols) else None for index in values]
            columns[name] = pa.array(known, pa.string())
        elif name.endswith("_e8"):
            unit = 2 * E8 if name == "mid2_e8" else E8
            short = name.removesuffix("_e8").removesuffix("2")
            columns[short] = pa.array(np.array(values, np.float64) / unit)
        elif hints[name] in types:
            columns[name] = pa.array(values, types[hints[name]])
        else:
            columns[name] = pa.array([str(value) for value in values], pa.string())
    return timed(pa.table(columns))
