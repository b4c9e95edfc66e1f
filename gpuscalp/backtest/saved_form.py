"""The form of a finished run's JSON files, as far as anything reads them.

Owns: which entries must be there, and of which type. Never: holds a run: readers take the files as they are,
with whatever else is in them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from gpuscalp.backtest.band import Assumptions, Figures
from gpuscalp.backtest.summary import Scope
from gpuscalp.errors import UNREADABLE, DataError

_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Held(msgspec.Struct):
    # In the order of ``band.DIMENSIONS``.
    levels: dict[str, str]


class _Band(msgspec.Struct):
    cells: _Count
    earning_cells: _Count
    worst: dict[str, Any]
    hardest: dict[str, Any]
    base: dict[str, Any]
    best: dict[str, Any]
    warnings: list[str]


class _Like(msgspec.Struct):
    session: str
    session_frames: _Count
    frames: _Count
    frames_differing: _Count


class ResultForm(msgspec.Struct):
    """result.json."""

    report: str
    venue: str
    symbols: list[str]
    start: str
    end: str
    data_digest: str
    warnings: list[str]
    start_usdt: float
    pnl_usdt: float
    gross_usdt: float
    delay_usdt: float
    spread_usdt: float
    impact_usdt: float
    fees_usdt: float
    funding_usdt: float
    unclosed_usdt: float
    turnover_usdt: float
    cancelled_usdt: float
    max_drawdown_pct: float
    trades: _Count
    trials: _Count
    sharpe_interval_s: _Count
    sharpe: float | None
    sharpe_error: float | None
    deflated_sharpe: float | None
    hit_rate: float | None
    hit_rate_low: float | None
    hit_rate_high: float | None
    mean_pnl_usdt: float | None
    mean_pnl_low_usdt: float | None
    mean_pnl_high_usdt: float | None
    intents: dict[str, _Count]
    no_intent: dict[str, _Count]
    refusals: dict[str, _Count]
    orders: dict[str, _Count]
    rejections: dict[str, _Count]
    band: _Band | msgspec.UnsetType = msgspec.UNSET
    like: _Like | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if self.band is msgspec.UNSET:
            return
        for row in (self.band.worst, self.band.hardest, self.band.best):
            msgspec.convert(row, Assumptions)
            msgspec.convert(row, Figures)
        msgspec.convert(self.band.base, Figures)
        msgspec.convert(self.band.base, _Held)


class _Executor(msgspec.Struct):
    name: str
    book: str = ""
    read_from_ns: int | None = None


class ConfigForm(msgspec.Struct):
    """config.json."""

    backtest: dict[str, Any]
    scope: Scope
    version: str
    hash: str
    executor: _Executor | None = None


def read_form(path: Path, form: type[ResultForm | ConfigForm]) -> dict[str, Any]:
    """Return a file of a run.

    Raises
    ------
    DataError    it cannot be read, or what is read of it is not of ``form``
    """
    try:
        data = path.read_bytes()
        msgspec.json.decode(data, type=form)
        found: dict[str, Any] = msgspec.json.decode(data)
    except (OSError, *UNREADABLE) as error:
        raise unreadable(path, str(error)) from error
    return found


def unreadable(path: Path, why: str) -> DataError:
    return DataError(
        "a file of the run cannot be read", where=str(path), value=why, fix="run the backtest again"
    )
