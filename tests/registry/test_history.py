"""The history: what a line is, what a torn end is worth, and that no line can be changed unseen."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from gpuscalp.errors import ModelError, UsageError
from gpuscalp.registry import Registry
from gpuscalp.registry.history import Act, append, read_history
from gpuscalp.registry.store import note_session


@pytest.fixture
def registry(tiny, tmp_path) -> Registry:
    """Two models, the second promoted after the first."""
    made = Registry(tmp_path / "models", clock=iter(range(100, 200)).__next__, who="ann@here")
    first, second, _ = tiny
    with made.writing() as writer:
        writer.add(tiny[first])
        writer.add(tiny[second])
        writer.promote("champion", first, why="the first")
        writer.promote("champion", second, why="better")
    return made


def lines_of(registry: Registry) -> list[bytes]:
    return registry.history_path.read_bytes().splitlines(keepends=True)


def test_line_says_who_when_why_from_and_to(registry, tiny):
    first, second, _ = tiny
    told = json.loads(lines_of(registry)[-1])
    before = hashlib.sha256(lines_of(registry)[-2].rstrip(b"\n")).hexdigest()
    assert told == {
        "sequence": 4,
        "time_ns": 103,
        "who": "ann@here",
        "action": "promote",
        "before": before,
        "why": "better",
        "alias": "champion",
        "from": first,
        "to": second,
    }


def test_secret_in_a_reason_is_not_written(registry, monkeypatch):
    monkeypatch.setenv("GPUSCALP_API_SECRET", "k3yk3yk3yk3yk3yk3yk3y")
    from gpuscalp.redaction import keep_environment

    keep_environment(os.environ)
    with registry.writing() as writer:
        writer.pin(registry.digests()[0], why="k3yk3yk3yk3yk3yk3yk3y")
    assert b"k3yk3y" not in registry.history_path.read_bytes()


@pytest.mark.parametrize("length", [1, 40, -1])
def test_torn_end_is_not_there_for_readers_and_cut_off_by_the_next_writer(registry, tiny, length):
    first, second, _ = tiny
    *whole, last = lines_of(registry)
    registry.history_path.write_bytes(b"".join(whole) + last[:length])
    assert registry.history().state().current("champion") == first
    with registry.writing() as writer:
        writer.pin(second)
    history = registry.history()
    assert [act.action for act in history.acts] == ["add", "add", "promote", "pin"]
    assert registry.history_path.stat().st_size == history.whole_bytes


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [*lines[:2], lines[2].replace(b"the first", b"The first"), lines[3]],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [lines[0], b"\n", *lines[1:]],
        lambda lines: [lines[0], b"\xff\n", *lines[1:]],
        lambda lines: [*lines, lines[-1].replace(b'"who"', b'"whose"')],
    ],
    ids=["left out", "changed", "exchanged", "repeated", "empty", "no text", "later version"],
)
def test_altered_history_is_refused_with_its_line(registry, change):
    registry.history_path.write_bytes(b"".join(change(lines_of(registry))))
    with pytest.raises(ModelError, match="altered") as caught:
        registry.history()
    assert ", line " in str(caught.value.where)
    with pytest.raises(ModelError), registry.writing():
        pass


@pytest.mark.parametrize(("promotes", "rollbacks"), [(0, 1), (2, 2), (2, 3)])
def test_rollback_of_what_was_never_promoted_is_refused(tmp_path, promotes, rollbacks):
    """A chain that is sound and says so all the same was a traceback."""
    history, path = read_history(tmp_path / "history.jsonl"), tmp_path / "history.jsonl"
    for number in range(promotes + rollbacks):
        parts = {"action": "promote", "new": "5" * 64} if number < promotes else {"action": "rollback"}
        act = Act(number + 1, 7, "ann", before=history.last, alias="champion", **parts)
        history = append(path, history, act)
    if rollbacks <= promotes:
        assert read_history(path).state().current("champion") is None
    else:
        with pytest.raises(ModelError, match="altered"):
            read_history(path)


def test_full_disk_leaves_the_history_as_it_was(registry, monkeypatch):
    before = registry.history_path.read_bytes()
    write = os.write

    def refuse(file: int, data: bytes) -> int:
        if len(data) > 10:
            return write(file, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with registry.writing() as writer:
        monkeypatch.setattr(os, "write", lambda file, data: refuse(file, data[: len(data) // 2 + 1]))
        with pytest.raises(OSError, match="No space"):
            writer.pin(registry.digests()[0])
        monkeypatch.undo()
        assert registry.history_path.read_bytes() == before
        writer.pin(registry.digests()[0])
    assert registry.history().acts[-1].action == "pin"


def test_act_that_no_reader_would_take_is_not_written(registry):
    """One such line, and no command could read the registry any more."""
    before = registry.history_path.read_bytes()
    with registry.writing() as writer, pytest.raises(msgspec.ValidationError):
        writer.pin("mymodel")
    assert registry.history_path.read_bytes() == before


def test_session_of_a_bundle_that_was_copied_in_by_hand_is_not_noted(registry, tiny, tmp_path):
    stray = Path(shutil.copytree(next(iter(tiny.values())), registry.path / "bundles" / "mymodel"))
    before = registry.history_path.read_bytes()
    note_session(stray, tmp_path / "session", now_ns=1)
    assert registry.history_path.read_bytes() == before


def as_another_user(folder: Path, call: Callable[[], object]) -> None:
    """Call something as a user who may write to a folder and to none of its files."""
    for path in folder.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o444)
    folder.chmod(0o777)
    root = os.geteuid() == 0  # may write to whatever he likes
    if root:
        os.seteuid(65_534)
    try:
        call()
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def shared(registry) -> Iterator[Registry]:
    """Return a registry where all users find it: pytest's own folders are for one."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Registry(Path(shutil.copytree(registry.path, Path(folder) / "models")))


