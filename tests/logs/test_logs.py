"""A log is written by one thread, kept small, chosen from and followed; it holds nobody up."""

from __future__ import annotations

import ast
import json
import logging
import threading
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpuscalp.config import LogsConfig
from gpuscalp.errors import UsageError
from gpuscalp.logs import LogWriter, Wanted, follow, frames_of, read, reading
from gpuscalp.logs.entry import JsonForm
from gpuscalp.logs.writing import LOG_FILE, PARTS
from gpuscalp.redaction import keep_environment
from tests.planted import ENVIRONMENT, EVERYTHING, words_in
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent
ORDERS = logging.getLogger("gpuscalp.orders")


@pytest.fixture
def writer(tmp_path):
    made = LogWriter(LogsConfig())
    made.open(tmp_path)
    yield made
    made.close()


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "logs" / "gpuscalp.jsonl").read_text().splitlines()]


def test_entry_has_its_fields_and_no_secret(tmp_path):
    made = LogWriter(LogsConfig())
    keep_environment(ENVIRONMENT)
    before_ns = time.time_ns()
    ORDERS.info("waits %d for\nthe file", 7)
    made.open(tmp_path)
    try:
        raise ValueError(EVERYTHING)
    except ValueError:
        ORDERS.exception("%s", EVERYTHING, extra={"frame": "BTCUSDT@5", "order": "gs-x-1"})
    made.close()
    first, second = lines(tmp_path)
    assert (first["text"], first["level"], first["logger"]) == ("waits 7 for | the file", "INFO", ORDERS.name)
    assert before_ns - 10**6 <= first["at_ns"] <= time.time_ns()
    assert first["at"].endswith("Z")
    assert (second["frame"], second["order"]) == ("BTCUSDT@5", "gs-x-1")
    assert "Traceback" in second["error"]
    assert not words_in((tmp_path / "logs" / "gpuscalp.jsonl").read_bytes())


def test_levels_change_while_it_runs_and_are_put_back(tmp_path):
    before = ORDERS.level
    made = LogWriter(LogsConfig(level="WARNING"))
    made.open(tmp_path)
    ORDERS.info("unseen")
    made.set_level("DEBUG", ORDERS.name)
    ORDERS.debug("seen")
    logging.getLogger("gpuscalp.other").info("unseen")
    logging.getLogger("somebody.else").warning("seen too")
    assert made.levels() == {"gpuscalp": "WARNING", "gpuscalp.orders": "DEBUG"}
    with pytest.raises(UsageError):
        made.set_level("LOUD")
    made.close()
    assert [each["text"] for each in lines(tmp_path)] == ["seen", "seen too"]
    assert ORDERS.level == before


def test_part_that_says_nothing_is_refused_by_its_name(writer, tmp_path):
    """The level of gpuscalp.feeds, which is in no log, was said to be DEBUG: an operator saw nothing."""
    before = writer.levels()
    for name in ("gpuscalp.feeds", "gpuscalp.order", "gpuscalp.order.x"):
        with pytest.raises(UsageError, match="no such part") as caught:
            writer.set_level("DEBUG", name)
        assert "gpuscalp.orders" in (caught.value.fix or "")
        with pytest.raises(UsageError, match="no such part"):
            list(read(tmp_path, Wanted(logger=name)))
    assert writer.levels() == before
    for name in ("gpuscalp", "gpuscalp.orders", "gpuscalp.ops.kernel_cache", "nautilus", "asyncio"):
        writer.set_level("INFO", name)


def test_parts_are_those_that_the_sources_name():
    named = set()
    for path in (ROOT / "gpuscalp").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "getLogger" and node.args:
                own = f"gpuscalp.{path.relative_to(ROOT / 'gpuscalp').parts[0]}"
                named.add(
                    own
                    if getattr(node.args[0], "id", "") == "__name__"
                    else getattr(node.args[0], "value", "")
                )
    ours = {str(name).split(".")[1] for name in named if str(name).startswith("gpuscalp.")}
    assert ours == set(PARTS)


def test_full_queue_drops_and_counts_and_never_waits(tmp_path):
    made = LogWriter(LogsConfig(queue=10))
    for number in range(25):  # nobody writes yet
        ORDERS.info("%d", number)
    assert made.status()["dropped"] == 15
    made.open(tmp_path)
    made.close()
    texts = [each["text"] for each in lines(tmp_path)]
    assert texts[0] == "0"
    assert "15 entries were dropped: more came than could be written" in texts
    assert [text for text in texts if text.isdecimal()] == [str(number) for number in range(10)]
    assert [entry.text for entry in made.newest()][-1] == "24"


def test_disk_that_takes_nothing_ends_nobody(writer, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer._handlers[0].stream, "write", refuse, raising=False)
    ORDERS.info("lost")
    until(lambda: writer.status()["dropped"], "a loss")
    monkeypatch.undo()


