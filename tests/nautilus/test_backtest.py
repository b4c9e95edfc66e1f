"""The same archive through our backtest and through NautilusTrader: equal signals, explained fills."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.archive.ingest import import_sources
from gpuscalp.backtest import run as ours
from gpuscalp.backtest.calibration import chunk_signals
from gpuscalp.bundle import read_contract
from gpuscalp.config import BacktestConfig, LegConfig, OrdersConfig, PaperConfig
from gpuscalp.inference import chunk_digests
from gpuscalp.live.records import SignalRecord
from gpuscalp.schema import FeatureChunk, FrameBlock
from tests.backtest.model import write_stump_bundle
from tests.nautilus.conftest import CONFIG

pytestmark = pytest.mark.nautilus


@dataclass
class Both:
    """Two runs, and the signals of ours: ends, probability, agreement, edge, digests of features."""

    archive: Path
    ours: ours.BacktestResult
    theirs: ours.BacktestResult
    course: Any
    signals: list[np.ndarray[Any, Any]]


def run_both(
    folder: Path,
    archive: Path,
    bundle: Path,
    config: BacktestConfig = CONFIG,
    *,
    span: tuple[int | None, int | None] = (None, None),
    **settings: Any,
) -> Both:
    from gpuscalp.nautilus.backtest import run_nautilus

    taken: list[list[np.ndarray[Any, Any]]] = []

    def spy(session: Any, model: Any, part: FeatureChunk, predict: Any, *more: Any) -> None:
        signals = predict(model.ensemble, part)
        taken.append([part.frames.end_ns.copy(), *chunk_signals(signals)[:3], digests(part)])
        before(session, model, part, predict, *more)

    before = ours._trade_part
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "_trade_part", spy)
        times = {"start_ns": span[0], "end_ns": span[1]}
        mine = ours.run_backtest(archive, bundle, config=config, out=folder / "ours", **times)
    theirs, course = run_nautilus(archive, bundle, config=config, out=folder / "theirs", **times, **settings)
    return Both(
        archive, mine, theirs, course, [np.concatenate(column) for column in zip(*taken, strict=True)]
    )


def digests(part: FeatureChunk) -> np.ndarray[Any, Any]:
    """Return uint64[T, S] of the features' bits, quality and quotes: frame by frame, as a session does it."""
    frames = part.frames
    rows = []
    for at in range(len(frames)):
        one = {name: getattr(frames, name)[at : at + 1] for name in FrameBlock.__slots__}
        rows.append(chunk_digests(FeatureChunk(FrameBlock(**one), part.features[:, :, at : at + 1])))
    return np.array(rows)


def check_signals(both: Both) -> None:
    course = both.course
    end_ns, probability, agreement, edge, features = both.signals
    assert np.array_equal(course.end_ns, end_ns)
    found = course.signals
    for mine, other in zip((probability, agreement, edge), found, strict=True):
        assert mine.shape == other.shape
        assert mine.tobytes() == other.tobytes()
    assert np.array_equal(course.digests("rows"), features)


def check_fills(both: Both) -> dict[str, Any]:
    from gpuscalp.nautilus.compare import UNEXPLAINED, compare_fills

    answer = compare_fills(both.ours.run_dir, both.theirs.run_dir, both.archive)
    assert answer["pnl_usdt"]["rest"] == 0
    assert UNEXPLAINED not in answer["causes"]
    assert sum(row["orders"] for row in answer["causes"].values()) == sum(answer["orders"].values())
    for row in answer["different"]:
        mine, other = row["ours"], row["nautilus"]
        if mine and other and mine["qty"] == other["qty"]:
            # A target's and a stop's too, which have no mid of a decision in common.
            signed = mine["qty"] * (1 if mine["side"] == "buy" else -1)
            paid = signed * (other["price"] - mine["price"]) + other["fee_usdt"] - mine["fee_usdt"]
            assert row["difference_usdt"] == pytest.approx(-paid, abs=1e-6)
    return answer


