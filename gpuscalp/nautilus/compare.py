"""A backtest of ours and one in NautilusTrader, order by order: what the fills make of the difference.

Owns: pairing the orders, splitting the difference of the results without a remainder, and the cause of each
fill that differs, found by holding it against the recorded books. Never: imports NautilusTrader, or fills.

Both runs see the same signals. As long as their fills agree they send the same orders; after one that
differs, positions and sizes may, so an order of one run may be missing in the other. A fill of quantity q on
side s at price p, decided on at the mid m, moves −s·q·m, which differs only where quantities do, and
−s·q·(p − m) less its fee. Nothing else but funding and positions that are left open makes money: the sum of
the parts is the difference, to 1e-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from gpuscalp.account import divide_half_even
from gpuscalp.archive import Archive
from gpuscalp.backtest.saved import SavedRun, exact_utc, times, units
from gpuscalp.errors import UsageError
from gpuscalp.schema import BOOK_LEVELS, E8, I64, TickKind

_PRICE: Final = ("delay_usdt", "spread_usdt", "impact_usdt")
_LISTED_MAX: Final = 50

# What made a fill another one. docs/nautilus.md says what they mean.
EQUAL: Final = "equal"
STATE: Final = "another state of the book"
TAKEN: Final = "taken before"
LEVEL: Final = "one level only"
RESTED: Final = "rested"
FEE: Final = "rounding of the fee"
UNEXPLAINED: Final = "unexplained"
ALONE: Final = "sent by one run only"

# symbol, time of the decision, leg
Key = tuple[str, int, str]


@final
@dataclass(slots=True)
class _Filled:
    """All executions of one order; money in 1e-8 of the quote currency."""

    side: int
    qty_e8: int = 0
    notional: float = 0.0
    fee_e8: int = 0
    gross_e8: int = 0
    price_e8: int = 0
    last_ns: int = 0
    maker: bool = False

    @property
    def price(self) -> float:
        return self.notional / self.qty_e8

    def measure_from(self, other: _Filled) -> None:
        """Take the mid of another run's fills: that of a target or a stop is the fill's own."""
        gross_e8 = divide_half_even(other.gross_e8 * self.qty_e8, other.qty_e8)
        self.price_e8 += self.gross_e8 - gross_e8
        self.gross_e8 = gross_e8


def compare_fills(ours: Path, theirs: Path, archive: Path) -> dict[str, Any]:
    """Return what ``gpuscalp nautilus compare`` prints.

    Parameters
    ----------
    ours, theirs : run directories of ``gpuscalp backtest`` and ``gpuscalp nautilus backtest``
    archive : that both ran on

    Raises
    ------
    UsageError    the runs are not of the same market and model, or the second is none of Nautilus's
    """
    first, second = SavedRun.open(ours), SavedRun.open(theirs)
    _check(first, second)
    mine, other = _orders(first), _orders(second)
    shown = _Books(archive, second) if second.frozen["executor"]["book"] == "books" else None
    rows, causes, sums = [], dict[str, list[int]](), dict.fromkeys(("gross_e8", "price_e8", "fee_e8"), 0)
    for key in sorted(mine.keys() | other.keys(), key=lambda each: (each[1], each[0], each[2])):
        pair = mine.get(key), other.get(key)
        if pair[0] is not None and pair[1] is not None:
            pair[1].measure_from(pair[0])
        for name in sums:
            sums[name] += getattr(pair[1], name, 0) - getattr(pair[0], name, 0)
        change = _costs(pair[1]) - _costs(pair[0])
        cause = _cause(key, *pair, shown)
        causes.setdefault(cause, []).append(change)
        if cause != EQUAL:
            rows.append(_row(key, *pair, change, cause))
    funding = _money(second, "funding_usdt") - _money(first, "funding_usdt")
    unclosed = _money(second, "unclosed_usdt") - _money(first, "unclosed_usdt")
    total = _money(second, "pnl_usdt") - _money(first, "pnl_usdt")
    rows.sort(key=lambda row: -abs(row["difference_usdt"]))
    return {
        "runs": {"ours": str(first.path), "nautilus": str(second.path)},
        "pnl_usdt": {
            "ours": first.result["pnl_usdt"],
            "nautilus": second.result["pnl_usdt"],
            "difference": total / E8,
            "by_price": sums["price_e8"] / E8,
            "by_fees": -sums["fee_e8"] / E8,
            "by_quantity": sums["gross_e8"] / E8,
            "by_funding": funding / E8,
            "by_open_positions": unclosed / E8,
            "rest": (total - sums["price_e8"] + sums["fee_e8"] - sums["gross_e8"] - funding - unclosed) / E8,
        },
        "orders": {
            "both": len(mine.keys() & other.keys()),
            "only_ours": len(mine.keys() - other.keys()),
            "only_nautilus": len(other.keys() - mine.keys()),
        },
        "causes": {
            name: {"orders": len(changes), "usdt": sum(changes) / E8}
            for name, changes in sorted(causes.items())
        },
        "different": rows[:_LISTED_MAX],
        "different_count": len(rows),
    }


def _check(first: SavedRun, second: SavedRun) -> None:
    if second.frozen.get("executor", {}).get("name") != "nautilus":
        raise UsageError(
            "the second run is none of `gpuscalp nautilus backtest`", where=str(second.path), fix="swap them?"
        )
    for name in ("venue", "symbols", "start_ns", "end_ns", "data_digest", "bundle_digest"):
        if first.scope[name] != second.scope[name]:
            raise UsageError(
                "the runs are not of the same market and model",
                where=f"{first.path} and {second.path}",
                value=f"{name}: {first.scope[name]} and {second.scope[name]}",
            )


def _orders(run: SavedRun) -> dict[Key, _Filled]:
    table = run.fills
    money = {name: units(table, name).tolist() for name in (*_PRICE, "gross_usdt", "fees_usdt", "qty")}
    decided, filled = times(table, "decided").tolist(), times(table, "filled").tolist()
    found: dict[Key, _Filled] = {}
    for row, (symbol, leg, side, price, maker) in enumerate(
        zip(*(table[name].to_pylist() for name in ("symbol", "leg", "side", "price", "maker")), strict=True)
    ):
        order = found.setdefault((symbol, decided[row], leg), _Filled(1 if side == "buy" else -1))
        order.qty_e8 += money["qty"][row]
        order.notional += money["qty"][row] * price
        order.fee_e8 += money["fees_usdt"][row]
        order.gross_e8 += money["gross_usdt"][row]
        order.price_e8 += sum(money[name][row] for name in _PRICE)
        order.last_ns = max(order.last_ns, filled[row])
        order.maker = order.maker or maker
    return found


@final
class _Books:
    """The recorded books by the time at which Nautilus had them."""

    def __init__(self, path: Path, run: SavedRun) -> None:
        self._archive, self._venue = Archive.open(path), run.scope["venue"]
        self._symbols = tuple(run.scope["symbols"])
        read_from_ns = run.frozen["executor"].get("read_from_ns")  # none of a run over everything
        found_digest = self._archive.digest(self._venue, self._symbols, read_from_ns, run.scope["end_ns"])
        if found_digest != run.scope["data_digest"]:
            raise UsageError("not the archive of the runs", where=str(path))
        found: list[list[tuple[I64, I64, I64]]] = [[] for _ in self._symbols]
        least: int | None = None
        for ticks in self._archive.tick_batches(self._venue, self._symbols, start_ns=read_from_ns):
            delay = np.minimum.accumulate(ticks["recv_ns"] - ticks["exch_ns"])
            delay = delay if least is None else np.minimum(delay, least)
            least = int(delay[-1])
            for index, books in enumerate(found):
                chosen = (ticks["symbol"] == index) & (ticks["kind"] == TickKind.BOOK)
                at_ns = (ticks["recv_ns"] - delay)[chosen]
                books.append((at_ns, ticks["exch_ns"][chosen], ticks["recv_ns"][chosen]))
        self._books = [[np.concatenate(column) for column in zip(*books, strict=True)] for books in found]

    def around(self, symbol: str, at_ns: int, side: int) -> list[list[tuple[int, int]]]:
        """Return the levels that an order could meet, best first: several where rows have the same time."""
        at, exch, recv = self._books[self._symbols.index(symbol)]
        first = max(0, int(np.searchsorted(at, at_ns)) - 1)
        last = int(np.searchsorted(at, at_ns, side="right"))
        states = []
        (instrument,) = self._archive.instruments(self._venue, (symbol,))
        for row in range(first, last):
            moment = int(exch[row])
            books = self._archive.books(self._venue, symbol, start_ns=moment, end_ns=moment + 1)
            place = int(np.searchsorted(books.recv_ns, recv[row]))
            px, qty = (books.ask_px, books.ask_qty) if side > 0 else (books.bid_px, books.bid_qty)
            states.append(
                [
                    (int(px[place, level]) * instrument.tick_size_e8, round(float(qty[place, level]) * E8))
                    for level in range(BOOK_LEVELS)
                    if px[place, level]
                ]
            )
        return states


def _costs(order: _Filled | None) -> int:
    """Return what an order has made by its price, fee taken off."""
    return 0 if order is None else order.price_e8 - order.fee_e8


def _cause(key: Key, mine: _Filled | None, other: _Filled | None, shown: _Books | None) -> str:
    """Say why the fills of an order differ."""
    if mine is None or other is None:
        return ALONE
    if (mine.qty_e8, mine.notional) == (other.qty_e8, other.notional):
        return EQUAL if mine.fee_e8 == other.fee_e8 else FEE
    if mine.maker or other.maker:
        return RESTED
    if shown is None:
        return LEVEL
    for levels in shown.around(key[0], other.last_ns, other.side):
        walked = _walk(levels, other.qty_e8)
        if walked is None:
            continue
        worse = other.side * (other.notional * E8 - walked)
        # Prices are read back from the floats of a file: a billionth of the value is their rounding.
        if abs(worse) <= 1e-9 * walked:
            return STATE
        if worse > 0:
            return TAKEN
    return UNEXPLAINED


def _walk(levels: Sequence[tuple[int, int]], qty_e8: int) -> float | None:
    """Return Σ price × quantity, both × 1e8, of taking so much; None where it is not shown."""
    total, left = 0.0, qty_e8
    for price_e8, shown_e8 in levels:
        taken = min(left, shown_e8)
        total += float(price_e8) * taken
        left -= taken
        if not left:
            return total
    return None


def _row(key: Key, mine: _Filled | None, other: _Filled | None, change: int, cause: str) -> dict[str, Any]:
    row: dict[str, Any] = {"symbol": key[0], "decided": exact_utc(key[1]), "leg": key[2]}
    for name, order in (("ours", mine), ("nautilus", other)):
        row[name] = (
            None
            if order is None
            else {
                "side": "buy" if order.side > 0 else "sell",
                "qty": order.qty_e8 / E8,
                "price": order.price,
                "fee_usdt": order.fee_e8 / E8,
                "filled": exact_utc(order.last_ns),
            }
        )
    return row | {"difference_usdt": change / E8, "cause": cause}


def _money(run: SavedRun, name: str) -> int:
    amount: float = run.result[name]
    return round(amount * E8)
