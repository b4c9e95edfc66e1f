"""Streams of an exchange, recorded without a model, become an archive in which nothing is missing."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpuscalp.archive import Archive
from gpuscalp.archive.ingest import import_sources
from gpuscalp.config import LiveConfig
from gpuscalp.errors import ConfigError, FeedError, JournalError, UsageError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import parse_fault
from gpuscalp.exchange.server import ServeSpec
from gpuscalp.journal import JournalWriter, RecordKind, read_records
from gpuscalp.journal import writer as journal_writer
from gpuscalp.progress import Progress
from gpuscalp.record import record
from gpuscalp.schema import E8, Quality
from tests.live.sessions import SYMBOLS, TICK_E8, VENUE, Market, eager_config, feed_of, quantity_e8
from tests.ports import free_port


def _config(exchange: Exchange, **feed: Any) -> LiveConfig:
    return eager_config(feed_of(exchange, **feed))


def _until(messages: int, halfway: Callable[[], object] = list) -> Progress:
    """Return what stops a recording as an operator would, when so many messages have come."""
    waits = [halfway]

    def told(done: float, total: float | None = None, note: str = "") -> None:
        number, counted, _ = note.partition(" messages")
        count = int(number.replace(",", "")) if counted else 0  # it may tell of kernels first
        if waits and 2 * count >= messages:
            waits.pop()()
        elif count >= messages:
            os.kill(os.getpid(), signal.SIGTERM)

    return told


def test_recording_goes_on_and_becomes_an_archive(exchange: Exchange, tmp_path: Path) -> None:
    config, path = _config(exchange, redundancy=2), tmp_path / "recording"
    cut = partial(exchange.set_fault, parse_fault("cut:connection=1"))  # its twin goes on
    first = record(SYMBOLS, path, config, seconds=60.0, told=_until(600, cut))
    second = record([name.lower() for name in SYMBOLS], path, config, seconds=60.0, told=_until(300))
    assert first["symbols"] == second["symbols"] == list(SYMBOLS)
    assert first["messages"]["duplicates"] > 100
    assert sum(first["connections_lost"].values()) == 1
    assert (first["unsynced"], first["messages"]["rejects"], first["torn_bytes"]) == ([], 0, 0)
    assert second["unsynced"] == []

    report = import_sources([path], tmp_path / "archive").to_dict()
    assert (report["rejects"], report["passed_over"], report["misfits"]) == (0, {}, [])
    archive = Archive.open(tmp_path / "archive")
    assert archive.symbols(VENUE) == SYMBOLS
    for instrument in archive.instruments(VENUE):
        assert (instrument.tick_size_e8, instrument.source) == (TICK_E8, "exchange_info")
    for symbol in SYMBOLS:
        trades = archive.table(VENUE, symbol, "trades")
        ids = trades["trade_id"].to_pylist()
        holes = [each for each, after in pairwise(ids) if after != each + 1]
        assert len(holes) == 1, "one hole, between the two runs"
        # Each trade of this market is known by its quantity.
        steps = [round(qty * E8) // quantity_e8(1) for qty in trades["qty"].to_pylist()]
        assert {step - each for step, each in zip(steps, ids, strict=True)} == {steps[0] - ids[0]}
        flagged = archive.table(VENUE, symbol, "books")["quality"].to_numpy() & int(Quality.RESYNC)
        assert (flagged[0], flagged[-1]) == (0, 0), "whole again after the hole"


def test_command_records_for_a_time(exchange: Exchange, tmp_path: Path, cli: Callable[..., Any]) -> None:
    config = tmp_path / "feed.toml"
    feed = feed_of(exchange, redundancy=1)
    config.write_text(
        f'venue = "{VENUE}"\n[feed]\nredundancy = 1\npublic_url = "{feed.public_url}"\n'
        f'market_url = "{feed.market_url}"\nrest_url = "{feed.rest_url}"\n'
        f"streams = {json.dumps(list(feed.streams))}\n"
    )
    command = ("data", "record", "BTCUSDT", "--out", tmp_path / "rec", "--config", config, "--duration", "2")
    result = cli(*command, "--json")
    assert result.code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["connections_lost"] == {"market": 0, "public": 0}
    records = list(read_records(tmp_path / "rec"))
    assert msgspec.json.decode(records[0].body) == {"market": VENUE}
    assert records[-1].kind == RecordKind.END
    words = cli(*command)
    assert words.code == 0
    assert f"gpuscalp data import {tmp_path / 'rec'}" in " ".join(words.stdout.split())


def test_what_cannot_be_recorded_is_refused(exchange: Exchange, tmp_path: Path) -> None:
    config = _config(exchange)
    with pytest.raises(ConfigError, match="does not list") as unlisted:
        record(["BTCUSDT", "NONEUSDT"], tmp_path / "new", config, seconds=0.1)
    assert unlisted.value.value == "NONEUSDT"
    for symbols in ([], ["BTCUSDT", "btcusdt"]):
        with pytest.raises(UsageError, match="each symbol once"):
            record(symbols, tmp_path / "new", config, seconds=0.1)
    assert not (tmp_path / "new").exists()


def test_folder_of_something_else_is_left_alone(exchange: Exchange, tmp_path: Path) -> None:
    config = _config(exchange)
    session = tmp_path / "session" / "journal"
    with JournalWriter(session, config.journal, now_ns=1) as journal:
        journal.append(RecordKind.RAW, b"{}", recv_ns=1)

    def held() -> dict[Path, bytes]:
        return {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}

    before = held()
    for place in (session, session.parent, session / "lock"):  # beside a session's journal its own files
        with pytest.raises(UsageError, match="no recording"):
            record(["BTCUSDT"], place, config, seconds=0.1)
    assert held() == before

    path = tmp_path / "recording"
    record(["BTCUSDT"], path, config, seconds=60.0, told=_until(1))
    with pytest.raises(ConfigError, match="another market"):
        record(["BTCUSDT"], path, msgspec.structs.replace(config, venue="synthetic"), seconds=0.1)
    with JournalWriter(path, config.journal, now_ns=1), pytest.raises(JournalError, match="another process"):
        record(["BTCUSDT"], path, config, seconds=0.1)


def test_disk_that_fails_ends_the_recording(
    exchange: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write, room = tmp_path / "recording", journal_writer._write_all, [20]

    def fail(file: int, data: bytes, where: Path) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise JournalError("the disk is full", where=str(where))
        write(file, data, where)

    monkeypatch.setattr(journal_writer, "_write_all", fail)
    with pytest.raises(JournalError, match="full"):
        record(["BTCUSDT"], path, _config(exchange), seconds=60.0)
    assert sum(record.kind == RecordKind.RAW for record in read_records(path, torn=True)) > 0


def test_venue_that_brings_nothing_is_an_error(exchange: Exchange, tmp_path: Path) -> None:
    nowhere = f"ws://127.0.0.1:{free_port()}"
    feed = msgspec.structs.replace(feed_of(exchange), public_url=nowhere, market_url=nowhere)
    with pytest.raises(FeedError, match="not one message"):
        record(["BTCUSDT"], tmp_path / "recording", eager_config(feed), seconds=0.3)


def test_symbol_that_is_silent_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = ServeSpec(faults=(parse_fault("silent:streams=ethusdt@*"),))
    with Exchange(Market(), spec) as exchange, caplog.at_level(logging.WARNING, "gpuscalp"):
        config = _config(exchange, first_message_ms=1_000)
        record(SYMBOLS, tmp_path / "recording", config, seconds=60.0, told=_until(600))
    assert caplog.messages == ["nothing comes of ETHUSDT"]
