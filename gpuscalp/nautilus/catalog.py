"""What a catalog of NautilusTrader has of an archive, and what lies beside it.

Owns: the layout. Nautilus's own types hold prices, quantities, times, trade ids and, in newer versions,
funding; index prices are written too, but even 1.231 does not read them back. What its types have no field
for, and what it does not give back, lies in a folder that Nautilus does not look at, one file for each symbol
and one row for each row of the archive::

    CATALOG/data/…                                  Nautilus's
    CATALOG/gpuscalp/BTCUSDT-PERP.BINANCE.parquet   COLUMNS
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from nautilus_trader.model.data import (
    FundingRateUpdate,
    IndexPriceUpdate,
    MarkPriceUpdate,
    OrderBookDelta,
    QuoteTick,
    TradeTick,
)
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.persistence.catalog import ParquetDataCatalog
from nautilus_trader.serialization.arrow.schema import NAUTILUS_ARROW_SCHEMA

from gpuscalp.archive.tables import TABLES
from gpuscalp.errors import UsageError

FOLDER: Final = "gpuscalp"
# ``update_id`` of a mark is its exch_ns; the last four are of marks, of which the file beside has all.
COLUMNS: Final = (
    *("ts_init", "table", "seq", "quality", "update_id"),
    *("mark_price_e8", "index_price_e8", "funding_rate_e8", "next_funding_ns"),
)
TABLE_NAMES: Final = tuple(TABLES)
# Whether this version's catalogs hold funding.
HAS_FUNDING: Final = FundingRateUpdate in NAUTILUS_ARROW_SCHEMA
KINDS: Final[dict[str, tuple[type, ...]]] = {
    "trades": (TradeTick,),
    "quotes": (QuoteTick,),
    "books": (OrderBookDelta,),
    "marks": (IndexPriceUpdate, MarkPriceUpdate, *((FundingRateUpdate,) if HAS_FUNDING else ())),
}


def open_catalog(path: Path, *, new: bool = False) -> Any:
    """Open a catalog.

    Raises
    ------
    UsageError    there is none; with ``new``: there is something
    """
    has_data = (path / "data").is_dir()
    if new and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError("there is something here already", where=str(path), fix="name a new directory")
    if not new and not has_data:
        raise UsageError(
            "there is no catalog here",
            where=str(path),
            fix="`gpuscalp nautilus export` makes one of an archive",
        )
    if new:
        path.mkdir(parents=True, exist_ok=True)
    # Queries of 1.221 mix up what has the same time where two groups meet: few groups.
    return ParquetDataCatalog(path.absolute(), max_rows_per_group=1 << 20)


def perpetuals_of(catalog: Any) -> list[Any]:
    """Return the linear perpetuals of a catalog, the newest of each, by id."""
    found = {
        str(each.id): each
        for each in sorted(catalog.instruments(), key=lambda each: each.ts_init)
        if isinstance(each, CryptoPerpetual) and not each.is_inverse
    }
    return [found[name] for name in sorted(found)]


def beside(path: Path, instrument: str) -> Path:
    """Return the file beside Nautilus's data."""
    return path / FOLDER / f"{instrument}.parquet"
