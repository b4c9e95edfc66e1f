"""Merged captures: one CSV with the book snapshot, the depth updates and the trades of a symbol.

Owns: putting rows, one per level, together into messages again. A message's rows stand together, so the
reader holds one message back until a row of another one comes.
"""

from __future__ import annotations

from typing import Final

from gpuscalp.archive.arrival import Record
from gpuscalp.archive.tabular import _boolean, _integer, _number, _split, _time
from gpuscalp.errors import DecodeError, UsageError
from gpuscalp.feeds.decimals import DecimalCache
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, Levels, Trade

# The book at the end of the day before, and the answer of a REST call.
_SNAPSHOTS: Final = ("FINAL_DEPTH_SNAPSHOT", "DEPTH_SNAPSHOT")
_UPDATE: Final = "DIFFERENCE_DEPTH_STREAM"
_TRADE: Final = "TRADE_STREAM"
_NEEDED: Final = (
    "TimestampOfReceiveUS",
    "EventTime",
    "Symbol",
    "FirstUpdateId",
    "FinalUpdateId",
    "IsAsk",
    "Price",
    "Quantity",
    "TradeId",
    "IsBuyerMarketMaker",
    "LastUpdateId",
    "StreamType",
)


def is_merged_header(header: str) -> bool:
    return "StreamType" in header.split(",") and "FinalUpdateId" in header.split(",")


class MergedReader:
    """Turn rows into records.

    Parameters
    ----------
    header : its columns

    Raises
    ------
    UsageError
        a column is missing
    """

    name = "merged_csv"

    def __init__(self, header: str) -> None:
        self._header = header
        names = header.split(",")
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise UsageError(f"the file has no column {missing[0]}", value=header[:200])
        self._at = {name: index for index, name in enumerate(names)}
        self._width = len(names)
        self._positive, self._numbers = DecimalCache(least_e8=1), DecimalCache(least_e8=0)
        self._pending: _Pending | Record | None = None

    def read(self, line: bytes, number: int) -> Record | None:
        """Return the record that this row has completed, if any.

        Raises
        ------
        DecodeError
            a field is missing or cannot be read
        """
        if not line[:1].isdigit() and (line[:1] == b"#" or line.decode("utf-8", "replace") == self._header):
            return None
        fields, at = _split(line, self._width), self._at
        kind = fields[at["StreamType"]]
        if kind == _TRADE:
            return self._replace(self._trade(fields, number))
        if kind not in _SNAPSHOTS and kind != _UPDATE:
            raise DecodeError("row of an unknown kind", where="StreamType", value=kind[:40])
        last_id = _integer(fields[at["FinalUpdateId"]] or fields[at["LastUpdateId"]], "FinalUpdateId")
        level = (
            _number(self._positive, fields[at["Price"]], "Price"),
            _number(self._numbers, fields[at["Quantity"]], "Quantity"),
        )
        is_ask = _boolean(fields[at["IsAsk"]], "IsAsk")
        pending, finished = self._pending, None
        if not (
            isinstance(pending, _Pending)
            and pending.kind == kind
            and (kind in _SNAPSHOTS or pending.last_id == last_id)
        ):
            finished, pending = self._replace(self._start(fields, number, kind)), self._pending
        assert isinstance(pending, _Pending)
        pending.last_id = max(pending.last_id, last_id)
        if fields[at["EventTime"]]:
            pending.exch_ns = max(pending.exch_ns, _time(fields[at["EventTime"]], "EventTime"))
        (pending.asks if is_ask else pending.bids).append(level)
        return finished

    def finish(self) -> Record | None:
        """Return the last message."""
        return self._replace(None)

    def _replace(self, new: _Pending | Record | None) -> Record | None:
        old, self._pending = self._pending, new
        return old.record() if isinstance(old, _Pending) else old

    def _trade(self, fields: list[str], number: int) -> Record:
        at = self._at
        trade = Trade(
            fields[at["Symbol"]],
            _time(fields[at["EventTime"]], "EventTime"),
            _integer(fields[at["TradeId"]], "TradeId"),
            _number(self._positive, fields[at["Price"]], "Price"),
            _number(self._positive, fields[at["Quantity"]], "Quantity"),
            -1 if _boolean(fields[at["IsBuyerMarketMaker"]], "IsBuyerMarketMaker") else 1,
            False,
            fields[at["XUnknownParameter"]] in ("", "MARKET") if "XUnknownParameter" in at else True,
        )
        return self._received(fields), number, trade

    def _start(self, fields: list[str], number: int, kind: str) -> _Pending:
        at = self._at
        first_id = _integer(fields[at["FirstUpdateId"]] or "0", "FirstUpdateId")
        previous = fields[at["FinalUpdateIdInLastStream"]] if "FinalUpdateIdInLastStream" in at else ""
        previous_id = _integer(previous, "FinalUpdateIdInLastStream") if previous else first_id - 1
        recv_ns = self._received(fields)
        return _Pending(kind, recv_ns, number, fields[at["Symbol"]], first_id, previous_id)

    def _received(self, fields: list[str]) -> int:
        return _time(fields[self._at["TimestampOfReceiveUS"]], "TimestampOfReceiveUS")


class _Pending:
    """A message whose rows are still coming."""

    def __init__(
        self, kind: str, recv_ns: int, number: int, symbol: str, first_id: int, previous_id: int
    ) -> None:
        self.kind, self.recv_ns, self.number, self.symbol = kind, recv_ns, number, symbol
        self.first_id, self.previous_id = first_id, previous_id
        self.last_id = self.exch_ns = 0
        self.bids: Levels = []
        self.asks: Levels = []

    def record(self) -> Record:
        if self.kind in _SNAPSHOTS:
            snapshot = DepthSnapshot(self.symbol, self.exch_ns, self.last_id, self.bids, self.asks)
            return self.recv_ns, self.number, snapshot
        update = DepthUpdate(
            self.symbol, self.exch_ns, self.first_id, self.last_id, self.previous_id, self.bids, self.asks
        )
        return self.recv_ns, self.number, update
