"""The inner loop of the backtest against hftbacktest and NautilusTrader: ``python -m benchmarks backtest``.

BTCUSDT of 2024-07-18 and 19 from ``GPUSCALP_RECORDINGS``, repeated in time to 5 million rows, and one list of
orders, alive one at a time: two that take, then one that rests and is cancelled. All three get the same
latency and report; only what a recording is played for is timed, not loading. Acknowledgements and fills are
compared before anything is said of speed. hftbacktest runs in ``.venv-hft`` (``GPUSCALP_HFTBACKTEST`` names
another interpreter), NautilusTrader in ``.venv-3.12`` (``GPUSCALP_NAUTILUS``).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.environment import ROOT
from gpuscalp.archive import Archive, BookSeries
from gpuscalp.archive.export_hftbacktest import export_hftbacktest
from gpuscalp.archive.ingest import import_sources
from gpuscalp.backtest.venue import Venue
from gpuscalp.config import CostConfig, LegConfig, PaperConfig
from gpuscalp.errors import ParityError
from gpuscalp.execution.messages import OrderRequest, ReportKind, TimeInForce
from gpuscalp.schema import E8, I64, NS_PER_S, Instrument, TickKind, Ticks

NAMES: Final = ("btcusdt_20240718.gz", "btcusdt_20240719.gz")
VENUE: Final = "binance_usdm"
REQUEST_NS: Final = 7_000_123  # off every clock of the recording: no order arrives at the instant of a row
REST_NS: Final = 8 * NS_PER_S
AFTER_NS: Final = NS_PER_S // 10  # an order has been answered by then
ROUNDS: Final = 5  # the fastest counts; one of NautilusTrader, which takes long
# Module, its driver, where it is installed if nothing else is said. The first may leave orders out.
PEERS: Final = (
    ("hftbacktest", "peer_hftbacktest.py", ".venv-hft"),
    ("nautilus_trader", "peer_nautilus.py", ".venv-3.12"),
)
_WAYS: Final = {
    "pessimistic": "risk_adverse",
    "proportional": "power_prob_1",
    "probabilistic": "power_prob_3",
}


@dataclass(frozen=True)
class Market:
    """One pass of the recording, repeated ``passes`` times, ``period_ns`` apart.

    ``orders``: int64[n, 7], number, time, side, price in ticks, quantity in lots, whether it rests, time of
    the cancellation (0 = none).
    """

    instrument: Instrument
    ticks: Ticks
    books: BookSeries
    files: tuple[str, ...]
    passes: int
    period_ns: int
    orders: I64


def run(rows: int = 5_000_000, every_s: float = 17.0, queue: str = "pessimistic") -> dict[str, Any]:
    """Return rows, times and fills of the three; a peer that is not installed says so.

    Raises
    ------
    ParityError    hftbacktest acknowledges other orders, or fills less alike than the tests know
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        market = _market(folder, rows, every_s)
        peers: dict[str, dict[str, Any]] = {}
        for name, script, home in PEERS:
            python = _python(name, home)
            if python is None:
                peers[name] = {"skipped": "not installed: see the head of benchmarks/bench_backtest.py"}
                continue
            peers[name] = _peer(folder, market, queue, [python, str(ROOT / "benchmarks" / script)])
            # What a peer cannot play nobody plays.
            known = ~np.isin(market.orders[:, 0], peers[name]["left_out"])
            market = replace(market, orders=market.orders[known])
        seen, seconds = _ours(market, queue)
    count = len(market.ticks) * market.passes
    result: dict[str, Any] = {
        "rows": count,
        "orders": len(market.orders),
        "resting": int(market.orders[:, 5].sum()),
        "queue": queue,
        "ours": _speed(count, seconds) | _fills(seen),
    }
    for name, found in peers.items():
        result[name] = found if "skipped" in found else _compared(market.orders, seen, seconds, found)
    peer = result["hftbacktest"]
    if not peer.get("same_acknowledged", True) or peer.get("same_fills", 1e9) < 0.9 * len(market.orders):
        raise ParityError("hftbacktest plays other orders", where="benchmarks backtest", value=peer)
    return result


def _compared(orders: I64, seen: I64, seconds: Any, found: dict[str, Any]) -> dict[str, Any]:
    same = (found["seen"][:, 1:] == seen[:, 1:]).all(axis=1)
    return {
        **_speed(int(found["events"]), found["seconds"]),
        **_fills(found["seen"]),
        "left_out": found["left_out"].tolist(),
        "same_acknowledged": bool((found["seen"][:, 0] == seen[:, 0]).all()),
        "same_fills": int(same.sum()),
        "different": _differences(orders, seen, found["seen"], ~same),
        "times_ours": round(float(min(found["seconds"]) / min(seconds)), 2),
    }