def test_files_rotate_and_are_read_in_order(tmp_path):
    made = LogWriter(LogsConfig(file_bytes=4_096, files=3))
    made.open(tmp_path)
    for number in range(300):
        ORDERS.info("%d", number)
    made.close()
    assert len(list((tmp_path / "logs").iterdir())) == 4
    numbers = [int(entry.text) for entry in read(tmp_path, Wanted())]
    assert numbers == list(range(numbers[0], 300))
    assert numbers[0] > 0


def test_line_that_a_crash_has_cut_short_takes_no_other_with_it(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "gpuscalp.jsonl").write_text('{"at":"2026-11-26T00')
    made = LogWriter(LogsConfig())
    made.open(tmp_path)
    ORDERS.info("after")
    made.close()
    assert [entry.text for entry in read(tmp_path, Wanted())] == ["after"]


@pytest.fixture
def told(tmp_path):
    made = LogWriter(LogsConfig(level="DEBUG"))
    made.open(tmp_path)
    logging.getLogger("gpuscalp.frames").debug("frame", extra={"frame": "@5"})
    logging.getLogger("gpuscalp.risk").info("verdict", extra={"frame": "BTCUSDT@5"})
    logging.getLogger("gpuscalp.risk").warning("other", extra={"frame": "ETHUSDT@6"})
    ORDERS.info("send", extra={"frame": "BTCUSDT@5", "order": "gs-x-12"})
    ORDERS.error("refused", extra={"order": "gs-x-2"})
    made.close()
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "texts"),
    [
        (Wanted(level="WARNING"), ["other", "refused"]),
        (Wanted(logger="gpuscalp.orders"), ["send", "refused"]),
        (Wanted(logger="gpu"), []),
        (Wanted(ids=("12",)), ["send"]),
        (Wanted(ids=("2",)), ["refused"]),
        (Wanted(ids=("BTCUSDT@5",)), ["frame", "verdict", "send"]),
        (Wanted(to_ns=0), []),
        (Wanted(from_ns=0), ["frame", "verdict", "other", "send", "refused"]),
    ],
)
def test_entries_are_chosen(told, wanted, texts):
    assert [entry.text for entry in read(told, wanted)] == texts


def test_order_leads_to_its_frame(told, cli):
    assert frames_of(told, "12") == ("BTCUSDT@5",)
    found = json.loads(cli("logs", str(told), "--id", "gs-x-12", "--json").stdout)
    assert [entry["text"] for entry in found] == ["frame", "verdict", "send"]
    shown = cli("logs", str(told), "--level", "ERROR").stdout
    assert shown.count("\n") == 1
    assert "gpuscalp.orders: refused [gs-x-2]" in shown


def test_range_that_ends_before_it_begins_is_refused(told, cli):
    # It was answered with "Nothing of that kind."
    done = cli("logs", str(told), "--from", "2024-01-02", "--to", "2024-01-01")
    assert done.code == 2
    assert "2024-01-02 … 2024-01-01" in done.stderr


def test_no_log_is_said(tmp_path, cli):
    assert cli("logs", str(tmp_path)).code == 2


@pytest.mark.parametrize(("kept", "left"), [(5, ["1", "2", "3", "4"]), (1, ["3", "4"])])
def test_log_is_followed_by_who_is_several_files_behind(request, tmp_path, monkeypatch, kept, left):
    """Whoever had looked at one page of a pager for long got the newest file, and none of those before it."""
    (tmp_path / "logs").mkdir()
    log = RotatingFileHandler(tmp_path / "logs" / LOG_FILE, maxBytes=150, backupCount=kept)
    request.addfinalizer(log.close)
    log.setFormatter(JsonForm())
    waited = [0.0]

    def write(text):
        log.emit(logging.makeLogRecord({"name": ORDERS.name, "levelname": "INFO", "msg": text}))

    def wait(seconds):
        if not waited[0]:
            write("0")
        waited[0] += seconds

    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=lambda: waited[0], sleep=wait))
    told = follow(tmp_path, Wanted(), idle_s=1.0)
    assert next(told).text == "0"
    for number in range(1, 5):  # each of them has a file to itself
        write(str(number))
    assert [entry.text for entry in told] == left


def test_log_is_followed_over_a_rotation(tmp_path):
    made = LogWriter(LogsConfig(file_bytes=4_096, files=30))
    made.open(tmp_path)
    seen: list[str] = []

    def watch() -> None:
        for entry in follow(tmp_path, Wanted(), idle_s=60.0):
            seen.append(entry.text)
            if entry.text == "end":
                return

    thread = threading.Thread(target=watch)
    thread.start()
    while not seen and thread.is_alive():
        ORDERS.info("begin")
        time.sleep(0.02)
    for number in range(60):
        ORDERS.info("%d", number)
        time.sleep(0.02)
    ORDERS.info("end")
    thread.join()
    made.close()
    assert [text for text in seen if text != "begin"] == [*(str(number) for number in range(60)), "end"]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) > 1, "there was no rotation"
