"""A scripted market as a raw recording, and a model that trades on it, for the tests of sessions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpuscalp.config import FeatureConfig, LabelConfig, LiveConfig, TrainConfig, load
from gpuscalp.contract import Interval
from gpuscalp.drift.guard import Guard
from gpuscalp.drift.reference import Reference
from gpuscalp.drift.stability import Distribution
from gpuscalp.live.replay import run_replay
from gpuscalp.schema import E8, NS_PER_MS, NS_PER_S, Instrument
from tests.handmade import DROP, follows, write_handmade

START_MS = 1_721_347_140_000  # 2024-07-18 23:59:00 UTC
SYMBOLS = ("BTCUSDT", "ETHUSDT")
# Tick 0.1, step 0.001.
INSTRUMENTS = tuple(
    Instrument(symbol, "binance_usdm", E8 // 10, E8 // 1_000, E8 // 1_000, 5 * E8, "exchange_info")
    for symbol in SYMBOLS
)
_MID = {"BTCUSDT": 600_000, "ETHUSDT": 30_000}


def write_recording(path: Path, *, seconds: int, seed: int = 1, step_ms: int = 25) -> Path:
    """Write a random market of two symbols: snapshots, then quotes, trades, depth and marks; ids unbroken."""
    rng = np.random.default_rng(seed)
    lines: list[str] = []
    mid, ids = dict(_MID), dict.fromkeys(SYMBOLS, 100)
    trades, seen = dict.fromkeys(SYMBOLS, 0), dict.fromkeys(SYMBOLS, 99)

    def put(ms: float, message: dict[str, Any]) -> None:
        # Received up to 3 ms after it was sent, in order.
        recv_ns = round(ms * NS_PER_MS) + 1_000_000 + len(lines)
        lines.append(f"{recv_ns} {json.dumps(message, separators=(',', ':'))}")

    for symbol in SYMBOLS:
        book = {
            "lastUpdateId": 99,
            "bids": [[f"{(mid[symbol] - n) / 10:.1f}", "2"] for n in range(1, 200)],
            "asks": [[f"{(mid[symbol] + n) / 10:.1f}", "2"] for n in range(1, 200)],
        }
        url = f"https://fapi.binance.com/fapi/v1/depth?symbol={symbol}&limit=1000"
        lines.append(f"{url} -> {START_MS // 1_000}.0001: {json.dumps(book)}")
    for ms in range(START_MS, START_MS + seconds * 1_000, step_ms):
        for symbol in SYMBOLS:
            stream, head = symbol.lower(), {"E": ms, "T": ms, "s": symbol}
            mid[symbol] += int(rng.integers(-1, 2))
            bid, ask = f"{(mid[symbol] - 1) / 10:.1f}", f"{(mid[symbol] + 1) / 10:.1f}"
            ids[symbol] += 1
            number = ids[symbol]
            quote = {"b": bid, "B": f"{rng.integers(1, 9)}.5", "a": ask, "A": f"{rng.integers(1, 9)}.25"}
            put(
                ms,
                {"stream": f"{stream}@bookTicker", "data": {"e": "bookTicker", "u": number, **head, **quote}},
            )
            if rng.random() < 0.4:
                trades[symbol] += 1
                bought = rng.random() < 0.5
                deal = {"t": trades[symbol], "p": ask if bought else bid, "q": f"0.{rng.integers(1, 9)}"}
                data = {"e": "trade", **head, **deal, "X": "MARKET", "m": not bought}
                put(ms, {"stream": f"{stream}@trade", "data": data})
            if ms % 100 == 0:
                chain = {"U": seen[symbol] + 1, "u": number, "pu": seen[symbol]}
                seen[symbol] = number
                # Four levels a side anew, and what the market has moved over is gone.
                levels = {
                    side: [
                        [f"{(mid[symbol] + sign * n) / 10:.1f}", f"{rng.integers(1, 5)}.5"]
                        for n in range(1, 5)
                    ]
                    + [[f"{(mid[symbol] - sign * n) / 10:.1f}", "0"] for n in range(6)]
                    for side, sign in (("b", -1), ("a", 1))
                }
                data = {"e": "depthUpdate", **head, **chain, **levels}
                put(ms, {"stream": f"{stream}@depth@100ms", "data": data})
            if ms % 1_000 == 0:
                mark = {"p": f"{mid[symbol] / 10:.2f}", "i": f"{mid[symbol] / 10:.2f}", "r": "0.0001"}
                funding = {
                    "T": START_MS + 30_000 if ms < START_MS + 30_000 else START_MS + 30_000 + 28_800_000
                }
                data = {"e": "markPriceUpdate", **head, **mark, **funding}
                put(ms, {"stream": f"{stream}@markPrice@1s", "data": data})
    path.write_text("\n".join(lines) + "\n")
    return path


def guarded(names: list[str], *, limit: float = 0.15) -> Reference:
    """Return a guard for which rows whose imbalance is far from 0.4 or -0.4 are outliers."""
    column = names.index("queue_imbalance.last")
    guard = Guard(
        np.array([column], np.int32),
        np.zeros(1, np.float32),
        np.ones(1, np.float32),
        np.array([[-0.4, 0.4]], np.float32),
        limit,
    )
    x = np.zeros((4, len(names)), np.float32)
    return Reference(Distribution.of(x), x, np.zeros(4, np.int64), None, guard)


def write_model(
    path: Path,
    *,
    threshold: float = 0.2,
    reference: Callable[[list[str]], Reference] | None = None,
    column: str = "queue_imbalance.last",
    add: tuple[str, ...] = (),
) -> Path:
    """Write a bundle that follows the imbalance of the best quotes, warm after a few seconds."""
    end_ns = START_MS * NS_PER_MS - NS_PER_S
    return write_handmade(
        path,
        TrainConfig(
            venue="binance_usdm",
            symbols=SYMBOLS,
            features=FeatureConfig(leader=SYMBOLS[0], drop=DROP, add=add),
            label=LabelConfig(horizon_ms=500),
        ),
        lambda names: follows(names.index(column), len(names), threshold),
        trained_on=Interval(end_ns - 3_600 * NS_PER_S, end_ns),
        returns_bps=(-30.0, 0.0, 30.0),
        reference=reference,
    )


def write_exchange_info(path: Path) -> Path:
    """Write what the venue says about both symbols."""
    filters = [
        {"filterType": "PRICE_FILTER", "tickSize": "0.1"},
        {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001"},
        {"filterType": "MIN_NOTIONAL", "notional": "5"},
    ]
    path.write_text(json.dumps({"symbols": [{"symbol": name, "filters": filters} for name in SYMBOLS]}))
    return path


def trading_config(**overrides: object) -> LiveConfig:
    """Return a configuration that trades at every opportunity."""
    return load(
        LiveConfig,
        overrides={
            "strategy.min_confidence": 0.0,
            "strategy.min_agreement": 0.0,
            "risk.min_confidence": 0.0,
            "risk.max_losses": "off",
            "sizing.kelly_fraction": "off",
            **overrides,
        },
    )


class KilledError(Exception):
    """Stands for a kill -9 in the middle of a replay: nothing of the session is closed or flushed."""


class Material(NamedTuple):
    """What sessions are replayed from: a recording, a model, and what the venue says of the symbols."""

    recording: Path
    model: Path
    info: Path

    @classmethod
    def of(cls, folder: Path) -> Material:
        return cls(folder / "market.txt", folder / "model", folder / "info.json")

    def replay(
        self, path: Path, changes: Mapping[str, object] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Replay the recording into a session that trades; ``changes`` of its configuration."""
        return run_replay(
            [self.recording],
            path,
            model=self.model,
            config=trading_config(**(changes or {})),
            exchange_info=self.info,
            **options,
        )


def write_material(folder: Path, *, seconds: int, step_ms: int = 25) -> Material:
    material = Material.of(folder)
    write_recording(material.recording, seconds=seconds, step_ms=step_ms)
    write_model(material.model)
    write_exchange_info(material.info)
    return material