@pytest.fixture(scope="module")
def both(archive: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return run_both(tmp_path_factory.mktemp("both"), archive, bundle)


def test_the_signals_are_equal_to_the_bit(both: Both) -> None:
    assert len(both.signals[0]) > 500
    check_signals(both)


def test_the_comparison_can_be_read_at_80_columns(both: Both) -> None:
    from rich.console import Console

    from gpuscalp.cli.nautilus import _compared

    answer, console = check_fills(both), Console(width=80)
    with console.capture() as capture:
        console.print(_compared(answer))
    text = capture.get()
    # Prices and causes were cut off, and twelve columns had no room.
    assert "…" not in text
    for row in answer["different"]:
        for order in (row["ours"], row["nautilus"]):
            assert order is None or f"{order['qty']:.10g} at {order['price']:.10g}" in text


def test_a_changed_row_changes_the_digest_from_its_frame_on(both: Both) -> None:
    # The comparison can fail: the digests see single bits.
    features = both.signals[-1].copy()
    features[100, 0] ^= np.uint64(1)
    assert not np.array_equal(both.course.digests("rows"), features)


def test_fills_alone_explain_the_difference(both: Both) -> None:
    answer = check_fills(both)
    assert answer["orders"]["both"] > 100
    assert answer["causes"]["equal"]["orders"] > 0.3 * answer["orders"]["both"]
    assert answer["causes"]["another state of the book"]["orders"] > 0
    total = answer["pnl_usdt"]
    parts = ("by_price", "by_fees", "by_quantity", "by_funding", "by_open_positions")
    assert sum(total[part] for part in parts) == pytest.approx(total["difference"], abs=1e-8)
    assert both.theirs.summary["pnl_usdt"] == pytest.approx(
        both.ours.summary["pnl_usdt"] + total["difference"], abs=1e-8
    )


def test_every_position_is_closed_and_the_money_adds_up(both: Both) -> None:
    summary = both.theirs.summary
    assert summary["trades"] > 50
    assert summary["unclosed_usdt"] == 0
    assert summary["pnl_usdt"] == pytest.approx(
        summary["gross_usdt"] + summary["delay_usdt"] + summary["spread_usdt"]
        + summary["impact_usdt"] - summary["fees_usdt"] + summary["funding_usdt"], abs=1e-7,
    )  # fmt: skip
    assert summary["executor"]["name"] == "nautilus"
    assert any("quotes in between do not move it" in warning for warning in summary["warnings"])


def test_the_run_is_read_like_one_of_ours(both: Both, cli: Callable[..., Any]) -> None:
    shown = cli("backtest", "show", both.theirs.run_dir, "--json")
    assert shown.code == 0, shown
    assert json.loads(shown.stdout)["result"]["trades"] == both.theirs.summary["trades"]
    compared = cli("backtest", "compare", both.ours.run_dir, both.theirs.run_dir, "--json")
    assert compared.code == 0, compared
    answer = json.loads(compared.stdout)
    assert {"setting": "executor.name", "A": "paper broker", "B": "nautilus"} in answer["config"]
    explained = cli(
        *("nautilus", "compare", both.ours.run_dir, both.theirs.run_dir, "--archive", both.archive)
    )
    assert explained.code == 0, explained
    assert "another state of the book" in explained.stdout
    assert (both.theirs.run_dir / "report.html").is_file()
    swapped = cli("nautilus", "compare", both.theirs.run_dir, both.ours.run_dir, "--archive", both.archive)
    assert swapped.code == 2


@pytest.mark.parametrize(
    "recording",
    [
        pytest.param(
            ("btcusdt_20240718.gz", "btcusdt_20240719.gz", "ethusdt_20240718.gz", "ethusdt_20240719.gz"),
            marks=pytest.mark.thorough,
        ),
        ("btcusdt_20230404.dat.gz", "btcusdt_20230405.dat.gz"),
    ],
    ids=["two symbols", "marks and a slow feed"],
)
@pytest.mark.slow
def test_the_signals_of_a_real_recording_are_equal_to_the_bit(
    recordings: Path, tmp_path: Path, recording: tuple[str, ...]
) -> None:
    sources = [recordings / "usdm" / name for name in recording]
    import_sources(sources, tmp_path / "archive")
    bundle = write_stump_bundle(
        tmp_path / "bundle", tmp_path / "archive", venue="binance_usdm", threshold=0.1
    )
    both = run_both(tmp_path, tmp_path / "archive", bundle)
    assert len(both.signals[0]) > 4_000
    check_signals(both)
    answer = check_fills(both)
    assert answer["orders"]["both"] > 100
    assert both.theirs.summary["frames"] == both.ours.summary["frames"]


@pytest.mark.parametrize(
    "orders",
    [
        OrdersConfig(entry="post_only", post_only_ms=500, then="take"),
        OrdersConfig(take_profit_bps=2.0, stop_loss_bps=2.0),
    ],
    ids=["post-only", "bracket"],
)
def test_orders_that_rest_go_through_nautilus_as_well(
    archive: Path, bundle: Path, tmp_path: Path, orders: OrdersConfig
) -> None:
    both = run_both(tmp_path, archive, bundle, msgspec.structs.replace(CONFIG, orders=orders))
    check_signals(both)
    check_fills(both)
    summary = both.theirs.summary
    assert summary["orders"]["filled"] > 30
    assert summary["orders"]["protective_ended" if orders.stop_loss_bps else "cancelled"] > 10
    assert summary["unclosed_usdt"] == 0


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(20.0, 45.55), (54.2, None)], ids=["cold at first", "read from the middle on"]
)
def test_a_part_of_the_time_is_decided_on_alike(
    both: Both, archive: Path, bundle: Path, tmp_path: Path, start_s: float, end_s: float | None
) -> None:
    first_ns, last_ns = Archive.open(archive).time_range("synthetic", read_contract(bundle).training.symbols)
    start_ns = first_ns + int(start_s * 1e9)
    end_ns = None if end_s is None else first_ns + int(end_s * 1e9)
    part = run_both(tmp_path, archive, bundle, span=(start_ns, end_ns))
    check_signals(part)
    assert check_fills(part)["orders"]["both"] > 10
    ends = part.course.end_ns
    assert ends[0] - start_ns <= 100_000_000 < ends[0] - start_ns + 100_000_000
    assert ends[-1] <= (end_ns or last_ns)
    for name in ("start", "end", "data_digest", "frames"):
        assert part.theirs.summary[name] == part.ours.summary[name], name
    # The features of the whole, but for the first frames: a mark price is told once a second.
    at = np.searchsorted(both.course.end_ns, ends[10:])
    assert np.array_equal(both.course.digests("rows")[at], part.course.digests("rows")[10:])
    assert part.theirs.summary["trades"] < both.theirs.summary["trades"]


