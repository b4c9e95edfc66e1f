"""What NautilusTrader writes into its files comes into our log, without secrets, and leaves no file."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuscalp.config import LogsConfig
from gpuscalp.logs import LogWriter, Wanted, read
from gpuscalp.nautilus import node_log
from gpuscalp.nautilus.installed import LIVE
from gpuscalp.nautilus.node_log import passed_on, without_stderr
from gpuscalp.redaction import keep_environment
from tests.planted import ENVIRONMENT, EVERYTHING, files_with_words
from tests.tools import no_nautilus

NODE = """
import sys
from pathlib import Path
from gpuscalp.nautilus.node import begin_log, flush_log
from gpuscalp.nautilus.node_log import passed_on
from nautilus_trader.common.component import Logger

with passed_on(Path(sys.argv[1]), flush=flush_log) as folder:
    guard = begin_log("ERROR", folder)
    Logger("Part").error("signature=PLANTED")
    sys.stderr.write("ours")
"""


def test_lines_come_in_order_with_level_and_part(tmp_path: Path) -> None:
    keep_environment(ENVIRONMENT)
    writer = LogWriter(LogsConfig())
    writer.open(tmp_path)
    with passed_on(tmp_path) as folder:
        assert folder.stat().st_mode & 0o077 == 0
        line = {"timestamp": "2026-11-26T00:00:00Z", "trader_id": "T", "color": "NORMAL"}
        first = line | {"level": "WARN", "component": "ExecEngine", "message": f"late {EVERYTHING}"}
        second = line | {"level": "ERROR", "component": "DataEngine", "message": "gone"}
        with (folder / "nautilus.json").open("w") as file:
            file.write(json.dumps(first) + "\n" + json.dumps(second)[:20])
            file.flush()
            file.write(json.dumps(second)[20:] + "\nno json\n")
    writer.close()
    assert not folder.exists()
    found = list(read(tmp_path, Wanted(logger="nautilus")))
    assert [(each.level, each.logger) for each in found] == [
        ("WARNING", "nautilus.ExecEngine"),
        ("ERROR", "nautilus.DataEngine"),
        ("INFO", "nautilus"),
    ]
    assert found[0].text.startswith("late ***")
    assert [each.text for each in found[1:]] == ["gone", "no json"]
    assert files_with_words(tmp_path) == {}


def test_folder_is_gone_after_a_failure_and_after_a_kill(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), passed_on(tmp_path) as folder:
        raise RuntimeError
    assert not folder.exists()
    folder.mkdir()  # as a killed process leaves it
    (folder / "nautilus.json").write_text("left behind\n")
    with passed_on(tmp_path) as again:
        assert not folder.exists()
        assert not list(again.iterdir())
    assert logging.getLogger("nautilus").handlers == []


def test_folder_of_another_user_stays_and_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name was always the same one: whoever made a folder of that name kept the session from starting."""
    memory, uid = tmp_path / "memory", os.getuid() + 1
    memory.mkdir()
    monkeypatch.setattr(node_log, "_MEMORY", memory)
    monkeypatch.setattr(os, "getuid", lambda: uid)  # so that what is made here is another one's
    session = hashlib.sha256(os.fsencode(tmp_path.resolve())).hexdigest()[:16]
    planted = [memory / f"gpuscalp-nautilus-{uid}-{session}{end}" for end in ("", "-", "-x")]
    for path in planted:
        path.mkdir()
        (path / "theirs").touch()
    for _ in range(2):
        with passed_on(tmp_path) as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
            assert folder.parent == memory
            assert folder not in planted
    assert all((path / "theirs").exists() for path in planted)
    assert sorted(memory.iterdir()) == sorted(planted)


def test_what_a_native_thread_writes_to_standard_error_goes_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """NautilusTrader's errors came to standard error with signatures, whatever was configured."""
    told, go_on = threading.Event(), threading.Event()
    found: dict[str, object] = {}

    def write() -> None:
        os.write(2, b"signature=PLANTED")
        found["mask"] = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        try:
            os.fstat(ours.fileno())
        except OSError as error:
            found["ours"] = error.errno
        told.set()
        go_on.wait(10)

    with (tmp_path / "lock").open("w") as ours:
        before = len(list(Path("/proc/self/fd").iterdir()))
        writer = without_stderr(lambda: _started(write))
        assert told.wait(10)
        os.write(2, b"ours")
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        go_on.set()
        writer.join()
    assert capfd.readouterr().err == "ours"
    assert found == {"mask": signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}, "ours": errno.EBADF}


def _started(write: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_a_system_that_has_no_such_call_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node_log, "_CLOSE_RANGE", 99_999)
    assert without_stderr(lambda: 5) == 5
    assert "standard error gets NautilusTrader's errors too: Function not implemented" in caplog.text


def test_a_writer_that_cannot_be_started_says_why() -> None:
    with pytest.raises(ZeroDivisionError):
        without_stderr(lambda: 1 // 0)


@pytest.mark.skipif(bool(no_nautilus(LIVE)), reason=no_nautilus(LIVE))
def test_errors_of_nautilus_come_into_the_log_alone(tmp_path: Path) -> None:
    code = "import logging; logging.basicConfig(stream=sys.stdout, format='%(name)s %(message)s')"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}\n{NODE}", str(tmp_path)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("nautilus.Part signature=PLANTED\n", "ours")
