"""The benchmark of being retrained: with the process in one kind of slices, and without any in the other.

Session and retraining are stand-ins: a whole session is cut into slices by ``test_bench_watched``.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpuscalp.bench import retraining
from gpuscalp.config import JournalConfig
from gpuscalp.journal import JournalWriter, RecordKind
from gpuscalp.live.records import SignalRecord, encode
from gpuscalp.schema import NS_PER_MS

FRAME_NS = 10 * NS_PER_MS


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Stand in for ``gpuscalp retrain``: its first run fails, its second ends, all others go on."""
    path, told = tmp_path / "program", tmp_path / "told"
    path.write_text(
        f'#!/bin/sh\necho "$@" >> {told}\ncase $(wc -l < {told}) in\n'
        "1) echo no market; exit 3;;\n2) exit 0;;\n*) exec sleep 600;;\nesac\n"
    )
    path.chmod(0o700)
    monkeypatch.setattr(retraining, "sys", SimpleNamespace(executable=str(path)))
    return told


@contextmanager
def session(folder: Path, **_: object):
    """Stand in for a session: a frame every 10 ms, one missed and one twice."""
    begin_ns = time.time_ns()
    yield folder
    with JournalWriter(folder / "journal", JournalConfig(), now_ns=0) as journal:
        frames = list(range((time.time_ns() - begin_ns) // FRAME_NS))
        middle = len(frames) // 2
        for frame in sorted([*frames[:middle], *frames[middle + 1 :], middle + 1]):
            at_ns = begin_ns + frame * FRAME_NS
            body = SignalRecord(at_ns, at_ns + 1, (NS_PER_MS,) * 3, b"", b"", b"", 0, ())
            journal.append(RecordKind.SIGNAL, encode(body), recv_ns=at_ns)


def test_one_that_ends_is_followed_by_another_and_the_last_is_killed(program, cli, tmp_path):
    made = retraining._Retraining(tmp_path / "session", cores=1, memory_mb=2_048)
    until = time.monotonic() + 60.0
    while made.counts["begun"] < 3:
        assert time.monotonic() < until
        made.go_on(True)
        time.sleep(0.01)
    process = made._process
    assert process is not None
    made.go_on(False)
    made.go_on(False)
    assert process.returncode < 0
    assert dict(made.counts) == {"begun": 3, "failed": 1, "finished": 1}
    assert made.why == "no market\n"
    assert made.cpu_s > 0
    _, _, *words = program.read_text().splitlines()[0].split()
    assert cli(*words, "--help").code == 0, "a command with these options is there"
    assert cli(*words, "--nothing", "--help").code == 2


def test_a_session_is_retrained_and_left_alone_in_turn(program, tmp_path, monkeypatch):
    program.write_text("\n\n")
    monkeypatch.setattr(retraining, "loaded_session", session)
    monkeypatch.setattr(retraining, "SETTLE_S", 0.1)
    steps = []
    found = retraining.measure(
        tmp_path, symbols=3, rate=300, slice_s=0.3, rounds=1, before_s=0.0, cores=1, memory_mb=2_048,
        told=lambda *step: steps.append(step[-1]),
    )  # fmt: skip
    assert steps[2:6] == ["retrained", "left alone", "left alone", "retrained"]
    assert (found["slices"], found["begun"], found["finished"], found["failed"]) == (4, 2, 0, 0)
    assert (found["missed"], found["doubled"]) == (1, 1)
    assert 0 < found["cpu_share"] <= 1.1
    for arm in ("retrained", "bare"):
        assert found[f"{arm}_frames"] > 5
        assert found["frame_ms"][arm]["p50"] == 3.0
