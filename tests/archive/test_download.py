"""Downloads from a server on the loopback that misbehaves on request."""

from __future__ import annotations

import datetime
import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.archive.download import download, wanted_files
from gpuscalp.errors import DataError, DeadlineError, UsageError

DAY = datetime.date(2024, 7, 18)
CONTENT = bytes(range(256)) * 4_000


@dataclass
class Vision:
    """Files, faults and what was asked.

    ``faults`` by path, used up one a request: "break" closes the connection in the middle, an integer is
    answered as a status, "ignore range" sends the whole file.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def add(self, path: str, content: bytes, checksum: str | None = None) -> str:
        digest = checksum or hashlib.sha256(content).hexdigest()
        self.files[f"/{path}"] = content
        self.files[f"/{path}.CHECKSUM"] = f"{digest}  {path.rpartition('/')[2]}\n".encode()
        return path


@pytest.fixture
def vision() -> Iterator[Vision]:
    state = Vision()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.asked.append((self.path, asked))
            faults = state.faults.get(self.path, [])
            fault = faults.pop(0) if faults else None
            content = state.files.get(self.path)
            if isinstance(fault, int) or content is None:
                self.send_response(fault if isinstance(fault, int) else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = (
                int(asked.removeprefix("bytes=").removesuffix("-"))
                if asked and fault != "ignore range"
                else 0
            )
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            rest = content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: len(rest) // 2] if fault == "break" else rest)
            if fault == "break":
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(vision: Vision, target: Path, *wanted: str, **options: Any) -> dict[str, Any]:
    return download(wanted, target, base_url=vision.url, backoff_s=0.01, timeout_s=5, **options).to_dict()


def test_layout_of_daily_and_monthly_files() -> None:
    days = wanted_files(["btcusdt", "ETHUSDT"], type="aggTrades", start=DAY, end=DAY + datetime.timedelta(1))
    root = "data/futures/um/daily/aggTrades"
    assert days == [
        f"{root}/{symbol}/{symbol}-aggTrades-2024-07-{day}.zip"
        for symbol in ("BTCUSDT", "ETHUSDT")
        for day in (18, 19)
    ]
    months = wanted_files(
        ["BTCUSDT"],
        type="trades",
        start=DAY,
        end=datetime.date(2024, 9, 1),
        period="monthly",
        venue="binance_spot",
    )
    assert [path.rpartition("/")[2] for path in months] == [
        f"BTCUSDT-trades-2024-0{month}.zip" for month in (7, 8, 9)
    ]
    assert months[0].startswith("data/spot/monthly/trades/BTCUSDT/")


def test_quarterly_contract_is_asked_for_by_its_whole_name() -> None:
    (item,) = wanted_files(["btcusdt_240927"], type="trades", start=DAY, end=DAY)
    assert item.endswith(f"/trades/BTCUSDT_240927/BTCUSDT_240927-trades-{DAY}.zip")


@pytest.mark.parametrize(
    ("symbols", "type", "end"),
    [
        (["_"], "trades", DAY),
        (["BTCUSDT"], "klines", DAY),
        (["../x"], "trades", DAY),
        (["BTCUSDT"], "trades", datetime.date(2024, 7, 1)),
    ],
)
def test_impossible_wishes_are_refused(symbols: list[str], type: str, end: datetime.date) -> None:
    with pytest.raises(UsageError) as caught:
        wanted_files(symbols, type=type, start=DAY, end=end)
    assert caught.value.fix


def test_files_arrive_verified_and_missing_ones_are_listed(vision: Vision, tmp_path: Path) -> None:
    items = [vision.add(f"a/{number}.zip", CONTENT + bytes([number])) for number in range(6)]
    seen: list[tuple[int, int]] = []
    answer = fetch(
        vision,
        tmp_path,
        *items,
        "a/none.zip",
        progress=lambda done, total, _: seen.append((done, total)),
    )
    assert answer["downloaded"] == items
    assert (answer["missing"], answer["present"]) == (["a/none.zip"], [])
    for number, item in enumerate(items):
        assert (tmp_path / item).read_bytes() == CONTENT + bytes([number])
    assert seen[-1][0] == answer["bytes"] == 6 * (len(CONTENT) + 1)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    again = fetch(vision, tmp_path, *items)
    assert (again["present"], again["bytes"]) == (items, 0)


def test_broken_transfer_goes_on_where_it_stopped(vision: Vision, tmp_path: Path) -> None:
    item = vision.add("a/b.zip", CONTENT)
    vision.faults["/a/b.zip"] = ["break", "break"]
    answer = fetch(vision, tmp_path, item)
    assert (tmp_path / item).read_bytes() == CONTENT
    assert answer["bytes"] == len(CONTENT), "nothing came twice"
    starts = [asked for path, asked in vision.asked if path == "/a/b.zip"]
    assert starts == [None, f"bytes={len(CONTENT) // 2}-", f"bytes={len(CONTENT) * 3 // 4}-"]


def test_later_call_goes_on_from_the_part_file(vision: Vision, tmp_path: Path) -> None:
    item = vision.add("a/b.zip", CONTENT)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.zip.part").write_bytes(CONTENT[:1_000])
    assert fetch(vision, tmp_path, item)["bytes"] == len(CONTENT) - 1_000
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b.zip"]


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", b"other" + CONTENT[5:], b"something else"])
def test_any_part_file_ends_in_the_right_file(vision: Vision, tmp_path: Path, part: bytes) -> None:
    item = vision.add("a/b.zip", CONTENT)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.zip.part").write_bytes(part)
    fetch(vision, tmp_path, item)
    assert (tmp_path / item).read_bytes() == CONTENT


def test_server_without_ranges_is_coped_with(vision: Vision, tmp_path: Path) -> None:
    item = vision.add("a/b.zip", CONTENT)
    vision.faults["/a/b.zip"] = ["break", "ignore range"]
    fetch(vision, tmp_path, item)
    assert (tmp_path / item).read_bytes() == CONTENT


def test_changed_file_is_fetched_again(vision: Vision, tmp_path: Path) -> None:
    fetch(vision, tmp_path, vision.add("a/b.zip", b"old"))
    item = vision.add("a/b.zip", CONTENT)
    assert fetch(vision, tmp_path, item)["downloaded"] == [item]
    assert (tmp_path / item).read_bytes() == CONTENT


def test_busy_server_is_asked_again(vision: Vision, tmp_path: Path) -> None:
    item = vision.add("a/b.zip", CONTENT)
    vision.faults = {"/a/b.zip.CHECKSUM": [503, 429], "/a/b.zip": [500, 502]}
    fetch(vision, tmp_path, item)
    assert (tmp_path / item).read_bytes() == CONTENT


def test_wrong_checksum_never_becomes_a_file(vision: Vision, tmp_path: Path) -> None:
    item = vision.add("a/b.zip", CONTENT, checksum="0" * 64)
    with pytest.raises(DataError, match="published checksum"):
        fetch(vision, tmp_path, item)
    assert list((tmp_path / "a").iterdir()) == []
    assert [path for path, _ in vision.asked].count("/a/b.zip") == 2


def test_checksum_file_of_something_else_is_refused(vision: Vision, tmp_path: Path) -> None:
    item = vision.add("a/b.zip", CONTENT)
    vision.files["/a/b.zip.CHECKSUM"] = b"<html>hello</html>"
    with pytest.raises(DataError, match="not a checksum file"):
        fetch(vision, tmp_path, item)


def test_endlessly_breaking_server_is_given_up(vision: Vision, tmp_path: Path) -> None:
    item, other = vision.add("a/b.zip", CONTENT), vision.add("a/c.zip", CONTENT)
    vision.faults["/a/b.zip"] = ["break"] * 9
    with pytest.raises(DeadlineError, match="broke off at every attempt"):
        fetch(vision, tmp_path, item, other, workers=1)
    assert (tmp_path / "a" / "b.zip.part").stat().st_size > len(CONTENT) // 2, "what came is kept"


def test_refusing_server_is_an_error(vision: Vision, tmp_path: Path) -> None:
    item = vision.add("a/b.zip", CONTENT)
    vision.faults["/a/b.zip"] = [403]
    with pytest.raises(DataError, match="the server refused"):
        fetch(vision, tmp_path, item)


def test_absent_server_is_an_error(tmp_path: Path) -> None:
    """It was told with the exit code of what takes too long; that of a venue out of reach is 1."""
    with pytest.raises(DataError, match="cannot be reached") as caught:
        download(["a"], tmp_path, base_url="http://127.0.0.1:1", backoff_s=0.001, timeout_s=1)
    assert caught.value.exit_code == 1


def test_silent_server_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DeadlineError, match="did not answer") as caught:
            download(["a"], tmp_path, base_url=url, backoff_s=0.001, timeout_s=0.1)
    assert caught.value.exit_code == 5
