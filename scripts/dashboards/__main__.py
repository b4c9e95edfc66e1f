"""Write configs/grafana/dashboards: ``python -m scripts.dashboards``."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from scripts.dashboards import data, gpu, latency, model, trading
from scripts.dashboards.panel import board

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "grafana" / "dashboards"
BOARDS = {
    "trading": ("gpuscalp: trading", "Money, positions, decisions.", trading.ROWS),
    "latency": ("gpuscalp: latency", "How long each stage takes, and what waits.", latency.ROWS),
    "data": ("gpuscalp: data quality", "Streams, connections, books, the clock.", data.ROWS),
    "model": ("gpuscalp: model", "How often it is right, and drift.", model.ROWS),
    "gpu": ("gpuscalp: GPU", "Load, memory, heat, power, faults, workers.", gpu.ROWS),
}


def texts() -> dict[str, str]:
    """Return the text of each file by its name."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {
        f"{name}.json": encoder.encode(board(f"gpuscalp-{name}", title, what, rows)) + "\n"
        for name, (title, what, rows) in BOARDS.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