def _recordings() -> Path:
    return Path(os.environ.get("GPUSCALP_RECORDINGS", ROOT.parent / "shared" / "data" / "binance"))


def _market(folder: Path, rows: int, every_s: float) -> Market:
    sources = [_recordings() / "usdm" / name for name in NAMES]
    import_sources(sources, folder / "archive")
    archive = Archive.open(folder / "archive")
    (symbol,) = archive.symbols(VENUE)
    (instrument,) = archive.instruments(VENUE)
    report = export_hftbacktest(folder / "archive", folder / "events", latency_offset_ns=0)
    ticks = np.concatenate(list(archive.tick_batches(VENUE, (symbol,))))
    passes = -(-rows // len(ticks))
    exch_ns = ticks["exch_ns"]
    period_ns = (int(exch_ns.max() - exch_ns.min()) // NS_PER_S + 2) * NS_PER_S
    orders = _orders(ticks, passes, period_ns, every_s)
    files = tuple(file.path for file in report.files)
    return Market(instrument, ticks, archive.books(VENUE, symbol), files, passes, period_ns, orders)


def _orders(ticks: Ticks, passes: int, period_ns: int, every_s: float) -> I64:
    """Draw the orders once; their limits come from the quotes at the time they are sent."""
    rng = np.random.default_rng(11)
    quotes = ticks[ticks["kind"] == TickKind.QUOTE]
    start_ns, count = int(quotes["exch_ns"][0]), int(passes * period_ns / NS_PER_S / every_s) - 2
    made = []
    for number in range(1, count + 1):
        at_ns = start_ns + int(number * every_s * NS_PER_S) + int(rng.integers(0, NS_PER_S))
        within = start_ns + (at_ns - start_ns) % period_ns
        quote = quotes[max(0, int(np.searchsorted(quotes["exch_ns"], within)) - 1)]
        side, rests = int(rng.choice((-1, 1))), number % 3 == 0
        near, far = (quote["px0"], quote["px1"]) if side > 0 else (quote["px1"], quote["px0"])
        if rests:
            price, lots = int(near) - side * int(rng.choice((0, 0, 0, 1, 5))), int(rng.choice((1, 40, 400)))
        else:
            price, lots = int(far) + side * int(rng.choice((0, 0, 3, 10))), int(rng.choice((1, 40, 1_500)))
        made.append((number, at_ns, side, price, lots, int(rests), at_ns + REST_NS if rests else 0))
    return np.array(made, np.int64)


def _ours(market: Market, queue: str) -> tuple[I64, I64]:
    """Play the orders through the venue of a backtest; return what peers return, and seconds by round."""
    ticks, books = np.tile(market.ticks, market.passes), market.books
    shift = np.arange(market.passes, dtype=np.int64) * market.period_ns
    for name in ("exch_ns", "recv_ns"):
        ticks[name] += np.repeat(shift, len(market.ticks))
    columns = {
        name: np.tile(getattr(books, name), (market.passes, 1))
        for name in ("bid_px", "ask_px", "bid_qty", "ask_qty")
    }
    times = {
        name: np.tile(getattr(books, name), market.passes) + np.repeat(shift, len(books))
        for name in ("recv_ns", "exch_ns")
    }
    repeated = BookSeries(**times, **columns, quality=np.tile(books.quality, market.passes))
    paper = PaperConfig(
        request=LegConfig(low_ms=REQUEST_NS / 1e6), reply=LegConfig(low_ms=0.0), leverage=125, meets="last",
        percent_price_up=10.0, percent_price_down=0.01, queue=queue,  # type: ignore[arg-type]
    )  # fmt: skip
    seconds = []
    for _ in range(ROUNDS):
        venue = Venue(
            [market.instrument],
            cost=CostConfig(taker_fee_bps=0.0, maker_fee_bps=0.0),
            paper=paper,
            start_e8=10**9 * E8,
            read_books=lambda _index, _first, _last: repeated,
        )
        venue.tape.add(ticks)
        venue.tape.tracks[0].load()
        sent = _sent(market, venue.tape.clock_ns)
        begin_s = time.perf_counter()
        _play(venue, sent)
        seconds.append(time.perf_counter() - begin_s)
    seen = np.zeros((len(market.orders), 3), np.int64)
    rows = {number: row for row, number in enumerate(market.orders[:, 0].tolist())}
    for report in venue.inbox.due(1 << 62):
        row = rows[report.order_id]
        seen[row, 0] |= report.kind in (ReportKind.ACCEPTED, ReportKind.REJECTED)
        if report.fill is not None:
            seen[row, 1] += report.fill.qty_e8 // market.instrument.step_size_e8
            seen[row, 2] = report.fill.price_e8 // market.instrument.tick_size_e8
    return seen, np.array(seconds)


def _sent(market: Market, clock_ns: I64) -> list[tuple[int, int, OrderRequest | int]]:
    """Return position, time, and the order or the number of the one to be cancelled, in the order of time."""
    tick_e8, step_e8 = market.instrument.tick_size_e8, market.instrument.step_size_e8
    made: list[tuple[int, OrderRequest | int]] = []
    for number, at_ns, side, price, lots, rests, cancel_ns in market.orders.tolist():
        tif = TimeInForce.GTX if rests else TimeInForce.IOC
        made.append(
            (at_ns, OrderRequest(number, 0, side, lots * step_e8, price * tick_e8, time_in_force=tif))
        )
        if cancel_ns:
            made.append((cancel_ns, number))
    made.sort(key=lambda each: each[0])
    positions = np.searchsorted(clock_ns, [at_ns for at_ns, _ in made]).tolist()
    return [(position, at_ns, what) for position, (at_ns, what) in zip(positions, made, strict=True)]


def _play(venue: Venue, sent: list[tuple[int, int, OrderRequest | int]]) -> None:
    for position, at_ns, what in sent:
        venue.play(position)
        if isinstance(what, int):
            venue.broker.cancel(what, at_ns)
        else:
            venue.submit(what, at_ns)
    venue.play(venue.tape.end)
    venue.drop()  # what nobody has looked at since the last order has to be read as well


def _python(module: str, folder: str) -> str | None:
    named = os.environ.get(f"GPUSCALP_{module.partition('_')[0].upper()}")
    for python in [named] if named else [sys.executable, str(ROOT / folder / "bin" / "python")]:
        if Path(python).exists() and _alone([python, "-c", f"import {module}"]).returncode == 0:
            return python
    return None


def _alone(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program that must not see this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def _peer(folder: Path, market: Market, queue: str, command: list[str]) -> dict[str, Any]:
    given, out = folder / "given.npz", folder / "seen.npz"
    unit = market.instrument
    told = market.ticks[market.ticks["kind"] != TickKind.BOOK]
    is_trade = told["kind"] == TickKind.TRADE
    lots = [np.rint(told[name] * E8 / unit.step_size_e8).astype(np.int64) for name in ("q0", "q1")]
    rows = {
        "kind": told["kind"].astype(np.int64),
        "ts": np.maximum.accumulate(told["exch_ns"]),
        "a": told["px0"],
        "qa": lots[0],
        "b": np.where(is_trade, told["side"], told["px1"]),
        "qb": lots[1],
    }
    np.savez(
        given,
        sizes=np.array([unit.tick_size, unit.step_size]),
        request_ns=REQUEST_NS,
        after_ns=AFTER_NS,
        orders=market.orders,
        passes=market.passes,
        period_ns=market.period_ns,
        queue=_WAYS[queue],
        rounds=ROUNDS,
        **{f"row_{name}": column for name, column in rows.items()},  # type: ignore[arg-type]
    )
    done = _alone([*command, str(out), str(given), *market.files])
    if done.returncode:
        raise RuntimeError(f"{command[1]}: {done.stderr[-2000:]}")
    with np.load(out) as found:
        return {key: found[key] for key in ("seen", "seconds", "events", "left_out")}


def _speed(events: int, seconds: Any) -> dict[str, Any]:
    return {
        "events": events,
        "seconds": [round(float(each), 3) for each in seconds],
        "events_per_s": round(events / min(seconds)),
    }


def _fills(seen: I64) -> dict[str, int]:
    return {"acknowledged": int(seen[:, 0].sum()), "filled": int((seen[:, 1] > 0).sum())}


def _differences(orders: I64, ours: I64, theirs: I64, rows: Any) -> dict[str, Any]:
    """Return how many orders of each kind are filled otherwise, and the first of them."""
    rests, more = orders[:, 5] > 0, np.sign(theirs[:, 1] - ours[:, 1])
    found: dict[str, Any] = {
        kind: {
            name: int((rows & (rests == at_rest) & (more == sign)).sum())
            for name, sign in (("more_there", 1), ("less_there", -1), ("price", 0))
        }
        for kind, at_rest in (("taking", False), ("resting", True))
    }
    found["first"] = [
        {"order": orders[row].tolist(), "ours": ours[row].tolist(), "theirs": theirs[row].tolist()}
        for row in np.flatnonzero(rows)[:5].tolist()
    ]
    return found


if __name__ == "__main__":
    import json

    print(json.dumps(run(), indent=2))
