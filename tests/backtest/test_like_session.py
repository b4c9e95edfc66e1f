"""A backtest that decides when a session did trades what the session traded, one by one.

The session is a replay of a recording, and a live one on an exchange of this machine. Its journal is imported
like any recording; the backtest takes from the session when each frame was decided on and what was known
then, and everything else from the archive. Compared are records of the journal with what the backtest sends
and hears: orders and cancellations with the times at which they left, reports with all they say, and trades.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gpuscalp.archive import Archive
from gpuscalp.backtest import backtest_archive
from gpuscalp.backtest.record import Recorder
from gpuscalp.cli import run
from gpuscalp.config import LegConfig, OrdersConfig, PaperConfig, RiskConfig
from gpuscalp.errors import DataError, UsageError
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.messages import Report
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.directory import read_about
from gpuscalp.live.records import FillRecord, OrderRecord, VerdictRecord, decode
from gpuscalp.live.run import run_live
from gpuscalp.live.verify import verify
from gpuscalp.orders import Order
from gpuscalp.schema import NS_PER_MS, Quality
from tests.live import script
from tests.live.sessions import FRAME_MS, eager_config, write_eager_bundle

E8 = 10**8
SYNTHETIC = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
# Requests and reports that take their time, and reports that come back long after the next decision.
WAYS: dict[str, object] = {
    "paper.request.kind": "uniform", "paper.request.low_ms": 3.0, "paper.request.high_ms": 60.0,
    "paper.reply.kind": "uniform", "paper.reply.low_ms": 2.0, "paper.reply.high_ms": 150.0,
    "cost.compute.low_ms": 7.0,
}  # fmt: skip
POST_ONLY = {"orders.entry": "post_only", "orders.post_only_ms": 400, "paper.queue": "probabilistic"}
BRACKET = {"orders.take_profit_bps": 0.4, "orders.stop_loss_bps": 0.3}
TRADES = {
    "taker": {},
    "bracket": BRACKET,
    "post_only": POST_ONLY,
    "taken": {**POST_ONLY, **BRACKET, "orders.then": "take", "orders.post_only_ms": 200},
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> script.Material:
    return script.write_material(tmp_path_factory.mktemp("material"), seconds=60)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> script.Material:
    return script.write_material(tmp_path_factory.mktemp("short"), seconds=10)


@dataclass
class Done:
    """What one side sent and heard, as plain values."""

    sent: list[tuple[Any, ...]] = field(default_factory=list)
    cancelled: list[tuple[int, int]] = field(default_factory=list)
    reports: list[tuple[Any, ...]] = field(default_factory=list)

    def until(self, at_ns: int) -> Done:
        """Return what was done before a time."""
        return Done(
            [each for each in self.sent if each[1] < at_ns],
            [each for each in self.cancelled if each[1] < at_ns],
            [each for each in self.reports if each[4] < at_ns],
        )

    @property
    def fills(self) -> list[tuple[Any, ...]]:
        return [report for report in self.reports if report[0] == "fill"]

    def trades(self) -> list[list[tuple[Any, ...]]]:
        """Fills from flat to flat, by symbol, in the order of their ends."""
        open_now: dict[int, list[tuple[Any, ...]]] = {}
        held: Counter[int] = Counter()
        closed = []
        for fill in self.fills:
            symbol = fill[2]
            open_now.setdefault(symbol, []).append(fill)
            held[symbol] += fill[8] * fill[9]
            if not held[symbol]:
                closed.append(open_now.pop(symbol))
        return closed


def of_session(path: Path) -> Done:
    done = Done()
    for record in read_records(path / "journal", torn=True):
        if record.kind == RecordKind.ORDER:
            order = decode(record, OrderRecord)
            if order.cancel:
                done.cancelled.append((order.order_id, order.sent_ns))
            else:
                done.sent.append(
                    (order.order_id, order.sent_ns, order.decided_ns, order.symbol, order.side,
                     order.qty_e8, str(order.kind), str(order.time_in_force), order.price_e8,
                     order.reduce_only, order.reason)
                )  # fmt: skip
        elif record.kind == RecordKind.FILL:
            told = decode(record, FillRecord)
            done.reports.append(
                (told.kind, told.order_id, told.symbol, told.at_ns, told.known_ns, told.code, told.reason,
                 told.left_e8, told.side, told.qty_e8, told.price_e8, told.fee_e8, told.maker, told.money_e8)
            )  # fmt: skip
    return done


def repeated(
    archive: Path, session: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[Done, dict[str, Any]]:
    """Backtest an archive like a session; return what was sent and heard, and the summary."""
    done = Done()
    times: dict[int, tuple[Any, ...]] = {}
    submit, cancel, on_report = PaperBroker.submit, PaperBroker.cancel, Recorder.on_report

    def spy_submit(self: PaperBroker, request: Any, now_ns: int) -> int:
        times[request.order_id] = (
            now_ns, request.symbol_index, request.side, request.qty_e8, str(request.kind),
            str(request.time_in_force), request.price_e8, request.reduce_only,
        )  # fmt: skip
        return submit(self, request, now_ns)

    def spy_cancel(self: PaperBroker, order_id: int, now_ns: int) -> int:
        done.cancelled.append((order_id, now_ns))
        return cancel(self, order_id, now_ns)

    def spy_report(self: Recorder, report: Report, order: Order | None, booked: Any) -> None:
        fill = report.fill
        filled = (0, 0, 0, 0) if fill is None else (fill.side, fill.qty_e8, fill.price_e8, fill.fee_e8)
        done.reports.append(
            (str(report.kind), report.order_id, report.symbol_index, report.at_ns, report.known_ns,
             report.code, report.reason, report.left_e8, *filled, report.maker, report.money_e8)
        )  # fmt: skip
        if order is not None and order.order_id in times:
            sent_ns, *what = times.pop(order.order_id)
            done.sent.append((order.order_id, sent_ns, order.decided_ns, *what, order.intent.reason))
        on_report(self, report, order, booked)

    with monkeypatch.context() as patch:
        patch.setattr(PaperBroker, "submit", spy_submit)
        patch.setattr(PaperBroker, "cancel", spy_cancel)
        patch.setattr(Recorder, "on_report", spy_report)
        result = backtest_archive(archive, like=session, out=out, **options)
    done.sent.sort()
    return done, result.summary


def imported(session: Path, out: Path, info: Path) -> Path:
    words = ["data", "import", str(session / "journal"), "--out", str(out), "--instruments", str(info)]
    assert run([*words, "--json"]) == 0
    return out


def replayed(material: script.Material, path: Path, **changes: object) -> Path:
    material.replay(path, {"strategy.min_edge_bps": -1_000.0, "strategy.hold_ms": 2_000, **WAYS, **changes})
    return path


@pytest.mark.parametrize("how", TRADES)
def test_backtest_like_a_session_trades_what_it_traded(
    how: str, material: script.Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = replayed(material, tmp_path / "session", **TRADES[how])
    archive = imported(session, tmp_path / "archive", material.info)
    then, summary = agree(session, archive, tmp_path / "run", monkeypatch)
    assert summary["like"]["session"] == read_about(session).session_id
    assert summary["like"]["frames_differing"] == 0
    assert len(then.trades()) > 10
    kinds = Counter(each[6] for each in then.sent)
    makers = sum(fill[12] for fill in then.fills)
    assert (makers > 0) == (how != "taker")
    assert bool(kinds["stop_market"]) == ("bracket" in how or how == "taken")


@pytest.mark.parametrize("how", ["taker", "taken"])
def test_backtest_like_a_slow_session_trades_what_it_traded(
    how: str, material: script.Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The market goes on while an engine decides: an order may leave after rows that it would have met."""
    deciding: list[tuple[Any, Any]] = []
    calls = itertools.count()

    def step(session: Any, clock_of: Any, now_ns: int, on_step: Any, *, force: bool = False) -> None:
        if deciding and (force or next(calls) % 9 == 0):
            work, outcome = deciding.pop()
            session.apply(outcome, now_ns)
            session.flush()
        if not deciding and (work := session.take(session.market.exch_ns, now_ns, force=force)) is not None:
            deciding.append((work, session.engine.step(work, clock_of(work))))
            if force:
                step(session, clock_of, now_ns, on_step)

    monkeypatch.setattr("gpuscalp.live.replay._step", step)
    session = replayed(material, tmp_path / "session", **TRADES[how])
    archive = imported(session, tmp_path / "archive", material.info)
    then, summary = agree(session, archive, tmp_path / "run", monkeypatch)
    assert len(then.trades()) > 10
    assert summary["like"]["frames_differing"] == 0


