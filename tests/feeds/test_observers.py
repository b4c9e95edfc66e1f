"""An observer hears of every row of its symbol, after the tick, as the tick says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import DepthSnapshot, MarkPrice, Trade
from gpuscalp.schema import E8, Instrument, Quality, TickKind

START_MS = 1_700_000_000_000
NAMES = ("BTCUSDT", "ETHUSDT")


class Witness:
    """Writes rows down, with the number of ticks that there were by then."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.ingest: Ingest | None = None

    def _note(self, kind: TickKind, *row: Any) -> None:
        assert self.ingest is not None
        self.rows.append((self.ingest.tick_count, kind, *row))

    def trade(self, recv_ns: int, exch_ns: int, quality: int, trade: Trade) -> None:
        self._note(TickKind.TRADE, recv_ns, exch_ns, quality, trade.price_e8, 0, trade.qty_e8)

    def quote(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, best: Sequence[int]) -> None:
        assert update_id > 0
        self._note(TickKind.QUOTE, recv_ns, exch_ns, quality, best[0], best[2], best[1])

    def book(
        self, recv_ns: int, exch_ns: int, quality: int, update_id: int, top: Sequence[Sequence[int]]
    ) -> None:
        assert update_id > 0
        assert [len(column) for column in top] == [20] * 4
        assert all(type(number) is int for column in top for number in column)
        five = sum(top[1][:5])
        self._note(TickKind.BOOK, recv_ns, exch_ns, quality, top[0][0], top[2][0], five)

    def mark(self, recv_ns: int, exch_ns: int, quality: int, mark: MarkPrice) -> None:
        self._note(TickKind.MARK, recv_ns, exch_ns, quality, 0, 0, mark.mark_price_e8)


def _messages(name: str, number: int, price: str = "100.0") -> list[bytes]:
    stream, tail = name.lower(), f'"E":{START_MS + number},"s":"{name}"'
    return [
        f'{{"stream":"{stream}@{kind}","data":{{"e":"{event}",{tail},{body}}}}}'.encode()
        for kind, event, body in (
            ("aggTrade", "aggTrade", f'"a":{number},"p":"{price}","q":"1.5","m":false'),
            (
                "bookTicker",
                "bookTicker",
                f'"u":{number},"b":"{price}","B":"2.25","a":"101.0","A":"3","T":{START_MS}',
            ),
            (
                "depth@100ms",
                "depthUpdate",
                f'"U":{number},"u":{number},"pu":{number - 1},'
                f'"b":[["{price}","{number}"]],"a":[["101.0","2"]]',
            ),
            ("markPrice@1s", "markPriceUpdate", f'"p":"{price}","i":"100.2","r":"0.0001","T":{START_MS}'),
        )
    ]


def _observed(tick_e8: int = E8 // 10) -> tuple[Ingest, list[Witness]]:
    instruments = [Instrument(name, "v", tick_e8, 1, 1, 1, "exchange_info") for name in NAMES]
    witnesses = [Witness(), Witness()]
    ingest = Ingest(instruments, FeedConfig(), observers=witnesses)
    for witness in witnesses:
        witness.ingest = ingest
    for name in NAMES:
        ingest.on_snapshot(1, DepthSnapshot(name, 0, 2, [(99 * E8, E8)], [(102 * E8, E8)]))
    return ingest, witnesses


def _tick_rows(ticks: np.ndarray, symbol: int) -> list[tuple[Any, ...]]:
    names = ("kind", "recv_ns", "exch_ns", "quality", "px0", "px1", "q0")
    return [
        (place + 1, *(tick[name].item() for name in names))
        for place, tick in enumerate(ticks)
        if tick["symbol"] == symbol
    ]


def _same(rows: list[tuple[Any, ...]], tick_e8: int = E8 // 10) -> list[tuple[Any, ...]]:
    """Return what an observer was told, in the units of a tick."""
    return [(*row[:2], *row[2:5], row[5] // tick_e8, row[6] // tick_e8, row[7] / E8) for row in rows]


def test_observer_hears_of_every_row_of_its_symbol_in_the_order_of_the_ticks() -> None:
    ingest, witnesses = _observed()
    for number in range(2, 12):
        ingest.on_messages(0, 10 * number, _messages(NAMES[number % 2], 2 + number // 2))
    # A connection ends and another goes on behind it: what follows bears GAP, which is not the row's own.
    ingest.on_lost(0, 200)
    ingest.on_messages(1, 210, _messages(NAMES[0], 30))
    ticks = ingest.take()
    for symbol, witness in enumerate(witnesses):
        assert _same(witness.rows) == _tick_rows(ticks, symbol)
        assert {row[1] for row in witness.rows} == {TickKind(kind) for kind in range(4)}
    gaps = [row[4] & Quality.GAP for row in witnesses[0].rows[-4:]]
    assert all(gaps)
    assert not any(row[4] & Quality.GAP for row in witnesses[1].rows)


def test_observer_hears_of_rows_whose_price_is_off_the_grid() -> None:
    ingest, witnesses = _observed(tick_e8=E8)
    before = [len(witness.rows) for witness in witnesses]
    ingest.on_messages(0, 5, _messages(NAMES[0], 3, price="100.5"))
    assert ingest.off_tick_count == 3
    assert [row[1] for row in witnesses[0].rows[before[0] :]] == [
        *(TickKind.TRADE, TickKind.QUOTE, TickKind.BOOK, TickKind.MARK)
    ]
    assert len(witnesses[1].rows) == before[1]


def test_observers_change_no_tick() -> None:
    ingest, _ = _observed()
    plain = Ingest([Instrument(name, "v", E8 // 10, 1, 1, 1, "x") for name in NAMES], FeedConfig())
    for name in NAMES:
        plain.on_snapshot(1, DepthSnapshot(name, 0, 2, [(99 * E8, E8)], [(102 * E8, E8)]))
    for number in range(2, 12):
        for each in (ingest, plain):
            each.on_messages(0, 10 * number, _messages(NAMES[number % 2], 2 + number // 2))
    assert ingest.take().tobytes() == plain.take().tobytes()


def test_there_is_one_observer_for_each_symbol() -> None:
    instruments = [Instrument(name, "v", E8, 1, 1, 1, "x") for name in NAMES]
    with pytest.raises(ValueError, match="zip"):
        Ingest(instruments, FeedConfig(), observers=[Witness()])
