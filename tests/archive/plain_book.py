"""An order book in dictionaries, and what an exported file has to make of it. Shares nothing with the export.

``PlainBook`` is told the rows of an archive and says what should be known; ``Replay`` is told the events of a
file and says what a reader of it knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Sides = tuple[dict[int, int], dict[int, int]]

GAP, RESYNC, CROSSED = 1, 2, 8
BOTH_CLOCKS = 0xC000_0000
CLOCK_BIT = {"exch_ts": 1 << 31, "local_ts": 1 << 30}


class Row(NamedTuple):
    """A row of an archive: ``payload`` is (price, quantity, side), (bid, quantity, ask, quantity), or two
    lists of (price, quantity), best first; all × 1e8."""

    kind: str
    recv_ns: int
    exch_ns: int
    seq: int
    quality: int
    update_id: int
    payload: Any


@dataclass
class PlainBook:
    """What is known after each row."""

    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)
    known_id: int | None = None
    quote: tuple[int, Any] | None = None

    def apply(self, row: Row) -> None:
        if row.kind == "trades":
            return
        if row.kind == "books":
            if row.quality & (GAP | RESYNC) and self.known_id is not None:
                self.bids, self.asks, self.known_id, self.quote = {}, {}, None, None
            if row.quality & (GAP | RESYNC | CROSSED):
                return
            self.bids, self.asks = (dict(side) for side in row.payload)
            self.known_id = row.update_id
            if self.quote is not None and self.quote[0] > row.update_id:
                self._trim(self.quote[1])
        elif not row.quality & (GAP | RESYNC | CROSSED):
            if self.known_id is None:
                self.bids, self.asks = {}, {}
            elif row.update_id < self.known_id:
                return
            self.quote = (row.update_id, row.payload)
            self._trim(row.payload)

    def _trim(self, quote: tuple[int, int, int, int]) -> None:
        bid, bid_quantity, ask, ask_quantity = quote
        self.bids = {price: quantity for price, quantity in self.bids.items() if price < bid}
        self.asks = {price: quantity for price, quantity in self.asks.items() if price > ask}
        if bid:
            self.bids[bid] = bid_quantity
        else:
            self.bids = {}
        if ask:
            self.asks[ask] = ask_quantity
        else:
            self.asks = {}
        self.bids = dict(sorted(self.bids.items(), reverse=True)[:20])
        self.asks = dict(sorted(self.asks.items())[:20])

    def sides(self) -> Sides:
        return self.bids, self.asks


class Replay:
    """The book of one clock, built from events as a reader would; every event must mean something."""

    def __init__(self, events: np.ndarray, clock: str) -> None:
        mine = events[(events["ev"] & np.uint64(CLOCK_BIT[clock])) != 0]
        times = mine[clock]
        assert (np.diff(times) >= 0).all(), f"events are out of order by {clock}"
        self._events: Iterator[tuple[int, ...]] = iter(
            list(
                zip(
                    times.tolist(),
                    mine["ev"].tolist(),
                    np.rint(mine["px"] * 1e8).astype(np.int64).tolist(),
                    np.rint(mine["qty"] * 1e8).astype(np.int64).tolist(),
                    mine["ival"].tolist(),
                    strict=True,
                )
            )
        )
        self._next = next(self._events, None)
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.trades: list[tuple[int, int, int]] = []
        self.left: list[int] = []
        self.clears = 0

    def up_to(self, time_ns: int) -> Sides:
        """Apply everything up to a time and return the book."""
        while self._next is not None and self._next[0] <= time_ns:
            self._apply(*self._next[1:])
            self._next = next(self._events, None)
        return self.bids, self.asks

    def finish(self) -> Sides:
        return self.up_to(2**63 - 1)

    def _apply(self, ev: int, price: int, quantity: int, ival: int) -> None:
        kind, buy, sell = ev & 0xFF, bool(ev & 1 << 29), bool(ev & 1 << 28)
        if kind == 3:
            assert (buy, sell) == (False, False), "a clear of one side leaves the levels beyond its price"
            self.bids, self.asks = {}, {}
            self.clears += 1
            return
        assert buy != sell
        if kind == 2:
            self.trades.append((price, quantity, 1 if buy else -1))
            return
        assert kind in (1, 4)
        side = self.bids if buy else self.asks
        if quantity:
            assert side.get(price) != quantity, "an event that changes nothing"
            side[price] = quantity
        else:
            assert kind == 1
            del side[price]
            if ival:
                self.left.append(price)
        assert len(side) <= 20
        assert not self.bids or not self.asks or max(self.bids) < min(self.asks), "crossed between events"


def read_events(path: Path) -> np.ndarray:
    with np.load(path) as archive:
        assert archive.files == ["data"]
        return archive["data"]


def check_against(events: np.ndarray, rows: Iterable[Row], *, offset_ns: int = 0) -> tuple[Replay, Replay]:
    """Compare a file with the rows it was made of, at every row and under both clocks. With the offset, no
    receive time may be before its exchange time."""
    assert (events["local_ts"] >= events["exch_ts"]).all()
    assert ((events["ev"] & np.uint64(BOTH_CLOCKS)) != 0).all()
    arrived = sorted(rows, key=lambda row: (row.recv_ns, row.seq))
    happened = sorted(arrived, key=lambda row: (row.exch_ns, row.kind != "trades"))  # stable: then by arrival
    replays = []
    for clock, order in (("exch_ts", happened), ("local_ts", arrived)):
        replay, expected = Replay(events, clock), PlainBook()
        times = [row.exch_ns if clock == "exch_ts" else row.recv_ns + offset_ns for row in order]
        for row, time_ns, next_ns in zip(order, times, [*times[1:], None], strict=True):
            expected.apply(row)
            if next_ns != time_ns:
                assert replay.up_to(time_ns) == expected.sides(), (clock, row)
        assert replay.finish() == expected.sides()
        assert replay.trades == [row.payload for row in order if row.kind == "trades"]
        replays.append(replay)
    return replays[0], replays[1]


def archive_rows(folder: Path) -> list[Row]:
    """Read the rows of one symbol and day with pyarrow alone."""
    import pyarrow.parquet as pq

    rows = []
    for name in ("trades", "quotes", "books"):
        for path in sorted(folder.glob(f"{name}*.parquet")):
            for line in pq.read_table(path, partitioning=None).to_pylist():
                rows.append(_row(name, line))
    return rows


def _row(name: str, line: dict[str, Any]) -> Row:
    sides = [(line.get(f"{side}_price_e8"), line.get(f"{side}_qty_e8")) for side in ("bid", "ask")]
    payload: Any
    if name == "trades":
        payload = (line["price_e8"], line["qty_e8"], line["side"])
    elif name == "quotes":
        payload = (*sides[0], *sides[1])
    else:
        payload = [[level for level in zip(*side, strict=True) if level[0]] for side in sides]
    head = (line[column] for column in ("recv_ns", "exch_ns", "seq", "quality"))
    return Row(name, *head, line.get("update_id", 0), payload)
