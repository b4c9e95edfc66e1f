"""A writer that is killed in front of the n-th thing that it asks of the disk, for every n.

    python -m tests.registry.dying ACT FOLDER BUNDLE…

FOLDER/start is the registry before the act; for n = 0, 1, … a copy of it is made at FOLDER/<n> and a child
does the act there, until one gets to the end. A write is cut in half before its process dies. Printed is the
number of copies whose writer died.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpuscalp.registry import Registry
from gpuscalp.registry.promotion import prune
from gpuscalp.registry.store import Writer

STEPS = ("open", "write", "fsync", "ftruncate", "rename", "replace", "mkdir", "rmdir", "unlink", "chmod")

ACTS: dict[str, Callable[[Writer, list[str], list[Path]], object]] = {
    "add": lambda writer, there, bundles: writer.add(bundles[-1]),
    "mend": lambda writer, there, bundles: writer.add(bundles[0]),
    "promote": lambda writer, there, bundles: writer.promote("champion", there[-1]),
    "rollback": lambda writer, there, bundles: writer.rollback("champion"),
    "pin": lambda writer, there, bundles: writer.pin(there[-1]),
}


def die_at(count: int) -> None:
    """Let this process be killed in front of its step number ``count``."""
    left = [count]

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **named: Any) -> Any:
            if left[0] == 0:
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return real(*args, **named)

        return step

    for name in STEPS:
        setattr(os, name, wrapped(name, getattr(os, name)))


def main(act: str, folder: Path, bundles: list[Path]) -> int:
    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside the threads of BLAS, which sleep
    count = 0
    while True:
        shutil.copytree(folder / "start", folder / str(count))
        child = os.fork()
        if child == 0:
            registry = Registry(folder / str(count), clock=lambda: 1, who="dying")
            there = [act.new for act in registry.history().acts if act.action == "add" and act.new]
            die_at(count)
            if act == "prune":
                prune(registry, now_ns=1, really=True)
            else:
                with registry.writing() as writer:
                    ACTS[act](writer, there, bundles)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            return count
        assert os.WIFSIGNALED(status), f"step {count} of {act}: status {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL
        count += 1


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2]), [Path(word) for word in sys.argv[3:]]))
