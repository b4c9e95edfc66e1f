"""``walkforward`` as it is printed. tests/walkforward runs it."""

from __future__ import annotations

import io

from rich.console import Console

from gpuscalp.cli.walkforward import _text


def test_steps_say_that_their_times_are_utc():
    step = {
        "step": 1, "test_start": "2024-01-01 07:53:05", "test_end": "2024-01-01 07:58:02", "trades": 7,
        "pnl_usdt": 0.2722, "gross_usdt": 0.7681, "fees_usdt": 0.2797,
    }  # fmt: skip
    summary = {
        "steps": [step], "overfitting": None, "random_entries": None, "pnl_usdt": 0.2722,
        "pnl_low_usdt": None, "pnl_high_usdt": None, "trades": 7, "trials": 2, "deflated_sharpe": None,
        "break_even_bps": None, "report": "r", "warnings": [],
    }  # fmt: skip
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(_text(summary))
    header, row = (line.split() for line in console.export_text().splitlines()[:2])
    assert header == ["step", "from,", "UTC", "to,", "UTC", "trades", "P&L,", "USDT", "gross", "fees"]
    assert row == [
        "1", "2024-01-01", "07:53:05", "2024-01-01", "07:58:02", "7", "+0.2722", "+0.7681", "-0.2797",
    ]  # fmt: skip
