"""A writer that is killed at any step leaves a whole registry: as it was before the act, or after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpuscalp.registry import ALIASES, Registry

ROOT = Path(__file__).resolve().parents[2]


def told(registry: Registry) -> dict[str, object]:
    """Return all that a reader can learn, apart from files that nobody can name."""
    history = registry.history()
    state = history.state()
    return {
        "acts": [(act.action, act.old, act.new, act.alias) for act in history.acts],
        "aliases": {alias: (state.current(alias), state.earlier(alias)) for alias in ALIASES},
        "pinned": state.pinned,
        "there": registry.digests(),
    }


def files(bundle: Path) -> dict[str, bytes]:
    return {
        path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(
    "act", ["add", pytest.param("mend", marks=pytest.mark.thorough), "promote", "rollback", "pin", "prune"]
)
def test_killed_writer_leaves_a_whole_registry(tiny, tmp_path, act):
    first, second, third = tiny
    start = Registry(tmp_path / "start", clock=lambda: 1, who="before")
    with start.writing() as writer:
        for digest in (first, second):
            writer.add(tiny[digest])
            writer.promote("champion", digest)
        writer.promote("shadow", first)
        if act == "prune":
            writer.add(tiny[third])
    damaged = start.bundle_path(first) / "members" / "member_00.ubj"
    if act == "mend":
        damaged.chmod(0o644)
        damaged.write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-m", "tests.registry.dying", act, str(tmp_path), *map(str, tiny.values())],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    deaths = int(done.stdout)
    assert deaths >= 3
    before, after = told(start), told(Registry(tmp_path / str(deaths)))
    assert before != after or act == "mend"
    # Between the two there are bundle and line apart: a bundle without its line was added all the same, one
    # with a line of its removal is still there. Either is whole, and the same act done again completes it.
    between = (
        [before | {"there": after["there"]}, after | {"there": before["there"]}]
        if act in ("add", "prune")
        else []
    )
    seen, whole = [], {digest: files(path) for digest, path in tiny.items()}
    for count in range(deaths):
        registry = Registry(tmp_path / str(count), clock=lambda: 2, who="after")
        found = told(registry)
        assert found in [before, after, *between], f"killed at step {count}"
        seen.append(found)
        for digest in registry.digests():
            if act != "mend" or digest != first:
                assert files(registry.bundle_path(digest)) == whole[digest]
        # The next writer takes the lock that died with its holder, and leaves nothing behind.
        with registry.writing() as writer:
            writer.pin(second, why="life goes on")
            if act == "mend":
                writer.add(tiny[first])
                assert files(registry.bundle_path(first)) == whole[first]
        assert registry.history().acts[-1].action == "pin" or act == "pin"
        assert not [path.name for path in (registry.path / "bundles").glob(".*")]
    assert before in seen
    assert after in seen or act == "mend"
