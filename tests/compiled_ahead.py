"""Every kernel of the CPU is compiled once in a whole run of the tests, and not by all processes at once.

What a session needs is compiled into an empty folder while the tests are collected: else every session that a
test starts would stand still for half a minute at its first message. What the test of ``gpuscalp.warm`` asks
for is done on the way: see ``tests/test_warm.py``. Of the other kernels one worker compiles each, and the
others wait for it.

The controller of a run calls ``begin`` before it starts its workers, each of them ``wait`` before its first
test that may need a kernel. They wait for locks, which are let go when the process that compiles ends,
however it ends.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Where the run's own compilation leaves its answer; inherited by the worker processes.
ANSWER = "GPUSCALP_TEST_COMPILED"
_COMPILE = """
import json
from gpuscalp.doctor.compiled import read_kernel_cache
from gpuscalp.warm import compile_cpu
before = read_kernel_cache().compiled
compile_cpu()
print(json.dumps([before, read_kernel_cache().compiled]))
"""


def compile_into(folder: Path) -> list[bool]:
    """Compile in a process of its own whose cache is a folder; return whether it was there before, and is."""
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    found: list[bool] = json.loads(done.stdout)
    return found


def begin() -> subprocess.Popen[bytes]:
    """Start compiling, unless what is needed is there already; return the process, for ``end``."""
    cache = Path(os.environ["NUMBA_CACHE_DIR"])
    cache.mkdir(parents=True, exist_ok=True)
    answer = cache / f"compiled-ahead-{os.getpid()}.json"
    with _locked(cache, fcntl.LOCK_EX) as lock:
        command = [sys.executable, "-m", "tests.compiled_ahead", str(answer)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[lock], **quiet)
    os.environ[ANSWER] = str(answer)
    return process


@functools.cache
def wait() -> None:
    """Wait until what ``begin`` has started is done; from then on compile nothing twice."""
    if ANSWER not in os.environ:
        return
    cache = Path(os.environ[ANSWER]).parent
    with _locked(cache, fcntl.LOCK_SH):
        pass
    from numba.core.caching import NullCache
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.dispatcher import Dispatcher

    compile_here = Dispatcher.compile

    def compile_once(self: Any, sig: Any) -> Any:
        if isinstance(self._cache, NullCache):
            return compile_here(self, sig)
        # In the order in which Numba takes its own. Kernels call each other in one direction: nobody waits in
        # a circle. Who has waited finds the kernel in the cache.
        name = f"{self.py_func.__module__}.{self.py_func.__qualname__}"
        with global_compiler_lock, _locked(cache, fcntl.LOCK_EX, name):
            return compile_here(self, sig)

    Dispatcher.compile = compile_once


def answer_of_run() -> list[bool] | None:
    """Return what ``compile_into`` said of an empty folder at the beginning of this run, if it was called."""
    path = Path(os.environ.get(ANSWER, ""))
    return json.loads(path.read_text()) if path.is_file() else None


def end(process: subprocess.Popen[bytes]) -> None:
    """End what is still going on, and forget the answer."""
    process.terminate()
    process.wait()
    Path(os.environ.pop(ANSWER)).unlink(missing_ok=True)


@contextmanager
def _locked(cache: Path, how: int, name: str = "all") -> Iterator[int]:
    """Lock something in the cache; who has inherited the descriptor goes on holding the lock."""
    (cache / "locks").mkdir(exist_ok=True)
    descriptor = os.open(cache / "locks" / name, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


def _main(answer: Path) -> None:
    from gpuscalp.ops._numba import compiled_mark
    from gpuscalp.warm import compile_missing

    if compiled_mark().exists():
        return
    cache = answer.parent
    with tempfile.TemporaryDirectory(dir=cache, prefix="compiled-ahead-") as folder:
        told = compile_into(Path(folder))
        for index in Path(folder).rglob("*.nbi"):
            target = cache / index.relative_to(folder)
            if target.exists():
                continue  # it numbers its own files
            target.parent.mkdir(parents=True, exist_ok=True)
            # Numba's index of a function comes after the code that it names.
            for path in (*index.parent.glob(f"{index.stem}.*.nbc"), index):
                path.replace(target.parent / path.name)
    compile_missing()  # what was there and is of another time; it leaves the mark
    answer.write_text(json.dumps(told))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
