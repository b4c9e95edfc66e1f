"""``gpuscalp data``: record, import, verify, info, download, export."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gpuscalp.cli.app import data_app
from gpuscalp.cli.output import JsonFlag, emit, progress
from gpuscalp.cli.words import FromOption, SymbolsOption, ToOption, VenueOption, nanoseconds, split
from gpuscalp.times import utc

ArchiveArgument = Annotated[Path, typer.Argument(help="Directory of the archive.")]
Venue = Literal["binance_usdm", "binance_spot"]


@data_app.command("record")
def record(
    symbols: Annotated[list[str], typer.Argument(help="Symbols, such as BTCUSDT.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder, new or with an earlier recording of the same venue.")
    ],
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file of a session, such as configs/paper.toml.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.0, help="Seconds to record; default: until stopped.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Record a venue's streams, without a model and without orders.

    It hears what a live session would hear of these symbols. Ctrl-C ends it, and the same command goes on
    with it. Give the folder to `gpuscalp data import`.
    """
    import os

    from gpuscalp.config import LiveConfig, load_named
    from gpuscalp.record import record as record_streams

    chosen = load_named(LiveConfig, config, env=os.environ) or LiveConfig()
    with progress("Recording") as advance:
        answer = record_streams(symbols, out, chosen, seconds=duration, told=advance)
    emit(answer, json=json, text=lambda: _record_text(answer))