def test_a_part_of_a_catalog_is_that_of_its_archive(
    archive: Path, bundle: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    assert cli("nautilus", "export", archive, tmp_path / "catalog").code == 0
    first_ns, _ = Archive.open(archive).time_range("synthetic", read_contract(bundle).training.symbols)
    start, end = (
        datetime.fromtimestamp(first_ns / 1e9 + seconds, UTC).isoformat() for seconds in (55.0, 57.5)
    )
    words = ("nautilus", "backtest", archive, "--model", bundle, "--from", start, "--to", end, "--out")
    assert cli(*words, tmp_path / "a", "--json").code == 0
    assert cli(*words, tmp_path / "b", "--catalog", tmp_path / "catalog", "--json").code == 0
    for name in ("trades.parquet", "fills.parquet", "equity.parquet", "signals.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    late = cli(*words[:5], "--from", "2100-01-01", "--json")
    assert late.code == 2
    assert "nothing in the range" in json.loads(late.stdout)["error"]["what"]


def test_latencies_that_are_drawn_and_quotes_that_fill_are_said_to_be_otherwise(
    archive: Path, bundle: Path, tmp_path: Path
) -> None:
    leg = LegConfig(kind="uniform", low_ms=5, high_ms=25)
    config = msgspec.structs.replace(CONFIG, paper=PaperConfig(request=leg, reply=leg))
    both = run_both(tmp_path, archive, bundle, config, book="quotes")
    check_signals(both)
    check_fills(both)
    warnings = "\n".join(both.theirs.summary["warnings"])
    assert "paper.request always takes 15 ms" in warnings
    assert "paper.reply always takes 5 ms" in warnings
    assert "Its book has one level" in warnings


def test_the_same_run_is_the_same_to_the_bit(both: Both, bundle: Path, tmp_path: Path) -> None:
    from gpuscalp.nautilus.backtest import nautilus_archive, run_nautilus

    again, _ = run_nautilus(both.archive, bundle, config=CONFIG, out=tmp_path / "again")
    for name in ("trades.parquet", "fills.parquet", "equity.parquet", "signals.parquet"):
        assert (again.run_dir / name).read_bytes() == (both.theirs.run_dir / name).read_bytes(), name
    with pytest.raises(Exception, match="the run directory is taken"):
        nautilus_archive(both.archive, bundle, out=tmp_path / "again")


def test_an_archive_without_books_is_refused_where_books_fill(
    archive: Path, bundle: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    shutil.copytree(archive, tmp_path / "archive")
    path = tmp_path / "archive" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["parts"] = [part for part in manifest["parts"] if part["table"] != "books"]
    path.write_text(json.dumps(manifest))
    words = ("nautilus", "backtest", tmp_path / "archive", "--model", bundle)
    result = cli(*words, "--out", tmp_path / "run", "--json")
    assert result.code == 2
    error = json.loads(result.stdout)["error"]
    assert "no books" in error["what"]
    assert error["fix"] == "--book quotes"


class Seen:
    """Keeps what the engine was given and decided."""

    def __init__(self) -> None:
        self.works: list[Any] = []
        self.signals: dict[int, bytes] = {}
        self.orders = 0

    def given(self, work: Any) -> None:
        self.works.append(work)

    def decided(self, work: Any, outcome: Any) -> None:
        assert work is self.works[-1]
        self.orders += len(outcome.orders)
        for _, body in outcome.records:
            if isinstance(body, SignalRecord):
                self.signals[body.end_ns] = body.rows + body.margins + body.signal


def test_in_an_engine_of_ones_own_it_makes_everything_from_its_configuration(
    both: Both, archive: Path, bundle: Path, tmp_path: Path
) -> None:
    from gpuscalp.nautilus.arrivals import arrivals
    from gpuscalp.nautilus.events import EventMaker, as_received
    from gpuscalp.nautilus.instruments import to_nautilus
    from gpuscalp.nautilus.strategy import GpuScalpStrategy, GpuScalpStrategyConfig
    from gpuscalp.nautilus.venue import make_engine

    settings = tmp_path / "settings.toml"
    settings.write_text(
        '[strategy]\nmin_edge_bps = -100.0\n[sizing]\nkelly_fraction = "off"\n[risk]\nmax_losses = "off"\n'
    )
    opened, symbols = Archive.open(archive), read_contract(bundle).training.symbols
    instruments = opened.instruments("synthetic", symbols)
    perpetuals = [to_nautilus(each) for each in instruments]
    engine, _ = make_engine(CONFIG, "SYNTHETIC", perpetuals, book="books", version="1.221")
    seen = Seen()
    config = GpuScalpStrategyConfig(model=str(bundle), settings=str(settings), session_id="own")
    strategy = GpuScalpStrategy(config, witness=seen)
    engine.add_strategy(strategy)
    maker = EventMaker(instruments, perpetuals, as_received)

    def events() -> Any:
        for rows in arrivals(opened, "synthetic", symbols):
            made: list[Any] = []
            for row in rows:
                maker.make(row, made)
            yield made

    engine.add_data_iterator("archive", events())
    first, last = opened.time_range("synthetic", symbols)
    try:
        engine.run(start=first, end=last)
        orders = [str(order.client_order_id) for order in engine.cache.orders()]
    finally:
        engine.dispose()
    # Found, not told: the decoders' own state machine makes the same rows of the same market.
    told = {
        int(end): features.tobytes()
        for end, features in zip(both.course.end_ns, both.course.digests("rows"), strict=True)
    }
    ends = sorted(told)[20:]
    assert [seen.signals[end][: len(told[end])] for end in ends] == [told[end] for end in ends]
    assert seen.orders == len(orders) > 100
    assert sorted(orders, key=len)[0] == "gs-own-1"
    assert strategy.reports.repeated_count == 0
    assert any(len(work.reports) for work in seen.works)
