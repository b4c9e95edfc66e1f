"""A small made-up market as recording lines, for tests that need to know every row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

START_NS = 1_721_347_140 * 10**9  # 2024-07-18 23:59:00 UTC


def lines(
    count: int, *, symbol: str = "BTCUSDT", start_ns: int = START_NS, step_ns: int = 10**8
) -> list[bytes]:
    """Return a REST snapshot and ``count`` messages: depth, bookTicker, trade in turn, ids unbroken.

    Received 1 ms after they were sent.
    """
    stream = symbol.lower()
    book = {"lastUpdateId": 99, "bids": [["100.0", "1"]], "asks": [["100.2", "1"]]}
    out = [_line(start_ns, book)]
    for number in range(count):
        now = start_ns + (number + 1) * step_ns
        sent = {"E": now // 10**6 - 1, "T": now // 10**6 - 1, "s": symbol}
        which, turn = number % 3, number // 3
        if which == 0:
            ids = {"U": 100 + turn, "u": 100 + turn, "pu": 99 + turn}
            data = {"e": "depthUpdate", **sent, **ids, "b": [["100.0", str(1 + turn % 7)]], "a": []}
            name = "depth@100ms"
        elif which == 1:
            quote = {"b": "100.0", "B": str(1 + turn % 7), "a": "100.2", "A": "2"}
            data, name = {"e": "bookTicker", "u": 100 + turn, **sent, **quote}, "bookTicker"
        else:
            deal = {
                "t": 500 + turn,
                "p": "100.1",
                "q": f"0.{turn % 9 + 1}",
                "X": "MARKET",
                "m": turn % 2 == 0,
            }
            data, name = {"e": "trade", **sent, **deal}, "trade"
        out.append(_line(now, {"stream": f"{stream}@{name}", "data": data}))
    return out


def write(path: Path, content: list[bytes]) -> Path:
    """Write lines, gzipped where the name says so."""
    data = b"\n".join(content) + b"\n"
    path.write_bytes(gzip.compress(data, 1, mtime=0) if path.suffix == ".gz" else data)
    return path


def _line(recv_ns: int, message: dict[str, Any]) -> bytes:
    return f"{recv_ns} {json.dumps(message, separators=(',', ':'))}".encode()
