"""The picture of a session fits a terminal, whatever there is to show."""

from __future__ import annotations

import copy
import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from gpuscalp.live.view import _LINES, _STAGES, picture, shown, table
from gpuscalp.terminal import visible

# As long as the longest of the venue.
_NAMES = [f"1000000B{index:02}USDT" for index in range(40)]


def _status(count: int, *, trouble: bool = False) -> dict[str, Any]:
    """Return a status with so many connections, positions and signals, and numbers as long as they get."""
    return {
        "running": True,
        "session": "/somewhere/"
        + ("a-name-that-is-as-long-as-somebody-likes-" * 4 if trouble else "morning"),
        "market": "synthetic",
        "state": "reducing",
        "cause": "daily_loss",
        "flattening": False,
        "pnl_usdt": -1_234_567.89,
        "equity_usdt": 12_345_678.9,
        "drawdown_pct": 12.345,
        "fees_usdt": 12_345.678,
        "uptime_s": 1_234_567.0,
        "frames": 123_456_789,
        "last_frame_age_ms": 1_234.5,
        "broker": "paper",
        "device": "cuda",
        "engine": {
            "device": "cpu" if trouble else "cuda",
            "why": "cpu: worker 0 failed: hang",
            "leading": not trouble,
            "workers": [{}],
        },
        "model": {
            "bundle": "f" * 64,
            "begun_with": "0" * 64 if trouble else "f" * 64,
            "age_s": 1_234_567.0,
            "since_ns": 1_700_000_000 * 10**9,
            "reason": "the calibration of the one before had left its band",
            "by": "rule",
            "own_calibration": not trouble,
            "shadow": {"bundle": "e" * 64} if trouble else None,
        },
        "gpu": {"reasons": ["gpu0:memory"] if trouble else []},
        "score": {
            "value": 12.34,
            "lost": [{"reason": "late_predictions", "points": 12.34}] * (5 if trouble else 0),
        },
        "predictions": {"live": {"accuracy": 0.123, "base_accuracy": 0.345} if trouble else None},
        "results": {"win_ratio": 0.123 if trouble else None},
        "succession": {
            "retraining": {"state": "failed" if trouble else "idle", "reason": "exit code -9"},
            "test": {
                "rows": 123_456,
                "rows_min": 20_000,
                "log_loss": {"log10": -12.34},
                "score_bps": {"log10": 12.34},
                "needed_log10": 2.0,
            },
        },
        "batches": {"late_trades_high": trouble, "late_trade_share": 0.58 if trouble else 0.004},
        "clock": {"offset_ms": -1_234.56, "error_ms": 1.0, "drifted": trouble},
        "positions": [
            {"symbol": name, "qty": -123_456.789, "value_usdt": -12_345.6, "unrealised_usdt": -1_234.56}
            for name in _NAMES[:count]
        ],
        "open_orders": [{}] * count,
        "signals": [
            {"symbol": name, "edge_bps": -12.34, "down": 0.5, "up": 0.25, "agreement": 1.0}
            for name in _NAMES[: min(count, 20)]
        ],
        "feeds": {
            "connections": [
                {
                    "number": index,
                    "route": "public",
                    "state": "subscribing" if trouble and index == count - 1 else "live",
                    "age_s": 86_399.0,
                    "streams": 200,
                    "silent": [],
                    "reason": "not one byte in time: half open",
                }
                for index in range(count)
            ],
            "messages": {"messages": 10**10, "duplicates": 10**10, "gaps": 12_345, "rejects": 0},
            **{name: _NAMES[:count] if trouble else [] for name in ("silent", "off_tick", "unsynced")},
        },
        "health": {"device": [], "venue": [], "rules": _NAMES[:count] if trouble else []},
        "latency_ms": {stage: {"p50": 1_234.5, "p99": None} for stage in _STAGES},
    }


def _drawn(shown: Any, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(shown)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("trouble", [False, True])
@pytest.mark.parametrize("count", [0, 1, 4, 12, 40])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (200, 60)])
def test_the_picture_fits_the_terminal(count: int, trouble: bool, width: int, height: int) -> None:
    lines = _drawn(picture(_status(count, trouble=trouble), rows=height - _LINES), width)
    assert len(lines) < height  # the cursor stands below
    assert max(len(line) for line in lines) <= width


