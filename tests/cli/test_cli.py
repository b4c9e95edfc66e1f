"""Exit codes, the two forms of an error, and what a start costs."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gpuscalp import __version__, errors
from gpuscalp.cli import app as app_module
from gpuscalp.cli import command_tree, output, run
from gpuscalp.cli.app import app

HEAVY = (
    "cupy",
    "matplotlib",
    "mlflow",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "rich",
    "scipy",
    "sklearn",
    "xgboost",
)


def _raise(error: BaseException):
    raise error


@pytest.fixture
def failing(monkeypatch):
    """Register a command ``fail`` for one test; it raises what ``failing(error)`` was given."""
    commands = list(app.registered_commands)

    def register(error: BaseException) -> None:
        @app.command("fail")
        def fail(json: output.JsonFlag = False) -> None:
            _raise(error)

        command_tree.cache_clear()

    yield register
    app.registered_commands[:] = commands
    command_tree.cache_clear()


def _families() -> list[type[errors.GpuscalpError]]:
    found = [errors.GpuscalpError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return found


@pytest.mark.parametrize("kind", _families())
def test_error_of_the_family_sets_the_exit_code_and_tells_all(kind, cli, failing):
    failing(kind("broken", where="file.toml", value=3, fix="mend it"))
    text = cli("fail")
    assert text.code == kind.exit_code
    assert text.stdout == ""
    assert text.stderr.startswith(f"Error: broken (code {kind.exit_code})\n")
    assert "where: file.toml" in text.stderr
    assert "fix: mend it" in text.stderr
    answer = cli("fail", "--json")
    assert answer.code == kind.exit_code
    assert json.loads(answer.stdout)["error"] == {
        "code": kind.exit_code,
        "kind": kind.__name__,
        "what": "broken",
        "where": "file.toml",
        "value": "3",
        "fix": "mend it",
    }


def test_unexpected_error_keeps_its_traceback_on_stderr(cli, failing):
    failing(KeyError("px"))
    answer = cli("fail", "--json")
    assert answer.code == 1
    assert json.loads(answer.stdout)["error"]["kind"] == "KeyError"
    assert "Traceback" in answer.stderr
    assert "unexpected KeyError" in cli("fail").stderr


def test_traceback_cannot_steer_the_terminal(cli, failing):
    failing(RuntimeError("\x1b]0;title\x07"))
    shown = cli("fail").stderr
    assert "\nRuntimeError: \\x1b]0;title\\x07\n" in shown
    assert "\x1b" not in shown


def test_interrupt_exits_130(cli, failing):
    failing(KeyboardInterrupt())
    assert cli("fail").code == 130
    error = json.loads(cli("fail", "--json").stdout)["error"]
    assert error["code"] == 130
    assert set(error) == {"code", "kind", "what", "where", "value", "fix"}


@pytest.mark.parametrize(
    "kind", [PermissionError, IsADirectoryError, FileNotFoundError, FileExistsError, OSError]
)
def test_refusal_of_the_system_is_told_without_a_traceback(kind, cli, failing):
    # A full disk printed forty lines of traceback and "this is a defect of gpuscalp".
    numbers = {PermissionError: 13, IsADirectoryError: 21, FileNotFoundError: 2, FileExistsError: 17}
    number = numbers.get(kind, 28)
    failing(kind(number, "refused", "some where/file"))
    answer = cli("fail", "--json")
    assert (answer.code, answer.stderr) == (1, "")
    error = json.loads(answer.stdout)["error"]
    assert (error["kind"], error["where"]) == (kind.__name__, "some where/file")
    assert error["fix"]
    assert "Traceback" not in cli("fail").stderr


def test_full_disk_under_stdout_is_reported_on_stderr():
    code = "import sys; from gpuscalp.cli import run; sys.exit(run(['version', '--json']))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert done.stderr.splitlines() == [
        "Error: the system refused: No space left on device (code 1)",
        "  where: standard output",
        "  fix: free some space, then run the command again",
    ]


@pytest.mark.parametrize("streams", [">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_exit_code_outlives_streams_that_take_nothing(streams):
    """Whoever watches over a session saw a defect where a disk was full, or nobody had opened them."""
    words = f"{sys.executable} -m gpuscalp model show /nope --json"
    command = ["sh", "-c", f"{words} {streams}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (errors.UsageError.exit_code, "")


@pytest.mark.parametrize(
    ("words", "where"),
    [(("--out", "runs/a"), "runs/a"), (("--out=runs/a",), "runs/a"), ((), None)],
)
def test_write_that_is_refused_says_where_and_nothing_twice(words, where, monkeypatch, capsys):
    """What is already open is not named by the system: nobody knew which disk is full."""

    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gpuscalp.cli.command_tree", lambda: SimpleNamespace(main=full))
    assert run(["train", "archive", *words, "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["what"], error["where"], error["value"]) == (
        "the system refused: No space left on device",
        where,
        None,
    )


def test_misspelled_command_of_a_group_with_a_default_is_told_of(cli, tmp_path, monkeypatch):
    """`backtest shw RUN` was a backtest of the archive shw, with one word too many."""
    monkeypatch.chdir(tmp_path)
    answer = cli("backtest", "shw", "run-7")
    assert answer.code == 2
    assert "'shw'" in answer.stderr
    assert "Did you mean 'show'?" in answer.stderr
    (tmp_path / "shw").mkdir()  # it may be an archive all the same
    assert "Did you mean" not in cli("backtest", "shw").stderr
    assert "gpuscalp backtest run" in cli("backtest", "--help").stdout


def test_value_out_of_a_file_cannot_steer_the_terminal(cli, failing):
    failing(errors.DataError("not readable", value="\x1b]0;title\x07\x9b1m\nnext"))
    shown = cli("fail").stderr
    assert "\\x1b]0;title\\x07\\x9b1m\\nnext" in shown
    assert "\x1b" not in shown


def test_text_of_others_in_an_answer_is_no_markup_and_cannot_steer_the_terminal(monkeypatch, capsys):
    """Cells were read as markup: a path in brackets was a traceback. Escape sequences were passed on."""
    foreign, shown = "[/data] [bold]:smile: \x1b]0;t\x9b", r"[/data] [bold]:smile: \x1b]0;t\x9b"

    def table():
        drawn = Table(foreign, title=foreign)
        drawn.add_row(Text(foreign, style="bold"))
        return Group(drawn, foreign)

    output.emit({}, json=False, text=table)
    text = capsys.readouterr().out
    assert text.count(shown) == 4
    assert text.replace("\n", "").isprintable()
    output.emit({}, json=False, text=lambda: f"{foreign}\n\tnext")
    assert capsys.readouterr().out == f"{shown}\n\tnext\n"
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.emit({}, json=False, text=table)
    text = capsys.readouterr().out
    assert "\x1b[1m" in text  # our own colours are still there
    assert "\x1b]" not in text


def test_note_of_a_progress_is_no_markup(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with output.progress("Reading [/data]") as advance:
        advance(1, 2, "[/data] \x1b]0;title\x07")
    assert r"[/data] \x1b]0;title\x07" in capsys.readouterr().err


def test_text_that_stdout_cannot_take_is_escaped():
    code = "from gpuscalp.cli.output import emit; emit({}, json=False, text=lambda: 'a − b')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stdout) == (0, "a \\u2212 b\n")


@pytest.mark.parametrize("words", [["nonsense"], ["version", "--nonsense"], ["data", "nonsense"]])
def test_wrong_usage_exits_2_in_both_forms(words, cli):
    text = cli(*words)
    assert (text.code, text.stdout) == (2, "")
    assert "(code 2)" in text.stderr
    answer = cli(*words, "--json")
    assert answer.code == 2
    assert json.loads(answer.stdout)["error"]["code"] == 2


def test_no_words_print_the_help_and_exit_2(capfd):
    assert run([]) == 2
    captured = capfd.readouterr()
    assert "Usage: gpuscalp" in captured.out + captured.err


def test_version_agrees_in_every_form(cli):
    assert cli("--version").stdout == f"gpuscalp {__version__}\n"
    answer = json.loads(cli("version", "--json").stdout)
    assert answer["gpuscalp"] == __version__
    assert answer["packages"]["numpy"] == np.__version__
    assert cli("version").stdout.split()[:2] == ["gpuscalp", __version__]


def test_json_answer_takes_what_programs_return():
    answer = {
        "count": np.int64(3),
        "ratio": np.float64(0.5),
        "column": np.array([1.0, np.nan], dtype=np.float32),
        "path": Path("a/b"),
        "not_a_number": float("nan"),
    }
    assert json.loads(output.to_json(answer)) == {
        "count": 3,
        "ratio": 0.5,
        "column": [1.0, None],
        "path": "a/b",
        "not_a_number": None,
    }
    with pytest.raises(TypeError, match="no JSON form"):
        output.to_json({"x": object()})


def test_name_that_is_not_utf_8_is_told_in_json(cli):
    """It ended in a traceback, and with the code of a defect."""
    answer = cli("status", "a\udcffb", "--json")
    assert answer.code == errors.UsageError.exit_code
    assert json.loads(answer.stdout)["error"]["where"] == r"a\udcffb"
    taken = {"paths": [Path("a\udcffb")], "a\udcffb": (np.float32(0.5), float("nan"))}
    assert json.loads(output.to_json(taken)) == {"paths": [r"a\udcffb"], r"a\udcffb": [0.5, None]}


def test_progress_is_silent_without_a_terminal(capsys):
    with output.progress("Reading") as advance:
        advance(1, 2, "note")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_every_command_file_is_registered():
    files = {path.stem for path in Path(app_module.__file__).parent.glob("*.py")}
    assert files - {"__init__", "app", "output", "session_words", "words"} == set(app_module.COMMAND_MODULES)


def imported_by(*words: str) -> set[str]:
    run = f"import sys; from gpuscalp.cli import run; run({list(words)})"
    code = f"{run}; sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_imports_nothing_heavy():
    assert not set(HEAVY) & imported_by("--help")


def test_look_for_a_gpu_waits_for_no_kernels():
    """Every start of a session makes it in a process of its own, which imported all that the doctor needs."""
    assert "numba" not in imported_by("device", "--device", "cpu")


def test_help_starts_within_a_third_of_a_second():
    def seconds(*words: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        return time.perf_counter() - started

    # The best of several: on a busy machine only the minimum says something about the program. The bare
    # interpreter, timed beside it, tells a slow machine from a slow start; a quarter of a second of work, how
    # much longer things take where others want the processors as well.
    work = "import time\nwhile time.process_time() < 0.25: pass"
    bare, busy, full = [], [], []
    for _ in range(12):
        bare.append(seconds("-c", "pass"))
        busy.append(seconds("-c", work))
        full.append(seconds("-m", "gpuscalp", "--help"))
        if min(full) < 0.3:
            return
    assert min(full) < min(busy) + 5 * min(bare)


# Kernels ----------------------------------------------------------------------------------------------------


def first_use(cache: Path, **streams: Any) -> bytes:
    """Return what is written to stdout by a command, and then by the use of a kernel in its process."""
    code = (
        "from gpuscalp.cli import run; run(['version', '--json']);"
        "from gpuscalp.ops.elementary import exp, log; exp(log(2.0))"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    words = [sys.executable, "-c", code]
    return subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, **streams).stdout


def test_terminal_is_told_once_that_kernels_are_compiled(tmp_path):
    """A first run seemed to stand still."""
    told = []
    for _ in range(2):
        ours, theirs = os.openpty()
        assert json.loads(first_use(tmp_path / "cache", stderr=theirs))["gpuscalp"] == __version__
        os.write(theirs, b"end\n")
        text = b""
        while not text.endswith(b"end\r\n"):
            text += os.read(ours, 10_000)
        told.append(text.splitlines())
        os.close(ours)
        os.close(theirs)
    assert told == [[b"Compiling kernels for this processor, once: it may take a minute", b"end"], [b"end"]]


def test_nobody_but_a_terminal_is_told_that_kernels_are_compiled(tmp_path):
    with (tmp_path / "stderr").open("w+b") as file:
        first_use(tmp_path / "cache", stderr=file)
        assert file.seek(0, os.SEEK_END) == 0
