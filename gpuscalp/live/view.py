"""A session on a terminal: what a person wants to see while it runs.

Owns: the picture of a status (gpuscalp.live.status). It fits 80 columns and 24 lines: what does not find room
is counted. Never: computes what is shown; takes a text of a status for markup, or lets the terminal obey it.
rich is imported when something is drawn.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from gpuscalp.schema import NS_PER_S
from gpuscalp.terminal import visible
from gpuscalp.times import utc

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

_COLOURS: Final = {"active": "bold green", "reducing": "bold yellow", "halted": "bold red"}
_STAGES: Final = ("receive", "decode", "batch", "features", "predict", "gate", "order", "total")
_ROWS_MAX: Final = 20
# Lines of the picture beside positions and signals; one more where there are doubts, one for the cursor.
_LINES: Final = 20
# Columns that every terminal has.
_WIDTH: Final = 80
_PAPER: Final = "Paper: no order leaves this machine. Ctrl-C stops; positions stay."
_REAL: Final = "REAL ORDERS ({where}). Ctrl-C stops: entries are cancelled, positions stay."


@contextmanager
def shown(
    on: bool, *, before: Callable[[], None] | None = None
) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """Yield a function that shows a status in place of the one before; None where nothing is to be shown.

    It never waits: a terminal that takes nothing (Ctrl-S, a line that hangs) must not hold a session up. What
    it cannot show yet is left out, and what went wrong with one status it raises with a later one.

    Parameters
    ----------
    before : called once, when the first status comes: what was on the terminal makes room
    """
    if not on:
        yield None
        return
    from rich.live import Live

    live = Live(auto_refresh=False, transient=True)
    waiting: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    errors: deque[Exception] = deque(maxlen=1)

    def draw() -> None:
        while (status := waiting.get()) is not None:
            try:
                if not live.is_started:
                    if before is not None:
                        before()
                    live.start()
                live.update(picture(status, rows=live.console.size.height - _LINES), refresh=True)
            except Exception as error:
                errors.append(error)

    def show(status: dict[str, Any]) -> None:
        if errors:
            raise errors.pop()
        if waiting.empty():
            waiting.put(status)

    drawing = threading.Thread(target=draw, name="terminal", daemon=True)
    drawing.start()
    try:
        yield show
    finally:
        waiting.put(None)
        drawing.join()
        live.stop()


def table(status: dict[str, Any], *, now_ns: int | None = None) -> Group:
    """Return a status for a command that prints it once.

    Another version may have written it, or a disk have changed it: what lacks something that the picture
    needs is listed plainly.

    Parameters
    ----------
    now_ns : for the age of what a process that is gone has said; None: not told
    """
    from rich.console import Group
    from rich.text import Text

    try:
        shown = picture(status, hint=False)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        shown = _listed(status)
    if status["running"]:
        return shown
    why = status.get("reason") or "it gave no reason"
    return Group(Text(visible(f"Not running. As it {_stood(status, now_ns)} ({why}):")), shown)


def _stood(status: dict[str, Any], now_ns: int | None) -> str:
    """Return when a status was written: "last stood" where it does not say so itself."""
    written_ns = status.get("written_ns")
    if not isinstance(written_ns, int):
        return "last stood"
    age = "" if now_ns is None else f", {_age((now_ns - written_ns) / NS_PER_S)} ago"
    return f"stood at {utc(written_ns)} UTC{age}"


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _listed(status: dict[str, Any]) -> Group:
    """Return the single values of a status, whatever they are."""
    from rich.console import Group
    from rich.text import Text

    drawn = _plain("", "")
    for name, value in status.items():
        if isinstance(value, str | int | float) and name != "running":
            drawn.add_row(_line(name.replace("_", " ")), Text(visible(str(value))))
    return Group(drawn, "Another version of gpuscalp wrote it, or it is damaged; --json shows all of it.")


def picture(status: dict[str, Any], *, rows: int = _ROWS_MAX, hint: bool = True) -> Group:
    """Return the whole picture.

    Parameters
    ----------
    rows : of positions and of signals, at most
    hint : say where orders go, and how it is stopped
    """
    from rich.console import Group

    rows = max(1, min(rows, _ROWS_MAX))
    parts: list[Any] = [_money(status), _who(status), _time(status), _pair(_feeds(status), _latency(status))]
    parts += [_counts(status), _score(status), _model(status)]
    doubts = _doubts(status)
    if doubts:
        parts.append(_line(doubts, style="bold red"))
    parts += ["", _pair(_positions(status, rows), _signals(status, rows))]
    if hint:
        parts.append(_hint(status))
    return Group(*parts)


def _hint(status: dict[str, Any]) -> Text:
    paper = status["broker"] == "paper"
    text = _PAPER if paper else _REAL.format(where=status["account"]["where"])
    return _line(text, style="dim" if paper else "bold red")


def _money(status: dict[str, Any]) -> Text:
    from rich.text import Text

    state = Text(visible(status["state"].upper()), style=_COLOURS.get(status["state"], ""))
    why = "flattening" if status["flattening"] else status["cause"]
    if why:
        state.append(visible(f" ({why.replace('_', ' ')})"), style="dim")
    return Text.assemble(
        state,
        f"  {status['pnl_usdt']:+,.2f} USDT  equity {status['equity_usdt']:,.2f}"
        f"  drawdown {status['drawdown_pct']:.2f} %  fees {status['fees_usdt']:,.2f}",
        no_wrap=True,
        overflow="ellipsis",
    )


def _who(status: dict[str, Any]) -> Text:
    """Return which session it is, and what of it is real. A long name gives way to that."""
    market = f"{status['market']} market"
    name = Path(status["session"]).name or status["session"]
    text = f"  {market}  {status['broker']}, {status['engine']['device']}"
    return _line(_cut(name, _WIDTH - len(text)) + text)


def _time(status: dict[str, Any]) -> Text:
    """Return how long it has been up. Ages are left out where nobody lets them grow any more."""
    age, offset = status["last_frame_age_ms"], status["clock"]["offset_ms"]
    running = status["running"]
    last = f", the last {age:,.0f} ms ago" if running and age is not None else ""
    clock = "unknown" if offset is None else f"{offset:+.1f} ms"
    up = timedelta(seconds=int(status["uptime_s"]))
    text = f"{'up' if running else 'was up'} {up}  {status['frames']:,} frames{last}  clock {clock}"
    return _line(text)


def _counts(status: dict[str, Any]) -> Text:
    counts = status["feeds"]["messages"]
    return _line(
        f"{counts['messages']:,} messages, {counts['duplicates']:,} copies, {counts['gaps']:,} gaps,"
        f" {counts['rejects']:,} rejects; {len(status['open_orders'])} orders open",
        style="dim",
    )


def _score(status: dict[str, Any]) -> Text:
    """Return how well it does, and the dearest reasons why not better."""
    score, live = status["score"], status["predictions"]["live"]
    text = f"score {score['value']:.1f}"
    if score["lost"]:
        shown = [f"{each['reason'].replace('_', ' ')} −{each['points']:g}" for each in score["lost"]]
        text += f" ({_some(shown)})"
    if live is not None:
        text += f"  accuracy {live['accuracy']:.3f} of base {live['base_accuracy']:.3f}"
    ratio = status["results"]["win_ratio"]
    if ratio is not None:
        text += f"  won {ratio:.0%}"
    return _line(text, style="dim")


def _model(status: dict[str, Any]) -> Text:
    """Return which model leads, since when if it is not the first, and which one is in the shadow."""
    model, shadow = status["model"], status["model"]["shadow"]
    text = f"model {model['bundle'][:12]}"
    if status["running"]:
        text += f", {model['age_s'] / 3_600:,.1f} h old"
    if not model["own_calibration"]:
        text += ", recalibrated"
    if model["bundle"] != model["begun_with"]:
        text += f", leads since {_clock(model['since_ns'])} ({model['reason'] or model['by']})"
    if shadow is not None:
        text += f"; shadow {shadow['bundle'][:12]}"
        if (test := status["succession"]["test"]) is not None:
            rows, of, needed = test["rows"], test["rows_min"], test["needed_log10"]
            figures = (test[name]["log10"] for name in ("log_loss", "score_bps"))
            text += f": {rows:,} of {of:,} rows, evidence 10^" + ", 10^".join(
                f"{each:.1f}" for each in figures
            )
            text += f" of 10^{needed:.1f}"
    if status["succession"]["retraining"]["state"] == "running":
        text += "; a new one is being trained"
    return _line(text, style="dim")


def _clock(at_ns: int | None) -> str:
    return "its beginning" if at_ns is None else f"{datetime.fromtimestamp(at_ns / 1e9, UTC):%H:%M:%S} UTC"


def _doubts(status: dict[str, Any]) -> str:
    """Return in one line what keeps entries or a device away, the most general first."""
    feeds = status["feeds"]
    found = []
    if status["clock"]["drifted"]:
        found.append("the clock is not to be trusted")
    if status["batches"]["late_trades_high"]:
        found.append(f"{status['batches']['late_trade_share']:.0%} of trades come too late for their frames")
    account = status.get("account")  # of orders that go to an exchange
    if account is not None and account["strangers"]:
        found.append(f"nobody here knows: {account['strangers']}")
    if account is not None and account["error"]:
        found.append(f"the account cannot be looked at: {account['error']}")
    retraining = status["succession"]["retraining"]
    if retraining["state"] == "failed":
        found.append(f"retraining failed: {retraining['reason']}")
    if status["gpu"] is not None and status["gpu"]["reasons"]:
        found.append(f"GPU: {_some(status['gpu']['reasons'])}")
    if status["engine"]["workers"] and not status["engine"]["leading"]:
        found.append(status["engine"]["why"])
    for each in feeds["connections"]:
        if each["state"] != "live":
            found.append(f"{each['number']} {each['route']}: {each['reason'] or each['state']}")
            break
    if feeds["silent"]:
        found.append(f"silent: {_some(feeds['silent'])}")
    if feeds["off_tick"]:
        found.append(f"prices off the tick size: {_some(feeds['off_tick'])}")
    if rules := status["health"].get("rules"):
        found.append(f"closed, or other rules at the venue: {_some(rules)}")
    if feeds["unsynced"]:
        found.append(f"books to come: {_some(feeds['unsynced'])}")
    return "; ".join(found)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 1, 1)]}…"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _pair(left: Table, right: Table) -> Table:
    """Return two tables side by side."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 3))
    grid.add_row(left, right)
    return grid