@pytest.mark.parametrize("count", [1, 4, 12, 40])
def test_what_does_not_find_room_is_counted_and_trouble_is_never_left_out(count: int) -> None:
    text = "\n".join(_drawn(picture(_status(count, trouble=True), rows=6), 80))
    assert f"{count - 1} public" in text
    assert "subscribing" in text
    assert "the clock is not to be trusted" in text
    assert text.count("-123457") == text.count("-1,234.56") == text.count("-12.34")
    positions = text.count("-123457")
    assert positions == (count if count <= 6 else 5)
    # Positions and signals; connections.
    assert len(re.findall(r"\+\d+ more", text)) == 2 * (count > 6) + (count > 8)


def test_trades_that_come_too_late_are_told() -> None:
    status = _status(0) | {"batches": {"late_trades_high": True, "late_trade_share": 0.58}}
    assert "58% of trades come too late for their frames" in "\n".join(_drawn(picture(status), 80))
    assert "too late" not in "\n".join(_drawn(picture(_status(0)), 80))


def test_the_last_line_says_where_orders_go() -> None:
    """It said that no order leaves this machine while orders went to an exchange."""
    assert "no order leaves this machine" in _drawn(picture(_status(1)), 80)[-1]
    account = {"where": "testnet", "strangers": "", "error": ""}
    lines = _drawn(picture(_status(40) | {"broker": "nautilus", "account": account}, rows=4), 80)
    assert lines[-1] == "REAL ORDERS (testnet). Ctrl-C stops: entries are cancelled, positions stay."
    assert "leaves" not in "\n".join(lines)
    assert len(lines) < 24


def test_a_session_that_does_not_run_is_shown_as_it_last_stood() -> None:
    lines = _drawn(table(_status(1) | {"running": False, "reason": "SIGTERM"}), 80)
    assert lines[0] == "Not running. As it last stood (SIGTERM):"
    assert "REDUCING (daily loss)" in lines[1]


def test_what_a_process_that_is_gone_has_said_bears_its_date_and_no_age_that_still_grows() -> None:
    """`status` of a session that had been dead for hours said "the last 49 ms ago"."""
    ended = _status(1) | {"running": False, "reason": "SIGTERM", "written_ns": 1_700_000_000 * 10**9}
    lines = _drawn(table(ended, now_ns=1_700_000_119 * 10**9), 100)
    assert lines[0] == "Not running. As it stood at 2023-11-14 22:13:20 UTC, 1 min ago (SIGTERM):"
    text = "\n".join(lines[1:])
    assert "was up 14 days, 6:56:07  123,456,789 frames  clock" in text
    assert " ago" not in text
    assert " old" not in text
    for later_s, age in ((-5, "0 s"), (59, "59 s"), (7_199, "1 h"), (86_400, "1 d")):
        lines = _drawn(table(ended, now_ns=(1_700_000_000 + later_s) * 10**9), 100)
        assert f" UTC, {age} ago (" in lines[0]
    assert ", the last 1,234 ms ago" in "\n".join(_drawn(table(_status(1)), 100))


def test_the_picture_says_which_session_it_is_and_that_its_market_is_made_up() -> None:
    """Four sessions on four terminals looked the same, and a made-up market like a real one."""
    assert _drawn(picture(_status(1)), 80)[1] == "morning  synthetic market  paper, cuda"
    line = _drawn(picture(_status(1, trouble=True)), 80)[1]
    assert line.startswith("a-name-that-is")
    assert line.endswith("…  synthetic market  paper, cpu")


# What an exchange, a file or another version may say: markup that closes nothing, a title, a colour.
_FOREIGN = "failed: no space left on [/data/session] \x1b]0;title\x07 \x9b31m"
_SHOWN = r"failed: no space left on [/data/session] \x1b]0;title\x07 \x9b31m"


def test_text_of_a_status_is_shown_and_never_obeyed() -> None:
    """`status` ended with a traceback: the reason was read as markup. Escape sequences were passed on."""
    status = _status(1, trouble=True) | {"running": False, "reason": _FOREIGN, "state": f"{_FOREIGN} 1"}
    status |= {"cause": f"{_FOREIGN} 2", "broker": f"{_FOREIGN} 3", "account": None}
    status["feeds"]["connections"][0] |= {"state": f"{_FOREIGN} 4", "reason": f"{_FOREIGN} 5"}
    status["positions"][0]["symbol"] = f"{_FOREIGN} 6"
    lines = _drawn(table(status), 1_000)
    text = "\n".join(lines)
    assert lines[0] == f"Not running. As it last stood ({_SHOWN}):"
    for number in range(2, 7):
        assert f"{_SHOWN} {number}" in text
    assert visible(f"{_FOREIGN} 1".upper()) in text
    del status["equity_usdt"]
    text += "\n".join(_drawn(table(status), 1_000))
    assert text.count(f"{_SHOWN} 1\n") == 1  # as another version wrote it
    assert text.replace("\n", "").isprintable()


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of everything in a status."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield (*path, name)
        yield from _places(each, (*path, name))