@data_app.command("import")
def import_(
    sources: Annotated[list[Path], typer.Argument(help="Files to import, or folders that hold them.")],
    out: Annotated[Path, typer.Option("--out", help="Directory of the archive, new or existing.")],
    venue: Annotated[Venue | None, typer.Option("--venue", help="Where the sources were recorded.")] = None,
    symbol: Annotated[
        str | None, typer.Option("--symbol", help="Symbol of CSV files that do not name it.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail at the first bad line.")] = False,
    instruments: Annotated[
        Path | None,
        typer.Option(
            "--instruments", help="exchangeInfo JSON: tick, step and least sizes; default: a recording's own."
        ),
    ] = None,
    book_interval_ms: Annotated[
        int, typer.Option("--book-interval-ms", min=0, help="Least time between book rows; 0 = every change.")
    ] = 0,
    trade_delay_ms: Annotated[
        int | None,
        typer.Option(
            "--trade-delay-ms",
            min=0,
            help="Delay added to trades of a CSV that only tells when they were made; default: the venue's.",
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Import recordings, captures and CSV files into an archive."""
    from gpuscalp.archive.ingest import import_sources

    with progress("Importing") as advance:
        report = import_sources(
            sources,
            out,
            venue=venue,
            symbol=symbol,
            strict=strict,
            instruments=instruments,
            book_interval_ms=book_interval_ms,
            trade_delay_ms=trade_delay_ms,
            progress=advance,
        )
    answer = {"archive": out, **report.to_dict()}
    emit(answer, json=json, text=lambda: _import_text(answer))


@data_app.command("verify")
def verify(archive: ArchiveArgument, json: JsonFlag = False) -> None:
    """Read every file of an archive and compare it with the manifest."""
    from gpuscalp.archive.verify import verify as verify_archive

    with progress("Verifying") as advance:
        report = verify_archive(archive, progress=advance)
    report.raise_if_damaged(archive)
    answer = {"archive": archive, **report.to_dict()}
    emit(answer, json=json, text=lambda: _lines(answer))


@data_app.command("info")
def info(archive: ArchiveArgument, json: JsonFlag = False) -> None:
    """Say what an archive holds."""
    from gpuscalp.archive.info import describe

    answer = describe(archive)
    emit(answer, json=json, text=lambda: _info_table(answer))


@data_app.command("download")
def download(
    symbols: Annotated[list[str], typer.Argument(help="Symbols, such as BTCUSDT.")],
    start: Annotated[datetime.datetime, typer.Option("--start", formats=["%Y-%m-%d"], help="First day.")],
    end: Annotated[datetime.datetime, typer.Option("--end", formats=["%Y-%m-%d"], help="Last day.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.")],
    type: Annotated[
        Literal["aggTrades", "trades", "bookTicker"], typer.Option("--type", help="What to download.")
    ] = "aggTrades",
    period: Annotated[
        Literal["daily", "monthly"], typer.Option("--period", help="One file a day or a month.")
    ] = "daily",
    venue: Annotated[Venue, typer.Option("--venue", help="Market.")] = "binance_usdm",
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", envvar="GPUSCALP_VISION_URL", help="Server with Binance Vision's layout."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=16, help="Files at a time.")] = 4,
    json: JsonFlag = False,
) -> None:
    """Download published history, verified by its checksums.

    Run again, it goes on where it was stopped. Give the files to `gpuscalp data import`.
    """
    from gpuscalp.archive.download import BASE_URL, wanted_files
    from gpuscalp.archive.download import download as download_files
    from gpuscalp.feeds.proxies import proxy_of

    server = base_url or BASE_URL
    wanted = wanted_files(symbols, type=type, start=start.date(), end=end.date(), period=period, venue=venue)
    with progress("Downloading") as advance:
        report = download_files(
            wanted, out, base_url=server, workers=workers, proxy_url=proxy_of(server), progress=advance
        )
    answer = {"out": out, **report.to_dict()}
    emit(answer, json=json, text=lambda: _lines(answer))


@data_app.command("export")
def export(
    archive: ArchiveArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for the files, new or existing.")],
    format: Annotated[Literal["hftbacktest"], typer.Option("--format", help="Whose files to write.")],
    venue: VenueOption = None,
    symbols: SymbolsOption = None,
    start_ns: FromOption = None,
    end_ns: ToOption = None,
    latency_offset: Annotated[
        str,
        typer.Option(
            "--latency-offset",
            help="ns added to receive times; auto: just enough for none to lie before its exchange time.",
        ),
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    json: JsonFlag = False,
) -> None:
    """Write an archive as the files of another library.

    One for each symbol and UTC day of exchange time.
    """
    from gpuscalp.archive.export_hftbacktest import export_hftbacktest

    with progress("Exporting") as advance:
        report = export_hftbacktest(
            archive,
            out,
            venue=venue,
            symbols=split(symbols),
            start_ns=start_ns,
            end_ns=end_ns,
            latency_offset_ns=None if latency_offset == "auto" else nanoseconds(latency_offset),
            overwrite=overwrite,
            progress=advance,
        )
    answer = {"archive": archive, "out": out, "format": format, **report.to_dict()}
    emit(answer, json=json, text=lambda: _export_table(answer))


def _record_text(answer: Mapping[str, Any]) -> str:
    messages = answer["messages"]
    lines = [
        f"Recorded {messages['messages']:,} messages in {answer['seconds']:,.0f} s into {answer['out']}:"
        f" {answer['written_bytes'] / 1e6:,.1f} MB."
    ]
    lines += [f"  {name:<13} {count:,}" for name, count in messages.items() if name != "messages"]
    lines.append(f"  connections   {sum(answer['connections_lost'].values())} lost")
    if answer["unsynced"]:
        lines.append(f"  book not whole: {', '.join(answer['unsynced'])}")
    return "\n".join([*lines, f"Next: gpuscalp data import {answer['out']} --out archive"])


def _import_text(answer: Mapping[str, Any]) -> str:
    lines = [
        f"Imported {answer['rows']:,} rows from {len(answer['sources'])} files into {answer['archive']}"
        f" in {answer['seconds']:.1f} s."
    ]
    if answer["skipped"]:
        lines.append(f"{len(answer['skipped'])} files were imported before and were left alone.")
    others = answer["passed_over"]
    for why, count in Counter(others.values()).items():
        first = next(path for path in others if others[path] == why)
        lines.append(f"  passed over   {why}: {first}{f' and {count - 1:,} more' if count > 1 else ''}")
    kinds = ", ".join(f"{name} {count:,}" for name, count in answer["rows_by_table"].items() if count)
    lines += [f"  rows          {kinds}"] if kinds else []
    for key in ("lines", "rejects", "gaps", "crossed_books", "duplicates", "late", "out_of_order"):
        lines.append(f"  {key.replace('_', ' '):<13} {answer[key]:,}")
    for key in ("set_aside", "rejects_by_reason", "unsynced"):
        for name, count in answer[key].items():
            lines.append(f"  {key.replace('_', ' ')}: {name.replace('_', ' ')} {count:,}")
    delays = Counter(
        each["trade_delay_ns"] for each in answer["sources"] if each["trade_delay_ns"] is not None
    )
    for delay_ns, count in sorted(delays.items()):
        lines.append(f"  trades dated {delay_ns / 1e6:g} ms after they were made: {count} files")
    if (lag := answer["agg_trade_lag_ms"]) is not None:
        lines.append(
            f"  aggTrades were sent {lag['p50']} ms after their trade in the median (95 %: {lag['p95']},"
            f" 99 %: {lag['p99']}, at most {lag['largest']}; {lag['trades']:,} trades)"
        )
    if answer["misfits"]:
        lines.append(
            f"  instrument not used, its tick size does not fit the prices: {', '.join(answer['misfits'])}"
        )
    return "\n".join(lines)


def _export_table(answer: Mapping[str, Any]) -> object:
    from rich.console import Group
    from rich.table import Table

    files = Table("file")
    for heading in ("events", "trades", "quotes", "books", "MB"):
        files.add_column(heading, justify="right")
    for file in answer["files"]:
        numbers = (file["events"], *(file["rows"][name] for name in ("trades", "quotes", "books")))
        size = f"{file['bytes'] / 1e6:.1f}"
        files.add_row(Path(file["path"]).name, *(f"{number:,}" for number in numbers), size)
    events = answer["events"]
    kinds = Table("events")
    for clock in events["kinds"]:
        kinds.add_column(f"{clock} clock", justify="right")
    for name in events["kinds"]["local"]:
        counts = (counts[name] for counts in events["kinds"].values())
        kinds.add_row(name.replace("_", " "), *(f"{count:,}" for count in counts))
    local, exchange = answer["shifted"]["local_ts"], answer["shifted"]["exch_ts"]
    lines = [
        f"{events['total']:,} events in {answer['seconds']:.1f} s; {events['both']:,} serve both clocks",
        f"local_ts: {local['offset_ns'] / 1e6:,.3f} ms added to all rows ({local['offset_from']})",
        *(
            f"{field}: {raised['rows']:,} rows raised, by at most {raised['max_ns'] / 1e6:,.3f} ms"
            for field, raised in (("local_ts", local["raised"]), ("exch_ts", exchange["raised"]))
        ),
        f"books cleared at a gap: {answer['gaps']['cleared_books']:,};"
        f" trades behind missing ones: {answer['gaps']['trades_after_gap']:,}",
    ]
    for table, reasons in answer["skipped"].items():
        lines += [f"{table} skipped, {reason}: {count:,}" for reason, count in reasons.items()]
    lines.append(f"quotes older than the book: {answer['superseded_quotes']:,}")
    for symbol, sizes in answer["instruments"].items():
        lines.append(f"{symbol}: tick_size({sizes['tick_size']:.10g}) lot_size({sizes['lot_size']:.10g})")
    return Group(f"Wrote {len(answer['files'])} files to {answer['out']}", files, kinds, *lines)


def _info_table(answer: Mapping[str, Any]) -> object:
    from rich.console import Group
    from rich.table import Table

    totals = answer["totals"]
    size = f"{totals['rows']:,} rows, {totals['bytes'] / 1e6:.1f} MB in {totals['files']} files"
    counts = ("trades", "quotes", "books", "marks")
    flaws = ("gaps", "crossed", "flagged")
    parts: list[object] = [f"{answer['path']}: {size}"]
    # Two tables for each venue: one of fourteen columns is illegible in a terminal of 80.
    for venue in dict.fromkeys(entry["venue"] for entry in answer["symbols"]):
        spans, rows = Table("symbol", "first (UTC)", "last (UTC)"), Table("symbol")
        for table, headings in ((spans, ("days", "tick")), (rows, (*counts, *flaws))):
            for heading in headings:
                table.add_column(heading, justify="right")
        for entry in (entry for entry in answer["symbols"] if entry["venue"] == venue):
            instrument = entry["instrument"]
            tick = f"{instrument['tick_size_e8'] / 1e8:.8f}".rstrip("0").rstrip(".") if instrument else ""
            span = (utc(entry["first_exch_ns"]), utc(entry["last_exch_ns"]))
            spans.add_row(entry["symbol"], *span, str(entry["days"]), tick)
            numbers = [entry["rows"][name] for name in counts] + [entry[name] for name in flaws]
            rows.add_row(entry["symbol"], *(f"{number:,}" for number in numbers))
        parts += ["", venue, spans, rows]
        for entry in (entry for entry in answer["symbols"] if entry["venue"] == venue):
            if entry["trade_delays_ms"]:
                delays = ", ".join(f"{delay:g}" for delay in entry["trade_delays_ms"])
                parts.append(f"{entry['symbol']}: trades of files dated {delays} ms after they were made")
    return Group(*parts)  # type: ignore[arg-type]


def _lines(answer: Mapping[str, Any]) -> str:
    flat = {
        key: f"{len(value)}" if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
        for key, value in answer.items()
    }
    width = max(len(key) for key in flat)
    return "\n".join(f"{key.replace('_', ' '):<{width}}  {value}" for key, value in flat.items())