def _plain(title: str, *columns: str) -> Table:
    """Return a table without lines; the first column to the left, numbers to the right."""
    from rich.table import Table

    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    # The one that gives way where there is no room: a name can be cut, a number must not be.
    drawn.add_column(title, no_wrap=False, min_width=9)
    for name in columns:
        drawn.add_column(name, justify="right", no_wrap=True)
    return drawn


def _line(text: str, *, style: str = "") -> Text:
    """Return a line or a cell that is cut rather than folded."""
    from rich.text import Text

    return Text(visible(text), style=style, no_wrap=True, overflow="ellipsis")


def _more(drawn: Table, count: int, rows: int) -> None:
    """Say how many did not find room."""
    if count > rows:
        drawn.add_row(_line(f"+{count - rows} more"), style="dim")


def _room(count: int, rows: int) -> int:
    """Return how many of so many are shown: all, or one less than there are rows."""
    return count if count <= rows else max(rows - 1, 0)


def _feeds(status: dict[str, Any]) -> Table:
    drawn = _plain("Connections", "state", "age, s", "streams", "silent")
    # Those that are in trouble must not be the ones that are left out.
    found = sorted(
        status["feeds"]["connections"], key=lambda each: each["state"] == "live" and not each["silent"]
    )
    count = _room(len(found), len(_STAGES))
    for each in sorted(found[:count], key=lambda each: each["number"]):
        colour = "" if each["state"] == "live" and not each["silent"] else "red"
        drawn.add_row(
            _line(f"{each['number']} {each['route']}"),
            _line(each["state"]),
            f"{each['age_s']:,.0f}",
            str(each["streams"]),
            str(len(each["silent"])),
            style=colour,
        )
    _more(drawn, len(found), count)
    return drawn