def test_backtest_like_a_session_with_a_guard_blocks_the_same_rows(
    material: script.Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = script.write_model(tmp_path / "model", reference=script.guarded)
    material = material._replace(model=guarded)
    blocked = (*RiskConfig().blocked_quality, "OUTLIER")
    session = replayed(material, tmp_path / "session", **{"risk.blocked_quality": blocked})
    verdicts = [
        decode(record, VerdictRecord)
        for record in read_records(session / "journal")
        if record.kind == RecordKind.VERDICT
    ]
    assert {each.value for each in verdicts if each.code == "QUALITY"} >= {float(Quality.OUTLIER)}
    found = verify(session)
    assert (found["differing"], found["verdicts_differing"]) == (0, 0)
    archive = imported(session, tmp_path / "archive", material.info)
    then, _ = agree(session, archive, tmp_path / "run", monkeypatch)
    assert len(then.trades()) > 10


def check_files(out: Path, trades: list[list[tuple[Any, ...]]]) -> None:
    """The run's own tables say the same of them."""
    written: dict[int, list[tuple[Any, ...]]] = {}
    for row in pq.read_table(out / "fills.parquet").to_pylist():
        side = 1 if row["side"] == "buy" else -1
        written.setdefault(row["trade_index"], []).append(
            (row["order_id"], side, *(round(row[name] * E8) for name in ("qty", "price", "fees_usdt")),
             row["maker"])
        )  # fmt: skip
    assert [written[index] for index in range(len(trades))] == [
        [(fill[1], *fill[8:13]) for fill in trade] for trade in trades
    ]


def differs(now: Done, then: Done) -> str:
    """Return where a backtest differs, as far as the session goes; at its end it closes what is held."""
    ended = {report[1] for report in then.reports}
    pairs = {
        "orders": [[each for each in side.sent if each[0] in ended] for side in (now, then)],
        "reports": [now.reports[: len(then.reports)], then.reports],
        "cancellations": [now.cancelled[: len(then.cancelled)], then.cancelled],
        "trades": [now.trades()[: len(then.trades())], then.trades()],
    }
    for what, (ours, theirs) in pairs.items():
        if ours != theirs:
            first = next((pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]), "a length")
            return f"{what}: {first}"
    return ""


