"""Runs a piece of Python in a process whose host kernels are watched by the address sanitizer.

It finds loads outside an array, which leave no trace that the guards could show, and undefined behaviour that
a GPU and a CPU resolve differently (overflow, a float converted to an integer that cannot hold it).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.host_shim.build import compiler

ROOT = Path(__file__).resolve().parents[2]


def run_sanitized(code: str, *, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run ``code`` with the sanitizers' runtime preloaded; kernels must be built with ``watch="memory"``."""
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(_runtime(name) for name in ("libasan.so", "libubsan.so")),
        # The interpreter frees nothing at its end; a fibre's stack is none that the sanitizer knows.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=0:exitcode=86",
        "UBSAN_OPTIONS": "print_stacktrace=0:exitcode=86",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def sanitizer_missing() -> str | None:
    """Return why sanitized runs are impossible here, or ``None``."""
    if compiler() is None:
        return "there is no g++"
    for name in ("libasan.so", "libubsan.so"):
        if not Path(_runtime(name)).is_absolute():
            return f"g++ has no {name}"
    return None


def _runtime(name: str) -> str:
    """Return the full path of a runtime of ``g++``; the bare name where it has none."""
    found = subprocess.run(
        [compiler() or "g++", f"-print-file-name={name}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return found.stdout.strip()
