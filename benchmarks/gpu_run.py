"""``make gpu``: benchmarks, tests and sanitizers on a GPU, and a verdict: ``python -m benchmarks.gpu_run``.

Each is a process of its own, so that none hides what the next would have said. At the end one table says of
each bar whether it was met; it is in the file of results too, as it stands after each process. Exit code: 0
all bars are met, 1 one was missed or there is no GPU, 3 none was missed and one was not measured. Ctrl-C and
SIGTERM end the process that runs, which may still say what it has found, and leave the file. With
``--parts`` some run alone, and the day's file keeps what it has of others. What follows ``--`` is for pytest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.__main__ import part_names, result_name, write
from benchmarks.bars import PARTS, SANITIZER_CODE, Bar, bars, documents, exit_code, table
from benchmarks.environment import ROOT, environment
from gpuscalp.stop_signals import stopped_as_interrupted

TOOLS: Final = ("memcheck", "racecheck")
_TESTS: Final = ("-m", "pytest", "-m", "gpu")
# Who is interrupted gets so long: a round of XGBoost over 1e8 rows takes seconds, and hears nothing.
_GRACE_S: Final = 10.0


@stopped_as_interrupted()
def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runs = [*PARTS, *part_names(), "tests", *TOOLS]
    parser.add_argument("--parts", nargs="*", choices=runs, default=[], metavar="NAME", help=", ".join(runs))
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
    wanted = arguments.parts or [*PARTS, "tests", *TOOLS]
    if not arguments.parts:
        out.unlink(missing_ok=True)  # an older one of the same day would stand for what does not run
    result: dict[str, Any] = {"environment": found}
    try:
        if measured := [name for name in wanted if name not in ("tests", *TOOLS)]:
            options = ["--minutes", str(arguments.minutes), "--add", "--out", str(out)]
            _run(["-m", "benchmarks", *measured, *options])
    finally:
        if out.exists():
            result = json.loads(out.read_text(encoding="utf-8"))
        verdict = _judge(result, out)
    if "tests" in wanted:
        result["gpu_tests"] = {"exit_code": _run([*_TESTS, *arguments.pytest]), "commit": found["commit"]}
        verdict = _judge(result, out)
    for tool in TOOLS:
        if tool in wanted:
            ended = _sanitize(tool, arguments.sanitizer_minutes) | {"commit": found["commit"]}
            result["sanitizers"] = result.get("sanitizers", {}) | {tool: ended}
            verdict = _judge(result, out)
    print(f"\n{table(verdict)}\n\n{out}")
    return exit_code(verdict)


def _judge(result: dict[str, Any], out: Path) -> list[Bar]:
    """Hold the bars against what there is, and write both."""
    verdict = bars(result)
    result["bars"] = documents(verdict)
    write(out, result)
    return verdict


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
    except KeyboardInterrupt:
        # In its own session it has heard nothing. pytest, for one, tells of what has failed so far.
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)
            process.wait(_GRACE_S)
        raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the sanitizer's program as well
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
