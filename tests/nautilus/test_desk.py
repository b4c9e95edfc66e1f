"""The desk: what is due when, and that the engine decides the same on what it hands over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.bundle import load_bundle, read_contract
from gpuscalp.config import BatchConfig
from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.live.market import Work
from gpuscalp.live.records import SignalRecord, encode
from gpuscalp.nautilus.desk import Desk, make_desk
from gpuscalp.orders import Fill, Order
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_MS, TICK, TickKind
from tests.nautilus.conftest import CONFIG


def desk_of(archive: Path, bundle: Path) -> Desk:
    training = read_contract(bundle).training
    instruments = Archive.open(archive).instruments("synthetic", training.symbols)
    pipeline = FeaturePipeline(
        grid=training.config.grid, features=training.config.features, instruments=instruments, threads=1
    )
    loaded = load_bundle(bundle, graph=pipeline.graph)
    return make_desk(loaded, pipeline, instruments, CONFIG, session_id="s1", batch=BatchConfig(max_ticks=300))


def funding(known_ns: int, money_e8: int = 5) -> Report:
    return Report(ReportKind.FUNDING, 0, 0, known_ns, known_ns, money_e8=money_e8)


@pytest.fixture
def desk(archive: Path, bundle: Path) -> Desk:
    return desk_of(archive, bundle)


def ticks(*at_ns: int) -> np.ndarray[Any, Any]:
    made = np.zeros(len(at_ns), TICK)
    made["exch_ns"] = made["recv_ns"] = at_ns
    made["kind"] = TickKind.TRADE
    made["px0"], made["q0"], made["side"] = 640_000, 1.0, 1
    return made


def test_nothing_is_due_until_a_frame_ends(desk: Desk, bundle: Path) -> None:
    grid = read_contract(bundle).training.config.grid
    frame_ns, lateness_ns = grid.frame_ms * NS_PER_MS, grid.lateness_ms * NS_PER_MS
    start_ns = 1_000 * frame_ns
    assert desk.closes_ns == 0
    assert desk.take(start_ns) is None
    desk.push(ticks(start_ns + lateness_ns + 1), start_ns + 1)
    assert desk.closes_ns == start_ns + frame_ns + lateness_ns
    assert desk.take(start_ns + 2) is None
    desk.push(ticks(desk.closes_ns - 1), start_ns + 3)
    assert desk.take(start_ns + 3) is None
    desk.push(ticks(desk.closes_ns), start_ns + 4)
    work = desk.take(start_ns + 4)
    assert work is not None
    assert len(work.ticks) == 3
    assert work.now_ns == start_ns + 4
    assert work.recv_ns == work.ticks["recv_ns"][-1]


def test_reports_are_handed_over_when_they_are_known(desk: Desk) -> None:
    desk.tell([funding(100), funding(200)])
    assert desk.take(99) is None
    work = desk.take(150)
    assert work is not None
    assert [report.known_ns for report in work.reports] == [100]
    assert desk.take(151) is None
    work = desk.take(300)
    assert work is not None
    assert [report.known_ns for report in work.reports] == [200]
    assert desk.take(400) is None
    assert desk.take(400, force=True) is not None


def test_a_session_repeats_itself_on_the_same_work(archive: Path, bundle: Path) -> None:
    first, second = desk_of(archive, bundle), desk_of(archive, bundle)
    symbols = read_contract(bundle).training.symbols
    rows = np.concatenate(list(Archive.open(archive).tick_batches("synthetic", symbols)))
    journal: list[tuple[Work, list[bytes]]] = []
    times: list[int] = []
    orders = 0
    for place in range(0, len(rows), 7):
        some = rows[place : place + 7]
        now_ns = int(some["recv_ns"][-1])
        first.push(some, now_ns)
        first.unsynced = (1,) if place % 2 else ()
        if place == 700:
            first.tell([funding(now_ns, -3)])

        def clock(now_ns: int = now_ns) -> int:
            times.append(now_ns + len(times))
            return times[-1]

        while (work := first.take(now_ns)) is not None:
            kept = replace(work, ticks=work.ticks.copy())
            outcome = first.engine.step(work, clock)
            orders += len(outcome.orders)
            first.tell(fill_of(order, now_ns) for order, _ in outcome.orders)
            journal.append((kept, [encode(plain(body)) for _, body in outcome.records]))
    assert orders > 10
    waiting = iter(times)
    for work, records in journal:
        outcome = second.engine.step(work, lambda: next(waiting))
        assert [encode(plain(body)) for _, body in outcome.records] == records
    accounts = [each.engine.trader.account for each in (first, second)]
    assert accounts[0].positions == accounts[1].positions
    assert accounts[0].wallet_e8 == accounts[1].wallet_e8 != accounts[0].start_e8


def fill_of(order: Order, now_ns: int) -> Report:
    """Return the whole fill of an order at its mid, known 10 ms later."""
    fill = Fill(
        *(order.order_id, order.symbol_index, order.side, order.qty_e8),
        *(order.mid2_e8 // 2, 7, now_ns, order.mid2_e8),
    )
    known_ns = now_ns + 10 * NS_PER_MS
    state = OrderState.FILLED
    return Report(ReportKind.FILL, order.order_id, order.symbol_index, now_ns, known_ns, state, fill=fill)


def plain(body: msgspec.Struct) -> msgspec.Struct:
    """Return a record without how long its parts took."""
    return msgspec.structs.replace(body, stages_ns=(0, 0, 0)) if isinstance(body, SignalRecord) else body
