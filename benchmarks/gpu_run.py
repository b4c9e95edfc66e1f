"""``make gpu``: benchmarks, tests and sanitizers on a GPU, and a verdict: ``python -m benchmarks.gpu_run``.

Each is a process of its own, so that none hides what the next would have said. At the end one table says of
each bar whether it was met; it is in the file of results too. Exit code: 0 all bars are met, 1 one was missed
or there is no GPU, 3 none was missed and one was not measured. What follows ``--`` is for pytest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.__main__ import result_name, write
from benchmarks.bars import PARTS, SANITIZER_CODE, bars, documents, exit_code, table
from benchmarks.environment import ROOT, environment

TOOLS: Final = ("memcheck", "racecheck")
_TESTS: Final = ("-m", "pytest", "-m", "gpu")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of results")
    parser.add_argument("--minutes", type=float, default=1.0, help="of stepping, for the slope of the memory")
    parser.add_argument("--sanitizer-minutes", type=float, default=30.0, help="at most, of each sanitizer")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest")
    arguments = parser.parse_args()
    found = environment()
    if not found["cuda"]["usable"]:  # type: ignore[index]
        print(f"no GPU: {found['cuda']['error']['what']}", file=sys.stderr)  # type: ignore[index]
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    out = arguments.out / result_name(found)
    out.unlink(missing_ok=True)  # an older one of the same day would stand for what does not run
    _run(["-m", "benchmarks", *PARTS, "--minutes", str(arguments.minutes), "--out", str(out)])
    result: dict[str, Any] = {"environment": found}
    if out.exists():
        result = json.loads(out.read_text(encoding="utf-8"))
    result["gpu_tests"] = {"exit_code": _run([*_TESTS, *arguments.pytest])}
    result["sanitizers"] = {}
    for tool in TOOLS:
        result["sanitizers"][tool] = _sanitize(tool, arguments.sanitizer_minutes)
    verdict = bars(result)
    result["bars"] = documents(verdict)
    write(out, result)
    print(f"\n{table(verdict)}\n\n{out}")
    return exit_code(verdict)


def _sanitize(tool: str, minutes: float) -> dict[str, Any]:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        return {"skipped": "compute-sanitizer is not on the PATH"}
    # Under it a test takes many times as long as the limit that is meant for it.
    before = [sanitizer, "--tool", tool, "--error-exitcode", str(SANITIZER_CODE)]
    code = _run([*_TESTS, "--timeout", "0", "tests/ops"], before, 60.0 * minutes)
    return {"skipped": f"ended after {minutes:g} minutes"} if code is None else {"exit_code": code}


def _run(arguments: list[str], before: list[str] | None = None, limit_s: float | None = None) -> int | None:
    """Run Python, and return how it ended; None where it was ended after so many seconds."""
    command = [*(before or []), sys.executable, *arguments]
    print(" ".join(command), file=sys.stderr)
    surroundings = os.environ | {"GPUSCALP_REQUIRE_GPU": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=surroundings, start_new_session=True)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the sanitizer's program as well
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