@pytest.mark.parametrize("closed", ["lock", "history.jsonl"])
def test_session_uses_a_model_of_a_registry_of_another_user(shared, tiny, tmp_path, closed):
    """Who might write to the folder, but not to the lock in it, could not begin a session with its models."""
    bundle = shared.bundle_path(next(iter(tiny)))
    before = shared.history_path.read_bytes()
    if closed != "lock":
        (shared.path / "lock").unlink()  # made anew by whoever comes
    as_another_user(shared.path, lambda: note_session(bundle, tmp_path / "session", now_ns=1))
    assert shared.history_path.read_bytes() == before


def test_registry_of_another_user_is_not_writable(shared):
    """That nobody may add to it, though its folder is open, has to be known before a training."""
    (shared.path / "lock").unlink()
    with pytest.raises(UsageError) as caught:
        as_another_user(shared.path, shared.check_writable)
    assert (caught.value.where, caught.value.value) == (str(shared.history_path), "Permission denied")


def test_check_leaves_nothing_behind(registry):
    before = {path: path.read_bytes() for path in registry.path.rglob("*") if path.is_file()}
    registry.check_writable()
    assert {path: path.read_bytes() for path in registry.path.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in (registry.path / "bundles").iterdir()) == registry.digests()


def test_no_history_is_an_empty_one(tmp_path):
    history = read_history(tmp_path / "none")
    assert (history.acts, history.whole_bytes) == ((), 0)


def test_bundle_is_stored_under_its_digest_and_nobody_may_write_to_it(registry, tiny):
    first = next(iter(tiny))
    stored = registry.bundle_path(first)
    for path in tiny[first].rglob("*"):
        if path.is_file():
            copy = stored / path.relative_to(tiny[first])
            assert copy.read_bytes() == path.read_bytes()
            assert copy.stat().st_mode & 0o777 == 0o444


def test_bundle_that_is_damaged_is_not_added(registry, tiny, tmp_path):
    damaged = Path(shutil.copytree(list(tiny.values())[2], tmp_path / "damaged"))
    (damaged / "forest.npz").write_bytes(b"")
    before = sorted(registry.path.rglob("*"))
    with pytest.raises(ModelError), registry.writing() as writer:
        writer.add(damaged)
    assert sorted(registry.path.rglob("*")) == before


def test_adding_again_mends_a_damaged_bundle(registry, tiny):
    first = next(iter(tiny))
    member = registry.bundle_path(first) / "members" / "member_00.ubj"
    member.chmod(0o644)
    member.write_bytes(b"")
    (registry.bundle_path(first) / "forest.npz").unlink()
    with registry.writing() as writer:
        assert writer.add(tiny[first]) == (first, False)
    assert member.read_bytes() == (tiny[first] / "members" / "member_00.ubj").read_bytes()
    assert (registry.bundle_path(first) / "forest.npz").is_file()