def _latency(status: dict[str, Any]) -> Table:
    drawn = _plain("Latency, ms", "p50", "p99")
    for stage in _STAGES:
        found = status["latency_ms"][stage]
        drawn.add_row(stage, *("" if value is None else f"{value:,.2f}" for value in found.values()))
    return drawn


def _positions(status: dict[str, Any], rows: int) -> Table:
    drawn = _plain("Positions", "quantity", "USDT", "result")
    found = sorted(status["positions"], key=lambda each: -abs(each["value_usdt"]))
    count = _room(len(found), rows)
    for each in found[:count]:
        drawn.add_row(
            _line(each["symbol"]),
            f"{each['qty']:+g}",
            f"{each['value_usdt']:,.0f}",
            f"{each['unrealised_usdt']:+,.2f}",
        )
    if not found:
        drawn.add_row("none", style="dim")
    _more(drawn, len(found), count)
    return drawn


def _signals(status: dict[str, Any], rows: int) -> Table:
    drawn = _plain("Signals", "bps", "prob.", "agree")
    found = status["signals"]  # the strongest first
    count = _room(len(found), rows)
    for each in found[:count]:
        drawn.add_row(
            _line(each["symbol"]),
            f"{each['edge_bps']:+.2f}",
            f"{each['up' if each['edge_bps'] > 0 else 'down']:.2f}",  # of the side that the edge is on
            f"{each['agreement']:.2f}",
        )
    if not found:
        drawn.add_row("none", style="dim")
    _more(drawn, len(found), count)
    return drawn
