"""A session as it is operated: its log, its port, its chain from tick to fill, its backup, and no secret.

One session runs for all of these tests, with secrets planted wherever somebody may give one or an exchange
may send one back; then it is restored from a backup that was made while it ran, and goes on.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
import pytest

from gpuscalp.config import LogsConfig, MetricsConfig, NotifyConfig, SessionConfig
from gpuscalp.dashboard.access import open_token
from gpuscalp.errors import DataError, UsageError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.server import ServeSpec
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.backup import backup
from gpuscalp.live.chain import chain
from gpuscalp.live.commands import Commands
from gpuscalp.live.control import Request, ask
from gpuscalp.live.directory import read_about
from gpuscalp.live.records import SignalRecord, decode
from gpuscalp.live.restore import restore
from gpuscalp.logs import Wanted, read
from gpuscalp.schema import NS_PER_MS
from tests.live.sessions import (
    FRAME_MS,
    Market,
    Running,
    eager_config,
    feed_of,
    write_eager_bundle,
)
from tests.planted import BY_PLACE, ENVIRONMENT, EVERYTHING, files_with_words, words_in
from tests.ports import free_port
from tests.waiting import until


class Operated(NamedTuple):
    """What is left of the session, and what it said while it ran."""

    path: Path
    config: Any
    bundle: Path
    exchange: Exchange
    saved: Path
    answers: dict[str, tuple[int, str]]
    levels: dict[str, Any]
    used: dict[str, Any]
    status: dict[str, Any]


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def wait_ready(port: int) -> dict[str, tuple[int, str]]:
    """Return the first answer to each path from when the session is ready on."""
    until(lambda: get(port, "/readyz")[0] == 200, "a session that is ready")
    return {path: get(port, path) for path in ("/healthz", "/readyz", "/metrics")}


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    folder = tmp_path_factory.mktemp("operated")
    bundle, path, saved = folder / "bundle", folder / "session", folder / "saved.tar"
    write_eager_bundle(bundle)
    other = write_eager_bundle(folder / "other", seed=1)
    port = free_port()
    with patch.dict(os.environ, ENVIRONMENT), Exchange(Market(), ServeSpec()) as exchange:
        config = eager_config(
            feed_of(exchange, redundancy=1),
            metrics=MetricsConfig(port=port),
            logs=LogsConfig(level="DEBUG"),
            session=SessionConfig(status_ms=100, checkpoint_s=0.5),
        )
        with Running(path, config, bundle) as running:
            running.wait_trading()
            answers = wait_ready(port)
            levels = running.ask("log_level", level="INFO", logger="gpuscalp.frames")
            running.ask("halt", by=EVERYTHING)
            answers["reducing"] = get(port, "/readyz")
            running.ask("resume", by="nobody")
            used = running.ask("use", model=str(other), by=EVERYTHING, why=EVERYTHING)
            running.ask("use", model=str(bundle), shadow=True)
            status = running.wait(lambda status: status["model"]["shadow"] is not None, "a shadow")
            logging.getLogger("gpuscalp.feeds").warning("%s", EVERYTHING)
            logging.getLogger("websockets").warning("of others: %s", EVERYTHING)
            running.wait(lambda _: any((path / "checkpoints").glob("*.ckpt")), "a checkpoint")
            backup([path], saved)
            running.ask("flatten")
            until(lambda: get(port, "/readyz")[0] != 200, "what is not ready any more")
            answers["halted"], answers["changed"] = get(port, "/readyz"), get(port, "/metrics")
            ended = running.stop()
        ended.check()
        yield Operated(path, config, bundle, exchange, saved, answers, levels, used, status)


def filled_entry(path: Path) -> int:
    """Return an order that opened a position and was filled."""
    with closing(sqlite3.connect(path / "state.sqlite")) as database:
        query = "SELECT order_id FROM orders WHERE state = 'filled' AND NOT reduce_only LIMIT 1"
        return int(database.execute(query).fetchone()[0])


# Port -------------------------------------------------------------------------------------------------------


def test_probes_follow_the_session(operated):
    answers = operated.answers
    assert answers["/healthz"][0] == answers["/readyz"][0] == 200
    assert json.loads(answers["/healthz"][1])["phase"] == "running"
    assert "gpuscalp_engine_info" in answers["/metrics"][1]
    code, body = answers["reducing"]
    assert code == 200
    code, body = answers["halted"]
    assert code == 503
    assert [each["what"] for each in json.loads(body)["reasons"]] == ["gate"]


# Models -----------------------------------------------------------------------------------------------------


def test_another_model_leads_from_the_frame_on_that_was_told(operated):
    used, model = operated.used, operated.status["model"]
    first = read_about(operated.path).bundle
    assert (used["role"], used["before"]) == ("lead", first)
    assert (model["bundle"], model["begun_with"], model["before"]) == (used["bundle"], first, first)
    assert model["shadow"]["bundle"] == first
    assert f'gpuscalp_model_info{{bundle="{used["bundle"]}"}} 1.0' in operated.answers["changed"][1]
    frames = [
        decode(record, SignalRecord)
        for record in read_records(operated.path / "journal")
        if record.kind == RecordKind.SIGNAL
    ]
    steps = {after.end_ns - before.end_ns for before, after in pairwise(frames)}
    assert steps == {FRAME_MS * NS_PER_MS}, "a frame is missing, or was decided twice"
    assert [each.model != "" for each in frames] == [each.end_ns > used["after_ns"] for each in frames]
    texts = [entry.text for entry in read(operated.path, Wanted(logger="gpuscalp.models"))]
    assert f"frames after {used['after_ns']}" in texts[0]


# Log --------------------------------------------------------------------------------------------------------


def test_an_order_is_followed_by_one_id(operated, cli):
    number = filled_entry(operated.path)
    found = json.loads(cli("logs", str(operated.path), "--id", str(number), "--json").stdout)
    loggers = [each["logger"] for each in found if "order" in each or "frame" in each]
    assert "gpuscalp.risk" in loggers
    said = [each["text"].split()[0] for each in found if each["logger"] == "gpuscalp.orders"]
    assert said[0] == "send"
    assert "filled:" in said
    mine = [each for each in found if each.get("order", "").endswith(f"-{number}")]
    assert len({each["frame"] for each in mine}) == 1, "one id from the frame to the fill"
    verdicts = [each for each in found if each["logger"] == "gpuscalp.risk"]
    assert {each["frame"] for each in verdicts} == {mine[0]["frame"]}


def test_level_was_changed_while_it_ran(operated):
    assert operated.levels["levels"] == {"gpuscalp": "DEBUG", "gpuscalp.frames": "INFO"}
    frames = list(read(operated.path, Wanted(logger="gpuscalp.frames", level="")))
    changed = next(entry.at_ns for entry in read(operated.path, Wanted()) if "level of" in entry.text)
    assert [entry for entry in frames if entry.at_ns < changed]
    assert not [entry for entry in frames if entry.at_ns > changed + 10**9 and entry.level == "DEBUG"]


def test_chain_of_an_order_is_that_of_the_journal(operated, cli):
    number = filled_entry(operated.path)
    found = json.loads(cli("logs", str(operated.path), "--order", str(number), "--json").stdout)
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert list(stages)[:5] == ["message", "batch", "signal", "verdict", "order"]
    assert "fill" in stages
    # The oracle reads bodies as plain JSON, and looks for nothing but ids.
    records = {record.seq: record for record in read_records(operated.path / "journal")}
    bodies = {name: msgspec.json.decode(records[stages[name]["seq"]].body) for name in list(stages)[1:]}
    assert bodies["order"]["order_id"] == bodies["fill"]["order_id"] == number
    assert bodies["order"]["decided_ns"] == bodies["signal"]["end_ns"] == bodies["verdict"]["end_ns"]
    assert bodies["verdict"]["symbol"] == bodies["order"]["symbol"]
    assert found["frame"] == f"{found['symbol']}@{bodies['signal']['end_ns']}"
    assert found["order"] == bodies["order"]["client_id"]
    message = records[stages["message"]["seq"]]
    assert message.kind in (RecordKind.RAW, RecordKind.REST, RecordKind.CLOCK)
    between = [records[seq].kind for seq in range(message.seq + 1, stages["batch"]["seq"])]
    assert not {RecordKind.RAW, RecordKind.BATCH} & set(between)
    times = [records[stage["seq"]].recv_ns for stage in found["stages"]]
    assert [stage["at_ns"] for stage in found["stages"]] == times == sorted(times)
    gaps = [(later - earlier) / 1e6 for earlier, later in pairwise(times)]
    assert [stage["since_ms"] for stage in found["stages"]][1:] == pytest.approx(gaps)
    assert chain(operated.path, found["order"]) == found
    shown = cli("logs", str(operated.path), "--order", str(number)).stdout
    assert [line.split()[0] for line in shown.splitlines() if line.strip()][3:5] == ["message", "batch"]
    assert cli("logs", str(operated.path), "--order", "99999999").code == 2
    assert cli("logs", str(operated.path), "--order", "gs-another-1").code == 2


# Secrets ----------------------------------------------------------------------------------------------------


def test_planted_secrets_appear_nowhere(operated):
    assert files_with_words(operated.path) == {}
    for code, body in operated.answers.values():
        assert not words_in(body), code
    texts = [entry.text for entry in read(operated.path, Wanted())]
    assert [text for text in texts if text.startswith("of others: ***")], "the log was written all the same"


def test_search_finds_what_is_planted(operated, tmp_path):
    copy = shutil.copytree(operated.path, tmp_path / "copy")
    (copy / "status.json").write_text(BY_PLACE["signature"])
    with closing(sqlite3.connect(copy / "state.sqlite")) as database:
        database.execute("UPDATE orders SET reason = ?", (BY_PLACE["userinfo"],))
        database.commit()
    assert files_with_words(copy).keys() >= {"status.json", "state.sqlite"}


def test_crash_leaves_a_report_without_secrets(operated, tmp_path):
    def broken(*_: object) -> None:
        raise RuntimeError(EVERYTHING)

    with patch.dict(os.environ, ENVIRONMENT), patch.object(Commands, "answered", broken):
        running = Running(tmp_path / "session", operated.config, operated.bundle)
        with running:
            error = running.join()
    assert isinstance(error, RuntimeError)
    (path,) = (tmp_path / "session" / "crashes").iterdir()
    report = json.loads(path.read_text())
    about = read_about(tmp_path / "session")
    assert report["error"]["kind"] == "RuntimeError"
    assert "broken" in report["error"]["traceback"]
    assert report["session"]["session_id"] == about.session_id
    assert len(report["session"]["config_sha256"]) == 64
    assert report["versions"]["packages"]["numpy"]
    assert report["log"][-1]["level"] in ("INFO", "ERROR", "WARNING", "DEBUG")
    seqs = [each["seq"] for each in report["journal"]]
    assert seqs == list(range(seqs[0], seqs[-1] + 1))
    assert path.stat().st_mode & 0o077 == 0
    assert files_with_words(tmp_path) == {}


# Backup -----------------------------------------------------------------------------------------------------


def test_restored_session_goes_on_and_verifies(operated, tmp_path):
    answer = restore(operated.saved, tmp_path / "elsewhere")
    (restored,) = map(Path, answer["restored"])
    about = read_about(operated.path)
    assert read_about(restored) == about
    known = {order for order, *_ in orders_of(restored)}
    with patch.dict(os.environ, ENVIRONMENT), Running(restored, operated.config, operated.bundle) as running:
        status = running.wait(lambda status: True, "an answer")
        assert not status["start"]["fresh"]
        assert status["state"] == "active", "the database must not know more than the journal"
        running.wait_trading()
        # The entries that came may still be of orders that were on their way when it was saved.
        running.wait(lambda _: known < {order for order, *_ in orders_of(restored)}, "a new order")
        ended = running.stop()
    story = ended.check()
    assert story is not None
    assert known < {order for order, *_ in orders_of(restored)}


def orders_of(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path / "state.sqlite")) as database:
        return list(database.execute("SELECT order_id, state FROM orders"))


def test_database_in_a_backup_is_not_ahead_of_its_journal(operated, tmp_path):
    restore(operated.saved, tmp_path)
    path = tmp_path / operated.path.name
    with closing(sqlite3.connect(path / "state.sqlite")) as database:
        (newest,) = database.execute("SELECT max(seq) FROM fills").fetchone()
    last = max(record.seq for record in read_records(path / "journal"))
    assert newest <= last
    checkpoints = [int(each.stem) for each in (path / "checkpoints").glob("*.ckpt")]
    assert checkpoints
    assert max(checkpoints) <= last + 1


def test_every_damaged_byte_of_a_file_is_found_and_nothing_is_laid_out(operated, tmp_path):
    with tarfile.open(operated.saved) as archive:
        members = [(each.name, each.offset_data, each.size) for each in archive if each.size]
    assert len(members) > 5
    whole = operated.saved.read_bytes()
    for name, at, size in members:
        for offset in {at, at + size // 2, at + size - 1}:
            damaged = bytearray(whole)
            damaged[offset] ^= 0x01
            bad = tmp_path / "bad.tar"
            bad.write_bytes(damaged)
            with pytest.raises(DataError, match="damaged"):
                restore(bad, tmp_path / "out")
            assert not (tmp_path / "out").exists(), name
    for length in (0, 511, len(whole) // 2, members[-1][1], members[-2][1]):
        (tmp_path / "short.tar").write_bytes(whole[:length])
        with pytest.raises(DataError):
            restore(tmp_path / "short.tar", None)


def test_nothing_is_replaced(operated, tmp_path, cli):
    restore(operated.saved, tmp_path / "there")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "there").rglob("*")}
    with pytest.raises(UsageError, match="something here"):
        restore(operated.saved, tmp_path / "there")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "there").rglob("*")} == before
    with pytest.raises(UsageError, match="something here"):
        backup([operated.path], operated.saved)
    assert cli("restore", str(operated.saved)).code == 2
    assert json.loads(cli("restore", str(operated.saved), "--check", "--json").stdout)["restored"] == []


def test_bundle_and_configuration_are_saved_too(operated, tmp_path, cli):
    config = tmp_path / "live.toml"
    config.write_text('venue = "binance_usdm"\n')
    answer = cli("backup", str(operated.bundle), str(config), str(tmp_path / "b.tar"), "--json")
    assert [each["kind"] for each in json.loads(answer.stdout)["sources"]] == ["bundle", "config"]
    restore(tmp_path / "b.tar", tmp_path / "r")
    assert (tmp_path / "r" / "live.toml").read_bytes() == config.read_bytes()
    for path in operated.bundle.rglob("*"):
        if path.is_file():
            same = tmp_path / "r" / operated.bundle.name / path.relative_to(operated.bundle)
            assert same.read_bytes() == path.read_bytes()
    assert cli("backup", str(tmp_path), str(tmp_path / "c.tar")).code == 2
    assert not list(tmp_path.glob(".*partial"))


def test_token_of_the_dashboard_stays_where_it_is(operated, tmp_path):
    copy = shutil.copytree(operated.path, tmp_path / "session")
    token = open_token(copy)
    backup([copy], tmp_path / "b.tar")
    assert token.encode() not in (tmp_path / "b.tar").read_bytes()
    restore(tmp_path / "b.tar", tmp_path / "r")
    assert open_token(tmp_path / "r" / "session") != token


def test_damaged_journal_is_not_saved_as_if_it_were_whole(operated, tmp_path):
    copy = shutil.copytree(operated.path, tmp_path / "session")
    segment = sorted((copy / "journal").glob("*.gsj"))[0]
    data = bytearray(segment.read_bytes())
    data[len(data) // 3] ^= 0xFF
    segment.write_bytes(data)
    with pytest.raises(DataError):
        backup([copy], tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()


# Watching may change ----------------------------------------------------------------------------------------


def test_log_and_port_may_be_others_at_the_next_start(operated, tmp_path):
    copy = tmp_path / "session"
    restore(operated.saved, tmp_path)
    changed = msgspec.structs.replace(
        operated.config,
        logs=LogsConfig(level="ERROR"),
        metrics=MetricsConfig(port=free_port()),
        notify=NotifyConfig(severity="critical"),
    )
    with patch.dict(os.environ, ENVIRONMENT), Running(copy, changed, operated.bundle) as running:
        running.wait(lambda status: True, "an answer")
        assert get(changed.metrics.port, "/healthz")[0] == 200
        answer = ask(copy, Request("status"))
        assert answer["logs"]["levels"] == {"gpuscalp": "ERROR"}
        running.stop()