@pytest.mark.parametrize("odd", ["x", None, [], {}, -1, 10**30, 1e308, True])
def test_status_that_a_disk_has_changed_is_shown_all_the_same(odd: Any) -> None:
    """`status` of a session that had died was a traceback where one value was of another type."""
    whole = _status(1) | {"running": False, "reason": "SIGTERM"}
    for *path, name in list(_places(whole)):
        status = copy.deepcopy(whole)
        place: Any = status
        for step in path:
            place = place[step]
        place[name] = odd
        if name != "running":  # what reads the file sets it
            assert "Not running" in "\n".join(_drawn(table(status, now_ns=1), 200)), (path, name)


@pytest.mark.parametrize("running", [False, True])
def test_what_another_version_wrote_is_shown_all_the_same(running: bool) -> None:
    """`status` failed on a session that had ended before there was a score."""
    whole = _status(1) | {"running": running, "session": "s", "pid": 7}
    for key in whole.keys() - {"running"}:
        old = {name: value for name, value in whole.items() if name != key}
        text = "\n".join(_drawn(table(old), 80))
        assert ("Not running" in text) is not running
        assert "12,345,678.90" in text or "12345678.9" in text or key == "equity_usdt"
    text = "\n".join(_drawn(table({"running": running, "state": "halted", "pnl_usdt": -1.5}), 80))
    assert re.search(r"state +halted", text)
    assert re.search(r"pnl usdt +-1.5", text)
    assert "Another version" in text


def test_a_device_that_is_not_trusted_or_not_there_is_named() -> None:
    text = "\n".join(_drawn(picture(_status(0, trouble=True), rows=6), 200))
    assert "gpu0:memory" in text
    assert "worker 0 failed: hang" in text
    assert "paper, cpu" in text
    assert "paper, cuda" in "\n".join(_drawn(picture(_status(0), rows=6), 200))


def test_a_model_that_has_come_since_is_shown_with_the_reason_and_the_shadow() -> None:
    text = "\n".join(_drawn(picture(_status(0, trouble=True), rows=6), 200))
    assert "model ffffffffffff, 342.9 h old, recalibrated, leads since 22:13:20 UTC (the calibration" in text
    assert "; shadow eeeeeeeeeeee" in text
    assert "342.9 h old\n" in "\n".join(_drawn(picture(_status(0), rows=6), 200)) + "\n"


def test_how_retraining_and_the_shadow_stand_is_shown() -> None:
    status = _status(0, trouble=True)
    text = "\n".join(_drawn(picture(status, rows=6), 400))
    assert "eeeeeeeeeeee: 123,456 of 20,000 rows, evidence 10^-12.3, 10^12.3 of 10^2.0" in text
    assert "retraining failed: exit code -9" in text
    status["succession"]["retraining"]["state"] = "running"
    assert "a new one is being trained" in "\n".join(_drawn(picture(status, rows=6), 400))


def test_the_score_is_shown_with_its_dearest_reasons() -> None:
    text = "\n".join(_drawn(picture(_status(0, trouble=True), rows=6), 200))
    assert (
        "score 12.3 (late predictions −12.34, late predictions −12.34, late predictions −12.34 and 2 more)"
        in text
    )
    assert "accuracy 0.123 of base 0.345  won 12%" in text
    assert "score 12.3\n" in "\n".join(_drawn(picture(_status(0), rows=6), 200)) + "\n"


def test_a_terminal_that_takes_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-S, or a line that hung, stopped the session: no message, no order, no answer to a command."""
    goes_on, freed = threading.Event(), list[bool]()
    monkeypatch.setattr(Live, "update", lambda *_, **__: freed.append(goes_on.wait(5)))
    with shown(True) as show:
        assert show is not None
        for _ in range(3):
            show(_status(0))
        goes_on.set()
    assert freed
    assert all(freed)


def test_what_a_terminal_fails_of_is_raised_with_a_later_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no terminal any more")

    monkeypatch.setattr(Live, "update", fail)

    def wait(show: Callable[[dict[str, Any]], None]) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            show(_status(0))
            time.sleep(0.001)

    with shown(True) as show:
        assert show is not None
        with pytest.raises(OSError, match="no terminal"):
            wait(show)