def agree(
    session: Path, archive: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Done, dict[str, Any]]:
    """Check that a backtest does what a session did; return that of it which has to be the same, and the
    backtest's summary."""
    then, (now, summary) = of_session(session), repeated(archive, session, out, monkeypatch)
    # The first frame may end before the first row.
    like = summary["like"]
    assert like["session_frames"] - 1 <= like["frames"] <= like["session_frames"]
    assert like["last_rows_missed"] <= 2
    # A busy machine may close a frame before all of it has come, or let a message wait while others pass it:
    # what follows upon the frame before it need not be the same.
    begun_ns = then.sent[0][2]
    moved = [*like["differing_ns"], *(end_ns - FRAME_MS * NS_PER_MS for end_ns in like["reordered_ns"])]
    if differs(now, then) and (late := [end_ns for end_ns in moved if end_ns >= begun_ns]):
        then, now = then.until(min(late)), now.until(min(late))
    assert differs(now, then) == ""
    trades = then.trades()
    check_files(out, trades)
    return then, summary


@pytest.mark.parametrize("how", ["taker", pytest.param("taken", marks=pytest.mark.thorough)])
def test_backtest_like_a_live_session_trades_what_it_traded(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets, two connections that tell the same, a clock that is corrected: all of it on this machine.

    Few frames at once: what the session had heard when it decided on the last of them comes with the next.
    """
    monkeypatch.setattr("gpuscalp.backtest.run.chunk_frames", lambda _: 16)
    model = write_eager_bundle(tmp_path / "model", SYNTHETIC, venue="synthetic", hold_ms=300)
    way = LegConfig(kind="uniform", low_ms=1.0, high_ms=40.0)
    orders = OrdersConfig() if how == "taker" else OrdersConfig(
        entry="post_only", post_only_ms=150, then="take", take_profit_bps=0.5, stop_loss_bps=0.5
    )  # fmt: skip
    config = eager_config(
        venue="synthetic", orders=orders, paper=PaperConfig(request=way, reply=way, queue="probabilistic")
    )
    # A machine that is busy in the first second leaves little to compare: then once more.
    for attempt in range(5):
        session, archive = tmp_path / f"session{attempt}", tmp_path / f"archive{attempt}"
        status = run_live(session, config, model=model, device="cpu", seconds=7.0, embedded=True)
        assert status["market"] == "synthetic"
        assert run(["data", "import", str(session / "journal"), "--out", str(archive), "--json"]) == 0
        # It became data of Binance, and no word of a backtest said that the market was made up.
        assert Archive.open(archive).venues() == ("synthetic",)
        then, summary = agree(session, archive, tmp_path / f"run{attempt}", monkeypatch)
        if len(then.trades()) > 10:
            break
    assert len(then.trades()) > 10
    assert summary["warnings"][0].startswith("SYNTHETIC")
    assert any(fill[12] for fill in then.fills) == (how == "taken")


def test_another_archive_is_refused(short: script.Material, tmp_path: Path) -> None:
    session = replayed(short, tmp_path / "session")
    other = script.write_recording(tmp_path / "other.txt", seconds=10, seed=9)
    changed = replayed(short._replace(recording=other), tmp_path / "changed")
    archive = imported(changed, tmp_path / "archive", short.info)
    with pytest.raises(DataError, match="does not hold what the session heard"):
        backtest_archive(archive, like=session, out=tmp_path / "run")


def test_span_and_band_are_refused(short: script.Material, tmp_path: Path) -> None:
    session = replayed(short, tmp_path / "session")
    archive = imported(session, tmp_path / "archive", short.info)
    with pytest.raises(UsageError, match="no band"):
        backtest_archive(archive, like=session, out=tmp_path / "run", end_ns=10**9)
    words = ["backtest", str(archive), "--like", str(session), "--out", str(tmp_path / "run"), "--json"]
    assert run(words) == 0
    frozen = json.loads((tmp_path / "run" / "config.json").read_text())
    assert frozen["like"]
    assert frozen["backtest"]["strategy"]["hold_ms"] == 2_000
