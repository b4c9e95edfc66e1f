"""``gpuscalp nautilus``: the same strategy in NautilusTrader; archives and its catalogs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gpuscalp.cli.app import nautilus_app
from gpuscalp.cli.output import JsonFlag, emit, plain_table, progress
from gpuscalp.cli.words import (
    MODEL_HELP,
    BacktestConfigOption,
    BundleVenueOption,
    FromOption,
    RunDirOption,
    ToOption,
    TrialsOption,
    VenueOption,
    parse_model,
)

if TYPE_CHECKING:
    from rich.console import Group


@nautilus_app.command("backtest")
def backtest(
    archive: Annotated[Path, typer.Argument(help="Archive made by `gpuscalp data import`.")],
    model: Annotated[Path, typer.Option("--model", parser=parse_model, metavar="MODEL", help=MODEL_HELP)],
    config: BacktestConfigOption = None,
    out: RunDirOption = None,
    venue: BundleVenueOption = None,
    start_ns: FromOption = None,
    end_ns: ToOption = None,
    catalog: Annotated[
        Path | None,
        typer.Option("--catalog", help="Read the market from this catalog instead of the archive."),
    ] = None,
    book: Annotated[
        Literal["books", "quotes"],
        typer.Option("--book", help="What fills orders: recorded books, or the best level of quotes."),
    ] = "books",
    trials: TrialsOption = None,
    json: JsonFlag = False,
) -> None:
    """Trade an archive with a bundle in NautilusTrader.

    The run directory is read by `gpuscalp backtest show` and `compare`, and by `gpuscalp nautilus compare`.
    """
    from gpuscalp.nautilus.installed import require

    require()
    from gpuscalp.nautilus.backtest import nautilus_archive

    with progress("Backtest") as advance:
        result = nautilus_archive(
            archive,
            model,
            config=config,
            overrides={"trials": trials},
            out=out,
            venue=venue,
            start_ns=start_ns,
            end_ns=end_ns,
            catalog=catalog,
            book=book,
            on_progress=advance,
        )
    emit(result.summary, json=json, text=lambda: _run(result.summary))


@nautilus_app.command("compare")
def compare(
    ours: Annotated[Path, typer.Argument(help="Run directory of `gpuscalp backtest`.")],
    theirs: Annotated[Path, typer.Argument(help="Run directory of `gpuscalp nautilus backtest`.")],
    archive: Annotated[Path, typer.Option("--archive", help="The archive that both ran on.")],
    json: JsonFlag = False,
) -> None:
    """Explain, order by order, why two results differ."""
    from gpuscalp.nautilus.compare import compare_fills

    answer = compare_fills(ours, theirs, archive)
    emit(answer, json=json, text=lambda: _compared(answer))


@nautilus_app.command("export")
def export(
    archive: Annotated[Path, typer.Argument(help="Archive made by `gpuscalp data import`.")],
    catalog: Annotated[Path, typer.Argument(help="New directory for the catalog.")],
    venue: VenueOption = None,
    symbols: Annotated[str, typer.Option("--symbols", help="Such as BTCUSDT,ETHUSDT; default: all.")] = "",
    start_ns: FromOption = None,
    end_ns: ToOption = None,
    json: JsonFlag = False,
) -> None:
    """Write an archive as a ParquetDataCatalog of NautilusTrader.

    What Nautilus's types have no field for lies beside its data: `import` gives the same archive back.
    """
    from gpuscalp.nautilus.installed import require

    require()
    from gpuscalp.nautilus.export import export_catalog

    with progress("Exporting") as advance:
        answer = export_catalog(
            archive,
            catalog,
            venue=venue,
            symbols=tuple(name for name in symbols.split(",") if name),
            start_ns=start_ns,
            end_ns=end_ns,
            progress=advance,
        )
    emit(answer, json=json, text=lambda: _account(answer))


@nautilus_app.command("import")
def import_(
    catalog: Annotated[Path, typer.Argument(help="Catalog of NautilusTrader.")],
    archive: Annotated[Path, typer.Argument(help="New directory for the archive.")],
    instruments: Annotated[
        str,
        typer.Option(
            "--instruments",
            metavar="IDS",
            help="Comma-separated, such as BTCUSDT-PERP.BINANCE; default: all linear perpetuals.",
        ),
    ] = "",
    json: JsonFlag = False,
) -> None:
    """Write a ParquetDataCatalog of NautilusTrader as an archive."""
    from gpuscalp.nautilus.installed import require

    require()
    from gpuscalp.nautilus.ingest import import_catalog

    names = tuple(name for name in instruments.split(",") if name)
    with progress("Importing") as advance:
        answer = import_catalog(catalog, archive, instruments=names, progress=advance)
    emit(answer, json=json, text=lambda: _account(answer))


def _account(answer: dict[str, Any]) -> Group:
    from rich.console import Group

    table = plain_table("what", "")
    for name, value in answer.items():
        if isinstance(value, dict):
            for key, count in value.items():
                table.add_row(f"{name}: {key}".replace("_", " "), _words(count))
        else:
            table.add_row(name.replace("_", " "), _words(value))
    return Group(table)


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _run(summary: dict[str, Any]) -> Group:
    from gpuscalp.cli.backtest import result_text

    return result_text(summary)


def _compared(answer: dict[str, Any]) -> Group:
    from rich.console import Group

    money = plain_table("net P&L", "USDT")
    for name, value in answer["pnl_usdt"].items():
        money.add_row(name.replace("_", " "), f"{value:+,.8f}")
    orders = plain_table("orders", "count")
    for name, count in answer["orders"].items():
        orders.add_row(name.replace("_", " "), f"{count:,}")
    causes = plain_table("cause", "orders", "difference, USDT")
    for name, row in answer["causes"].items():
        causes.add_row(name, f"{row['orders']:,}", f"{row['usdt']:+,.8f}")
    rows = plain_table("order, decided (UTC)", "here", "in Nautilus", "difference, USDT")
    for row in answer["different"]:
        side = (row["ours"] or row["nautilus"])["side"]
        rows.add_row(
            f"{row['symbol']} {row['leg']} {side}\n{row['decided'][:-6]}",
            _filled(row["ours"]),
            _filled(row["nautilus"]),
            f"{row['difference_usdt']:+.8f}\n{row['cause']}",
        )
    hidden = answer["different_count"] - len(answer["different"])
    more = [f"{hidden:,} further orders differ less; --json does not list them either"] if hidden else []
    return Group(money, "", orders, "", causes, "", rows, *more)


def _filled(order: dict[str, Any] | None) -> str:
    return (
        "–" if order is None else f"{order['qty']:.10g} at {order['price']:.10g}\nfee {order['fee_usdt']:.8f}"
    )
